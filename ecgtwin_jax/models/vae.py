"""The variational autoencoder: ECG (b, 1024, 12) <-> latent (b, 128, 4).

Channels last throughout. Kernels start as in PyTorch, U(+-1/sqrt(fan_in)),
biases at zero.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ecgtwin_jax.constants import FROM_INDEPENDENT, INDEPENDENT
from ecgtwin_jax.models.layers import (
  Array,
  MultiheadAttention,
  UpsampleConv,
  convolve,
  torch_uniform,
)

LOG_VARIANCE_RANGE = (-30.0, 20.0)


def _conv(features, width, dtype, name, strides=1, padding=None):
  return nn.Conv(
    features,
    (width,),
    strides=strides,
    padding=((width // 2, width // 2),) if padding is None else padding,
    kernel_init=torch_uniform,
    conv_general_dilated=convolve,
    dtype=dtype,
    name=name,
  )


class GroupNorm(nn.Module):
  """(x - mean) / sqrt(variance + 1e-5) of a group, times scale, plus bias.

  As `nn.GroupNorm`, but sums over positions come before those over the channels
  of a group: XLA on CPU does them in a third of the time.
  """

  groups: int

  @nn.compact
  def __call__(self, x: Float[Array, "b l c"]) -> Float[jax.Array, "b l c"]:
    channels = x.shape[-1]
    scale = self.param("scale", nn.initializers.ones_init(), (channels,))
    bias = self.param("bias", nn.initializers.zeros_init(), (channels,))
    x = x.astype(jnp.float32)

    def of_group(a):
      a = a.mean(axis=1).reshape(a.shape[0], self.groups, -1)
      mean = a.mean(axis=-1, keepdims=True)
      return jnp.broadcast_to(mean, a.shape).reshape(a.shape[0], channels)

    mean, square = of_group(x), of_group(x * x)
    variance = jnp.maximum(square - mean * mean, 0)
    factor = jax.lax.rsqrt(variance + 1e-5) * scale[None]
    shift = bias[None] - mean * factor
    return x * factor[:, None] + shift[:, None]


class ResBlock(nn.Module):
  """skip(x) + Conv3(SiLU(GroupNorm(Conv3(SiLU(GroupNorm(x))))))."""

  features: int
  groups: int = 32
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b l c"]) -> Float[jax.Array, "b l d"]:
    h = x
    for i in (1, 2):
      h = nn.silu(GroupNorm(self.groups, name=f"norm_{i}")(h))
      h = _conv(self.features, 3, self.dtype, f"conv_{i}")(h)
    if x.shape[-1] != self.features:
      x = _conv(self.features, 1, self.dtype, "skip")(x)
    return x + h


class AttentionBlock(nn.Module):
  """x + SelfAttention(x), one head, no norm.

  The published weights hold a GroupNorm here that is never applied.
  """

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b l c"]) -> Float[jax.Array, "b l c"]:
    return x + MultiheadAttention(1, dtype=self.dtype, name="attention")(x)


class Encoder(nn.Module):
  """Maps an ECG in mV to its latent's mean and log-variance, unscaled.

  `patch` samples side by side are the channels of one position. Each width is
  a level of `blocks` residual blocks and one stride-2 convolution, so three
  widths shorten the signal by 8 * patch. With `independent_leads` the network
  sees I, II and V1..V6 of twelve leads: the other four follow from I and II.

  Source: Lai et al., arXiv 2508.02720, the released autoencoder.
  """

  widths: tuple[int, ...] = (128, 256, 512)
  blocks: int = 2
  middle: int = 3
  groups: int = 32
  latent_channels: int = 4
  patch: int = 1
  independent_leads: bool = False
  remat: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, signal: Float[Array, "b t leads"]
  ) -> tuple[Float[jax.Array, "b l c"], Float[jax.Array, "b l c"]]:
    """Returns (mean, log-variance clipped to [-30, 20]), each (b, n/8, 4).

    Raises:
      ValueError: The length cannot be halved once per width, or there are not
        twelve leads to take the independent ones from.
    """
    length, factor = signal.shape[1], self.patch * 2 ** len(self.widths)
    if length % factor:
      raise ValueError(f"signal's {length=} must be divisible by {factor}")
    if self.independent_leads:
      if (leads := signal.shape[2]) != 12:
        raise ValueError(f"signal's {leads=} must be 12 (independent_leads)")
      signal = signal[..., INDEPENDENT]
    signal = signal.reshape(signal.shape[0], length // self.patch, -1)
    block = nn.remat(ResBlock) if self.remat else ResBlock

    def res(features, name):
      return block(features, self.groups, self.dtype, name=name)

    x = _conv(self.widths[0], 3, self.dtype, "conv_in")(signal)
    for level, width in enumerate(self.widths):
      for i in range(self.blocks):
        x = res(width, f"level_{level}_block_{i}")(x)
      # The published convolution pads on the right alone.
      x = _conv(width, 3, self.dtype, f"level_{level}_down", 2, ((0, 1),))(x)
    for i in range(self.middle):
      x = res(self.widths[-1], f"middle_block_{i}")(x)
    x = AttentionBlock(self.dtype, name="middle_attention")(x)
    x = res(self.widths[-1], "last_block")(x)
    x = nn.silu(GroupNorm(self.groups, name="norm_out")(x))
    moments = 2 * self.latent_channels
    x = _conv(moments, 3, self.dtype, "conv_out")(x)
    x = _conv(moments, 1, self.dtype, "moments")(x).astype(jnp.float32)
    mean, log_variance = jnp.split(x, 2, axis=-1)
    return mean, jnp.clip(log_variance, *LOG_VARIANCE_RANGE)


class Decoder(nn.Module):
  """Maps a scaled latent to the ECG in mV; the latent is divided by `scale`.

  The widths are the encoder's, walked in reverse; `scale` is one number, or
  one per channel. With `independent_leads` the network gives I, II and V1..V6,
  and Einthoven's and Goldberger's identities the others.

  Source: Lai et al., arXiv 2508.02720, the released autoencoder, which
  divides its argument in place; here it stays as it was.
  """

  widths: tuple[int, ...] = (128, 256, 512)
  blocks: int = 3
  middle: int = 4
  groups: int = 32
  latent_channels: int = 4
  leads: int = 12
  patch: int = 1
  independent_leads: bool = False
  scale: float | tuple[float, ...] = 0.18215
  remat: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, latent: Float[Array, "b l c"]
  ) -> Float[jax.Array, "b t leads"]:
    """Returns the ECG, patch * 2^len(widths) times as long as the latent.

    Raises:
      ValueError: The latent has another number of channels.
    """
    channels = latent.shape[-1]
    if channels != self.latent_channels:
      raise ValueError(f"latent's {channels=} must be {self.latent_channels}")
    block = nn.remat(ResBlock) if self.remat else ResBlock

    def res(features, name):
      return block(features, self.groups, self.dtype, name=name)

    scale = np.asarray(self.scale, np.float32).reshape(1, 1, -1)
    latent = latent / scale
    x = _conv(channels, 1, self.dtype, "unmoments")(latent)
    x = _conv(self.widths[-1], 3, self.dtype, "conv_in")(x)
    x = res(self.widths[-1], "first_block")(x)
    x = AttentionBlock(self.dtype, name="middle_attention")(x)
    for i in range(self.middle):
      x = res(self.widths[-1], f"middle_block_{i}")(x)
    for level in reversed(range(len(self.widths))):
      x = UpsampleConv(
        x.shape[-1], torch_uniform, self.dtype, name=f"level_{level}_up"
      )(x)
      for i in range(self.blocks):
        x = res(self.widths[level], f"level_{level}_block_{i}")(x)
    x = nn.silu(GroupNorm(self.groups, name="norm_out")(x))
    leads = len(INDEPENDENT) if self.independent_leads else self.leads
    x = _conv(leads * self.patch, 3, self.dtype, "conv_out")(x)
    x = x.astype(jnp.float32).reshape(x.shape[0], -1, leads)
    return x @ FROM_INDEPENDENT.T if self.independent_leads else x
