"""Natural counterfactuals: the same patient, later, with other findings.

Nobody's ECG is recorded under two conditions at once, but many a patient has
two recordings between which findings came or went. Does the twin of the first
under the condition of the second come nearer to the second than the first
itself, than a stranger's recording with the same findings, than that of a
stranger's twin?
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Shaped

from ecgtwin_jax.beats.delineation import Reading, read_ecgs
from ecgtwin_jax.beats.intervals import MEASURES, difference, measure_beat
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.dataset import Dataset
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import (
  NAN,
  Metric,
  bootstrap_interval,
  mean_metric,
  mean_of,
  missing,
  number,
)
from ecgtwin_jax.evaluation.readings import Readings, without_segments
from ecgtwin_jax.evaluation.truth import beat_distance
from ecgtwin_jax.text.findings import FINDINGS, finding

LEVEL = "counterfactuals"
LEAST = 5  # patients with a finding that changed
YEAR = 365.25  # days
# A report's summary is no finding of its own.
NAMES = tuple(name for name in FINDINGS if not name.endswith("_ecg"))
# What the measures' distance is made of; QTc would count QT again.
_COUNTED = [k for k, name in enumerate(MEASURES) if "qtc" not in name]
UNITS = {"beat": "mv", "measures": "sd"}
# What the twin is held against, and its words.
RIVALS = {
  "reference": "the patient's reference left as it was",
  "stranger": "a stranger's recording with like findings, sex, age and rate",
  "strangers_twin": "the twin of a matched stranger under the same condition",
}


class Counterfactuals(NamedTuple):
  """Distances of each row from its real later recording.

  Attributes:
    distances: {"beat" in mV or "measures" in standard deviations: {"twin", of
      RIVALS or "decoded": (n,)}}; nan where one could not be read.
    changed: findings that the two recordings do not share, of each row.
    days: between the two recordings; nan where not known.
    patients: of each row.
    errors: {"twin" or "reference": (n, 8)}, the difference of each of MEASURES
      from that of the later recording.
  """

  distances: dict[str, dict[str, Float[np.ndarray, " n"]]]
  changed: Sequence[frozenset[str]]
  days: Float[np.ndarray, " n"]
  patients: Shaped[np.ndarray, " n"]
  errors: dict[str, Float[np.ndarray, "n 8"]]


def find_changes(one: Condition, other: Condition) -> frozenset[str]:
  """Findings that one report states and the other does not put in doubt."""
  pairs = (
    (name, finding(name, one.statements), finding(name, other.statements))
    for name in NAMES
  )
  return frozenset(name for name, a, b in pairs if {a, b} == {0, 1})


def match_strangers(
  findings: Sequence[frozenset[str]],
  sex: Int[np.ndarray, " n"],
  age: Float[np.ndarray, " n"],
  heart_rate: Float[np.ndarray, " n"],
  patients: Int[np.ndarray, " n"],
  rows: Int[np.ndarray, " m"],
) -> Int[np.ndarray, " m"]:
  """For some rows the row of another patient that is most like it.

  Fewest other findings first, then the same sex, then the nearest age (years)
  and heart rate (bpm) together; what is not known, -1, counts as different.

  Raises:
    ValueError: there is one patient only.
  """
  if len(np.unique(patients)) < 2:
    raise ValueError("a stranger needs at least two patients")
  names = sorted(frozenset().union(*findings))
  stated = np.array([[name in one for name in names] for one in findings])
  chosen = []
  for row in rows:
    known = (age >= 0) & (age[row] >= 0)
    cost = np.where(known, np.abs(age - age[row]), 60.0)
    cost = cost + np.abs(heart_rate - heart_rate[row])
    cost += 500.0 * ((sex != sex[row]) | (sex < 0))
    cost += 1000.0 * (stated != stated[row]).sum(axis=1)
    cost[patients == patients[row]] = np.inf
    chosen.append(int(np.argmin(cost)))
  return np.array(chosen)


def find_strangers(
  data: Dataset, rows: Int[np.ndarray, " m"]
) -> Int[np.ndarray, " m"]:
  """`match_strangers` of a data set."""
  reports, place = np.unique(data.statement_ids, axis=0, return_inverse=True)
  texts = [[data.table.statements[i] for i in ids[ids >= 0]] for ids in reports]
  stated = [
    frozenset(name for name in NAMES if finding(name, text) == 1)
    for text in texts
  ]
  return match_strangers(
    [stated[i] for i in place.reshape(-1)],
    data.sex,
    data.age,
    data.heart_rate,
    data.patient_number,
    rows,
  )


def days_between(
  one: Int[np.ndarray, " n"], other: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
  """Days between times in seconds; nan of less than a minute.

  Where times are not known, mere numbers of recordings stand for them.
  """
  apart = np.abs(other - one).astype(np.float64)
  return np.where(apart < 60, np.nan, apart / 86400)


def compute(
  examples: Examples,
  strangers: Float32[np.ndarray, "n 1024 12"],
  days: Float[np.ndarray, " n"],
  readings: Readings | None = None,
) -> Counterfactuals:
  """Distances of what stands for a later recording from that recording.

  "beat" is the root mean square difference of the median beats over leads,
  "measures" the mean over rate, intervals, P, T and axis of the difference in
  standard deviations of the real recordings; a measure that one of a row's
  ECGs lacks is left out of the whole row. A row's twins are averaged.

  Args:
    examples: rows whose reference and target may differ in findings.
    strangers: a stranger's recording like each row's target, mV.
    days: from reference to target, nan where not known.
    readings: of the examples' beats, where they are at hand.
  """
  readings = readings or Readings(examples)
  one, place = np.unique(strangers, axis=0, return_inverse=True)
  read = [r and without_segments(r) for r in read_ecgs(one)]
  sets = {
    "twin": readings.of("twin"),
    "reference": readings.of("references"),
    "stranger": [[read[i]] for i in place.reshape(-1)],
  }
  if "matched_stranger" in examples.generated:
    sets["strangers_twin"] = readings.of("matched_stranger")
  if examples.decoded is not None:
    sets["decoded"] = readings.of("decoded")
  real = [row[0] for row in readings.of("real")]
  changed = [
    find_changes(*pair)
    for pair in zip(
      examples.reference_conditions, examples.conditions, strict=True
    )
  ]
  return Counterfactuals(
    {
      "beat": {name: _beats(rows, real) for name, rows in sets.items()},
      "measures": _measures(sets, real),
    },
    changed,
    days,
    examples.patients,
    {
      name: np.array(
        [_errors(row, true) for row, true in zip(sets[name], real, strict=True)]
      )
      for name in ("twin", "reference")
    },
  )


def _errors(readings, true):
  """(8,): mean over ECGs of each measure's difference from the true one."""
  apart = [
    np.abs(difference(measure_beat(reading), measure_beat(true)))
    for reading in readings
  ]
  return np.array([mean_of(column) for column in np.array(apart).T])


