"""One number of a report, with its interval, its floor and what it is from."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

LEVELS = (
  "fidelity",
  "condition",
  "physiology",
  "person",
  "truth",
  "privacy",
)


class Metric(NamedTuple):
  """A measured figure.

  Attributes:
    name: short, unique within a report, with its unit: "heart_rate_mae_bpm".
    value: nan where it cannot be estimated; `note` says why.
    low: lower end of the 95% interval; nan where there is none.
    high: upper end.
    floor: what the same figure is where nothing was learned, or for real ECGs
      against real ones; `note` says which; nan where there is none.
    n: how many ECGs, beats or pairs stand behind it.
    level: one of LEVELS.
    note: what the floor is, what failed, what does not apply.
  """

  name: str
  value: float
  low: float
  high: float
  floor: float
  n: int
  level: str
  note: str = ""


def missing(name: str, level: str, why: str, n: int = 0) -> Metric:
  """A figure that cannot be estimated here, and why."""
  nan = float("nan")
  return Metric(name, nan, nan, nan, nan, n, level, why)


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
    patients: of each row. Rows of one patient are drawn together, as they are
      not independent.
    repeats: resamples.
    seed: of the drawing.

  Returns:
    (low, high): the 2.5th and 97.5th percentile; nan for a single patient or
    where fewer than half of the resamples allow a number.
  """
  order = np.argsort(patients, kind="stable")
  _, starts = np.unique(patients[order], return_index=True)
  rows = np.split(order, starts[1:])
  if len(rows) < 2:
    return float("nan"), float("nan")
  rng = np.random.default_rng(seed)
  values = np.array(
    [
      statistic(np.concatenate([rows[i] for i in drawn]))
      for drawn in rng.integers(0, len(rows), (repeats, len(rows)))
    ],
    np.float64,
  )
  values = values[np.isfinite(values)]
  if 2 * len(values) < repeats:
    return float("nan"), float("nan")
  low, high = np.percentile(values, [2.5, 97.5])
  return float(low), float(high)


def mean_metric(
  name: str,
  values: Float[np.ndarray, " n"],
  patients: Shaped[np.ndarray, " n"],
  level: str,
  *,
  floor: float = float("nan"),
  note: str = "",
  seed: int = 0,
) -> Metric:
  """The mean of the values that are numbers, with its interval.

  Values that are nan are failed measurements: left out of the mean, counted in
  the note, never replaced.
  """
  good = np.isfinite(values)
  failed = int((~good).sum())
  if failed:
    note = f"{note}; {failed} of {len(values)} failed".lstrip("; ")
  if not good.any():
    return missing(name, level, note or "no values", 0)
  values, patients = values[good], patients[good]
  low, high = bootstrap_interval(
    lambda rows: values[rows].mean(), patients, seed=seed
  )
  return Metric(
    name, float(values.mean()), low, high, floor, len(values), level, note
  )
