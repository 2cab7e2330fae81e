"""A statement in the words of those that a twin, or a table, knows."""

import difflib
import functools
from collections.abc import Iterable
from typing import NamedTuple

from ecgtwin_jax.text.findings import (
  FINDINGS,
  UNCLEAR,
  plain_text,
  read_statement,
  read_walls,
)

_RATE = {"bradycardia", "tachycardia"}
_NEAR = 0.7  # of 1: below, spellings have nothing to do with each other


class Wording(NamedTuple):
  """Known statements in place of one.

  Attributes:
    statements: one; or several that say the same together; none if nothing
      known comes near.
    how: "spelling": the same but for case, spaces and a full stop; "meaning":
      the same in other words; "nearest": not the same; "none".
  """

  statements: tuple[str, ...]
  how: str

  def __str__(self) -> str:
    """Clause of a message on a statement that is not known."""
    named = " with ".join(map(repr, self.statements))
    if self.how == "none":
      return "none of them is near it"
    same = "the nearest is" if self.how == "nearest" else "the same is said by"
    return f"{same} {named}"


def reword(statement: str, known: Iterable[str]) -> Wording:
  """Puts a statement into known ones: by spelling, meaning or likeness.

  The meaning of a statement is the findings that it states and the walls that
  it names. Several known ones may share it out: "Sinus rhythm with PVC(s)" is
  "Sinus rhythm" and "Ventricular premature complex". Slow and fast may be left
  over, as the heart rate says them. What is in doubt is not the same as what is
  stated.

  The nearest has most of the findings in common, stated or in doubt. Where none
  has any, it looks alike on an ECG or, abbreviations written out, is spelled
  alike.
  """
  known = tuple(known)
  spelled = _spellings(known).get(_spelling(statement))
  if spelled is not None:
    return Wording((spelled,), "spelling")
  shares = _share_out(statement, known)
  if shares:
    return Wording(shares, "meaning")
  nearest = _nearest(statement, known)
  return Wording((nearest,), "nearest") if nearest else Wording((), "none")


@functools.lru_cache(maxsize=8)
def _spellings(known):
  return {_spelling(statement): statement for statement in reversed(known)}


def _spelling(statement):
  return " ".join(statement.casefold().split()).rstrip(".")


def _meaning(statement):
  """What a statement says, in parts; None where it is in doubt, or nothing."""
  read = read_statement(statement)
  said = {name for name, value in read.items() if value}
  sure = said and UNCLEAR not in read.values()
  return said | read_walls(statement) if sure else None


def _share_out(statement, known):
  wanted = _meaning(statement)
  if not wanted:
    return ()
  parts = {one: _meaning(one) for one in known}
  parts = {one: said for one, said in parts.items() if said and said <= wanted}
  shares, left = [], wanted
  while parts:
    # What says most of the rest comes first, and then what is spelled alike.
    best = max(
      parts, key=lambda one: (len(parts[one] & left), _ratio(statement, one))
    )
    if not parts[best] & left:
      break
    shares.append(best)
    left = left - parts.pop(best)
  # In the order of the known ones, which is that of a report.
  return tuple(sorted(shares, key=known.index)) if left <= _RATE else ()


def _nearest(statement, known):
  """What shares most findings; else what looks alike or is spelled alike."""
  read = read_statement(statement)
  denied = {name for name, value in read.items() if value == 0}
  said = {*read} - denied
  if denied and not said:
    return None  # nothing known says what is not there
  known = [one for one in known if not denied & {*read_statement(one)}]
  shares = {one: _share(statement, said, one) for one in known}
  most = max(shares.values(), default=0)
  if most:
    near = {
      one: 1 + _alikeness(said, one) for one in known if shares[one] == most
    }
  else:
    near = {one: _alikeness(said, one) for one in known}
    near = {one: alike for one, alike in near.items() if alike}
    texts = {plain_text(one): one for one in known}
    for text in difflib.get_close_matches(
      plain_text(statement), texts, 1, _NEAR
    ):
      near.setdefault(texts[text], 0.0)
  scores = {one: near[one] + _ratio(statement, one) for one in near}
  best = max(scores, key=scores.get, default=None)
  return best if best and scores[best] >= _NEAR else None


def _share(statement, said, one):
  """Findings of both, and walls of both, to the findings of either."""
  other = {*read_statement(one)}
  if not said & other:
    return 0
  walls = read_walls(statement) & read_walls(one)
  return (len(said & other) + len(walls)) / len(said | other)


def _alikeness(said, one):
  other = read_statement(one)
  shown = {like for name in other for like in FINDINGS[name].look_alikes}
  return len(shown & said) / max(len(other), 1)


def _ratio(statement, one):
  texts = plain_text(statement), plain_text(one)
  return difflib.SequenceMatcher(None, *texts).ratio()
