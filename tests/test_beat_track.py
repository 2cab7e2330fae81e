"""The beat track, by hand."""

import jax
import numpy as np
import pytest

from ecgtwin_jax.models.beat_track import (
  BEAT_TRACKS,
  beat_track,
  common_to_beats,
)

NONE = np.nan
compute = jax.jit(beat_track, static_argnums=(3, 4))


def track(times, codes=None, p_waves=None, kinds=False):
  """The track (length, c) of one rhythm, padded to five beats."""
  padding = 5 - len(times)
  rows = [
    np.array([[*times, *[NONE] * padding]], np.float32),
    np.array([[*(codes or [0] * len(times)), *[-1] * padding]], np.int8),
    np.array([[*(p_waves or [1] * len(times)), *[-1] * padding]], np.int8),
  ]
  return np.asarray(compute(*rows, 10, kinds))[0]


def test_timing_by_hand():
  got = track([1.2, 2.2, 2.7])
  assert got.shape == (10, BEAT_TRACKS["timing"])
  # Middles are 0.5, 1.5, ...: before the first beat, between beats, at the end.
  since = np.array([0.3, 0.3, 0.3, 0.3, 0.3])
  until = np.array([0.7, 0.7, 0.2, 0.2, 0.2])
  np.testing.assert_allclose(got[:5, 2], since, atol=1e-5)
  np.testing.assert_allclose(got[:5, 3], until, atol=1e-5)
  phase = 2 * np.pi * since / (since + until)
  np.testing.assert_allclose(got[:5, 0], np.sin(phase), atol=1e-5)
  np.testing.assert_allclose(got[:5, 1], np.cos(phase), atol=1e-5)
  d = np.array([0.3, 0.3, -0.2, -0.2, -0.2])
  np.testing.assert_allclose(got[:5, 4], np.exp(-((d / 0.08) ** 2)), atol=1e-5)
  np.testing.assert_allclose(
    got[:5, 5], d / 0.08 * np.exp(-((d / 0.08) ** 2)), atol=1e-5
  )
  np.testing.assert_allclose(got[:5, 6], np.exp(-((d / 0.2) ** 2)), atol=1e-5)
  np.testing.assert_array_equal(got[:, 7], 1)


def test_a_pause_is_clipped_to_a_second_and_a_half():
  got = track([0.1, 6.1, 6.6])
  np.testing.assert_allclose(got[3, 2:4], [1.5, 1.5], atol=1e-5)
  np.testing.assert_allclose(got[5, 2:4], [1.5, 0.6], atol=1e-5)
  # The phase is that of the whole pause.
  np.testing.assert_allclose(got[3, 0], np.sin(2 * np.pi * 3.4 / 6), atol=1e-5)


def test_kinds_by_hand():
  got = track([1.2, 2.2, 2.7], [2, 0, 1], [1, 1, 0], kinds=True)
  assert got.shape == (10, BEAT_TRACKS["kinds"])
  np.testing.assert_array_equal(got[:, :8], track([1.2, 2.2, 2.7]))
  # The nearest is a PVC, a PAC, paced; the next has a P wave; it is a PVC.
  np.testing.assert_array_equal(got[0, 8:], [0, 0, 0, 1, 0])
  np.testing.assert_array_equal(got[1, 8:], [0, 1, 0, 1, 0])
  np.testing.assert_array_equal(got[2, 8:], [1, 0, 0, 0, 1])
  np.testing.assert_array_equal(got[3:, 8:], 0)
  paced = track([1.2, 2.2], [3, 3], [0, 0], kinds=True)
  np.testing.assert_array_equal(paced[1, 8:], [0, 0, 1, 0, 0])


def test_one_beat_and_none():
  got = track([4.0])
  np.testing.assert_allclose(got[3, 2:4], [1.5, 0.5], atol=1e-5)
  np.testing.assert_allclose(got[4, 2:4], [0.5, 1.5], atol=1e-5)
  assert np.isfinite(got).all()
  for kinds in (False, True):
    np.testing.assert_array_equal(track([], kinds=kinds), 0)


@pytest.mark.parametrize("length", [32, 128])
def test_rows_do_not_depend_on_each_other_or_on_padding(length):
  times = np.full((3, 48), np.nan, np.float32)
  kinds = np.full((3, 48), -1, np.int8)
  rng = np.random.default_rng(0)
  for row, count in enumerate((0, 7, 19)):
    times[row, :count] = np.sort(rng.uniform(0, 10, count))
    kinds[row, :count] = rng.integers(0, 4, count)
  whole = compute(times, kinds, kinds % 2, length, True)
  assert np.isfinite(whole).all()
  for row, count in enumerate((0, 7, 19)):
    if count:
      cut = slice(row, row + 1), slice(count)
      alone = compute(times[cut], kinds[cut], kinds[cut] % 2, length, True)
      np.testing.assert_array_equal(alone[0], whole[row])
    else:
      np.testing.assert_array_equal(whole[row], 0)


def test_what_beats_have_in_common_is_their_mean_place_by_place():
  # Every 16 positions of 128 a beat: places come back exactly.
  time = 0.4 + 1.25 * np.arange(8, dtype=np.float32)[None]
  none = np.zeros((1, 8), np.int8)
  regular = beat_track(time, none, none)
  rng = np.random.default_rng(0)
  noise = rng.standard_normal((1, 128, 64)).astype(np.float32)
  common = common_to_beats(noise, regular)
  mean = np.tile(noise.reshape(8, 16, 64).mean(axis=0), (8, 1))[None]
  np.testing.assert_allclose(common, mean, atol=1e-4)
  np.testing.assert_allclose(common_to_beats(mean, regular), mean, atol=1e-4)
  nothing = np.zeros_like(regular)
  assert not np.asarray(common_to_beats(noise, nothing)).any()
  timing = common_to_beats(noise, regular[:, :, :8])
  np.testing.assert_array_equal(timing, common)


def test_a_premature_beat_has_nothing_in_common_with_usual_ones():
  time = 0.4 + 1.25 * np.arange(8, dtype=np.float32)[None]
  kind = np.array([[0, 0, 0, 1, 0, 0, 2, 0]], np.int8)
  told = np.asarray(beat_track(time, kind, 0 * kind))
  premature = told[0, :, 8] > 0
  assert 8 <= premature.sum() <= 24
  values = np.where(premature, 100.0, 1.0)[None, :, None].astype(np.float32)
  expected = np.where(premature, 0.0, 1.0)[None, :, None]
  np.testing.assert_allclose(common_to_beats(values, told), expected, atol=1e-5)
