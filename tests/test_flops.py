"""Floating-point operations: by hand, and beside XLA's own count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from ecgtwin_jax.flags import load_config
from ecgtwin_jax.models import attention, layers
from ecgtwin_jax.stages import base_extractor
from ecgtwin_jax.training import flops


def count(f, *arguments):
  return flops.count_flops(jax.jit(f).trace(*arguments).jaxpr)


def test_a_product_by_hand():
  x, w = jnp.ones((3, 5, 7)), jnp.ones((3, 7, 11))
  assert count(jnp.matmul, x, w) == 2 * 3 * 5 * 7 * 11
  assert count(lambda x: x + 1, x) == 0


@pytest.mark.parametrize("groups", [1, 2])
def test_a_strided_convolution_and_its_gradients_by_hand(groups):
  signal, kernel = jnp.ones((3, 40, 6)), jnp.ones((5, 6 // groups, 14))

  def convolve(signal, kernel):
    return jax.lax.conv_general_dilated(
      signal,
      kernel,
      window_strides=(2,),
      padding=((2, 1),),
      feature_group_count=groups,
      dimension_numbers=("NWC", "WIO", "NWC"),
    )

  forward = 2 * 3 * 20 * 14 * 5 * 6 // groups
  assert convolve(signal, kernel).shape == (3, 20, 14)
  assert count(convolve, signal, kernel) == forward
  loss = lambda *x: convolve(*x).sum()  # noqa: E731
  both = count(jax.grad(loss, argnums=(0, 1)), signal, kernel) - forward
  np.testing.assert_allclose(both, 2 * forward, rtol=0.05)


def test_what_a_platform_has_its_own_way_for_counts_once():
  x, kernel = jnp.ones((8, 8, 128)), jnp.ones((3, 128, 256))
  numbers = dict(dimension_numbers=("NWC", "WIO", "NWC"))

  def wide(x, kernel):
    return layers.convolve(x, kernel, (1,), ((1, 1),), **numbers)

  # Six products for two outputs, also where a CPU makes four.
  assert count(wide, x, kernel) == 2 * 3 * 8 * 8 * 128 * 256
  # Two products forward and four back, though a CPU makes one of them again.
  rows = 8 * jax.device_count()
  query = jnp.ones((rows, 128, 8, 4))
  loss = lambda *x: attention.attend(*x).sum()  # noqa: E731
  total = count(jax.grad(loss, argnums=(0, 1, 2)), query, query, query)
  assert total == 6 * 2 * rows * 8 * 128 * 128 * 4


def test_loops_count_each_time_round_and_remat_twice():
  x, w = jnp.ones((5, 7)), jnp.ones((7, 7))
  once = 2 * 5 * 7 * 7

  def loop(x, w):
    return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, length=13)[0]

  assert count(loop, x, w) == 13 * once
  layer = lambda x, w: jnp.tanh(jnp.tanh(x @ w) @ w)  # noqa: E731
  plain = jax.grad(lambda x, w: layer(x, w).sum())
  again = jax.grad(lambda x, w: jax.checkpoint(layer)(x, w).sum())
  assert count(again, x, w) > count(plain, x, w)


def test_a_stage_costs_what_xla_counts():
  config = FrozenConfigDict(load_config("configs/stage1.py:smoke"))
  one = {
    "mean": jnp.zeros((2, 128, 8)),
    "std": jnp.zeros((2, 128, 8)),
    "statement_ids": jnp.zeros((2, 18), jnp.int32),
    "patient": jnp.zeros((2, 3)),
    "median_beat": jnp.zeros((2, 80, 12)),
    "median_beat_found": jnp.ones(2, jnp.int8),
  }
  other = {f"reference_{name}": x for name, x in one.items()}
  batch = {**one, **other, "patient_id": jnp.arange(2)}
  frozen = {
    "table": jnp.zeros((5, 768)),
    "scale": jnp.ones(()),
    "beat_variance": jnp.ones((80, 12)),
  }

  def loss(params, batch):
    rng = jax.random.key(0)
    return base_extractor.loss(config, params, {}, frozen, batch, rng)[0]

  params = jax.eval_shape(
    lambda: base_extractor.init(jax.random.key(0), config)[0]
  )
  traced = jax.jit(jax.grad(loss)).trace(params, batch)
  ours = flops.count_flops(traced.jaxpr)
  xla = traced.lower().cost_analysis()["flops"]
  # XLA also counts what is done per element.
  assert 0.9 * xla < ours < xla


def test_a_peak_is_known_or_none():
  class Device:
    device_kind = "NVIDIA H100 80GB HBM3"

  assert flops.peak_of(Device) == 989e12
  assert flops.peak_of(jax.devices()[0]) is None
