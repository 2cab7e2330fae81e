"""Are the generated ECGs as high as the real ones, lead by lead?"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from ecgtwin_jax.data.leads import LEADS
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import (
  NAN,
  Metric,
  bootstrap_interval,
  direction,
)

if TYPE_CHECKING:
  import matplotlib.figure

_LEVEL = "fidelity"


class Amplitudes(NamedTuple):
  """Peak to peak of each row and lead, mV.

  Attributes:
    real: those of the real ECGs.
    generated: mean over a row's generated ones.
    decoded: those of the real ones after the autoencoder; None: not measured.
    patients: dense number of each row's patient.
  """

  real: Float[np.ndarray, "n 12"]
  generated: Float[np.ndarray, "n 12"]
  decoded: Float[np.ndarray, "n 12"] | None
  patients: Shaped[np.ndarray, " n"]


def peak_to_peak(
  signals: Float[np.ndarray, "*b t leads"],
) -> Float[np.ndarray, "*b leads"]:
  """max - min over time, mV."""
  return np.ptp(signals, axis=-2).astype(np.float64)


def compute(examples: Examples) -> Amplitudes:
  """Measures all ECGs; every sample counts."""
  decoded = examples.decoded
  return Amplitudes(
    peak_to_peak(examples.real),
    peak_to_peak(examples.twins).mean(axis=1),
    None if decoded is None else peak_to_peak(decoded),
    examples.patients,
  )


def metrics(amplitudes: Amplitudes, *, seed: int = 0) -> list[Metric]:
  """Mean peak-to-peak of the generated ECGs over that of the real ones.

  Of each lead, of all leads together, and of what the autoencoder makes of the
  real ones, which is the reference.

  Args:
    amplitudes: what `compute` returns.
    seed: seed of the bootstrap.
  """
  real, generated, decoded, patients = amplitudes
  note = "best at 1: as high as the real ones under the same conditions"
  if decoded is not None:
    note += "; reference: the real ones after the autoencoder"
  rows = []
  for name, leads in {"": range(len(LEADS)), **_each_lead()}.items():
    below = real[:, leads].sum(axis=1)
    reference = 1.0
    if decoded is not None and below.sum() > 0:
      reference = float(decoded[:, leads].sum() / below.sum())
    rows.append(
      _ratio(
        f"amplitude_ratio{name}",
        generated[:, leads].sum(axis=1),
        below,
        patients,
        seed,
      )._replace(reference=reference, note=note)
    )
  if decoded is not None:
    name = "amplitude_ratio_decoded"
    both = decoded.sum(axis=1), real.sum(axis=1)
    note = "real ECGs after the autoencoder over the real ones, all leads"
    row = _ratio(name, *both, patients, seed)
    rows.append(row._replace(reference=1.0, note=f"{note}; best at 1"))
  return rows


def _each_lead():
  return {f"_{lead}": [i] for i, lead in enumerate(LEADS)}


def _ratio(name, above, below, patients, seed):
  """sum(above) / sum(below) with its interval; NaN where there is nothing."""

  def ratio(rows):
    total = below[rows].sum()
    return float(above[rows].sum() / total) if total > 0 else NAN

  value = ratio(np.arange(len(below)))
  low, high = bootstrap_interval(ratio, patients, seed=seed)
  better = direction(value, 1.0)
  n = len(below)
  return Metric(name, value, low, high, NAN, NAN, better, n, _LEVEL)


def draw(amplitudes: Amplitudes) -> "matplotlib.figure.Figure":
  """Peak-to-peak of generated against real ECGs, a panel per lead.

  Returns:
    A matplotlib Figure.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(11, 8), layout="constrained")
  axes = figure.subplots(3, 4)
  for index, (lead, axis) in enumerate(zip(LEADS, axes.flat, strict=True)):
    x, y = amplitudes.real[:, index], amplitudes.generated[:, index]
    high = 1.05 * max(np.quantile(x, 0.99), np.quantile(y, 0.99), 0.1)
    axis.plot([0, high], [0, high], color="0.6", linewidth=1)
    axis.scatter(x, y, s=8, alpha=0.5, linewidths=0, color="#0072b2")
    ratio = y.sum() / x.sum() if x.sum() else NAN
    axis.set(xlim=(0, high), ylim=(0, high), title=f"{lead}: {ratio:.2f}")
    axis.set_aspect("equal")
  figure.supxlabel("real, peak to peak, mV")
  figure.supylabel("generated, mean of the samples, mV")
  return figure
