"""The Frechet distance between sets of points, each taken for a Gaussian."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Gaussian(NamedTuple):
  """Mean and covariance of a set of points.

  Attributes:
    mean: mu = sum w_i x_i / sum w_i.
    covariance: sum w_i (x_i - mu)(x_i - mu)^T / (sum w_i - 1).
  """

  mean: Float[np.ndarray, " d"]
  covariance: Float[np.ndarray, "d d"]


def fit(
  points: Float[np.ndarray, "n d"],
  weights: Float[np.ndarray, " n"] | None = None,
) -> Gaussian:
  """Mean and covariance (n - 1 in the denominator) in double precision.

  Args:
    points: the set.
    weights: how often each point counts, such as in a resample.

  Raises:
    ValueError: the weights sum to 1 or less.
  """
  x = np.asarray(points, np.float64)
  w = np.ones(len(x)) if weights is None else weights
  total = w.sum()
  if total <= 1:
    raise ValueError(f"{total} points have no covariance: 2 are needed")
  mean = w @ x / total
  x = x - mean
  return Gaussian(mean, (x * w[:, None]).T @ x / (total - 1))


def root(covariance: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
  """The symmetric root of a covariance."""
  values, vectors = np.linalg.eigh(covariance)
  return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def distance(
  one: Gaussian,
  other: Gaussian,
  one_root: Float[np.ndarray, "d d"] | None = None,
) -> float:
  """d^2 = |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

  tr (S1 S2)^(1/2) is the sum of the roots of the eigenvalues of
  S1^(1/2) S2 S1^(1/2), which is symmetric: no ridge is needed and no imaginary
  part has to be dropped, however few the points are.

  Args:
    one: mu1, S1.
    other: mu2, S2.
    one_root: root(S1), where it is at hand.

  Source: Dowson and Landau 1982; FID, Heusel et al. 2017 (arXiv:1706.08500).
  """
  r = root(one.covariance) if one_root is None else one_root
  values = np.linalg.eigvalsh(r @ other.covariance @ r)
  shift = one.mean - other.mean
  spread = np.trace(one.covariance) + np.trace(other.covariance)
  common = np.sqrt(np.maximum(values, 0)).sum()
  # Equal sets would give a rounding error of either sign.
  return max(float(shift @ shift + spread - 2 * common), 0.0)
