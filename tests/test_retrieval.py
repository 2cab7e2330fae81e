"""Ranks and equal error rate where the answer is known."""

import numpy as np
import pytest
from scipy import stats

from ecgtwin_jax import ranking


@pytest.mark.parametrize("separation", [0.0, 1.0, 3.0])
def test_equal_error_rate_of_gaussians(separation):
  rng = np.random.default_rng(0)
  genuine = rng.normal(separation, 1, 40_000)
  impostor = rng.normal(0, 1, 70_001)
  got = ranking.equal_error_rate(genuine, impostor)
  assert abs(got - stats.norm.cdf(-separation / 2)) < 0.006


def test_equal_error_rate_at_its_ends():
  high, low = np.array([2.0, 3.0, 4.0]), np.array([0.0, 1.0])
  assert ranking.equal_error_rate(high, low) == 0
  assert ranking.equal_error_rate(low, high) == 1
  same = np.ones(3)
  assert ranking.equal_error_rate(same, np.ones(5)) == pytest.approx(0.5)
  # One of two patients is below one of two strangers: half of each are wrong.
  got = ranking.equal_error_rate(np.array([1.0, 3]), np.array([0.0, 2]))
  assert got == pytest.approx(0.5)


def test_scores_must_be_numbers():
  with pytest.raises(ValueError, match="3 impostor scores"):
    ranking.equal_error_rate(np.ones(2), np.array([1.0, np.nan, 0.0]))
  with pytest.raises(ValueError, match="0 genuine scores"):
    ranking.equal_error_rate(np.ones(0), np.ones(2))


def test_found_by_hand():
  similarity = np.array([[0.9, 0.1, 0.2], [0.5, 0.4, 0.3], [0.9, 0.8, 0.1]])
  own = np.array([0, 1, 2])
  for k, want in ((1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1])):
    got = ranking.found_within(similarity, own, k)
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_blind_similarities_find_by_chance():
  got = ranking.found_within(np.ones((4, 11)), np.arange(4), 5)
  np.testing.assert_allclose(got, 5 / 11)
  got = ranking.found_within(np.ones((4, 11)), np.arange(4), 5, gallery=7)
  np.testing.assert_allclose(got, 5 / 7)


def test_smaller_galleries_are_what_drawing_them_gives():
  rng = np.random.default_rng(0)
  similarity = np.round(rng.normal(size=(1, 13)), 1)
  similarity[0, 4] = np.sort(similarity[0])[-4]
  hits, draws = 0, 20_000
  others = np.delete(np.arange(13), 4)
  for _ in range(draws):
    drawn = np.append(rng.choice(others, 5, replace=False), 4)
    noise = rng.uniform(0, 1e-6, len(drawn))  # equal ones in random order
    hits += np.argmax(similarity[0, drawn] + noise) == 5
  got = ranking.found_within(similarity, np.array([4]), 1, gallery=6)
  assert abs(got[0] - hits / draws) < 0.012


@pytest.mark.parametrize("gallery", [4, 12])
def test_galleries_out_of_range_are_refused(gallery):
  with pytest.raises(ValueError, match=f"{gallery=} must be in"):
    ranking.found_within(np.ones((2, 11)), np.arange(2), 5, gallery)
