"""NomicBERT, the text encoder behind nomic-embed-text-v1.5, and its pooling.

Statements are embedded once and stored, so accuracy comes before speed: all
products run at full float32 precision, also where the accelerator's default is
lower.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from ecgtwin_jax.models.layers import sinusoid

_PRECISION = jax.lax.Precision.HIGHEST


def rotate_by_position(
  x: Float[Array, "b l h c"], base: float
) -> Float[Array, "b l h c"]:
  """Turns channel pairs (i, i + c/2) by the angle l * base^(-2i/c).

  Source: rotary position embedding (arXiv 2104.09864), rotate-half form.
  """
  table = sinusoid(np.arange(x.shape[1]), x.shape[-1], longest=base)
  cos, sin = jnp.split(table.astype(x.dtype)[None, :, None], 2, axis=-1)
  first, second = jnp.split(x, 2, axis=-1)
  rotated = [first * cos - second * sin, second * cos + first * sin]
  return jnp.concatenate(rotated, axis=-1)


def pool_tokens(
  hidden: Float[Array, "b l d"], mask: Bool[Array, "b l"]
) -> Float[Array, "b d"]:
  """Sentence vector: v = LN(mean of the valid tokens), divided by its length.

  The layer norm has no weights, so the division cancels its scale: what is left
  of it is the centring. A row without any valid token gives zeros.

  Source: model card of nomic-embed-text-v1.5, without shortening the vector.
  """
  hidden = hidden.astype(jnp.float32)
  total = jnp.where(mask[..., None], hidden, 0.0).sum(axis=1)
  mean = total / jnp.maximum(mask.sum(axis=1), 1)[:, None]
  centred = mean - mean.mean(axis=-1, keepdims=True)
  length = jnp.linalg.norm(centred, axis=-1, keepdims=True)
  return centred / jnp.maximum(length, 1e-12)


class NomicLayer(nn.Module):
  """Post-norm layer: x = LN(x + Attn x); x = LN(x + W2 (W11 x * SiLU(W12 x))).

  Queries and keys are rotated by position; no linear map has a bias.
  """

  heads: int
  inner: int
  rotary_base: float
  eps: float
  dtype: DTypeLike

  @nn.compact
  def __call__(
    self, x: Float[Array, "b l d"], mask: Bool[Array, "b l"]
  ) -> Float[Array, "b l d"]:
    width = x.shape[-1]
    dense = functools.partial(
      nn.Dense, use_bias=False, dtype=self.dtype, precision=_PRECISION
    )
    norm = functools.partial(
      nn.LayerNorm, epsilon=self.eps, use_fast_variance=False, dtype=jnp.float32
    )
    qkv = dense(3 * width, name="qkv")(x)
    q, k, v = jnp.split(qkv.reshape(*x.shape[:2], 3 * self.heads, -1), 3, 2)
    attended = nn.dot_product_attention(
      rotate_by_position(q, self.rotary_base),
      rotate_by_position(k, self.rotary_base),
      v,
      mask=mask[:, None, None],
      precision=_PRECISION,
      force_fp32_for_softmax=True,
    )
    attended = dense(width, name="out")(attended.reshape(x.shape))
    x = norm(name="norm1")(x + attended)
    gated = dense(self.inner, name="up")(x)
    gated = gated * nn.silu(dense(self.inner, name="gate")(x))
    return norm(name="norm2")(x + dense(width, name="down")(gated))


class NomicBERT(nn.Module):
  """Token ids -> hidden states; defaults are nomic-embed-text-v1.5's sizes.

  Source: arXiv 2402.01613, section 3 (BERT with rotary positions, SwiGLU and no
  biases), post-norm as released.
  """

  vocabulary: int = 30528
  token_types: int = 2
  width: int = 768
  layers: int = 12
  heads: int = 12
  inner: int = 3072
  rotary_base: float = 1000.0
  eps: float = 1e-12
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]
  ) -> Float[Array, "b l d"]:
    """Encodes token ids; mask is True at valid tokens, others are unseen."""
    embed = functools.partial(nn.Embed, features=self.width)
    x = embed(self.vocabulary, name="word")(ids)
    # A statement is one segment: every token is of the first type.
    x = x + embed(self.token_types, name="token_type")(jnp.zeros_like(ids))
    x = nn.LayerNorm(epsilon=self.eps, use_fast_variance=False, name="norm")(x)
    for i in range(self.layers):
      x = NomicLayer(
        self.heads,
        self.inner,
        self.rotary_base,
        self.eps,
        self.dtype,
        name=f"layer_{i}",
      )(x, mask)
    return x
