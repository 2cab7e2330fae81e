"""One training on any number of devices and processes: the same numbers.

All counts, stages and 20 steps: soak_devices.py.
"""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgtwin_jax import flags, sharding
from ecgtwin_jax.diffusion.schedule import sample_timesteps
from ecgtwin_jax.jobs import train as train_job
from ecgtwin_jax.stages import splits
from ecgtwin_jax.training import checkpoint, train
from helpers import XLA_FLAGS, runs

EQUAL = 1e-5  # relative
OTHERS = ("vae", "stage1", "stage2")


def assert_equal_losses(got, want):
  np.testing.assert_allclose(got, want, rtol=EQUAL)
  assert not np.allclose(want[0], want[-1], rtol=1e-3)


@pytest.mark.parametrize(
  "name",
  # Its examples see each other, as stage 1's do, and it compiles soonest.
  [
    "clip",
    *(pytest.param(x, marks=pytest.mark.slow) for x in OTHERS),
  ],
)
def test_losses_are_those_of_eight_devices(
  name, chain, stage_config, monkeypatch
):
  monkeypatch.setattr(sharding, "FSDP_MIN_SIZE", 2**8)  # networks are small
  want = list(runs.train_losses(runs.whole(chain, name)).values())
  devices = jax.devices()[:4]
  got, state = runs.losses_on(stage_config(name, fsdp=2), devices, len(want))
  assert_equal_losses(got, want)
  arrays = jax.tree.leaves((state.params, state.opt_state))
  split = [x for x in arrays if "fsdp" in x.sharding.spec]
  assert len(split) > 20
  assert all(2 * x.addressable_shards[0].data.size == x.size for x in split)


@pytest.mark.slow  # two processes, below, hand over to one with more devices
def test_a_run_moves_between_numbers_of_devices(chain, stage_config, tmp_path):
  devices = jax.devices()
  for step, count, fsdp in ((1, 8, 1), (2, 1, 1), (4, 4, 2)):
    config = stage_config("stage1", stop_at=step, fsdp=fsdp)
    train.train(config, tmp_path, devices[:count])
  want = runs.train_losses(runs.whole(chain, "stage1"))
  got = runs.train_losses(tmp_path)
  assert list(got) == list(want)
  assert_equal_losses(list(got.values()), list(want.values()))


def test_two_processes_train_from_the_entry_point(
  chain, stage_config, tmp_path
):
  arguments = runs.flags_of(chain, "clip", tmp_path, stop_at=2, fsdp=2)
  command = [sys.executable, "-m", "ecgtwin_jax.main", "--multihost"]
  done = subprocess.run(
    [runs.LAUNCHER, "2", "--", *command, *arguments],
    env={**os.environ, "XLA_FLAGS": XLA_FLAGS, "DEVICES": "2"},
    capture_output=True,
    text=True,
    timeout=240,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  lines = done.stdout.splitlines()
  assert any(line.startswith("[0] == training") for line in lines)
  # Process 1 says nothing of its own. Gloo's threads write into each other's
  # lines: what remains of one can be its end, or its number alone.
  own = [x[4:] for x in lines if x.startswith("[1] ") and "Gloo" not in x]
  own = [x for x in own if "connected peer ranks" not in x]
  assert [x for x in own if not x.isdigit()] == []
  config = stage_config("clip", stop_at=None)
  train.train(config, tmp_path)  # one process, eight devices
  want = runs.train_losses(runs.whole(chain, "clip"))
  got = runs.train_losses(tmp_path)
  assert list(got) == list(want)
  assert_equal_losses(list(got.values()), list(want.values()))


def test_several_processes_name_what_to_make_first(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  config = flags.load_config(f"{runs.ROOT}/configs/vae.py:smoke")
  with pytest.raises(FileNotFoundError, match="with one process first: python"):
    train_job.prepare(config, f"{runs.ROOT}/configs/vae.py:smoke")


def test_process_0_picks_the_checkpoint(tmp_path, monkeypatch):
  sent = []

  def broadcast(value):
    sent.append(int(value))
    return np.int64(7)  # what process 0 has found

  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  monkeypatch.setattr(
    checkpoint.multihost_utils, "broadcast_one_to_all", broadcast
  )
  config = flags.load_config(f"{runs.ROOT}/configs/vae.py:smoke")
  saver = checkpoint.Checkpointer(tmp_path, config, {}, "")
  monkeypatch.setattr(saver, "pick", lambda: pytest.fail("looked itself"))
  assert saver.newest_good() == 7
  assert sent == [-1]


def test_noise_differs_between_devices_and_examples():
  mesh = sharding.make_mesh(fsdp=2)
  mean, std = sharding.put_batch(
    (np.zeros((16, 128, 4), np.float32), np.ones((16, 128, 4), np.float32)),
    mesh,
  )
  rng, scale = jax.random.key(0), jnp.ones(())

  @jax.jit
  def draw(rng, mean, std, scale):
    t = sample_timesteps(rng, 16, 0, 999)
    return splits.draw_latent(rng, mean, std, scale), t

  latent, t = draw(rng, mean, std, scale)
  assert len({x.tobytes() for x in np.asarray(latent)}) == 16
  assert len(set(t.tolist())) > 12
  alone = draw(rng, np.asarray(mean), np.asarray(std), scale)
  jax.tree.map(np.testing.assert_array_equal, (latent, t), alone)


def test_rows_of_a_process_are_those_of_its_devices():
  class Device:
    def __init__(self, number, process):
      self.id, self.process_index = number, process

  shuffled = [Device(n, n % 2) for n in (3, 0, 2, 1, 5, 4)]
  ordered = sharding.arrange(shuffled, fsdp=3)
  assert [[d.process_index for d in row] for row in ordered] == [
    [0, 0, 0],
    [1, 1, 1],
  ]
  assert [d.id for d in ordered.flat] == [0, 2, 4, 1, 3, 5]
  with pytest.raises(ValueError, match="fsdp=4 must divide device_count=6"):
    sharding.arrange(shuffled, fsdp=4)
  with pytest.raises(ValueError, match="fsdp=0 must divide"):
    sharding.arrange(shuffled, fsdp=0)


def test_large_arrays_alone_are_split():
  mesh = sharding.make_mesh(fsdp=4)
  shapes = {
    "kernel": jax.ShapeDtypeStruct((129, 512), np.float32),
    "odd": jax.ShapeDtypeStruct((129, 511), np.float32),
    "bias": jax.ShapeDtypeStruct((512,), np.float32),
    "step": jax.ShapeDtypeStruct((), np.int32),
  }
  placed = sharding.place_state(shapes, mesh)
  specs = {name: x.sharding.spec for name, x in placed.items()}
  P = jax.sharding.PartitionSpec
  assert specs == {
    "kernel": P(None, "fsdp"),
    "odd": P(),
    "bias": P(),
    "step": P(),
  }
  whole = sharding.place_state(shapes, sharding.make_mesh())
  assert {x.sharding.spec for x in whole.values()} == {P()}
