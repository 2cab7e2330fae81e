"""The forward process: how much of the latent and of noise there is at step t.

    x_t = alpha_t * x_0 + sigma_t * eps,    t = 0 .. steps - 1

with alpha_t^2 = prod(1 - beta), `signal_rate`, and sigma_t^2 = 1 - alpha_t^2,
`noise_rate`: the alpha_t and sigma_t of the literature since VDM. Step 0
is already a little noisy; the clean x_0 has no number.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

WEIGHTINGS = ("uniform", "min_snr")
PREDICTIONS = ("noise", "v")
MAX_STEPS = 100_000  # a table of more helps nobody


@dataclasses.dataclass(frozen=True)
class Schedule:
  """A noise schedule, linear in beta; float64 tables on the host come out.

  It is hashable and holds nothing but its hyper-parameters, so it can be stored
  with `dataclasses.asdict`, compared, and be a static argument of a jitted
  function. The tables are NumPy: the samplers turn them into a few numbers per
  step while they are traced, in double precision.

  Attributes:
    steps: Number of noise levels.
    start: First beta.
    end: Last beta.

  Raises:
    ValueError: For a number out of range.

  Source: the defaults are those of Lai et al. 2025 (ECGTwin).
  """

  steps: int = 1000
  start: float = 0.00085
  end: float = 0.012

  def __post_init__(self):
    if self.steps < 1:
      raise ValueError(f"{self.steps=} must be at least 1")
    if self.steps > MAX_STEPS:
      raise ValueError(f"{self.steps=} must be at most {MAX_STEPS}")
    if not 0 < self.start <= self.end < 1:
      raise ValueError(
        f"{self.start=}, {self.end=} must hold 0 < start <= end < 1"
      )

  @functools.cached_property
  def betas(self) -> np.ndarray:
    """Variance added at each step, (steps,) float64."""
    return np.linspace(self.start, self.end, self.steps)

  @functools.cached_property
  def alphas_cumprod(self) -> np.ndarray:
    """alpha_t^2, the share of the variance that is signal, (steps,) float64."""
    return np.cumprod(1 - self.betas)

  @functools.cached_property
  def signal_rate(self) -> np.ndarray:
    """alpha_t, the factor of x_0 in x_t, (steps,) float64."""
    return np.sqrt(self.alphas_cumprod)

  @functools.cached_property
  def noise_rate(self) -> np.ndarray:
    """sigma_t, the factor of eps in x_t, (steps,) float64."""
    return np.sqrt(1 - self.alphas_cumprod)


def look_up(table: np.ndarray, t: Int[Array, "..."]) -> Float[Array, "..."]:
  """`table[t]` on the device; NaN, never the nearest entry, outside of it."""
  return (
    jnp.asarray(table.astype(np.float32))
    .at[t]
    .get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
  )


def add_noise(
  schedule: Schedule,
  x0: Float[Array, "b *d"],
  eps: Float[Array, "b *d"],
  t: Int[Array, " b"],
) -> Float[Array, "b *d"]:
  """x_t = alpha_t x_0 + sigma_t eps.

  Args:
    schedule: The noise schedule.
    x0: Clean latents, scaled.
    eps: Standard normal noise.
    t: Step of each example, 0..steps - 1; NaN comes out for any other.

  Returns:
    The noisy latents.
  """
  shape = (-1,) + (1,) * (x0.ndim - 1)
  signal = look_up(schedule.signal_rate, t).reshape(shape)
  noise = look_up(schedule.noise_rate, t).reshape(shape)
  return signal * x0 + noise * eps


def predicted_noise(
  schedule: Schedule,
  prediction: str,
  out: Float[Array, "b *d"],
  xt: Float[Array, "b *d"],
  t: Int[Array, " b"],
) -> Float[Array, "b *d"]:
  """The noise that a network's output stands for.

  "noise": the output itself. "v": signal_rate out + noise_rate x_t, with the
  output v = signal_rate eps - noise_rate x_0.

  Args:
    schedule: The noise schedule.
    prediction: "noise" or "v".
    out: What the network gave.
    xt: The noisy latents that it was given.
    t: Their steps.

  Raises:
    ValueError: Unknown prediction.

  Source: Salimans & Ho 2022, Progressive Distillation, appendix D.
  """
  if prediction not in PREDICTIONS:
    raise ValueError(f"{prediction=} must be one of {', '.join(PREDICTIONS)}")
  return out if prediction == "noise" else add_noise(schedule, out, xt, t)


def unpredictable(
  schedule: Schedule, std: Float[Array, "b *d"], t: Int[Array, " b"]
) -> Float[Array, "b *d"]:
  """Squared error of the noise for who knows the mean of x_0 and no more.

  Where x_0 was drawn as mean + std z, x_t holds signal_rate std z + noise_rate
  eps, and nobody can tell one from the other:
  (signal_rate std)^2 / ((signal_rate std)^2 + noise_rate^2).

  Args:
    schedule: The noise schedule.
    std: Of the draws, in units of x_0.
    t: Steps.
  """
  shape = (-1,) + (1,) * (std.ndim - 1)
  ratio = snr(schedule, t).reshape(shape) * jnp.square(std)
  return ratio / (ratio + 1)


def snr(schedule: Schedule, t: Int[Array, " b"]) -> Float[Array, " b"]:
  """SNR(t) = signal_rate[t]^2 / noise_rate[t]^2, for weights of the loss."""
  share = schedule.alphas_cumprod
  return look_up(share / (1 - share), t)


def loss_weight(
  schedule: Schedule, t: Int[Array, " b"], weighting: str
) -> Float[Array, " b"]:
  """Weight of an example's squared error of the predicted noise.

  Args:
    schedule: the noise schedule.
    t: its steps.
    weighting: "uniform", 1 as published; or "min_snr", min(snr, 5) / snr with
      snr = signal variance / noise variance, which counts the nearly clean
      steps less.

  Raises:
    ValueError: unknown weighting.

  Source: Hang et al. 2023, Efficient Diffusion Training via Min-SNR Weighting.
  """
  if weighting not in WEIGHTINGS:
    raise ValueError(f"{weighting=} must be one of {', '.join(WEIGHTINGS)}")
  if weighting == "uniform":
    return jnp.ones(t.shape)
  ratio = snr(schedule, t)
  return jnp.minimum(ratio, 5.0) / ratio


def sample_timesteps(
  rng: Key[Array, ""], batch: int, low: int = 0, high: int = 999
) -> Int[Array, " {batch}"]:
  """t uniform in low..high, both included.

  Args:
    rng: One key, for the global batch.
    batch: Number of examples.
    low: Smallest step drawn.
    high: Largest step drawn; the published recipe uses 1..998.

  Returns:
    One step per example.

  Raises:
    ValueError: If `low` is negative or above `high`.
  """
  if not 0 <= low <= high:
    raise ValueError(f"{low=}, {high=} must hold 0 <= low <= high")
  return jax.random.randint(rng, (batch,), low, high + 1)
