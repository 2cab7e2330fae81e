"""Stage 1: the Individual Base Extractor, one vector per patient.

Linears start as in PyTorch, U(+-1/sqrt(fan_in)), the packed attention
projections with Xavier uniform, biases at zero.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Real

from ecgtwin_jax.constants import LEADS, MEDIAN_SAMPLES, TEXT_WIDTH
from ecgtwin_jax.models import beat_rate, layers
from ecgtwin_jax.models.layers import Array

_BEAT_PATCH = 4  # samples in one token
BEAT_SIZE = 0.2  # mV, which median beats are divided by: their spread


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


def masked_mean(
  tokens: Float[Array, "b s d"], mask: Bool[Array, "b s"]
) -> Float[jax.Array, "b d"]:
  """Mean (b, d) of the tokens that count."""
  weight = mask.astype(jnp.float32)[:, :, None]
  count = jnp.maximum(weight.sum(axis=1), 1)
  return (tokens * weight).sum(axis=1) / count


class IdentityTokens(nn.Module):
  """Reads k tokens out of many by learned queries, whatever their order.

  q += CrossAttn(LN q, LN x);  q += FF(LN q);  then Linear(LN q)

  Source: the resampler of IP-Adapter Plus (Ye et al., arXiv 2308.06721).
  """

  count: int
  token_width: int
  depth: int
  heads: int
  hidden: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b l d"]) -> Float[jax.Array, "b k e"]:
    def norm(a, name):
      return nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32, name=name)(a)

    batch, _, width = x.shape
    queries = self.param(
      "queries", nn.initializers.normal(1.0), (self.count, width)
    )
    x = norm(x, "token_norm")
    q = jnp.broadcast_to(queries[None], (batch, self.count, width))
    for i in range(self.depth):
      attend = layers.MultiheadAttention(
        self.heads, self.dtype, name=f"attention_{i}"
      )
      q += attend(norm(q, f"norm_{i}"), x)
      feed = layers.MLP(
        self.hidden,
        nn.relu,
        layers.torch_uniform,
        self.dtype,
        name=f"feed_forward_{i}",
      )
      q += feed(norm(q, f"feed_norm_{i}"))
    return layers.Dense(
      self.token_width,
      kernel_init=layers.torch_uniform,
      dtype=self.dtype,
      name="projection",
    )(norm(q, "last_norm")).astype(jnp.float32)


class UnderCondition(nn.Module):
  """W4 x + W3 (h + MLP h), h = gelu(W1 x + W2 LN condition): x seen under it.

  With `gates` so many blocks follow, h += W5 (gelu(W6 LN h + W7 c) (1 + W8 c))
  with c = LN condition: what a condition does to a beat is a product of both.

  What goes straight through holds for hearts that are unlike those of the
  training. It is drawn as zero; stage 1 puts principal components in its place.
  """

  hidden: int
  features: int
  last_init: Callable = layers.torch_uniform
  gates: int = 0

  @nn.compact
  def __call__(
    self, x: Float[Array, "b n"], condition: Float[Array, "b d"]
  ) -> Float[jax.Array, "b f"]:
    def dense(features, name, init=layers.torch_uniform):
      return layers.Dense(features, kernel_init=init, name=name)

    # Statements' embeddings are small numbers: unscaled they are learned late.
    condition = nn.LayerNorm(epsilon=1e-5, name="condition_norm")(condition)
    h = dense(self.hidden, "input")(x)
    h = nn.gelu(h + dense(self.hidden, "condition")(condition))
    h += layers.MLP(self.hidden, nn.gelu, layers.torch_uniform, name="mlp")(h)
    for i in range(self.gates):
      normed = nn.LayerNorm(epsilon=1e-5, name=f"norm_{i}")(h)
      change = dense(self.hidden, f"change_{i}")(normed)
      change += dense(self.hidden, f"change_condition_{i}")(condition)
      gate = 1 + dense(self.hidden, f"gate_{i}")(condition)
      h += dense(self.hidden, f"add_{i}", layers.zeros)(nn.gelu(change) * gate)
    direct = layers.Dense(
      self.features, use_bias=False, kernel_init=layers.zeros, name="direct"
    )
    return direct(x) + dense(self.features, "output", self.last_init)(h)


class BaseExtractor(nn.Module):
  """Extracts the base vector: who, with the condition taken out.

  `apply(variables, latent, statements, mask, patient)` gives (b, base_width),
  unnormalised: the mean over the tokens, which `method="tokens"` gives, or,
  with `identity_tokens`, so many learned readings of them side by side.
  `statements=None` is the unconditional form, one learned token in
  place of all condition tokens. Latents are scaled as for the decoder.
  With `null_condition`, NaN entries of the patient vector are replaced by
  the learned vector `null_patient`; without it they must not occur.
  With `median_beat`, the usual beat of the same recording is seen, too: as
  20 tokens behind those of the latent, and at once, by a small network whose
  output is added; and `method="predict_beat"` says what the person's usual beat
  is under another condition: stage 1 is trained by it. Both are of beats as
  they would be at 60 bpm, which the condition's heart rate says.

  Source: Lai et al., arXiv 2508.02720, the released first stage; padded
  statements are masked, where the release attends to them. Identity tokens,
  median beat and its prediction are ours.
  """

  width: int = 256
  depth: int = 3
  heads: int = 8
  mlp_ratio: int = 4
  latent_channels: int = 4
  text_width: int = TEXT_WIDTH
  null_condition: bool = False
  latent_patch: int = 1  # positions of the latent in one token
  identity_tokens: int = 0  # 0: the mean over tokens, as published
  token_width: int = 32  # of an identity token
  resampler_depth: int = 1
  median_beat: bool = False
  beat_width: int = 256  # of what reads the beat at once, and predicts another
  beat_gates: int = 0  # blocks of these in which the condition is a factor
  remat: bool = False
  dtype: Any = jnp.float32

  @property
  def base_width(self) -> int:
    """Entries of the base vector."""
    return self.identity_tokens * self.token_width or self.width

  def setup(self) -> None:
    self.statement_tokens = layers.StatementTokens(
      self.width, layers.torch_uniform, self.dtype
    )
    if self.null_condition:
      self.null_patient = self.param("null_patient", layers.zeros, (3,))
    if self.identity_tokens:
      self.resampler = IdentityTokens(
        self.identity_tokens,
        self.token_width,
        self.resampler_depth,
        self.heads,
        self.mlp_ratio * self.width,
        self.dtype,
      )
    if self.median_beat:
      self.beat_reading = UnderCondition(
        self.beat_width, self.base_width, gates=self.beat_gates
      )
      self.beat_head = UnderCondition(
        self.beat_width,
        MEDIAN_SAMPLES * len(LEADS),
        layers.zeros,
        self.beat_gates,
      )

  def tokens(
    self,
    latent: Float[Array, "b l c"],
    statements: Float[Array, "b s e"] | None,
    mask: Bool[Array, "b s"] | None = None,
    patient: Float[Array, "b 3"] | None = None,
    drop_text: Bool[Array, " b"] | None = None,
    median_beat: Float[Array, "b t 12"] | None = None,
    median_beat_found: Real[Array, " b"] | None = None,
  ) -> Float[jax.Array, "b k d"]:
    """Returns the tokens (b, n, width) that the base vector is made of.

    Args:
      latent: Scaled latents.
      statements: Embedded statements, or None for the unconditional form.
      mask: True for statements, False for padding; None means all are.
      patient: (heart rate, age, sex), normalised.
      drop_text: True selects the unconditional form for that row.
      median_beat: 80 samples of the usual beat in mV, read by a module with
        `median_beat` alone; None: none was found.
      median_beat_found: 0 where a row has none.

    Raises:
      ValueError: The latent's, the statements' or the beat's size is another.
    """
    return self._read(
      latent,
      statements,
      mask,
      patient,
      drop_text,
      median_beat,
      median_beat_found,
    )[0]

  @nn.compact
  def _read(
    self, latent, statements, mask, patient, drop_text, beat, beat_found
  ):
    """Returns the tokens, what the beat at once says, and the condition.

    The last are (b, base_width) and (b, width), mean of the condition's tokens.
    """
    batch, length, channels = latent.shape
    if channels != self.latent_channels:
      raise ValueError(f"latent's {channels=} must be {self.latent_channels}")
    if length % self.latent_patch:
      raise ValueError(
        f"latent's {length=} must be divisible by {self.latent_patch=}"
      )
    self.param("logit_scale", nn.initializers.constant(math.log(1 / 0.07)), ())
    condition, mask, whole = self._condition(
      batch, statements, mask, patient, drop_text
    )
    x = layers.Dense(
      self.width,
      kernel_init=layers.torch_uniform,
      dtype=self.dtype,
      name="latent_embedding",
    )(latent.reshape(batch, length // self.latent_patch, -1))
    x = layers.rotate(x.astype(jnp.float32))
    reading = 0
    if self.median_beat:
      if beat is None:
        beat = jnp.zeros((batch, MEDIAN_SAMPLES, 12))
        beat_found = jnp.zeros((batch,))
      if beat.shape[1:] != (MEDIAN_SAMPLES, 12):
        raise ValueError(
          f"median_beat of shape {beat.shape} must be (b, {MEDIAN_SAMPLES}, 12)"
        )
      found = beat_found.astype(bool)
      beat = beat.astype(jnp.float32) / BEAT_SIZE
      if patient is not None:
        beat = beat_rate.at_60_bpm(beat, patient)
      x = jnp.concatenate([x, self._beat_tokens(beat, found)], axis=1)
      reading = self.beat_reading(
        beat.reshape(batch, -1), masked_mean(condition, mask)
      )
      reading = jnp.where(found[:, None], reading, 0)
    layer = nn.remat(ExtractorLayer) if self.remat else ExtractorLayer
    for i in range(self.depth):
      hidden = self.mlp_ratio * self.width
      x = layer(self.heads, hidden, self.dtype, name=f"layer_{i}")(
        x, condition, mask
      )
    return x, reading, whole

  def _beat_tokens(self, beat, found):
    """Returns the median beat as tokens (b, 20, width), or what is for none."""
    count = MEDIAN_SAMPLES // _BEAT_PATCH
    pieces = beat.reshape(beat.shape[0], count, -1)
    x = layers.Dense(
      self.width,
      kernel_init=layers.torch_uniform,
      dtype=self.dtype,
      name="beat_embedding",
    )(pieces).astype(jnp.float32)
    null = self.param("null_beat", nn.initializers.normal(1.0), (self.width,))
    place = self.param(
      "beat_positions", nn.initializers.normal(1.0), (count, self.width)
    )
    x = jnp.where(found[:, None, None], x, null[None, None])
    return x + place[None]

  def _condition(self, batch, statements, mask, patient, drop_text):
    """Returns the condition tokens (b, s, width), their mask, and their mean.

    The mean is that of before any text is dropped.
    """
    if statements is None:
      statements = jnp.zeros((batch, 1, self.text_width))
      mask, patient = None, jnp.zeros((batch, 3))
      drop_text = jnp.ones((batch,), bool)
    statements, mask = layers.whole_report(statements, mask, self.text_width)
    if self.null_condition:
      patient = layers.fill_missing(patient, self.null_patient)
    tokens = self.statement_tokens(statements, mask, patient)
    whole = masked_mean(tokens, mask)
    null_token = self.param(
      "null_token", nn.initializers.normal(1.0), (1, self.width)
    )
    if drop_text is not None:
      drop = drop_text[:, None]
      first = jnp.arange(mask.shape[1]) == 0
      tokens = jnp.where(drop[:, :, None], null_token[None], tokens)
      mask = jnp.where(drop, first[None], mask)
    return tokens, mask, whole

  def __call__(
    self,
    latent: Float[Array, "b l c"],
    statements: Float[Array, "b s e"] | None,
    mask: Bool[Array, "b s"] | None = None,
    patient: Float[Array, "b 3"] | None = None,
    drop_text: Bool[Array, " b"] | None = None,
    median_beat: Float[Array, "b t 12"] | None = None,
    median_beat_found: Real[Array, " b"] | None = None,
  ) -> Float[jax.Array, "b base"]:
    """Returns the base vector (b, base_width); arguments as of `tokens`."""
    return self.with_condition(
      latent,
      statements,
      mask,
      patient,
      drop_text,
      median_beat,
      median_beat_found,
    )[0]

  def with_condition(
    self,
    latent: Float[Array, "b l c"],
    statements: Float[Array, "b s e"] | None,
    mask: Bool[Array, "b s"] | None = None,
    patient: Float[Array, "b 3"] | None = None,
    drop_text: Bool[Array, " b"] | None = None,
    median_beat: Float[Array, "b t 12"] | None = None,
    median_beat_found: Real[Array, " b"] | None = None,
  ) -> tuple[Float[jax.Array, "b base"], Float[jax.Array, "b d"]]:
    """Returns base vector and condition, as `beat_under` takes them.

    The arguments are those of `tokens`.
    """
    tokens, reading, condition = self._read(
      latent,
      statements,
      mask,
      patient,
      drop_text,
      median_beat,
      median_beat_found,
    )
    if not self.identity_tokens:
      return tokens.mean(axis=1) + reading, condition
    base = self.resampler(tokens).reshape(tokens.shape[0], -1)
    return base + reading, condition

  def predict_beat(
    self,
    base: Float[Array, "b base"],
    statements: Float[Array, "b s e"],
    mask: Bool[Array, "b s"],
    patient: Float[Array, "b 3"],
  ) -> Float[jax.Array, "b 80 12"]:
    """Predicts the person's median beat in mV.

    Args:
      base: base vector of any of the person's recordings.
      statements: statements of the target condition, as are the next two.
      mask: True for statements, False for padding.
      patient: (heart rate, age, sex), normalised.
    """
    if self.null_condition:
      patient = layers.fill_missing(patient, self.null_patient)
    tokens = self.statement_tokens(statements, mask, patient)
    return self.beat_under(base, masked_mean(tokens, mask), patient)

  def beat_under(
    self,
    base: Float[Array, "b base"],
    condition: Float[Array, "b d"],
    patient: Float[Array, "b 3"],
  ) -> Float[jax.Array, "b 80 12"]:
    """`predict_beat` of a condition that `with_condition` gave."""
    beat = self.beat_head(base, condition) * BEAT_SIZE
    beat = beat.reshape(base.shape[0], MEDIAN_SAMPLES, 12)
    return beat_rate.from_60_bpm(beat, patient)
