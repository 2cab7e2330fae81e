"""The training loop, one for every stage.

A stage is a module in stages/ with these functions (config frozen, hashable):

  load_data(config) -> data           splits; data.fingerprint, data.names(rows)
  load_frozen(config, data) -> tree   what training reads and never changes
  hyper(config, data) -> dict         what is needed to rebuild the model
  batches(config, data, ...)          endless iterator of dicts of arrays
  init(rng, config) -> params, model_state
  loss(config, params, model_state, frozen, batch, rng)
      -> loss, (model_state, metrics)
  evaluate(config, data, frozen, weights, put) -> metrics, "score" among them:
      what decides which checkpoint is best (smaller is better)
"""

import functools
import importlib
import json
import pathlib
import signal
import sys
import threading
import time
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import FrozenConfigDict

from ecgtwin_jax import checkpoint, metrics, optim, sharding

# What the process exits with after SIGTERM: sysexits' "try again".
EXIT_PREEMPTED = 75


@flax.struct.dataclass
class TrainState:
  """Everything a step changes."""

  step: Any
  params: dict
  model_state: dict
  ema: dict
  opt_state: Any


class Preempted(SystemExit):
  """The run was told to stop, and saved its state first."""

  def __init__(self):
    super().__init__(EXIT_PREEMPTED)


def init_state(config, stage) -> TrainState:
  """Makes the state that training starts from."""
  params, model_state = stage.init(jax.random.key(config.seed), config)
  tx = optim.make_optimizer(config.optimizer, config.steps)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    model_state=model_state,
    ema=jax.tree.map(jnp.copy, params),
    opt_state=tx.init(params),
  )


def train_step(config, stage, state: TrainState, frozen, batch):
  """One optimizer step on one global batch.

  The key is fold_in(seed, step) and noise is drawn for the global batch, so
  the number of devices changes nothing. With config.accumulate = n the batch
  is cut into n micro-batches whose gradients are averaged.

  Returns:
    (new state, scalars).
  """
  rng = jax.random.fold_in(jax.random.key(config.seed + 1), state.step)
  gradient = jax.value_and_grad(
    functools.partial(stage.loss, config), has_aux=True
  )

  def micro_step(carry, inputs):
    grads, model_state = carry
    index, micro_batch = inputs
    key = jax.random.fold_in(rng, index)
    (loss, (model_state, scalars)), new = gradient(
      state.params, model_state, frozen, micro_batch, key
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
  tx = optim.make_optimizer(config.optimizer, config.steps)
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  ema = optim.update_ema(state.ema, params, state.step, config.optimizer.ema)
  scalars["gradient_norm"] = optax.tree.norm(grads)
  new_state = TrainState(state.step + 1, params, model_state, ema, opt_state)
  return new_state, scalars


def _start_from(state: TrainState, config, part: str) -> TrainState:
  """Puts the weights of config.init_from into a fresh state."""
  _, variables = checkpoint.load_weights(config.init_from, part)
  given = jax.tree.map(jnp.asarray, variables["params"])
  shapes = [
    jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)
    for tree in (given, state.params)
  ]
  if shapes[0] != shapes[1]:
    raise ValueError(
      f"config.init_from={config.init_from!r} has other sizes than "
      "config.model; set config.model to those of the weights"
    )
  given_state = jax.tree.map(
    jnp.asarray, variables.get("model_state", state.model_state)
  )
  return state.replace(
    params=given,
    ema=jax.tree.map(jnp.copy, given),
    model_state=given_state,
  )


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


class _Watch:
  """Collects the steps' scalars and writes them, without stalling the device.

  A step's numbers are read at the next flush, so a loss that is not finite is
  found late but exactly, and before anything is saved.
  """

  def __init__(self, config, data, writer, schedule):
    self._config, self._data = config, data
    self._writer, self._schedule = writer, schedule
    self._pending = []
    self._waited, self._since = 0.0, time.monotonic()
    self._score = {}

  def wait(self, get):
    asked = time.monotonic()
    batch = get()
    self._waited += time.monotonic() - asked
    return batch

  def add(self, step, scalars, rows) -> None:
    self._pending.append((step, scalars, rows))
    self._writer.advance()

  def flush(self) -> None:
    if not self._pending:
      return
    for step, scalars, rows in self._pending:
      values = {k: float(v) for k, v in jax.device_get(scalars).items()}
      if not np.isfinite(values["loss"]):
        names = ", ".join(self._data.names(rows)[:16])
        raise ValueError(
          f"loss={values['loss']} at {step=} must be finite; records of the "
          f"batch (first 16): {names}"
        )
      self._writer.write(step, {f"train/{k}": v for k, v in values.items()})
    elapsed = time.monotonic() - self._since
    count = len(self._pending) * self._config.batch_size
    self._writer.write(
      step,
      {
        "watch/learning_rate": self._schedule(step - 1),
        "watch/samples_per_s": count / elapsed,
        "watch/input_wait_share": self._waited / elapsed,
      },
    )
    self._writer.show(loss=values["loss"], **self._score)
    self._pending, self._waited = [], 0.0
    self._since = time.monotonic()

  def evaluated(self, step, evaluation) -> None:
    values = {f"validation/{k}": v for k, v in evaluation.items()}
    self._writer.write(step, values)
    if "score" in evaluation:
      self._score = {"validation": evaluation["score"]}
    self._since = time.monotonic()


