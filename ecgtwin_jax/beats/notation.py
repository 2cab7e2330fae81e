"""How beats are written down: beat times, kinds of beats, or a text.

In a text beats are apart by blanks, a beat that is not usual has its kind in
front: "0.4 1.2 2.0 pvc@2.6 4.2".
"""

import itertools
import re
from collections.abc import Sequence

import numpy as np

from ecgtwin_jax.beats.rhythm import KINDS, MAX_BEATS, Rhythm
from ecgtwin_jax.constants import SECONDS
from ecgtwin_jax.text.findings import finding

# What `read_beats` takes.
Beats = Rhythm | str | Sequence[float | int | tuple[float | int, str]]

_USUAL, _PVC, _PAC, _PACED = range(len(KINDS))
# Premature beats that are put into a rhythm come so many usual intervals after
# the beat before them.
COUPLING = {_PVC: 0.62, _PAC: 0.70}
_SYNTAX = "such as '0.4 1.2 2.0 pvc@2.6 4.2'"
_TOKEN = re.compile(r"(?:([a-z]+)@)?(\d+(?:\.\d*)?|\.\d+)(?:s)?")
_WITHOUT_P = ("atrial_fibrillation", "atrial_flutter", "pacing")


def read_beats(beats: Beats, statements: Sequence[str] = ()) -> Rhythm:
  """Reads the beats that an ECG shall have.

  A usual beat of a paced report is a paced one. A usual beat and a PAC have a P
  wave, unless the report states fibrillation, flutter or pacing.

  Args:
    beats: a Rhythm, which is only checked; beat times in seconds; pairs of time
      and kind; or a text of both.
    statements: the report.

  Raises:
    ValueError: a time is not in 0..10 s or not later than the one before, a
      kind is unknown, or there is no beat, or more than 48; or a text is none
      of beats.
  """
  if isinstance(beats, Rhythm):
    return _check_rhythm(beats)
  pairs = [_read_pair(beat) for beat in _split(beats)]
  times, kinds = [time for time, _ in pairs], [kind for _, kind in pairs]
  _check_times(times)
  states = {name: finding(name, statements) == 1 for name in _WITHOUT_P}
  if states["pacing"]:
    kinds = [_PACED if kind == _USUAL else kind for kind in kinds]
  has_p = not any(states.values())
  return _rhythm(times, kinds, [has_p and k in (_USUAL, _PAC) for k in kinds])


def write_beats(rhythm: Rhythm) -> str:
  """The text of a rhythm, to 1 ms, that `read_beats` reads."""
  words = []
  for time, kind in zip(rhythm.time, rhythm.kind):
    if kind >= 0:
      mark = "" if kind == _USUAL else f"{KINDS[kind]}@"
      words.append(f"{mark}{time:.3f}")
  return " ".join(words)


def only_premature(rhythm: Rhythm) -> bool:
  """Whether all beats are premature: they want a rhythm to stand in."""
  kinds = rhythm.kind[rhythm.kind >= 0]
  return bool(np.isin(kinds, (_PVC, _PAC)).all())


def put_into(rhythm: Rhythm, premature: Rhythm) -> Rhythm:
  """Puts premature beats at their times into a rhythm.

  The rhythm is moved so that the first of them follows the beat before it as
  premature beats do; the beats in whose place they come are left out.

  Args:
    rhythm: rhythm of the usual beats.
    premature: the others.
  """
  for number, time in enumerate(premature.time[premature.kind >= 0]):
    kind = int(premature.kind[number])
    if number == 0:
      rhythm = _move(rhythm, time, COUPLING[kind])
    rhythm = _insert(rhythm, float(time), kind)
  return rhythm


def add_premature(rhythm: Rhythm, kind: str, share: float) -> Rhythm:
  """Makes the next beat after a share of the recording premature.

  All other beats stay where they are.

  Args:
    rhythm: the rhythm to add to.
    kind: "pvc" or "pac".
    share: place between the second beat and the last but one, 0..1.
  """
  number = KINDS.index(kind)
  count = int((rhythm.kind >= 0).sum())
  if count < 3:
    return rhythm
  before = min(int(share * (count - 2)), count - 3)
  interval = float(rhythm.time[before + 1] - rhythm.time[before])
  time = float(rhythm.time[before]) + COUPLING[number] * interval
  changed = Rhythm(*(column.copy() for column in rhythm))
  changed.time[before + 1], changed.kind[before + 1] = time, number
  changed.p_wave[before + 1] = number == _PAC
  return changed


