"""The denoisers in plain PyTorch (see pytorch_peer); latents (b, 4, 128)."""

import torch
import torch.nn.functional as F
from torch import nn


def sinusoid(position, width):
  half = width // 2
  steps = torch.arange(half, device=position.device)
  angle = position[:, None].float() * 10000.0 ** (-steps / half)
  return torch.cat([angle.cos(), angle.sin()], dim=-1)


def rotate(x):
  """Rotates the tokens (b, l, d) by their position, over the whole width."""
  table = sinusoid(torch.arange(x.shape[1], device=x.device), x.shape[2])
  cos, sin = table.chunk(2, dim=-1)
  first, second = x.chunk(2, dim=-1)
  return torch.cat(
    [first * cos - second * sin, second * cos + first * sin], dim=-1
  )


def attend(attention, x, context=None, mask=None):
  context = x if context is None else context
  padding = None if mask is None else ~mask
  return attention(
    x, context, context, key_padding_mask=padding, need_weights=False
  )[0]


class CrossAttention(nn.Module):
  def __init__(self, width, heads):
    super().__init__()
    self.heads = heads
    self.q_proj = nn.Linear(width, width)
    self.kv_proj = nn.Linear(width, 2 * width)
    self.out_proj = nn.Linear(width, width)
    self.q_norm = nn.LayerNorm(width)
    self.k_norm = nn.LayerNorm(width)
    self.v_norm = nn.LayerNorm(width)

  def forward(self, x, tokens, mask):
    k, v = self.kv_proj(tokens).chunk(2, dim=-1)
    q, k, v = (
      a.unflatten(-1, (self.heads, -1)).transpose(1, 2)
      for a in (self.q_norm(self.q_proj(x)), self.k_norm(k), self.v_norm(v))
    )
    mask = None if mask is None else mask[:, None, None]
    x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return self.out_proj(x.transpose(1, 2).flatten(2))


def mlp(width, hidden, activation, out=None):
  return nn.Sequential(
    nn.Linear(width, hidden), activation, nn.Linear(hidden, out or width)
  )


def modulation(width, count):
  return nn.Sequential(nn.SiLU(), nn.Linear(width, count * width))


def modulate(x, shift, scale):
  x = F.layer_norm(x, x.shape[-1:], eps=1e-6)
  return x * (1 + scale[:, None]) + shift[:, None]


class AdaptiveBlock(nn.Module):
  """Self-attention and MLP with modulations; cross-attention between (AdaX)."""

  def __init__(self, width, heads, cross):
    super().__init__()
    self.cross = cross
    own = nn.MultiheadAttention(width, heads, batch_first=True)
    if cross:
      self.attn1, self.attn2 = own, CrossAttention(width, heads)
    else:
      self.attn = own
    self.mlp = mlp(width, 4 * width, nn.GELU(approximate="tanh"))
    self.adaLN_modulation = modulation(width, 6)

  def forward(self, x, c, tokens, mask):
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.adaLN_modulation(
      c
    ).chunk(6, dim=-1)
    own = self.attn1 if self.cross else self.attn
    x = x + gate_1[:, None] * attend(own, modulate(x, shift_1, scale_1))
    if self.cross:
      width = x.shape[-1:]
      x = x + self.attn2(
        F.layer_norm(x, width, eps=1e-6),
        F.layer_norm(tokens, width, eps=1e-6),
        mask,
      )
    return x + gate_2[:, None] * self.mlp(modulate(x, shift_2, scale_2))


class PlainBlock(nn.Module):
  """Pre-norm transformer block with cross-attention, no modulations."""

  def __init__(self, width, heads):
    super().__init__()
    self.norm1, self.norm2, self.norm3, self.cnorm = (
      nn.LayerNorm(width, eps=1e-6) for _ in range(4)
    )
    self.attn1 = nn.MultiheadAttention(width, heads, batch_first=True)
    self.attn2 = CrossAttention(width, heads)
    self.mlp = mlp(width, 4 * width, nn.GELU(approximate="tanh"))

  def forward(self, x, c, tokens, mask):
    x = x + attend(self.attn1, self.norm1(x))
    x = x + self.attn2(self.norm2(x), self.cnorm(tokens), mask)
    return x + self.mlp(self.norm3(x))


