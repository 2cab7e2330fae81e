"""Small trainings, and what they left behind, for tests and soak scripts."""

import contextlib
import functools
import hashlib
import importlib
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from filelock import FileLock
from ml_collections import FrozenConfigDict

from ecgtwin_jax import flags, sharding
from ecgtwin_jax.flags import load_config
from ecgtwin_jax.training import flops, metric_writer, train

ROOT = pathlib.Path(__file__).parents[2]
STAGES = ("vae", "stage1", "stage2", "clip")
LAUNCHER = ROOT / "launch" / "local_processes.sh"


# What of a configuration a step's program does not depend on.
_OUTSIDE = (
  "workdir stop_at log_every eval_every checkpoint_every keep_checkpoints "
  "profile_steps init_from data latents vae base_extractor rhythm cohort"
).split()


def _program(config, stage):
  """What a program depends on besides its arguments."""
  content = {k: v for k, v in config.to_dict().items() if k not in _OUTSIDE}
  plain = jax.config.read("jax_disable_most_optimizations")
  return stage.__name__, stage.loss, json.dumps(content), jax.jit, plain


def compile_once(compile_step):
  """Makes a `train.compile_step` that keeps its programs, for one process."""
  programs = {}

  @functools.wraps(compile_step)
  def compiled(config, stage, state, frozen, batch, mesh):
    leaves, tree = jax.tree.flatten((state, frozen, batch))
    places = tuple((x.shape, x.dtype, x.sharding) for x in leaves)
    key = _program(config, stage), mesh, tree, places
    if key not in programs:
      programs[key] = compile_step(config, stage, state, frozen, batch, mesh)
    return programs[key]

  return compiled


def start_once(first_state):
  """Makes a `train.first_state` that keeps what it has drawn."""
  states = {}

  @functools.wraps(first_state)
  def first(config, stage, shapes, part):
    if config.init_from is not None:
      return first_state(config, stage, shapes, part)
    leaves, tree = jax.tree.flatten(shapes)
    places = tuple((x.shape, x.dtype, x.sharding) for x in leaves)
    key = _program(config, stage), tree, places
    if key not in states:
      state = first_state(config, stage, shapes, part)
      states[key] = jax.device_get(state)  # a step gives its state up
      return state
    return jax.tree.map(
      lambda x, like: sharding.put(x.copy(), like.sharding), states[key], shapes
    )

  return first


def flags_of(chain, name, workdir, **changes):
  """Command line of a smoke training on the data of a chain's folder."""
  config = load_config(f"{ROOT}/configs/{name}.py:smoke")
  paths = {
    "data": chain / "simulated",
    "vae": chain / "vae",
    "latents": chain / "latents",
    "base_extractor": chain / "stage1",
    "rhythm": chain / "rhythm",
  }
  values = {key: path for key, path in paths.items() if key in config}
  return [
    f"--config={ROOT}/configs/{name}.py:smoke",
    f"--workdir={workdir}",
    *(f"--config.{k}={v}" for k, v in {**values, **changes}.items()),
  ]


def config_of(chain, name, workdir, **changes):
  """The same as a configuration."""
  config = flags.parse(flags_of(chain, name, workdir)).config
  config.workdir = str(workdir)
  with config.ignore_type():
    config.update_from_flattened_dict(changes)
  return config


def make_chain(chain, folder):
  """The smoke chain in `folder`, unless one of earlier is named."""
  if chain is not None:
    return pathlib.Path(chain).resolve()
  subprocess.run(
    [sys.executable, "-m", "ecgtwin_jax.main"]
    + [f"--config={ROOT}/configs/stage2.py:smoke"],
    cwd=folder,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    check=True,
  )
  return folder / "runs" / "smoke"


def whole(chain, name):
  """A smoke training of 4 steps without interruption: its folder."""
  workdir = chain / name
  if newest_step(workdir) < 4:
    with FileLock(f"{workdir}.lock"):  # other workers wait for it
      train.train(config_of(chain, name, workdir), workdir)
  return workdir


