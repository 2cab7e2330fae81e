"""Rows grouped by patient: halves that share none, and rows of other ones."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float, Int, Shaped

from ecgtwin_jax.evaluation.metric import (
  NAN,
  Metric,
  bootstrap_interval,
  missing,
)

_HALVES = 40  # of the patients, over which a distance is averaged
_RESAMPLES = 300
UNCHANGED = "baseline: the patient's reference left as it was"


class Halves(NamedTuple):
  """Two sets of as many rows; no patient is in both.

  Attributes:
    one: rows of the first half, ascending.
    other: rows of the second half, ascending.
  """

  one: Int[np.ndarray, " m"]
  other: Int[np.ndarray, " m"]


def draw_halves(
  patients: Shaped[np.ndarray, " n"],
  seed: int,
  limit: int | None = None,
) -> Halves:
  """Splits the patients at random into halves of as many rows as can be.

  Patients come in random order into the half that has fewer rows; then random
  rows of the larger half are left out, because the Frechet distance and the
  precision depend on how many rows there are.

  Args:
    patients: dense number of each row's patient.
    seed: seed of the drawing.
    limit: largest number of rows in a half.

  Raises:
    ValueError: there are fewer than two patients.
  """
  names, number, count = np.unique(
    patients, return_inverse=True, return_counts=True
  )
  if len(names) < 2:
    raise ValueError(f"{len(names)} patients cannot be halved: 2 are needed")
  rng = np.random.default_rng([seed, 0])
  in_other = np.zeros(len(names), bool)
  sizes = [0, 0]
  for patient in rng.permutation(len(names)):
    half = int(sizes[1] < sizes[0])
    in_other[patient] = half
    sizes[half] += count[patient]
  size = min(*sizes, *([] if limit is None else [limit]))
  halves = [np.flatnonzero(in_other[number] == half) for half in (0, 1)]
  return Halves(*(np.sort(rng.permutation(rows)[:size]) for rows in halves))


def file_halves(patients: Shaped[np.ndarray, " n"]) -> Halves:
  """The first and the second half of the rows, whosever they are.

  Source: Lai et al., arXiv 2508.02720, released evaluation; `draw_halves`
  mends that a patient may be in both.
  """
  size = len(patients) // 2
  return Halves(np.arange(size), np.arange(size, 2 * size))


def rows_of_others(
  patients: Shaped[np.ndarray, " n"], seed: int
) -> Int[np.ndarray, " n"]:
  """A random row of another patient for each row.

  Raises:
    ValueError: there are fewer than two patients.
  """
  _, number, count = np.unique(
    patients, return_inverse=True, return_counts=True
  )
  if len(count) < 2:
    raise ValueError(f"{len(count)} patients: 2 are needed to find a stranger")
  # A patient's rows stand together here; the draw skips over them.
  order = np.argsort(number, kind="stable")
  start = (np.cumsum(count) - count)[number]
  rng = np.random.default_rng([seed, 1])
  drawn = rng.integers(0, len(number) - count[number])
  return order[np.where(drawn < start, drawn, drawn + count[number])]


def mean_of_others(
  vectors: Float[np.ndarray, "n d"], patients: Shaped[np.ndarray, " n"]
) -> Float[np.ndarray, "n d"]:
  """m_i = mean of the vectors of all rows of other patients.

  A product with m_i is the mean of the products with each of them.

  Raises:
    ValueError: there are fewer than two patients.
  """
  _, number, count = np.unique(
    patients, return_inverse=True, return_counts=True
  )
  if len(count) < 2:
    raise ValueError(f"{len(count)} patients: 2 are needed to find a stranger")
  sums = np.zeros((len(count), vectors.shape[1]))
  np.add.at(sums, number, vectors)
  others = len(number) - count
  return ((sums.sum(axis=0) - sums) / others[:, None])[number]


def compare_halves(
  generated: Callable[[np.ndarray], np.ndarray],
  real: Callable[[np.ndarray], np.ndarray],
  distance: Callable[[np.ndarray, np.ndarray], float],
  patients: Shaped[np.ndarray, " n"],
  seed: int,
) -> tuple[float, float, float, float]:
  """Distance of generated from real, its interval, and that of real from real.

  All of them between sets of half the patients, so that size does not bias.

  Args:
    generated: maps rows to what was generated for them.
    real: maps rows to what is real of them.
    distance: function of two such sets.
    patients: dense number of each row's patient.
    seed: seed of the halves and of resampling.

  Returns:
    (value, low, high, reference).
  """
  halves = split_patients(patients, _HALVES, seed)
  if not halves:
    rows = np.arange(len(patients))
    return distance(generated(rows), real(rows)), NAN, NAN, NAN
  value = [distance(generated(one), real(one)) for one, _ in halves]
  reference = [distance(real(one), real(other)) for one, other in halves]

  def halved(rows):
    rows = rows[: max(len(rows) // 2, 1)]
    return distance(generated(rows), real(rows))

  low, high = bootstrap_interval(
    halved, patients, repeats=_RESAMPLES, seed=seed
  )
  return float(np.mean(value)), low, high, float(np.mean(reference))


def mean_over_halves(
  generated: Callable[[np.ndarray], np.ndarray],
  real: Callable[[np.ndarray], np.ndarray],
  distance: Callable[[np.ndarray, np.ndarray], float],
  patients: Shaped[np.ndarray, " n"],
  seed: int,
) -> float:
  """The first of `compare_halves` alone: distance of generated from real."""
  halves = split_patients(patients, _HALVES, seed)
  rows = np.arange(len(patients))
  ones = [one for one, _ in halves] or [rows]
  return float(np.mean([distance(generated(one), real(one)) for one in ones]))


def wasserstein_metric(
  name: str,
  generated: Float[np.ndarray, "n k"],
  real: Float[np.ndarray, " n"],
  patients: Shaped[np.ndarray, " n"],
  level: str,
  note: str,
  seed: int,
  unchanged: Float[np.ndarray, " n"] | None = None,
) -> Metric:
  """Wasserstein distance of generated values from real ones, nan left out.

  The reference is real values against those of other patients. Where more than
  half of the generated values of rows whose real value is known are nan, the
  figure is missing.

  Args:
    name: name of the metric.
    generated: k values per row.
    real: one per row.
    patients: dense number of each row's patient.
    level: level of the metric.
    note: joins the metric's.
    seed: seed of the halves and of resampling.
    unchanged: the values of the patients' references, for the baseline.
  """
  good, known = np.isfinite(generated), np.isfinite(real)

  def distance(one, other):
    one, other = one[np.isfinite(one)], other[np.isfinite(other)]
    if not (len(one) and len(other)):
      return NAN
    return float(scipy.stats.wasserstein_distance(one, other))

  value, low, high, reference = compare_halves(
    lambda rows: generated[rows].ravel(),
    lambda rows: real[rows],
    distance,
    patients,
    seed,
  )
  n = int(good.sum())
  if not np.isfinite(value) or good[known].mean() < 0.5:
    return missing(name, level, note, n)
  note = f"reference: real against real, halves of the patients; {note}"
  baseline = NAN
  if unchanged is not None:
    baseline = mean_over_halves(
      lambda rows: unchanged[rows],
      lambda rows: real[rows],
      distance,
      patients,
      seed,
    )
    note = f"{UNCHANGED}; {note}"
  return Metric(
    name, value, low, high, baseline, reference, "lower", n, level, note
  )


def split_patients(
  patients: Shaped[np.ndarray, " n"], count: int, seed: int
) -> list[tuple[Int[np.ndarray, " one"], Int[np.ndarray, " other"]]]:
  """Rows of two disjoint halves of the patients, `count` times; else none."""
  names = np.unique(patients)
  half = len(names) // 2
  rng = np.random.default_rng(seed)
  drawn = [rng.permutation(names) for _ in range(count if half else 0)]
  return [
    (
      np.flatnonzero(np.isin(patients, order[:half])),
      np.flatnonzero(np.isin(patients, order[half : 2 * half])),
    )
    for order in drawn
  ]
