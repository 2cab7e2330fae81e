"""Stage 2: the denoiser, which predicts the noise in a latent.

Kernels start as Xavier uniform, biases at zero, the time MLP as N(0, 0.02),
modulations at zero; the last linear at zero too, except for `adax`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Real

from ecgtwin_jax.constants import TEXT_WIDTH
from ecgtwin_jax.models import layers
from ecgtwin_jax.models.beat_sketch import ForetoldBeat, lay_beats
from ecgtwin_jax.models.beat_track import BEAT_TRACKS
from ecgtwin_jax.models.injector import (
  INJECTORS,
  Condition,
  ConditionEmbedding,
  Injector,
  Modulation,
  modulate,
)
from ecgtwin_jax.models.layers import Array, MapsEdit
from ecgtwin_jax.models.unet import UNet

BACKBONES = ("dit", "unet")
Noise = Float[jax.Array, "b l c"]


class DenoiserInputs(NamedTuple):
  """What a denoiser is given besides a noisy latent and its time.

  The fields are arguments of `Denoiser.__call__`:
  `model.apply(variables, latent, t, **inputs._asdict())`.

  Attributes:
    statements: (b, s, e) embedded statements.
    mask: (b, s), True for statements, False for padding.
    patient: (b, 3) standardised heart rate, age, sex.
    base: (b, k) base vectors.
    track: (b, l, f) beat track; None: not given.
  """

  statements: Array
  mask: Array | None
  patient: Array
  base: Array
  track: Array | None = None


class TransformerBlock(nn.Module):
  """Self-attention and a tanh-GELU MLP under the injector's condition."""

  injector: str
  heads: int
  hidden: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b l d"],
    condition: Condition,
    edit: MapsEdit | None = None,
  ) -> tuple[Float[jax.Array, "b l d"], Float[Array, "b h l s"] | None]:
    mix = layers.MultiheadAttention(
      self.heads, self.dtype, name="self_attention"
    )
    feed = layers.MLP(self.hidden, nn.gelu, dtype=self.dtype, name="mlp")
    return Injector(self.injector, self.heads, self.dtype, name="injector")(
      x, mix, feed, condition, edit
    )


