"""The ventricles' depolarisation: QRS of every conduction and voltage."""

import dataclasses

import numpy as np
from jaxtyping import Float

from ecgtwin_jax.data.ecg import LEADS
from ecgtwin_jax.simulator.anatomy import Patient
from ecgtwin_jax.simulator.daily_variation import Day
from ecgtwin_jax.simulator.waves import Waves, join_waves, reach, read_table

V1, V3, V5 = map(LEADS.index, ("V1", "V3", "V5"))
AVL = LEADS.index("aVL")

# (center, width) in parts of the duration of QRS, dipole in mV.
_NORMAL = (
  (0.18, 0.078, (-0.07, 0.01, -0.25)),  # septum
  (0.39, 0.085, (0.59, 0.23, -0.31)),  # apex
  (0.53, 0.095, (1.48, 0.88, 0.34)),  # left free wall
  (0.74, 0.092, (-0.08, 0.14, 1.3)),  # base
)
_LEFT_ANTERIOR_BLOCK = (
  (0.18, 0.078, (-0.18, 0.28, -0.28)),
  (0.37, 0.085, (0.42, -0.02, -0.25)),
  (0.53, 0.095, (0.95, -0.62, 0.42)),
  (0.74, 0.092, (0.05, -0.72, 0.48)),
)
_LEFT_BLOCK = (
  (0.13, 0.046, (0.22, 0.10, -0.06)),
  (0.31, 0.062, (0.85, 0.40, 0.62)),
  (0.64, 0.064, (0.98, 0.10, 0.88)),
  (0.80, 0.060, (0.15, -0.10, 0.26)),
  (0.48, 0.076, (0.74, 0.23, 0.60)),  # the notch between the peaks
)
_PACED = (  # from the apex of the right ventricle
  (0.14, 0.050, (0.20, -0.15, -0.05)),
  (0.32, 0.066, (0.72, -0.80, 0.38)),
  (0.65, 0.064, (0.62, -1.00, 0.80)),
  (0.80, 0.060, (0.10, -0.30, 0.25)),
  (0.49, 0.084, (0.62, -0.78, 0.52)),
)
_RIGHT_BLOCK_END = (0.75, 0.090, (-0.38, 0.03, -0.62))
_INCOMPLETE_END = (0.82, 0.070, (-0.20, 0.00, -0.34))
# Of the limits of hypertrophy: above that, what is beyond shrinks by the power.
_USUAL_VOLTAGE, _HELD = 0.86, 0.74
_HYPERTROPHY = np.array([[0.1], [0.4], [1.0], [0.5]])  # growth of each part
# Early forces without the wall that died: (wall, septum, apex).
_DEAD_WALLS = (
  ("inferior", (0.00, -0.48, -0.20), (0.45, -0.10, -0.20)),
  ("anterior", (0.03, 0.02, 0.32), (0.12, 0.32, 0.42)),
)
# What a statement promises of the leads: key -> part -> (lead, sign, mV).
_LEFT = (("I", 1, 0.30), ("V6", 1, 0.50), ("V1", -1, 0.50))
_AXIS = (("I", 1, 0.25), ("aVL", 1, 0.45), ("II", -1, 0.30))
_SIGNS = {
  "lbbb": {
    0: (("I", 1, 0.04), ("V6", 1, 0.06), ("V1", -1, -0.20)),
    1: _LEFT,
    2: _LEFT,
    3: (("I", 1, 0.0), ("V6", 1, 0.0)),
  },
  "lafb": {1: (("II", -1, -0.20),), 2: _AXIS, 3: (("II", -1, 0.25),)},
  "pacing": {
    part: (("V1", -1, 0.30), ("II", -1, 0.40), ("aVL", 1, 0.20))
    for part in (1, 2)
  },
  "anterior_old": {
    part: (("V1", -1, 0.08), ("V2", -1, 0.10), ("V3", -1, 0.08))
    for part in (0, 1)
  },
}


def build_qrs(
  patient: Patient,
  findings: frozenset[str],
  day: Day,
  leads: Float[np.ndarray, "12 3"],
) -> tuple[float, Waves]:
  """Duration of QRS in seconds, and its waves from its onset.

  Args:
    patient: Whose heart.
    findings: Keys of the effects at work (see findings.CONDITIONS).
    day: Today's changes.
    leads: Lead vectors, through which promised sizes are set.
  """
  narrow = patient.qrs_duration
  if "lafb" in findings:
    table, duration = _LEFT_ANTERIOR_BLOCK, min(narrow + 0.010, 0.116)
  elif "lbbb" in findings:
    table, duration = _LEFT_BLOCK, patient.block_duration + 0.010
  elif "pacing" in findings:
    table, duration = _PACED, patient.block_duration + 0.022
  else:
    table, duration = _NORMAL, narrow
  if "slow_qrs" in findings:
    duration = float(np.clip(duration + 0.036, 0.112, 0.128))
  center, width, dipole = read_table(table, duration)
  center[:4] += np.array(patient.qrs_timing) * duration
  dipole = dipole * patient.qrs_size
  dipole[:4] += np.array(patient.qrs_bend)
  if findings & {"lbbb", "pacing"}:
    dipole[1:3] += np.array(patient.block_bend)
  dipole *= day.qrs_size
  _remove_dead_wall(findings, center, width, dipole, duration)
  for key in sorted(_SIGNS.keys() & findings):
    for part, limits in _SIGNS[key].items():
      dipole[part] = reach(dipole[part], leads, limits)
  waves = Waves(center, width, width, dipole)
  if "rbbb" in findings:
    duration = patient.block_duration
    waves = _delay_right(patient, day, waves, leads)
  elif "incomplete_rbbb" in findings:
    duration = float(np.clip(narrow + 0.022, 0.100, 0.116))
    waves = _delay_right_a_little(patient, day, waves, duration, leads)
  if "lvh" in findings:
    waves = _grow_left(patient, day, waves, duration, leads)
  elif "low_voltage" in findings:
    waves = _shrink(day, waves, duration, leads)
  elif not findings & {"lbbb", "pacing"}:
    waves = _hold_back(patient, waves, duration, leads)
  return duration, waves


