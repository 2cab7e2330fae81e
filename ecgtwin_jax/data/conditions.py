"""What a recording shows and whose it is: the condition of an ECG."""

import dataclasses
import math
import numbers
import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float

from ecgtwin_jax.constants import PATIENT_MEAN, PATIENT_STD, TEXT_WIDTH
from ecgtwin_jax.data.errors import ArgumentError

MAX_STATEMENTS = 18  # MIMIC-IV-ECG's report_0 .. report_17
MAX_STATEMENT = 300  # characters of one
SEXES = ("F", "M")  # the number of a sex is its place here
OVER_89 = 300  # PTB-XL's code for an age it hides
AGE_OVER_89 = 90.0


@dataclasses.dataclass(frozen=True)
class Condition:
  """A cardiac condition: report statements, heart rate, age and sex.

  Attributes:
    statements: 1..18 short statements, such as "Sinus rhythm".
    heart_rate: In 20..300 beats per minute.
    age: In 0..120 years. 300 is PTB-XL's code for "over 89" and becomes 90.
      None or NaN: not known.
    sex: "F" or "M", also "female" or "male" in any case. None: not known.
    embeddings: Optional (n, 768) text embeddings, one row per statement, used
      in place of the statement encoder's.

  Raises:
    ValueError: A field is outside the above.
    TypeError: A field is of another type.

  Source: Lai et al., arXiv 2508.02720 (data).
  """

  statements: tuple[str, ...] | list[str]
  heart_rate: float | int
  age: float | int | None = None
  sex: str | None = None
  embeddings: Float[np.ndarray, "n 768"] | None = dataclasses.field(
    default=None, compare=False, repr=False
  )

  def __post_init__(self):
    values = {
      "statements": _check_statements(self.statements),
      "heart_rate": _check_number(self.heart_rate, "heart_rate", 20, 300),
      "age": _check_age(self.age),
    }
    if self.sex is not None:
      values["sex"] = _check_sex(self.sex)
    if self.embeddings is not None:
      values["embeddings"] = _check_embeddings(
        self.embeddings, len(values["statements"])
      )
    for name, value in values.items():
      object.__setattr__(self, name, value)

  @classmethod
  def unreported(
    cls, heart_rate: float, age: float | None = None, sex: str | None = None
  ) -> "Condition":
    """Of a recording that nobody wrote a report of: its statements are ().

    Only an autoencoder can be trained on it; nothing is generated from it.

    Raises:
      ValueError: as of any other.
    """
    condition = cls(("No report",), heart_rate, age, sex)
    object.__setattr__(condition, "statements", ())
    return condition

  def __repr__(self) -> str:
    return f"Condition({self.describe()})"

  def text(self) -> str:
    """The report as one string: its statements joined by '|'."""
    return "|".join(self.statements)

  def describe(self) -> str:
    """One line for titles: statements, rate, age, sex."""
    age = "?" if self.age is None else f"{self.age:g}"
    return (
      f"{', '.join(self.statements)}; {self.heart_rate:g} bpm, {age} years, "
      f"{self.sex or '?'}"
    )

  def as_json(self) -> dict[str, Any]:
    """The fields, embeddings aside."""
    return {
      "statements": list(self.statements),
      "heart_rate": self.heart_rate,
      "age": self.age,
      "sex": self.sex,
    }

  def patient_vector(self) -> Float[np.ndarray, " 3"]:
    """Standardised heart rate, age and sex; what is not known is NaN."""
    age = math.nan if self.age is None else self.age
    sex = math.nan if self.sex is None else SEXES.index(self.sex)
    return standardize_patient(
      np.asarray(self.heart_rate), np.asarray(age), np.asarray(sex)
    )


describe = Condition.describe  # by its name in ecgtwin_jax


