"""The rhythm of a recording: when its beats fall, and of what kind they are."""

import functools
import math
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float, Float16, Float32, Int8

from ecgtwin_jax.beats.delineation import Marks, delineate
from ecgtwin_jax.beats.median_beat import RATE, Beats, find_median_beat
from ecgtwin_jax.constants import MEDIAN_R, MEDIAN_SAMPLES, SECONDS
from ecgtwin_jax.data.ecg import MODEL_RATE
from ecgtwin_jax.data.heart_rate import detect_beats_by_energy

VERSION = 5  # raised when the beats that are found change: encode tells by it
MAX_BEATS = 48  # of a recording: 288 bpm for 10 s
KINDS = ("usual", "pvc", "pac", "paced")
_USUAL, _PVC, _PAC, _PACED = range(len(KINDS))

_SMOOTH = 0.004  # s: standard deviation over which an R peak is looked for
_R_REACH = 0.10  # s on both sides of a beat's middle, where QRS has no ends
_EDGE = 0.10  # s from an end within which a beat's shape is not judged
_EARLY = 0.88  # of the usual RR interval: a beat of another shape
_EARLY_NARROW = 0.85  # of it, and of the intervals around: one of that shape
_WIDE = 0.11  # s: QRS of a beat of another shape
_REGULAR = 0.10  # standard deviation of RR in parts of its mean
_SAME_P = 0.3  # correlation of a beat's P wave with that of the median beat
_SPIKE = 0.75  # of the largest 33..49 Hz amplitude in QRS: just before it
_SPIKE_QRS = 0.12  # s: QRS of a paced beat, at least
_SPIKE_BAND = 33.0, 49.0  # Hz
_BELOW_SPIKE = 25.0  # Hz
_FLUTTER = 0.17, 0.235  # s from one flutter wave to the next: 255..350 a minute
_FLUTTER_ALIKE = 0.75  # autocorrelation at one and two such cycles, at least
_SLOW_ALIKE = 0.6  # with four or more in RR: P and T cannot look like that
_ATRIAL_RATE = 250  # Hz at which flutter is looked for
_ATRIAL_BAND = 3.0, 15.0  # Hz


class Rhythm(NamedTuple):
  """The beats of ten seconds.

  Attributes:
    time: (48,) seconds of the R peaks in [0, 10), ascending; NaN is padding.
    kind: (48,) number in KINDS; -1 is padding.
    p_wave: (48,) 1 where a P wave precedes the beat, else 0; -1 is padding.
  """

  time: Float32[np.ndarray, "48"]
  kind: Int8[np.ndarray, "48"]
  p_wave: Int8[np.ndarray, "48"]


class RhythmAndBeat(NamedTuple):
  """The beats of ten seconds, and their median.

  Attributes:
    rhythm: when the beats are, and of what kind.
    median_beat: (80, 12) mV at 102.4 Hz, sample 31 on the R peak, 0 just
      before QRS; zeros where no two like beats are found.
    median_beat_found: 1, or 0 where none is found.
  """

  rhythm: Rhythm
  median_beat: Float16[np.ndarray, "80 12"]
  median_beat_found: int


def detect_rhythm(
  signal: Float[np.ndarray, "t 12"], sampling_rate: float | int
) -> Rhythm:
  """The beats of ten seconds in mV; see `detect_rhythm_and_beat`."""
  return detect_rhythm_and_beat(signal, sampling_rate).rhythm


def detect_rhythm_and_beat(
  signal: Float[np.ndarray, "t 12"], sampling_rate: float | int
) -> RhythmAndBeat:
  """Times, kinds and P waves of the beats of ten seconds, and their median.

  All is read at 102.4 Hz, whatever the rate, so that a recording in a data set
  and the same one in a file have the same beats.

  A PVC is a wide beat of another shape, or an early one. A PAC is an early beat
  of the usual shape in a regular rhythm with P waves. Beats are paced where a
  spike stands before a wide QRS in a regular rhythm without P waves. A beat has
  a P wave where the median beat has one and the beat's own looks like it; a PAC
  has its own, and no PVC and no paced beat has any.

  Where no two like beats are found, the times are those of
  `detect_beats_by_energy`, and nothing is said of kinds and P waves: all are
  usual, and have none.

  Args:
    signal: mV.
    sampling_rate: Hz.

  Raises:
    ValueError: the signal is not finite, or not ten seconds long.
  """
  if round(len(signal) / sampling_rate * 10) != SECONDS * 10:
    raise ValueError(f"signal {signal.shape=} at {sampling_rate=} must be 10 s")
  samples = round(SECONDS * MODEL_RATE)
  if len(signal) != samples:
    signal = scipy.signal.resample(np.asarray(signal, np.float64), samples)
  beats = find_median_beat(signal, MODEL_RATE)
  if beats is None:
    time = detect_beats_by_energy(signal, MODEL_RATE) / MODEL_RATE
    none = np.zeros(len(time), np.int8)
    empty = np.zeros((MEDIAN_SAMPLES, signal.shape[1]), np.float16)
    return RhythmAndBeat(_pad(time, none, none), empty, 0)
  marks = delineate(beats)
  r_offset = _find_r_offset(beats, marks)
  time = _find_times(beats, r_offset)
  p_wave = _find_p_waves(beats, marks)
  kind = _find_kinds(beats, time, p_wave)
  # At the edges QRS is cut, and looks odd.
  cut = ~beats.usual & (kind == _USUAL)
  p_wave = np.where(cut, p_wave[beats.usual].mean() >= 0.5, p_wave)
  p_wave = np.where(kind == _PAC, 1, p_wave)
  p_wave = np.where((kind == _PVC) | (kind == _PACED), 0, p_wave)
  rhythm = _pad(time, kind, p_wave)
  return RhythmAndBeat(rhythm, _cut_median(beats, r_offset), 1)


