"""A training that is stopped, killed, or loses files ends as if it was not.

Many times over: soak_interruptions.py.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest

from ecgtwin_jax import main
from ecgtwin_jax.training import checkpoint, manifest, train
from helpers import runs

STEPS = 24


def start(arguments):
  return subprocess.Popen(
    [sys.executable, "-m", "ecgtwin_jax.main", *arguments],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def wait_for(process, found, seconds=240):
  """Looks often until `found()`, while the process lives."""
  deadline = time.monotonic() + seconds
  while not found():
    assert process.poll() is None, process.communicate()[0]
    assert time.monotonic() < deadline, "nothing to see"
    time.sleep(0.002)


def test_stopped_then_killed_while_saving_ends_as_never_interrupted(
  chain, tmp_path
):
  changes = dict(steps=STEPS, log_every=1, eval_every=STEPS, checkpoint_every=5)
  workdir, whole = tmp_path / "run", tmp_path / "whole"
  command = runs.flags_of(chain, "clip", workdir, **changes)
  metrics_file = workdir / "metrics.jsonl"
  process = start(command)
  wait_for(process, lambda: metrics_file.exists() and metrics_file.read_text())
  process.send_signal(signal.SIGTERM)
  output, _ = process.communicate(timeout=240)
  assert process.returncode == 75, output
  stopped = runs.newest_step(workdir)
  assert 1 <= stopped < STEPS
  assert f"SIGTERM: saved step {stopped} in {workdir}" in output
  assert manifest.fault(workdir / "checkpoints" / str(stopped)) is None

  process = start(command)
  unfinished = (workdir / "checkpoints").glob
  wait_for(process, lambda: [*unfinished("*.orbax-checkpoint-tmp")])
  process.kill()
  output, _ = process.communicate(timeout=240)
  assert f"continuing {workdir} at step {stopped}" in output
  assert process.returncode == -signal.SIGKILL

  train.train(runs.config_of(chain, "clip", workdir, **changes), workdir)
  train.train(runs.config_of(chain, "clip", whole, **changes), whole)
  assert list(runs.train_losses(workdir)) == list(range(1, STEPS + 1))
  runs.assert_same(workdir, whole)


@pytest.fixture
def run_copy(chain, tmp_path):
  """A finished run with checkpoints of steps 2 and 4."""
  workdir = tmp_path / "run"
  shutil.copytree(runs.whole(chain, "stage1"), workdir)
  assert sorted(os.listdir(workdir / "checkpoints")) == ["2", "4"]
  return workdir


def flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 3] ^= 4
  path.write_bytes(bytes(data))


def largest(folder):
  return max(folder.rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)


def test_a_damaged_newest_checkpoint_is_trained_again(
  chain, stage_config, run_copy, capsys
):
  flip(largest(run_copy / "checkpoints" / "4"))
  train.train(stage_config("stage1"), run_copy)
  said = capsys.readouterr()
  assert "checkpoints/4 " in said.err and "does not match" in said.err
  assert f"continuing {run_copy} at step 2" in said.out
  runs.assert_same(run_copy, runs.whole(chain, "stage1"))
  # A later start finds the new one good.
  assert train.train(stage_config("stage1"), run_copy) == {}


def test_damage_to_all_is_an_error_and_starts_nothing(stage_config, run_copy):
  for step in ("2", "4"):
    flip(largest(run_copy / "checkpoints" / step))
  metrics = (run_copy / "metrics.jsonl").read_bytes()
  with pytest.raises(checkpoint.DamagedError, match="no checkpoint in"):
    train.train(stage_config("stage1"), run_copy)
  assert (run_copy / "metrics.jsonl").read_bytes() == metrics
  assert sorted(os.listdir(run_copy / "checkpoints")) == ["2", "4"]


def checkpoint_size(chain):
  """Bytes that a checkpoint is sure to need, and half of one on disk more."""
  workdir = runs.whole(chain, "stage1")
  step, trees = runs.final_state(workdir)
  arrays = sum(x.nbytes for x in jax.tree.leaves(trees))
  files = (workdir / "checkpoints" / str(step)).rglob("*")
  return arrays + sum(p.stat().st_size for p in files) // 2 + 2**20


@pytest.fixture
def small_disk(chain, tmp_path):
  """A file system with room for one checkpoint of stage 1, not for two."""
  folder = tmp_path / "disk"
  folder.mkdir()
  size = checkpoint_size(chain)
  mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
  try:
    done = subprocess.run(mount, capture_output=True, text=True)
  except FileNotFoundError:
    pytest.skip("there is no mount here")
  if done.returncode:
    pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
  yield folder
  subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_one_line_and_keeps_what_was_saved(
  chain, small_disk, capsys
):
  workdir = small_disk / "run"
  code = main.main(runs.flags_of(chain, "stage1", workdir))
  assert code == 1
  (line,) = [
    x for x in capsys.readouterr().err.splitlines() if x.startswith("error:")
  ]
  assert "no space left for a checkpoint" in line
  assert "MiB needed" in line
  assert runs.newest_step(workdir) == 2
  assert manifest.fault(workdir / "checkpoints" / "2") is None
  # With room again, the same command ends as if nothing had been.
  size = 5 * checkpoint_size(chain)
  larger = ["mount", "-o", f"remount,size={size}", small_disk]
  subprocess.run(larger, check=True)
  assert main.main(runs.flags_of(chain, "stage1", workdir)) == 0
  runs.assert_same(workdir, runs.whole(chain, "stage1"))


def test_a_failed_save_is_an_error_of_the_next_step(
  stage_config, tmp_path, monkeypatch
):
  manager = checkpoint.ocp.CheckpointManager
  calls = []

  def fail(self):
    calls.append(self)
    raise RuntimeError("the disk went away")

  monkeypatch.setattr(manager, "wait_until_finished", fail)
  with pytest.raises(OSError, match=r"could not be saved.*disk went away"):
    train.train(stage_config("stage1"), tmp_path)
  assert calls
  assert runs.newest_step(tmp_path) < 4


def test_one_process_of_several_leaves_at_once(tmp_path, monkeypatch, capsys):
  left = []
  monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
  monkeypatch.setattr(os, "_exit", left.append)
  file = pathlib.Path(tmp_path) / "nowhere.py"
  main.main([f"--config={file}"])
  assert left == [1]
  assert capsys.readouterr().err.startswith("error: no configuration file")
  monkeypatch.setattr(main, "run", lambda flags: 1 / 0)
  main.main([f"--config={runs.ROOT}/configs/vae.py:smoke"])
  assert left == [1, 1]
  assert "ZeroDivisionError" in capsys.readouterr().err
