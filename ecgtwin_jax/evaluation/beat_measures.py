"""Intervals, wave sizes and axis of one ECG, and how well they are measured."""

import functools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ecgtwin_jax import simulator
from ecgtwin_jax.data.ecg import LEADS, MODEL_SAMPLES
from ecgtwin_jax.evaluation.delineation import Marks, Reading, read_ecgs
from ecgtwin_jax.evaluation.median_beat import RATE

MEASURES = (
  "pr_ms",
  "qrs_ms",
  "qt_ms",
  "qtcb_ms",
  "qtcf_ms",
  "p_amplitude_mv",
  "t_amplitude_mv",
  "axis_deg",
)
_I, _II, _AVF, _V5 = map(LEADS.index, ("I", "II", "aVF", "V5"))


class Check(NamedTuple):
  """Error of the measuring itself, on ECGs whose truth is known.

  Attributes:
    bias: mean of measured minus true.
    spread: its standard deviation.
    n: ECGs that were measured and have a truth.
    failed: ECGs that have a truth and could not be measured.
  """

  bias: float
  spread: float
  n: int
  failed: int


def measure_beat(reading: Reading | None) -> Float[np.ndarray, " 8"]:
  """MEASURES of an ECG's median beat; nan where they cannot be taken.

  P amplitude is that of lead II, T amplitude of V5: the largest deflection
  from the level before QRS, with its sign. The axis is the direction of the
  net area of QRS in I and aVF, in -180..180 degrees. QTc is after Bazett and
  Fridericia with the median RR interval.
  """
  if reading is None:
    return np.full(len(MEASURES), np.nan)
  return _take(reading.beats.median, reading.marks, reading.beats.rr)


def _take(x, marks, rr):
  x = x - x[max(round(marks.qrs_onset * RATE), 0)]
  qt = marks.t_end - marks.qrs_onset
  qrs = _between(x, marks.qrs_onset, marks.qrs_offset).sum(axis=0)
  axis = math.degrees(math.atan2(qrs[_AVF] * 2 / math.sqrt(3), qrs[_I]))
  return np.array(
    [
      1000 * (marks.qrs_onset - marks.p_onset),
      1000 * (marks.qrs_offset - marks.qrs_onset),
      1000 * qt,
      1000 * qt / rr**0.5,
      1000 * qt / rr ** (1 / 3),
      _largest(_between(x[:, _II], marks.p_onset, marks.p_offset)),
      _largest(_between(x[:, _V5], marks.qrs_offset + 0.06, marks.t_end)),
      axis,
    ]
  )


def _between(x, start, stop):
  if not (math.isfinite(start) and math.isfinite(stop)):
    return x[:0]
  return x[max(round(start * RATE), 0) : round(stop * RATE) + 1]


def _largest(values):
  """The value farthest from 0."""
  if not len(values):
    return math.nan
  return float(values[np.argmax(np.abs(values))])


def measure_ecgs(
  signals: Float[np.ndarray, "n s 12"], label: str = ""
) -> Float[np.ndarray, "n 8"]:
  """MEASURES of every ECG of 102.4 Hz in mV."""
  return np.stack([measure_beat(x) for x in read_ecgs(signals, label=label)])


def difference(
  measured: Float[np.ndarray, "*b 8"], true: Float[np.ndarray, "*b 8"]
) -> Float[np.ndarray, "*b 8"]:
  """measured - true; of the axis the way round the circle that is shorter."""
  error = measured - true
  axis = MEASURES.index("axis_deg")
  error[..., axis] = (error[..., axis] + 180) % 360 - 180
  return error


@functools.cache
def check_chain(
  patients: int = 60, recordings: int = 2, *, noise: bool = True, seed: int = 0
) -> dict[str, Check]:
  """Error of MEASURES on simulated ECGs at 102.4 Hz, whose truth is known.

  Intervals are held against the simulator's marks; amplitudes and axis, which
  it does not list, against the same beat without noise between its true marks.
  """
  errors = []
  for number in range(patients):
    made = simulator.cohort_recordings(seed, number, recordings, noise)
    clean = simulator.cohort_recordings(seed, number, recordings, False)
    for shown, plain in zip(made, clean, strict=True):
      ecg = shown.ecg.resample(MODEL_SAMPLES)
      measured = measure_ecgs(ecg.signal[None])[0]
      errors.append((measured, measure_truth(plain)))
  measured, true = np.stack(errors, axis=1)
  error = difference(measured, true)
  good = np.isfinite(error)
  return {
    name: Check(
      float(error[good[:, k], k].mean()),
      float(error[good[:, k], k].std()),
      int(good[:, k].sum()),
      int((np.isfinite(true[:, k]) & ~good[:, k]).sum()),
    )
    for k, name in enumerate(MEASURES)
  }


def measure_truth(shown: simulator.Recording) -> Float[np.ndarray, " 8"]:
  """MEASURES of a simulated recording without noise, from its true marks."""
  found = shown.fiducials
  usual = np.flatnonzero(np.isin(found.kind, ("normal", "paced")))
  inside = usual[(found.qrs_onset[usual] > 0.4) & (found.t_end[usual] < 9.9)]
  beat = inside[0] if len(inside) else usual[0]
  names = Marks.__dataclass_fields__
  marks = Marks(**{name: float(getattr(found, name)[beat]) for name in names})
  signal = shown.ecg.signal.astype(np.float64)
  return _take(signal, marks, 60 / shown.condition.heart_rate)
