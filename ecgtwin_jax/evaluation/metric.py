"""One number of a report: its interval, what to hold it against, its source."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

NAN = float("nan")
BETTER = {"lower": "↓", "higher": "↑"}  # what `better` may be, and its arrow


class Metric(NamedTuple):
  """A measured figure.

  Attributes:
    name: short, unique within a report, with its unit: "heart_rate_mae_bpm".
    value: nan where it cannot be estimated; `note` says why.
    low: lower end of the 95% interval; nan where there is none.
    high: upper end.
    baseline: the same figure where nothing of the kind was learned, such as
      with another row's text; `note` says which; nan where there is none.
    reference: the same figure of real data, such as second recordings of the
      patients, or real ECGs against real ones; `note` says which; nan where
      there is none.
    better: "lower" or "higher"; of a figure that is best at a number, such as
      a ratio, the direction in which that number lies.
    n: how many ECGs, beats or pairs stand behind it.
    level: a key of levels.LEVELS.
    note: what baseline and reference are, what failed, what does not apply.
  """

  name: str
  value: float
  low: float
  high: float
  baseline: float
  reference: float
  better: str
  n: int
  level: str
  note: str = ""


def missing(
  name: str, level: str, why: str, n: int = 0, *, better: str = "lower"
) -> Metric:
  """A figure that cannot be estimated here, and why."""
  return Metric(name, NAN, NAN, NAN, NAN, NAN, better, n, level, why)


def number(value: float | int | np.number | None) -> str:
  """Four digits, or a dash for what is not a number."""
  if value is None or not np.isfinite(value):
    return "–"
  return f"{value:.4g}"


def direction(value: float, best: float) -> str:
  """`better` of a figure that is best at a number: where that number lies."""
  return "higher" if value < best else "lower"


def mean_of(values: Float[np.ndarray, " n"]) -> float:
  """Mean of the values that are numbers; nan where none is."""
  good = np.isfinite(values)
  return float(values[good].mean()) if good.any() else NAN


def bootstrap_interval(
  statistic: Callable[[np.ndarray], float],
  patients: Shaped[np.ndarray, " n"],
  *,
  repeats: int = 1000,
  seed: int = 0,
) -> tuple[float, float]:
  """95% interval of statistic(rows), resampling whole patients.

  Args:
    statistic: maps row numbers, some of them repeated, to a number; nan where
      they do not allow one.
    patients: the patient of each row. Rows of one patient are drawn together,
      as they are not independent.
    repeats: resamples.
    seed: seed of the drawing.

  Returns:
    (low, high): the 2.5th and 97.5th percentile; nan for a single patient or
    where fewer than half of the resamples allow a number.
  """
  order = np.argsort(patients, kind="stable")
  _, starts = np.unique(patients[order], return_index=True)
  rows = np.split(order, starts[1:])
  if len(rows) < 2:
    return NAN, NAN
  rng = np.random.default_rng(seed)
  values = np.array(
    [
      statistic(np.concatenate([rows[i] for i in drawn]))
      for drawn in rng.integers(0, len(rows), (repeats, len(rows)))
    ],
    np.float64,
  )
  return _interval(values)


def _mean_interval(values, patients, seed, repeats=1000):
  """bootstrap_interval of the mean, of each patient's sum and number."""
  _, places = np.unique(patients, return_inverse=True)
  sums, counts = np.bincount(places, values), np.bincount(places)
  if len(counts) < 2:
    return NAN, NAN
  rng = np.random.default_rng(seed)
  drawn = rng.integers(0, len(counts), (repeats, len(counts)))
  return _interval(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))


def _interval(values):
  good = values[np.isfinite(values)]
  if 2 * len(good) < len(values):
    return NAN, NAN
  low, high = np.percentile(good, [2.5, 97.5])
  return float(low), float(high)


def mean_metric(
  name: str,
  values: Float[np.ndarray, " n"],
  patients: Shaped[np.ndarray, " n"],
  level: str,
  *,
  better: str,
  baseline: float = NAN,
  reference: float = NAN,
  note: str = "",
  seed: int = 0,
) -> Metric:
  """The mean of the values that are numbers, with its interval.

  Values that are nan are failed measurements: left out of the mean, counted in
  the note, never replaced. Where more than half of them failed the figure is
  missing, as the rest need not be like them.

  Args:
    name: name of the metric.
    values: one per row.
    patients: dense number of each row's patient.
    level: level of the metric; arguments not named here are its fields, too.
    better: "lower" or "higher".
    baseline: the same mean where nothing was learned.
    reference: the same mean of real data.
    note: what those are.
    seed: seed of the bootstrap.
  """
  good = np.isfinite(values)
  failed, n = int((~good).sum()), int(good.sum())
  if failed:
    note = f"{note}; {failed} of {len(values)} failed".lstrip("; ")
  if n < failed or not n:
    return missing(name, level, note or "no values", n, better=better)
  values, patients = values[good], patients[good]
  low, high = _mean_interval(values, patients, seed)
  return Metric(
    name,
    float(values.mean()),
    low,
    high,
    baseline,
    reference,
    better,
    n,
    level,
    note,
  )
