"""The beat track: what each position of a latent is told about the beats.

    0, 1   sin and cos of 2 pi (t - last) / (next - last)
    2, 3   min(t - last, 1.5 s) and min(next - t, 1.5 s)
    4, 5   exp(-(d / 0.08 s)^2), and the same times d / 0.08 s
    6      exp(-(d / 0.2 s)^2)
    7      1: there is a track

t is the middle of the position, `last` and `next` are the R peaks around it,
d is t minus the nearest one. Tracks with kinds go on:

    8..10  the nearest beat is a PVC, a PAC, paced
    11     the next beat has a P wave
    12     the next beat is a PVC

All zeros say that there is no track.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ecgtwin_jax.constants import LATENT_LENGTH, SECONDS
from ecgtwin_jax.models.layers import Array

SINCE, UNTIL, GIVEN, P_WAVE = 2, 3, 7, 11
PVC = slice(8, 9)  # none of a track without kinds
OF_LAST = 0.6  # of an RR interval: so far reaches the beat that began it
BEAT_TRACKS = {"none": 0, "timing": 8, "kinds": 13}  # channels of each
_LONGEST = 1.5  # s
_NARROW, _WIDE = 0.08, 0.2  # s
_SAME_PLACE = 0.04  # s, from where on places in a beat are not the same
_PVC, _PAC, _PACED = 1, 2, 3  # as beats.rhythm.KINDS counts them


def beat_track(
  time: Float[Array, "b n"],
  kind: Int[Array, "b n"],
  p_wave: Int[Array, "b n"],
  length: int = LATENT_LENGTH,
  kinds: bool = True,
) -> Float[jax.Array, "b {length} c"]:
  """Computes the tracks of rhythms; a row without a beat gives all zeros.

  Before the first and after the last beat the interval next to it is repeated
  outwards, as unknown beats without a P wave; a single beat stands alone in 10
  s.

  Args:
    time: R peaks in seconds, ascending, padded with NaN at the end.
    kind: kind of each beat: 0 usual, 1 PVC, 2 PAC, 3 paced.
    p_wave: whether a P wave precedes each beat.
    length: positions in 10 s.
    kinds: whether the track holds more than timing.
  """
  n = time.shape[1]
  # Behind all beats, so that the search below finds none of them.
  known = jnp.where(jnp.isnan(time), jnp.inf, time)
  count = jnp.sum(jnp.isfinite(known), axis=1, keepdims=True)
  t = (jnp.arange(length) + 0.5)[None] * (SECONDS / length)
  # Number of the next beat, the first one at or behind t.
  following = jnp.sum(known[:, None] < t[..., None], axis=2)

  def at(values, number):
    return jnp.take_along_axis(values, jnp.clip(number, 0, n - 1), axis=1)

  first, final = at(known, jnp.zeros_like(count)), at(known, count - 1)
  one = count < 2
  start = jnp.where(one, SECONDS, at(known, jnp.ones_like(count)) - first)
  end = jnp.where(one, SECONDS, final - at(known, count - 2))
  inside_next, inside_last = following < count, following > 0
  ahead = first - jnp.ceil((first - t) / start) * start
  behind = final + jnp.ceil((t - final) / end) * end
  last = jnp.where(inside_last, at(known, following - 1), ahead)
  last = jnp.where(inside_next, last, behind - end)
  upcoming = jnp.where(inside_next, at(known, following), behind)
  upcoming = jnp.where(inside_last, upcoming, ahead + start)
  since, until = t - last, upcoming - t
  angle = 2 * np.pi * since / (upcoming - last)
  before = since < until
  distance = jnp.where(before, since, -until)
  bump = jnp.exp(-jnp.square(distance / _NARROW))
  channels = [
    jnp.sin(angle),
    jnp.cos(angle),
    jnp.minimum(since, _LONGEST),
    jnp.minimum(until, _LONGEST),
    bump,
    bump * distance / _NARROW,
    jnp.exp(-jnp.square(distance / _WIDE)),
    jnp.ones_like(since),
  ]
  if kinds:
    nearest = jnp.where(before, following - 1, following)
    nearest_kind = jnp.where(
      (nearest >= 0) & (nearest < count), at(kind, nearest), 0
    )
    channels += [nearest_kind == k for k in (_PVC, _PAC, _PACED)]
    channels += [
      inside_next & (at(p_wave, following) > 0),
      inside_next & (at(kind, following) == _PVC),
    ]
  track = jnp.stack(channels, axis=-1).astype(jnp.float32)
  return jnp.where(count[..., None] > 0, track, 0)


def common_to_beats(
  values: Float[Array, "b l c"], track: Float[Array, "b l f"]
) -> Float[jax.Array, "b l c"]:
  """Mean of the values at the same place of all beats, place by place.

  Places are seconds from an R peak; what lies less than 40 ms apart counts, the
  nearer the more. Premature ventricular beats have nothing in common with the
  others: there, and in a row without a track, it gives zeros.

  Args:
    values: of each position of a latent.
    track: beat tracks of the rows.
  """
  since, until = track[..., SINCE], track[..., UNTIL]
  place = jnp.where(since < OF_LAST * (since + until), since, -until)
  apart = jnp.abs(place[:, :, None] - place[:, None])
  usual = track[..., GIVEN] * (1 - track[..., PVC].sum(axis=-1))
  weight = jnp.maximum(1 - apart / _SAME_PLACE, 0)
  weight *= usual[:, :, None] * usual[:, None]
  return weight @ values / jnp.maximum(weight.sum(axis=-1, keepdims=True), 1)