def _pad(time, kind, p_wave):
  inside = (time >= 0) & (time < SECONDS)
  padded = []
  for values, dtype, blank in (
    (time, np.float32, np.nan),
    (kind, np.int8, -1),
    (p_wave, np.int8, -1),
  ):
    values = values[inside][:MAX_BEATS]
    column = np.full(MAX_BEATS, blank, dtype)
    column[: len(values)] = values
    padded.append(column)
  return Rhythm(*padded)


def _find_r_offset(beats: Beats, marks: Marks | None):
  """Samples from the middle of usual beats to their R peak."""
  reach = round(_R_REACH * RATE)
  first, last = beats.middle - reach, beats.middle + reach
  if marks is not None:
    first = round(marks.qrs_onset * RATE)
    last = round(marks.qrs_offset * RATE)
  return _largest(beats.median[first : last + 1]) + first - beats.middle


def _find_times(beats, r_offset):
  """Seconds of the R peaks, ascending."""
  middles = np.rint(beats.times * RATE).astype(int)
  peaks = middles + r_offset
  reach = round(_R_REACH * RATE)
  for k in np.flatnonzero(~beats.usual):
    first = max(middles[k] - reach, 0)
    peaks[k] = first + _largest(beats.signal[first : middles[k] + reach + 1])
  return peaks / RATE


def _largest(piece):
  """Sample at which the leads together are largest."""
  smooth = scipy.ndimage.gaussian_filter1d(piece, _SMOOTH * RATE, axis=0)
  return int(np.argmax((smooth**2).sum(axis=1)))


def _find_p_waves(beats, marks):
  """Which usual beats are preceded by the P wave of the median beat."""
  p_wave = np.zeros(len(beats.times), np.int8)
  if marks is None or not math.isfinite(marks.p_peak):
    return p_wave
  first, last = round(marks.p_onset * RATE), round(marks.p_offset * RATE)
  if _flutters(beats, marks, beats.median[first:last]):
    return p_wave
  wanted = _level(beats.median[first:last])
  for k in np.flatnonzero(beats.usual):
    start = round(beats.times[k] * RATE) - beats.middle + first
    if start < 0:
      p_wave[k] = 1  # it is not in the recording: the beat is as the others
      continue
    shown = _level(beats.signal[start : start + last - first])
    size = np.linalg.norm(shown) * np.linalg.norm(wanted)
    p_wave[k] = (shown * wanted).sum() > _SAME_P * size
  return p_wave


def _flutters(beats, marks, p):
  """Whether what looks like P is one of several equal waves in each RR.

  Between the QRS complexes the leads are combined as P has them; flutter waves
  repeat after one cycle and after two, and RR holds a whole number of cycles.
  """
  step = RATE // _ATRIAL_RATE
  between = np.ones(len(beats.signal), bool)
  for middle in np.rint(beats.times * RATE).astype(int):
    start = middle - beats.middle + round((marks.qrs_onset - 0.01) * RATE)
    stop = middle - beats.middle + round((marks.qrs_offset + 0.02) * RATE)
    between[max(start, 0) : stop] = False
  _, _, rows = np.linalg.svd(
    p - np.linspace(p[0], p[-1], len(p)), full_matrices=False
  )
  at = np.arange(len(between))
  wave = np.interp(at, at[between], beats.signal[between] @ rows[0])[::step]
  between = between[::step]
  band = _design(_ATRIAL_BAND, "bandpass", _ATRIAL_RATE)
  wave = scipy.signal.sosfiltfilt(band, wave)
  for waves in range(2, 8):
    cycle = beats.rr / waves
    if _FLUTTER[0] <= cycle <= _FLUTTER[1]:
      lags = (round(n * cycle * _ATRIAL_RATE) for n in (1, 2))
      least = _FLUTTER_ALIKE if waves < 4 else _SLOW_ALIKE
      if all(_alike(wave, between, lag) >= least for lag in lags):
        return True
  return False


