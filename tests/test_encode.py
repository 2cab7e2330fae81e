"""ECGs into latents: the encoder's numbers, their scale, and who made them."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_prep import builder, simulated
from data_prep.beats import open_finder
from data_prep.encode import encode
from ecgtwin_jax.beats.rhythm import detect_rhythm_and_beat
from ecgtwin_jax.data import pipeline
from ecgtwin_jax.data.dataset import BEATS, SPLITS, load_card, load_split
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.models.vae import Encoder
from helpers import weights

ENCODER = Encoder(
  widths=(8, 8, 8), blocks=1, middle=1, groups=4, latent_channels=5
)


@pytest.fixture(scope="module")
def params():
  return weights.draw(ENCODER.init, jnp.zeros((1, 1024, 12)))["params"]


@pytest.fixture(scope="module")
def ecgs(tmp_path_factory):
  output = tmp_path_factory.mktemp("data") / "cohort"
  return simulated.prepare(output, patients=13, recordings=3, seed=1)


@pytest.fixture(scope="module")
def latents(ecgs, params):
  # 27 training recordings in batches of 16 on 8 devices: one is padded.
  output = ecgs.with_name("latents")
  return encode(ecgs, output, ENCODER, params, batch_size=11)


def test_latents_are_the_encoders(ecgs, latents, params):
  apply = jax.jit(lambda signal: ENCODER.apply({"params": params}, signal))
  for split in SPLITS:
    source = load_split(ecgs, split, kind="ecg")
    data = load_split(latents, split, kind="latent")
    signal = source.arrays["ecg"] * np.float32(source.card["scale"])
    mean, log_variance = apply(signal)
    for name, wanted in (("mean", mean), ("std", np.exp(log_variance / 2))):
      array = data.arrays[name]
      assert array.shape == (len(source), 128, 5) and array.dtype == np.float16
      np.testing.assert_allclose(array, wanted, rtol=2e-3, atol=1e-5)


def test_columns_and_statements_are_kept(ecgs, latents):
  for split in SPLITS:
    source, data = load_split(ecgs, split), load_split(latents, split)
    for name in (
      "record_id",
      "patient_id",
      "time",
      "heart_rate",
      "age",
      "sex",
      "statement_ids",
    ):
      np.testing.assert_array_equal(getattr(data, name), getattr(source, name))
    assert data.table.statements == source.table.statements
    np.testing.assert_array_equal(
      data.table.embeddings, source.table.embeddings
    )


def assert_same_beats(data, wanted):
  assert set(BEATS) < set(data.arrays)
  for name in BEATS:
    assert data.arrays[name].dtype == wanted.arrays[name].dtype
    np.testing.assert_array_equal(data.arrays[name], wanted.arrays[name])


def test_beats_are_those_found_in_the_ecgs(ecgs, latents):
  source = load_split(ecgs, "validation", kind="ecg")
  data = load_split(latents, "validation", kind="latent")
  data.require_beats()
  assert data.arrays["beat_time"].shape == (len(source), 48)
  for row, ecg in enumerate(source.arrays["ecg"]):
    rhythm, median, found = detect_rhythm_and_beat(
      ecg * source.card["scale"], 102.4
    )
    for name, wanted in zip(BEATS, (*rhythm, median, found)):
      np.testing.assert_array_equal(data.arrays[name][row], wanted)
  assert data.arrays["median_beat_found"].all()


def test_any_number_of_workers_finds_the_same_beats(ecgs, monkeypatch):
  monkeypatch.setattr("data_prep.beats._AT_ONCE", 5)
  signals = load_split(ecgs, "train").arrays["ecg"][:13]
  with open_finder(1, 0.001, 13) as find:
    wanted = list(find(signals))
  with open_finder(2, 0.001, 13) as find:
    found = list(find(signals))
  assert len(found) == 13
  for one, other in zip(found, wanted):
    for name in BEATS:
      np.testing.assert_array_equal(one[name], other[name])


def test_beats_are_kept_when_mapped_and_selected(latents, tmp_path):
  copy = shutil.copytree(latents, tmp_path / "copy")
  inside = load_split(copy, "train")
  mapped = load_split(copy, "train", memory_limit=0)
  assert isinstance(mapped.arrays["beat_time"], np.memmap)
  assert_same_beats(mapped, inside)
  rows = np.array([7, 2])
  some = mapped.select(rows)
  for name in BEATS:
    np.testing.assert_array_equal(some.arrays[name], inside.arrays[name][rows])


def test_latents_older_than_beats_load_and_name_what_mends_them(
  latents, tmp_path
):
  older = shutil.copytree(latents, tmp_path / "older")
  path = older / "features.json"
  form = json.loads(path.read_text())
  for name in BEATS:
    del form["featuresDict"]["features"][name]
  path.write_text(json.dumps(form))
  data = load_split(older, "train", kind="latent")
  assert set(data.arrays) == {"mean", "std"}
  batch = pipeline.gather_pairs(data, np.arange(3))
  assert "beat_time" not in batch and "median_beat" not in batch
  with pytest.raises(ValueError, match=r"without beat_time.*data_prep encode"):
    data.require_beats()


def test_ecgs_hold_no_beats(ecgs):
  with pytest.raises(ValueError, match="holds ecg records, but latent"):
    load_split(ecgs, "test").require_beats()


def test_pairs_come_with_the_beats_of_both(latents):
  data = load_split(latents, "train")
  numbers = np.array([5, 0, 11])
  batch = pipeline.gather_pairs(data, numbers)
  reference, target = data.pairs.pair(numbers)
  for prefix, rows in (("", target), ("reference_", reference)):
    for name in BEATS:
      np.testing.assert_array_equal(
        batch[prefix + name], data.arrays[name][rows]
      )
    assert batch[prefix + "median_beat"].dtype == np.float32


def test_scaled_draws_have_unit_std_and_stay_in_the_clip_range(latents):
  train = load_split(latents, "train")
  scale, clip = train.card["latent_scale"], train.card["latent_clip"]
  mean, std = (np.float32(train.arrays[name]) for name in ("mean", "std"))
  noise = np.random.default_rng(5).standard_normal((60, *mean.shape))
  assert len(scale) == 5 and max(scale) > 1.01 * min(scale)
  draws = (mean + std * noise) * np.array(scale)
  np.testing.assert_allclose(draws.std(axis=(0, 1, 2)), 1, atol=0.02)
  outside = np.mean(np.abs(draws) > clip)
  assert outside == pytest.approx(1e-4, rel=0.3)


def test_card_names_the_autoencoder(ecgs, latents, params, capsys):
  assert load_card(latents)["vae"] == twin_directory.digest(params)
  encode(ecgs, latents, ENCODER, params, batch_size=8)
  assert "nothing to do" in capsys.readouterr().out
  other = jax.tree.map(lambda leaf: leaf + 1, params)
  with pytest.raises(ValueError, match=r"holds another data set.*vae="):
    encode(ecgs, latents, ENCODER, other)


def test_training_batches_come_from_it(latents):
  batches = pipeline.pair_batches(load_split(latents, "train"), 8, seed=0)
  batch = next(batches)
  batches.close()
  assert batch["reference_mean"].shape == (8, 128, 5)


def test_latents_that_are_not_finite_are_refused(ecgs, params, tmp_path):
  broken = jax.tree.map(lambda leaf: leaf * np.nan, params)
  with pytest.raises(ValueError, match="no finite latent for recording '0"):
    encode(ecgs, tmp_path / "latents", ENCODER, broken)
  assert not (tmp_path / "latents").exists()


def test_latents_are_not_encoded_again(latents, params, tmp_path):
  with pytest.raises(ValueError, match="holds latent records, but ecg"):
    encode(latents, tmp_path / "again", ENCODER, params)


class Untrained(simulated.Simulated):
  """A cohort without training patients."""

  def keys(self):
    return {**super().keys(), "train": []}

  def total(self):
    return 2


def test_data_without_training_recordings_is_refused(params, tmp_path):
  config = simulated.SimulatedConfig(patients=3, recordings=1)
  ecgs = builder.prepare(Untrained, config, tmp_path / "ecgs")
  with pytest.raises(ValueError, match=r"'train' of .* holds 0 recordings"):
    encode(ecgs, tmp_path / "latents", ENCODER, params)