class TimeEmbedding(nn.Module):
  def __init__(self, width):
    super().__init__()
    self.mlp = mlp(width, width, nn.SiLU())

  def forward(self, t):
    return self.mlp(sinusoid(t, self.mlp[0].in_features))


class Denoiser(nn.Module):
  """What the three denoisers have in common."""

  def __init__(self, width, text_width):
    super().__init__()
    self.x_embedder = nn.Linear(4, width)
    self.t_embedder = TimeEmbedding(width)
    self.text_projector = nn.Linear(text_width, width)
    self.ib_projector = nn.Linear(256, width)

  def run(self, x, c, tokens, mask):
    for block in self.blocks:
      x = block(x, c, tokens, mask)
    return x


class PositionTable(nn.Module):
  def __init__(self, rows, width):
    super().__init__()
    self.pos_encoding = nn.Parameter(sinusoid(torch.arange(rows), width)[None])


class DenoiserAdaX(Denoiser):
  def __init__(self, width=256, depth=7, heads=8):
    super().__init__(width, 768 + 3)
    self.c_pos_embed = PositionTable(25, width)
    self.blocks = nn.ModuleList(
      AdaptiveBlock(width, heads, cross=True) for _ in range(depth)
    )
    self.final_layer = nn.Linear(width, 4)

  def forward(self, x, t, text, mask, patient, base):
    c = self.t_embedder(t) + self.ib_projector(base)
    patient = patient[:, None].expand(-1, text.shape[1], -1)
    tokens = self.text_projector(torch.cat([patient, text], dim=-1))
    tokens = tokens + self.c_pos_embed.pos_encoding[:, : text.shape[1]]
    x = rotate(self.x_embedder(x.transpose(1, 2)))
    return self.final_layer(self.run(x, c, tokens, mask)).transpose(1, 2)


class PatientEmbedding(nn.Module):
  def __init__(self, width):
    super().__init__()
    self.embedding = nn.Parameter(torch.randn(3, width))
    self.norm = nn.Parameter(torch.ones(3))
    self.bias = nn.Parameter(torch.zeros(3))
    self.mlp = mlp(width, 4 * width, nn.SiLU())

  def forward(self, patient):
    scaled = (patient * self.norm + self.bias)[..., None] * self.embedding
    return self.mlp(scaled).sum(dim=1)


class AdaptiveOutput(nn.Module):
  def __init__(self, width):
    super().__init__()
    self.linear = nn.Linear(width, 4)
    self.adaLN_modulation = modulation(width, 2)

  def forward(self, x, c):
    shift, scale = self.adaLN_modulation(c).chunk(2, dim=-1)
    return self.linear(modulate(x, shift, scale))


class DenoiserAdaLN(Denoiser):
  def __init__(self, width=256, depth=7, heads=8):
    super().__init__(width, 768)
    self.p_embedder = PatientEmbedding(width)
    self.blocks = nn.ModuleList(
      AdaptiveBlock(width, heads, cross=False) for _ in range(depth)
    )
    self.final_layer = AdaptiveOutput(width)

  def forward(self, x, t, text, mask, patient, base):
    if mask is None:
      mean = text.mean(dim=1)
    else:
      mean = (text * mask[..., None]).sum(dim=1) / mask.sum(dim=1)[:, None]
    c = self.t_embedder(t) + self.text_projector(mean)
    c = c + self.ib_projector(base) + self.p_embedder(patient)
    x = rotate(self.x_embedder(x.transpose(1, 2)))
    return self.final_layer(self.run(x, c, None, None), c).transpose(1, 2)


class DenoiserCrossAttention(Denoiser):
  def __init__(self, width=256, depth=7, heads=8):
    super().__init__(width, 768 + 3)
    self.blocks = nn.ModuleList(PlainBlock(width, heads) for _ in range(depth))
    self.final_layer = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4))

  def forward(self, x, t, text, mask, patient, base):
    c = self.t_embedder(t) + self.ib_projector(base)
    patient = patient[:, None].expand(-1, text.shape[1], -1)
    tokens = self.text_projector(torch.cat([text, patient], dim=-1))
    x = rotate(self.x_embedder(x.transpose(1, 2))) + c[:, None]
    return self.final_layer(self.run(x, c, tokens, mask)).transpose(1, 2)
