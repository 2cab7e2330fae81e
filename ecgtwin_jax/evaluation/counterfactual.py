"""Do a twin's changes hold together? Definitions stand in docs/evaluation.md.

Composition, reversibility and effectiveness are those of Monteiro et al., ICLR
2023, "Measuring axiomatic soundness of counterfactual image models", in terms
of ECGs: distances of median beats in place of pixels, intervals in place of a
classifier.
"""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from ecgtwin_jax.beats.delineation import Reading, read_ecg_beats
from ecgtwin_jax.beats.intervals import MEASURES, measure_beat
from ecgtwin_jax.beats.median_beat import RATE
from ecgtwin_jax.constants import LEADS, MODEL_SAMPLES
from ecgtwin_jax.data.conditions import Condition
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
from ecgtwin_jax.evaluation.truth import beat_distance
from ecgtwin_jax.simulator import simulate
from ecgtwin_jax.simulator.simulate import CONDITIONS, Patient

if TYPE_CHECKING:
  import matplotlib.figure

LEVEL = "counterfactual"
RATES = (55.0, 70.0, 85.0, 100.0)  # bpm at which QT is asked for
_SINUS = "Sinus rhythm"
_BLOCK, _INFARCT = "1st degree A-V block", "Inferior infarct, possibly acute"
_QRS = 0.06  # s on both sides of the middle: the rate changes nothing there
_ST = 0.06  # s after J
_INFERIOR = [LEADS.index(lead) for lead in ("II", "III", "aVF")]
_CALIBRATED = ("qt_ms", "qrs_ms", "axis_deg")
_RANGE = 10.0, 90.0  # percentiles of the samples

# Maps signals of references (n, 1024, 12) with their conditions, the conditions
# to be shown, and numbers of the samples to generated signals.
Generate = Callable[
  [np.ndarray, Sequence[Condition], Sequence[Condition], Sequence[int]],
  np.ndarray,
]


class Counterfactual(NamedTuple):
  """What `compute` gives; distances in microvolt, a row per patient.

  Attributes:
    distances: {"composition", "reversibility_1", ...: of each patient}.
    again: {"beat", "qrs": of a second recording, where patients are simulated}.
    strangers: {"beat", "qrs": of another patient's reference}.
    effects: {figure: (rows, 2): of the twin and of the true patient}.
    samples: {of MEASURES: (rows, samples)} of each patient's first target.
    real: {of MEASURES: (rows,)} of the real target.
    means: (rows, 2) distance of the mean of the samples' beats, and mean
      distance of single ones, from the real target's.
    patients: of each row.
    plain: rows in sinus rhythm at 60 to 100 bpm, those of "qrs" alone.
  """

  distances: dict[str, Float[np.ndarray, " n"]]
  again: dict[str, Float[np.ndarray, " n"]]
  strangers: dict[str, Float[np.ndarray, " n"]]
  effects: dict[str, Float[np.ndarray, "n 2"]]
  samples: dict[str, Float[np.ndarray, "n _"]]
  real: dict[str, Float[np.ndarray, " n"]]
  means: Float[np.ndarray, "n 2"]
  patients: Shaped[np.ndarray, " n"]
  plain: Bool[np.ndarray, " n"]