class Denoiser(nn.Module):
  """Predicts the noise of a noisy latent at time t under a condition.

  `apply(variables, latent, t, statements, mask, patient, base)` gives the
  noise. What pads a report (NaN too) changes nothing and has no gradient; a
  report without a valid statement adds exactly nothing.

  With `null_condition`, NaN entries of the patient vector are replaced by
  the learned `null_patient`, and `drop_statements` replaces a row's report by
  the one learned statement `null_statement`; without it NaN must not occur.

  Attributes:
    injector: adax, adaln or cross_attention.
    backbone: dit (transformer of `depth` blocks) or unet (`levels` lengths,
      each half of the one before, `level_blocks` blocks per level and way).
    positions: The longest report, in statements (adax alone).
    beat_track: Which track is added to the latent's embedding: none, timing or
      kinds.
    beat_attention: Whether the positions of a unet's full length also look for
      the same moment of other beats, by the track.
    beat_sketch: Width of the statements' tokens by which the person's usual
      beat is foretold, to be laid at the R peaks of the track; 0: it is not.
    beat_gates: Blocks of what foretells it in which the condition is a factor.
    remat: Keep less for the gradient and compute it again; dit keeps what its
      products give.

  Source: Lai et al., arXiv 2508.02720, the released second stage.
  """

  injector: str = "adax"
  backbone: str = "dit"
  width: int = 256
  depth: int = 7
  heads: int = 8
  mlp_ratio: int = 4
  levels: int = 3
  level_blocks: int = 2
  latent_channels: int = 4
  text_width: int = TEXT_WIDTH
  base_width: int = 256
  positions: int = 25
  null_condition: bool = False
  beat_track: str = "none"
  beat_attention: bool = False
  beat_sketch: int = 0
  beat_gates: int = 0
  remat: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    latent: Float[Array, "b l c"],
    t: Real[Array, " b"],
    statements: Float[Array, "b s e"],
    mask: Bool[Array, "b s"] | None,
    patient: Float[Array, "b 3"],
    base: Float[Array, "b base"],
    track: Float[Array, "b l f"] | None = None,
    *,
    return_attention: bool | str = False,
    attention: Float[Array, "blocks b h l rows"] | Callable | None = None,
    drop_statements: Bool[Array, " b"] | None = None,
  ) -> Noise | tuple[Noise, Float[jax.Array, "..."]]:
    """Returns the noise (b, l, c), with attention maps where asked for.

    Args:
      latent: Noisy, scaled latents.
      t: Diffusion time, 0 .. 999.
      statements: Embedded statements.
      mask: True for statements, False for padding; None means all are.
      patient: (heart rate, age, sex), normalised.
      base: Base vectors of the reference recordings.
      track: Beat tracks, see models/beat_track.py; all zeros: none is known,
        which is what None stands for, too.
      return_attention: True adds the maps used, mean over heads, (blocks, b,
        l, s); "heads" adds them per head, (blocks, b, heads, l, s). In the
        UNet a block of a coarser level repeats its rows to full length.
      attention: Maps to use instead of the own ones, shaped as for "heads",
        unmasked and not renormalised; or a function (block number, own maps
        (b, heads, l, s)) -> maps to use, where those depend on the own.
      drop_statements: True replaces that row's report by the null statement.

    Raises:
      ValueError: An unknown injector or backbone, a width that is not the
        module's, a report longer than `positions`, attention of `adaln`,
        a track that the module does not take, or
        `drop_statements` without `null_condition`.
    """
    self._check(latent, base, track, return_attention, attention)
    statements, mask = layers.whole_report(statements, mask, self.text_width)
    statements, mask, patient = self._fill_null(
      statements, mask, patient, drop_statements
    )
    hidden = self.mlp_ratio * self.width
    c, tokens = ConditionEmbedding(
      self.injector,
      self.width,
      hidden,
      self.positions,
      self.dtype,
      name="condition",
    )(t, statements, mask, patient, base)
    x = layers.Dense(
      self.width,
      kernel_init=layers.xavier,
      dtype=self.dtype,
      name="latent_embedding",
    )(latent)
    if track is not None:
      x += layers.Dense(
        self.width,
        use_bias=False,
        kernel_init=layers.xavier,
        dtype=self.dtype,
        name="track_embedding",
      )(track)
      if self.beat_sketch:
        beat = ForetoldBeat(
          self.beat_sketch, gates=self.beat_gates, name="foretold_beat"
        )(base, statements, mask, patient)
        h = layers.Dense(
          2 * self.width,
          kernel_init=layers.xavier,
          dtype=self.dtype,
          name="sketch_1",
        )(lay_beats(beat, track))
        x += layers.Dense(
          self.width,
          kernel_init=layers.zeros,
          dtype=self.dtype,
          name="sketch_2",
        )(nn.gelu(h))
    # The residual stream is float32, whatever the type of the products.
    x = layers.rotate(x.astype(jnp.float32))
    if not INJECTORS[self.injector].adaptive:
      x += c[:, None]
    given = attention is not None and not callable(attention)
    edit = (lambda i, own: attention[i]) if given else attention
    plain = attention is None and not return_attention
    condition = Condition(c, tokens, mask, track)
    x, maps = self._trunk(hidden, plain)(x, condition, edit)
    if given and len(attention) != len(maps):
      raise ValueError(
        f"given maps of {len(attention)=} blocks must be of {len(maps)}"
      )
    noise = self._output(x, c).astype(jnp.float32)
    if not return_attention:
      return noise
    maps = jnp.stack(maps)
    return noise, maps if return_attention == "heads" else maps.mean(axis=2)

  def _check(self, latent, base, track, return_attention, attention):
    if self.injector not in INJECTORS:
      raise ValueError(
        f"injector={self.injector!r} must be in {tuple(INJECTORS)}"
      )
    attends = INJECTORS[self.injector].attends
    if self.backbone not in BACKBONES:
      raise ValueError(f"backbone={self.backbone!r} must be in {BACKBONES}")
    if not attends and (return_attention or attention is not None):
      raise ValueError(
        f"injector={self.injector!r} has no attention over statements"
      )
    if return_attention not in (False, True, "heads"):
      raise ValueError(f"{return_attention=} must be False, True or 'heads'")
    if self.beat_track not in BEAT_TRACKS:
      raise ValueError(
        f"beat_track={self.beat_track!r} must be in {tuple(BEAT_TRACKS)}"
      )
    if self.beat_attention and (
      self.backbone != "unet" or self.beat_track != "kinds"
    ):
      raise ValueError(
        "beat_attention needs backbone='unet' and beat_track='kinds', not "
        f"{self.backbone!r} and {self.beat_track!r}"
      )
    if self.beat_sketch and self.beat_track == "none":
      raise ValueError(
        f"beat_sketch={self.beat_sketch} must be 0 where beat_track='none'"
      )
    if track is not None and track.shape[-1] != BEAT_TRACKS[self.beat_track]:
      raise ValueError(
        f"track of {track.shape[-1]} channels must have "
        f"{BEAT_TRACKS[self.beat_track]}: beat_track={self.beat_track!r}"
      )
    channels, width = latent.shape[-1], base.shape[-1]
    if channels != self.latent_channels:
      raise ValueError(f"latent's {channels=} must be {self.latent_channels}")
    if width != self.base_width:
      raise ValueError(f"base vector's {width=} must be {self.base_width}")

  def _fill_null(self, statements, mask, patient, drop_statements):
    if not self.null_condition:
      if drop_statements is not None:
        raise ValueError("drop_statements needs null_condition=True")
      return statements, mask, patient
    null_patient = self.param("null_patient", layers.zeros, (3,))
    # Statements have unit norm, and so has this one at the start.
    unit = nn.initializers.normal(self.text_width**-0.5)
    null_statement = self.param("null_statement", unit, (self.text_width,))
    patient = layers.fill_missing(patient, null_patient)
    if drop_statements is not None:
      first = jnp.arange(mask.shape[1]) == 0
      drop = drop_statements[:, None]
      statements = jnp.where(
        drop[:, :, None], null_statement[None, None], statements
      )
      mask = jnp.where(drop, first[None], mask)
    return statements, mask, patient

  def _trunk(self, hidden, plain):
    """Returns the backbone, (x, condition, edit) -> x, maps.

    Where `plain`, nobody asks for maps.
    """
    if self.backbone == "unet":
      return UNet(
        self.injector,
        self.heads,
        self.levels,
        self.level_blocks,
        self.beat_attention,
        self.remat,
        self.dtype,
        name="unet",
      )
    block = functools.partial(
      TransformerBlock, self.injector, self.heads, hidden, self.dtype
    )
    names = [f"block_{i}" for i in range(self.depth)]

    def run(x, condition, edit):
      maps = []
      for i, name in enumerate(names):
        block_edit = edit and functools.partial(edit, i)
        x, used = block(name=name)(x, condition, block_edit)
        maps.append(used)
      return x, maps

    def run_sparing(x, condition, edit):
      """Keeps of each block what its products give, for the gradient."""
      own = block(parent=None)

      @functools.partial(
        jax.checkpoint,
        policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
      )
      def one(x, params):
        return own.apply({"params": params}, x, condition)[0], None

      # A loop: what one program computes twice XLA on CPU computes once, and
      # keeps.
      every = (self.variables["params"][name] for name in names)
      stacked = jax.tree.map(lambda *each: jnp.stack(each), *every)
      return jax.lax.scan(one, x, stacked)

    sparing = self.remat and plain and not self.is_initializing()
    return run_sparing if sparing else run

  def _output(self, x, c):
    kind = INJECTORS[self.injector]
    if kind.last_norm and kind.adaptive:
      shift, scale = Modulation(
        self.width, 2, self.dtype, name="output_modulation"
      )(c)
      norm = nn.LayerNorm(
        epsilon=1e-6, use_scale=False, use_bias=False, name="output_norm"
      )
      x = modulate(norm(x), shift, scale)
    elif kind.last_norm:
      x = nn.LayerNorm(epsilon=1e-5, name="output_norm")(x)
    return layers.Dense(
      self.latent_channels,
      kernel_init=layers.zeros if kind.last_norm else layers.xavier,
      dtype=self.dtype,
      name="output",
    )(x)
