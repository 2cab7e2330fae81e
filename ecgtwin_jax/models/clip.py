"""The ECG-text CLIP, whose projections are the space of the evaluation."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ecgtwin_jax.constants import TEXT_WIDTH
from ecgtwin_jax.models.layers import Array, torch_uniform
from ecgtwin_jax.models.resnet1d import ResNet1d


class CLIP(nn.Module):
  """Two towers into one space: a 1-D ResNet + linear, and a two-layer MLP.

  `apply(variables, signal, text)` gives both projections, and the methods
  `hidden`, `encode_signal` and `encode_text` one part each. Projections are
  not normalised: their cosine is the CLIP score, and the Frechet distance is
  taken on them as they are. The learned temperature is the parameter
  `logit_scale`, for base_extractor.contrastive_logits.

  Source: the evaluation model of Lai et al., arXiv 2508.02720.
  """

  stages: tuple[int, ...] = (64, 128, 128, 256, 256, 512, 1024)
  blocks: tuple[int, ...] = (2, 2, 2, 3, 3, 4, 4)
  kernel: int = 16
  stride: int = 2
  group_width: int = 16
  dropout: float = 0.5
  projection: int = 64
  text_hidden: int = 2048
  text_width: int = TEXT_WIDTH
  dtype: Any = jnp.float32
  remat: bool = False

  def setup(self) -> None:
    def dense(features):
      return nn.Dense(features, kernel_init=torch_uniform, dtype=self.dtype)

    self.resnet = ResNet1d(
      self.stages,
      self.blocks,
      self.kernel,
      self.stride,
      self.group_width,
      self.dropout,
      self.dtype,
      self.remat,
    )
    self.signal_projection = dense(self.projection)
    self.text_linear_1 = dense(self.text_hidden)
    self.text_linear_2 = dense(self.projection)
    self.logit_scale = self.param(
      "logit_scale", nn.initializers.constant(math.log(1 / 0.07)), ()
    )

  def hidden(
    self, signal: Float[Array, "b t leads"], *, train: bool = False
  ) -> Float[jax.Array, "b hidden"]:
    """Returns the ResNet's pooled features (b, stages[-1])."""
    return self.resnet(signal, train=train)

  def encode_signal(
    self, signal: Float[Array, "b t leads"], *, train: bool = False
  ) -> Float[jax.Array, "b d"]:
    """Projects an ECG in mV, (b, projection) float32."""
    hidden = self.hidden(signal, train=train)
    return self.signal_projection(hidden).astype(jnp.float32)

  def encode_text(self, text: Float[Array, "b e"]) -> Float[jax.Array, "b d"]:
    """Projects the mean embedding of a report's statements, (b, projection).

    Raises:
      ValueError: The embedding has another width than `text_width`.
    """
    width = text.shape[-1]
    if width != self.text_width:
      raise ValueError(f"text's {width=} must be {self.text_width}")
    hidden = nn.relu(self.text_linear_1(text))
    return self.text_linear_2(hidden).astype(jnp.float32)

  def __call__(
    self,
    signal: Float[Array, "b t leads"],
    text: Float[Array, "b e"],
    *,
    train: bool = False,
  ) -> tuple[Float[jax.Array, "b d"], Float[jax.Array, "b d"]]:
    """Returns the projections of ECGs and of their reports."""
    return self.encode_signal(signal, train=train), self.encode_text(text)
