"""Which rhythm a generated ECG gets: the user's, a sampled or an edited one."""

from collections.abc import Callable, Sequence

import numpy as np

from ecgtwin_jax.beats import notation
from ecgtwin_jax.beats.notation import Beats
from ecgtwin_jax.beats.rhythm import KINDS, Rhythm
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.text.findings import finding, names_rhythm

PREMATURE = {"ventricular_premature": "pvc", "atrial_premature": "pac"}


def choose_rhythms(
  beats: Sequence[Beats | None],
  conditions: Sequence[Condition],
  draw: Callable[[list[int]], list[Rhythm]],
) -> list[Rhythm]:
  """The rhythm of each row.

  Beats that are all premature, such as "pvc@4.2", are put into a sampled rhythm
  in place of its own premature ones.

  Args:
    beats: what the user wants of each row; None: a sampled rhythm.
    conditions: the condition of each row.
    draw: samples the rhythms of some rows.

  Raises:
    ValueError: beats that cannot be.
  """
  wanted = [
    None if own is None else notation.read_beats(own, condition.statements)
    for own, condition in zip(beats, conditions, strict=True)
  ]
  rows = [
    row
    for row, rhythm in enumerate(wanted)
    if rhythm is None
    or (not isinstance(beats[row], Rhythm) and notation.only_premature(rhythm))
  ]
  for row, rhythm in zip(rows, draw(rows) if rows else [], strict=True):
    premature = wanted[row]
    if premature is not None:
      for kind in PREMATURE.values():
        rhythm = notation.take_out(rhythm, kind)
      rhythm = notation.put_into(rhythm, premature)
    wanted[row] = rhythm
  return wanted


def as_stated(rhythm: Rhythm, condition: Condition) -> Rhythm:
  """A sampled rhythm with the premature beats that the report states.

  A rhythm model leaves them out in one of twenty; then one beat becomes one.
  """
  for name, kind in PREMATURE.items():
    number = KINDS.index(kind)
    missing = not (rhythm.kind == number).any()
    if missing and finding(name, condition.statements) == 1:
      # Where: as random as when the first beat comes.
      share = float(rhythm.time[0]) * condition.heart_rate / 60
      rhythm = notation.add_premature(rhythm, kind, min(share, 1.0))
  return rhythm


def edit_rhythms(
  rhythms: Sequence[Rhythm],
  before: Condition,
  after: Condition,
  draw: Callable[[], list[Rhythm]] | None,
  seed: int,
) -> list[Rhythm]:
  """The rhythms of edits: those of the sources, as far as the report allows.

  An edit that adds or takes away premature beats alone makes one beat premature
  or all of them usual, and the others stay. An edit that says another rhythm or
  rate has a sampled one. Whatever else it says, it has the source's.

  Args:
    rhythms: rhythms of the sources, samples 0, 1, ... of the seed.
    before: the sources' condition.
    after: the edits'.
    draw: samples the edits' rhythms; None: the user's beats stay.
    seed: seed that places added premature beats.
  """
  if draw and _names(before) != _names(after):
    return draw()
  edited = list(rhythms)
  for name, kind in PREMATURE.items():
    had, has = (
      finding(name, report.statements) == 1 for report in (before, after)
    )
    if has and not had:
      edited = [
        notation.add_premature(
          rhythm, kind, np.random.default_rng([seed, number]).random()
        )
        for number, rhythm in enumerate(edited)
      ]
    if had and not has:
      edited = [notation.take_out(rhythm, kind) for rhythm in edited]
  return edited


def _names(condition):
  """The rate, and what a report says of the rhythm besides premature beats."""
  said = {
    statement.casefold().rstrip(".")
    for statement in condition.statements
    if names_rhythm(statement)
    and not any(finding(name, [statement]) == 1 for name in PREMATURE)
  }
  return condition.heart_rate, said
