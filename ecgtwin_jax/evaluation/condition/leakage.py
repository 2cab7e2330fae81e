"""Do findings of the reference come back though nobody asked for them?

What a report states is a part of the condition, and not of the person: a twin
under a condition without it should show it no more often than the twins of
patients whose reference does not have it.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from ecgtwin_jax.evaluation.condition.criteria import (
  LEVEL,
  Checked,
  share_that_meets,
)
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import (
  NAN,
  Metric,
  bootstrap_interval,
  mean_metric,
  missing,
)
from ecgtwin_jax.evaluation.readings import Readings
from ecgtwin_jax.stages.base_extractor import heart_rate_leakage
from ecgtwin_jax.text.findings import CRITERIA, asks_for

_FEW = 10  # ECGs of patients with a finding, below which it has no row
_LEAST = 30  # patients, below which nothing is fitted to base vectors
_RATES = ("bradycardia", "tachycardia")  # those of the rate that is asked for


class Carried(NamedTuple):
  """Rows not asked for a criterion, by what their reference's report says.

  Attributes:
    stated: rows whose reference's report states it.
    absent: rows whose reference's report does not.
    twins: share of the row's generated ECGs that meet it.
    real: 1 where the real target recording meets it, else 0.
    references: likewise the reference itself.
  """

  stated: Bool[np.ndarray, " n"]
  absent: Bool[np.ndarray, " n"]
  twins: Float[np.ndarray, " n"]
  real: Float[np.ndarray, " n"]
  references: Float[np.ndarray, " n"]


class Leakage(NamedTuple):
  """What `compute` gives.

  Attributes:
    carried: {criterion: its Carried}; those of the heart rate are no findings.
    patients: dense number of each row's patient.
  """

  carried: dict[str, Carried]
  patients: Shaped[np.ndarray, " n"]


def compute(
  examples: Examples, checked: Checked, readings: Readings
) -> Leakage:
  """Sorts rows that are not asked for a criterion by their reference.

  Args:
    examples: what is evaluated.
    checked: criteria of its ECGs.
    readings: readings of the examples' beats.
  """
  before = examples.reference_conditions
  met = share_that_meets(readings.of("references"), before)
  carried = {}
  for column, criterion in enumerate(CRITERIA):
    if criterion in _RATES:
      continue
    share = checked.shares[criterion]
    said = [asks_for(condition.statements, criterion) for condition in before]
    carried[criterion] = Carried(
      share.free & np.array([x is True for x in said], bool),
      share.free & np.array([x is False for x in said], bool),
      share.twins,
      share.real,
      met[:, column],
    )
  return Leakage(carried, checked.patients)


def excess(
  carried: dict[str, Carried],
  rows: Shaped[np.ndarray, " rows"],
  which: str = "twins",
) -> float:
  """Share that shows a finding of its reference, less that of others' twins.

  The mean over all rows and findings that the reference's report states and the
  target's does not; nan where there are none.

  Args:
    carried: {criterion: its Carried}.
    rows: numbers of the rows that count.
    which: "twins", "real" or "references".
  """
  total, count = 0.0, 0
  for each in carried.values():
    stated, absent = rows[each.stated[rows]], rows[each.absent[rows]]
    if len(stated) and len(absent):
      values = getattr(each, which)
      total += values[stated].sum() - len(stated) * values[absent].mean()
      count += len(stated)
  return float(total / count) if count else NAN


def metrics(leakage: Leakage, *, seed: int = 0) -> list[Metric]:
  """How much more often a finding is shown where the reference had it.

  The baseline is the reference left as it is; the reference is what the real
  target recordings show.

  Args:
    leakage: what `compute` returns.
    seed: seed of the bootstrap.
  """
  carried, patients = leakage
  every = np.arange(len(patients))
  value = excess(carried, every)
  if not np.isfinite(value):
    why = "no finding of a reference is left out of a target's report"
    return [missing("finding_leakage", LEVEL, why)]
  low, high = bootstrap_interval(
    lambda rows: excess(carried, rows), patients, repeats=300, seed=seed
  )
  counts = {name: int(each.stated.sum()) for name, each in carried.items()}
  said = ", ".join(f"{n} {name}" for name, n in counts.items() if n)
  note = (
    "findings of the reference that nobody asked for, shown more often than "
    f"by twins of patients without them; of {said}; baseline: the reference "
    "left as it is; reference: real targets"
  )
  rows = [
    Metric(
      "finding_leakage",
      value,
      low,
      high,
      excess(carried, every, "references"),
      excess(carried, every, "real"),
      "lower",
      sum(counts.values()),
      LEVEL,
      note,
    )
  ]
  for name, each in carried.items():
    if counts[name] < _FEW or not each.absent.any():
      continue
    rows.append(
      mean_metric(
        f"leakage_{name}_share",
        each.twins[each.stated],
        patients[each.stated],
        LEVEL,
        better="lower",
        baseline=float(each.references[each.stated].mean()),
        reference=float(each.real[each.stated].mean()),
        note="twins that show it unasked where the reference's report has it; "
        f"where it does not: {each.twins[each.absent].mean():.3f}; baseline: "
        "the reference left as it is; reference: real targets",
        seed=seed,
      )
    )
  return rows


def rate_metric(examples: Examples) -> Metric:
  """How much of the reference's heart rate the base vector gives away.

  0: no more than the target's heart rate, age and sex say; 1: all of it. One
  row of each patient; see `heart_rate_leakage`.

  Args:
    examples: what is evaluated.
  """
  name = "base_heart_rate_leakage"
  if examples.bases is None:
    return missing(name, LEVEL, "needs the twin's base vectors")
  _, rows = np.unique(examples.patients, return_index=True)
  if len(rows) < _LEAST:
    why = f"{len(rows)} patients: fewer than {_LEAST}"
    return missing(name, LEVEL, why, len(rows))
  shown = [examples.conditions[i] for i in rows]
  known = [[c.heart_rate, c.age or 0, (c.sex == "M") - 0.5] for c in shown]
  rates = [examples.reference_conditions[i].heart_rate for i in rows]
  value = heart_rate_leakage(
    np.asarray(examples.bases[rows], np.float64),
    np.array(rates, np.float64),
    np.array(known, np.float64),
  )
  note = (
    "share of the variance of the reference's rate that the base vector adds "
    "to the target's rate, age and sex; ridge, 5 folds of patients; baseline: "
    "the rate itself; reference: nothing of it, both by definition"
  )
  return Metric(
    name, float(value), NAN, NAN, 1.0, 0.0, "lower", len(rows), LEVEL, note
  )
