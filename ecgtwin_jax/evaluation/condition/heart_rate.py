"""Condition: is the heart rate the one that was asked for?"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from ecgtwin_jax.data.ecg import MODEL_RATE
from ecgtwin_jax.data.heart_rate import detect_heart_rate
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import (
  Metric,
  bootstrap_interval,
  mean_metric,
  missing,
)
from ecgtwin_jax.evaluation.resampling import rows_of_others

# bpm between the asked rate and the reference's: a copy of the reference is
# right where they are equal.
CHANGES = {
  "change_under_10": (0.0, 10.0),
  "change_10_to_30": (10.0, 30.0),
  "change_over_30": (30.0, float("inf")),
}
_STRANGERS = (
  10  # other patients whose rate a rate is compared with, for a floor
)
_LEVEL = "condition"


class Rates(NamedTuple):
  """Heart rates in bpm, a row per target.

  Attributes:
    asked: of the conditions.
    reference: of the references' conditions.
    real: found in the real ECGs; NaN where none was found.
    generated: {arm: (n, k)} found in the generated ECGs.
  """

  asked: Float[np.ndarray, " n"]
  reference: Float[np.ndarray, " n"]
  real: Float[np.ndarray, " n"]
  generated: dict[str, Float[np.ndarray, "n _"]]


def detect_rates(
  signals: Float[np.ndarray, "*b t leads"], *, published_protocol: bool = False
) -> Float[np.ndarray, "*b"]:
  """Heart rates of ECGs at 102.4 Hz, bpm; NaN where no two beats are found.

  Args:
    signals: in mV.
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


def find_rates(
  examples: Examples, *, published_protocol: bool = False
) -> Rates:
  """The rates that were asked for, and those of the real and generated ECGs.

  Of the arms, the twin and shuffled_text alone. With the published protocol the
  real ECGs are those after the autoencoder.

  Raises:
    ValueError: the published protocol has no decoded ECGs to look at.
  """
  real = examples.real
  if published_protocol:
    if examples.decoded is None:
      raise ValueError("published_protocol needs examples.decoded, not None")
    real = examples.decoded
  arms = [a for a in ("twin", "shuffled_text") if a in examples.generated]

  def found(signals):
    return detect_rates(signals, published_protocol=published_protocol)

  return Rates(
    np.array([c.heart_rate for c in examples.conditions]),
    np.array([c.heart_rate for c in examples.reference_conditions]),
    found(real),
    {arm: found(examples.generated[arm]) for arm in arms},
  )


def measure(
  examples: Examples,
  *,
  seed: int = 0,
  published_protocol: bool = False,
  rates: Rates | None = None,
) -> list[Metric]:
  """Mean absolute error, bias, slope and failures; the detector's own beside.

  Args:
    examples: what is judged; every sample counts.
    seed: of the strangers and the bootstrap.
    published_protocol: XQRS at 102.4 Hz; a failed detection counts as 0 bpm;
      the real ECGs are those after the autoencoder.
    rates: from `find_rates`, where they are at hand.

  Raises:
    ValueError: the published protocol has no decoded ECGs to look at.
  """
  if rates is None:
    rates = find_rates(examples, published_protocol=published_protocol)
  failed = 0.0 if published_protocol else float("nan")
  return compare(rates, examples.patients, seed=seed, failed_as=failed)


def compare(
  rates: Rates,
  patients: Shaped[np.ndarray, " n"],
  *,
  seed: int = 0,
  failed_as: float = float("nan"),
) -> list[Metric]:
  """Compares the rates found with those asked for.

  Args:
    rates: asked and found.
    patients: of each row.
    seed: of the strangers and the bootstrap.
    failed_as: bpm that a failed detection counts as; NaN: left out and counted.
  """
  failures = _failures(rates, patients, seed)
  rates = rates._replace(
    real=np.where(np.isnan(rates.real), failed_as, rates.real),
    generated={
      arm: np.where(np.isnan(found), failed_as, found)
      for arm, found in rates.generated.items()
    },
  )
  twin = _pairs(rates, "twin", patients)
  floor, words = _floor(rates, patients, seed)
  metrics = [
    _error("mae_bpm", twin, floor, words, seed),
    mean_metric(
      "heart_rate_bias_bpm",
      twin.found - twin.asked,
      twin.patients,
      _LEVEL,
      floor=0.0,
      note="found less asked",
      seed=seed,
    ),
    _slope("heart_rate_slope", twin, seed)._replace(
      floor=_slope_of(floor.found, floor.asked),
      note=f"of the rate found on that asked for; {words}",
    ),
    failures,
  ]
  for name, (low, high) in CHANGES.items():
    distance = name.removeprefix("change_").replace("_", " ")
    metrics.append(
      _error(
        f"mae_bpm_{name}",
        twin.where(low, high),
        floor.where(low, high),
        f"asked {distance} bpm from the reference's; {words}",
        seed,
      )
    )
  own = "the detector's own, on real ECGs"
  real = _pairs(rates, "real", patients)
  bias = mean_metric(
    "heart_rate_bias_bpm_real",
    real.found - real.asked,
    patients,
    _LEVEL,
    note=own,
    seed=seed,
  )
  return [
    *metrics,
    _error("mae_bpm_real", real, None, own, seed),
    bias,
    _slope("heart_rate_slope_real", real, seed)._replace(note=own),
  ]


