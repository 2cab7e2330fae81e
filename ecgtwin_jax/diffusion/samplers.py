"""Samplers: from noise to a latent with any number of calls of a denoiser.

Every sampler is one scan with five numbers per step, because each of them is
linear in the current latent, the predicted clean latent, the clean latent of
the step before, and fresh noise:

    x_next = a x + b x_0 + c x_0(before) + d z

`denoise(x, t)` is any function of arrays that predicts the noise. Call `sample`
inside jit: it holds no jit of its own, so the weights stay arguments of yours.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Key

from ecgtwin_jax.diffusion.schedule import Schedule

SPACINGS = ("time", "log_snr")


def choose_timesteps(
  schedule: Schedule,
  steps: int,
  *,
  first: int = 0,
  last: int | None = None,
  spacing: str = "time",
) -> list[int]:
  """`steps` distinct steps from `last` down to `first`, both called.

  After the lowest of them the sampler returns the clean latent. One step is
  `last` alone. Halves are rounded up: 5 of 0..999 are 999, 749, 500, 250, 0.

  Args:
    schedule: The noise schedule.
    steps: How many; at most all of first..last.
    first: Lowest trained step.
    last: Highest trained step; None is the schedule's.
    spacing: Even in "time", or in "log_snr", log(signal rate / noise rate),
      where steps that would coincide at the low end move up to free ones.

  Returns:
    Steps in descending order.

  Raises:
    ValueError: If first..last is not in the schedule or holds fewer than
      `steps` steps, or for an unknown spacing.

  Source: log_snr is the "uniform lambda" of Lu et al. 2022, DPM-Solver.
  """
  last = schedule.steps - 1 if last is None else last
  if not 0 <= first <= last < schedule.steps:
    raise ValueError(
      f"{first=}, {last=} must hold 0 <= first <= last < {schedule.steps}"
    )
  if not 1 <= steps <= last - first + 1:
    raise ValueError(
      f"{steps=} must be in 1..{last - first + 1}, the trained steps"
      f" {first}..{last}"
    )
  if spacing not in SPACINGS:
    raise ValueError(f"{spacing=} must be one of {', '.join(SPACINGS)}")
  if steps == 1:
    return [last]
  if spacing == "time":
    spread = np.linspace(first, last, steps)
  else:
    level = -np.log(schedule.signal_rate / schedule.noise_rate)
    even = np.linspace(level[first], level[last], steps)
    spread = np.interp(even, level, np.arange(schedule.steps))
  rank = np.arange(steps)
  t = np.floor(spread + 0.5).astype(int)
  t = np.maximum.accumulate(t - rank) + rank  # Strictly ascending,
  t = np.minimum(t, last - rank[::-1])  # and never above the last.
  return t[::-1].tolist()


def draw_noise(
  rngs: Key[Array, " n"], shape: tuple[int, ...], step: Any
) -> Float[Array, "n *d"]:
  """z ~ N(0, 1) of each example from its own key and the step.

  An example's noise does not depend on the batch around it. The initial noise
  is that of step `schedule.steps`, one above the noisiest.

  Args:
    rngs: One key per example.
    shape: Shape of one example's noise.
    step: Number folded into each key.

  Returns:
    Standard normal noise.
  """

  def draw(rng):
    return jax.random.normal(jax.random.fold_in(rng, step), shape)

  return jax.vmap(draw)(rngs)


def coefficients(
  schedule: Schedule,
  timesteps: Sequence[int] | np.ndarray,
  sampler: str = "ddpm",
  eta: float | None = None,
) -> Float64[np.ndarray, "steps 4"]:
  """(a, b, c, d) of x_next = a x + b x_0 + c x_0(before) + d z, per step.

  With signal rate s, noise rate n, at the next step s', n' (1 and 0 after the
  lowest), and v^2 = (n'/n)^2 (1 - s^2/s'^2), the variance "fixed small":

    ddpm   eta = 1 of ddim: the posterior of the published sampler
    ddim   x_next = s' x_0 + sqrt(n'^2 - eta^2 v^2) eps + eta v z, with eps
           taken from x and the clipped x_0
    dpm++  x_next = n'/n x + (s' - s n'/n) D,
           D = x_0 + (h / 2 h_before) (x_0 - x_0(before)), h the step of
           log(s/n); first order (D = x_0) at the first and the last step
    sde-dpm++  x_next = n'/n e x + s' (1 - e exp(-h)) D + n' sqrt(1 - e^2) z,
           e = exp(-eta^2 h); with eta = 0 it is dpm++

  Args:
    schedule: The noise schedule.
    timesteps: Steps to call, descending.
    sampler: One of SAMPLERS.
    eta: Noise of ddim, 0 (none, as None is) to 1 (that of ddpm); or of
      sde-dpm++, 0 to 2, None is 1, the reverse process's own.

  Returns:
    One row per step.

  Raises:
    ValueError: For an unknown sampler, or an eta it has no use for.

  Source: Ho et al. 2020; Song et al. 2021, equation 12; Lu et al. 2022,
  DPM-Solver++, algorithm 2; its SDE form with a free level of noise: Xue et al.
  2023, SA-Solver, of order two.
  """
  if sampler not in SAMPLERS:
    raise ValueError(f"{sampler=} must be one of {', '.join(SAMPLERS)}")
  chosen = SAMPLERS[sampler]
  if eta and chosen.most_eta is None:
    users = [name for name, each in SAMPLERS.items() if each.most_eta]
    raise ValueError(f"{eta=} is for {' and '.join(users)}; {sampler} has none")
  if eta is None or chosen.most_eta is None:
    eta = chosen.eta
  if not 0 <= eta <= (chosen.most_eta or eta):
    raise ValueError(f"{eta=} of {sampler} must be in 0..{chosen.most_eta}")
  t = np.asarray(timesteps)
  signal, noise = schedule.signal_rate[t], schedule.noise_rate[t]
  next_signal = np.append(signal[1:], 1.0)
  next_noise = np.append(noise[1:], 0.0)
  columns = chosen.columns(signal, noise, next_signal, next_noise, eta)
  return np.stack(columns, axis=1)


def _ancestral(signal, noise, next_signal, next_noise, eta):
  ratio = next_noise / noise
  fresh = eta * ratio * np.sqrt(1 - (signal / next_signal) ** 2)
  kept = np.sqrt(next_noise**2 - fresh**2) / noise
  return kept, next_signal - signal * kept, np.zeros(len(noise)), fresh


def _multistep(signal, noise, next_signal, next_noise, eta):
  ratio = next_noise / noise
  step = np.diff(np.log(signal) - np.log(noise))
  decay = np.exp(-(eta**2) * np.append(step, np.inf)) if eta else 1.0
  gain = next_signal - signal * ratio * decay
  extrapolate = np.zeros(len(noise))
  extrapolate[1:-1] = step[1:] / (2 * step[:-1])
  before = -gain * extrapolate
  fresh = next_noise * np.sqrt(1 - np.square(decay))
  return ratio * decay, gain - before, before, fresh


class Sampler(NamedTuple):
  """What makes a sampler.

  Attributes:
    columns: (signal, noise, next_signal, next_noise, eta), arrays of one number
      per step, -> (a, b, c, d).
    spacing: Of its steps, one of SPACINGS.
    eta: Its noise where none is asked for.
    most_eta: The most that can be asked for; None: nothing can.
  """

  columns: Callable
  spacing: str
  eta: float
  most_eta: float | None = None


SAMPLERS = {
  "ddpm": Sampler(_ancestral, "time", 1.0),
  "ddim": Sampler(_ancestral, "time", 0.0, 1.0),
  "dpm++": Sampler(_multistep, "log_snr", 0.0),
  "sde-dpm++": Sampler(_multistep, "log_snr", 1.0, 2.0),
}


def clip_x0(
  x0: Float[Array, "n l c"],
  clip: float | None,
  quantile: float | None = None,
) -> Float[Array, "n l c"]:
  """min(max(x_0, -clip), clip), or dynamic thresholding with a quantile.

  With a quantile q, an example whose q-quantile r of |x_0| exceeds the range is
  clipped to [-r, r] and then scaled by clip / r.

  Args:
    x0: Predicted clean latents.
    clip: Half width of the range, in units of the latent; None leaves x0.
    quantile: q in 0..1; None clips.

  Returns:
    Latents within the range.

  Source: Saharia et al. 2022 (Imagen), section 2.3.
  """
  if clip is None:
    return x0
  if quantile is None:
    return jnp.clip(x0, -clip, clip)
  reach = jnp.quantile(jnp.abs(x0), quantile, axis=(1, 2), keepdims=True)
  reach = jnp.maximum(reach, clip)
  return jnp.clip(x0, -reach, reach) * (clip / reach)


def sample(
  denoise: Callable,
  noise: Float[Array, "n l c"],
  rngs: Key[Array, " n"],
  schedule: Schedule,
  *,
  sampler: str = "ddpm",
  steps: int | None = None,
  timesteps: Sequence[int] | np.ndarray | None = None,
  first: int = 0,
  last: int | None = None,
  eta: float | None = None,
  clip: float | None = 1.0,
  quantile: float | None = None,
  aux_weights: Sequence[float | int] | None = None,
) -> Any:
  """x_0 from x_T = `noise`: one scan over the chosen steps.

  Args:
    denoise: (x (n, l, c), t (n,) int32) -> predicted noise (n, l, c); with
      `aux_weights`, -> (predicted noise, tree of arrays).
    noise: The latent at the highest step, standard normal.
    rngs: One key per example, for the noise of each step (see draw_noise).
    schedule: The noise schedule that the denoiser was trained with.
    sampler: One of SAMPLERS.
    steps: Number of calls, over first..last, spaced as the sampler has it (see
      choose_timesteps); None calls every step.
    timesteps: The exact steps instead, descending, within first..last.
    first: Lowest step that the denoiser may be called with.
    last: Highest such step; None is the schedule's.
    eta: Noise of ddim and sde-dpm++; None: the sampler's own.
    clip: Half width of the range of x_0; None for no clipping.
    quantile: Turns clipping into dynamic thresholding (see clip_x0).
    aux_weights: Weight of each call for the mean of the auxiliary output.

  Returns:
    The clean latents (n, l, c); with `aux_weights`, (latents, weighted mean of
    the auxiliary output).

  Raises:
    ValueError: For steps outside the trained ones or not descending, both
      `steps` and `timesteps`, a number out of range, or weights that do not
      match the steps.
  """
  last = schedule.steps - 1 if last is None else last
  if sampler not in SAMPLERS:
    raise ValueError(f"{sampler=} must be one of {', '.join(SAMPLERS)}")
  if timesteps is None:
    timesteps = choose_timesteps(
      schedule,
      last - first + 1 if steps is None else steps,
      first=first,
      last=last,
      spacing=SAMPLERS[sampler].spacing,
    )
  elif steps is not None:
    raise ValueError(f"{steps=} and timesteps= exclude each other")
  t = np.asarray(timesteps)
  if t.ndim != 1 or not t.size or np.any(np.diff(t) >= 0):
    raise ValueError(f"{timesteps=} must be strictly descending")
  if t[0] > min(last, schedule.steps - 1) or t[-1] < max(first, 0):
    raise ValueError(f"{timesteps=} must stay in the trained {first}..{last}")
  if clip is not None and not clip > 0:
    raise ValueError(f"{clip=} must be positive, or None")
  if quantile is not None and (clip is None or not 0 < quantile <= 1):
    raise ValueError(f"{quantile=} must be in 0..1 and needs {clip=}")
  table = coefficients(schedule, t, sampler, eta)
  stochastic = bool(np.any(table[:, 3]))
  weights = np.zeros(len(t)) if aux_weights is None else _share(aux_weights, t)

  def body(carry, each):
    x, before, total = carry
    step, signal, sigma, (a, b, c, d), weight = each
    out = denoise(x, jnp.full(x.shape[:1], step))
    eps, aux = (out, ()) if aux_weights is None else out
    x0 = clip_x0((x - sigma * eps.astype(x.dtype)) / signal, clip, quantile)
    x = a * x + b * x0 + c * before
    if stochastic:
      x = x + d * draw_noise(rngs, x.shape[1:], step)
    total = jax.tree.map(lambda s, v: s + weight * v, total, aux)
    return (x, x0, total), None

  each = (
    jnp.asarray(t, jnp.int32),
    *(
      jnp.asarray(v.astype(np.float32))
      for v in (schedule.signal_rate[t], schedule.noise_rate[t], table, weights)
    ),
  )
  total = ()
  if aux_weights is not None:
    _, shapes = jax.eval_shape(denoise, noise, jnp.full(noise.shape[:1], 0))
    total = jax.tree.map(lambda s: jnp.zeros(s.shape), shapes)
  carry = (noise, jnp.zeros_like(noise), total)
  (x0, _, total), _ = jax.lax.scan(body, carry, each)
  return x0 if aux_weights is None else (x0, total)


def _share(weights: Sequence[float | int], t: np.ndarray) -> np.ndarray:
  """Weights that sum to one, one for each step."""
  weights = np.asarray(weights, np.float64)
  if weights.shape != t.shape or np.any(weights < 0) or not np.any(weights):
    raise ValueError(
      f"aux_weights must be {len(t)} numbers >= 0, not all 0, one per step;"
      f" got {weights.tolist()}"
    )
  return weights / weights.sum()