def compute(
  examples: Examples,
  generate: Generate,
  *,
  people: Sequence[Patient] | None = None,
  known: Collection[str] = CONDITIONS,
  patients: int = 20,
  cycles: int = 5,
  samples: int = 16,
  seed: int = 0,
) -> Counterfactual:
  """Generates what the definitions ask for, and measures it.

  Args:
    examples: of which each patient's first row counts.
    generate: see Generate.
    people: the simulated patient of each row; None: they are real.
    known: statements that the twin knows; effects of others are dashes.
    patients: at most so many.
    cycles: there and back.
    samples: of each patient's first target.
    seed: of the true recordings.

  Raises:
    ValueError: there are fewer than two patients.
  """
  _, rows = np.unique(examples.patients, return_index=True)
  rows = np.sort(rows)[:patients]
  if len(rows) < 2:
    raise ValueError(f"{len(rows)} patients: 2 are needed to find a stranger")
  x = examples.references[rows]
  now = [examples.reference_conditions[i] for i in rows]
  then = [examples.conditions[i] for i in rows]
  people = None if people is None else [people[i] for i in rows]
  own = _read(x)

  def ask(conditions, number=0):
    return _read(generate(x, now, conditions, [number] * len(rows)))

  def true(conditions):
    return _simulate(people, conditions, seed)

  distances = {"composition": _apart(ask(now), own)}
  there = x
  for cycle in range(1, cycles + 1):
    away = generate(there, now, then, [0] * len(rows))
    there = generate(away, then, now, [0] * len(rows))
    if cycle in (1, cycles):
      distances[f"reversibility_{cycle}"] = _apart(_read(there), own)
  plain = np.array([is_plain(c) for c in now])
  faster = [change_rate(c) if is_plain(c) else c for c in now]
  distances["minimality_qrs"] = _apart(ask(faster), own, qrs=True)[plain]
  several = [ask(then, k) for k in range(samples)]
  target = _read(examples.real[rows])
  strangers = [own[k - 1] for k in range(len(own))]
  measured = np.stack(
    [[measure_beat(reading) for reading in row] for row in several], axis=1
  )
  real = np.stack([measure_beat(reading) for reading in target])
  place = {name: MEASURES.index(name) for name in _CALIBRATED}
  again = {}
  if people is not None:
    again = {
      "beat": _apart(true(now), own),
      "qrs": _apart(true(faster), own, qrs=True)[plain],
    }
  return Counterfactual(
    distances,
    again,
    {
      "beat": _apart(strangers, own),
      "qrs": _apart(strangers, own, qrs=True)[plain],
    },
    measure_effects(now, ask, None if people is None else true, known),
    {name: measured[..., k] for name, k in place.items()},
    {name: real[:, k] for name, k in place.items()},
    _mean_of_samples(several, target),
    examples.patients[rows],
    plain,
  )


def _read(signals):
  return [read_ecg_beats(np.asarray(signal)) for signal in signals]


def _simulate(people, conditions, seed):
  """Readings of recordings of the true patients on another day."""
  signals = []
  for i, (person, condition) in enumerate(zip(people, conditions, strict=True)):
    rng = np.random.default_rng([seed, 8, i])
    shown = simulate.simulate(person, condition, rng)
    signals.append(shown.ecg.resample(MODEL_SAMPLES).signal)
  return _read(signals)


def _apart(one, other, qrs=False):
  """Distance of median beats, or of their QRS alone, microvolt."""
  if qrs:
    return np.array([_qrs_apart(a, b) for a, b in zip(one, other, strict=True)])
  pairs = [beat_distance(a, b)[0] for a, b in zip(one, other, strict=True)]
  return 1000 * np.sqrt((np.stack(pairs) ** 2).mean(axis=1))


def _qrs_apart(one: Reading | None, other: Reading | None):
  if one is None or other is None:
    return NAN
  half, shift = round(_QRS * RATE), round(0.02 * RATE)
  a, b = one.beats, other.beats
  target = b.median[b.middle - half : b.middle + half]
  best = min(
    ((a.median[m - half : m + half] - target) ** 2).mean()
    for m in range(a.middle - shift, a.middle + shift + 1)
  )
  return 1000 * float(np.sqrt(best))


def is_plain(condition: Condition) -> bool:
  return _SINUS in condition.statements and 60 <= condition.heart_rate <= 100


def change_rate(condition: Condition) -> Condition:
  rate = condition.heart_rate
  away = rate + 15.0 if rate <= 80 else rate - 15.0
  return dataclasses.replace(condition, heart_rate=away)


def _sinus(condition: Condition, rate: float, *more: str) -> Condition:
  return Condition([_SINUS, *more], rate, condition.age, condition.sex)


def measure_effects(now: Any, ask: Any, true: Any, known: Any) -> Any:
  """Slope of QT, and changes of PR and ST, of the twin and of the patient."""
  nothing = np.full(len(now), NAN)
  if not {_SINUS, _BLOCK, _INFARCT} <= set(known):
    names = ("effect_qt_slope", "effect_pr_ms", "effect_st_uv")
    return {name: np.stack([nothing, nothing], axis=1) for name in names}
  asked = [ask, *([] if true is None else [true])]
  plain = [run([_sinus(c, 70.0) for c in now]) for run in asked]
  found = {"effect_qt_slope": [], "effect_pr_ms": [], "effect_st_uv": []}
  for run, start in zip(asked, plain, strict=True):
    by_rate = {70.0: start}
    for rate in RATES:
      if rate not in by_rate:
        by_rate[rate] = run([_sinus(c, rate) for c in now])
    qt = np.stack([_measured(by_rate[r], "qt_ms") for r in RATES], axis=1)
    found["effect_qt_slope"].append(_slopes(60 / np.array(RATES), qt))
    block = run([_sinus(c, 70.0, _BLOCK) for c in now])
    found["effect_pr_ms"].append(
      _measured(block, "pr_ms") - _measured(start, "pr_ms")
    )
    infarct = run([_sinus(c, 70.0, _INFARCT) for c in now])
    found["effect_st_uv"].append(_st_level(infarct) - _st_level(start))
  return {
    name: np.stack([*values, nothing][:2], axis=1)
    for name, values in found.items()
  }