def _beats(rows, real):
  """(n,) mV: mean over a row's ECGs of their beats' distance."""
  return np.array(
    [
      mean_of(
        np.array(
          [np.sqrt((beat_distance(r, true)[0] ** 2).mean()) for r in row]
        )
      )
      for row, true in zip(rows, real, strict=True)
    ]
  )


def _measures(sets, real):
  """{set: (n,)}: mean of the differences in standard deviations."""
  values = np.array([_measure(reading) for reading in real])
  spread = np.array([_spread(column) for column in values.T])
  apart = {
    name: np.array(
      [_differences(row, true) for row, true in zip(rows, real, strict=True)]
    )
    / spread
    for name, rows in sets.items()
  }
  # What one of the sets lacks is no reason to call another one near.
  shared = np.all([np.isfinite(x) for x in apart.values()], axis=0)
  return {
    name: np.array([mean_of(row) for row in np.where(shared, x, np.nan)])
    for name, x in apart.items()
  }


def _spread(values):
  values = values[np.isfinite(values)]
  return (values.std() if len(values) else 0.0) or NAN


def _measure(reading: Reading | None):
  """What counts of MEASURES, and the heart rate in bpm."""
  rate = NAN if reading is None else 60 / reading.beats.rr
  return np.append(measure_beat(reading)[_COUNTED], rate)


