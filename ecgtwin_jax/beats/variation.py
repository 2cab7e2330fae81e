"""How much one recording's beats differ: in shape and in their distances."""

import math

import numpy as np
from jaxtyping import Float

from ecgtwin_jax.beats.median_beat import RATE, Beats, median_of

LEAST = 3  # beats, or intervals between beats, that a spread is taken from
_BEFORE, _AFTER = 0.26, 0.44  # s of a beat that are compared, at a slow rate


def beat_spread(beats: Beats) -> float:
  """Spread of the usual beats about their median, microvolt.

  s = median over beats of sqrt(mean over time and leads of (beat - median)^2),
  from before P to the end of T, less of it where the heart is fast, so that no
  neighbour takes part. It holds what is noise and what the heart does
  differently from beat to beat; a perfectly periodic ECG has 0. nan of fewer
  than three beats.
  """
  if len(beats.segments) < LEAST:
    return math.nan
  before = round(min(_BEFORE, 0.4 * beats.rr) * RATE)
  after = round(min(_AFTER, 0.55 * beats.rr) * RATE)
  window = slice(beats.middle - before, beats.middle + after)
  rest = beats.segments[:, window] - beats.median[window]
  return 1000 * float(np.median(np.sqrt((rest**2).mean(axis=(1, 2)))))


def half_beats(
  beats: Beats,
) -> tuple[Float[np.ndarray, "t 12"], Float[np.ndarray, "t 12"]] | None:
  """Median of every other usual beat, and of the rest; None of fewer than 4."""
  if len(beats.segments) < 4:
    return None
  return median_of(beats.segments[::2]), median_of(beats.segments[1::2])


def rr_spread(beats: Beats) -> float:
  """Standard deviation of the intervals between neighbouring usual beats, ms.

  An interval that an odd beat begins or ends says nothing of the rhythm and is
  left out. nan of fewer than three intervals.
  """
  plain = beats.usual[1:] & beats.usual[:-1]
  if plain.sum() < LEAST:
    return math.nan
  return 1000 * float(np.diff(beats.times)[plain].std())
