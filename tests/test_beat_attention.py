"""Attention to the same moment of other beats."""

import jax
import jax.numpy as jnp
import numpy as np

from ecgtwin_jax.models import beat_attention
from ecgtwin_jax.models.beat_track import beat_track

PERIOD = 10 / 128 * 10  # s: beats ten positions apart
R_PEAKS = np.arange(0.43, 10, PERIOD)


same_moment = jax.jit(beat_attention.same_moment)


def track_of(kinds=None):
  kind = np.zeros((1, len(R_PEAKS)), int)
  if kinds is not None:
    kind[0, list(kinds)] = 1
  return jax.jit(beat_track)(R_PEAKS[None], kind, np.ones_like(kind))


def test_positions_a_period_apart_are_the_same_moment():
  square, other = same_moment(track_of())
  np.testing.assert_allclose(square[0, 30, 30:100:10], 0, atol=1e-9)
  # Half a position is 39 ms.
  assert square[0, 30, 31] > 0.039**2
  assert not np.asarray(other).any()


def test_beats_of_another_kind_are_told_apart():
  _, other = same_moment(track_of([3]))
  nearest = int(R_PEAKS[3] / 10 * 128)
  assert other[0, nearest, nearest + 10] == 1
  assert other[0, nearest + 10, nearest + 20] == 0


def test_without_a_track_all_moments_are_alike():
  square, other = same_moment(jnp.zeros((2, 128, 13)))
  assert not np.asarray(square).any() and not np.asarray(other).any()


def test_it_adds_nothing_at_the_start_and_then_what_other_beats_hold():
  module = beat_attention.BeatAttention(heads=2)
  x = np.random.default_rng(0).normal(size=(1, 128, 8)).astype(np.float32)
  track = track_of([3])
  params = jax.jit(module.init)(jax.random.key(0), x, track)["params"]
  apply = jax.jit(module.apply)
  np.testing.assert_array_equal(apply({"params": params}, x, track), x)

  # Narrow heads that take the values as they are, and ask for nothing.
  params["log_width"] = jnp.log(jnp.full(2, 0.01))
  params["in_proj"]["kernel"] = params["in_proj"]["kernel"].at[:, :16].set(0)
  params["out_proj"]["kernel"] = jnp.eye(8)

  def reach(position):
    """How much each position's result moves with x at `position`."""
    moved = x.copy()
    moved[0, position, 0] += 3.0
    before = apply({"params": params}, x, track)
    after = apply({"params": params}, moved, track)
    return np.abs(after - before)[0].max(axis=-1)

  found = reach(63)
  same = np.arange(13, 120, 10)
  assert found[same[same != 33]].min() > 0.01
  # Among the rest, the same moment of the ectopic beat.
  assert np.delete(found, same[same != 33])[10:-10].max() < 1e-3
