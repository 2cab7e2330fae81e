"""Sets of half the patients, so that distances are not biased by size."""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Int, Shaped

from ecgtwin_jax.evaluation.metric import bootstrap_interval

_HALVES = 40  # of the patients, over which a floor is averaged
_RESAMPLES = 300


def compare_halves(
  made: Callable[[np.ndarray], np.ndarray],
  real: Callable[[np.ndarray], np.ndarray],
  distance: Callable[[np.ndarray, np.ndarray], float],
  patients: Shaped[np.ndarray, " n"],
  seed: int,
) -> tuple[float, float, float, float]:
  """Distance of made from real, its interval and the floor real from real.

  All of them between sets of half the patients, so that size does not bias.

  Args:
    made: maps rows to what was generated for them.
    real: maps rows to what is real of them.
    distance: of two such sets.
    patients: (n,) of each row.
    seed: of halves and resampling.

  Returns:
    (value, low, high, floor).
  """
  halves = split_patients(patients, _HALVES, seed)
  if not halves:
    rows = np.arange(len(patients))
    nan = math.nan
    return distance(made(rows), real(rows)), nan, nan, nan
  value = [distance(made(one), real(one)) for one, _ in halves]
  floor = [distance(real(one), real(other)) for one, other in halves]

  def halved(rows):
    rows = rows[: max(len(rows) // 2, 1)]
    return distance(made(rows), real(rows))

  low, high = bootstrap_interval(
    halved, patients, repeats=_RESAMPLES, seed=seed
  )
  return float(np.mean(value)), low, high, float(np.mean(floor))


def split_patients(
  patients: Shaped[np.ndarray, " n"], count: int, seed: int
) -> list[tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]]:
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
