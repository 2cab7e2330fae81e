"""Neighbours are those of the whole matrix of distances."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from ecgtwin_jax.evaluation.fidelity import precision_recall


def points(n, seed, far=0.0):
  rng = np.random.default_rng(seed)
  return (rng.normal(size=(n, 7)) + far).astype(np.float32)


@pytest.mark.parametrize("k", [1, 3, 19])
@pytest.mark.parametrize("far", [0.0, 300.0])
def test_radii_are_those_of_the_whole_matrix(k, far):
  x = points(53, 0, far)
  whole = np.sort(cdist(x, x), axis=1)[:, k]
  radii = precision_recall.neighbour_radii(x, k)
  assert radii.shape == (53,)
  np.testing.assert_allclose(radii, whole, rtol=1e-4)


def test_inside_is_that_of_the_whole_matrix():
  queries, centres = points(41, 1), points(53, 2)
  radii = np.random.default_rng(3).uniform(0.5, 2.0, 53)
  whole = (cdist(queries, centres) <= radii).any(axis=1)
  assert 5 < whole.sum() < 36
  found = precision_recall.inside_any(queries, centres, radii)
  np.testing.assert_array_equal(found, whole)


def test_too_few_points_for_k_are_refused():
  with pytest.raises(ValueError, match=r"k=3 must be in 1\.\.2"):
    precision_recall.neighbour_radii(points(3, 0), 3)
