"""The 1-D ResNet: its parts by hand, its shapes, its rules."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgtwin_jax.models.resnet1d import Block, ResNet1d


def block(features=32, stride=2, first=False, groups=2):
  return Block(features, 4, stride, groups, first, dropout=0.5)


def start(model, x):
  init = functools.partial(model.init, train=False)
  return jax.jit(init)(jax.random.key(0), x)


@functools.cache
def _jitted(model):
  return jax.jit(functools.partial(model.apply, train=False))


def run(model, variables, x):
  return _jitted(model)(variables, x)


def without_last_convolution(model, x):
  """Variables that leave the skip alone."""
  variables = start(model, x)
  last = variables["params"]["conv_3"]
  variables["params"]["conv_3"] = jax.tree.map(jnp.zeros_like, last)
  return variables


@pytest.mark.parametrize("length", [10, 11])
def test_skip_is_a_max_pool_after_zeros_on_the_right(length):
  x = -1 - jax.random.uniform(jax.random.key(1), (2, length, 16))
  model = block()
  out = run(model, without_last_convolution(model, x), x)
  padded = np.concatenate([x, np.zeros((2, 1, 16), np.float32)], axis=1)
  rows = (length + 1) // 2
  pooled = np.maximum(padded[:, 0 : 2 * rows : 2], padded[:, 1 : 2 * rows : 2])
  assert out.shape == (2, rows, 32)
  np.testing.assert_array_equal(out[:, :, 8:24], pooled)
  assert not np.any(out[:, :, :8]) and not np.any(out[:, :, 24:])


def test_odd_number_of_new_channels_has_the_smaller_half_in_front():
  x = jnp.ones((1, 3, 13))
  model = block(features=32, stride=1)
  out = run(model, without_last_convolution(model, x), x)
  np.testing.assert_array_equal(np.flatnonzero(out[0, 0]), np.arange(9, 22))


@pytest.mark.parametrize("stride, left", [(1, 1), (2, 1)])
def test_convolution_is_grouped_and_padded_less_on_the_left(stride, left):
  x = jax.random.normal(jax.random.key(1), (1, 10, 16))
  model = block(stride=stride, first=True)
  variables = start(model, x)
  watched = functools.partial(
    model.apply, train=False, capture_intermediates=True
  )
  _, state = jax.jit(watched)(variables, x)
  seen = {
    name: state["intermediates"][name]["__call__"][0]
    for name in ("norm_2", "conv_2")
  }
  h = np.asarray(jax.nn.swish(seen["norm_2"]))
  total = 4 - stride  # kernel - 1, less what the stride leaves over
  h = np.pad(h, ((0, 0), (left, total - left), (0, 0)))
  kernel = np.asarray(variables["params"]["conv_2"]["kernel"])
  assert kernel.shape == (4, 16, 32)
  for i in (0, 3, 4):
    window = h[0, i * stride : i * stride + 4]
    low = np.einsum("kc,kco->o", window[:, :16], kernel[:, :, :16])
    high = np.einsum("kc,kco->o", window[:, 16:], kernel[:, :, 16:])
    np.testing.assert_allclose(
      seen["conv_2"][0, i], np.concatenate([low, high]), rtol=1e-4, atol=1e-6
    )


def test_excitation_weighs_channels_by_hand():
  x = jnp.zeros((1, 3, 16))
  model = block(features=16, stride=1, first=True, groups=1)
  variables = without_last_convolution(model, x)
  params = variables["params"]
  bias = jnp.arange(16.0)
  params["conv_3"]["bias"] = bias
  out = run(model, variables, x)
  hidden = bias @ params["squeeze"]["kernel"]
  factor = jax.nn.sigmoid(jax.nn.swish(hidden) @ params["excite"]["kernel"])
  np.testing.assert_allclose(out[0, 1], bias * factor, rtol=1e-5, atol=1e-6)


def test_first_block_alone_has_no_first_norm():
  model = ResNet1d(stages=(16, 32), blocks=(2, 1), kernel=3)
  params = jax.eval_shape(
    model.init, jax.random.key(0), jnp.zeros((1, 29, 12))
  )["params"]
  without = [k for k in params if "block" in k and "norm_1" not in params[k]]
  assert without == ["stage_0_block_0"]


@pytest.mark.parametrize("length", [29, 64])
def test_length_is_halved_per_stage_and_averaged(length):
  model = ResNet1d(stages=(16, 32, 32), blocks=(1, 2, 1), kernel=3)
  x = jax.random.normal(jax.random.key(1), (2, length, 12))
  variables = jax.jit(model.init)(jax.random.key(0), x)
  out, state = jax.jit(
    lambda v, x: model.apply(v, x, capture_intermediates=True)
  )(variables, x)
  last = state["intermediates"]["stage_2_block_0"]["__call__"][0]
  halved = length
  for _ in range(4):
    halved = (halved + 1) // 2
  assert last.shape == (2, halved, 32)
  np.testing.assert_allclose(out, last.mean(axis=1), rtol=1e-5, atol=1e-6)


def test_running_averages_move_by_a_tenth_towards_the_batch():
  model = ResNet1d(stages=(16,), blocks=(1,), kernel=3, dropout=0.0)
  x = 2 + jax.random.normal(jax.random.key(1), (7, 20, 12))
  variables = start(model, x)
  train = functools.partial(
    model.apply,
    train=True,
    mutable=["batch_stats", "intermediates"],
    capture_intermediates=True,
  )
  _, state = jax.jit(train)(variables, x)
  entered = np.asarray(state["intermediates"]["conv_in"]["__call__"][0])
  stats = state["batch_stats"]["norm_in"]
  np.testing.assert_allclose(
    stats["mean"], 0.1 * entered.mean(axis=(0, 1)), rtol=1e-4, atol=1e-6
  )
  np.testing.assert_allclose(
    stats["var"], 0.9 + 0.1 * entered.var(axis=(0, 1)), rtol=1e-4
  )
  assert not np.any(variables["batch_stats"]["norm_in"]["mean"])


def test_evaluation_does_not_depend_on_the_batch_and_needs_no_rng():
  model = ResNet1d(stages=(16,), blocks=(2,), kernel=3)
  x = jax.random.normal(jax.random.key(1), (5, 20, 12))
  variables = start(model, x)
  whole, part = run(model, variables, x), run(model, variables, x[2:3])
  np.testing.assert_allclose(whole[2:3], part, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  "wrong, message",
  [
    ({"stages": (16, 32), "blocks": (1,)}, "differ in length"),
    ({"stages": (32, 16), "blocks": (1, 1)}, "must not fall"),
    ({"stages": (24,), "blocks": (1,)}, "multiples of self.group_width=16"),
  ],
)
def test_widths_that_do_not_fit_are_refused(wrong, message):
  with pytest.raises(ValueError, match=message):
    ResNet1d(**wrong).init(jax.random.key(0), jnp.zeros((1, 20, 12)))
