"""The identity encoder: its loss, its patients, its training, its file."""

import contextlib
import importlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from ecgtwin_jax.data import pipeline
from ecgtwin_jax.data.dataset import load_split
from ecgtwin_jax.evaluation.person import identification
from ecgtwin_jax.flags import load_config
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.jobs import train as train_job
from ecgtwin_jax.models.identity import IdentityEncoder
from ecgtwin_jax.stages import identity
from ecgtwin_jax.training import checkpoint, metric_writer, train
from helpers import runs

SMALL = dict(stages=(16, 32), blocks=(1, 1), kernel=5, width=7)


def smoke(**changes):
  config = load_config(f"{runs.ROOT}/configs/identity.py:smoke")
  with config.ignore_type():
    config.update_from_flattened_dict(changes)
  return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A smoke training that made its own cohort: the folder it ran in."""
  folder = tmp_path_factory.mktemp("identity")
  with contextlib.chdir(folder):
    train_job.train_stage(smoke(), f"{runs.ROOT}/configs/identity.py")
  return folder / "runs" / "smoke"


def at(folder, workdir, **changes):
  return smoke(data=str(folder / "evaluators"), workdir=str(workdir), **changes)


def test_trains_on_patients_that_no_generator_meets(folder):
  card = load_split(folder / "evaluators", "train").card
  generator = load_config(f"{runs.ROOT}/configs/stage2.py:smoke")
  assert smoke().cohort.seed == 1000 != generator.cohort.seed
  assert smoke().cohort.path == smoke().data != generator.data
  assert card["options"]["seed"] == 1000
  last = metric_writer.read_metrics(folder / "identity")[4]
  assert last["validation/patients"] == 4
  assert last["validation/top1_chance"] == 0.25
  for name in ("top1", "top5", "equal_error_rate"):
    assert 0 <= last[f"validation/{name}"] <= 1


def test_resumed_is_the_same_as_uninterrupted(folder, tmp_path):
  half = tmp_path / "half"
  train.train(at(folder, half, stop_at=2), half)
  train.train(at(folder, half), half)
  runs.assert_same(half, folder / "identity")


def test_any_number_of_devices_gives_the_same(folder, tmp_path):
  # The folder's own has trained on eight.
  eight = list(runs.train_losses(folder / "identity").values())[:2]
  one, _ = runs.losses_on(at(folder, tmp_path), jax.devices()[:1], 2)
  np.testing.assert_allclose(one, eight, rtol=1e-5)


def test_a_judge_embeds_each_ecg_alone(folder):
  judge = identification.Identity(folder / "identity")
  signals = np.random.default_rng(0).normal(size=(67, 1024, 12))
  signals = signals.astype(np.float32)
  z = judge.embed(signals)
  assert z.shape == (67, 64) and judge.embed(signals[:0]).shape == (0, 64)
  np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)
  np.testing.assert_allclose(judge.embed(signals[65:]), z[65:], atol=1e-5)
  hyper, weights = checkpoint.load_weights(folder / "identity", "identity")
  module = IdentityEncoder(**hyper["model"])
  variables = {"params": weights["params"], **weights["model_state"]}
  want = jax.jit(module.apply)(variables, signals[:3])
  np.testing.assert_allclose(z[:3], want, atol=1e-5)
  assert judge.digest == twin_directory.digest(weights)


def test_losses_by_hand():
  rng = np.random.default_rng(0)
  z = rng.normal(size=(5, 3))
  z /= np.linalg.norm(z, axis=1, keepdims=True)
  patients = np.array([7, 8, 7, 7, 9])
  got = identity.supervised_contrastive_losses(
    jnp.asarray(z, jnp.float32), jnp.asarray(patients), 0.2
  )
  similarity = np.exp(z @ z.T / 0.2)
  for i in range(5):
    others = np.delete(np.arange(5), i)
    positives = [p for p in others if patients[p] == patients[i]]
    terms = [
      -np.log(similarity[i, p] / similarity[i, others].sum()) for p in positives
    ]
    want = np.mean(terms) if terms else 0.0
    np.testing.assert_allclose(got[i], want, rtol=1e-4, atol=1e-6)


def test_a_recording_keeps_its_embedding_up_to_gain_in_training_alone():
  config = smoke(gain=0.3)
  signal = jax.random.normal(jax.random.key(0), (4, 1024, 12))
  changed = identity.augment(config, jax.random.key(1), signal)
  assert changed.shape == signal.shape
  gain = jnp.std(changed, axis=(1, 2)) / jnp.std(signal, axis=(1, 2))
  assert len(np.unique(gain)) == 4 and (abs(gain - 1) <= 0.3).all()
  # Each is rolled by its own number of samples.
  spectrum = jnp.abs(jnp.fft.rfft(changed, axis=1)) / gain[:, None, None]
  same = jnp.abs(jnp.fft.rfft(signal, axis=1))
  np.testing.assert_allclose(spectrum, same, rtol=1e-2, atol=1e-2)
  assert not np.allclose(changed / gain[:, None, None], signal, atol=0.1)


def test_embeddings_have_unit_length_and_flat_ecgs_too():
  module = IdentityEncoder(**SMALL)
  signal = jnp.zeros((3, 53, 12)).at[0].set(1.5)
  variables = jax.jit(module.init)(jax.random.key(0), signal)
  z = jax.jit(module.apply)(variables, signal)
  assert z.shape == (3, 7) and np.isfinite(z).all()
  np.testing.assert_allclose(jnp.linalg.norm(z[0]), 1, rtol=1e-5)


def test_the_validation_split_is_cut_by_patient(folder):
  config = ml_collections.FrozenConfigDict(
    at(folder, "", patients="validation")
  )
  parts = identity.load_data(config)
  whole = load_split(folder / "evaluators", "validation")
  names = [set(part.patient_id) for part in parts]
  assert not names[0] & names[1] and all(names)
  assert names[0] | names[1] == set(whole.patient_id)
  assert len(parts.train) + len(parts.validation) == len(whole)
  assert not names[0] & set(
    load_split(folder / "evaluators", "test").patient_id
  )
  wrong = ml_collections.FrozenConfigDict(at(folder, "", patients="all"))
  with pytest.raises(ValueError, match=r"config\.patients='all'"):
    identity.load_data(wrong)


def test_pairs_are_two_recordings_of_each_patient_once_per_epoch(folder):
  data = load_split(folder / "evaluators", "train")
  patients = len(np.unique(data.patient_id))
  batches = pipeline.ecg_pair_batches(data, patients, 3)
  batch = next(batches)
  batches.close()
  rows, earlier = batch["index"], batch["reference_index"]
  assert sorted(batch["patient_id"]) == list(range(patients))
  np.testing.assert_array_equal(data.patient_id[rows], data.patient_id[earlier])
  assert (data.time[earlier] < data.time[rows]).all()
  scale = np.float32(data.card["scale"])
  np.testing.assert_array_equal(batch["ecg"], data.arrays["ecg"][rows] * scale)
  np.testing.assert_array_equal(
    batch["reference_ecg"], data.arrays["ecg"][earlier] * scale
  )
  halves = [
    pipeline.ecg_pair_batches(
      data, patients, 3, process_index=i, process_count=2
    )
    for i in range(2)
  ]
  both = [next(each) for each in halves]
  for each in halves:
    each.close()
  for key, value in batch.items():
    np.testing.assert_array_equal(
      np.concatenate([part[key] for part in both]), value
    )


def test_half_precision_on_disk_changes_little(folder, tmp_path):
  found = checkpoint.load_weights(folder / "identity", "identity")
  twin_directory.write_twin(
    tmp_path / "kept",
    {"identity": found},
    sources={},
    card="",
    dtype=np.float16,
  )
  hyper, weights = checkpoint.load_weights(tmp_path / "kept", "identity")
  assert hyper["model"] == found[0]["model"]
  module = IdentityEncoder(**hyper["model"])
  signal = jax.random.normal(jax.random.key(0), (2, 1024, 12))

  @jax.jit
  def embed(weights):
    return module.apply(
      {"params": weights["params"], **weights["model_state"]}, signal
    )

  np.testing.assert_allclose(embed(weights), embed(found[1]), atol=5e-3)


@pytest.mark.parametrize("name", ["identity", "clip"])
def test_the_shipped_ones_are_small(name):
  config = load_config(f"{runs.ROOT}/configs/{name}.py:small")
  assert config.cohort.to_dict() == dict(
    patients=3_000, recordings=4, path="runs/small/evaluators", seed=1000
  )
  stage = importlib.import_module(f"ecgtwin_jax.stages.{name}")
  frozen = ml_collections.FrozenConfigDict(config)
  params, _ = jax.eval_shape(lambda: stage.init(jax.random.key(0), frozen))
  count = sum(x.size for x in jax.tree.leaves(params))
  assert 2 * count < 2_000_000  # bytes in half precision
