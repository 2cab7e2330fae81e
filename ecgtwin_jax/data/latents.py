"""What is measured on latents: their scale, and the range of their values."""

import numpy as np
from jaxtyping import Float16

CLIP_QUANTILE = 0.9999  # share of the latents' values that clipping keeps
DRAWS = 16_384  # of training latents that scale and clip are measured on


def measure_scale(
  mean: Float16[np.ndarray, "n l c"], std: Float16[np.ndarray, "n l c"]
) -> dict[str, list[float] | float]:
  """Returns latent_scale, 1 / std of draws by channel, and latent_clip.

  The clip is the range within which 99.99 % of the scaled draws lie.

  Args:
    mean: of the latents, unscaled.
    std: likewise.
  """
  noise = np.random.default_rng(0).standard_normal(mean.shape, np.float32)
  draws = mean.astype(np.float32) + std.astype(np.float32) * noise
  scale = 1 / draws.std(axis=(0, 1), dtype=np.float64)
  scaled = np.abs(draws) * scale.astype(np.float32)
  clip = float(np.quantile(scaled, CLIP_QUANTILE))
  return {"latent_scale": scale.tolist(), "latent_clip": clip}
