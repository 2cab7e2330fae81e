"""The 1-D ResNet that the ECG-text CLIP and the classifier share.

Pre-activation blocks of grouped convolutions with squeeze-and-excitation. All
convolutions are padded "same", the smaller half on the left. Kernels start as
in PyTorch, U(+-1/sqrt(fan_in)), biases at zero.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ecgtwin_jax.models.layers import Array, torch_uniform


def _conv(features, width, dtype, name, stride=1, groups=1):
  return nn.Conv(
    features,
    (width,),
    strides=stride,
    padding="SAME",
    feature_group_count=groups,
    kernel_init=torch_uniform,
    dtype=dtype,
    name=name,
  )


def _activate(x, train, name):
  """swish(batch norm(x)) in float32; running averages move by a tenth."""
  norm = nn.BatchNorm(
    use_running_average=not train,
    momentum=0.9,
    epsilon=1e-5,
    dtype=jnp.float32,
    name=name,
  )
  return nn.swish(norm(x))


class Block(nn.Module):
  """skip(x) + e * conv1(act(convk(act(conv1(act(x)))))), grouped in the middle.

  act is batch norm, swish and dropout; the very first block leaves out the
  first of them. e = sigmoid(W2 swish(W1 mean)) weighs each channel. Where the
  block is strided the skip is a max pool after zeros on the right; where it is
  wider, zero channels are added, the smaller half in front.
  """

  features: int
  kernel: int
  stride: int
  groups: int
  first: bool
  dropout: float
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b t c"], train: bool
  ) -> Float[jax.Array, "b shorter d"]:
    def activate(h, name):
      h = _activate(h, train, name)
      return nn.Dropout(self.dropout, deterministic=not train)(h)

    h = x if self.first else activate(x, "norm_1")
    h = _conv(self.features, 1, self.dtype, "conv_1")(h)
    h = activate(h, "norm_2")
    h = _conv(
      self.features, self.kernel, self.dtype, "conv_2", self.stride, self.groups
    )(h)
    h = activate(h, "norm_3")
    h = _conv(self.features, 1, self.dtype, "conv_3")(h)
    return self._skip(x) + self._excitation(h) * h

  def _excitation(self, h):
    def dense(features, name):
      return nn.Dense(
        features, kernel_init=torch_uniform, dtype=self.dtype, name=name
      )

    mean = h.mean(axis=1, dtype=jnp.float32)
    hidden = nn.swish(dense(self.features // 2, "squeeze")(mean))
    return nn.sigmoid(dense(self.features, "excite")(hidden))[:, None]

  def _skip(self, x):
    if self.stride > 1:
      zeros = self.stride - 1
      x = jnp.pad(x, ((0, 0), (zeros // 2, zeros - zeros // 2), (0, 0)))
      x = nn.max_pool(x, (self.stride,), strides=(self.stride,))
    more = self.features - x.shape[-1]
    return jnp.pad(x, ((0, 0), (0, 0), (more // 2, more - more // 2)))


class ResNet1d(nn.Module):
  """Maps an ECG in mV to one vector, the mean over positions of the last stage.

  The first convolution and the first block of each stage divide the length by
  `stride`. `train=True` needs the "dropout" rng and mutable "batch_stats";
  the running variance then follows the biased one of the batch.

  Attributes:
    stages: Width of each stage, never falling, multiples of `group_width`.
    blocks: Number of blocks of each stage.
    group_width: Channels per group of the blocks' middle convolution.

  Source: Hong et al. 2020 (resnet1d), as in Lai et al., arXiv 2508.02720.
  """

  stages: tuple[int, ...] = (64, 128, 128, 256, 256, 512, 1024)
  blocks: tuple[int, ...] = (2, 2, 2, 3, 3, 4, 4)
  kernel: int = 16
  stride: int = 2
  group_width: int = 16
  dropout: float = 0.5
  dtype: Any = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(
    self, signal: Float[Array, "b t leads"], *, train: bool = False
  ) -> Float[jax.Array, "b d"]:
    """Returns the pooled features (b, stages[-1]), float32.

    Raises:
      ValueError: Stages and blocks differ in number, or a width does not fit.
    """
    self._check()
    x = _conv(self.stages[0], self.kernel, self.dtype, "conv_in", self.stride)(
      signal
    )
    x = _activate(x, train, "norm_in")
    block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
    for i, (features, count) in enumerate(zip(self.stages, self.blocks)):
      for j in range(count):
        x = block(
          features,
          self.kernel,
          self.stride if j == 0 else 1,
          features // self.group_width,
          i == j == 0,
          self.dropout,
          self.dtype,
          name=f"stage_{i}_block_{j}",
        )(x, train)
    return x.mean(axis=1, dtype=jnp.float32)

  def _check(self):
    stages = tuple(self.stages)
    if len(stages) != len(self.blocks):
      raise ValueError(f"{stages=} and blocks={self.blocks} differ in length")
    if list(stages) != sorted(stages):
      raise ValueError(f"{stages=} must not fall: channels are only added")
    if any(width % self.group_width for width in stages):
      raise ValueError(f"{stages=} must be multiples of {self.group_width=}")
