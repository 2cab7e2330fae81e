"""A UNet on the latent, the denoiser's second backbone.

Kernels of the convolutions start as Xavier uniform, biases at zero.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ecgtwin_jax.models import layers
from ecgtwin_jax.models.beat_attention import BeatAttention
from ecgtwin_jax.models.injector import Condition, Injector
from ecgtwin_jax.models.layers import Array, MapsEdit


def _conv(features, dtype, name, strides=1):
  return nn.Conv(
    features,
    (3,),
    strides=strides,
    padding=((1, 1),),
    kernel_init=layers.xavier,
    dtype=dtype,
    name=name,
  )


class ConvolutionBlock(nn.Module):
  """Two convolutions of SiLU under the injector's condition.

  At the coarsest level (`attend`) self-attention takes the first one's place,
  so that every position hears from every other one.
  """

  injector: str
  heads: int
  attend: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b l d"],
    condition: Condition,
    edit: MapsEdit | None = None,
  ) -> tuple[Float[jax.Array, "b l d"], Float[Array, "b h l s"] | None]:
    def convolve(name):
      conv = _conv(x.shape[-1], self.dtype, name)
      return lambda h: conv(nn.silu(h))

    if self.attend:
      mix = layers.MultiheadAttention(
        self.heads, self.dtype, name="self_attention"
      )
    else:
      mix = convolve("conv_1")
    return Injector(self.injector, self.heads, self.dtype, name="injector")(
      x, mix, convolve("conv_2"), condition, edit
    )


class UNet(nn.Module):
  """Blocks at lengths l, l/2, l/4 and back, with skips between equal lengths.

  The width is the same at every level. Attention maps of level k are
  repeated 2^k times along the positions on their way out; given ones are read
  at every 2^k-th position. With `beat_attention`, positions of the full length
  attend to the same moment of other beats, on both ways.
  """

  injector: str
  heads: int
  levels: int = 3
  level_blocks: int = 2
  beat_attention: bool = False
  remat: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b l d"],
    condition: Condition,
    edit: Callable | None = None,
  ) -> tuple[Float[jax.Array, "b l d"], list]:
    """Returns the tokens and a list of maps, one per block.

    Raises:
      ValueError: The length cannot be halved once per level but the last.
    """
    length, factor = x.shape[1], 2 ** (self.levels - 1)
    if length % factor:
      raise ValueError(f"latent's {length=} must be divisible by {factor}")
    width, maps = x.shape[-1], []
    block = ConvolutionBlock
    if self.remat:
      block = nn.remat(ConvolutionBlock, static_argnums=(3,))

    def run(x, level, way):
      repeats = 2**level
      if self.beat_attention and level == 0:
        x = BeatAttention(self.heads, self.dtype, name=f"{way}_beats")(
          x, condition.track
        )

      def level_edit(own):
        full = jnp.repeat(own, repeats, axis=2)
        return edit(len(maps), full)[:, :, ::repeats]

      for i in range(self.level_blocks):
        x, used = block(
          self.injector,
          self.heads,
          level == self.levels - 1,
          self.dtype,
          name=f"{way}_{level}_block_{i}",
        )(x, condition, None if edit is None else level_edit)
        if used is not None:
          maps.append(jnp.repeat(used, repeats, axis=2))
      return x

    skips = []
    for level in range(self.levels - 1):
      x = run(x, level, "down")
      skips.append(x)
      x = _conv(width, self.dtype, f"down_{level}", 2)(x).astype(jnp.float32)
    x = run(x, self.levels - 1, "middle")
    for level in reversed(range(self.levels - 1)):
      x = layers.UpsampleConv(width, dtype=self.dtype, name=f"up_{level}")(x)
      merge = layers.Dense(
        width,
        kernel_init=layers.xavier,
        dtype=self.dtype,
        name=f"merge_{level}",
      )
      x = merge(jnp.concatenate([x, skips[level].astype(x.dtype)], axis=-1))
      x = run(x.astype(jnp.float32), level, "up")
    return x, maps
