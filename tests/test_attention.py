"""Attention by groups of rows on a CPU, beside JAX's own."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgtwin_jax import sharding
from ecgtwin_jax.models import attention

# Eight heads over 128 positions: four rows to a group and device.
ROWS = 4 * jax.device_count()


def arguments(rows=2 * ROWS, dtype=jnp.float32, length=128, keys=None):
  rng = np.random.default_rng(0)
  shapes = [(rows, n or length, 8, 4) for n in (None, keys, keys)]
  return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def lowered(function, given, platform):
  jitted = jax.jit(function)
  exported = jax.export.export(jitted, platforms=[platform])(*given)
  return exported.mlir_module()


def with_gradients(function):
  def run(*given):
    out, pull = jax.vjp(function, *given)
    return out, *pull(jnp.sin(out))

  return run


@pytest.mark.parametrize("keys", [None, 64])
def test_groups_of_rows_give_what_all_rows_give(keys):
  given = arguments(rows=4 * ROWS, keys=keys)
  ours, theirs = (
    jax.jit(with_gradients(f))(*given)
    for f in (attention.attend, jax.nn.dot_product_attention)
  )
  for got, expected in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-6)


def test_large_logits_are_no_infinite_weights():
  query, key, value = arguments()
  out = attention.attend(1e3 * query, key, value)
  assert jnp.isfinite(out).all()
  expected = jax.nn.dot_product_attention(1e3 * query, key, value)
  np.testing.assert_allclose(out, expected, atol=1e-5)


def test_a_cpu_alone_goes_by_groups():
  given = arguments()
  run = with_gradients(attention.attend)
  assert lowered(run, given, "cpu").count("stablehlo.while") == 2
  whole = with_gradients(jax.nn.dot_product_attention)
  for platform in ("tpu", "cuda"):
    text, plain = (lowered(f, given, platform) for f in (run, whole))
    assert "stablehlo.while" not in text
    for operation in ("stablehlo.dot_general", "stablehlo.exponential"):
      assert text.count(operation) == plain.count(operation) > 0


def test_maps_of_a_group_alone_are_held():
  def held(function):
    step = jax.jit(with_gradients(function)).lower(*arguments(8 * ROWS))
    return step.compile().memory_analysis().temp_size_in_bytes

  maps = 8 * ROWS * 8 * 128 * 128 * 4
  assert held(attention.attend) < 0.75 * maps
  assert held(jax.nn.dot_product_attention) > maps


@pytest.mark.parametrize(
  "given",
  [
    dict(rows=2 * ROWS - 1),
    dict(rows=ROWS),
    dict(length=16),
    dict(dtype=jnp.bfloat16),
  ],
)
def test_any_other_attention_is_jaxs_own(given):
  given = arguments(**given)
  assert "while" not in lowered(attention.attend, given, "cpu")


def test_a_mask_or_an_unknown_size_leaves_attention_whole():
  given = arguments()
  mask = np.ones((len(given[0]), 128), bool)
  mask[:, 100:] = False
  out = attention.attend(*given, mask)
  expected = jax.nn.dot_product_attention(*given, mask=mask[:, None, None])
  np.testing.assert_array_equal(out, expected)
  for known in ("b, 128, 8, 4", f"{len(given[0])}, l, 8, 4"):
    shape = jax.export.symbolic_shape(known)
    unknown = [jax.ShapeDtypeStruct(shape, jnp.float32)] * 3
    assert "while" not in lowered(attention.attend, unknown, "cpu")


def test_rows_on_several_devices_stay_where_they_are():
  mesh = sharding.make_mesh()
  given = [jax.device_put(x, sharding.rows(mesh)) for x in arguments(4 * ROWS)]
  step = jax.jit(with_gradients(attention.attend)).lower(*given).compile()
  text = step.as_text()
  assert "while(" in text
  assert not re.findall(r"all-(?:gather|reduce|to-all)|collective-", text)
