"""The training loop, one for every stage.

A stage is a module with the functions of `stages.Stage`.
"""

import contextlib
import functools
import importlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict, FrozenConfigDict

from ecgtwin_jax import sharding
from ecgtwin_jax.data.bucket import refuse_remote
from ecgtwin_jax.data.mixture import describe_parts
from ecgtwin_jax.data.whole_files import hold
from ecgtwin_jax.training import (
  checkpoint,
  host_memory,
  metric_writer,
  optimizer,
)
from ecgtwin_jax.training.flops import count_flops
from ecgtwin_jax.training.preemption import (
  EXIT_PREEMPTED,
  Preempted,
  Preemption,
)
from ecgtwin_jax.training.progress import Progress, Trace

# In XLA's default order of operations on CPU, which is for many at a time, a
# step holds half as much again.
_CPU_OPTIONS = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}

__all__ = ["EXIT_PREEMPTED", "Preempted", "TrainState", "train"]


@flax.struct.dataclass
class TrainState:
  """Everything a step changes."""

  step: Any
  params: dict
  model_state: dict
  ema: dict
  opt_state: Any


def init_state(config: ConfigDict, stage: Any) -> TrainState:
  """Makes the state that training starts from."""
  params, model_state = stage.init(jax.random.key(config.seed), config)
  tx = optimizer.make_optimizer(config.optimizer, config.steps)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    model_state=model_state,
    ema=jax.tree.map(jnp.copy, params),
    opt_state=tx.init(params),
  )


def train_step(
  config: ConfigDict,
  stage: Any,
  state: TrainState,
  frozen: Any,
  batch: dict,
  everywhere: NamedSharding | None = None,
) -> tuple[TrainState, dict]:
  """One optimizer step on one global batch.

  The key is fold_in(seed, step) and noise is drawn for the global batch, so
  the number of devices changes nothing. With config.accumulate = n the batch
  is cut into n micro-batches whose gradients are averaged.

  Args:
    everywhere: the sharding of what every device holds whole. Split parameters
      are gathered to it before they are used, so that splitting changes where
      they lie and not how anything is computed.

  Returns:
    (new state, scalars).
  """
  rng = jax.random.fold_in(jax.random.key(config.seed + 1), state.step)
  used = state.params
  if everywhere is not None:
    used = jax.lax.with_sharding_constraint(used, everywhere)
  fixed = set(getattr(stage, "FIXED", ())) & set(used)

  def loss_of(params, *given):
    held = {name: jax.lax.stop_gradient(params[name]) for name in fixed}
    return stage.loss(config, {**params, **held}, *given)

  gradient = jax.value_and_grad(loss_of, has_aux=True)

  def micro_step(carry, inputs):
    grads, model_state = carry
    index, micro_batch = inputs
    key = jax.random.fold_in(rng, index)
    (loss, (model_state, scalars)), new = gradient(
      used, model_state, frozen, micro_batch, key
    )
    grads = jax.tree.map(lambda g, n: g + n / config.accumulate, grads, new)
    return (grads, model_state), {"loss": loss, **scalars}

  # Micro-batch m is rows m, m + n, ...: each device keeps its own rows.
  micro_batches = jax.tree.map(
    lambda x: x.reshape(-1, config.accumulate, *x.shape[1:]).swapaxes(0, 1),
    batch,
  )
  start = jax.tree.map(jnp.zeros_like, state.params), state.model_state
  if config.accumulate == 1:
    first = jax.tree.map(lambda x: x[0], micro_batches)
    (grads, model_state), scalars = micro_step(start, (0, first))
  else:
    (grads, model_state), scalars = jax.lax.scan(
      micro_step, start, (jnp.arange(config.accumulate), micro_batches)
    )
    scalars = jax.tree.map(jnp.mean, scalars)
  tx = optimizer.make_optimizer(config.optimizer, config.steps)
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  for name in fixed:
    updates = {**updates, name: jax.tree.map(jnp.zeros_like, updates[name])}
  params = optax.apply_updates(state.params, updates)
  ema = optimizer.update_ema(
    state.ema, params, state.step, config.optimizer.ema
  )
  scalars["gradient_norm"] = optax.tree.norm(grads)
  new_state = TrainState(state.step + 1, params, model_state, ema, opt_state)
  return new_state, scalars


