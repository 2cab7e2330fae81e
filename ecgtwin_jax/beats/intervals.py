"""Intervals, wave sizes and axis of one ECG."""

import math

import numpy as np
from jaxtyping import Float

from ecgtwin_jax.beats.delineation import Marks, Reading, read_ecgs
from ecgtwin_jax.beats.median_beat import RATE
from ecgtwin_jax.data.ecg import LEADS

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


def measure_beat(reading: Reading | None) -> Float[np.ndarray, " 8"]:
  """MEASURES of an ECG's median beat; nan where they cannot be taken.

  P amplitude is that of lead II, T amplitude of V5: the largest deflection
  from the level before QRS, with its sign. The axis is the direction of the
  net area of QRS in I and aVF, in -180..180 degrees. QTc is after Bazett and
  Fridericia with the median RR interval.
  """
  if reading is None:
    return np.full(len(MEASURES), np.nan)
  return measure_marks(reading.beats.median, reading.marks, reading.beats.rr)


def measure_marks(
  x: Float[np.ndarray, "t 12"], marks: Marks, rr: float
) -> Float[np.ndarray, " 8"]:
  """MEASURES of a beat of 500 Hz in mV, between its marks; rr in seconds."""
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
  signals: Float[np.ndarray, "n t 12"], label: str = ""
) -> Float[np.ndarray, "n 8"]:
  """MEASURES of every ECG of 102.4 Hz in mV."""
  return np.stack([measure_beat(x) for x in read_ecgs(signals, label=label)])


def difference(
  measured: Float[np.ndarray, "*b 8"], true: Float[np.ndarray, "*#b 8"]
) -> Float[np.ndarray, "*b 8"]:
  """measured - true; of the axis the way round the circle that is shorter."""
  error = measured - true
  axis = MEASURES.index("axis_deg")
  error[..., axis] = (error[..., axis] + 180) % 360 - 180
  return error
