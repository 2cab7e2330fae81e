"""Improved precision and recall: like real ones? all of them?"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from threadpoolctl import threadpool_limits

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


# Of sets this small, threads take longer than one does alone.
@threadpool_limits.wrap(limits=1)
def find_hits(
  real: Float[np.ndarray, "n d"],
  points: Float[np.ndarray, "n _ d"],
  pairs: list[tuple[Int[np.ndarray, " one"], Int[np.ndarray, " other"]]],
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
    k: number of the neighbour; 1 is the nearest.

  Raises:
    ValueError: a set has not more than k rows.

  Source: Kynkaanniemi et al. 2019 (arXiv:1904.06991).
  """
  precise, recalled = np.zeros((2, len(real))), np.zeros((2, len(real)))
  for one, other in pairs:
    known = real[one]
    radii = neighbour_radii(known, k)
    for j in range(points.shape[1])[:samples]:
      compared = points[other, j]
      compared_radii = neighbour_radii(compared, k)
      precise[0, other] += inside_any(compared, known, radii)
      recalled[0, one] += inside_any(known, compared, compared_radii)
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


def neighbour_radii(
  points: Float[np.ndarray, "n d"], k: int = K
) -> Float[np.ndarray, " n"]:
  """r_i = distance of point i to its k-th nearest other point of the set.

  Args:
    points: the set.
    k: number of the neighbour; 1 is the nearest.

  Raises:
    ValueError: the set has not more than k points.
  """
  from sklearn.neighbors import NearestNeighbors

  if not 1 <= k < len(points):
    raise ValueError(f"{k=} must be in 1..{len(points) - 1}, n - 1")
  points = _centred(points, points)
  search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points)
  distances, _ = search.kneighbors()
  return distances[:, -1]


def inside_any(
  queries: Float[np.ndarray, "m d"],
  centres: Float[np.ndarray, "n d"],
  radii: Float[np.ndarray, " n"],
) -> Bool[np.ndarray, " m"]:
  """Whether |q - c_i| <= r_i for any i: q lies in the union of the balls."""
  from sklearn.metrics import pairwise_distances_chunked

  pieces = pairwise_distances_chunked(
    _centred(queries, centres),
    _centred(centres, centres),
    reduce_func=lambda distances, _: (distances <= radii).any(axis=1),
    working_memory=64,  # MB
  )
  return np.concatenate(list(pieces))


def _centred(points, origin):
  """Moved to the origin, where squares lose the fewest digits."""
  return np.asarray(points, np.float64) - origin.mean(axis=0, dtype=np.float64)


def _shares(hit, compared):
  return np.where(compared > 0, hit / np.maximum(compared, 1), np.nan)
