"""Batches: same seed same batch, restart, processes, gathering, evaluation."""

import numpy as np
import pytest

from ecgtwin_jax.data import pipeline
from helpers.datasets import make_dataset


def make_batches(name, dataset, batch_size=24, seed=5, **options):
  if name == "ecgs":
    return pipeline.ecg_batches(dataset, batch_size, seed, **options)
  options["uniform_over"] = name
  return pipeline.pair_batches(dataset, batch_size, seed, **options)


def take(iterator, count):
  batches = [next(iterator) for _ in range(count)]
  iterator.close()
  return batches


def assert_equal(first, second):
  assert len(first) == len(second)
  for a, b in zip(first, second):
    assert a.keys() == b.keys()
    for key in a:
      np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.fixture(params=["ecgs", "pairs", "patients"])
def name(request):
  return request.param


@pytest.fixture
def dataset(name):
  return make_dataset("ecg" if name == "ecgs" else "latent")


def test_same_seed_same_batches_another_seed_others(name, dataset):
  batches = take(make_batches(name, dataset), 9)
  assert_equal(batches, take(make_batches(name, dataset), 9))
  other = take(make_batches(name, dataset, seed=6), 1)[0]
  assert (other["index"] != batches[0]["index"]).any()


def test_restored_iterator_gives_the_next_batch(name, dataset):
  batches = take(make_batches(name, dataset), 9)
  first = make_batches(name, dataset)
  take_four = [next(first) for _ in range(4)]
  state = first.get_state()
  first.close()
  assert state == {"next_index": 4}
  assert_equal(batches[:4], take_four)
  restored = make_batches(name, dataset)
  restored.set_state(state)
  assert_equal(batches[4:], take(restored, 5))
  started = make_batches(name, dataset, start_step=7)
  assert_equal(batches[7:], take(started, 2))


@pytest.mark.parametrize("process_count", [2, 3])
def test_parts_of_processes_make_up_the_batch(name, dataset, process_count):
  whole = take(make_batches(name, dataset), 9)
  parts = [
    take(
      make_batches(name, dataset, process_index=i, process_count=process_count),
      9,
    )
    for i in range(process_count)
  ]
  joined = [
    {key: np.concatenate([p[key] for p in step]) for key in step[0]}
    for step in zip(*parts)
  ]
  assert_equal(whole, joined)


def test_every_recording_and_every_pair_once_per_epoch():
  ecgs = make_dataset("ecg")
  batches = take(make_batches("ecgs", ecgs, batch_size=61), 3)
  orders = [batch["index"] for batch in batches]
  for order in orders:
    assert sorted(order) == list(range(61))
  assert (orders[0] != orders[1]).any()

  latents = make_dataset("latent")
  (batch,) = take(make_batches("pairs", latents, len(latents.pairs)), 1)
  pairs = set(zip(batch["reference_index"], batch["index"]))
  assert len(pairs) == len(latents.pairs)


def test_every_patient_once_per_epoch_with_varying_pairs():
  dataset = make_dataset("latent")
  patients = len(dataset.pairs.patients()[0])
  batches = take(make_batches("patients", dataset, batch_size=patients), 400)
  for batch in batches:
    assert len(set(batch["patient_id"])) == patients
  drawn = np.concatenate([batch["index"] for batch in batches])
  reference = np.concatenate([batch["reference_index"] for batch in batches])
  # All pairs turn up, those of one patient about equally often.
  k = np.arange(len(dataset.pairs))
  counts = {
    pair: 0 for pair in zip(*map(np.ndarray.tolist, dataset.pairs.pair(k)))
  }
  for pair in zip(reference.tolist(), drawn.tolist()):
    counts[pair] += 1
  for first, count in zip(*dataset.pairs.patients()):
    expected = 400 / count
    seen = np.array(list(counts.values()))[first : first + count]
    assert seen.sum() == 400
    assert abs(seen - expected).max() < 6 * np.sqrt(expected)


def test_ecg_batch_is_in_millivolt():
  (batch,) = take(make_batches("ecgs", make_dataset("ecg")), 1)
  assert batch["ecg"].shape == (24, 1024, 12)
  assert batch["ecg"].dtype == np.float32 and batch["index"].dtype == np.int32
  millivolt = np.float32(batch["index"] / 1000)[:, None, None]
  np.testing.assert_allclose(
    batch["ecg"], np.broadcast_to(millivolt, (24, 1024, 12)), rtol=1e-6
  )


