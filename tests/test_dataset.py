"""Reading of data sets: what is refused, and memory-mapped arrays."""

import json
import shutil

import numpy as np
import pytest

from data_prep import simulated
from ecgtwin_jax.data import pipeline
from ecgtwin_jax.data.dataset import load_card, load_split


@pytest.fixture(scope="module")
def original(tmp_path_factory):
  output = tmp_path_factory.mktemp("data") / "cohort"
  return simulated.prepare(output, patients=13, recordings=3, seed=1)


@pytest.fixture
def directory(original, tmp_path):
  """A copy that a test may damage."""
  return shutil.copytree(original, tmp_path / "copy")


def edit_card(directory, **changes):
  path = directory / "card.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_missing_data_set_names_the_command_that_makes_it(tmp_path):
  place = tmp_path / "none"
  with pytest.raises(ValueError, match=f"simulated --output {place}"):
    load_split(place, "train")
  with pytest.raises(ValueError, match="encode --data ECGS --vae CKPT"):
    load_split(place, "train", kind="latent")


def test_missing_split_is_refused_with_those_there(original):
  with pytest.raises(ValueError, match=r"split='val'.*train, validation, test"):
    load_split(original, "val")


def test_kind_is_checked(original):
  load_split(original, "test", kind="ecg")
  with pytest.raises(ValueError, match="holds ecg records, but latent"):
    load_split(original, "test", kind="latent")


@pytest.mark.parametrize(
  "change",
  [
    {"unit": "uV"},
    {"sampling_rate": 100},
    {"leads": ["II", "I"]},
    {"format": 2},
  ],
)
def test_other_units_leads_rates_and_formats_are_refused(directory, change):
  edit_card(directory, **change)
  (key,) = change
  with pytest.raises(ValueError, match=f"card.json: {key}=.* must be"):
    load_card(directory)


def test_missing_shard_is_refused(directory):
  (shard,) = directory.glob("*-train.array_record*")
  shard.unlink()
  with pytest.raises(ValueError, match=r"train.*is missing: prepare"):
    load_split(directory, "train")
  assert len(load_split(directory, "test")) == 6


def test_truncated_shard_is_refused(directory):
  (shard,) = directory.glob("*-train.array_record*")
  shard.write_bytes(shard.read_bytes()[:70_000])
  with pytest.raises(ValueError, match=r"holds 0 records, but must hold 27"):
    load_split(directory, "train")


def test_corrupt_shard_is_refused(directory):
  (shard,) = directory.glob("*-train.array_record*")
  content = bytearray(shard.read_bytes())
  content[50_000] ^= 255
  shard.write_bytes(content)
  with pytest.raises(ValueError, match=r"train.*is damaged"):
    load_split(directory, "train")


def test_columns_alone_leave_the_signals_out(original):
  columns = load_split(original, "train", with_arrays=False)
  whole = load_split(original, "train")
  assert columns.arrays == {} and whole.arrays["ecg"].shape == (27, 1024, 12)
  for name in ("record_id", "time", "heart_rate", "statement_ids"):
    np.testing.assert_array_equal(getattr(columns, name), getattr(whole, name))


def test_memory_mapped_split_equals_the_one_in_memory(directory, monkeypatch):
  inside = load_split(directory, "train")
  mapped = load_split(directory, "train", memory_limit=0)
  assert isinstance(mapped.arrays["ecg"], np.memmap)
  # The copy is made once: no record is read again.
  monkeypatch.setattr("ecgtwin_jax.data.dataset._read", None)
  again = load_split(directory, "train", memory_limit=0)
  for data in (mapped, again):
    np.testing.assert_array_equal(data.arrays["ecg"], inside.arrays["ecg"])
    for name in ("record_id", "patient_id", "age", "sex", "statement_ids"):
      np.testing.assert_array_equal(getattr(data, name), getattr(inside, name))
  first, second = (
    pipeline.ecg_batches(data, 5, seed=0) for data in (inside, again)
  )
  np.testing.assert_array_equal(next(first)["ecg"], next(second)["ecg"])
  first.close()
  second.close()
