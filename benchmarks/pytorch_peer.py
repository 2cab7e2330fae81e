"""Training and sampling in plain PyTorch: what a user would run instead of us.

Used for speed, always in the same run as ours, and as a second witness of what
the networks compute. Names of parameters are those of released checkpoints, so
`load_state_dict` takes them (BatchNorm's counters aside), and axes are theirs.
All of it runs eagerly and under torch.compile:

    model = DenoiserAdaX().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    loss = train_step(torch.compile(denoiser_loss), (model,), optimizer, batch)
    latent = sample_ddpm(torch.compile(model), noise, condition)

Run from the root of the clone: `from benchmarks import pytorch_peer`.
"""

import torch
import torch.nn.functional as F

from benchmarks.pytorch_denoiser import (
  DenoiserAdaLN,
  DenoiserAdaX,
  DenoiserCrossAttention,
)
from benchmarks.pytorch_networks import (
  CLIP,
  LATENT_SCALE,
  BaseExtractor,
  Decoder,
  Encoder,
)

# By the names of torch_import.published.
NETWORKS = {
  "denoiser_adax": DenoiserAdaX,
  "denoiser_adaln": DenoiserAdaLN,
  "denoiser_attn": DenoiserCrossAttention,
  "base_extractor": BaseExtractor,
  "vae_encoder": Encoder,
  "vae_decoder": Decoder,
  "clip": CLIP,
}


def load(name, weights, device="cpu"):
  """Returns the network with weights, arrays by published name."""
  network = NETWORKS[name]()
  tensors = {k: torch.as_tensor(v) for k, v in weights.items()}
  missing, extra = network.load_state_dict(tensors, strict=False)
  missing = [k for k in missing if not k.endswith("num_batches_tracked")]
  assert not missing and not extra, (missing, extra)
  return network.to(device).eval()


def alphas_cumprod(device):
  betas = torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64)
  return torch.cumprod(1 - betas, dim=0).to(device, torch.float32)


def vae_loss(encoder, decoder, signal):
  """Squared error summed over an ECG + KL over channels, mean over the rest."""
  mean, log_variance = encoder(signal)
  latent = mean + torch.randn_like(mean) * torch.exp(log_variance / 2)
  error = (decoder(latent * LATENT_SCALE) - signal).square().sum(dim=(1, 2))
  divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
  return error.mean() + divergence.sum(dim=1).mean()


def contrastive_loss(first, second, logit_scale):
  """InfoNCE in both directions; the partner is in the same row."""
  logits = F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).T
  logits = logits * logit_scale.exp()
  row = torch.arange(len(logits), device=logits.device)
  return (F.cross_entropy(logits, row) + F.cross_entropy(logits.T, row)) / 2


def extractor_loss(model, reference, target):
  """`reference` and `target`: (latent, text, mask, patient) of each pair."""
  return contrastive_loss(model(*reference), model(*target), model.logit_scale)


def clip_loss(model, signal, text):
  return contrastive_loss(*model(signal, text), model.logit_scale)


def denoiser_loss(model, latent, text, mask, patient, base):
  """Squared error of the noise, summed per latent; base entries dropped."""
  t = torch.randint(1, 999, (len(latent),), device=latent.device)
  share = alphas_cumprod(latent.device)[t][:, None, None]
  eps = torch.randn_like(latent)
  noisy = share.sqrt() * latent + (1 - share).sqrt() * eps
  base = base * (torch.rand_like(base[0]) >= 0.15)
  predicted = model(noisy, t, text, mask, patient, base)
  return (predicted - eps).square().sum(dim=(1, 2)).mean()


def train_step(loss_fn, models, optimizer, batch):
  """One step of `optimizer` on loss_fn(*models, *batch)."""
  optimizer.zero_grad(set_to_none=True)
  loss = loss_fn(*models, *batch)
  loss.backward()
  optimizer.step()
  return loss.detach()


@torch.inference_mode()
def sample_ddpm(model, noise, condition, steps=1000):
  """Ancestral sampling t = 999..0, x_0 clipped, "fixed small" variance.

  Fewer steps are the first ones, for timing. `condition` is (text, mask,
  patient, base).
  """
  share = alphas_cumprod(noise.device)
  earlier = torch.cat([torch.ones_like(share[:1]), share[:-1]])
  alpha = share / earlier
  to_x0 = earlier.sqrt() * (1 - alpha) / (1 - share)
  to_x = alpha.sqrt() * (1 - earlier) / (1 - share)
  spread = ((1 - earlier) / (1 - share) * (1 - alpha)).sqrt()
  x = noise
  for t in range(999, 999 - steps, -1):
    eps = model(x, torch.full((len(x),), t, device=x.device), *condition)
    x0 = (x - (1 - share[t]).sqrt() * eps) / share[t].sqrt()
    x = to_x0[t] * x0.clamp(-1, 1) + to_x[t] * x
    if t:
      x = x + spread[t] * torch.randn_like(x)
  return x