def _remove_dead_wall(findings, center, width, dipole, duration):
  """Infarcts take their wall's early forces away: a Q wave, in place."""
  for wall, *forces in _DEAD_WALLS:
    share = 0.9 if f"{wall}_old" in findings else 0.0
    share = 0.5 if f"{wall}_acute" in findings else share
    if share:
      center[0], width[0] = 0.23 * duration, 0.085 * duration
      dipole[:2] += share * (np.array(forces) - dipole[:2])


def _delay_right(patient, day, waves, leads):
  """Right bundle branch block: a slow last part to the right and front."""
  center, width, end = read_table((_RIGHT_BLOCK_END,), patient.block_duration)
  end = (end[0] + patient.block_bend) * patient.qrs_size * day.qrs_size
  dipole = waves.dipole.copy()
  dipole[3] *= 0.45  # what is left of the base's own late part
  left = dataclasses.replace(waves, dipole=dipole)
  early = left.at(np.linspace(0.0, patient.qrs_duration, 40)) @ leads[V1]
  limits = (
    ("I", -1, 0.12),
    ("V6", -1, 0.18),
    ("V1", 1, max(0.35, 1.15 * early.max() + 0.06)),  # R' above r
  )
  end = reach(end, leads, limits, (left.at(center) @ leads.T)[0])
  return join_waves([left, Waves(center, width, width, end[None])])


def _delay_right_a_little(patient, day, waves, duration, leads):
  """Incomplete block: a small r' in V1 after an otherwise usual QRS."""
  center, width, end = read_table((_INCOMPLETE_END,), duration)
  end = (end[0] + 0.3 * np.array(patient.block_bend)) * day.qrs_size
  present = waves.at(center) @ leads.T
  end = reach(end, leads, (("V1", 1, 0.12), ("I", -1, 0.0)), present[0])
  return join_waves([waves, Waves(center, width, width, end[None])])


def _grow_left(patient, day, waves, duration, leads):
  """Hypertrophy: left forces grow over Sokolow's or Cornell's limit."""
  target = max(patient.hypertrophy * day.qrs_size, 1.06)
  # Where V5 and V1 see most of it, so that no other lead grows out of bounds.
  way = leads[V5] - leads[V1]
  way = 1.2 * _HYPERTROPHY * way / np.linalg.norm(way)
  growth, grown = 0.3, waves
  for _ in range(12):
    dipole = waves.dipole.copy()
    dipole[:4] += growth * way
    grown = dataclasses.replace(waves, dipole=dipole)
    reached = _voltage(patient, grown, duration, leads)
    growth = max(growth + 1.3 * (target - reached), 0.0)
  return grown


def _hold_back(patient, waves, duration, leads):
  """Voltages that a report would have called hypertrophy are rarely normal."""
  voltage = _voltage(patient, waves, duration, leads)
  factor = max(voltage / _USUAL_VOLTAGE, 1.0) ** -_HELD
  return dataclasses.replace(waves, dipole=factor * waves.dipole)


def _voltage(patient, waves, duration, leads):
  """Sokolow's or Cornell's voltage, whichever is the more of its limit."""
  signal = waves.at(np.linspace(0.0, duration, 60)) @ leads.T
  low, high = signal.min(axis=0), signal.max(axis=0)
  cornell = 2.8 if patient.sex == "M" else 2.0
  return max((max(high[V5:]) - low[V1]) / 3.5, (high[AVL] - low[V3]) / cornell)


def _shrink(day, waves, duration, leads):
  """Low voltage: QRS spans < 0.5 mV in limb leads and < 1 mV in chest leads."""
  span = np.ptp(waves.at(np.linspace(0.0, duration, 60)) @ leads.T, axis=0)
  limit = 1.0 - 0.2 * day.severity
  factor = limit * min(1.0, 0.46 / span[:6].max(), 0.92 / span[6:].max())
  return dataclasses.replace(waves, dipole=factor * waves.dipole)