def compile_step(
  config: ConfigDict,
  stage: Any,
  state: TrainState,
  frozen: Any,
  batch: dict,
  mesh: Mesh,
) -> tuple[Callable, float | int]:
  """Compiles train_step for what lies where.

  Returns:
    (state, frozen, batch) -> (state, scalars), the state given up; and the
    floating-point operations of one step.
  """
  on_cpu = mesh.devices.flat[0].platform == "cpu"
  places = jax.tree.map(lambda x: x.sharding, state)
  everywhere = sharding.replicated(mesh)
  step = jax.jit(
    functools.partial(
      train_step,
      config,
      stage,
      everywhere=everywhere if config.fsdp > 1 else None,
    ),
    in_shardings=(places, everywhere, sharding.rows(mesh)),
    out_shardings=(places, everywhere),
    donate_argnums=0,
  )
  began = time.monotonic()
  traced = step.trace(state, frozen, batch)
  compiled = traced.lower().compile(_CPU_OPTIONS if on_cpu else None)
  host_memory.give_back()
  flops = count_flops(traced.jaxpr)
  metric_writer.say(
    f"{config.stage}: step compiled in {time.monotonic() - began:.1f} s for "
    f"{mesh.size} devices, {flops / 1e9:.3g} GFLOP each"
  )
  return compiled, flops


def first_state(
  config: ConfigDict, stage: Any, shapes: TrainState, part: str
) -> TrainState:
  """Makes the state to start from, with the weights of config.init_from."""

  def put(given, like):
    return jax.tree.map(lambda x, y: sharding.put(x, y.sharding), given, like)

  def sizes(tree):
    return jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)

  if config.init_from is not None:
    _, variables = checkpoint.load_weights(config.init_from, part)
    params = variables["params"]
    if sizes(params) != sizes(shapes.params):
      raise ValueError(
        f"config.init_from={config.init_from!r} has other sizes than "
        "config.model; set config.model to those of the weights"
      )
  places = jax.tree.map(lambda x: x.sharding, shapes)
  init = functools.partial(init_state, config, stage)
  state = jax.jit(init, out_shardings=places)()
  if config.init_from is None:
    return state
  model_state = state.model_state
  if "model_state" in variables:
    model_state = put(variables["model_state"], shapes.model_state)
  return state.replace(
    params=put(params, shapes.params),
    ema=put(params, shapes.ema),
    model_state=model_state,
  )


def start_with(given: dict, state: TrainState) -> TrainState:
  """Puts a stage's given weights in the place of those that were drawn.

  Raises:
    ValueError: weights are of other sizes.
  """
  given = flatten_dict(given)

  def take(own):
    own = flatten_dict(own)
    for path, new in given.items():
      old = own[path]
      if np.shape(new) != old.shape:
        raise ValueError(
          f"weights {'/'.join(path)} {np.shape(new)} must be {old.shape}, "
          "as in config.model"
        )
      own[path] = sharding.put(np.asarray(new, old.dtype), old.sharding)
    return unflatten_dict(own)

  return state.replace(params=take(state.params), ema=take(state.ema))


def _trees(state: TrainState) -> dict:
  return {
    "weights": {"params": state.ema, "model_state": state.model_state},
    "state": {
      "step": state.step,
      "params": state.params,
      "opt_state": state.opt_state,
    },
  }


def _from_trees(trees: dict) -> TrainState:
  return TrainState(
    ema=trees["weights"]["params"],
    model_state=trees["weights"]["model_state"],
    **trees["state"],
  )


def _write_config(config, folder: pathlib.Path) -> None:
  """Writes the configuration, and what data sets it names, into the workdir."""
  if jax.process_index() == 0:
    folder.mkdir(parents=True, exist_ok=True)
    given = config.latents if "latents" in config else config.data
    content = {
      **json.loads(config.to_json()),
      "data_sets": describe_parts(given),
    }
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (folder / "config.json").write_text(text, encoding="utf-8")


