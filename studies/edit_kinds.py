"""The edits that edit_effect makes, and which part of an ECG each is about."""

import math
from typing import NamedTuple

import numpy as np

from ecgtwin_jax.beats.delineation import Reading
from ecgtwin_jax.beats.median_beat import RATE
from studies.held_out import mean

SINUS, NORMAL, ABNORMAL = "Sinus rhythm", "Normal ECG", "Abnormal ECG"
PVC = "Ventricular premature complex"
RBBB, LBBB = "Right bundle branch block", "Left bundle branch block"
FIBRILLATION = "Atrial fibrillation"
_ECTOPIC = (-0.12, 0.48)  # s around the middle of an ectopic beat
_EARLY = 0.88  # of the usual RR interval


class Kind(NamedTuple):
  """One kind of edit.

  Attributes:
    rule: "add", "swap" or "reweight".
    source: report of the source.
    edit: report of the edit.
    row: number of the statement that is added or re-weighted.
    weights: weights to try.
    criterion: criterion of the statement.
    part: "ectopic", "qrs_t" or "all": what the statement is about.
    lead: the lead to show.
    consistent: the edit's report as in training.
  """

  rule: str
  source: tuple[str, ...]
  edit: tuple[str, ...]
  row: int
  weights: tuple[float, ...]
  criterion: str
  part: str
  lead: str
  consistent: tuple[str, ...] = ()


def _add(statement, criterion, part, lead):
  source = (SINUS, NORMAL)
  return Kind(
    "add",
    source,
    (*source, statement),
    2,
    (1.0, 3.0),
    criterion,
    part,
    lead,
    (SINUS, statement, ABNORMAL),
  )


def _reweight(statement, criterion, part, lead):
  report = (SINUS, statement, ABNORMAL)
  weights = (0.0, 3.0)
  return Kind("reweight", report, report, 1, weights, criterion, part, lead)


KINDS = {
  "add PVC": _add(PVC, "pvc", "ectopic", "II"),
  "add RBBB": _add(RBBB, "rbbb", "qrs_t", "V1"),
  "add LBBB": _add(LBBB, "lbbb", "qrs_t", "V6"),
  "swap sinus for AF": Kind(
    "swap",
    (SINUS, NORMAL),
    (FIBRILLATION, ABNORMAL),
    0,
    (1.0,),
    "fibrillation",
    "all",
    "II",
  ),
  "swap RBBB for LBBB": Kind(
    "swap",
    (SINUS, RBBB, ABNORMAL),
    (SINUS, LBBB, ABNORMAL),
    0,
    (1.0,),
    "lbbb",
    "qrs_t",
    "V1",
  ),
  "reweight PVC": _reweight(PVC, "pvc", "ectopic", "II"),
  "reweight RBBB": _reweight(RBBB, "rbbb", "qrs_t", "V1"),
}


def part_of(kind: Kind, made: Reading | None, samples: int) -> np.ndarray:
  """Which samples a statement is about, as an ECG's reading shows them.

  Args:
    kind: the kind of edit whose part is meant.
    made: beats of the ECG that shows the statement's sign.
    samples: number of samples in ten seconds.
  """
  inside = np.zeros(samples, bool)
  if kind.part == "all":
    return ~inside
  if made is None:
    return inside
  beats, marks = made.beats, made.marks
  if kind.part == "ectopic":
    gaps = np.diff(beats.times)
    early = np.append(False, gaps < _EARLY * np.median(gaps))
    middles, (first, last) = beats.times[early & ~beats.usual], _ECTOPIC
  else:
    end = marks.t_end if math.isfinite(marks.t_end) else marks.qrs_offset + 0.3
    middles = beats.times
    first, last = (x - beats.middle / RATE for x in (marks.qrs_onset, end))
  time = np.arange(samples) * 10.0 / samples
  for middle in middles:
    inside |= (time >= middle + first) & (time < middle + last)
  return inside


def distances(
  edit: np.ndarray, source: np.ndarray, inside: np.ndarray
) -> tuple[float, float]:
  """Root mean square (mV) of edit - source inside and outside; nan if empty."""
  square = ((edit - source) ** 2).mean(axis=1)
  return tuple(math.sqrt(mean(square[part])) for part in (inside, ~inside))