def _alike(wave, valid, lag):
  """Correlation of a wave with itself `lag` samples later."""
  both = valid[lag:] & valid[:-lag]
  a, b = wave[lag:][both], wave[:-lag][both]
  return (a @ b) / math.sqrt((a @ a) * (b @ b) + 1e-24)


def _level(piece):
  """A wave without the line through its ends and its mean."""
  line = np.linspace(piece[0], piece[-1], len(piece))
  return piece - line - (piece - line).mean(axis=0)


@functools.cache
def _design(band, kind, rate):
  return scipy.signal.butter(2, band, kind, fs=rate, output="sos")


def _find_kinds(beats, time, p_wave):
  kind = np.full(len(time), _USUAL, np.int8)
  rr = np.diff(time)
  usual = float(np.median(rr))
  # An interval that an odd beat ends or begins says nothing of the rhythm.
  plain = beats.usual[1:] & beats.usual[:-1]
  has_p = p_wave[beats.usual].mean() >= 0.5
  early = np.zeros(len(time), bool)
  if has_p:
    early[1:] = plain & _is_early(rr, plain, usual)
  kind[early] = _PAC
  # Nor does what comes before and after an early beat.
  steady = rr[plain & ~early[1:] & ~early[:-1]]
  regular = len(steady) < 2 or steady.std() <= _REGULAR * steady.mean()
  if not has_p and regular and _has_spike(beats):
    kind[beats.usual] = _PACED
  away = (time >= _EDGE) & (time < SECONDS - _EDGE)
  for k in np.flatnonzero(~beats.usual & away):
    soon = k > 0 and rr[k - 1] < _EARLY * usual
    if soon or _width(beats.signal, time[k]) >= _WIDE:
      kind[k] = _PVC
  return kind


def _is_early(rr, plain, usual):
  """Which intervals are short beside the usual one and their neighbours."""
  early = rr < _EARLY_NARROW * usual
  for k in np.flatnonzero(early):
    for other in (k - 1, k + 1):
      if 0 <= other < len(rr) and plain[other]:
        early[k] &= rr[k] < _EARLY_NARROW * rr[other]
  return early


def _width(signal, time):
  """Seconds that a beat's leads together are steep; at most 0.24."""
  middle, reach = round(time * RATE), round(0.12 * RATE)
  piece = signal[max(middle - reach, 0) : middle + reach]
  smooth = scipy.ndimage.gaussian_filter1d(piece, 2 * _SMOOTH * RATE, axis=0)
  speed = np.linalg.norm(np.gradient(smooth, axis=0), axis=1)
  steep = np.flatnonzero(speed >= 0.25 * speed.max())
  return (steep[-1] - steep[0]) / RATE


def _has_spike(beats):
  """Whether the median QRS is wide, and begins with a pacemaker's spike.

  At 102.4 Hz the spike rings, and QRS then often has no clear ends; but in
  33..49 Hz it is as large as the whole of a paced QRS, and stands before it.
  """
  slow, fast = (
    scipy.signal.sosfiltfilt(_design(*filtering, RATE), beats.median, axis=0)
    for filtering in ((_BELOW_SPIKE, "lowpass"), (_SPIKE_BAND, "bandpass"))
  )
  power = (fast**2).sum(axis=1)
  size = np.sqrt(scipy.ndimage.gaussian_filter1d(power, 0.008 * RATE))
  reach = round(0.12 * RATE)
  first = beats.middle - reach
  r = first + _largest(slow[first : beats.middle + reach])
  before, start, stop = (
    r + round(away * RATE) for away in (-0.14, -0.07, 0.12)
  )
  spike = size[before:start].max()
  return bool(
    _width(slow, r / RATE) >= _SPIKE_QRS
    and spike >= _SPIKE * size[start:stop].max()
  )


def _cut_median(beats, r_offset):
  """(80, 12) float16 of the median beat at 102.4 Hz."""
  away = np.arange(MEDIAN_SAMPLES) - MEDIAN_R
  at = beats.middle + r_offset + away * (RATE / MODEL_RATE)
  spline = scipy.interpolate.CubicSpline(
    np.arange(len(beats.median)), beats.median, axis=0
  )
  at = np.clip(at, 0, len(beats.median) - 1)
  return spline(at).astype(np.float16)