class _Sigterm:
  """Remembers SIGTERM, which clouds send before they take a machine."""

  def __enter__(self):
    self.seen = False
    self._main = threading.current_thread() is threading.main_thread()
    if self._main:
      self._before = signal.signal(signal.SIGTERM, self._handle)
    return self

  def _handle(self, *_):
    self.seen = True

  def __exit__(self, *_):
    if self._main:
      signal.signal(signal.SIGTERM, self._before)


def train(config, workdir) -> dict:
  """Trains config.stage to config.steps, continuing what `workdir` holds.

  Args:
    config: a configuration of configs/{vae,stage1,stage2,clip}.py.
    workdir: folder of config.json, checkpoints/, metrics.jsonl, tensorboard/.

  Returns:
    The last evaluation's metrics.

  Raises:
    ValueError: a loss that is not finite (names the step and the records), a
      batch that does not split over the devices, a checkpoint that does not
      fit.
    DamagedError: checkpoints exist and none is intact.
    Preempted: on SIGTERM, after saving.
  """
  config = FrozenConfigDict(config)
  stage = importlib.import_module(f"ecgtwin_jax.stages.{config.stage}")
  mesh = sharding.make_mesh(config.fsdp)
  sharding.check_batch_size(config.batch_size, config.accumulate, mesh)
  data = stage.load_data(config)
  hyper = stage.hyper(config, data)
  frozen = sharding.put_replicated(stage.load_frozen(config, data), mesh)

  init = functools.partial(init_state, config, stage)
  abstract = jax.eval_shape(init)
  places = sharding.state_shardings(abstract, mesh)
  saver = checkpoint.Checkpointer(workdir, config, hyper, data.fingerprint)
  wanted = jax.tree.map(
    lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
    abstract,
    places,
  )
  found = saver.restore(_trees(wanted))
  if found is not None:
    start, state = found[0], _from_trees(found[1])
    print(f"{config.stage}: continuing {workdir} at step {start}", flush=True)
  else:
    start, state = 0, jax.jit(init, out_shardings=places)()
    if config.init_from is not None:
      state = jax.device_put(_start_from(state, config, hyper["part"]), places)
  everywhere = sharding.replicated(mesh)
  step_fn = jax.jit(
    functools.partial(train_step, config, stage),
    in_shardings=(places, everywhere, sharding.rows(mesh)),
    out_shardings=(places, everywhere),
    donate_argnums=0,
  )
  if jax.process_index() == 0:
    folder = pathlib.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(json.loads(config.to_json()), indent=1)
    (folder / "config.json").write_text(text)

  put = functools.partial(sharding.put_batch, mesh=mesh)
  batches = stage.batches(
    config, data, start, jax.process_index(), jax.process_count()
  )
  schedule = optim.make_schedule(config.optimizer, config.steps)
  last = min(config.stop_at or config.steps, config.steps)
  writer = metrics.MetricsWriter(
    workdir, config.steps, start, f"{config.stage} ({hyper['part']})"
  )
  watch = _Watch(config, data, writer, schedule)
  evaluation = {}
  try:
    with _Sigterm() as sigterm:
      for step in range(start + 1, last + 1):
        batch = watch.wait(lambda: next(batches))
        state, scalars = step_fn(state, frozen, put(batch))
        watch.add(step, scalars, batch["index"])
        stop = (
          sigterm.seen
          if jax.process_count() == 1
          else saver.reached_preemption(step)
        )
        end = stop or step == last
        evaluating = step % config.eval_every == 0 or step == last
        saving = end or evaluating or step % config.checkpoint_every == 0
        if saving or step % config.log_every == 0:
          watch.flush()
          saver.seal_finished()
        if evaluating:
          weights = _trees(state)["weights"]
          evaluation = stage.evaluate(config, data, frozen, weights, put)
          watch.evaluated(step, evaluation)
        if saving:
          score = evaluation.get("score") if evaluating else None
          saver.save(step, _trees(state), score)
        if stop:
          print(
            f"SIGTERM: saved step {step} in {workdir}; the same command "
            "continues",
            file=sys.stderr,
          )
          raise Preempted
  finally:
    writer.close()
    batches.close()
    saver.close()
  return evaluation