def test_pair_batch_holds_both_recordings():
  dataset = make_dataset("latent")
  (batch,) = take(make_batches("pairs", dataset), 1)
  target, reference = batch["index"], batch["reference_index"]
  assert (dataset.time[reference] < dataset.time[target]).all()
  owner = dataset.patient_id
  assert (owner[reference] == owner[target]).all()
  assert batch["patient_id"].dtype == np.int32
  number = {int(n): owner[row] for n, row in zip(batch["patient_id"], target)}
  assert [number[int(n)] for n in batch["patient_id"]] == owner[target].tolist()
  for prefix, rows in (("", target), ("reference_", reference)):
    assert batch[prefix + "mean"].dtype == np.float32
    assert batch[prefix + "mean"].shape == (24, 128, 4)
    np.testing.assert_array_equal(batch[prefix + "mean"][:, 0, 0], rows)
    np.testing.assert_array_equal(batch[prefix + "std"][:, 9, 3], rows / 2)
    ids = batch[prefix + "statement_ids"]
    np.testing.assert_array_equal(ids, dataset.statement_ids[rows])
    patient = batch[prefix + "patient"]
    assert patient.shape == (24, 3) and patient.dtype == np.float32
    rate = (np.float64(dataset.heart_rate[rows]) - 77.95) / 20.37
    np.testing.assert_allclose(patient[:, 0], rate, rtol=1e-6)
    missing = dataset.age[rows] == -1
    np.testing.assert_array_equal(np.isnan(patient[:, 1]), missing)
    age = (dataset.age[rows] - 64.25) / 17.13
    np.testing.assert_allclose(patient[~missing, 1], age[~missing], rtol=1e-5)
    sex = np.where(dataset.sex[rows] < 0, np.nan, dataset.sex[rows])
    np.testing.assert_array_equal(patient[:, 2], sex)
  assert dataset.record_names(target[:2]) == [f"r{row}" for row in target[:2]]


@pytest.mark.parametrize("process_count", [1, 2])
def test_evaluation_passes_once_over_everything(process_count):
  dataset = make_dataset("latent")
  seen, sizes = [], set()
  for index in range(process_count):
    for batch in pipeline.eval_pair_batches(
      dataset, 16, process_index=index, process_count=process_count
    ):
      sizes.add((len(batch["valid"]), len(batch["mean"])))
      pairs = zip(batch["reference_index"], batch["index"])
      seen += [pair for pair, valid in zip(pairs, batch["valid"]) if valid]
  assert sizes == {(16 // process_count,) * 2}
  everything = zip(*dataset.pairs.pair(np.arange(len(dataset.pairs))))
  assert sorted(seen) == sorted(everything)


def test_evaluation_of_a_part_is_the_same_every_time():
  dataset = make_dataset("ecg")
  first, second = (
    list(pipeline.eval_ecg_batches(dataset, 8, limit=11)) for _ in range(2)
  )
  assert_equal(first, second)
  assert [int(batch["valid"].sum()) for batch in first] == [8, 3]
  rows = np.concatenate([batch["index"][batch["valid"]] for batch in first])
  assert len(set(rows.tolist())) == 11
  assert rows.tolist() != sorted(rows.tolist())


def test_one_pair_is_enough_and_none_is_refused_with_the_counts():
  dataset = make_dataset("latent", recordings=2, patients=1)
  (batch,) = take(make_batches("pairs", dataset, batch_size=3), 1)
  assert len(set(batch["index"].tolist())) == 1
  lonely = make_dataset("latent", recordings=1, patients=1)
  for uniform_over in ("pairs", "patients"):
    with pytest.raises(ValueError, match="0 pairs: its 1 recordings are of 1"):
      make_batches(uniform_over, lonely)
  assert list(pipeline.eval_pair_batches(lonely, 4)) == []


def test_wrong_requests_are_refused():
  ecgs, latents = make_dataset("ecg"), make_dataset("latent")
  with pytest.raises(ValueError, match="latent records are needed: make them"):
    make_batches("pairs", ecgs)
  with pytest.raises(ValueError, match="holds latent records, but ecg"):
    make_batches("ecgs", latents)
  with pytest.raises(ValueError, match="divisible by process_count=5"):
    make_batches("ecgs", ecgs, process_count=5)
  with pytest.raises(ValueError, match=r"process_index=2 must be in 0\.\.1"):
    make_batches("ecgs", ecgs, process_index=2, process_count=2)
  with pytest.raises(ValueError, match="uniform_over='years' must be"):
    make_batches("years", latents)
