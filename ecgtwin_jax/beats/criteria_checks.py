"""Criteria that a clinician would check on an ECG, one by one."""

import math

import numpy as np

from ecgtwin_jax.beats.delineation import Reading, read_ecg_beats
from ecgtwin_jax.beats.median_beat import RATE
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import ECG, LEADS
from ecgtwin_jax.text.findings import CRITERIA, asks_for

_LEAD = {lead: k for k, lead in enumerate(LEADS)}
# Leads that look at neighbouring walls.
_CONTIGUOUS = (
  *(("aVL", "I"), ("II", "aVF"), ("aVF", "III"), ("II", "III")),
  *(("V1", "V2"), ("V2", "V3"), ("V3", "V4"), ("V4", "V5"), ("V5", "V6")),
)
_SOKOLOW = 3.5  # mV
_CORNELL = {"M": 2.8, "F": 2.0, None: 2.8}  # mV
_WIDE = 0.120  # s
_LONG_PR = 0.200  # s
_IRREGULAR = 0.10  # standard deviation of RR in parts of its mean
_EARLY = 0.88  # of the usual RR interval: a beat of another shape
_EARLY_NARROW = 0.82  # a beat of the usual shape
_NARROW = 0.105  # s: below it a bundle branch block is plainly not there
_RATE_OFF = 0.2  # of the heart rate


def check_criteria(
  reading: Reading | ECG | None, condition: Condition
) -> dict[str, bool]:
  """Which of CRITERIA an ECG meets; what cannot be measured is not met.

  lvh: Sokolow S_V1 + max(R_V5, R_V6) > 3.5 mV or Cornell R_aVL + S_V3 > 2.8
    (F: 2.0) mV.
  st_elevation: at J in two contiguous leads >= 0.1 mV, in V2 and V3 0.15 (F),
    0.2 (M) or 0.25 (M under 40); not judged where a wide QRS that is negative
    in V1 explains it.
  lbbb: QRS >= 120 ms, negative in V1, wholly positive in I and V6.
  rbbb: QRS >= 120 ms, its later half positive in V1 and negative in I and V6.
  av_block: PR > 200 ms.
  fibrillation: RR varies by > 0.10 of its mean, and no P wave.
  pvc: an early beat of another shape. pac: an early beat of the usual shape
    in an otherwise regular rhythm with P waves.
  bradycardia, tachycardia: < 60, > 100 bpm, rounded to whole ones.

  Age and sex are the condition's; unknown ones take the stricter limit.

  Args:
    reading: of an ECG, by `read_ecgs`, or the ECG itself; None: nothing could
      be read.
    condition: what says the age and sex that limits depend on.

  Source: Thygesen et al. 2018 (ST), Hancock et al. 2009 (hypertrophy),
  Surawicz et al. 2009 (bundle branch blocks).
  """
  if isinstance(reading, ECG):
    reading = read_ecg_beats(reading.signal, reading.sampling_rate)
  if reading is None:
    return dict.fromkeys(CRITERIA, False)
  beats, marks = reading.beats, reading.marks
  onset = round(marks.qrs_onset * RATE)
  offset = round(marks.qrs_offset * RATE)
  x = beats.median - beats.median[onset]
  qrs = x[onset : offset + 1]
  wide = marks.qrs_offset - marks.qrs_onset >= _WIDE
  away = wide and float(qrs[:, _LEAD["V1"]].sum()) < 0
  pr = marks.qrs_onset - marks.p_onset
  rhythm = _check_rhythm(beats, math.isfinite(pr))
  return {
    "lvh": _is_hypertrophic(qrs, condition),
    "st_elevation": not away and _is_elevated(x[offset], condition),
    "lbbb": away and _is_left_block(qrs) and not _is_right_block(qrs),
    "rbbb": wide and _is_right_block(qrs),
    "av_block": pr > _LONG_PR,
    **rhythm,
  }


