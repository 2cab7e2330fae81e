"""Is the heart rate the one that was asked for?"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from ecgtwin_jax.data.ecg import MODEL_RATE
from ecgtwin_jax.data.heart_rate import detect_heart_rate
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import (
  NAN,
  Metric,
  bootstrap_interval,
  direction,
  mean_metric,
  mean_of,
  missing,
)
from ecgtwin_jax.evaluation.resampling import rows_of_others

if TYPE_CHECKING:
  import matplotlib.figure

# bpm between the asked rate and the reference's: a copy of the reference is
# right where they are equal.
CHANGES = {
  "change_under_10": (0.0, 10.0),
  "change_10_to_30": (10.0, 30.0),
  "change_over_30": (30.0, float("inf")),
}
_STRANGERS = 10  # other patients per rate, for a baseline
_LEVEL = "condition"


class Rates(NamedTuple):
  """Heart rates in bpm, a row per target.

  Attributes:
    requested: heart rates of the conditions.
    reference: heart rates of the references' conditions.
    real: found in the real ECGs; NaN where none was found.
    generated: {"twin" or "shuffled_text": (n, k)} found in the generated ECGs.
    patients: dense number of each row's patient.
    failed_as: bpm that a failed detection counts as; NaN: left out and counted.
  """

  requested: Float[np.ndarray, " n"]
  reference: Float[np.ndarray, " n"]
  real: Float[np.ndarray, " n"]
  generated: dict[str, Float[np.ndarray, "n _"]]
  patients: Shaped[np.ndarray, " n"]
  failed_as: float = NAN


def detect_rates(
  signals: Float[np.ndarray, "*b t leads"], *, published_protocol: bool = False
) -> Float[np.ndarray, "*b"]:
  """Heart rates of ECGs at 102.4 Hz, bpm; NaN where no two beats are found.

  Args:
    signals: ECGs in mV.
    published_protocol: XQRS at 102.4 Hz on leads in turn, which takes T waves
      for beats; without it a detector on all leads together, eight times as
      fast.
  """
  method = "xqrs" if published_protocol else "energy"
  rates = [
    detect_heart_rate(signal, MODEL_RATE, method, MODEL_RATE)
    for signal in signals.reshape(-1, *signals.shape[-2:])
  ]
  return np.array(rates, np.float64).reshape(signals.shape[:-2])


def compute(examples: Examples, *, published_protocol: bool = False) -> Rates:
  """The rates that were asked for, and those of the real and generated ECGs.

  Of the ablations, shuffled_text alone.

  Args:
    examples: real and generated ECGs; every sample counts.
    published_protocol: XQRS at 102.4 Hz; a failed detection counts as 0 bpm;
      the real ECGs are those after the autoencoder.

  Raises:
    ValueError: the published protocol has no decoded ECGs to look at.
  """
  real = examples.real
  if published_protocol:
    if examples.decoded is None:
      raise ValueError("published_protocol needs examples.decoded, not None")
    real = examples.decoded
  variants = [a for a in ("twin", "shuffled_text") if a in examples.generated]

  def detect(signals):
    return detect_rates(signals, published_protocol=published_protocol)

  return Rates(
    np.array([c.heart_rate for c in examples.conditions]),
    np.array([c.heart_rate for c in examples.reference_conditions]),
    detect(real),
    {variant: detect(examples.generated[variant]) for variant in variants},
    examples.patients,
    0.0 if published_protocol else NAN,
  )


def metrics(rates: Rates, *, seed: int = 0) -> list[Metric]:
  """Mean absolute error, bias, slope and failures; the detector's own beside.

  The baseline is the twin given another row's condition, or where that was not
  generated the rates of other patients; the reference is the detector's own
  error, on real ECGs.

  Args:
    rates: what `compute` returns.
    seed: seed that draws the strangers, and of the bootstrap.
  """
  failures = _failures(rates, seed)
  rates = rates._replace(
    real=np.where(np.isnan(rates.real), rates.failed_as, rates.real),
    generated={
      variant: np.where(np.isnan(detected), rates.failed_as, detected)
      for variant, detected in rates.generated.items()
    },
  )
  twin, real = _pairs(rates, "twin"), _pairs(rates, "real")
  wrong, words = _baseline(rates, seed)
  words += "; reference: real ECGs"
  bias = _bias("heart_rate_bias_bpm", twin, "found less asked", seed)
  rows = [
    _error("mae_bpm", twin, wrong, real, words, seed),
    bias._replace(
      reference=mean_of(real.detected - real.requested),
      note=f"{bias.note}; reference: real ECGs",
    ),
    _slope("heart_rate_slope", twin, words, seed)._replace(
      baseline=_slope_of(wrong.detected, wrong.requested),
      reference=_slope_of(real.detected, real.requested),
    ),
    failures,
  ]
  for name, ends in CHANGES.items():
    distance = name.removeprefix("change_").replace("_", " ")
    chosen = (pairs.where(*ends) for pairs in (twin, wrong, real))
    note = f"asked {distance} bpm from the reference's; {words}"
    rows.append(_error(f"mae_bpm_{name}", *chosen, note, seed))
  of_detector = "the detector's own, on real ECGs"
  return [
    *rows,
    _error("mae_bpm_real", real, None, None, of_detector, seed),
    _bias("heart_rate_bias_bpm_real", real, of_detector, seed),
    _slope("heart_rate_slope_real", real, of_detector, seed),
  ]


class _Pairs(NamedTuple):
  """Rates found and asked for, one after the other."""

  detected: np.ndarray
  requested: np.ndarray
  change: np.ndarray  # |asked less the reference's|
  patients: np.ndarray

  def where(self, low, high):
    chosen = (low <= self.change) & (self.change < high)
    return _Pairs(*(column[chosen] for column in self))


def _pairs(rates, variant, requested=None):
  detected = (
    rates.real[:, None] if variant == "real" else rates.generated[variant]
  )
  columns = (
    rates.requested if requested is None else requested,
    np.abs(rates.requested - rates.reference),
    rates.patients,
  )
  return _Pairs(
    detected.ravel(),
    *(np.repeat(column, detected.shape[1]) for column in columns),
  )


def _baseline(rates, seed):
  """Where the rate found cannot know the one asked for; and in words."""
  if "shuffled_text" in rates.generated:
    words = "baseline: the twin given another row's condition"
    return _pairs(rates, "shuffled_text"), words
  patients = rates.patients
  if len(np.unique(patients)) < 2:
    return _Pairs(*[np.zeros(0)] * 4), "no baseline: one patient"
  draws = [
    _pairs(rates, "twin", rates.requested[rows_of_others(patients, s)])
    for s in range(_STRANGERS * seed, _STRANGERS * (seed + 1))
  ]
  words = "baseline: against the rates of other patients"
  return _Pairs(*map(np.concatenate, zip(*draws, strict=True))), words


def _error(name, pairs, wrong, real, note, seed):
  return mean_metric(
    f"heart_rate_{name}",
    np.abs(pairs.detected - pairs.requested),
    pairs.patients,
    _LEVEL,
    better="lower",
    baseline=_mean_error(wrong),
    reference=_mean_error(real),
    note=note,
    seed=seed,
  )


def _mean_error(pairs):
  return (
    NAN if pairs is None else mean_of(np.abs(pairs.detected - pairs.requested))
  )


def _bias(name, pairs, note, seed):
  errors = pairs.detected - pairs.requested
  return mean_metric(
    name,
    errors,
    pairs.patients,
    _LEVEL,
    better=direction(mean_of(errors), 0.0),
    note=f"{note}; best at 0",
    seed=seed,
  )


def _failures(rates, seed):
  twin = _pairs(rates, "twin")
  return mean_metric(
    "heart_rate_failed_share",
    np.isnan(twin.detected).astype(float),
    twin.patients,
    _LEVEL,
    better="lower",
    reference=float(np.isnan(rates.real).mean()),
    note="no two beats found; reference: in real ECGs",
    seed=seed,
  )


def _slope_of(detected, requested):
  good = np.isfinite(detected)
  detected, requested = detected[good], requested[good]
  if len(requested) < 3 or np.ptp(requested) == 0:
    return NAN
  centred = requested - requested.mean()
  return float(centred @ detected / (centred @ centred))


def _slope(name, pairs, note, seed):
  """Least squares: detected = a + slope * asked."""
  good = np.isfinite(pairs.detected)
  detected, requested, _, patients = (column[good] for column in pairs)
  slope = _slope_of(detected, requested)
  if np.isnan(slope) or 2 * len(detected) < len(good):
    why = "needs 3 rates that were found, asked for differently"
    if 2 * len(detected) < len(good):
      why = f"{len(good) - len(detected)} of {len(good)} failed"
    return missing(name, _LEVEL, why, len(detected), better="higher")
  low, high = bootstrap_interval(
    lambda rows: _slope_of(detected[rows], requested[rows]), patients, seed=seed
  )
  note = f"of the rate found on that asked for; best at 1; {note}"
  better, n = direction(slope, 1.0), len(detected)
  return Metric(name, slope, low, high, NAN, NAN, better, n, _LEVEL, note)


def draw(rates: Rates) -> "matplotlib.figure.Figure":
  """Rates found against those asked for, in generated and in real ECGs.

  Returns:
    A matplotlib Figure.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(9, 4.5), layout="constrained")
  low, high = 20, 220
  twins = rates.generated["twin"]
  panels = {
    "generated": (np.repeat(rates.requested, twins.shape[1]), twins.ravel()),
    "real": (rates.requested, rates.real),
  }
  axes = figure.subplots(1, 2, sharex=True, sharey=True)
  for axis, (name, (requested, detected)) in zip(
    axes, panels.items(), strict=True
  ):
    failed = int(np.isnan(detected).sum())
    axis.plot([low, high], [low, high], color="0.6", linewidth=1)
    axis.scatter(
      requested, detected, s=8, alpha=0.5, linewidths=0, color="#0072b2"
    )
    axis.set_title(f"{name}: {failed} of {len(detected)} not found")
    axis.set_xlabel("asked for, bpm")
    axis.set_aspect("equal")
  axes[0].set(xlim=(low, high), ylim=(low, high), ylabel="found, bpm")
  return figure
