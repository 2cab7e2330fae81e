"""The beat track, by hand."""

import jax
import numpy as np
import pytest

from ecgtwin_jax.models.beat_track import BEAT_TRACKS, beat_track

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
