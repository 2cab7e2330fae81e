"""The forward process against the published numbers and its own definition."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgtwin_jax.diffusion.schedule import (
  Schedule,
  add_noise,
  loss_weight,
  predicted_noise,
  sample_timesteps,
  snr,
  unpredictable,
)
from helpers import golden

GOLDEN = golden.load("ddpm_schedule")


def test_default_is_the_published_schedule():
  schedule = Schedule()
  assert np.abs(schedule.betas - GOLDEN["betas"]).max() < 1e-9
  share = GOLDEN["alphas_cumprod"]
  assert np.abs(schedule.alphas_cumprod - share).max() < 2e-7


def test_add_noise_is_the_published_one():
  x0, n0, t = (GOLDEN[k] for k in ("x0", "n0", "t_add"))
  noised = add_noise(
    Schedule(), jnp.asarray(x0), jnp.asarray(n0), jnp.asarray(t)
  )
  error = np.abs(noised - GOLDEN["noised"]).max()
  assert error < 1e-6 * np.abs(GOLDEN["noised"]).max()


def test_first_steps_by_hand():
  schedule = Schedule(steps=3, start=0.1, end=0.3)
  np.testing.assert_allclose(schedule.betas, [0.1, 0.2, 0.3])
  np.testing.assert_allclose(schedule.alphas_cumprod, [0.9, 0.72, 0.504])
  got = snr(schedule, jnp.array([0, 2]))
  np.testing.assert_allclose(got, [9.0, 0.504 / 0.496], rtol=1e-6)


def test_v_stands_for_the_noise_that_was_added():
  schedule, t = Schedule(steps=7, start=0.05, end=0.5), jnp.array([0, 6, 3])
  rng = np.random.default_rng(0)
  x0, eps = jnp.asarray(rng.normal(size=(2, 3, 5, 2)), jnp.float32)
  xt = add_noise(schedule, x0, eps, t)
  signal, noise = (
    rate[np.asarray(t)][:, None, None].astype(np.float32)
    for rate in (schedule.signal_rate, schedule.noise_rate)
  )
  v = signal * eps - noise * x0
  got = predicted_noise(schedule, "v", v, xt, t)
  np.testing.assert_allclose(got, eps, atol=1e-6)
  assert predicted_noise(schedule, "noise", eps, xt, t) is eps
  with pytest.raises(ValueError, match="prediction='x0' must be one of noise"):
    predicted_noise(schedule, "x0", v, xt, t)


def test_what_is_unpredictable_is_the_best_guess_from_the_draw():
  schedule, t = Schedule(steps=7, start=0.05, end=0.5), jnp.array([1, 5])
  std = jnp.array([[0.5], [0.25]])
  rng = np.random.default_rng(0)
  z, eps = rng.normal(size=(2, 2, 40_000))
  xt = np.asarray(add_noise(schedule, std * z, jnp.asarray(eps), t))
  # The mean of x_0 is 0 here; the best linear guess of eps from x_t.
  slope = (xt * eps).mean(1) / (xt**2).mean(1)
  error = ((eps - slope[:, None] * xt) ** 2).mean(1)
  got = unpredictable(schedule, std, t)
  np.testing.assert_allclose(got[:, 0], error, rtol=0.03)


@pytest.mark.parametrize("t", [-1, 7, 1000])
def test_step_outside_the_schedule_gives_nan_not_a_neighbour(t):
  x = jnp.ones((2, 3))
  noised = add_noise(Schedule(steps=7), x, x, jnp.array([6, t]))
  assert np.isfinite(noised[0]).all() and np.isnan(noised[1]).all()


@pytest.mark.parametrize("steps", [1, 11, 1000])
def test_rates_are_monotone_and_keep_the_variance(steps):
  schedule = Schedule(steps=steps)
  assert np.all(np.diff(schedule.noise_rate) > 0)
  assert np.all((schedule.betas > 0) & (schedule.betas < 1))
  total = schedule.signal_rate**2 + schedule.noise_rate**2
  np.testing.assert_allclose(total, 1)


def test_sampled_steps_fill_the_range_with_both_ends():
  t = sample_timesteps(jax.random.key(0), 2000, low=3, high=7)
  assert t.shape == (2000,)
  assert np.bincount(t, minlength=9).tolist()[:3] == [0, 0, 0]
  assert np.bincount(t).size == 8
  assert np.bincount(t)[3:].min() > 300


def test_schedule_is_plain_numbers():
  schedule = Schedule(steps=17)
  schedule.betas.sum()  # Tables that were asked for are no part of its value.
  again = Schedule(**dataclasses.asdict(schedule))
  assert again == schedule and hash(again) == hash(schedule)
  noised = jax.jit(add_noise, static_argnums=0)(
    schedule, jnp.ones((1, 2)), jnp.ones((1, 2)), jnp.array([0])
  )
  assert noised.shape == (1, 2)


@pytest.mark.parametrize(
  "wrong",
  [
    {"steps": 0},
    {"start": 0.0},
    {"start": 0.02},
    {"end": 1.0},
  ],
)
def test_numbers_out_of_range_are_refused(wrong):
  with pytest.raises(ValueError, match=next(iter(wrong))):
    Schedule(**wrong)


@pytest.mark.parametrize("low, high", [(-1, 4), (5, 4)])
def test_empty_range_of_steps_is_refused(low, high):
  with pytest.raises(ValueError, match="low="):
    sample_timesteps(jax.random.key(0), 3, low, high)


def test_weights_of_the_loss_by_hand():
  schedule = Schedule()
  t = jnp.array([0, 500, 999])
  ones = loss_weight(schedule, t, "uniform")
  np.testing.assert_array_equal(ones, 1.0)
  got = loss_weight(schedule, t, "min_snr")
  signal = schedule.alphas_cumprod[np.array([0, 500, 999])]
  snr = signal / (1 - signal)
  assert snr[0] > 5 > snr[1] > snr[2]
  np.testing.assert_allclose(got, [5 / snr[0], 1.0, 1.0], rtol=1e-5)
  with pytest.raises(ValueError, match="weighting='cosine' must be one of uni"):
    loss_weight(schedule, t, "cosine")
