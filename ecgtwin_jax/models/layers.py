"""Layers shared by the autoencoder, the extractor and the denoiser.

Parameters, norms and softmax stay float32; `dtype` is the type of the matrix
products alone. Letters of shapes: b batch, l positions, s statements, d width.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Real

from ecgtwin_jax.models.attention import Array, attend

# Entries of a convolution's tap from which on it pays to save products.
_WIDE_TAP = 128 * 256
# With fewer rows a call saves too little for a program that compiles longer.
_ROWS_THAT_PAY = 8
# From so many on the gradient of a product's kernel gains more by the kernel's
# being turned than that costs.
_MANY_ROWS = 4096
# One block's attention maps, own -> used, each (b, heads, l, s).
MapsEdit = Callable[[jax.Array], Array]

xavier = nn.initializers.xavier_uniform()
zeros = nn.initializers.zeros_init()
# PyTorch's default kernel, U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def product(
  x: Float[Array, "*b d"],
  kernel: Float[Array, "d outputs"],
  dimension_numbers: Any = None,
  precision: Any = None,
  **options: Any,
) -> Float[jax.Array, "*b outputs"]:
  """Computes x @ kernel, all axes of x but the last as one.

  Only the gradient differs: of a product over several axes JAX makes a kernel
  gradient that XLA on CPU transposes in memory and computes at half the speed.
  Of many rows, a kernel of more inputs than outputs gets its gradient there as
  (g^T x)^T, which takes three quarters of the time of x^T g. Fits
  `nn.Dense(dot_general=...)`.
  """
  del dimension_numbers  # those of x @ kernel
  rows = x.reshape(-1, x.shape[-1])
  (inputs, outputs), count, axis = kernel.shape, rows.shape[0], 0
  if inputs > outputs and isinstance(count, int) and count >= _MANY_ROWS:
    kernel, axis = _turn(kernel), 1
  out = jax.lax.dot_general(
    rows, kernel, (((1,), (axis,)), ((), ())), precision, **options
  )
  return out.reshape(*x.shape[:-1], outputs)


def _turn(kernel):
  """The transpose, which XLA on CPU is kept from merging into a product."""

  def alone(kernel):
    return jax.lax.optimization_barrier(kernel.T)

  return jax.lax.platform_dependent(kernel, cpu=alone, default=jnp.transpose)


Dense = functools.partial(nn.Dense, dot_general=product)


def convolve(
  x: Float[Array, "b l c"],
  kernel: Float[Array, "k c d"],
  strides: Sequence[int],
  padding: Sequence[tuple[int, int]],
  **options: Any,
) -> Float[jax.Array, "b m d"]:
  """Convolves as `jax.lax.conv_general_dilated`, on CPU by fewer products.

  Two neighbouring outputs see four inputs d through three taps g. They are sums
  of four products in place of six: (d0 - d2) g0, (d1 + d2) (g0 + g1 + g2) / 2,
  (d2 - d1) (g0 - g1 + g2) / 2 and (d1 - d3) g2. That pays where channels are
  many, products by far the most of the time and rows not few; results are the
  same to rounding. Gradients are those of the plain convolution.

  Source: Lavin and Gray, arXiv 1509.09308, F(2, 3).
  """

  def plain(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)

  fits = (
    kernel.shape[0] == 3
    and kernel.shape[1] * kernel.shape[2] >= _WIDE_TAP
    and x.shape[1] % 2 == 0
    and x.dtype == jnp.float32
    and not _is_few(x.shape[0])
    and (tuple(strides), tuple(padding)) == ((1,), ((1, 1),))
  )
  if not fits:
    return plain(x, kernel)

  @jax.custom_vjp
  def either(x, kernel):
    return jax.lax.platform_dependent(
      x, kernel, cpu=_by_four_products, default=plain
    )

  either.defvjp(
    lambda x, kernel: (either(x, kernel), (x, kernel)),
    lambda given, gradient: jax.vjp(plain, *given)[1](gradient),
  )
  return either(x, kernel)


def _is_few(rows):
  """Whether they are fewer than pay; a number not known yet is not."""
  return isinstance(rows, int) and rows < _ROWS_THAT_PAY


def _by_four_products(x, kernel):
  length = x.shape[1]
  padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
  d0, d1, d2, d3 = (padded[:, k : k + length - 1 : 2] for k in range(4))
  g0, g1, g2 = kernel
  a = product(d0 - d2, g0)
  b = product(d1 + d2, (g0 + g1 + g2) / 2)
  c = product(d2 - d1, (g0 - g1 + g2) / 2)
  d = product(d1 - d3, g2)
  return jnp.stack([a + b + c, b - c - d], axis=2).reshape(*x.shape[:2], -1)


class UpsampleConv(nn.Module):
  """A convolution of three over positions each of which stands twice.

  The two outputs of a position see it and one neighbour each, so that each is a
  convolution of two whose kernel has taps added up: two thirds of the products.
  Parameters are those of `nn.Conv`.
  """

  features: int
  kernel_init: Callable = xavier
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b l c"]) -> Float[jax.Array, "b 2*l d"]:
    b, length, channels = x.shape
    shape = (3, channels, self.features)
    kernel = self.param("kernel", self.kernel_init, shape)
    bias = self.param("bias", zeros, (self.features,))
    before, here, after = kernel
    left = jnp.stack([before, here + after])
    right = jnp.stack([before + here, after])
    x, left, right, bias = nn.dtypes.promote_dtype(
      x, left, right, bias, dtype=self.dtype
    )

    def convolve(taps, padding):
      return jax.lax.conv_general_dilated(
        x, taps, (1,), (padding,), dimension_numbers=("NWC", "WIO", "NWC")
      )

    out = jnp.stack([convolve(left, (1, 0)), convolve(right, (0, 1))], axis=2)
    return out.reshape(b, 2 * length, -1) + bias[None, None]


def sinusoid(
  position: Real[Array, " n"], width: int, longest: float = 10000.0
) -> Float[jax.Array, "n d"]:
  """Embeds a number p as [cos, sin] of p * longest^(-i / (width/2)).

  Raises:
    ValueError: The width is odd.

  Source: Peebles and Xie, arXiv 2212.09748 (DiT), the time embedding.
  """
  if width % 2:
    raise ValueError(f"{width=} must be even")
  half = width // 2
  frequency = np.power(longest, -np.arange(half) / half).astype(np.float32)
  angle = jnp.asarray(position, jnp.float32)[:, None] * frequency[None]
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def rotate(x: Float[Array, "b l d"]) -> Float[jax.Array, "b l d"]:
  """Rotates channel pairs (i, i + d/2) of position p by p * 10000^(-2i/d).

  Applied once to the tokens, over their whole width, in place of an added
  position table.

  Raises:
    ValueError: The width is odd.
  """
  _, length, width = x.shape
  table = sinusoid(np.arange(length), width)
  cos, sin = jnp.split(table[None], 2, axis=-1)
  first, second = jnp.split(x, 2, axis=-1)
  rotated = [first * cos - second * sin, second * cos + first * sin]
  return jnp.concatenate(rotated, axis=-1)


def fill_missing(
  patient: Float[Array, "b 3"], null_patient: Float[Array, "3"]
) -> Float[jax.Array, "b 3"]:
  """Replaces the NaN entries of patient vectors by the learned ones."""
  return jnp.where(jnp.isnan(patient), null_patient[None], patient)


def whole_report(
  statements: Float[Array, "b s e"],
  mask: Bool[Array, "b s"] | None,
  text_width: int,
) -> tuple[Float[Array, "b rows e"], Bool[Array, "b rows"]]:
  """Returns statements and mask with at least one row; no mask means all.

  Raises:
    ValueError: The statements have another width than `text_width`.
  """
  batch, rows, width = statements.shape
  if width != text_width:
    raise ValueError(f"statements' {width=} must be {text_width=}")
  if mask is None:
    mask = jnp.ones((batch, rows), bool)
  if rows == 0:
    statements = jnp.zeros((batch, 1, width))
    mask = jnp.zeros((batch, 1), bool)
  return statements, mask


class MultiheadAttention(nn.Module):
  """softmax(q k / sqrt(d/heads)) v with packed projections and output linear.

  Without a context it is self-attention. A row whose mask is all False gets
  exactly zero: no average over padding, and no output bias either.
  """

  heads: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b l d"],
    context: Float[Array, "b s d"] | None = None,
    mask: Bool[Array, "b s"] | None = None,
  ) -> Float[jax.Array, "b l d"]:
    b, l, width = x.shape
    if width % self.heads:
      raise ValueError(f"{width=} must be divisible by heads={self.heads}")
    kernel = self.param("in_kernel", xavier, (width, 3 * width))
    bias = self.param("in_bias", zeros, (3 * width,))
    x, context, kernel, bias = nn.dtypes.promote_dtype(
      x, context, kernel, bias, dtype=self.dtype
    )
    if context is None:
      qkv = product(x, kernel) + bias[None, None]
      query, key, value = jnp.split(qkv, 3, axis=-1)
    else:
      query = product(x, kernel[:, :width]) + bias[None, None, :width]
      key, value = jnp.split(
        product(context, kernel[:, width:]) + bias[None, None, width:],
        2,
        axis=-1,
      )
    query, key, value = (
      a.reshape(b, a.shape[1], self.heads, -1) for a in (query, key, value)
    )
    x = attend(query, key, value, mask)
    dense = Dense(width, kernel_init=xavier, dtype=self.dtype, name="out_proj")
    x = dense(x.reshape(b, l, width))
    if mask is not None:
      x = jnp.where(mask.any(axis=-1)[:, None, None], x, 0)
    return x


class CrossAttention(nn.Module):
  """softmax(q k / sqrt(d/heads)) v with normalised q, k, v, and its maps.

  q = LN(Wq x), k = LN(Wk c), v = LN(Wv c), each over the full width before
  splitting heads. Padded statements get weight zero; a row without any valid
  statement gives exactly zero. `edit` turns the own maps into the used ones,
  which are then neither masked nor renormalised.
  """

  heads: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b l d"],
    tokens: Float[Array, "b s e"],
    mask: Bool[Array, "b s"],
    edit: MapsEdit | None = None,
  ) -> tuple[Float[jax.Array, "b l d"], Float[Array, "b h l s"]]:
    b, l, width = x.shape
    if width % self.heads:
      raise ValueError(f"{width=} must be divisible by heads={self.heads}")

    def dense(features, name):
      return Dense(features, kernel_init=xavier, dtype=self.dtype, name=name)

    def split(a, name):
      a = nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32, name=name)(a)
      return a.astype(self.dtype).reshape(b, a.shape[1], self.heads, -1)

    query = split(dense(width, "query")(x), "query_norm")
    both = dense(2 * width, "key_value")(tokens)
    key, value = jnp.split(both, 2, axis=-1)
    key, value = split(key, "key_norm"), split(value, "value_norm")
    logits = jnp.einsum(
      "blhd,bshd->bhls", query, key, preferred_element_type=jnp.float32
    )
    logits *= (width // self.heads) ** -0.5
    valid = mask[:, None, None, :]
    lowest = jnp.finfo(jnp.float32).min
    maps = jax.nn.softmax(jnp.where(valid, logits, lowest), axis=-1)
    # Only a row without any valid statement still has weight on padding.
    maps = jnp.where(valid, maps, 0)
    if edit is not None:
      own, maps = maps, edit(maps)
      if maps.shape != own.shape:
        raise ValueError(f"given maps {maps.shape} must be {own.shape}")
    out = jnp.einsum("bhls,bshd->blhd", maps.astype(self.dtype), value)
    out = dense(width, "out_proj")(out.reshape(b, l, width))
    return jnp.where(mask.any(axis=-1)[:, None, None], out, 0), maps


class MLP(nn.Module):
  """W2 f(W1 x): two linears with an activation between."""

  hidden: int
  activation: Callable = nn.gelu
  kernel_init: Callable = xavier
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[jax.Array, "*b d"]:
    def dense(features, name):
      return Dense(
        features, kernel_init=self.kernel_init, dtype=self.dtype, name=name
      )

    # What lies within the activation is computed again in the backward pass:
    # hidden states are the widest there are.
    activate = jax.checkpoint(self.activation)
    hidden = activate(dense(self.hidden, "linear_1")(x))
    return dense(x.shape[-1], "linear_2")(hidden)


class StatementTokens(nn.Module):
  """Linear([statement, patient]) per statement, padding held out.

  Whatever stands in padded rows, NaN too, is replaced by zeros before the
  projection, so that it has no effect and exactly zero gradient. The patient
  vector is the same for all rows and is projected once, in float32: bfloat16
  would round a heart rate by half a beat per minute.
  """

  width: int
  kernel_init: Callable = xavier
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    statements: Float[Array, "b s e"],
    mask: Bool[Array, "b s"],
    patient: Float[Array, "b 3"],
  ) -> Float[jax.Array, "b s d"]:
    text = statements.shape[-1]
    kernel = self.param("kernel", self.kernel_init, (text + 3, self.width))
    bias = self.param("bias", zeros, (self.width,))
    statements = jnp.where(mask[:, :, None], statements, 0)
    statements, weight = nn.dtypes.promote_dtype(
      statements, kernel[:text], dtype=self.dtype
    )
    who = patient.astype(jnp.float32) @ kernel[text:] + bias[None]
    return product(statements, weight) + who[:, None]
