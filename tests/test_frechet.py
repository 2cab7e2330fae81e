"""The Frechet distance against closed forms and scipy's matrix root."""

import numpy as np
import pytest
import scipy.linalg

from ecgtwin_jax.evaluation.fidelity import frechet


def test_closed_form_of_gaussians_that_share_axes():
  a, b = np.array([1.0, 4.0, 9.0]), np.array([4.0, 4.0, 1.0])
  shift = np.array([1.0, -2.0, 0.5])
  found = frechet.distance(
    frechet.Gaussian(np.zeros(3), np.diag(a)),
    frechet.Gaussian(shift, np.diag(b)),
  )
  # |shift|^2 + sum (sqrt a - sqrt b)^2
  assert found == pytest.approx(5.25 + 1.0 + 0.0 + 4.0)


def test_is_the_real_part_of_the_matrix_root():
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(2, 211, 13)) @ rng.normal(size=(2, 13, 13))
  one, other = frechet.fit(x), frechet.fit(y + 0.3)
  np.testing.assert_allclose(one.covariance, np.cov(x, rowvar=False))
  root = scipy.linalg.sqrtm(one.covariance @ other.covariance)
  shift = one.mean - other.mean
  expected = shift @ shift + np.trace(
    one.covariance + other.covariance - 2 * np.real(root)
  )
  assert frechet.distance(one, other) == pytest.approx(expected, rel=1e-6)
  assert frechet.distance(other, one) == pytest.approx(expected, rel=1e-6)
  given = frechet.distance(one, other, frechet.root(one.covariance))
  assert given == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rows", [7, 211])  # 7: singular covariance
def test_identical_sets_are_at_0(rows):
  x = np.random.default_rng(0).normal(size=(rows, 13))
  assert 0 <= frechet.distance(frechet.fit(x), frechet.fit(x)) < 1e-6


def test_large_samples_approach_the_closed_form():
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(20_000, 5)), 2 * rng.normal(size=(20_000, 5)) + 3
  found = frechet.distance(frechet.fit(x), frechet.fit(y))
  assert found == pytest.approx(5 * 9 + 5 * 1, rel=0.02)


def test_weights_are_repetitions():
  rng = np.random.default_rng(0)
  x, w = rng.normal(size=(31, 5)), rng.integers(0, 4, 31)
  weighted, repeated = frechet.fit(x, w * 1.0), frechet.fit(np.repeat(x, w, 0))
  np.testing.assert_allclose(weighted.mean, repeated.mean)
  np.testing.assert_allclose(weighted.covariance, repeated.covariance)
  with pytest.raises(ValueError, match="2 are needed"):
    frechet.fit(x[:1])
