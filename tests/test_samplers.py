"""Samplers against published steps, a known answer, and their rules."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgtwin_jax.diffusion import samplers
from ecgtwin_jax.diffusion.samplers import (
  SAMPLERS,
  choose_timesteps,
  clip_x0,
  coefficients,
  draw_noise,
  sample,
)
from ecgtwin_jax.diffusion.schedule import Schedule
from helpers import golden

GOLDEN = golden.load("ddpm_schedule")
PUBLISHED = Schedule()
SHORT = Schedule(steps=13, start=0.02, end=0.4)
MEAN, STD = 0.3, 0.5


def published_step(t, x, eps, z):
  """One ancestral step of Ho et al. 2020, written as in the paper."""
  beta, share = PUBLISHED.betas, PUBLISHED.alphas_cumprod
  earlier = share[t - 1] if t else 1.0
  x0 = (x - np.sqrt(1 - share[t]) * eps) / np.sqrt(share[t])
  x0 = np.clip(x0, -1, 1)
  mean = np.sqrt(earlier) * beta[t] / (1 - share[t]) * x0
  mean += np.sqrt(1 - beta[t]) * (1 - earlier) / (1 - share[t]) * x
  variance = (1 - earlier) / (1 - share[t]) * beta[t]
  return mean + (np.sqrt(variance) * z if t else 0.0)


@functools.partial(jax.jit, static_argnums=0)
def of_gaussian(schedule, x, t):
  """The exact noise prediction for latents N(MEAN, STD^2)."""
  share = jnp.asarray(schedule.alphas_cumprod.astype(np.float32))[t]
  share = share[:, None, None]
  away = x - jnp.sqrt(share) * MEAN
  return jnp.sqrt(1 - share) * away / (share * STD**2 + 1 - share)


def keys(n):
  return jax.random.split(jax.random.key(5), n)


def start(n, schedule, shape=(5, 3)):
  return draw_noise(keys(n), shape, schedule.steps)


@pytest.mark.parametrize("t", [999, 500, 1, 0])
def test_ddpm_step_is_the_published_one(t):
  x, eps, z, prev = (
    GOLDEN[f"ddpm_t{t}_{name}"] for name in ("x", "eps", "z", "prev")
  )
  row = coefficients(PUBLISHED, range(999, -1, -1), "ddpm")[999 - t]
  a, b, c, d = row.astype(np.float32)
  signal, noise = PUBLISHED.signal_rate[t], PUBLISHED.noise_rate[t]
  x0 = clip_x0(jnp.asarray((x - noise * eps) / signal, jnp.float32), 1.0)
  assert c == 0
  error = np.abs(a * x + b * x0 + d * z - prev).max()
  assert error < 1e-5 * np.abs(prev).max()
  by_hand = published_step(t, x, eps, z)
  assert np.abs(by_hand - prev).max() < 1e-5 * np.abs(prev).max()


def test_ddpm_chain_is_the_published_step_a_thousand_times(monkeypatch):
  def alternating(rngs, shape, step):
    sign = 1 - 2 * (step % 2)
    return jnp.full((rngs.shape[0], *shape), 0.7 * sign)

  x = np.asarray(start(2, PUBLISHED), np.float64)
  noise = jnp.asarray(x, jnp.float32)
  monkeypatch.setattr(samplers, "draw_noise", alternating)
  denoise = functools.partial(of_gaussian, PUBLISHED)
  got = sample(denoise, noise, keys(2), PUBLISHED)
  for t in range(999, -1, -1):
    eps = denoise(jnp.asarray(x, jnp.float32), jnp.full(2, t))
    x = published_step(t, x, np.asarray(eps), 0.7 * (1 - 2 * (t % 2)))
  assert np.abs(got - x).max() < 1e-4 * np.abs(x).max()


@pytest.mark.parametrize(
  "steps, first, last, expected",
  [
    (5, 0, 999, [999, 749, 500, 250, 0]),
    (4, 1, 998, [998, 666, 333, 1]),
    (1, 0, 999, [999]),
    (2, 0, 999, [999, 0]),
    (3, 7, 9, [9, 8, 7]),
  ],
)
def test_steps_even_in_time_are_exactly_these(steps, first, last, expected):
  got = choose_timesteps(PUBLISHED, steps, first=first, last=last)
  assert got == expected


def test_steps_even_in_log_snr_are_exactly_these():
  got = choose_timesteps(PUBLISHED, 10, spacing="log_snr")
  assert got == [999, 867, 715, 537, 340, 166, 61, 17, 3, 0]
  level = np.log(PUBLISHED.signal_rate / PUBLISHED.noise_rate)[got]
  np.testing.assert_allclose(np.diff(level)[:5], np.diff(level)[0], rtol=0.01)


@pytest.mark.parametrize("spacing", samplers.SPACINGS)
@pytest.mark.parametrize("first, last", [(0, 999), (1, 998), (11, 11)])
def test_any_number_of_steps_is_distinct_and_keeps_both_ends(
  spacing, first, last
):
  for steps in {1, 2, 3, 17, 101, 500, 997, last - first + 1}:
    if steps > last - first + 1:
      continue
    got = choose_timesteps(
      PUBLISHED, steps, first=first, last=last, spacing=spacing
    )
    assert len(got) == steps and got[0] == last
    assert got[-1] == first or steps == 1
    assert np.all(np.diff(got) < 0)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("first, last", [(0, 12), (1, 11)])
def test_network_sees_the_chosen_steps_and_no_other(sampler, first, last):
  seen = []

  def denoise(x, t):
    jax.debug.callback(lambda t: seen.append(np.asarray(t)), t, ordered=True)
    return 0 * x

  options = {"sampler": sampler, "first": first, "last": last}
  x = sample(denoise, start(2, SHORT), keys(2), SHORT, steps=4, **options)
  jax.effects_barrier()
  spacing = "log_snr" if "dpm++" in sampler else "time"
  chosen = choose_timesteps(SHORT, 4, first=first, last=last, spacing=spacing)
  assert np.stack(seen).tolist() == [[t, t] for t in chosen]
  again = sample(
    denoise, start(2, SHORT), keys(2), SHORT, timesteps=chosen, **options
  )
  np.testing.assert_array_equal(x, again)


def test_every_step_is_called_by_default():
  count = sample(
    lambda x, t: (0 * x, t.astype(jnp.float32)),
    start(1, SHORT),
    keys(1),
    SHORT,
    aux_weights=[1] * SHORT.steps,
  )[1]
  assert float(count[0]) == pytest.approx(6.0)


@pytest.mark.parametrize(
  "sampler, eta",
  [
    *(("ddpm", 0.0), ("ddim", 0.0), ("ddim", 0.4), ("dpm++", 0.0)),
    *(("sde-dpm++", None), ("sde-dpm++", 1.4)),
  ],
)
def test_samples_have_the_mean_and_spread_of_the_data(sampler, eta):
  n = 997
  draw = jax.jit(
    lambda noise, rngs: sample(
      functools.partial(of_gaussian, PUBLISHED),
      noise,
      rngs,
      PUBLISHED,
      sampler=sampler,
      eta=eta,
      clip=None,
    )
  )
  x = draw(start(n, PUBLISHED, (1, 5)), keys(n))
  # Standard errors are 0.007 and 0.005.
  assert float(x.mean()) == pytest.approx(MEAN, abs=0.03)
  assert float(x.std()) == pytest.approx(STD, abs=0.02)


def test_deterministic_samplers_solve_the_flow_with_their_order():
  noise = start(97, PUBLISHED)
  share = PUBLISHED.alphas_cumprod[-1]
  spread = np.sqrt(share * STD**2 + 1 - share)
  exact = MEAN + STD * (noise - np.sqrt(share) * MEAN) / spread

  def error(sampler, steps):
    x = sample(
      functools.partial(of_gaussian, PUBLISHED),
      noise,
      keys(97),
      PUBLISHED,
      timesteps=choose_timesteps(PUBLISHED, steps, spacing="log_snr"),
      sampler=sampler,
      clip=None,
    )
    return float(jnp.abs(x - exact).mean())

  ddim, dpm = (
    [error(sampler, steps) for steps in (5, 10, 20)]
    for sampler in ("ddim", "dpm++")
  )
  assert 1.8 < ddim[0] / ddim[1] < 2.2 and 1.8 < ddim[1] / ddim[2] < 2.2
  assert dpm[0] / dpm[1] > 3 and dpm[1] / dpm[2] > 3
  assert dpm[2] < 0.1 * ddim[2]


def test_ddim_with_all_its_noise_is_ddpm():
  t = [12, 7, 3, 0]
  np.testing.assert_array_equal(
    coefficients(SHORT, t, "ddim", eta=1.0), coefficients(SHORT, t, "ddpm")
  )
  assert not coefficients(SHORT, t, "ddim")[:, 3].any()


def test_multistep_by_hand():
  t = [12, 7, 3, 0]
  s, n = SHORT.signal_rate[t], SHORT.noise_rate[t]
  h = np.diff(np.log(s / n))
  a, b, c, d = coefficients(SHORT, t, "dpm++")[1]
  decay = np.exp(-h[1])
  assert a == pytest.approx(n[2] / n[1])
  assert b == pytest.approx(s[2] * (1 - decay) * (1 + h[1] / h[0] / 2))
  assert c == pytest.approx(-s[2] * (1 - decay) * h[1] / h[0] / 2)
  assert d == 0
  last = coefficients(SHORT, t, "dpm++")[-1]
  np.testing.assert_array_equal(last, [0, 1, 0, 0])


def test_stochastic_multistep_by_hand():
  t = [12, 7, 3, 0]
  s, n = SHORT.signal_rate[t], SHORT.noise_rate[t]
  h = np.diff(np.log(s / n))
  a, b, c, d = coefficients(SHORT, t, "sde-dpm++", eta=0.8)[1]
  decay = np.exp(-0.64 * h[1])
  gain = s[2] * (1 - np.exp(-1.64 * h[1]))
  assert a == pytest.approx(n[2] / n[1] * decay)
  assert b == pytest.approx(gain * (1 + h[1] / h[0] / 2))
  assert c == pytest.approx(-gain * h[1] / h[0] / 2)
  assert d == pytest.approx(n[2] * np.sqrt(1 - np.exp(-1.28 * h[1])))
  last = coefficients(SHORT, t, "sde-dpm++")[-1]
  np.testing.assert_array_equal(last, [0, 1, 0, 0])
  np.testing.assert_array_equal(
    coefficients(SHORT, t, "sde-dpm++", eta=0.0),
    coefficients(SHORT, t, "dpm++"),
  )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_example_does_not_depend_on_its_batch(sampler):
  def draw(rows):
    denoise = functools.partial(of_gaussian, SHORT)
    noise, rngs = start(7, SHORT)[rows], keys(7)[rows]
    return sample(denoise, noise, rngs, SHORT, sampler=sampler, clip=None)

  whole, part = draw(jnp.arange(7)), draw(jnp.array([4, 2]))
  np.testing.assert_array_equal(whole[jnp.array([4, 2])], part)
  assert len(np.unique(np.asarray(whole)[:, 0, 0])) == 7


def test_noise_differs_between_steps_and_from_the_start():
  draws = [draw_noise(keys(3), (5, 2), t) for t in (0, 1, 1000)]
  for i in range(3):
    for j in range(i):
      assert np.abs(draws[i] - draws[j]).min() > 0


def test_clipping_and_dynamic_thresholding_by_hand():
  x0 = jnp.array([[[-3.0], [0.5], [1.5]], [[-0.2], [0.1], [0.9]]])
  np.testing.assert_array_equal(
    clip_x0(x0, 1.0)[..., 0], np.float32([[-1, 0.5, 1], [-0.2, 0.1, 0.9]])
  )
  dynamic = clip_x0(x0, 1.0, quantile=0.5)[..., 0]  # The median of 0.5, 1.5, 3.
  np.testing.assert_allclose(dynamic[0], [-1, 1 / 3, 1], rtol=1e-6)
  np.testing.assert_array_equal(dynamic[1], x0[1, :, 0])
  assert clip_x0(x0, None) is x0


def test_clip_bounds_what_comes_out():
  def wild(x, t):
    return -9 * x

  options = {"noise": start(2, SHORT), "rngs": keys(2), "schedule": SHORT}
  for sampler in SAMPLERS:
    x = sample(wild, sampler=sampler, clip=0.7, **options)
    assert float(jnp.abs(x).max()) <= 0.7 + 1e-6
    at_limit = float((jnp.abs(x) > 0.699).mean())
    x = sample(wild, sampler=sampler, clip=0.7, quantile=0.9, **options)
    assert float(jnp.abs(x).max()) <= 0.7 + 1e-6
    # Scaled, so that less of it lies at the limit.
    assert float((jnp.abs(x) > 0.699).mean()) < at_limit
    x = sample(wild, sampler=sampler, clip=None, **options)
    assert float(jnp.abs(x).max()) > 5


def test_auxiliary_output_is_averaged_with_the_weights():
  def denoise(x, t):
    t = t.astype(jnp.float32)
    return 0 * x, {"t": t, "square": t[None] ** 2}

  x, aux = sample(
    denoise,
    start(2, SHORT),
    keys(2),
    SHORT,
    timesteps=[11, 5, 2],
    aux_weights=[3, 0, 1],
  )
  np.testing.assert_allclose(aux["t"], [8.75, 8.75])
  np.testing.assert_allclose(aux["square"], [[91.75, 91.75]])
  plain = sample(
    lambda x, t: 0 * x, start(2, SHORT), keys(2), SHORT, timesteps=[11, 5, 2]
  )
  np.testing.assert_array_equal(x, plain)


@pytest.mark.parametrize(
  "wrong, message",
  [
    ({"sampler": "euler"}, "sampler='euler'"),
    ({"steps": 0}, "steps=0"),
    ({"steps": 14}, "steps=14 must be in 1..13"),
    ({"last": 13}, "last=13"),
    ({"first": -1}, "first=-1"),
    ({"timesteps": [3, 3]}, "strictly descending"),
    ({"timesteps": []}, "strictly descending"),
    ({"timesteps": [13, 2]}, "trained 0..12"),
    ({"timesteps": [12, 2], "first": 3}, "trained 3..12"),
    ({"timesteps": [2], "steps": 1}, "exclude each other"),
    ({"clip": 0.0}, "clip=0.0"),
    ({"clip": None, "quantile": 0.9}, "quantile=0.9"),
    ({"quantile": 1.5}, "quantile=1.5"),
    ({"quantile": 0.0}, "quantile=0.0"),
    ({"sampler": "ddim", "eta": 1.1}, "eta=1.1"),
    ({"eta": 0.5}, "eta=0.5 is for ddim"),
    ({"sampler": "sde-dpm++", "eta": 2.1}, "eta=2.1 of sde-dpm"),
    ({"steps": 2, "aux_weights": [1]}, "one per step"),
    ({"steps": 2, "aux_weights": [0, 0]}, "not all 0"),
  ],
)
def test_wrong_choices_are_refused(wrong, message):
  with pytest.raises(ValueError, match=message):
    sample(lambda x, t: x, start(2, SHORT), keys(2), SHORT, **wrong)


def test_unknown_spacing_is_refused():
  with pytest.raises(ValueError, match="spacing='karras'"):
    choose_timesteps(SHORT, 3, spacing="karras")