def train(
  config: ConfigDict,
  workdir: str | os.PathLike,
  devices: Sequence[jax.Device] | None = None,
) -> dict:
  """Trains config.stage to config.steps, continuing what `workdir` holds.

  Args:
    config: a configuration of configs/{vae,stage1,stage2,clip}.py.
    workdir: folder of config.json, checkpoints/, metrics.jsonl, tensorboard/
      and, of the steps in config.profile_steps, profile/.
    devices: those to train on; None: all, of all processes.

  Returns:
    The last evaluation's metrics.

  Raises:
    ValueError: a loss that is not finite (names the step and the records), an
      evaluation that the stage refuses, a batch that does not split over the
      devices, a checkpoint that does not fit, a workdir that another run
      writes into.
    DamagedError: checkpoints exist and none is intact.
    Preempted: on SIGTERM, after saving.
  """
  config = FrozenConfigDict(config)
  stage = importlib.import_module(f"ecgtwin_jax.stages.{config.stage}")
  refuse_remote(workdir, "the workdir")
  if config.precision not in ("float32", "bfloat16"):
    raise ValueError(f"{config.precision=} must be 'float32' or 'bfloat16'")
  mesh = sharding.make_mesh(config.fsdp, devices)
  sharding.check_batch_size(config.batch_size, config.accumulate, mesh)
  trace = Trace(config.profile_steps, pathlib.Path(workdir) / "profile")
  data = stage.load_data(config)
  # Several processes of one run share the workdir: the first one holds it.
  alone = jax.process_index() == 0
  with hold(workdir) if alone else contextlib.nullcontext():
    return _train(config, stage, data, workdir, mesh, trace)


def _train(config, stage, data, workdir, mesh, trace) -> dict:
  hyper = stage.hyper(config, data)
  frozen = sharding.put_replicated(stage.load_frozen(config, data), mesh)

  shapes = jax.eval_shape(functools.partial(init_state, config, stage))
  shapes = sharding.place_state(shapes, mesh)
  saver = checkpoint.Checkpointer(workdir, config, hyper, data.fingerprint)
  restored = saver.restore(_trees(shapes))
  if restored is None:
    start, state = 0, first_state(config, stage, shapes, hyper["part"])
    if hasattr(stage, "start"):
      state = start_with(stage.start(config, data), state)
  else:
    start, state = restored[0], _from_trees(restored[1])
    metric_writer.say(f"{config.stage}: continuing {workdir} at step {start}")
  _write_config(config, pathlib.Path(workdir))

  put = functools.partial(sharding.put_batch, mesh=mesh)
  batches = stage.batches(
    config, data, start, jax.process_index(), jax.process_count()
  )
  last = min(config.stop_at or config.steps, config.steps)
  writer = metric_writer.MetricsWriter(
    workdir, config.steps, start, f"{config.stage} ({hyper['part']})"
  )
  progress = Progress(config, writer, data.names)
  evaluation, step_fn = {}, None
  with contextlib.ExitStack() as closing:
    preemption = closing.enter_context(Preemption())
    for each in (saver, batches, writer, trace):
      closing.callback(each.close)
    for step in range(start + 1, last + 1):
      rows = progress.next_batch(batches)
      batch = put(rows)
      if step_fn is None:
        step_fn, flops = compile_step(config, stage, state, frozen, batch, mesh)
        progress.measure(flops, mesh.devices.flat)
      trace.before(step)
      with jax.profiler.StepTraceAnnotation("train", step_num=step):
        state, scalars = step_fn(state, frozen, batch)
      progress.add(step, scalars, rows["index"])
      trace.after(step, scalars)
      stop = preemption.reached(step)
      end = stop or step == last
      evaluating = step % config.eval_every == 0 or step == last
      saving = end or evaluating or step % config.checkpoint_every == 0
      if saving or step % config.log_every == 0:
        progress.flush()
        saver.seal_finished()
      if evaluating:
        weights = _trees(state)["weights"]
        evaluation = stage.evaluate(config, data, frozen, weights, put)
        progress.evaluated(step, evaluation)
        if hasattr(stage, "check"):
          stage.check(config, step, evaluation)
      if saving:
        score = evaluation.get("score") if evaluating else None
        saver.save(step, _trees(state), score)
      if stop:
        saver.finish()
        metric_writer.say(
          f"SIGTERM: saved step {step} in {workdir}; the same command "
          "continues",
          sys.stderr,
        )
        raise Preempted
  return evaluation
