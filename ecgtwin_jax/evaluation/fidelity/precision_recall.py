"""Improved precision and recall: like real ones? all of them?"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ecgtwin_jax.evaluation.fidelity import neighbours

K = 3  # as published


class Hits(NamedTuple):
  """Shares of the comparisons in which a row was hit; NaN where in none.

  Attributes:
    precise: the row's generated points lie in a ball of the real ones.
    recalled: the row's real point lies in a ball of the generated ones.
  """

  precise: Float[np.ndarray, " n"]
  recalled: Float[np.ndarray, " n"]


class Figures(NamedTuple):
  """Precision, recall, and F1 = 2 p r / (p + r)."""

  precision: float
  recall: float
  f1: float


def find_hits(
  real: Float[np.ndarray, "n d"],
  points: Float[np.ndarray, "n _ d"],
  pairs: list[tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]],
  samples: int | None = None,
  k: int = K,
) -> Hits:
  """Which points lie within the radius of any point of the other set.

  A point's radius is the distance to its k-th nearest neighbour in its own
  set.

  Args:
    real: a point per row.
    points: samples of each row; each sample makes a set of its own.
    pairs: rows of the real set, and rows of the set compared with it.
    samples: how many of the samples are used; None: all.
    k: which neighbour.

  Raises:
    ValueError: a set has not more than k rows.

  Source: Kynkaanniemi et al. 2019 (arXiv:1904.06991).
  """
  precise, recalled = np.zeros((2, len(real))), np.zeros((2, len(real)))
  for one, other in pairs:
    known = real[one]
    radii = neighbours.neighbour_radii(known, k)
    for j in range(points.shape[1])[:samples]:
      compared = points[other, j]
      own = neighbours.neighbour_radii(compared, k)
      precise[0, other] += neighbours.inside_any(compared, known, radii)
      recalled[0, one] += neighbours.inside_any(known, compared, own)
      precise[1, other] += 1
      recalled[1, one] += 1
  return Hits(_shares(*precise), _shares(*recalled))


def figures(hits: Hits, rows: Int[np.ndarray, " m"] | None = None) -> Figures:
  """Means of the hits, over all rows or some.

  Resampling rows here, with the balls held as they are, gives an interval
  without comparing a point with its own copies, which are at distance 0.
  """
  chosen = hits if rows is None else Hits(*(h[rows] for h in hits))
  known = [h[np.isfinite(h)] for h in chosen]
  if not all(len(h) for h in known):
    return Figures(*[float("nan")] * 3)
  p, r = (float(h.mean()) for h in known)
  return Figures(p, r, 2 * p * r / (p + r) if p + r else 0.0)


def _shares(hit, compared):
  return np.where(compared > 0, hit / np.maximum(compared, 1), np.nan)
