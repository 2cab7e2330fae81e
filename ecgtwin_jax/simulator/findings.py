"""What a report's statements mean: their effects, rates and conflicts."""

import dataclasses
import math

import numpy as np

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.simulator.anatomy import Patient
from ecgtwin_jax.text.wording import reword


@dataclasses.dataclass(frozen=True)
class Effect:
  """What a statement does to the simulated heart.

  Attributes:
    key: Name of the effect, on which its neighbours here act. "" does nothing.
    group: Statements of the same group cannot stand together ("" has none).
    excludes: Keys or groups that cannot stand with it.
    rates: Lowest and highest heart rate at which the statement makes sense.
  """

  key: str
  group: str = ""
  excludes: tuple[str, ...] = ()
  rates: tuple[int, int] = (20, 220)


_NEED_P = ("av_block", "pac", "sinus_arrhythmia", "left_atrium")
_WALLS = ("inferior", "anterior")
# What a paced QRS and its T hide.
_HIDDEN = ("bundle", "axis", "voltage", *_WALLS, "lvh", "recovery")
_RHYTHMS = ("fibrillation", "flutter", "pacing")
# What has a T wave of its own.
_OWN_RECOVERY = ("lbbb", "lvh", "inferior_acute", "anterior_acute")
_ABNORMAL = (*_NEED_P, *_HIDDEN, *_RHYTHMS, "long_qt", "pvc")

# The statements follow the wording of MIMIC-IV-ECG's machine reports.
CONDITIONS: dict[str, Effect] = {
  "Sinus rhythm": Effect("sinus", "rhythm"),
  "Sinus bradycardia": Effect("bradycardia", "rhythm", rates=(20, 60)),
  "Sinus tachycardia": Effect("tachycardia", "rhythm", rates=(100, 220)),
  "Atrial fibrillation": Effect("fibrillation", "rhythm", _NEED_P, (30, 190)),
  "Atrial fibrillation with rapid ventricular response": Effect(
    "fibrillation", "rhythm", _NEED_P, (100, 190)
  ),
  "Atrial flutter": Effect("flutter", "rhythm", _NEED_P, (30, 180)),
  "Ventricular pacing": Effect(
    "pacing", "rhythm", (*_NEED_P, *_HIDDEN, "long_qt"), (40, 130)
  ),
  "Sinus arrhythmia": Effect("sinus_arrhythmia", rates=(40, 110)),
  "Ventricular premature complex": Effect("pvc", rates=(30, 160)),
  "Atrial premature complex": Effect("pac", rates=(30, 150)),
  "1st degree A-V block": Effect("av_block", rates=(20, 130)),
  "Right bundle branch block": Effect("rbbb", "bundle"),
  "Left bundle branch block": Effect("lbbb", "bundle", ("axis", *_WALLS)),
  "Incomplete right bundle branch block": Effect("incomplete_rbbb", "bundle"),
  "Nonspecific intraventricular conduction delay": Effect("slow_qrs", "bundle"),
  "Left anterior fascicular block": Effect("lafb", "axis"),
  "Left atrial enlargement": Effect("left_atrium"),
  "Left ventricular hypertrophy": Effect("lvh", excludes=("voltage",)),
  "Low QRS voltages": Effect("low_voltage", "voltage"),
  "Inferior infarct, possibly acute": Effect(
    "inferior_acute", "inferior", ("anterior_acute",)
  ),
  "Anterior infarct, possibly acute": Effect("anterior_acute", "anterior"),
  "Inferior infarct, age undetermined": Effect("inferior_old", "inferior"),
  "Anterior infarct, age undetermined": Effect("anterior_old", "anterior"),
  "Anterolateral T wave inversion": Effect(
    "t_inversion", "recovery", ("lbbb", "anterior_acute")
  ),
  "Nonspecific ST-T changes": Effect("flat_t", "recovery", _OWN_RECOVERY),
  "ST depression": Effect("st_depression", "recovery", _OWN_RECOVERY),
  "Lateral ST-T changes may be due to myocardial ischemia": Effect(
    "ischemia", "recovery", _OWN_RECOVERY
  ),
  "Prolonged QT interval": Effect("long_qt", rates=(20, 140)),
  "Normal ECG": Effect(
    "", "summary", (*_ABNORMAL, "bradycardia", "tachycardia")
  ),
  "Normal ECG except for rate": Effect("", "summary", (*_ABNORMAL, "sinus")),
  "Borderline ECG": Effect("", "summary"),
  "Abnormal ECG": Effect("", "summary"),
}
# Share of reports that end with a conclusion, as those of machines do; cards of
# other data sets and people who ask for a twin do not always give one.
_CONCLUDED = 0.7
_SPELLED = {statement.casefold(): statement for statement in CONDITIONS}


def find_effects(condition: Condition) -> frozenset[str]:
  """Keys of the effects of a condition's statements.

  Without a statement on rhythm it is a sinus rhythm. Case and a full stop at
  the end do not matter.

  Raises:
    ValueError: A statement is unknown (the message names the nearest known
      one), two contradict each other, or one contradicts the heart rate.
  """
  known = []
  for statement in condition.statements:
    plain = statement.casefold().rstrip(".")
    if plain not in _SPELLED:
      raise ValueError(
        f"{statement=} is not one of the simulator's statements; "
        f"{reword(statement, CONDITIONS)}"
      )
    known.append(_SPELLED[plain])
  for i, one in enumerate(known):
    for other in known[:i]:
      if conflict(one, other):
        raise ValueError(f"{other!r} and {one!r} contradict each other")
  for statement in known:
    low, high = CONDITIONS[statement].rates
    if not low <= condition.heart_rate <= high:
      raise ValueError(
        f"heart_rate={condition.heart_rate:g} must be in {low:g}..{high:g} bpm "
        f"with {statement!r}"
      )
  return frozenset(CONDITIONS[statement].key for statement in known) - {""}


