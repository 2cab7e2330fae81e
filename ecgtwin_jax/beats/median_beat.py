"""The usual beat of an ECG: beats found, sorted by shape, and their median."""

import dataclasses
import itertools

import numpy as np
import scipy
from jaxtyping import Bool, Float

from ecgtwin_jax.data.heart_rate import detect_beats_by_energy

RATE = 500  # Hz, at which beats are aligned and measured
BEFORE, AFTER = 0.40, 0.64  # s of a beat around its middle
_QRS = 0.08  # s on both sides of the middle, in which shapes are compared
_SHIFT = 0.04  # s by which alignment moves a beat, at most
_SAME_SHAPE = 0.75  # correlation with the median beat's QRS
_LUMP = 0.10  # s over which the rest of a signal is gathered
_EDGE = 0.3  # s before the end in which nothing missed is looked for
_MISSED = 0.6  # size of a missed beat, in parts of the usual one
_MISSED_SLOPE = 0.28  # steepness likewise: a T wave is large, but not steep
# Half of it where a beat lacks, in intervals beyond this multiple of the usual
# one. Source: Pan and Tompkins 1985 (IEEE Trans. Biomed. Eng. 32:230).
_LONG_GAP = 1.66


@dataclasses.dataclass(frozen=True, eq=False)
class Beats:
  """The beats of one recording and the usual one among them.

  Attributes:
    median: (s, 12) mV at 500 Hz, 0 just before QRS.
    middle: sample of `median` on which the beats' QRS complexes were aligned.
    times: (b,) seconds of the middles of all beats, in order.
    usual: (b,) which have the usual shape; the others are wide or odd.
    segments: (m, s, 12) the usual beats that lie within the recording whole,
      of which `median` is the median.
    signal: (n, 12) mV at 500 Hz, the recording without wander.
  """

  median: Float[np.ndarray, "t 12"]
  middle: int
  times: Float[np.ndarray, " beats"]
  usual: Bool[np.ndarray, " beats"]
  segments: Float[np.ndarray, "k t 12"]
  signal: Float[np.ndarray, "length 12"]

  @property
  def rr(self) -> float:
    """Median interval between beats, seconds."""
    return float(np.median(np.diff(self.times)))


def find_median_beat(
  signal: Float[np.ndarray, "t 12"], sampling_rate: float | int
) -> Beats | None:
  """The median of the beats of usual shape, at 500 Hz; None if not found.

  Beats are found by energy, aligned by correlation of QRS in all leads, and
  sorted by that correlation. What is left of the signal without the usual beat
  shows beats that were missed, such as wide, low ectopic ones. The wander of
  the baseline is a curve through the moments before each QRS.

  Raises:
    ValueError: the signal is not finite.
  """
  found = detect_beats_by_energy(signal, sampling_rate) / sampling_rate
  if len(found) < 2:
    return None
  samples = round(len(signal) * RATE / sampling_rate)
  x = scipy.signal.resample(np.asarray(signal, np.float64), samples)
  middles = np.rint(found * RATE).astype(int)
  middles, usual = _align(x, middles)
  if usual.sum() < 2:
    return None
  x = _remove_wander(x, middles, usual)
  middles, usual = _add_missed(x, middles, usual)
  before, after = round(BEFORE * RATE), round(AFTER * RATE)
  whole = usual & (middles >= before) & (middles + after <= len(x))
  if whole.sum() < 2:
    return None
  segments = _cut(x, middles[whole], before, after)
  median = median_of(segments)
  return Beats(median, before, middles / RATE, usual, segments, x)


def median_of(pieces: Float[np.ndarray, "k *t"]) -> Float[np.ndarray, "*t"]:
  """np.median along the first axis, in a quarter of its time."""
  ordered = np.sort(pieces, axis=0)
  half = len(pieces) // 2
  if len(pieces) % 2:
    return ordered[half]
  return (ordered[half - 1] + ordered[half]) / 2


def _cut(x, middles, before, after):
  """(b, before + after, 12) pieces of x; edges repeat its ends."""
  index = middles[:, None] + np.arange(-before, after)
  return x[np.clip(index, 0, len(x) - 1)]


