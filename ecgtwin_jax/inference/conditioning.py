"""Conditions as the networks' arrays: statements looked up or embedded."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ecgtwin_jax.data.conditions import MAX_STATEMENTS, TEXT_WIDTH, Condition
from ecgtwin_jax.text.findings import (
  find_contradictions,
  finding,
  names_rhythm,
  names_sinus_rhythm,
)
from ecgtwin_jax.text.statements import (
  StatementEncoder,
  StatementTable,
  get_encoder,
)
from ecgtwin_jax.text.wording import Wording, reword


class ConditionArrays(NamedTuple):
  """One condition, or several with a first axis, as networks take them.

  Attributes:
    statements: embedded, zeros below the last one.
    mask: True for statements.
    patient: standardised heart rate, age, sex; NaN: not known.
  """

  statements: Float[np.ndarray, "*b 18 768"]
  mask: Bool[np.ndarray, "*b 18"]
  patient: Float[np.ndarray, "*b 3"]


class Conditioner:
  """Turns conditions into arrays, with one encoder for its whole life.

  Statements of the table need no encoder. The first other one makes or loads
  the encoder, and vectors are kept, so a language model is loaded once and
  embeds a statement once.

  Args:
    table: statements that the networks were trained on; None: not known.
    encoder_name: name of the encoder that the networks were trained with.
    encoder: it, or what `get_encoder` takes (such as the folder of a language
      model); None: `encoder_name` is looked up.

  Raises:
    ValueError: `encoder` is another one than the networks were trained with.
  """

  def __init__(
    self,
    table: StatementTable | None,
    encoder_name: str,
    encoder: StatementEncoder | str | None = None,
  ):
    self.table = table
    self._name = encoder_name
    self._encoder = encoder_name if encoder is None else encoder
    self._vectors = {}
    self._wordings = {}
    if not isinstance(self._encoder, str):
      self._check(self._encoder)

  def arrays(
    self, condition: Condition, missing_allowed: bool
  ) -> ConditionArrays:
    """Returns one condition's arrays.

    A statement that says the same as one of the table is taken as that one.

    Args:
      condition: what to turn into arrays.
      missing_allowed: whether age and sex may be None.

    Raises:
      ValueError: age or sex is missing though it must not, or an unknown
        statement needs an encoder that is not there.
    """
    patient = condition.patient_vector()
    if np.isnan(patient).any() and not missing_allowed:
      raise ValueError(
        f"age={condition.age} and sex={condition.sex} must both be given: this "
        "twin was trained without missing values"
      )
    rows = np.zeros((MAX_STATEMENTS, TEXT_WIDTH), np.float32)
    count = len(condition.statements)
    rows[:count] = self._rows_of(condition)
    return ConditionArrays(rows, np.arange(MAX_STATEMENTS) < count, patient)

  def remarks(self, condition: Condition) -> list[str]:
    """What is odd about a condition, a sentence each.

    A heart rate that contradicts a statement; a statement that looks like
    several; one that is read as one of the table in other words; any other that
    is not one of the table, with the nearest one that is.
    """
    texts = find_contradictions(condition.statements, condition.heart_rate)
    texts += [
      f"{statement!r} holds ';': are these several statements? Give each on "
      "its own; '|' separates them on the command line and in files"
      for statement in condition.statements
      if ";" in statement
    ]
    if condition.embeddings is not None or not self.table:
      return texts
    for statement in condition.statements:
      found = self._reword(statement)
      if found.how == "meaning" and len(found.statements) == 1:
        (known,) = found.statements
        texts.append(f"{statement!r} is read as {known!r}, which says the same")
      elif found.how != "spelling":
        texts.append(
          f"{statement!r} is not among the statements this twin was trained on;"
          f" {found}"
        )
    return texts

  def state_rhythm(self, condition: Condition) -> Condition:
    """The condition with a sinus rhythm in front where it says no rhythm.

    A normal ECG has the sinus node's as it is. Nothing is added where a
    statement is near to a rhythm, the table holds no sinus rhythm that fits the
    heart rate, or the report is full.
    """
    stated = condition.statements
    if not self._lacks_rhythm(condition) or len(stated) == MAX_STATEMENTS:
      return condition
    fits = [
      one
      for one in filter(names_sinus_rhythm, self.table.statements)
      if not find_contradictions([one], condition.heart_rate)
    ]
    if not fits:
      return condition
    plain = min(fits, key=len)  # longer ones say more than the rhythm
    return dataclasses.replace(condition, statements=(plain, *stated))

  def remarks_on_rhythm(self, condition: Condition) -> list[str]:
    """One sentence where ECGs shall show what says no rhythm, or none."""
    if not self._lacks_rhythm(condition):
      return []
    first = next(filter(names_rhythm, self.table.statements))
    plain = self.state_rhythm(condition).statements[0]
    end = (
      f"{plain!r} is taken; add another if it is not that"
      if plain != condition.statements[0]
      else f"add one, such as {first!r}"
    )
    return [
      "no statement says which rhythm the ECGs shall have, and without one "
      f"they may show little of the others: {end}"
    ]

  def _lacks_rhythm(self, condition: Condition) -> bool:
    """Whether no statement says a rhythm, or is near to one of the table's."""
    stated = condition.statements
    known = self.table.statements if self.table else ()
    if condition.embeddings is not None or not any(map(names_rhythm, known)):
      return False
    near = [name for text in stated for name in self._reword(text).statements]
    named = any(map(names_rhythm, [*stated, *near]))
    return not named and finding("normal_ecg", stated) != 1

  def extend(self, condition: Condition, statement: str) -> Condition:
    """Returns the condition with one more statement at its end.

    Raises:
      ValueError: the statement is blank, or the report is full.
    """
    alone = Condition((statement,), condition.heart_rate)
    embeddings = condition.embeddings
    if embeddings is not None:
      embeddings = np.concatenate([embeddings, self._rows_of(alone)])
    return Condition(
      (*condition.statements, *alone.statements),
      condition.heart_rate,
      condition.age,
      condition.sex,
      embeddings,
    )

  def _rows_of(self, condition: Condition) -> Float[np.ndarray, "s 768"]:
    if condition.embeddings is not None:
      return condition.embeddings
    known = {s: self._find(s) for s in condition.statements}
    new = [s for s in known if known[s] is None and s not in self._vectors]
    if new:
      self._vectors |= dict(zip(new, self._load().embed(new)))
    vectors = {
      s: self._vectors[s] if row is None else self.table.embeddings[row]
      for s, row in known.items()
    }
    return np.stack([vectors[s] for s in condition.statements])

  def _find(self, statement: str) -> int | None:
    """Row of the table's statement that says the same, if one alone does."""
    if not self.table:
      return None
    found = self._reword(statement)
    if found.how not in ("spelling", "meaning") or len(found.statements) > 1:
      return None
    return int(self.table.ids(list(found.statements))[0])

  def _reword(self, statement: str) -> Wording:
    if statement not in self._wordings:
      found = reword(statement, self.table.statements)
      self._wordings[statement] = found
    return self._wordings[statement]

  def _load(self) -> StatementEncoder:
    if isinstance(self._encoder, str):
      encoder = get_encoder(self._encoder)
      self._check(encoder)
      self._encoder = encoder
    return self._encoder

  def _check(self, encoder: StatementEncoder) -> None:
    # The same weights are the same encoder, whatever their folder is called.
    if (
      self.table
      and encoder.revision
      and (encoder.revision == self.table.revision)
    ):
      return
    if self.table:
      self.table.require(encoder.name, encoder.revision)
    elif encoder.name != self._name:
      raise ValueError(
        f"this twin was trained with statement encoder {self._name!r}, not "
        f"{encoder.name!r}: their vectors do not mix"
      )
