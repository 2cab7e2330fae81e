"""The ventricles' recovery: ST level and T wave under every condition."""

import numpy as np
from jaxtyping import Float

from ecgtwin_jax.data.ecg import LEADS
from ecgtwin_jax.simulator.anatomy import QRS, Patient, T
from ecgtwin_jax.simulator.daily_variation import Day
from ecgtwin_jax.simulator.waves import Waves, reach

# T ends where its steepest tangent meets the baseline: two widths after it.
TANGENT = 2.0
T_WIDTH = 0.105  # of the QT interval, after the peak
_J_DELAY, _J_RISE = 0.010, 0.014  # s: the ST level is full a little after J
_AT_J = float(np.exp(-0.5 * (_J_DELAY / _J_RISE) ** 2))
_T = np.array([0.516, 0.222, -0.185])
# Direction of ST elevation, its usual largest size (mV), and what it promises
# at J: (lead, sign, mV).
_INJURY = {
  "inferior_acute": (
    np.array([-0.15, 0.90, 0.15]),
    0.24,
    (("II", 1, 0.13), ("III", 1, 0.15), ("aVF", 1, 0.13), ("aVL", -1, 0.05)),
  ),
  "anterior_acute": (
    np.array([0.25, -0.12, -0.85]),
    0.34,
    (
      *(("aVF", -1, -0.05), ("V1", 1, 0.05), ("V4", 1, 0.13)),
      *(("V2", 1, 0.28), ("V3", 1, 0.28)),
    ),
  ),
}
# What statements promise of T.
_T_SIGNS = {
  "rbbb": (("V1", -1, 0.06),),
  "ischemia": (("V5", -1, 0.04), ("V6", -1, 0.04)),
  "lbbb": (("I", -1, 0.08), ("V6", -1, 0.12), ("V1", 1, 0.10)),
  "t_inversion": (
    *(("I", -1, 0.06), ("aVL", -1, 0.04)),
    *(("V4", -1, 0.14), ("V5", -1, 0.15), ("V6", -1, 0.12)),
  ),
}
# What statements promise of the ST level.
_LOW_ST = tuple((lead, -1, 0.09) for lead in ("II", "V4", "V5", "V6"))
_ST_SIGNS = {"st_depression": _LOW_ST, "ischemia": _LOW_ST[1:]}


def build_st_t(
  patient: Patient,
  findings: frozenset[str],
  day: Day,
  leads: Float[np.ndarray, "12 9"],
  duration: float,
  qt: float,
  qrs: Waves,
) -> Waves:
  """ST level and T wave from QRS onset; T is the last of the waves.

  Args:
    patient: Whose heart.
    findings: Keys of the effects at work (see findings.CONDITIONS).
    day: Today's changes.
    leads: Lead vectors, through which promised sizes are set.
    duration: QRS duration, seconds.
    qt: QT interval, seconds.
    qrs: What recovers.
  """
  early, leads = leads[:, QRS], leads[:, T]
  # A fast heart's T waves are lower.
  slower = float(np.clip(3.0 * (qt - 0.40), -0.35, 0.2))
  size = patient.t_size * day.t_size * (1 + slower)
  t = (_T + np.array(patient.t_bend) + day.t_bend) * size
  st = patient.st_level * t + np.array(patient.st_bend)
  skew = patient.t_skew
  if findings & {"lbbb", "pacing"}:
    # T and ST point away from a QRS that spread by the wrong way.
    area = qrs.right @ qrs.dipole / qrs.right.sum()
    t, st = -0.55 * area * day.t_size, -0.12 * area
  if "rbbb" in findings:
    t = t - 0.24 * qrs.dipole[-1]
  if "lvh" in findings:
    strain = max(2 * day.severity - 1, 0.0)  # half of them have none
    inverted = np.array([-0.24, 0.04, 0.06]) * day.t_size
    t = (1 - strain) * t + strain * inverted
    st = (1 - strain) * st + strain * np.array([-0.07, 0.0, -0.05])
  if "inferior_old" in findings:
    t = t - np.array([0.0, 0.34, 0.0]) * size
  if "anterior_old" in findings:
    t = t + np.array([-0.12, 0.0, 0.22]) * size
  if "t_inversion" in findings:
    depth = (0.75 + 0.5 * day.severity) * np.sqrt(patient.t_size)
    t = np.array([-0.33, 0.08, 0.10]) * depth + patient.t_bend
    st, skew = 0.15 * t, 1.1
  if "flat_t" in findings:
    t, st = (0.15 + 0.3 * (1 - day.severity)) * t, 0.0 * t
  if findings & {"st_depression", "ischemia"}:
    st = np.array([-0.09, -0.06, 0.05]) * (0.8 + 0.8 * day.severity)
    t = 0.6 * t
  if "ischemia" in findings:
    t = np.array([-0.10, -0.02, 0.06]) * (0.6 + 0.8 * day.severity)
  if "low_voltage" in findings:
    t, st = 0.6 * t, 0.6 * st
  for key in sorted(_T_SIGNS.keys() & findings):
    t = reach(t, leads, _T_SIGNS[key])
  for key in sorted(_ST_SIGNS.keys() & findings):
    st = reach(st, leads, _ST_SIGNS[key])
  for key in sorted(_INJURY.keys() & findings):
    at_j = early @ qrs.at(np.array([duration]))[0] + _AT_J * leads @ st
    injury = _build_injury(key, patient, day, leads, at_j)
    t, st = t + 1.15 * injury, st + injury / _AT_J
  right = T_WIDTH * qt
  peak = qt - TANGENT * right
  return Waves(
    np.array([duration + _J_DELAY, peak]),
    np.array([_J_RISE, skew * right]),
    np.array([0.45 * (peak - duration), right]),
    np.array([st, t]),
  )


def _build_injury(key, patient, day, leads, at_j):
  """Dipole at J of an acute infarct that meets the criterion of its wall."""
  direction, usual, limits = _INJURY[key]
  direction = direction + np.array(patient.injury_bend)
  wall = [lead for lead, sign, _ in limits if sign > 0]
  seen = max(leads[LEADS.index(lead)] @ direction for lead in wall)
  level = usual * (0.6 + 0.8 * day.severity)
  return reach(direction * level / seen, leads, limits, at_j)
