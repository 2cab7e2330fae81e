"""A beat at another heart rate."""

import jax.numpy as jnp
import numpy as np
import pytest

from ecgtwin_jax.constants import MEDIAN_R, MODEL_RATE
from ecgtwin_jax.data.conditions import standardize_patient
from ecgtwin_jax.models.beat_rate import at_60_bpm, from_60_bpm


def patients(*rates):
  return jnp.asarray(standardize_patient(np.array(rates), -1, -1))


def bump(*seconds):
  """Beats (n, 80, 12) of one smooth wave, so far behind R."""
  time = (np.arange(80) - MEDIAN_R) / MODEL_RATE
  middles = np.array(seconds)[:, None]
  wave = np.exp(-(((time - middles) / 0.03) ** 2))
  return jnp.asarray(np.repeat(wave[..., None], 12, axis=2), jnp.float32)


def middle(beat):
  weight = np.asarray(beat, float)[..., 0]
  return (weight * np.arange(80)).sum(axis=1) / weight.sum(axis=1)


def test_at_60_bpm_nothing_moves():
  beat = bump(0.25)
  for move in (at_60_bpm, from_60_bpm):
    np.testing.assert_allclose(move(beat, patients(60)), beat, atol=1e-5)


def test_a_wave_behind_qrs_goes_by_the_square_root_of_rr():
  rates = np.array([40.0, 90.0, 120.0])
  beat = from_60_bpm(bump(0.2, 0.2, 0.2), patients(*rates))
  kept = 0.06  # s behind R: QRS lasts as long at every rate
  wanted = kept + (0.2 - kept) * (60 / rates) ** 0.5
  found = (middle(beat) - MEDIAN_R) / MODEL_RATE
  np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_qt_as_a_whole_goes_by_the_cube_root_of_rr():
  rates = np.array([50.0, 75.0, 100.0, 120.0])
  ends = from_60_bpm(bump(*[0.36] * 4), patients(*rates))
  qt = 0.04 + (middle(ends) - MEDIAN_R) / MODEL_RATE  # Q 40 ms before R
  np.testing.assert_allclose(qt, 0.4 * (60 / rates) ** (1 / 3), rtol=0.025)


def test_what_is_before_the_t_wave_stays():
  beat = jnp.asarray(np.random.default_rng(0).normal(size=(2, 80, 12)), "f4")
  moved = from_60_bpm(beat, patients(45, 150))
  kept = MEDIAN_R + int(0.06 * MODEL_RATE) + 1
  np.testing.assert_allclose(moved[:, :kept], beat[:, :kept], atol=1e-5)
  assert np.abs(moved[:, kept:] - beat[:, kept:]).max() > 0.1


@pytest.mark.parametrize("rate", [45, 75, 110])
def test_there_and_back_is_the_same_beat(rate):
  beat = bump(0.22)
  back = from_60_bpm(at_60_bpm(beat, patients(rate)), patients(rate))
  np.testing.assert_allclose(back, beat, atol=0.06)


def test_an_impossible_rate_moves_no_farther_than_the_nearest_possible_one():
  beat = bump(0.2)
  np.testing.assert_array_equal(
    from_60_bpm(beat, patients(900)), from_60_bpm(beat, patients(300))
  )
