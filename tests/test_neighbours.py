"""Neighbours in blocks are those of the whole matrix."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from ecgtwin_jax.evaluation.fidelity import neighbours

SMALL = dict(block=8, columns=16)


def points(n, seed, far=0.0):
  rng = np.random.default_rng(seed)
  return (rng.normal(size=(n, 7)) + far).astype(np.float32)


@pytest.mark.parametrize("k", [1, 3, 19])  # 19: more than a block's columns
@pytest.mark.parametrize("far", [0.0, 300.0])
def test_radii_in_blocks_are_those_of_the_whole_matrix(k, far):
  x = points(53, 0, far)
  whole = np.sort(cdist(x, x), axis=1)[:, k]
  for sizes in (SMALL, {}):
    radii = neighbours.neighbour_radii(x, k, **sizes)
    assert radii.shape == (53,)
    np.testing.assert_allclose(radii, whole, rtol=1e-4)


def test_inside_in_blocks_is_that_of_the_whole_matrix():
  queries, centres = points(41, 1), points(53, 2)
  radii = np.random.default_rng(3).uniform(0.5, 2.0, 53).astype(np.float32)
  whole = (cdist(queries, centres) <= radii).any(axis=1)
  assert 5 < whole.sum() < 36
  for sizes in (SMALL, {}):
    found = neighbours.inside_any(queries, centres, radii, **sizes)
    np.testing.assert_array_equal(found, whole)


def test_padding_is_no_neighbour():
  # Padded rows are zeros, where these points are not.
  x = points(9, 4) * 0.01
  x[0] = 5.0
  radii = neighbours.neighbour_radii(x, 1, block=8, columns=8)
  np.testing.assert_allclose(
    radii, np.sort(cdist(x, x), axis=1)[:, 1], rtol=1e-3
  )
  # The padding of the balls lies in their middle, where this query is.
  away = 20.0 * np.repeat(np.eye(2, 7), 2, axis=0) * [[1], [-1], [1], [-1]]
  assert not neighbours.inside_any(
    np.zeros((5, 7)), away, np.ones(4), block=4, columns=3
  ).any()


def test_too_few_points_for_k_are_refused():
  with pytest.raises(ValueError, match=r"k=3 must be in 1\.\.2"):
    neighbours.neighbour_radii(points(3, 0), 3)