def _measured(readings, name):
  k = MEASURES.index(name)
  return np.array([measure_beat(reading)[k] for reading in readings])


def _st_level(readings):
  """Mean level of II, III and aVF after J, over that before QRS, microvolt."""
  levels = []
  for reading in readings:
    if reading is None:
      levels.append(NAN)
      continue
    x, marks = reading.beats.median, reading.marks
    before = round(marks.qrs_onset * RATE)
    after = min(round((marks.qrs_offset + _ST) * RATE), len(x) - 1)
    level = x[after, _INFERIOR] - x[max(before, 0), _INFERIOR]
    levels.append(1000 * float(level.mean()))
  return np.array(levels)


def _slopes(rr, values):
  """Least squares slope of each row over the values that are there."""
  slopes = []
  for row in values:
    good = np.isfinite(row)
    enough = good.sum() >= 3
    slopes.append(np.polyfit(rr[good], row[good], 1)[0] if enough else NAN)
  return np.array(slopes)


def _mean_of_samples(several, target):
  """Distances of the mean beat of a row's samples, and of single ones."""
  singles = np.stack([_apart(one, target) for one in several])
  means = []
  for i in range(len(target)):
    there = [one[i] for one in several if one[i] is not None]
    if not there:
      means.append(None)
      continue
    # Each is aligned with the first, whose beat takes the mean's place.
    median = np.mean([_aligned(one, there[0]) for one in there], axis=0)
    beats = dataclasses.replace(there[0].beats, median=median)
    means.append(dataclasses.replace(there[0], beats=beats))
  single = np.array([mean_of(column) for column in singles.T])
  return np.stack([_apart(means, target), single], axis=1)


def _aligned(one: Reading, other: Reading):
  """The median beat of one, moved by up to 40 ms to fit the other's."""
  shift, half = round(0.04 * RATE), round(0.1 * RATE)
  middle = other.beats.middle
  goal = other.beats.median[middle - half : middle + half]
  x = one.beats.median
  lags = range(-shift, shift + 1)
  errors = [
    ((x[middle + k - half : middle + k + half] - goal) ** 2).sum() for k in lags
  ]
  return np.roll(x, -lags[int(np.argmin(errors))], axis=0)