def standardize_patient(
  heart_rate: np.ndarray, age: np.ndarray, sex: np.ndarray
) -> Float[np.ndarray, "*b 3"]:
  """Patient vectors p = ((hr - 77.95) / 20.37, (age - 64.25) / 17.13, sex).

  Args:
    heart_rate: (*b,) beats per minute.
    age: (*b,) years; negative or NaN where not known.
    sex: (*b,) F 0, M 1; negative or NaN where not known.

  Returns:
    (*b, 3) float32, NaN where age or sex is not known.

  Source: Lai et al., arXiv 2508.02720 (patient vector).
  """
  columns = np.stack(np.broadcast_arrays(heart_rate, age, sex), -1)
  columns = columns.astype(np.float64)
  columns[..., 1:][columns[..., 1:] < 0] = np.nan
  return ((columns - PATIENT_MEAN) / PATIENT_STD).astype(np.float32)


def find_bad_text(statement: str) -> str | None:
  """What makes a text no statement, as a phrase; None where nothing does."""
  if len(statement) > MAX_STATEMENT:
    return f"has {len(statement)} characters, must have at most {MAX_STATEMENT}"
  # Control characters, and those that turn the direction of text around.
  bad = [x for x in statement if unicodedata.category(x) in ("Cc", "Cf", "Cs")]
  if bad:
    return f"must not hold the control character U+{ord(bad[0]):04X}"
  return None


def _check_statements(statements):
  if isinstance(statements, str):
    raise ArgumentError(
      f"statements={statements[:60]!r} must be a list of statements"
    )
  if not isinstance(statements, Iterable):
    raise ArgumentError(
      f"statements={repr(statements)[:60]} must be a list of statements"
    )
  statements = tuple(statements)
  if not 1 <= len(statements) <= MAX_STATEMENTS:
    raise ValueError(
      f"number of statements={len(statements)} must be in 1..{MAX_STATEMENTS}"
    )
  cleaned = []
  for statement in statements:
    if not isinstance(statement, str) or not statement.strip():
      text = repr(statement)[:60]
      raise ArgumentError(
        f"statement={text} must be a string that is not blank"
      )
    if "|" in statement:
      raise ValueError(
        f"statement={statement[:60]!r} must not contain '|': give each "
        "statement on its own"
      )
    statement = " ".join(statement.split())
    problem = find_bad_text(statement)
    if problem:
      raise ValueError(f"statement {statement[:60]!r} {problem}")
    cleaned.append(statement)
  return tuple(cleaned)


def _check_sex(sex):
  rule = "must be 'F', 'M' or None (not known)"
  if not isinstance(sex, str):
    raise ArgumentError(f"sex={repr(sex)[:60]} {rule}")
  letter = {"female": "F", "male": "M"}.get(sex.lower(), sex.upper())
  if letter not in SEXES:
    raise ValueError(f"sex={sex[:60]!r} {rule}")
  return letter


def _check_number(value, name, low, high):
  rule = f"must be a number in {low}..{high}"
  if isinstance(value, str | bool):
    raise ArgumentError(f"{name}={repr(value)[:60]} {rule}")
  try:
    number = float(value)
  except (TypeError, ValueError, OverflowError):
    raise ArgumentError(f"{name}={repr(value)[:60]} {rule}") from None
  if not low <= number <= high:
    raise ValueError(f"{name}={repr(value)[:60]} {rule}")
  return number


def _check_age(age):
  if age is None or (isinstance(age, numbers.Real) and math.isnan(age)):
    return None
  if age == OVER_89:
    return AGE_OVER_89
  return _check_number(age, "age", 0, 120)


def _check_embeddings(embeddings, rows):
  embeddings = np.asarray(embeddings, np.float32)
  if embeddings.shape != (rows, TEXT_WIDTH):
    raise ValueError(
      f"{embeddings.shape=} must be ({rows}, {TEXT_WIDTH}): a row per statement"
    )
  if not np.isfinite(embeddings).all():
    raise ValueError("embeddings must be finite")
  return embeddings