def _differences(readings, true):
  """Mean over ECGs of what is counted, as differences from the true one."""
  each = []
  for reading in readings:
    apart = np.abs(_measure(reading) - _measure(true))
    around = difference(measure_beat(reading), measure_beat(true))
    apart[:-1] = np.abs(around[_COUNTED])
    each.append(apart)
  return np.array([mean_of(column) for column in np.array(each).T])


def metrics(counterfactuals: Counterfactuals, *, seed: int = 0) -> list[Metric]:
  """Distances and who is nearer, of rows whose findings differ.

  The baseline is the patient's reference left as it was, of shares the
  stranger's twin in the twin's place; the reference is the real later
  recording after the autoencoder.

  Args:
    counterfactuals: of `compute`.
    seed: of the bootstrap over patients.
  """
  differ = np.array([bool(names) for names in counterfactuals.changed])
  if not differ.any():
    why = "no two recordings of a patient differ in findings"
    return [missing("counterfactual_beat_mv", LEVEL, why)]
  rows = []
  for measure in UNITS:
    rows.append(_distance("", measure, counterfactuals, differ, seed))
    rows += [
      _nearer(rival, measure, counterfactuals, differ, seed) for rival in RIVALS
    ]
  rows.append(_won(counterfactuals, differ, seed))
  days = counterfactuals.days
  parts = {"within_year": days <= YEAR, "after_year": days > YEAR}
  parts |= {
    name: np.array([name in one for one in counterfactuals.changed])
    for name in NAMES
  }
  for name, chosen in parts.items():
    chosen = chosen & differ
    if len(np.unique(counterfactuals.patients[chosen])) < LEAST:
      continue
    for measure in UNITS:
      row = _distance(f"_{name}", measure, counterfactuals, chosen, seed)
      rows.append(row)
  return rows


def _distance(suffix, measure, counterfactuals, chosen, seed):
  """Mean distance of the twin; the note says those of all others."""
  apart = {
    name: values[chosen]
    for name, values in counterfactuals.distances[measure].items()
  }
  patients = counterfactuals.patients[chosen]
  twin = apart["twin"]
  said = [
    f"{len(np.unique(patients))} patients whose findings changed",
    _describe_days(counterfactuals.days[chosen]),
    "baseline: the patient's reference left as it was",
    *(
      f"{name.replace('_', ' ')}: {number(mean_of(apart[name]))}"
      for name in ("stranger", "strangers_twin")
      if name in apart
    ),
  ]
  if "decoded" in apart:
    said.insert(3, "reference: the real recording after the autoencoder")
  for name in RIVALS:
    if name in apart:
      near = _is_nearer(twin, apart[name])
      good = np.isfinite(near)
      said.append(
        f"nearer than {name.replace('_', ' ')} in "
        f"{int(near[good].sum())} of {int(good.sum())}"
      )
  return mean_metric(
    f"counterfactual{suffix}_{measure}_{UNITS[measure]}",
    twin,
    patients,
    LEVEL,
    better="lower",
    baseline=mean_of(apart["reference"]),
    reference=mean_of(apart["decoded"]) if "decoded" in apart else NAN,
    note="; ".join(said),
    seed=seed,
  )


