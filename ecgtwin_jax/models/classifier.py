"""A classifier of ECGs: the 1-D ResNet and a linear layer."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ecgtwin_jax.models.layers import Array, torch_uniform
from ecgtwin_jax.models.resnet1d import ResNet1d


class Classifier(nn.Module):
  """logits = W ResNet(ECG) + b, one per class or per finding.

  Attributes:
    outputs: number of logits.
    stages: sizes of the network, as `ResNet1d` has them, like all but the
      outputs.

  Source: Lai et al., arXiv 2508.02720 (personalised auto-diagnosis).
  """

  outputs: int
  stages: tuple[int, ...] = (64, 128, 256, 512)
  blocks: tuple[int, ...] = (2, 2, 2, 3)
  kernel: int = 16
  stride: int = 2
  group_width: int = 16
  dropout: float = 0.5
  dtype: Any = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(
    self, signal: Float[Array, "b t leads"], *, train: bool = False
  ) -> Float[jax.Array, "b outputs"]:
    """Returns the logits of ECGs in mV, float32."""
    features = ResNet1d(
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
    dense = nn.Dense(
      self.outputs, kernel_init=torch_uniform, dtype=self.dtype, name="head"
    )
    return dense(features).astype(jnp.float32)