def conflict(one: str, other: str) -> bool:
  """Whether two statements of CONDITIONS cannot stand in the same report."""
  a, b = CONDITIONS[one], CONDITIONS[other]
  if one == other:
    return False
  return (
    bool(a.group and a.group == b.group)
    or bool({b.key, b.group} - {""} & set(a.excludes))
    or bool({a.key, a.group} - {""} & set(b.excludes))
  )


def sample_condition(patient: Patient, rng: np.random.Generator) -> Condition:
  """Draws a report, and a heart rate that agrees with it, for a patient.

  Prevalence is that of a hospital's recordings in rough outline: four fifths
  sinus rhythm, fibrillation and conduction disease rising with age.

  Args:
    patient: Whose recording; age and sex of the condition are the patient's.
    rng: Source of all that is drawn.
  """
  old = 1 / (1 + math.exp(-(patient.age - 65) / 9))  # 0 young .. 1 old
  man = patient.sex == "M"
  rhythms = {
    "Sinus rhythm": 0.80,
    "Sinus bradycardia": 0.06,
    "Sinus tachycardia": 0.03,
    "Atrial fibrillation": 0.01 + 0.045 * old,
    "Atrial fibrillation with rapid ventricular response": 0.003 + 0.02 * old,
    "Atrial flutter": 0.005 + 0.01 * old,
    "Ventricular pacing": 0.003 + 0.012 * old,
  }
  weights = np.array(list(rhythms.values()))
  rhythm = str(rng.choice(list(rhythms), p=weights / weights.sum()))
  heart_rate = _sample_rate(patient, rhythm, rng)
  others = {
    "Sinus arrhythmia": 0.07 - 0.05 * old,
    "Ventricular premature complex": 0.04 + 0.06 * old,
    "Atrial premature complex": 0.02 + 0.07 * old,
    "1st degree A-V block": 0.02 + 0.09 * old,
    "Left atrial enlargement": 0.02 + 0.02 * old,
    "Left bundle branch block": 0.01 + 0.025 * old,
    "Right bundle branch block": 0.012 + 0.022 * old + 0.006 * man,
    "Incomplete right bundle branch block": 0.06,
    "Nonspecific intraventricular conduction delay": 0.015 + 0.015 * old,
    "Left anterior fascicular block": 0.01 + 0.10 * old,
    "Left ventricular hypertrophy": 0.05 + 0.06 * old,
    "Low QRS voltages": 0.03 + 0.01 * old,
    "Inferior infarct, possibly acute": 0.02 + 0.01 * man,
    "Anterior infarct, possibly acute": 0.02 + 0.01 * man,
    "Inferior infarct, age undetermined": 0.02 + 0.06 * old,
    "Anterior infarct, age undetermined": 0.01 + 0.06 * old,
    "Anterolateral T wave inversion": 0.03 + 0.02 * old,
    "Nonspecific ST-T changes": 0.04 + 0.08 * old,
    "ST depression": 0.02 + 0.04 * old,
    "Lateral ST-T changes may be due to myocardial ischemia": 0.02 + 0.06 * old,
    "Prolonged QT interval": 0.025 - 0.01 * man,
  }
  statements = [rhythm]
  for (statement, chance), draw in zip(others.items(), rng.random(len(others))):
    low, high = CONDITIONS[statement].rates
    fits = low <= heart_rate <= high
    if draw < chance and fits and not any(map(_against(statement), statements)):
      statements.append(statement)
  if rng.random() < _CONCLUDED:
    statements.append(_summary(statements))
  return Condition(
    tuple(statements), heart_rate, float(int(patient.age)), patient.sex
  )


def _against(statement):
  return lambda other: conflict(statement, other)


def _sample_rate(patient, rhythm, rng):
  """Beats per minute, whole, that agree with the rhythm's statement."""
  usual = patient.heart_rate
  mean, spread, low, high = {
    "Sinus rhythm": (usual + 0.5, 7, 51, 100),
    "Sinus bradycardia": (usual - 19, 4, 40, 59),
    "Sinus tachycardia": (usual + 40, 10, 101, 150),
    "Atrial fibrillation": (usual + 6, 12, 50, 100),
    "Atrial fibrillation with rapid ventricular response": (125, 13, 101, 165),
    "Atrial flutter": (
      rng.choice([75, 100, 150], p=[0.4, 0.2, 0.4]),
      3,
      60,
      160,
    ),
    "Ventricular pacing": (rng.choice([60, 70, 80]), 1.5, 50, 100),
  }[rhythm]
  return float(np.clip(np.round(rng.normal(mean, spread)), low, high))


_BORDERLINE = {
  *("sinus_arrhythmia", "pac", "av_block", "lafb", "low_voltage"),
  *("incomplete_rbbb", "left_atrium", "flat_t"),
}


def _summary(statements):
  """The report's last line, as a machine would conclude."""
  keys = {CONDITIONS[statement].key for statement in statements}
  findings = keys - {"sinus", "bradycardia", "tachycardia"}
  if not findings:
    return "Normal ECG" if "sinus" in keys else "Normal ECG except for rate"
  return "Borderline ECG" if findings <= _BORDERLINE else "Abnormal ECG"
