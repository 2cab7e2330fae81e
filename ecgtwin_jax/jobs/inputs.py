"""What commands are given: a recording, what it shows, what is asked for."""

import numpy as np
from ml_collections import ConfigDict

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import (
  ECG,
  example_ecg,
  find_age_and_sex,
  read_ecg,
)
from ecgtwin_jax.data.heart_rate import detect_heart_rate

# What the bundled recording shows: the infarct by its header, without an ST
# elevation that would date it; the block by the criteria that it meets.
EXAMPLE_CONDITION = Condition(
  (
    "Sinus rhythm",
    "Right bundle branch block",
    "Inferior infarct, age undetermined",
  ),
  *(82, 81, "F"),
)


def read_reference(config: ConfigDict) -> tuple[ECG, Condition]:
  """Reads config.record and what it shows, config.now.

  Without a record it is the bundled example.

  Raises:
    ValueError: as fill_condition, the recording breaks a rule, or config.now
      is given without a record.
  """
  now = config.now
  if config.record is None:
    keys = [key for key, value in now.items() if value is not None]
    if keys:
      raise ValueError(
        f"config.now.{keys[0]} needs config.record: without a record it is "
        "the bundled example, and what that shows is known"
      )
    return example_ecg(), EXAMPLE_CONDITION
  reference = read_ecg(config.record, start=config.start)
  return reference, fill_condition(
    reference,
    now.statements,
    now.heart_rate,
    now.age,
    now.sex,
    name="config.now.{}",
  )


def fill_condition(
  reference: ECG,
  statements: str | None,
  heart_rate: float | int | None = None,
  age: float | int | None = None,
  sex: str | None = None,
  name: str = "{}",
) -> Condition:
  """What a recording shows, with what is left open taken from it.

  Age and sex are taken from header comments where they stand there ("age: 81",
  "sex: F"), the heart rate is detected.

  Args:
    reference: the recording.
    statements: separated by '|'.
    heart_rate: heart rate in bpm.
    age: age in years.
    sex: "F" or "M".
    name: how messages call a value, such as "config.now.{}".

  Raises:
    ValueError: the statements are missing, a value is out of range, or no heart
      rate is given or found.
  """
  if not statements:
    example = "--now=" if name.startswith("config") else ""
    raise ValueError(
      f"{name.format('statements')} must say what {reference.record!r} shows, "
      f"such as {example}'Sinus rhythm|Right bundle branch block'"
    )
  if heart_rate is None:
    heart_rate = detect_heart_rate(reference)
    if not np.isfinite(heart_rate):
      raise ValueError(
        f"no heart beat was found in {reference.record!r}: give "
        f"{name.format('heart_rate')}"
      )
  found_age, found_sex = find_age_and_sex(reference.comments)
  age = found_age if age is None else age
  sex = found_sex if sex is None else sex
  return Condition(split_statements(statements), heart_rate, age, sex)


def read_target(target: ConfigDict, now: Condition) -> Condition:
  """Reads config.target; age and sex stay the patient's unless given.

  Raises:
    ValueError: statements or heart rate are missing or out of range.
  """
  for key, example in (
    ("statements", "--target='Sinus rhythm'"),
    ("heart_rate", "--rate=80"),
  ):
    if not target[key]:
      raise ValueError(
        f"config.target.{key}={target[key]!r} must be given, such as {example}"
      )
  age = now.age if target.age is None else target.age
  sex = now.sex if target.sex is None else target.sex
  return Condition(
    split_statements(target.statements), target.heart_rate, age, sex
  )


def split_statements(text: str) -> list[str]:
  """The statements of a text that separates them by '|'."""
  return [s.strip() for s in text.split("|") if s.strip()]


def plain_number(text: str) -> float:
  """A number as it is usually written: neither 1_0 nor digits of other scripts.

  Raises:
    ValueError: it is none.
  """
  if "_" in text or not text.isascii():
    raise ValueError(f"{text[:60]!r} must be a number")
  return float(text)
