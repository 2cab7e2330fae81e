"""Numbers by hand for the shared layers."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgtwin_jax.models import layers


def _random(seed, *shape):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_sinusoid_by_hand():
  out = layers.sinusoid(np.array([0, 5]), 4)
  angle = np.array([5.0, 5.0 / 100.0])
  expected = [[1, 1, 0, 0], [*np.cos(angle), *np.sin(angle)]]
  np.testing.assert_allclose(out, expected, atol=1e-6)


def test_sinusoid_refuses_an_odd_width():
  with pytest.raises(ValueError, match="width=5 must be even"):
    layers.sinusoid(np.array([0]), 5)


def test_upsample_conv_is_a_convolution_of_repeated_positions():
  x = _random(0, 2, 5, 3)
  for dtype, bound in ((jnp.float32, 1e-6), (jnp.bfloat16, 3e-2)):
    ours = layers.UpsampleConv(4, dtype=dtype)
    variables = ours.init(jax.random.key(0), x)
    variables["params"]["bias"] = _random(1, 4)
    plain = nn.Conv(4, (3,), padding=((1, 1),))
    expected = plain.apply(variables, np.repeat(x, 2, axis=1))
    out = ours.apply(variables, x)
    assert out.dtype == dtype
    np.testing.assert_allclose(out, expected, atol=bound)


def test_rotate_turns_pairs_by_their_position():
  x = _random(0, 1, 3, 4)
  out = layers.rotate(x)[0]
  for position in range(3):
    for pair, frequency in enumerate((1.0, 0.01)):
      z = complex(x[0, position, pair], x[0, position, pair + 2])
      z *= np.exp(1j * position * frequency)
      np.testing.assert_allclose(out[position, pair], z.real, atol=1e-6)
      np.testing.assert_allclose(out[position, pair + 2], z.imag, atol=1e-6)


def _attention_by_hand(query, key, value, valid, heads):
  b, l, width = query.shape
  out, size = np.zeros((b, l, width)), width // heads
  for row in range(b):
    for head in range(heads):
      part = slice(head * size, (head + 1) * size)
      logits = query[row, :, part] @ key[row, :, part].T / np.sqrt(size)
      weight = np.exp(logits) * valid[row]
      weight /= weight.sum(-1, keepdims=True)
      out[row, :, part] = weight @ value[row, :, part]
  return out


def test_multihead_attention_by_hand():
  x, context = _random(0, 2, 5, 6), _random(1, 2, 3, 6)
  mask = np.array([[True, True, False], [True, False, True]])
  layer = layers.MultiheadAttention(heads=2)
  variables = jax.jit(layer.init)(jax.random.key(0), x, context, mask)
  variables = jax.tree.map(lambda a: a + 0.1, variables)
  p = jax.tree.map(np.asarray, variables["params"])
  q, k, v = np.split(p["in_kernel"], 3, axis=1)
  bq, bk, bv = np.split(p["in_bias"], 3)
  out = _attention_by_hand(
    x @ q + bq, context @ k + bk, context @ v + bv, mask, 2
  )
  out = out @ p["out_proj"]["kernel"] + p["out_proj"]["bias"]
  np.testing.assert_allclose(
    layer.apply(variables, x, context, mask), out, atol=1e-5
  )
  # Self-attention is the case where the context is x itself.
  np.testing.assert_allclose(
    layer.apply(variables, x), layer.apply(variables, x, x), atol=1e-6
  )


def _normalised(x, p):
  x = x - x.mean(-1, keepdims=True)
  return (
    x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]
  )


def test_cross_attention_by_hand():
  x, tokens = _random(0, 2, 5, 6), _random(1, 2, 3, 4)
  mask = np.array([[True, True, False], [True, False, True]])
  layer = layers.CrossAttention(heads=2)
  variables = jax.jit(layer.init)(jax.random.key(0), x, tokens, mask)
  variables = jax.tree.map(lambda a: a + 0.1, variables)
  p = jax.tree.map(np.asarray, variables["params"])

  def dense(name, a):
    return a @ p[name]["kernel"] + p[name]["bias"]

  key, value = np.split(dense("key_value", tokens), 2, axis=-1)
  expected = _attention_by_hand(
    _normalised(dense("query", x), p["query_norm"]),
    _normalised(key, p["key_norm"]),
    _normalised(value, p["value_norm"]),
    mask,
    2,
  )
  out, maps = layer.apply(variables, x, tokens, mask)
  np.testing.assert_allclose(out, dense("out_proj", expected), atol=1e-5)
  assert maps.shape == (2, 2, 5, 3)
  np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-6)
  assert (np.asarray(maps)[0, :, :, 2] == 0).all()


def test_attention_needs_heads_that_divide_the_width():
  layer = layers.MultiheadAttention(heads=4)
  with pytest.raises(ValueError, match="width=6 must be divisible by heads=4"):
    layer.init(jax.random.key(0), _random(0, 1, 2, 6))


@pytest.mark.parametrize("kind", ["multihead", "cross"])
def test_rows_without_a_valid_statement_give_exactly_zero(kind):
  x, tokens = _random(0, 2, 5, 6), _random(1, 2, 3, 6)
  mask = np.array([[False, False, False], [True, True, False]])
  layer = (
    layers.MultiheadAttention(heads=2)
    if kind == "multihead"
    else layers.CrossAttention(heads=2)
  )
  variables = jax.jit(layer.init)(jax.random.key(0), x, tokens, mask)
  variables = jax.tree.map(lambda a: a + 0.1, variables)

  def run(x, tokens):
    out = layer.apply(variables, x, tokens, mask)
    return out if kind == "multihead" else out[0]

  out = np.asarray(jax.jit(run)(x, tokens))
  assert (out[0] == 0).all()
  assert (out[1] != 0).all()
  gradient = jax.grad(lambda *a: run(*a).sum(), argnums=(0, 1))
  by_x, by_tokens = jax.jit(gradient)(x, tokens)
  assert (np.asarray(by_x)[0] == 0).all()
  assert (np.asarray(by_tokens)[0] == 0).all()
  assert np.isfinite(by_x).all() and np.isfinite(by_tokens).all()


def test_statement_tokens_by_hand():
  statements, patient = _random(0, 2, 3, 5), _random(1, 2, 3)
  mask = np.array([[True, True, False], [True, False, False]])
  layer = layers.StatementTokens(7)
  variables = layer.init(jax.random.key(0), statements, mask, patient)
  p = jax.tree.map(np.asarray, variables["params"])
  out = layer.apply(variables, statements, mask, patient)
  joint = np.concatenate([statements[1, 0], patient[1]])
  np.testing.assert_allclose(out[1, 0], joint @ p["kernel"], atol=1e-5)
  padded = np.concatenate([np.zeros(5, np.float32), patient[0]])
  np.testing.assert_allclose(out[0, 2], padded @ p["kernel"], atol=1e-5)


def test_whole_report_gives_an_empty_report_one_padded_row():
  empty, report = np.zeros((2, 0, 5), "f4"), np.zeros((2, 3, 5), "f4")
  statements, mask = layers.whole_report(empty, None, 5)
  assert statements.shape == (2, 1, 5) and not np.any(mask)
  assert np.all(layers.whole_report(report, None, 5)[1])
  with pytest.raises(ValueError, match="width=5 must be text_width=7"):
    layers.whole_report(report, None, 7)


def test_fill_missing_replaces_nan_alone():
  patient = np.array([[1.0, np.nan, 3.0]], np.float32)
  out = layers.fill_missing(patient, jnp.array([7.0, 8.0, 9.0]))
  np.testing.assert_array_equal(out, [[1, 8, 3]])


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_a_product_of_rows_is_that_of_matmul(shape):
  x, kernel = _random(0, *shape), _random(1, 5, 7)
  out, pull = jax.vjp(layers.product, x, kernel)
  expected, pull_expected = jax.vjp(jnp.matmul, x, kernel)
  np.testing.assert_allclose(out, expected, rtol=1e-6)
  for ours, theirs in zip(pull(out), pull_expected(out)):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  ("rows", "inputs", "outputs", "turned"),
  [
    (4096, 7, 5, True),
    (4095, 7, 5, False),
    (4096, 7, 7, False),
    (4096, 5, 7, False),
  ],
)
def test_of_many_rows_a_tall_kernel_gets_its_gradient_turned(
  rows, inputs, outputs, turned
):
  x, kernel = _random(0, rows, inputs), _random(1, inputs, outputs)
  gradient = jax.grad(lambda k: jnp.sum(jnp.sin(layers.product(x, k))))
  expected = jax.grad(lambda k: jnp.sum(jnp.sin(x @ k)))(kernel)
  np.testing.assert_allclose(gradient(kernel), expected, rtol=1e-4, atol=1e-3)
  sizes = (outputs, inputs) if turned else (inputs, outputs)
  compiled = jax.jit(gradient).lower(kernel).compile().as_text()
  assert re.search(rf"f32\[{sizes[0]},{sizes[1]}\]\S* dot\(", compiled)
  for platform in ("cpu", "tpu", "cuda"):
    exported = jax.export.export(jax.jit(gradient), platforms=[platform])
    kept_apart = "optimization_barrier" in exported(kernel).mlir_module()
    assert kept_apart == (turned and platform == "cpu")


def test_the_kernel_gradient_of_a_dense_is_one_product_of_two_matrices():
  x = _random(0, 2, 3, 5)
  dense = layers.Dense(7)
  params = dense.init(jax.random.key(0), x)
  gradient = jax.grad(lambda p: jnp.sum(dense.apply(p, x) ** 2))
  products = [
    e
    for e in jax.make_jaxpr(gradient)(params).eqns
    if e.primitive.name == "dot_general"
  ]
  assert len(products) == 2  # forward, and the kernel's gradient
  assert all(v.aval.ndim == 2 for e in products for v in e.invars)


def _convolutions(
  channels, features, taps=3, dtype=jnp.float32, length=12, rows=8
):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(rows, length, channels)), dtype)
  kernel = rng.normal(size=(taps, channels, features)) / channels**0.5
  return x, jnp.asarray(kernel, dtype)


def _convolve(function, strides=(1,), padding=((1, 1),)):
  numbers = dict(dimension_numbers=("NWC", "WIO", "NWC"))
  return lambda x, kernel: function(x, kernel, strides, padding, **numbers)


def test_a_wide_convolution_has_fewer_products_on_a_cpu_and_the_same_result():
  x, kernel = _convolutions(128, 256)
  ours = _convolve(layers.convolve)
  plain = _convolve(jax.lax.conv_general_dilated)
  expected = plain(x, kernel)
  np.testing.assert_allclose(ours(x, kernel), expected, atol=1e-5)
  # The first and the last output see a zero beside the ends.
  moved = ours(x.at[:, 0].add(1), kernel) - expected
  assert jnp.abs(moved[:, :2]).min() > 0 and jnp.abs(moved[:, 2:]).max() < 1e-5
  hlo = jax.jit(ours).lower(x, kernel).as_text()
  products, convolution = "stablehlo.dot_general", "stablehlo.convolution"
  assert hlo.count(products) == 4 and convolution not in hlo
  for platform in ("tpu", "cuda"):
    exported = jax.export.export(jax.jit(ours), platforms=[platform])
    text = exported(x, kernel).mlir_module()
    assert text.count(convolution) == 1 and products not in text
  of = functools.partial(jax.grad, argnums=(0, 1))
  got, due = (
    of(lambda *a, f=f: jnp.sin(f(*a)).sum())(x, kernel) for f in (ours, plain)
  )
  for ours_, theirs in zip(got, due, strict=True):
    np.testing.assert_allclose(ours_, theirs, atol=1e-4)


def test_a_wide_convolution_of_any_number_of_rows_has_fewer_products():
  _, kernel = _convolutions(128, 256)
  (rows,) = jax.export.symbolic_shape("b")
  x = jax.ShapeDtypeStruct((rows, 12, 128), jnp.float32)
  convolve = jax.jit(_convolve(layers.convolve))
  text = jax.export.export(convolve, platforms=["cpu"])(x, kernel).mlir_module()
  assert text.count("stablehlo.dot_general") == 4


@pytest.mark.parametrize(
  ("given", "strides", "padding"),
  [
    (dict(channels=127, features=256), (1,), ((1, 1),)),
    (dict(channels=128, features=256, length=11), (1,), ((1, 1),)),
    (dict(channels=128, features=256, rows=7), (1,), ((1, 1),)),
    (dict(channels=128, features=256, dtype=jnp.bfloat16), (1,), ((1, 1),)),
    (dict(channels=128, features=256, taps=1), (1,), ((0, 0),)),
    (dict(channels=128, features=256), (2,), ((0, 1),)),
    (dict(channels=128, features=256), (1,), ((0, 2),)),
  ],
)
def test_any_other_convolution_is_jaxs_own(given, strides, padding):
  x, kernel = _convolutions(**given)
  texts = [
    str(jax.make_jaxpr(_convolve(f, strides, padding))(x, kernel))
    for f in (layers.convolve, jax.lax.conv_general_dilated)
  ]
  assert texts[0] == texts[1] and "conv_general_dilated" in texts[0]
