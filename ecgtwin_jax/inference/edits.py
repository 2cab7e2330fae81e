"""Which change of a report an edit makes, and how much of it counts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.inference.conditioning import Conditioner
from ecgtwin_jax.inference.sampling import EDIT_ATTENTION


class Edit(NamedTuple):
  """One change of a report.

  Attributes:
    rule: "add", "swap" or "reweight".
    condition: the changed condition; in "reweight" the same as before.
    row: number of the statement added or re-weighted; 0 in a swap.
    text: the change in words.
    weight: factor of the attention that the statement gets.
    threshold: share of the schedule, counted from its clean end, in which the
      edit goes its own way.
    attention: "own" or "source": whose attention the edit's is made of.
  """

  rule: str
  condition: Condition
  row: int
  text: str
  weight: float | int
  threshold: float | int
  attention: str

  def facts(self) -> dict[str, Any]:
    """What an edited ECG depends on besides its source."""
    names = ("weight", "threshold", "attention")
    return {"edit": self.text, **{name: getattr(self, name) for name in names}}


def read_edit(
  conditioner: Conditioner,
  condition: Condition,
  *,
  add: str | None,
  swap: Condition | Sequence[str] | None,
  reweight: str | None,
  weight: float | int,
  threshold: float | int,
  attention: str,
) -> Edit:
  """Reads which one of the three edits is asked for.

  Args:
    conditioner: the twin's conditioner.
    condition: before the edit.
    add: a statement to append.
    swap: the statements to have instead, as many; or a whole condition, whose
      heart rate, age and sex then count, too.
    reweight: one of the condition's statements.
    weight: factor of the attention that the statement gets; 1 in a swap.
    threshold: share of the schedule in which the edit goes its own way.
    attention: "own" or "source": whose attention the edit's is made of.

  Raises:
    ValueError: none or several are given, the counts of a swap differ, the
      statement to re-weight is not there, the report is full, or a number is
      out of range.
  """
  rule, edited, row, text = _read_change(
    conditioner, condition, add, swap, reweight
  )
  if not np.isfinite(weight) or (rule == "swap" and weight != 1):
    raise ValueError(f"{weight=} must be finite, and 1 in a swap")
  if not 0 <= threshold <= 1:
    raise ValueError(f"{threshold=} must be in 0..1, a share of the schedule")
  if attention not in EDIT_ATTENTION:
    raise ValueError(f"{attention=} must be one of {EDIT_ATTENTION}")
  return Edit(rule, edited, row, text, weight, threshold, attention)


def _read_change(
  conditioner, condition, add, swap, reweight
) -> tuple[str, Condition, int, str]:
  """Rule, changed condition, number of the statement, and the change in words.

  Of these the user has given one.
  """
  asked = dict(add=add, swap=swap, reweight=reweight)
  given = [name for name, value in asked.items() if value is not None]
  if len(given) != 1:
    given = " and ".join(given) or "none, such as add='Low QRS voltages'"
    raise ValueError(f"one of add, swap, reweight must be given, not {given}")
  count = len(condition.statements)
  if add is not None:
    edited = conditioner.extend(condition, add)
    return "add", edited, count, f"add {edited.statements[-1]!r}"
  if reweight is not None:
    statement = " ".join(reweight.split())
    if statement not in condition.statements:
      raise ValueError(
        f"{reweight=} must be one of the condition's statements, "
        f"{', '.join(map(repr, condition.statements))}"
      )
    row = condition.statements.index(statement)
    return "reweight", condition, row, f"reweight {statement!r}"
  edited = swap
  if not isinstance(swap, Condition):
    edited = Condition(swap, condition.heart_rate, condition.age, condition.sex)
  if len(edited.statements) != count:
    raise ValueError(
      f"swap must have as many statements as the condition: it has "
      f"{len(edited.statements)}, the condition {count}; an edit of another "
      "length is add"
    )
  return "swap", edited, 0, f"swap to {edited.text()!r}"
