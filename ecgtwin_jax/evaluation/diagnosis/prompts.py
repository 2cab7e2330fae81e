"""The prompts of personalised diagnosis: what a patient's twins shall show."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.text.wording import reword


@dataclasses.dataclass(frozen=True)
class Prompt:
  """What some of the twins shall show.

  Attributes:
    statements: what the report says.
    heart_rate: bpm, before the jitter.
    label: 0 normal, 1 abnormal.
    count: how many twins.
  """

  statements: tuple[str, ...]
  heart_rate: float
  label: int
  count: int


_NORMAL = tuple(
  Prompt(("sinus rhythm", "normal ECG."), rate, 0, 128)
  for rate in (70.0, 75.0, 80.0, 85.0, 90.0)
)
_ABNORMAL = tuple(
  Prompt(tuple(text.split("|")), rate, 1, 64)
  for text, rate in (
    ("sinus bradycardia|normal ecg except for rate", 50.0),
    ("sinus tachycardia|normal ecg except for rate", 120.0),
    ("rbbb|abnormal ECG", 80.0),
    ("sinus rhythm with pvc(s)|abnormal ECG", 70.0),
    ("sinus bradycardia|left ventricular hypertrophy", 60.0),
    ("possible atrial flutter|abnormal ecg", 70.0),
    ("sinus rhythm|atrial premature complexes", 80.0),
    # Five statements, as published; their wording is ours.
    (
      "sinus rhythm|inferior st elevation|inferior infarct, possibly acute"
      "|reciprocal st depression in lateral leads|abnormal ecg",
      70.0,
    ),
    (
      "atrial fibrillation with rapid ventricular response|abnormal ecg",
      100.0,
    ),
    (
      "atrial flutter with uncontrolled ventricular response"
      "|poor r wave progression|abnormal ecg",
      120.0,
    ),
  )
)
# 640 normal and 640 abnormal twins.
# Source: Lai et al., arXiv 2508.02720 (personalised auto-diagnosis).
PROMPTS = _NORMAL + _ABNORMAL
_RATE_JITTER = (-10, 10)  # bpm, the upper end excluded
_AGE_JITTER = (0, 20)  # years, the upper end excluded
_OLDEST = 120


def translate(
  prompts: Sequence[Prompt], known: Sequence[str]
) -> tuple[list[Prompt], dict[str, tuple[str, ...]]]:
  """Puts prompts into statements that a twin knows.

  Args:
    prompts: such as PROMPTS.
    known: statements the twin was trained on; none: nothing is translated.

  Returns:
    The prompts, and {statement: what stands in its place} of those that say the
    same in other words or are replaced by what is nearest.
  """
  replaced = {}

  def words(statement):
    wording = reword(statement, known)
    if wording.how in ("meaning", "nearest"):
      replaced[statement] = wording.statements
    return wording.statements or (statement,)

  translated = []
  for prompt in prompts:
    statements = dict.fromkeys(w for s in prompt.statements for w in words(s))
    translated.append(dataclasses.replace(prompt, statements=tuple(statements)))
  return translated, replaced


def scale_counts(prompts: Sequence[Prompt], factor: float) -> list[Prompt]:
  """The prompts with `factor` times as many twins each, at least one.

  Raises:
    ValueError: the factor is not positive.
  """
  if not factor > 0:
    raise ValueError(f"{factor=} must be positive")
  return [
    dataclasses.replace(prompt, count=max(1, round(prompt.count * factor)))
    for prompt in prompts
  ]


def draw_conditions(
  prompts: Sequence[Prompt],
  age: float | None,
  sex: str | None,
  rng: np.random.Generator,
) -> list[Condition]:
  """The conditions of a patient's twins, in the order of the prompts.

  Each twin's heart rate is moved by -10..9 bpm and its age by 0..19 years (to
  120 at most), drawn once.

  Args:
    prompts: what the twins show; each gives `count` conditions.
    age: the patient's age in years; None where not known.
    sex: the patient's sex, "F" or "M"; None where not known.
    rng: source of the jitter.
  """
  conditions = []
  for prompt in prompts:
    rates = prompt.heart_rate + rng.integers(*_RATE_JITTER, prompt.count)
    years = rng.integers(*_AGE_JITTER, prompt.count)
    conditions += [
      Condition(
        prompt.statements,
        float(rate),
        None if age is None else min(float(age + year), _OLDEST),
        sex,
      )
      for rate, year in zip(rates, years)
    ]
  return conditions


def labels_of(prompts: Sequence[Prompt]) -> list[int]:
  """The labels of the twins, in the order of `draw_conditions`."""
  return [prompt.label for prompt in prompts for _ in range(prompt.count)]
