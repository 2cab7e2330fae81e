"""The optimizer chain and the moving average of parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from ml_collections import ConfigDict


def make_schedule(optimizer: ConfigDict, steps: int) -> optax.Schedule:
  """Linear warm-up to the peak, then a cosine to the final rate.

  Args:
    optimizer: config with learning_rate, final_learning_rate, warmup_steps.
    steps: length of the training.

  Raises:
    ValueError: the warm-up is not shorter than the training.
  """
  warmup_steps = optimizer.warmup_steps
  if not 0 <= warmup_steps < steps:
    raise ValueError(f"{warmup_steps=} must be in 0..{steps - 1} ({steps=})")
  return optax.warmup_cosine_decay_schedule(
    init_value=0.0 if warmup_steps else optimizer.learning_rate,
    peak_value=optimizer.learning_rate,
    warmup_steps=warmup_steps,
    decay_steps=steps,
    end_value=optimizer.final_learning_rate,
  )


def make_optimizer(
  optimizer: ConfigDict, steps: int
) -> optax.GradientTransformation:
  """AdamW or Muon with the schedule above; clips gradients where asked.

  Muon's update of a kernel has singular values that are all alike, 0.2 times
  the learning rate times the root of the longer side: entries as large as
  AdamW's, so that its learning rates fit. Biases, norms and tables go by AdamW
  with Nesterov's momentum. Source: optax.contrib.muon.

  Args:
    optimizer: config with muon, b2, weight_decay and clip_norm (None: no
      clipping), and what make_schedule reads.
    steps: length of the training.
  """
  schedule = make_schedule(optimizer, steps)
  if optimizer.muon:
    tx = optax.contrib.muon(
      schedule,
      weight_decay=optimizer.weight_decay,
      adam_b2=optimizer.b2,
      adam_weight_decay=optimizer.weight_decay,
      muon_weight_dimension_numbers=_kernels,
      consistent_rms=0.2,
    )
  else:
    tx = optax.adamw(
      schedule, b2=optimizer.b2, weight_decay=optimizer.weight_decay
    )
  if optimizer.clip_norm is None:
    return tx
  return optax.chain(optax.clip_by_global_norm(optimizer.clip_norm), tx)


def _kernels(params):
  """Says of each leaf which axes are a matrix's; None: it is no kernel."""

  def axes(path, leaf):
    if leaf.ndim < 2 or not path[-1].key.endswith("kernel"):
      return None
    inputs = tuple(range(leaf.ndim - 1))  # a convolution's width is among them
    return optax.contrib.MuonDimensionNumbers(inputs, leaf.ndim - 1)

  return jax.tree.map_with_path(axes, params)


def update_ema(ema: Any, params: Any, step: Any, decay: float) -> Any:
  """Moves the average: ema <- d ema + (1 - d) params, d <= decay.

  The decay grows as (1 + step) / (10 + step), so that the random start is
  forgotten; 0 keeps a plain copy.
  """
  step = jnp.asarray(step, jnp.float32)
  decay = jnp.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, ema, params)
