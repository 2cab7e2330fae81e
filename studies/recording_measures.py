"""What is measured of recordings, simulated or real, to hold sets side by side.

One recording of each patient, read by the same delineation: rate, intervals,
axis, sizes of waves, variation, noise and wander.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.signal
from jaxtyping import Float, Float32
from tqdm import tqdm

from ecgtwin_jax.beats.delineation import Reading, read_ecg_beats
from ecgtwin_jax.beats.intervals import MEASURES, measure_beat
from ecgtwin_jax.beats.median_beat import RATE
from ecgtwin_jax.beats.variation import beat_spread, rr_spread
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.dataset import SPLITS, load_split
from ecgtwin_jax.data.ecg import LEADS, MODEL_RATE, MODEL_SAMPLES
from ecgtwin_jax.evaluation.generate_examples import (
  read_condition,
  signals_mv,
)
from ecgtwin_jax.simulator.simulate import cohort_recordings

WAVES = ("p", "q", "r", "s", "j", "t")
_NOISE = ((1, 5), (5, 15), (15, 25), (25, 40))  # Hz
_WANDER = ((0.05, 0.25), (0.25, 0.6))  # Hz: slower than a heart of 40 bpm
GROUPS = {
  "rate": ("heart_rate_bpm",),
  "intervals": MEASURES[:5],
  "axis": ("axis_deg",),
  "sizes": tuple(f"{wave}_{lead}_mv" for wave in WAVES for lead in LEADS),
  "variation": ("beat_spread_uv", "rr_spread_ms"),
  "noise": tuple(f"noise_{low}_{high}hz_uv" for low, high in _NOISE),
  "baseline": tuple(f"wander_{low}_{high}hz_uv" for low, high in _WANDER),
}
COLUMNS = tuple(name for names in GROUPS.values() for name in names)


class Recordings(NamedTuple):
  """One recording of each patient.

  Attributes:
    signals: mV at 102.4 Hz.
    conditions: what each shows.
  """

  signals: Float32[np.ndarray, "n 1024 12"]
  conditions: list[Condition]


def read_real(directory: str, splits: Sequence[str] = SPLITS) -> Recordings:
  """The recordings of these splits whose patient has no other."""
  parts = [load_split(directory, split, kind="ecg") for split in splits]
  signals, conditions = [], []
  for data in parts:
    _, place, count = np.unique(
      data.patient_number, return_inverse=True, return_counts=True
    )
    rows = np.flatnonzero(count[place] == 1)
    signals.append(signals_mv(data, rows))
    conditions += [read_condition(data, row) for row in rows]
  return Recordings(np.concatenate(signals), conditions)


def simulate_recordings(patients: int, seed: int) -> Recordings:
  """The first recording of each patient of a simulated cohort."""
  signals, conditions = [], []
  for patient in tqdm(range(patients), desc="Simulated", unit=" ECG"):
    (shown,) = cohort_recordings(seed, patient, 1)
    signals.append(shown.ecg.resample(MODEL_SAMPLES).signal)
    conditions.append(shown.condition)
  return Recordings(np.stack(signals), conditions)


def measure(
  recordings: Recordings, label: str
) -> dict[str, Float[np.ndarray, " n"]]:
  """COLUMNS of each recording; nan where one cannot be taken."""
  rows = [
    _measure_one(signal, read_ecg_beats(signal))
    for signal in tqdm(recordings.signals, desc=label, unit=" ECG")
  ]
  return dict(zip(COLUMNS, np.array(rows).T, strict=True))


def _measure_one(signal, reading):
  values = dict.fromkeys(COLUMNS, math.nan)
  wander = _band_sizes(signal - signal.mean(axis=0), MODEL_RATE, _WANDER)
  values |= zip(GROUPS["baseline"], wander, strict=True)
  if reading is not None:
    measured = dict(zip(MEASURES, measure_beat(reading), strict=True))
    sizes = measure_waves(reading).ravel()
    values |= {name: measured[name] for name in GROUPS["intervals"]}
    values |= zip(GROUPS["sizes"], sizes, strict=True)
    values |= zip(GROUPS["noise"], _noise(reading), strict=True)
    values |= {
      "heart_rate_bpm": 60 / reading.beats.rr,
      "axis_deg": measured["axis_deg"],
      "beat_spread_uv": beat_spread(reading.beats),
      "rr_spread_ms": rr_spread(reading.beats),
    }
  return [values[name] for name in COLUMNS]


def measure_waves(reading: Reading) -> Float[np.ndarray, "6 12"]:
  """Sizes of WAVES in each lead of the median beat, mV from before QRS.

  P and T: the largest deflection, with its sign; R: the height of QRS; Q and S:
  its depth before and after R; J: the level where it ends.
  """
  marks = reading.marks
  onset, offset = (
    round(mark * RATE) for mark in (marks.qrs_onset, marks.qrs_offset)
  )
  x = reading.beats.median - reading.beats.median[onset]
  qrs = x[onset : offset + 1]
  before = np.arange(len(qrs))[:, None] <= np.argmax(qrs, axis=0)
  return np.stack(
    [
      _largest(x, marks.p_onset, marks.p_offset),
      -np.where(before, qrs, 0.0).min(axis=0),
      np.maximum(qrs.max(axis=0), 0.0),
      -np.where(before, 0.0, qrs).min(axis=0),
      x[offset],
      _largest(x, marks.qrs_offset + 0.06, marks.t_end),
    ]
  )


def _largest(x, start, stop):
  if not (math.isfinite(start) and math.isfinite(stop)):
    return np.full(x.shape[1], np.nan)
  piece = x[max(round(start * RATE), 0) : round(stop * RATE) + 1]
  if not len(piece):
    return np.full(x.shape[1], np.nan)
  return np.take_along_axis(piece, np.abs(piece).argmax(axis=0)[None], 0)[0]


def _noise(reading):
  """Size in bands of what beats have beyond their median, microvolt."""
  beats = reading.beats
  before, after = (round(part * beats.rr * RATE) for part in (0.4, 0.55))
  window = slice(max(beats.middle - before, 0), beats.middle + after)
  rest = beats.segments[:, window] - beats.median[window]
  sizes = [_band_sizes(beat, RATE, _NOISE) for beat in rest]
  return np.median(sizes, axis=0)


def _band_sizes(x, rate, bands):
  """Root mean square of x (mV) in bands, mean over leads, microvolt."""
  frequency, power = scipy.signal.periodogram(
    x, rate, "hann", axis=0, scaling="density"
  )
  step = frequency[1]
  return [
    1000
    * np.sqrt(
      step * power[(frequency >= low) & (frequency < high)].sum(axis=0)
    ).mean()
    for low, high in bands
  ]
