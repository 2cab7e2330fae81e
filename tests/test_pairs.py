"""Pairs: the index against brute force, its limits and its memory."""

import itertools

import numpy as np
import pytest

from ecgtwin_jax.data.pairs import PairIndex


def columns(rng, recordings, patients, times=3, rates=2, texts=2):
  """Random columns with many ties in time, heart rate and text."""
  statement_ids = np.full((recordings, 18), -1, np.int32)
  statement_ids[:, 0] = rng.integers(texts, size=recordings)
  return {
    "patient_id": rng.integers(patients, size=recordings).astype(str),
    "time": rng.integers(times, size=recordings),
    "record_id": rng.permutation(recordings).astype(str),
    # 70.01 and 70.02 are one rate, 70.1 is another.
    "heart_rate": 70 + rng.choice([0.01, 0.02, 0.1], size=recordings) * rates,
    "statement_ids": statement_ids,
  }


def brute_force(data):
  """All allowed (reference, target), by target and then by reference."""
  order = sorted(
    range(len(data["time"])),
    key=lambda i: (
      data["patient_id"][i],
      data["time"][i],
      data["record_id"][i],
    ),
  )
  rate = np.rint(data["heart_rate"] * 10)
  pairs = []
  for j, i in itertools.product(range(len(order)), repeat=2):
    earlier, later = order[i], order[j]
    same = rate[earlier] == rate[later] and np.array_equal(
      data["statement_ids"][earlier], data["statement_ids"][later]
    )
    patient = data["patient_id"]
    if i < j and patient[earlier] == patient[later] and not same:
      pairs.append((earlier, later))
  return pairs


@pytest.mark.parametrize("seed", range(40))
def test_pairs_equal_brute_force(seed):
  rng = np.random.default_rng(seed)
  data = columns(rng, recordings=int(rng.integers(1, 41)), patients=5)
  index = PairIndex.from_columns(**data)
  reference, target = index.pair(np.arange(len(index)))
  assert list(zip(reference, target)) == brute_force(data)


@pytest.mark.parametrize("seed", range(5))
def test_patients_lists_each_patients_pairs(seed):
  rng = np.random.default_rng(seed)
  data = columns(rng, recordings=31, patients=11)
  index = PairIndex.from_columns(**data)
  first, count = index.patients()
  assert count.min() > 0 and count.sum() == len(index)
  _, target = index.pair(np.arange(len(index)))
  owners = data["patient_id"][target]
  for start, size in zip(first, count):
    owner = set(owners[start : start + size])
    assert len(owner) == 1
    assert owner.isdisjoint(owners[:start])


def test_same_heart_rate_and_text_is_no_pair():
  ids = np.full((3, 18), -1, np.int32)
  ids[:, 0] = [4, 4, 5]
  index = PairIndex.from_columns(
    patient_id=np.array([7, 7, 7]),
    time=np.array([30, 10, 20]),
    record_id=np.array(["a", "b", "c"]),
    heart_rate=np.array([80.04, 80.0, 80.0]),
    statement_ids=ids,
  )
  # In time: row 1, row 2, row 0. Rows 1 and 0 share rate and text.
  reference, target = index.pair(np.arange(2))
  assert len(index) == 2
  assert list(zip(reference, target)) == [(1, 2), (2, 0)]


def test_one_large_patient_needs_linear_memory():
  n = 20_000  # 200 million pairs
  rng = np.random.default_rng(0)
  data = columns(rng, recordings=n, patients=1, times=n, texts=50)
  index = PairIndex.from_columns(**data)
  held = sum(value.nbytes for value in vars(index).values())
  assert held < 8 * 8 * n
  k = rng.integers(len(index), size=1000)
  reference, target = index.pair(k)
  assert (data["time"][reference] <= data["time"][target]).all()
  assert len(set(zip(reference, target))) == len(set(k))


def test_no_recordings_and_single_recordings_have_no_pairs():
  rng = np.random.default_rng(0)
  nothing = PairIndex.from_columns(**columns(rng, recordings=0, patients=1))
  assert len(nothing) == 0 and nothing.patients()[0].size == 0
  data = columns(rng, recordings=5, patients=1)
  data["patient_id"] = np.arange(5)
  assert len(PairIndex.from_columns(**data)) == 0


@pytest.mark.parametrize("number", [-1, 1])
def test_number_out_of_range_is_refused(number):
  data = columns(np.random.default_rng(0), recordings=2, patients=1)
  data["heart_rate"] = np.array([60.0, 70.0])
  index = PairIndex.from_columns(**data)
  with pytest.raises(ValueError, match=r"must be in 0\.\.0"):
    index.pair(np.array([0, number]))


def test_missing_heart_rate_is_refused():
  data = columns(np.random.default_rng(0), recordings=2, patients=1)
  data["heart_rate"][1] = np.nan
  with pytest.raises(ValueError, match="must have a heart rate"):
    PairIndex.from_columns(**data)


@pytest.mark.parametrize("seed", range(10))
def test_recordings_without_a_pair_are_their_own_reference(seed):
  data = columns(np.random.default_rng(seed), recordings=30, patients=20)
  plain = PairIndex.from_columns(**data)
  index = PairIndex.from_columns(**data, own=True)
  numbers = np.arange(len(index))
  reference, target = index.pair(numbers)
  two = len(plain)
  np.testing.assert_array_equal(
    np.stack([reference, target])[:, :two], np.stack(plain.pair(numbers[:two]))
  )
  np.testing.assert_array_equal(reference[two:], target[two:])
  paired = set(data["patient_id"][target[:two]])
  lonely = [i for i in range(30) if data["patient_id"][i] not in paired]
  assert lonely and sorted(target[two:].tolist()) == lonely
  # In any order, and beside one another.
  mixed = np.array([len(index) - 1, 0, two])
  np.testing.assert_array_equal(index.pair(mixed)[1], target[mixed])
  first, count = index.patients()
  assert count.sum() == len(index)
  assert set(first) >= set(range(two, len(index)))