def _won(counterfactuals, chosen, seed):
  """In how many of MEASURES the twin is nearer on average than the reference.

  Of rows of which both can be measured.
  """
  twin, reference = (
    counterfactuals.errors[name][chosen] for name in ("twin", "reference")
  )
  both = np.isfinite(twin) & np.isfinite(reference)
  twin, reference = (np.where(both, x, NAN) for x in (twin, reference))

  def means(rows):
    return [
      (mean_of(one), mean_of(other))
      for one, other in zip(twin[rows].T, reference[rows].T, strict=True)
    ]

  def count(rows):
    return float(sum(one < other for one, other in means(rows)))

  name = "counterfactual_measures_won"
  each = means(np.arange(len(both)))
  if not np.isfinite(each).all():
    why = "a measure cannot be taken of any row"
    return missing(name, LEVEL, why, better="higher")
  said = [
    f"{measure}: {number(one)} for {number(other)}"
    for measure, (one, other) in zip(MEASURES, each, strict=True)
  ]
  patients = counterfactuals.patients[chosen]
  interval = bootstrap_interval(count, patients, seed=seed)
  return Metric(
    name,
    count(np.arange(len(both))),
    *interval,
    NAN,
    float(len(MEASURES)),
    "higher",
    len(both),
    LEVEL,
    "measures whose mean error is below that of the reference left as it was; "
    f"reference: all; {'; '.join(said)}",
  )


def _is_nearer(one, other):
  """1 where one is nearer, 0.5 where both are as near, nan where unknown."""
  near = np.where(one == other, 0.5, (one < other).astype(np.float64))
  return np.where(np.isfinite(one) & np.isfinite(other), near, np.nan)


def _nearer(rival, measure, counterfactuals, chosen, seed):
  """Share of rows in which the twin is nearer than a rival."""
  apart = counterfactuals.distances[measure]
  name = f"counterfactual_{measure}_nearer_than_{rival}_share"
  if rival not in apart:
    why = "no strangers' twins: config.ablations lacks matched_stranger"
    return missing(name, LEVEL, why, better="higher")

  def share(of):
    return _is_nearer(apart[of], apart[rival])[chosen]

  note, baseline = RIVALS[rival], 0.5
  if rival == "strangers_twin":
    note += "; baseline: by chance"
  elif "strangers_twin" in apart:
    baseline = mean_of(share("strangers_twin"))
    note += "; baseline: the stranger's twin in the twin's place"
  else:
    note += "; baseline: by chance"
  reference = NAN
  if "decoded" in apart:
    reference = mean_of(share("decoded"))
    note += "; reference: the real recording after the autoencoder"
  return mean_metric(
    name,
    share("twin"),
    counterfactuals.patients[chosen],
    LEVEL,
    better="higher",
    baseline=baseline,
    reference=reference,
    note=note,
    seed=seed,
  )


def _describe_days(days):
  days = days[np.isfinite(days)]
  if not len(days):
    return "time between recordings not known"
  low, middle, high = np.percentile(days, [0, 50, 100])
  return f"{middle:.0f} ({low:.0f} to {high:.0f}) days between recordings"


def draw(counterfactuals: Counterfactuals) -> Any:
  """The twin's distance over the reference's, row by row.

  Args:
    counterfactuals: of `compute`.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(10, 4.4), layout="constrained")
  differ = np.array([bool(names) for names in counterfactuals.changed], bool)
  panels = figure.subplots(1, len(UNITS))
  for axes, (measure, unit) in zip(panels, UNITS.items(), strict=True):
    apart = counterfactuals.distances[measure]
    values = np.concatenate([x[differ] for x in apart.values()])
    top = 1.05 * max(values[np.isfinite(values)], default=1.0)
    for name in ("strangers_twin", "twin"):
      if name in apart:
        axes.plot(
          apart["reference"][differ],
          apart[name][differ],
          "." if name == "strangers_twin" else "o",
          alpha=0.6,
          label=name.replace("_", " "),
        )
    axes.plot([0, top], [0, top], color="0.6", linewidth=0.8)
    axes.set_xlabel(f"{measure} of the unchanged reference, {unit}")
    axes.set_ylabel("of what was generated")
    axes.set_title("below the line: nearer to the later recording", fontsize=9)
  panels[0].legend(fontsize=8)
  return figure