def newest_step(workdir):
  root = pathlib.Path(workdir) / "checkpoints"
  steps = [int(p.name) for p in root.glob("*") if p.name.isdigit()]
  return max(steps, default=0)


def final_state(workdir):
  """The newest checkpoint's step and arrays, as saved."""
  import orbax.checkpoint as ocp

  newest = newest_step(workdir)
  leaves = {}
  for item in ("weights", "state"):
    handler = ocp.PyTreeCheckpointHandler()
    folder = pathlib.Path(workdir) / "checkpoints" / str(newest) / item
    restore_args = jax.tree.map(
      lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
      handler.metadata(folder.resolve()).tree,
    )
    leaves[item] = handler.restore(
      folder.resolve(), args=ocp.args.PyTreeRestore(restore_args=restore_args)
    )
  return newest, leaves


def train_metrics(workdir):
  """Every step's training metrics, and the last step's evaluation."""
  merged = metric_writer.read_metrics(workdir)
  return {
    step: {
      name: value
      for name, value in scalars.items()
      if name.startswith("train/")
      or (step == max(merged) and name.startswith("validation/"))
    }
    for step, scalars in merged.items()
  }


def train_losses(workdir):
  return {
    step: scalars["train/loss"]
    for step, scalars in metric_writer.read_metrics(workdir).items()
  }


def digest(workdir):
  """One hash of step, parameters, averages, optimizer and all metrics."""
  step, trees = final_state(workdir)
  total = hashlib.sha256(f"{step} {train_metrics(workdir)}".encode())
  for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
    total.update(jax.tree_util.keystr(path).encode() + leaf.tobytes())
  return total.hexdigest()


def assert_same(workdir, other):
  """Parameters, averages, optimizer and metrics of every step: each bit."""
  (step, got), (again, want) = final_state(workdir), final_state(other)
  assert step == again
  jax.tree.map(np.testing.assert_array_equal, got, want)
  assert train_metrics(workdir) == train_metrics(other)


class Program(NamedTuple):
  """What a compiled step of a stage works on."""

  config: FrozenConfigDict
  stage: Any
  mesh: jax.sharding.Mesh
  frozen: dict
  shapes: train.TrainState
  given: dict  # weights that begin otherwise than drawn
  batches: Iterator


@contextlib.contextmanager
def program(config, devices):
  """Loads a stage's data as train() does; nothing is compiled or saved."""
  config = FrozenConfigDict(config)
  stage = importlib.import_module(f"ecgtwin_jax.stages.{config.stage}")
  mesh = sharding.make_mesh(config.fsdp, devices)
  data = stage.load_data(config)
  frozen = sharding.put_replicated(stage.load_frozen(config, data), mesh)
  shapes = jax.eval_shape(functools.partial(train.init_state, config, stage))
  shapes = sharding.place_state(shapes, mesh)
  given = stage.start(config, data) if hasattr(stage, "start") else {}
  batches = stage.batches(config, data, 0, 0, 1)
  try:
    yield Program(config, stage, mesh, frozen, shapes, given, batches)
  finally:
    batches.close()


def losses_on(config, devices, steps):
  """Losses of the first steps on these devices, and the last state."""
  step_fn, losses = None, []
  with program(config, devices) as p:
    state = train.first_state(p.config, p.stage, p.shapes, part="")
    state = train.start_with(p.given, state)
    for _ in range(steps):
      batch = sharding.put_batch(next(p.batches), p.mesh)
      if step_fn is None:
        step_fn, _ = train.compile_step(
          p.config, p.stage, state, p.frozen, batch, p.mesh
        )
      state, scalars = step_fn(state, p.frozen, batch)
      losses.append(float(scalars["loss"]))
  return losses, state


def flops_of(config):
  """Operations of one step; only traced."""
  with program(config, jax.devices()[:1]) as p:
    return count_flops(p, next(p.batches))


def count_flops(p, batch):
  """The same of a program and a batch."""
  step = functools.partial(train.train_step, p.config, p.stage)
  traced = jax.jit(step).trace(p.shapes, p.frozen, batch)
  return flops.count_flops(traced.jaxpr)
