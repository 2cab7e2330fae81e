"""Condition: are the generated ECGs as high as the real ones, lead by lead?"""

import numpy as np
from jaxtyping import Float, Shaped

from ecgtwin_jax.data.leads import LEADS
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import Metric, bootstrap_interval

_LEVEL = "condition"


def peak_to_peak(
  signals: Float[np.ndarray, "*b t leads"],
) -> Float[np.ndarray, "*b leads"]:
  """max - min over time, mV."""
  return np.ptp(signals, axis=-2).astype(np.float64)


def measure(examples: Examples, *, seed: int = 0) -> list[Metric]:
  """Mean peak-to-peak of the generated ECGs over that of the real ones.

  Of each lead, of all leads together, and of what the autoencoder makes of the
  real ones.

  Args:
    examples: what is judged; every sample counts.
    seed: of the bootstrap.
  """
  real = peak_to_peak(examples.real)
  twins = peak_to_peak(examples.twins).mean(axis=1)
  patients = examples.patients
  decoded = None
  note = "1: as high as the real ones under the same conditions"
  if examples.decoded is not None:
    decoded = peak_to_peak(examples.decoded)
    note += "; floor: the real ones after the autoencoder"
  metrics = []
  for name, leads in {"": range(len(LEADS)), **_each_lead()}.items():
    own = real[:, leads].sum(axis=1)
    floor = float("nan")
    if decoded is not None:
      floor = float(decoded[:, leads].sum() / own.sum())
    value, low, high = _ratio(twins[:, leads].sum(axis=1), own, patients, seed)
    metrics.append(
      Metric(
        f"amplitude_ratio{name}",
        value,
        low,
        high,
        floor,
        len(own),
        _LEVEL,
        note,
      )
    )
  if decoded is not None:
    value, low, high = _ratio(
      decoded.sum(axis=1), real.sum(axis=1), patients, seed
    )
    metrics.append(
      Metric(
        "amplitude_ratio_decoded",
        value,
        low,
        high,
        1.0,
        len(real),
        _LEVEL,
        "real ECGs after the autoencoder over the real ones, all leads",
      )
    )
  return metrics


def _each_lead():
  return {f"_{lead}": [i] for i, lead in enumerate(LEADS)}


def _ratio(
  above: Float[np.ndarray, " n"],
  below: Float[np.ndarray, " n"],
  patients: Shaped[np.ndarray, " n"],
  seed: int,
) -> tuple[float, float, float]:
  """sum(above) / sum(below) with its interval; NaN where there is nothing."""

  def ratio(rows):
    total = below[rows].sum()
    return float(above[rows].sum() / total) if total > 0 else float("nan")

  every = np.arange(len(below))
  return ratio(every), *bootstrap_interval(ratio, patients, seed=seed)


def draw(examples: Examples):
  """Peak-to-peak of generated against real ECGs, a panel per lead.

  Returns:
    A matplotlib Figure.
  """
  from matplotlib.figure import Figure

  real = peak_to_peak(examples.real)
  twins = peak_to_peak(examples.twins).mean(axis=1)
  figure = Figure(figsize=(11, 8), layout="constrained")
  axes = figure.subplots(3, 4)
  for index, (lead, axis) in enumerate(zip(LEADS, axes.flat, strict=True)):
    x, y = real[:, index], twins[:, index]
    high = 1.05 * max(np.quantile(x, 0.99), np.quantile(y, 0.99), 0.1)
    axis.plot([0, high], [0, high], color="0.6", linewidth=1)
    axis.scatter(x, y, s=8, alpha=0.5, linewidths=0, color="#0072b2")
    ratio = y.sum() / x.sum() if x.sum() else float("nan")
    axis.set(xlim=(0, high), ylim=(0, high), title=f"{lead}: {ratio:.2f}")
    axis.set_aspect("equal")
  figure.supxlabel("real, peak to peak, mV")
  figure.supylabel("generated, mean of the samples, mV")
  return figure
