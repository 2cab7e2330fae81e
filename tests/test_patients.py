"""Halves share no patient and have as many rows; strangers are strangers."""

import numpy as np
import pytest

from ecgtwin_jax.evaluation import resampling as p

PEOPLE = np.repeat(np.arange(23), np.arange(23) % 5 + 1)


@pytest.mark.parametrize("seed", range(5))
def test_halves_share_no_patient_and_have_as_many_rows(seed):
  one, other = p.draw_halves(PEOPLE, seed)
  assert len(one) == len(other) >= len(PEOPLE) // 2 - 5
  assert not set(PEOPLE[one]) & set(PEOPLE[other])
  assert len(set(one) | set(other)) == 2 * len(one)


def test_halves_follow_the_seed_and_the_limit():
  one, other = p.draw_halves(PEOPLE, 0, limit=11)
  assert len(one) == len(other) == 11
  again, _ = p.draw_halves(PEOPLE, 0, limit=11)
  np.testing.assert_array_equal(one, again)
  assert len(set(p.draw_halves(PEOPLE, 1, limit=11).one) ^ set(one)) > 0


def test_halves_in_file_order():
  one, other = p.file_halves(PEOPLE[:7])
  assert one.tolist() == [0, 1, 2] and other.tolist() == [3, 4, 5]


def test_strangers_are_other_patients_and_all_of_them():
  seen = set()
  for seed in range(40):
    rows = p.rows_of_others(PEOPLE, seed)
    assert (PEOPLE[rows] != PEOPLE).all()
    seen |= {(a, b) for a, b in zip(PEOPLE, PEOPLE[rows])}
  assert len(seen) > 0.9 * 23 * 22


def test_mean_of_the_others():
  x = np.random.default_rng(0).normal(size=(len(PEOPLE), 7))
  found = p.mean_of_others(x, PEOPLE)
  for i in (0, 11, len(PEOPLE) - 1):
    np.testing.assert_allclose(found[i], x[PEOPLE != PEOPLE[i]].mean(axis=0))


def test_one_patient_alone_is_refused():
  alone = np.zeros(5, int)
  with pytest.raises(ValueError, match="2 are needed"):
    p.draw_halves(alone, 0)
  with pytest.raises(ValueError, match="2 are needed"):
    p.rows_of_others(alone, 0)
  with pytest.raises(ValueError, match="2 are needed"):
    p.mean_of_others(np.zeros((5, 3)), alone)
