"""Heartbeats found in real recordings, known pulses and noise."""

import warnings

import numpy as np
import pytest

from ecgtwin_jax.data.ecg import example_ecg, read_ecg
from ecgtwin_jax.data.heart_rate import (
  detect_beats,
  detect_beats_by_energy,
  detect_heart_rate,
)
from helpers.recordings import PTBXL

# Heartbeats counted by eye, and the rate from the first to the last of them.
COUNTED = {
  56: (15, 88.2),
  144: (12, 70.6),  # paced, but for the first beat
  318: (16, 92.9),  # fibrillation; the first beat is cut
  448: (12, 69.0),
  730: (15, 89.7),  # left bundle branch block
  859: (20, 120.9),  # fibrillation with a ventricular beat
  942: (28, 171.0),  # fibrillation
}


def load(ecg_id):
  path = PTBXL / "records100" / "00000" / f"{ecg_id:05d}_lr"
  return read_ecg(path).resample().signal


def make_pulses(rate, sampling_rate=102.4, seconds=10, shift=0.3):
  """A lead of narrow pulses, and the seconds at which they stand."""
  beats = np.arange(shift, seconds - 0.1, 60 / rate)
  time = np.arange(round(seconds * sampling_rate)) / sampling_rate
  lead = np.exp(-(((time[:, None] - beats) / 0.02) ** 2)).sum(1)
  return lead, beats


@pytest.mark.parametrize("ecg_id", COUNTED)
def test_energy_finds_the_beats_that_were_counted(ecg_id):
  signal = load(ecg_id)
  count, rate = COUNTED[ecg_id]
  assert len(detect_beats_by_energy(signal, 102.4)) == count
  assert detect_heart_rate(signal, 102.4, "energy") == pytest.approx(
    rate, abs=1
  )


def test_xqrs_takes_t_waves_for_beats_at_the_published_rate():
  signal, (_, rate) = load(56), COUNTED[56]
  assert detect_heart_rate(signal, 102.4) == pytest.approx(rate, abs=1)
  published = detect_heart_rate(signal, 102.4, detection_rate=102.4)
  assert published > 1.9 * rate


@pytest.mark.parametrize("method", ["xqrs", "energy"])
def test_the_example_at_every_rate(method):
  ecg = example_ecg()
  for samples in (1024, 2503, 5000, 10000):
    again = ecg.resample(samples)
    rate = detect_heart_rate(again.signal, again.sampling_rate, method)
    assert rate == pytest.approx(81.7, abs=0.6)


def test_xqrs_finds_beats_in_every_lead_of_the_1000_hz_example():
  ecg = example_ecg()
  for lead in ecg.signal.T:
    assert 12 <= len(detect_beats(lead, ecg.sampling_rate)) <= 14


@pytest.mark.parametrize("sampling_rate", [102.4, 360.0, 1000.0])
@pytest.mark.parametrize("rate", [31, 47, 73, 127, 193])
def test_pulses_of_known_rate(rate, sampling_rate):
  lead, beats = make_pulses(rate, sampling_rate)
  signal = lead[:, None] * np.linspace(-1, 1, 11)
  found = detect_beats_by_energy(signal, sampling_rate)
  np.testing.assert_allclose(found / sampling_rate, beats, atol=0.02)
  found = detect_heart_rate(signal, sampling_rate, "energy")
  assert found == pytest.approx(rate, rel=5e-3)


def test_beats_are_samples_of_the_signal_given():
  lead, beats = make_pulses(73, 997.0)
  found = detect_beats(lead, 997.0)
  assert found.dtype == np.int64
  # XQRS may need the first beats to learn what a beat is.
  seen = beats[len(beats) - len(found) :]
  assert len(found) >= len(beats) - 2
  np.testing.assert_allclose(found / 997.0, seen, atol=0.03)


def test_first_lead_with_two_beats_is_taken():
  slow, _ = make_pulses(61)
  fast, _ = make_pulses(83)
  signal = np.stack([np.zeros_like(slow), fast, slow], 1)
  assert detect_heart_rate(signal, 102.4) == pytest.approx(83, abs=1)


def test_one_bad_lead_neither_adds_nor_hides_beats():
  lead, beats = make_pulses(73)
  signal = np.repeat(lead[:, None], 12, 1)
  signal[:, 0] = 0
  signal[::97, 1] += 30
  signal[:, 2] = np.random.default_rng(0).normal(size=len(lead))
  assert len(detect_beats_by_energy(signal, 102.4)) == len(beats)


@pytest.mark.parametrize("method", ["xqrs", "energy"])
@pytest.mark.parametrize("level", [0.0, 0.37, -1e3])
def test_nothing_found_in_flat_lines(method, level):
  for samples, rate in ((1024, 102.4), (5000, 500), (9973, 997)):
    flat = np.full((samples, 12), level)
    assert np.isnan(detect_heart_rate(flat, rate, method))


def test_energy_finds_nothing_in_noise():
  rng = np.random.default_rng(0)
  for noise in (
    rng.normal(size=(20, 1024, 12)),
    rng.normal(size=(20, 1024, 12)).cumsum(1),
  ):
    for signal in noise:
      assert np.isnan(detect_heart_rate(signal, 102.4, "energy"))


def test_bad_input_is_refused():
  with pytest.raises(ValueError, match="method='pan' must be 'xqrs' or"):
    detect_heart_rate(np.zeros((1024, 12)), 102.4, "pan")
  for method in ("xqrs", "energy"):
    with pytest.raises(ValueError, match="must be finite"):
      detect_heart_rate(np.full((1024, 12), np.nan), 102.4, method)


def test_detection_is_quiet_and_changes_nothing():
  signal = load(448)
  before = signal.copy()
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for method in ("xqrs", "energy"):
      detect_heart_rate(signal, 102.4, method)
  assert not caught
  np.testing.assert_array_equal(signal, before)