class _Pairs(NamedTuple):
  """Rates found and asked for, one after the other."""

  found: np.ndarray
  asked: np.ndarray
  change: np.ndarray  # |asked less the reference's|
  patients: np.ndarray

  def where(self, low, high):
    chosen = (low <= self.change) & (self.change < high)
    return _Pairs(*(column[chosen] for column in self))


def _pairs(rates, arm, patients, asked=None):
  found = rates.real[:, None] if arm == "real" else rates.generated[arm]
  columns = (
    rates.asked if asked is None else asked,
    np.abs(rates.asked - rates.reference),
    patients,
  )
  return _Pairs(
    found.ravel(), *(np.repeat(column, found.shape[1]) for column in columns)
  )


def _floor(rates, patients, seed):
  """Where the rate found cannot know the one asked for; and in words."""
  if "shuffled_text" in rates.generated:
    words = "floor: the twin given another row's condition"
    return _pairs(rates, "shuffled_text", patients), words
  if len(np.unique(patients)) < 2:
    return _Pairs(*[np.zeros(0)] * 4), "no floor: one patient"
  draws = [
    _pairs(rates, "twin", patients, rates.asked[rows_of_others(patients, s)])
    for s in range(_STRANGERS * seed, _STRANGERS * (seed + 1))
  ]
  words = "floor: against the rates of other patients"
  return _Pairs(*map(np.concatenate, zip(*draws, strict=True))), words


def _error(name, pairs, floor, note, seed):
  wrong = float("nan")
  if floor is not None:
    errors = np.abs(floor.found - floor.asked)
    errors = errors[np.isfinite(errors)]
    wrong = float(errors.mean()) if len(errors) else wrong
  return mean_metric(
    f"heart_rate_{name}",
    np.abs(pairs.found - pairs.asked),
    pairs.patients,
    _LEVEL,
    floor=wrong,
    note=note,
    seed=seed,
  )


def _failures(rates, patients, seed):
  twin = _pairs(rates, "twin", patients)
  return mean_metric(
    "heart_rate_failed_share",
    np.isnan(twin.found).astype(float),
    twin.patients,
    _LEVEL,
    floor=float(np.isnan(rates.real).mean()),
    note="no two beats found; floor: in real ECGs",
    seed=seed,
  )


def _slope_of(found, asked):
  good = np.isfinite(found)
  found, asked = found[good], asked[good]
  if len(asked) < 3 or np.ptp(asked) == 0:
    return float("nan")
  centred = asked - asked.mean()
  return float(centred @ found / (centred @ centred))


def _slope(name, pairs, seed):
  """Least squares: found = a + slope * asked."""
  good = np.isfinite(pairs.found)
  found, asked, _, patients = (column[good] for column in pairs)
  slope = _slope_of(found, asked)
  if np.isnan(slope):
    why = "needs 3 rates that were found, asked for differently"
    return missing(name, _LEVEL, why, len(found))
  interval = bootstrap_interval(
    lambda rows: _slope_of(found[rows], asked[rows]), patients, seed=seed
  )
  return Metric(name, slope, *interval, float("nan"), len(found), _LEVEL)


def draw(rates: Rates):
  """Rates found against those asked for, in generated and in real ECGs.

  Returns:
    A matplotlib Figure.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(9, 4.5), layout="constrained")
  low, high = 20, 220
  twins = rates.generated["twin"]
  panels = {
    "generated": (np.repeat(rates.asked, twins.shape[1]), twins.ravel()),
    "real": (rates.asked, rates.real),
  }
  axes = figure.subplots(1, 2, sharex=True, sharey=True)
  for axis, (name, (asked, found)) in zip(axes, panels.items(), strict=True):
    failed = int(np.isnan(found).sum())
    axis.plot([low, high], [low, high], color="0.6", linewidth=1)
    axis.scatter(asked, found, s=8, alpha=0.5, linewidths=0, color="#0072b2")
    axis.set_title(f"{name}: {failed} of {len(found)} not found")
    axis.set_xlabel("asked for, bpm")
    axis.set_aspect("equal")
  axes[0].set(xlim=(low, high), ylim=(low, high), ylabel="found, bpm")
  return figure
