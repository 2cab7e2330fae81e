"""Small trainings of a classifier on ECGs held in memory.

For fine-tuning per patient, and for training on shares of synthetic ECGs: some
steps each, hundreds of times, so without checkpoints.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int
from ml_collections import FrozenConfigDict

from ecgtwin_jax.models.classifier import Classifier
from ecgtwin_jax.stages.classifier import losses
from ecgtwin_jax.training import optimizer


def count_steps(count: int, batch_size: int, passes: int) -> tuple[int, int]:
  """Steps of all passes, and the rows of a step.

  A pass is cut into equal batches of at most batch_size; at most one row in
  each of its batches is left over.
  """
  per_pass = -(-count // batch_size)
  return per_pass * passes, count // per_pass


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _step(module, settings, steps, variables, opt_state, signals, labels, rng):
  def loss(params):
    logits, state = module.apply(
      {**variables, "params": params},
      signals,
      train=True,
      mutable=["batch_stats"],
      rngs={"dropout": rng},
    )
    each, weights = losses("binary", logits, labels, settings.class_weights)
    return (each * weights).sum() / jnp.maximum(weights.sum(), 1), state

  grads, state = jax.grad(loss, has_aux=True)(variables["params"])
  tx = optimizer.make_optimizer(settings.optimizer, steps)
  updates, opt_state = tx.update(grads, opt_state, variables["params"])
  params = optax.apply_updates(variables["params"], updates)
  return {**state, "params": params}, opt_state


def tune(
  module: Classifier,
  variables: dict,
  signals: Float[np.ndarray, "n 1024 12"],
  labels: Int[np.ndarray, " n"],
  settings: FrozenConfigDict,
  seed: int,
) -> Iterator[dict]:
  """Trains a normal/abnormal classifier; yields its variables after each step.

  What it learns from is in the arguments alone.

  Args:
    module: the network, two outputs.
    variables: {"params", "batch_stats"} to start from; left as they are.
    signals: ECGs in mV.
    labels: 0 normal, 1 abnormal.
    settings: batch_size, passes, class_weights, optimizer (as config.optimizer
      of a training).
    seed: what order and dropout are drawn from.
  """
  steps, size = count_steps(len(signals), settings.batch_size, settings.passes)
  tx = optimizer.make_optimizer(settings.optimizer, steps)
  opt_state = tx.init(variables["params"])
  order = np.random.default_rng(seed)
  rows = np.empty(0, np.int64)
  for step in range(steps):
    if len(rows) < size:
      rows = order.permutation(len(signals))
    batch, rows = rows[:size], rows[size:]
    rng = jax.random.fold_in(jax.random.key(seed), step)
    variables, opt_state = _step(
      module,
      settings,
      steps,
      variables,
      opt_state,
      jnp.asarray(signals[batch], jnp.float32),
      jnp.asarray(labels[batch])[:, None],
      rng,
    )
    yield variables
