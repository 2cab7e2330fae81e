"""The identity encoder: whose ECG is this, asked by the evaluation."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ecgtwin_jax.models.layers import Array, torch_uniform
from ecgtwin_jax.models.resnet1d import ResNet1d


class IdentityEncoder(nn.Module):
  """z = W f(x) / |W f(x)|, f a 1-D ResNet of the ECG in mV.

  Recordings of one patient lie close, whatever their conditions. It shares
  nothing with the generator: no autoencoder, no text, no patients.
  """

  stages: tuple[int, ...] = (64, 128, 128, 256, 256, 512)
  blocks: tuple[int, ...] = (2, 2, 2, 2, 2, 2)
  kernel: int = 16
  stride: int = 2
  group_width: int = 16
  dropout: float = 0.1
  width: int = 128
  dtype: Any = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(
    self, signal: Float[Array, "b t leads"], *, train: bool = False
  ) -> Float[jax.Array, "b d"]:
    """Returns embeddings of unit length, (b, width) float32."""
    hidden = ResNet1d(
      self.stages,
      self.blocks,
      self.kernel,
      self.stride,
      self.group_width,
      self.dropout,
      self.dtype,
      self.remat,
      name="resnet",
    )(signal, train=train)
    z = nn.Dense(
      self.width,
      kernel_init=torch_uniform,
      dtype=self.dtype,
      name="projection",
    )(hidden).astype(jnp.float32)
    return z * jax.lax.rsqrt(jnp.sum(z * z, axis=-1, keepdims=True) + 1e-12)
