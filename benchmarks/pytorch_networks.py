"""Autoencoder, base extractor and CLIP in plain PyTorch (see pytorch_peer).

Signals are (b, 1024, 12) with aVF before aVL; latents of the autoencoder are
(b, 4, 128), of the extractor (b, 128, 4).
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.pytorch_denoiser import attend, rotate

LATENT_SCALE = 0.18215


class ResBlock(nn.Module):
  def __init__(self, width, features):
    super().__init__()
    self.groupnorm_1 = nn.GroupNorm(32, width)
    self.conv_1 = nn.Conv1d(width, features, 3, padding=1)
    self.groupnorm_2 = nn.GroupNorm(32, features)
    self.conv_2 = nn.Conv1d(features, features, 3, padding=1)
    self.residual_layer = nn.Identity()
    if width != features:
      self.residual_layer = nn.Conv1d(width, features, 1)

  def forward(self, x):
    h = self.conv_1(F.silu(self.groupnorm_1(x)))
    h = self.conv_2(F.silu(self.groupnorm_2(h)))
    return self.residual_layer(x) + h


class SelfAttention(nn.Module):
  def __init__(self, width):
    super().__init__()
    self.in_proj = nn.Linear(width, 3 * width)
    self.out_proj = nn.Linear(width, width)

  def forward(self, x):
    q, k, v = self.in_proj(x)[:, None].chunk(3, dim=-1)
    return self.out_proj(F.scaled_dot_product_attention(q, k, v)[:, 0])


class AttentionBlock(nn.Module):
  """Its norm stands in released files and is not applied."""

  def __init__(self, width):
    super().__init__()
    self.groupnorm = nn.GroupNorm(32, width)
    self.attention = SelfAttention(width)

  def forward(self, x):
    return x + self.attention(x.transpose(1, 2)).transpose(1, 2)


class Halve(nn.Conv1d):
  """Stride-2 convolution, padded on the right alone."""

  def __init__(self, width):
    super().__init__(width, width, 3, stride=2)

  def forward(self, x):
    return super().forward(F.pad(x, (0, 1)))


class Encoder(nn.Sequential):
  def __init__(self):
    super().__init__(
      nn.Conv1d(12, 128, 3, padding=1),
      ResBlock(128, 128),
      ResBlock(128, 128),
      Halve(128),
      ResBlock(128, 256),
      ResBlock(256, 256),
      Halve(256),
      ResBlock(256, 512),
      ResBlock(512, 512),
      Halve(512),
      *(ResBlock(512, 512) for _ in range(3)),
      AttentionBlock(512),
      ResBlock(512, 512),
      nn.GroupNorm(32, 512),
      nn.SiLU(),
      nn.Conv1d(512, 8, 3, padding=1),
      nn.Conv1d(8, 8, 1),
    )

  def forward(self, signal):
    """Mean and log-variance, unscaled."""
    mean, log_variance = super().forward(signal.transpose(1, 2)).chunk(2, dim=1)
    return mean, log_variance.clamp(-30, 20)


class Decoder(nn.Sequential):
  def __init__(self):
    def up(width):
      return nn.Upsample(scale_factor=2), nn.Conv1d(width, width, 3, padding=1)

    super().__init__(
      nn.Conv1d(4, 4, 1),
      nn.Conv1d(4, 512, 3, padding=1),
      ResBlock(512, 512),
      AttentionBlock(512),
      *(ResBlock(512, 512) for _ in range(4)),
      *up(512),
      *(ResBlock(512, 512) for _ in range(3)),
      *up(512),
      ResBlock(512, 256),
      ResBlock(256, 256),
      ResBlock(256, 256),
      *up(256),
      ResBlock(256, 128),
      ResBlock(128, 128),
      ResBlock(128, 128),
      nn.GroupNorm(32, 128),
      nn.SiLU(),
      nn.Conv1d(128, 12, 3, padding=1),
    )

  def forward(self, latent):
    return super().forward(latent / LATENT_SCALE).transpose(1, 2)


class FeedForward(nn.Module):
  def __init__(self, width):
    super().__init__()
    self.fc1 = nn.Linear(width, 4 * width)
    self.fc2 = nn.Linear(4 * width, width)

  def forward(self, x):
    return self.fc2(F.relu(self.fc1(x)))


class ExtractorLayer(nn.Module):
  def __init__(self, width, heads):
    super().__init__()
    self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
    self.cross_attn = nn.MultiheadAttention(width, heads, batch_first=True)
    self.feed_forward = FeedForward(width)
    self.condition_norm = nn.LayerNorm(width)
    self.layer_norm1 = nn.LayerNorm(width)
    self.layer_norm2 = nn.LayerNorm(width)
    self.layer_norm3 = nn.LayerNorm(width)

  def forward(self, x, condition, mask):
    x = x + attend(self.self_attn, self.layer_norm1(x))
    condition = self.condition_norm(condition)
    x = x - F.relu(
      attend(self.cross_attn, self.layer_norm2(x), condition, mask)
    )
    return x + self.feed_forward(self.layer_norm3(x))


class BaseExtractor(nn.Module):
  def __init__(self, width=256, depth=3, heads=8):
    super().__init__()
    self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    self.classfree_emb = nn.Parameter(torch.randn(1, width))
    self.signal_embedding = nn.Linear(4, width)
    self.text_projector = nn.Linear(768 + 3, width)
    self.layers = nn.ModuleList(
      ExtractorLayer(width, heads) for _ in range(depth)
    )

  def tokens(self, latent, text=None, mask=None, patient=None):
    if text is None:
      condition = self.classfree_emb.expand(len(latent), 1, -1)
    else:
      patient = patient[:, None].expand(-1, text.shape[1], -1)
      condition = self.text_projector(torch.cat([text, patient], dim=-1))
    x = rotate(self.signal_embedding(latent))
    for layer in self.layers:
      x = layer(x, condition, mask)
    return x

  def forward(self, latent, text=None, mask=None, patient=None):
    return self.tokens(latent, text, mask, patient).mean(dim=1)


class SameConv(nn.Module):
  """Convolution padded to ceil(length / stride), less on the left."""

  def __init__(self, width, features, kernel=1, stride=1, groups=1):
    super().__init__()
    self.conv = nn.Conv1d(width, features, kernel, stride, groups=groups)

  def forward(self, x):
    kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
    length = x.shape[-1]
    total = max(0, (-(-length // stride) - 1) * stride + kernel - length)
    return self.conv(F.pad(x, (total // 2, total - total // 2)))


class ResNetBlock(nn.Module):
  def __init__(self, width, features, stride, first):
    super().__init__()
    self.stride, self.first = stride, first
    self.bn1 = nn.BatchNorm1d(width)
    self.conv1 = SameConv(width, features)
    self.bn2 = nn.BatchNorm1d(features)
    self.conv2 = SameConv(features, features, 16, stride, features // 16)
    self.bn3 = nn.BatchNorm1d(features)
    self.conv3 = SameConv(features, features)
    self.se_fc1 = nn.Linear(features, features // 2)
    self.se_fc2 = nn.Linear(features // 2, features)
    self.dropout = nn.Dropout(0.5)

  def forward(self, x):
    h = x if self.first else self.dropout(F.silu(self.bn1(x)))
    h = self.conv1(h)
    h = self.conv2(self.dropout(F.silu(self.bn2(h))))
    h = self.conv3(self.dropout(F.silu(self.bn3(h))))
    factor = self.se_fc2(F.silu(self.se_fc1(h.mean(dim=-1)))).sigmoid()
    if self.stride > 1:
      x = F.max_pool1d(F.pad(x, (0, 1)), 2)
    more = h.shape[1] - x.shape[1]
    x = F.pad(x, (0, 0, more // 2, more - more // 2))
    return x + factor[..., None] * h


class Stage(nn.Module):
  def __init__(self, width, features, count, first):
    super().__init__()
    self.block_list = nn.ModuleList(
      ResNetBlock(
        width if i == 0 else features,
        features,
        2 if i == 0 else 1,
        first and i == 0,
      )
      for i in range(count)
    )


class ResNet1d(nn.Module):
  def __init__(self, stages, blocks):
    super().__init__()
    self.first_conv = SameConv(12, stages[0], 16, 2)
    self.first_bn = nn.BatchNorm1d(stages[0])
    widths = (stages[0], *stages)
    self.stage_list = nn.ModuleList(
      Stage(widths[i], stages[i], count, i == 0)
      for i, count in enumerate(blocks)
    )

  def forward(self, signal):
    x = F.silu(self.first_bn(self.first_conv(signal.transpose(1, 2))))
    for stage in self.stage_list:
      for block in stage.block_list:
        x = block(x)
    return x.mean(dim=-1)


class TextProjector(nn.Module):
  def __init__(self):
    super().__init__()
    self.linear_1 = nn.Linear(768, 2048)
    self.linear_2 = nn.Linear(2048, 64)

  def forward(self, text):
    return self.linear_2(F.relu(self.linear_1(text)))


class CLIP(nn.Module):
  def __init__(
    self,
    stages=(64, 128, 128, 256, 256, 512, 1024),
    blocks=(2, 2, 2, 3, 3, 4, 4),
  ):
    super().__init__()
    self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    self.resnet = ResNet1d(stages, blocks)
    self.ecg_projector = nn.Linear(stages[-1], 64)
    self.text_projector = TextProjector()

  def forward(self, signal, text):
    """Projections of ECGs and of mean statement embeddings."""
    return self.ecg_projector(self.resnet(signal)), self.text_projector(text)
