"""How a condition enters the denoiser, shared by both of its backbones.

Three injectors: `adax` (adaptive norms say who and when, cross-attention
says what), `adaln` (adaptive norms alone) and `cross_attention` (who and when
are added to the tokens once, cross-attention says what).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Real

from ecgtwin_jax.models import layers
from ecgtwin_jax.models.layers import Array, MapsEdit


class Kind(NamedTuple):
  """What an injector does.

  Attributes:
    adaptive: Whether norms are adaptive, by c; else affine, and c is added to
      the tokens once.
    attends: Whether the statements are read by attention; else they are in c.
    positions: Whether a statement's place in its report counts.
    last_norm: Whether there is one before the output, which then starts at
      zero.
  """

  adaptive: bool
  attends: bool
  positions: bool
  last_norm: bool


INJECTORS = {
  "adax": Kind(adaptive=True, attends=True, positions=True, last_norm=False),
  "adaln": Kind(adaptive=True, attends=False, positions=False, last_norm=True),
  "cross_attention": Kind(
    adaptive=False, attends=True, positions=False, last_norm=True
  ),
}


class Condition(NamedTuple):
  """A condition as the blocks of a backbone take it.

  Attributes:
    c: (b, d) of the adaptive norms.
    tokens: (b, s, d), one per statement; None: no attention over statements.
    mask: (b, s), True for statements.
    track: (b, l, f) beat track; None: not given.
  """

  c: jax.Array
  tokens: jax.Array | None
  mask: Array
  track: Array | None = None


def modulate(
  x: Float[Array, "b l d"],
  shift: Float[Array, "b 1 d"],
  scale: Float[Array, "b 1 d"],
) -> Float[jax.Array, "b l d"]:
  """Computes x * (1 + scale) + shift."""
  return x * (1 + scale) + shift


class Modulation(nn.Module):
  """Linear(SiLU(c)) in `count` parts (b, 1, width), zero at the start."""

  width: int
  count: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, c: Float[Array, "b d"]) -> list[jax.Array]:
    parts = layers.Dense(
      self.count * self.width,
      kernel_init=layers.zeros,
      dtype=self.dtype,
      name="linear",
    )(nn.silu(c))
    parts = parts.astype(jnp.float32)[:, None]
    return jnp.split(parts, self.count, axis=-1)


class PatientEmbedding(nn.Module):
  """Sums MLP((p_i * norm_i + bias_i) * table_i) over the three numbers p.

  Only `adaln` has it: the others carry the patient in their tokens. The table
  starts as N(0, 1), norm at one and bias at zero.
  """

  width: int
  hidden: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, patient: Float[Array, "b 3"]) -> Float[jax.Array, "b d"]:
    norm = self.param("norm", nn.initializers.ones, (3,))
    bias = self.param("bias", layers.zeros, (3,))
    table = self.param("table", nn.initializers.normal(1.0), (3, self.width))
    numbers = patient * norm[None] + bias[None]
    mlp = layers.MLP(self.hidden, nn.silu, dtype=self.dtype, name="mlp")
    return mlp(numbers[:, :, None] * table[None]).sum(axis=1)


class ConditionEmbedding(nn.Module):
  """Embeds time, base vector, report and patient into (c, tokens).

  c (b, width) = MLP(sinusoid(t)) + Linear(base), for `adaln` + Linear(mean
  statement) + patient; tokens (b, s, width), one per statement, are None for
  `adaln`. A report without a valid statement adds nothing to either.
  """

  injector: str
  width: int
  hidden: int
  positions: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    t: Real[Array, " b"],
    statements: Float[Array, "b s e"],
    mask: Bool[Array, "b s"],
    patient: Float[Array, "b 3"],
    base: Float[Array, "b base"],
  ) -> tuple[Float[jax.Array, "b d"], Float[jax.Array, "b s d"] | None]:
    time_mlp = layers.MLP(
      self.width,
      nn.silu,
      nn.initializers.normal(0.02),
      self.dtype,
      name="time_mlp",
    )
    c = time_mlp(layers.sinusoid(t, self.width)).astype(jnp.float32)
    c += self._dense("base_projection")(base)
    kind = INJECTORS[self.injector]
    if not kind.attends:
      valid = mask[:, :, None]
      total = jnp.where(valid, statements, 0).sum(axis=1)
      count = valid.sum(axis=1)
      text = self._dense("text_projection")(total / jnp.maximum(count, 1))
      c += jnp.where(count > 0, text, 0)
      return c + PatientEmbedding(
        self.width, self.hidden, self.dtype, name="patient_embedding"
      )(patient), None
    tokens = layers.StatementTokens(
      self.width, dtype=self.dtype, name="statement_tokens"
    )(statements, mask, patient)
    if kind.positions:
      tokens += self._positions(tokens.shape[1])[None]
    return c, tokens

  def _dense(self, name):
    return layers.Dense(
      self.width, kernel_init=layers.xavier, dtype=self.dtype, name=name
    )

  def _positions(self, rows):
    if rows > self.positions:
      raise ValueError(
        f"a report of {rows} rows must have at most {self.positions=}"
      )

    def start(key, shape):
      del key
      return layers.sinusoid(jnp.arange(shape[0]), shape[1])

    table = self.param("positions", start, (self.positions, self.width))
    return table[:rows]


class Injector(nn.Module):
  """Runs a block's two sub-layers under the condition.

  adax:            x += gate1 * mix(LN x * (1 + scale1) + shift1)
                   x += CrossAttn(LN x, LN tokens)
                   x += gate2 * feed(LN x * (1 + scale2) + shift2)
  adaln:           the same without the second line
  cross_attention: x += mix(LN x); x += CrossAttn(LN x, LN tokens);
                   x += feed(LN x), with affine norms

  What `mix` (over positions) and `feed` are is the backbone's choice:
  attention and an MLP, or convolutions.

  Source: Lai et al., arXiv 2508.02720, the AdaX condition injector.
  """

  injector: str
  heads: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b l d"],
    mix: Callable,
    feed: Callable,
    condition: Condition,
    edit: MapsEdit | None = None,
  ) -> tuple[Float[jax.Array, "b l d"], Float[Array, "b h l s"] | None]:
    """Returns the block's output and the attention maps used, if any."""
    adaptive = INJECTORS[self.injector].adaptive
    width = x.shape[-1]

    def norm(a, name):
      return nn.LayerNorm(
        epsilon=1e-6,
        use_scale=not adaptive,
        use_bias=not adaptive,
        dtype=jnp.float32,
        name=name,
      )(a)

    if adaptive:
      shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = Modulation(
        width, 6, self.dtype, name="modulation"
      )(condition.c)
      h = modulate(norm(x, "norm_1"), shift_1, scale_1)
      x += gate_1 * mix(h)
    else:
      x += mix(norm(x, "norm_1"))
    maps = None
    if condition.tokens is not None:
      h, maps = layers.CrossAttention(
        self.heads, self.dtype, name="cross_attention"
      )(
        norm(x, "norm_2"),
        norm(condition.tokens, "condition_norm"),
        condition.mask,
        edit,
      )
      x += h
    if adaptive:
      h = modulate(norm(x, "norm_3"), shift_2, scale_2)
      return x + gate_2 * feed(h), maps
    return x + feed(norm(x, "norm_3")), maps