def take_out(rhythm: Rhythm, kind: str) -> Rhythm:
  """Makes premature beats of a kind usual, midway between their neighbours."""
  number = KINDS.index(kind)
  changed = Rhythm(*(column.copy() for column in rhythm))
  usual = rhythm.kind == _USUAL
  has_p = int(usual.any() and rhythm.p_wave[usual].mean() >= 0.5)
  count = int((rhythm.kind >= 0).sum())
  for k in np.flatnonzero(rhythm.kind == number):
    if 0 < k < count - 1:
      changed.time[k] = (rhythm.time[k - 1] + rhythm.time[k + 1]) / 2
    changed.kind[k], changed.p_wave[k] = _USUAL, has_p
  return changed


def _split(beats):
  if not isinstance(beats, str):
    return list(beats)
  words = beats.lower().replace(",", " ").replace(";", " ").split()
  pairs = []
  for word in words:
    match = _TOKEN.fullmatch(word)
    if not match:
      raise ValueError(
        f"beats={beats[:60]!r}: {word[:60]!r} is no beat, {_SYNTAX}"
      )
    pairs.append((float(match[2]), match[1] or KINDS[_USUAL]))
  return pairs


def _read_pair(beat):
  pair = beat if isinstance(beat, tuple | list) else (beat, KINDS[_USUAL])
  if len(pair) != 2 or pair[1] not in KINDS:
    raise ValueError(
      f"beat {beat!r} must be a time in seconds, or a time and one of "
      f"{', '.join(KINDS)}"
    )
  try:
    time = float(pair[0])
  except (TypeError, ValueError):
    raise ValueError(f"beat {beat!r}: its time must be in seconds") from None
  return time, KINDS.index(pair[1])


def _check_times(times):
  if not 1 <= len(times) <= MAX_BEATS:
    raise ValueError(f"{len(times)} beats must be 1..{MAX_BEATS}")
  for time in times:
    if not 0 <= time < SECONDS:
      raise ValueError(f"beat at {time:g} s must be in 0..{SECONDS:g} s")
  for one, other in itertools.pairwise(times):
    if one >= other:
      raise ValueError(f"beats at {one:g} s and {other:g} s: times must ascend")


def _check_rhythm(rhythm):
  shapes = {np.shape(column) for column in rhythm}
  if shapes != {(MAX_BEATS,)}:
    raise ValueError(f"columns of a Rhythm {shapes} must be ({MAX_BEATS},)")
  count = int((rhythm.kind >= 0).sum())
  if (rhythm.kind[:count] < 0).any() or rhythm.kind.max() >= len(KINDS):
    raise ValueError(
      f"kind={rhythm.kind.tolist()} must be 0..{len(KINDS) - 1}, and -1 behind "
      "the last beat"
    )
  times = rhythm.time[:count].tolist()
  if not np.isfinite(times).all():
    raise ValueError(f"time={times} must be finite")
  _check_times(times)
  return rhythm


def _rhythm(times, kinds, p_waves) -> Rhythm:
  """Columns padded to MAX_BEATS; what lies outside of the 10 s is left out."""
  rows = [
    row for row in sorted(zip(times, kinds, p_waves)) if 0 <= row[0] < SECONDS
  ][:MAX_BEATS]
  columns = []
  for number, (dtype, blank) in enumerate(
    ((np.float32, np.nan), (np.int8, -1), (np.int8, -1))
  ):
    column = np.full(MAX_BEATS, blank, dtype)
    column[: len(rows)] = [row[number] for row in rows]
    columns.append(column)
  return Rhythm(*columns)


def _lists(rhythm):
  count = int((rhythm.kind >= 0).sum())
  return [column[:count].tolist() for column in rhythm]


def _move(rhythm, time, coupling):
  """Shifts all beats so that one lies `coupling` intervals before `time`."""
  times, kinds, p_waves = _lists(rhythm)
  usual = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
  wanted = time - coupling * usual
  nearest = times[int(np.argmin(np.abs(np.array(times) - wanted)))]
  times = [each + wanted - nearest for each in times]
  # Beats come in at the end that the shift has opened.
  while times[0] >= usual:
    times, kinds = [times[0] - usual, *times], [kinds[0], *kinds]
    p_waves = [p_waves[0], *p_waves]
  while times[-1] + usual < SECONDS:
    times, kinds = [*times, times[-1] + usual], [*kinds, kinds[-1]]
    p_waves = [*p_waves, p_waves[-1]]
  return _rhythm(times, kinds, p_waves)


def _insert(rhythm, time, kind):
  """Puts a premature beat in the place of the beats that it leaves no room."""
  times, kinds, p_waves = _lists(rhythm)
  usual = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
  has_p = kind == _PAC and bool(np.mean(p_waves) >= 0.5)
  kept = [
    row
    for row in zip(times, kinds, p_waves)
    if not time - 0.4 * usual < row[0] < time + 0.85 * usual
  ]
  rows = sorted([*kept, (time, kind, int(has_p))])
  return _rhythm(*zip(*rows))
