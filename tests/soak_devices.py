"""Trains every stage on every arrangement of devices and compares the losses.

  python tests/soak_devices.py                      about 10 minutes, 4 cores
  python tests/soak_devices.py --stages=stage1 --steps=5

Each row is one arrangement beside one device: the largest relative difference
of the losses of all steps, which must stay below 1e-5; bfloat16 compares the
loss of held-out patients with float32's, within 2%. Exit code 1 where a row
fails. Only fake CPU devices are used.
"""

import argparse
import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import numpy as np

from ecgtwin_jax import sharding
from ecgtwin_jax.training import train
from helpers import runs

# (devices, fsdp) in one process, and (processes, devices each, fsdp).
ALONE = ((2, 1), (4, 1), (8, 1), (2, 2), (4, 2), (8, 2), (8, 8))
SEVERAL = ((2, 1, 1), (2, 2, 2))
LIMIT, BFLOAT16_LIMIT = 1e-5, 0.02


def difference(got, want):
  return float(np.max(np.abs(np.subtract(got, want)) / np.abs(want)))


def several(chain, name, folder, changes, processes, devices, fsdp):
  """Losses from the entry point, started on several processes."""
  flags = runs.flags_of(chain, name, folder, fsdp=fsdp, **changes)
  subprocess.run(
    [runs.LAUNCHER, str(processes), "--", sys.executable]
    + ["-m", "ecgtwin_jax.main", "--multihost", *flags],
    env={**os.environ, "XLA_FLAGS": "", "DEVICES": str(devices)},
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    check=True,
  )
  return list(runs.train_losses(folder).values())


def rows(chain, name, steps, folder):
  """Yields (arrangement, difference, limit) of one stage."""
  changes = dict(
    batch_size=16,
    steps=steps,
    log_every=steps,
    eval_every=steps,
    checkpoint_every=steps,
  )
  devices = jax.devices()

  def config(where, **more):
    return runs.config_of(chain, name, folder / where, **{**changes, **more})

  def losses(count, **more):
    return runs.losses_on(config("unused", **more), devices[:count], steps)[0]

  one = losses(1)
  title = f"losses {one[0]:.5g} to {one[-1]:.5g}, 1 device again"
  yield title, difference(losses(1), one), LIMIT
  for count, fsdp in ALONE:
    got = losses(count, fsdp=fsdp)
    yield f"{count} devices, fsdp {fsdp}", difference(got, one), LIMIT
  for processes, each, fsdp in SEVERAL:
    where = folder / f"several-{processes}-{each}-{fsdp}"
    got = several(chain, name, where, changes, processes, each, fsdp)
    title = f"{processes} processes x {each} devices, fsdp {fsdp}"
    yield title, difference(got, one), LIMIT

  got = losses(1, remat=True)
  yield "1 device, remat", difference(got, one), LIMIT
  halves = losses(1, accumulate=2)
  got = losses(8, accumulate=2, fsdp=2)
  yield "8 devices, fsdp 2, accumulate 2", difference(got, halves), LIMIT

  moved = folder / "moved"
  for stop, count, fsdp in ((steps // 3, 8, 2), (steps // 2, 1, 1)):
    train.train(
      config("moved", fsdp=fsdp, stop_at=stop), moved, devices[:count]
    )
  train.train(config("moved"), moved, devices[:4])
  got = list(runs.train_losses(moved).values())
  yield "8, then 1, then 4 devices", difference(got, one), LIMIT

  # Small batches: the smoke chain's held-out recordings fill no large one.
  held_out = [
    train.train(
      config(kind, precision=kind, batch_size=8), folder / kind, devices[:1]
    )["loss"]
    for kind in ("float32", "bfloat16")
  ]
  yield "bfloat16, held-out loss", difference(*held_out[::-1]), BFLOAT16_LIMIT


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--stages", default=",".join(runs.STAGES))
  parser.add_argument("--steps", type=int, default=20)
  parser.add_argument("--chain", help="folder of an earlier smoke chain")
  parsed = parser.parse_args()
  sharding.FSDP_MIN_SIZE = 2**8  # these networks are small
  failed, out = 0, sys.stdout
  with contextlib.ExitStack() as stack:
    folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
    cache = folder / "jax_cache"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    chain = runs.make_chain(parsed.chain, folder)
    quiet = stack.enter_context(open(os.devnull, "w"))
    stack.enter_context(contextlib.redirect_stdout(quiet))
    stack.enter_context(contextlib.redirect_stderr(quiet))
    for name in parsed.stages.split(","):
      for title, value, limit in rows(chain, name, parsed.steps, folder / name):
        verdict = "" if value < limit else f"  FAILED: limit {limit:g}"
        failed += value >= limit
        line = f"{name:8} {title:42} {value:.1e}{verdict}"
        print(line, file=out, flush=True)
  print(f"{failed} rows failed")
  return 1 if failed else 0


if __name__ == "__main__":
  sys.exit(main())
