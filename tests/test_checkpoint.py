"""Checkpoints: exact, sealed, checked; damage is found and never hidden."""

import json

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from ecgtwin_jax import sharding
from ecgtwin_jax.training import checkpoint, manifest

HYPER = {"part": "vae", "model": {"widths": (8, 16)}}


def make_config(**changes):
  config = ml_collections.ConfigDict(
    dict(seed=0, steps=100, keep_checkpoints=3, workdir="w", data="d")
  )
  config.update(changes)
  return config


def make_trees(value: float):
  return {
    "weights": {
      "params": {"dense": {"kernel": jnp.full((7, 64), value)}},
      "model_state": {},
    },
    "state": {"step": jnp.asarray(3), "opt_state": [jnp.arange(5.0) * value]},
  }


def abstract_trees(places=None):
  shapes = jax.eval_shape(lambda: make_trees(0.0))
  mesh = sharding.make_mesh()
  place = sharding.replicated(mesh)
  return jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), shapes
  )


def save(workdir, steps, **changes):
  saver = checkpoint.Checkpointer(workdir, make_config(**changes), HYPER, "f")
  for step, score in steps:
    saver.save(step, make_trees(float(step)), score)
  saver.close()


def restore(workdir, data_fingerprint="f", hyper=HYPER, **changes):
  saver = checkpoint.Checkpointer(
    workdir, make_config(**changes), hyper, data_fingerprint
  )
  try:
    return saver.restore(abstract_trees())
  finally:
    saver.close()


def largest_file(step_dir):
  files = [p for p in step_dir.rglob("*") if p.is_file()]
  data = [p for p in files if p.name != manifest.NAME]
  return max(data, key=lambda p: p.stat().st_size)


def test_the_newest_checkpoint_comes_back_bit_for_bit(tmp_path):
  save(tmp_path, [(10, 0.5), (20, 0.7)])
  step, trees = restore(tmp_path)
  assert step == 20
  jax.tree.map(np.testing.assert_array_equal, trees, make_trees(20.0))


def test_an_empty_folder_gives_none(tmp_path):
  assert restore(tmp_path) is None


def test_the_best_and_the_newest_are_kept(tmp_path):
  scores = [(10, 0.1), (20, 0.7), (30, float("nan")), (40, 0.5), (50, 0.6)]
  save(tmp_path, scores, keep_checkpoints=2)
  kept = sorted(
    int(p.name)
    for p in (tmp_path / "checkpoints").iterdir()
    if p.name.isdigit()
  )
  assert kept == [10, 40, 50]
  _, weights = checkpoint.load_weights(tmp_path, "vae")
  assert weights["params"]["dense"]["kernel"][0, 0] == 10.0


def damage_truncate(path):
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2])


def damage_flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(bytes(data))


def damage_remove(path):
  path.unlink()


@pytest.mark.parametrize(
  "damage", [damage_truncate, damage_flip, damage_remove]
)
def test_damage_falls_back_to_the_newest_good_one(tmp_path, capsys, damage):
  save(tmp_path, [(10, 0.5), (20, 0.4)])
  newest = tmp_path / "checkpoints" / "20"
  damage(largest_file(newest))
  step, trees = restore(tmp_path)
  assert step == 10
  jax.tree.map(np.testing.assert_array_equal, trees, make_trees(10.0))
  assert "/20 " in capsys.readouterr().err
  assert (tmp_path / "checkpoints_damaged" / "20").exists()


def test_damage_to_any_one_file_is_found(tmp_path):
  save(tmp_path, [(10, 0.5)])
  step_dir = tmp_path / "checkpoints" / "10"
  files = [p for p in step_dir.rglob("*") if p.is_file()]
  assert len(files) > 5
  for path in files:
    before = path.read_bytes()
    if not before:
      continue
    damage_flip(path)
    assert manifest.fault(step_dir), path
    path.write_bytes(before)
  assert manifest.fault(step_dir) is None


def test_damage_to_all_is_an_error(tmp_path):
  save(tmp_path, [(10, 0.5), (20, 0.4)])
  for step in ("10", "20"):
    damage_flip(largest_file(tmp_path / "checkpoints" / step))
  with pytest.raises(checkpoint.DamagedError, match="no checkpoint"):
    restore(tmp_path)
  with pytest.raises(checkpoint.DamagedError, match="intact"):
    checkpoint.load_weights(tmp_path, "vae")


def test_an_unfinished_first_save_starts_over_loudly(tmp_path, capsys):
  save(tmp_path, [(10, 0.5)])
  (tmp_path / "checkpoints" / "10" / manifest.NAME).unlink()
  assert restore(tmp_path) is None
  assert "never finished" in capsys.readouterr().err


def test_another_configuration_is_refused_with_the_difference(tmp_path):
  save(tmp_path, [(10, 0.5)])
  with pytest.raises(ValueError, match=r"seed: 0 -> 1"):
    restore(tmp_path, seed=1)
  with pytest.raises(ValueError, match=r"fingerprint of the data: 'f' -> 'g'"):
    restore(tmp_path, data_fingerprint="g")
  with pytest.raises(ValueError, match=r"hyper.vae: None -> 'abc'"):
    restore(tmp_path, hyper={**HYPER, "vae": "abc"})
  # Where things lie is no part of what was trained.
  assert restore(tmp_path, data="moved", job="elsewhere")[0] == 10


def test_weights_of_another_part_or_nothing_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="no checkpoint"):
    checkpoint.load_weights(tmp_path, "vae")
  save(tmp_path, [(10, 0.5)])
  with pytest.raises(ValueError, match="part='vae', not 'denoiser'"):
    checkpoint.load_weights(tmp_path, "denoiser")
  assert checkpoint.has_weights(tmp_path, "vae")
  assert not checkpoint.has_weights(tmp_path, "denoiser")


def test_a_step_folder_can_be_named_itself(tmp_path):
  save(tmp_path, [(10, 0.1), (20, 0.4)])
  hyper, weights = checkpoint.load_weights(
    tmp_path / "checkpoints" / "20", "vae"
  )
  assert hyper == HYPER
  assert weights["params"]["dense"]["kernel"][0, 0] == 20.0
  assert json.dumps(hyper)