def _align(x, middles):
  """Moves middles so that QRS complexes agree; says which have one shape."""
  half, shift = round(_QRS * RATE), round(_SHIFT * RATE)
  slopes = np.gradient(x, axis=0)
  start = _cut(slopes, middles, half + shift, half + shift)
  lags = np.arange(2 * shift + 1)
  # The beat that most others resemble is the first template.
  core = start[:, shift:-shift].reshape(len(start), -1)
  norm = np.linalg.norm(core, axis=1) + 1e-12
  alike = (core @ core.T) / (norm[:, None] * norm)
  template = core[np.argmax(np.median(alike, axis=1))]
  windows = np.lib.stride_tricks.sliding_window_view(start, 2 * half, axis=1)
  windows = windows.transpose(0, 1, 3, 2).reshape(len(start), len(lags), -1)
  norms = np.linalg.norm(windows, axis=2) + 1e-12
  for _ in range(2):
    products = windows @ template / np.linalg.norm(template)
    # No lag is better for being larger: the correlation decides.
    best = np.argmax(products / norms, axis=1)
    score = (products / norms)[np.arange(len(best)), best]
    usual = score >= _SAME_SHAPE
    if not usual.any():
      return middles, usual
    template = median_of(windows[np.flatnonzero(usual), best[usual]])
  return middles + best - shift, usual


def _remove_wander(x, middles, usual):
  """Subtracts a curve through the quietest moment before each usual QRS."""
  first, last, width = (round(t * RATE) for t in (0.16, 0.05, 0.012))
  slopes = _cut(np.gradient(x, axis=0), middles[usual], first, -last)
  speed = np.linalg.norm(median_of(slopes), axis=1)
  quiet = np.argmin(_smooth(speed, width / 2)[width:-width]) + width
  knots = middles[usual] - first + quiet
  knots = knots[(knots >= width) & (knots < len(x) - width)]
  if len(knots) < 2:
    return x - np.median(x, axis=0)
  levels = _cut(x, knots, width, width).mean(axis=1)
  curve = scipy.interpolate.PchipInterpolator(knots, levels, axis=0)
  return x - curve(np.clip(np.arange(len(x)), knots[0], knots[-1]))


def _add_missed(x, middles, usual):
  """Beats in what is left of a signal without its usual beats."""
  rr = float(np.median(np.diff(middles)))
  before = round(min(BEFORE * RATE, 0.4 * rr))
  after = round(min(AFTER * RATE, 0.6 * rr))
  pieces = _cut(x, middles[usual], before, after)
  median = median_of(pieces)
  rest = x.copy()
  # A beat's T wave goes before what precedes an early next beat's QRS.
  limits = np.append(middles[1:] - round(_QRS * RATE), len(x))
  done = 0
  for middle, limit in zip(middles[usual], limits[usual], strict=True):
    first, last = max(middle - before, done), min(middle + after, limit, len(x))
    if last > first:
      piece = median[first - middle + before : last - middle + before]
      rest[first:last] -= piece
      done = last
  size, typical = _sizes(rest, median)
  steep, typically = _sizes(
    np.gradient(rest, axis=0), np.gradient(median, axis=0)
  )
  slope = np.full(len(x), _MISSED_SLOPE * typically)
  for middle, next_one in itertools.pairwise(middles):
    if next_one - middle > _LONG_GAP * rr:
      slope[max(middle, 0) : next_one] /= 2
  peaks, _ = scipy.signal.find_peaks(
    np.where(steep >= slope, size, 0.0),
    height=_MISSED * typical,
    distance=round(0.3 * RATE),
  )
  # At the edges stand parts of beats whose QRS lies outside.
  peaks = peaks[(peaks > middles[0]) & (peaks < len(x) - _EDGE * RATE)]
  for middle, same in zip(middles, usual, strict=True):
    # Behind an odd beat is its T wave, which was not taken away.
    until = 0.15 if same else 0.5
    away = (peaks - middle) / RATE
    peaks = peaks[(away < -0.15) | (away > until)]
  order = np.argsort(np.concatenate([middles, peaks]), kind="stable")
  usual = np.concatenate([usual, np.zeros(len(peaks), bool)])
  return np.concatenate([middles, peaks])[order], usual[order]


def _sizes(rest, median):
  """Smoothed size of both over all leads; of the second the largest."""
  width = _LUMP * RATE / 2.5
  rest, median = (
    np.sqrt(_smooth((x**2).mean(axis=1), width)) for x in (rest, median)
  )
  return rest, median.max()


def _smooth(values, width):
  return scipy.ndimage.gaussian_filter1d(values, width, mode="constant")