def find_mismatches(
  ecg: ECG | Reading | None, condition: Condition
) -> list[str]:
  """Sentences on where an ECG plainly is not what its condition says.

  Only what can hardly be a matter of opinion: a bundle branch block that is
  stated while QRS is narrow, or shown and not stated; and a heart rate more
  than a fifth away.

  Args:
    ecg: the recording, or its reading.
    condition: what is said of it.
  """
  reading = ecg
  if isinstance(ecg, ECG):
    reading = read_ecg_beats(ecg.signal, ecg.sampling_rate)
  if reading is None:
    return []
  marks = reading.marks
  width = marks.qrs_offset - marks.qrs_onset
  shown = check_criteria(reading, condition)
  mismatches = []
  for criterion, side in (("rbbb", "right"), ("lbbb", "left")):
    stated = asks_for(condition.statements, criterion)
    if stated and width < _NARROW:
      mismatches.append(
        f"a {side} bundle branch block is stated, but QRS of the ECG lasts "
        f"{1000 * width:.0f} ms"
      )
    elif stated is False and shown[criterion]:
      mismatches.append(
        f"the ECG shows a {side} bundle branch block (QRS {1000 * width:.0f} "
        "ms), which is not stated: what is not stated is taken for a part of "
        "the person"
      )
  rate = 60 / float(np.diff(reading.beats.times).mean())
  if abs(rate / condition.heart_rate - 1) > _RATE_OFF:
    mismatches.append(
      f"heart_rate={condition.heart_rate:g} is stated, but the ECG has "
      f"{rate:.0f} bpm"
    )
  return mismatches


def _is_hypertrophic(qrs, condition):
  r, s = qrs.max(axis=0), -qrs.min(axis=0)
  sokolow = s[_LEAD["V1"]] + max(r[_LEAD["V5"]], r[_LEAD["V6"]])
  cornell = r[_LEAD["aVL"]] + s[_LEAD["V3"]]
  return bool(sokolow > _SOKOLOW or cornell > _CORNELL[condition.sex])


def _is_elevated(level, condition):
  high = 0.20
  if condition.sex == "F":
    high = 0.15
  elif condition.age is None or condition.age < 40:
    high = 0.25
  limit = np.full(len(LEADS), 0.1)
  limit[[_LEAD["V2"], _LEAD["V3"]]] = high
  raised = level >= limit
  return any(raised[_LEAD[a]] and raised[_LEAD[b]] for a, b in _CONTIGUOUS)


def _is_left_block(qrs):
  lateral = qrs[:, [_LEAD["I"], _LEAD["V6"]]]
  r, down = lateral.max(axis=0), -lateral.min(axis=0)
  return bool((down < 0.2 * r).all())


def _is_right_block(qrs):
  late = qrs[len(qrs) // 2 :]
  v1, s = late[:, _LEAD["V1"]], -late[:, [_LEAD["I"], _LEAD["V6"]]]
  early = qrs[: len(qrs) // 2, _LEAD["V1"]].max()
  return bool(
    v1.max() > max(early, 0.1)
    and v1.max() > -v1.min()
    and (s.max(axis=0) > 0.05).all()
  )


def _check_rhythm(beats, has_p):
  rr = np.diff(beats.times)
  usual = float(np.median(rr))
  # An interval that an odd beat ends or begins says nothing of the rhythm.
  plain = beats.usual[1:] & beats.usual[:-1]
  early = rr < _EARLY * usual
  odd = ~beats.usual[1:] & early
  narrow = plain & (rr < _EARLY_NARROW * usual)
  # Nor does what comes after an early beat.
  others = plain & ~narrow & ~np.append(False, narrow[:-1])
  regular = others.sum() < 2 or _spread(rr[others]) <= _IRREGULAR
  irregular = plain.sum() >= 2 and _spread(rr[plain]) > _IRREGULAR
  rate = round(60 / float(rr.mean()))
  return {
    "fibrillation": bool(irregular and not has_p),
    "pvc": bool(odd.any()),
    "pac": bool(narrow.any() and regular and has_p),
    "bradycardia": rate < 60,
    "tachycardia": rate > 100,
  }


def _spread(rr):
  return float(rr.std() / rr.mean())