def crps(
  samples: Float[np.ndarray, "n k"], real: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
  """E|X - y| - E|X - X'| / 2 of each row's finite samples; nan of none.

  Source: Gneiting and Raftery 2007, equation 21, with the unbiased estimate of
  the second term, so that the number of samples does not matter.
  """
  scores = []
  for row, y in zip(samples, real, strict=True):
    row = row[np.isfinite(row)]
    if len(row) < 2 or not np.isfinite(y):
      scores.append(NAN)
      continue
    between = np.abs(row[:, None] - row).sum() / (len(row) * (len(row) - 1))
    scores.append(np.abs(row - y).mean() - between / 2)
  return np.array(scores)


def metrics(found: Counterfactual, *, seed: int = 0) -> list[Metric]:
  """The figures of the level.

  Args:
    found: of `compute`.
    seed: of the bootstrap.
  """
  rows = []
  simulated = bool(found.again)
  real = "reference: a second recording of the patient" if simulated else ""
  for name, values in found.distances.items():
    kind = "qrs" if name.endswith("qrs") else "beat"
    people = found.patients[found.plain] if kind == "qrs" else found.patients
    rows.append(
      mean_metric(
        f"{name}_uv",
        values,
        people,
        LEVEL,
        better="lower",
        baseline=mean_of(found.strangers[kind]),
        reference=mean_of(found.again[kind]) if simulated else NAN,
        note=f"baseline: another patient's reference; {real}".rstrip("; "),
        seed=seed,
      )
    )
  for name, values in found.effects.items():
    true = mean_of(values[:, 1])
    toward = direction(mean_of(values[:, 0]), true if simulated else np.inf)
    rows.append(
      mean_metric(
        name,
        values[:, 0],
        found.patients,
        LEVEL,
        better=toward,
        baseline=0.0,
        reference=true,
        note="baseline: no effect"
        + ("; reference: the true patients; best there" if simulated else ""),
        seed=seed,
      )
    )
  rows.append(_grades(found, seed))
  for name in _CALIBRATED:
    rows += check_calibration(name, found, seed)
  mean, single = found.means.T
  rows.append(
    mean_metric(
      "mean_of_samples_uv",
      mean,
      found.patients,
      LEVEL,
      better="lower",
      baseline=mean_of(single),
      note="from the real target; baseline: single samples",
      seed=seed,
    )
  )
  return rows


def _grades(found, seed):
  """How much the change of ST differs: of patients it is mild or marked."""
  twin, true = found.effects["effect_st_uv"].T
  name, note = "effect_st_spread_uv", "baseline: the same change in all"
  good = np.isfinite(twin)
  if 2 * good.sum() < len(twin) or good.sum() < 2:
    return missing(name, LEVEL, note, int(good.sum()), better="higher")
  twin, people = twin[good], found.patients[good]
  value, real = float(twin.std()), NAN
  if np.isfinite(true).any():
    real = float(np.nanstd(true))
    note += "; reference: the true patients; best there"
  low, high = bootstrap_interval(
    lambda rows: twin[rows].std(), people, seed=seed
  )
  toward = direction(value, real if np.isfinite(real) else np.inf)
  n = len(twin)
  return Metric(name, value, low, high, 0.0, real, toward, n, LEVEL, note)


def check_calibration(name: Any, found: Any, seed: Any) -> Any:
  samples, real = found.samples[name], found.real[name]
  others = np.stack([np.delete(real, k) for k in range(len(real))])
  apart, apart_others = real, real
  if name == "axis_deg":
    center, middle = _circular_mean(samples), _circular_mean(others)
    samples, apart = _turned(samples, center[:, None]), _turned(real, center)
    others = _turned(others, middle[:, None])
    apart_others = _turned(real, middle)
  baseline = crps(others, apart_others)
  known = np.isfinite(apart)
  several = np.isfinite(samples).sum(axis=1) >= 0.5 * samples.shape[1]
  low, high = np.full((2, len(real)), NAN)
  for i in np.flatnonzero(several & known):
    row = samples[i][np.isfinite(samples[i])]
    low[i], high[i] = np.percentile(row, _RANGE)
  inside = np.where(
    np.isfinite(low), ((low <= apart) & (apart <= high)).astype(float), NAN
  )
  title, _, unit = name.rpartition("_")
  share = mean_of(inside[known])
  return [
    mean_metric(
      f"calibration_{title}_share",
      inside[known],
      found.patients[known],
      LEVEL,
      better=direction(share, 0.8),
      reference=0.8,
      note="real values in the samples' 80% range; best at 0.8",
      seed=seed,
    ),
    mean_metric(
      f"crps_{title}_{unit}",
      crps(samples, apart)[known],
      found.patients[known],
      LEVEL,
      better="lower",
      baseline=mean_of(baseline),
      note=f"of {samples.shape[1]} samples; baseline: other patients' real "
      "values as samples",
      seed=seed,
    ),
  ]


def _circular_mean(degrees):
  angle = np.deg2rad(degrees)
  return np.rad2deg(
    np.arctan2(np.nansum(np.sin(angle), -1), np.nansum(np.cos(angle), -1))
  )


def _turned(degrees, center):
  """Degrees from a centre, in -180..180."""
  return (degrees - center + 180) % 360 - 180


def draw(found: Counterfactual) -> "matplotlib.figure.Figure":
  """Distances beside those of a stranger and of a second recording.

  Args:
    found: of `compute`.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(8, 4), layout="constrained")
  axes = figure.add_subplot()
  sets = {
    **found.distances,
    **{f"second recording, {k}": v for k, v in found.again.items()},
    **{f"stranger, {k}": v for k, v in found.strangers.items()},
  }
  values = [v[np.isfinite(v)] for v in sets.values()]
  axes.boxplot(values, orientation="horizontal")
  axes.set_yticklabels([name.replace("_", " ") for name in sets], fontsize=8)
  axes.set_xlabel("difference of median beats, µV")
  return figure
