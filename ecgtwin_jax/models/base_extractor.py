"""Stage 1: the Individual Base Extractor, one vector per patient.

Linears start as in PyTorch, U(+-1/sqrt(fan_in)), the packed attention
projections with Xavier uniform, biases at zero.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from ecgtwin_jax.models import layers
from ecgtwin_jax.models.layers import Array


def contrastive_logits(
  a: Float[Array, "n d"],
  b: Float[Array, "m d"],
  logit_scale: Float[Array, ""] | float,
) -> Float[jax.Array, "n m"]:
  """Computes exp(logit_scale) * cos(a_i, b_j), the logits of InfoNCE.

  Softmax over rows gives the loss of finding b from a, over columns that of
  finding a from b.

  Source: Radford et al., arXiv 2103.00020, section 2.3.
  """

  def unit(x):
    x = x.astype(jnp.float32)
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(square + 1e-24)  # finite gradient at zero

  return jnp.exp(logit_scale) * (unit(a) @ unit(b).T)


class ExtractorLayer(nn.Module):
  """One pre-norm layer that subtracts what the condition explains.

  x += SelfAttn(LN x);  x -= ReLU(CrossAttn(LN x, LN c));  x += FF(LN x)
  """

  heads: int
  hidden: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b l d"],
    tokens: Float[Array, "b s d"],
    mask: Bool[Array, "b s"],
  ) -> Float[jax.Array, "b l d"]:
    def norm(a, name):
      return nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32, name=name)(a)

    def attend(name):
      return layers.MultiheadAttention(self.heads, self.dtype, name=name)

    x += attend("self_attention")(norm(x, "norm_1"))
    explained = attend("cross_attention")(
      norm(x, "norm_2"), norm(tokens, "condition_norm"), mask
    )
    x -= nn.relu(explained)
    feed = layers.MLP(
      self.hidden,
      nn.relu,
      layers.torch_uniform,
      self.dtype,
      name="feed_forward",
    )
    return x + feed(norm(x, "norm_3"))


class BaseExtractor(nn.Module):
  """Extracts the base vector: who, with the condition taken out.

  `apply(variables, latent, statements, mask, patient)` gives (b, width), the
  mean over positions, unnormalised; `method="tokens"` the positions before
  the mean. `statements=None` is the unconditional form, one learned token in
  place of all condition tokens. Latents are scaled as for the decoder.
  With `null_condition`, NaN entries of the patient vector are replaced by
  the learned vector `null_patient`; without it they must not occur.

  Source: Lai et al., arXiv 2508.02720, the released first stage; padded
  statements are masked, where the release attends to them.
  """

  width: int = 256
  depth: int = 3
  heads: int = 8
  mlp_ratio: int = 4
  latent_channels: int = 4
  text_width: int = 768
  null_condition: bool = False
  remat: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def tokens(
    self,
    latent: Float[Array, "b l c"],
    statements: Float[Array, "b s e"] | None,
    mask: Bool[Array, "b s"] | None = None,
    patient: Float[Array, "b 3"] | None = None,
    drop_text: Bool[Array, " b"] | None = None,
  ) -> Float[jax.Array, "b l d"]:
    """Returns the tokens (b, l, width) whose mean is the base vector.

    Args:
      latent: Scaled latents.
      statements: Embedded statements, or None for the unconditional form.
      mask: True for statements, False for padding; None means all are.
      patient: (heart rate, age, sex), normalised.
      drop_text: True selects the unconditional form for that row.

    Raises:
      ValueError: The latent's or the statements' width is another.
    """
    batch, _, channels = latent.shape
    if channels != self.latent_channels:
      raise ValueError(f"latent's {channels=} must be {self.latent_channels}")
    self.param("logit_scale", nn.initializers.constant(math.log(1 / 0.07)), ())
    condition, mask = self._condition(
      batch, statements, mask, patient, drop_text
    )
    x = layers.Dense(
      self.width,
      kernel_init=layers.torch_uniform,
      dtype=self.dtype,
      name="latent_embedding",
    )(latent)
    x = layers.rotate(x.astype(jnp.float32))
    layer = nn.remat(ExtractorLayer) if self.remat else ExtractorLayer
    for i in range(self.depth):
      hidden = self.mlp_ratio * self.width
      x = layer(self.heads, hidden, self.dtype, name=f"layer_{i}")(
        x, condition, mask
      )
    return x

  def _condition(self, batch, statements, mask, patient, drop_text):
    """Returns the condition tokens (b, s, width) and their mask."""
    if statements is None:
      statements = jnp.zeros((batch, 1, self.text_width))
      mask, patient = None, jnp.zeros((batch, 3))
      drop_text = jnp.ones((batch,), bool)
    statements, mask = layers.whole_report(statements, mask, self.text_width)
    if self.null_condition:
      null_patient = self.param("null_patient", layers.zeros, (3,))
      patient = layers.fill_missing(patient, null_patient)
    tokens = layers.StatementTokens(
      self.width, layers.torch_uniform, self.dtype, name="statement_tokens"
    )(statements, mask, patient)
    null_token = self.param(
      "null_token", nn.initializers.normal(1.0), (1, self.width)
    )
    if drop_text is not None:
      drop = drop_text[:, None]
      first = jnp.arange(mask.shape[1]) == 0
      tokens = jnp.where(drop[:, :, None], null_token[None], tokens)
      mask = jnp.where(drop, first[None], mask)
    return tokens, mask

  def __call__(
    self,
    latent: Float[Array, "b l c"],
    statements: Float[Array, "b s e"] | None,
    mask: Bool[Array, "b s"] | None = None,
    patient: Float[Array, "b 3"] | None = None,
    drop_text: Bool[Array, " b"] | None = None,
  ) -> Float[jax.Array, "b d"]:
    """Returns the base vector, mean over positions of `tokens(...)`."""
    tokens = self.tokens(latent, statements, mask, patient, drop_text)
    return tokens.mean(axis=1)
