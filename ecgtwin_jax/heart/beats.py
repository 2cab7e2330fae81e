"""The shape of a beat: dipole waves of P, QRS, ST and T, and where they end.

A wave is a Gaussian in time with its own widths before and after the peak and a
direction in space. Dipoles are (left, down, back) in mV as Dower's lead vectors
measure them.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from ecgtwin_jax.heart.anatomy import LEAD_MATRIX, Patient

MARKS = (
  *("p_onset", "p_peak", "p_offset"),
  *("qrs_onset", "r_peak", "qrs_offset"),
  *("t_onset", "t_peak", "t_end"),
)
# T ends where its steepest tangent meets the baseline: two widths after it.
TANGENT = 2.0
_J_DELAY, _J_RISE = 0.010, 0.014  # s: ST level reaches its peak after J
_AT_J = float(np.exp(-0.5 * (_J_DELAY / _J_RISE) ** 2))


@dataclasses.dataclass(frozen=True)
class Waves:
  """Asymmetric Gaussians: dipole * exp(-((t - center) / width)^2 / 2).

  Attributes:
    center: (w,) seconds.
    left, right: (w,) widths before and after the center, seconds.
    dipole: (w, 3) mV.
  """

  center: Float[np.ndarray, " w"]
  left: Float[np.ndarray, " w"]
  right: Float[np.ndarray, " w"]
  dipole: Float[np.ndarray, "w 3"]

  def at(self, time: Float[np.ndarray, " t"]) -> Float[np.ndarray, "t 3"]:
    """The sum of the waves at each time, (t, 3) mV."""
    distance = time[:, None] - self.center
    width = np.where(distance < 0, self.left, self.right)
    return np.exp(-0.5 * (distance / width) ** 2) @ self.dipole


@dataclasses.dataclass(frozen=True)
class Beat:
  """Waves of one kind of beat and its MARKS, in seconds from QRS onset."""

  waves: Waves
  marks: Float[np.ndarray, " 9"]


@dataclasses.dataclass(frozen=True)
class Day:
  """How a patient's heart differs today from its habit (factors, seconds)."""

  p_size: float
  qrs_size: float
  t_size: float
  t_bend: Float[np.ndarray, " 3"]
  pr_change: float
  qtc_change: float
  severity: float  # 0 mild .. 1 marked, of what comes and goes


def draw_day(rng: np.random.Generator) -> Day:
  """Draws the small changes from one day to another."""
  p_size, qrs_size, t_size, pr_change, qtc_change = np.clip(
    rng.standard_normal(5), -2.5, 2.5
  ).tolist()
  return Day(
    p_size=1 + 0.06 * p_size,
    qrs_size=1 + 0.03 * qrs_size,
    t_size=1 + 0.08 * t_size,
    t_bend=rng.normal(0.0, 0.015, 3),
    pr_change=0.004 * pr_change,
    qtc_change=0.005 * qtc_change,
    severity=float(rng.random()),
  )


# QRS as (center, width) in parts of its duration, dipole in mV.
_NORMAL = (
  (0.18, 0.078, (-0.15, -0.02, -0.34)),  # septum
  (0.37, 0.085, (0.50, 0.42, -0.28)),  # apex
  (0.53, 0.095, (1.00, 0.68, 0.45)),  # left free wall
  (0.75, 0.092, (-0.10, -0.22, 0.60)),  # base
)
_LEFT_ANTERIOR_BLOCK = (
  (0.18, 0.078, (-0.18, 0.28, -0.28)),
  (0.37, 0.085, (0.42, -0.02, -0.25)),
  (0.53, 0.095, (0.95, -0.62, 0.42)),
  (0.75, 0.092, (0.05, -0.72, 0.48)),
)
_LEFT_BLOCK = (
  (0.15, 0.060, (0.22, 0.10, -0.06)),
  (0.37, 0.105, (0.80, 0.36, 0.60)),
  (0.61, 0.105, (0.90, 0.10, 0.82)),
  (0.80, 0.072, (0.18, -0.10, 0.28)),
)
_PACED = (  # from the apex of the right ventricle
  (0.16, 0.060, (0.15, 0.05, -0.10)),
  (0.38, 0.100, (0.70, -0.75, 0.35)),
  (0.62, 0.095, (0.65, -0.95, 0.75)),
  (0.80, 0.072, (0.10, -0.35, 0.25)),
)
_RIGHT_BLOCK_END = (0.75, 0.090, (-0.38, 0.03, -0.62))
_ECTOPIC = (  # dipoles in parts of the ectopic one
  (0.20, 0.070, 0.30),
  (0.42, 0.105, 0.85),
  (0.65, 0.100, 0.75),
  (0.82, 0.062, 0.20),
)
# What a thick left ventricle adds to each part of QRS, mV.
_HYPERTROPHY = np.array([[0.1], [0.4], [1.0], [0.5]]) * (1.0, 0.35, 0.60)
# Early forces without the wall that died: (wall, septum, apex).
_DEAD_WALLS = (
  ("inferior", (0.00, -0.48, -0.20), (0.45, -0.10, -0.20)),
  ("anterior", (0.03, 0.02, 0.32), (0.12, 0.32, 0.42)),
)
_ATRIA = (
  (0.37, 0.150, (0.030, 0.105, -0.045)),  # right
  (0.63, 0.155, (0.065, 0.060, 0.050)),  # left
)
_T = np.array([0.30, 0.24, -0.19])
_INFERIOR = np.array([-0.15, 0.90, 0.15])
_ANTERIOR = np.array([0.25, -0.12, -0.85])
_SPIKE = Waves(
  np.array([-0.005]),
  *(np.array([0.0012]),) * 2,
  np.array([[0.5, 0.9, 0.3]]),
)


def draw_beats(
  patient: Patient,
  findings: frozenset[str],
  mean_rr: float,
  day: Day,
  vectors: Float[np.ndarray, "9 3"],
) -> dict[str, Beat]:
  """Shapes of the kinds of beat: "normal" or "paced", "pvc", "pac".

  Args:
    patient: Whose heart.
    findings: Keys of the effects at work (see findings.CONDITIONS).
    mean_rr: Seconds; QT = QTc * RR^(1/3), and PR shortens at high rates.
    day: Today's changes.
    vectors: Lead vectors at the habitual electrode places in the axes of the
      dipoles. The sizes that statements promise are set through them.
  """
  leads = LEAD_MATRIX @ vectors
  duration, qrs = _build_qrs(patient, findings, day, leads)
  qt = _interval_qt(patient, findings, mean_rr, day)
  wide_qt = qt + 0.6 * max(duration - 0.110, 0.0)
  st_t = _build_st_t(patient, findings, day, leads, duration, wide_qt, qrs)
  pr = _interval_pr(patient, findings, mean_rr, day)
  if findings & {"fibrillation", "flutter"}:
    beats = {"normal": _beat(duration, qrs, st_t)}
  elif "pacing" in findings:
    beats = {"paced": _beat(duration, qrs, st_t, _SPIKE)}
  else:
    beats = {
      "normal": _beat(duration, qrs, st_t, *_build_p(patient, day, pr, 0.0))
    }
  if "pac" in findings:
    atria = _build_p(patient, day, pr, np.array(patient.atrial_focus))
    beats["pac"] = _beat(duration, qrs, st_t, *atria)
  if "pvc" in findings:
    beats["pvc"] = _build_pvc(patient, qt)
  return beats


def _beat(duration, qrs, st_t, atria=None, p_marks=(np.nan,) * 3):
  """Puts the parts of a beat together and notes where each begins and ends."""
  time = np.linspace(0.0, duration, 100)
  peak = time[np.argmax(np.linalg.norm(qrs.at(time), axis=1))]
  onset = st_t.center[-1] - TANGENT * st_t.left[-1]
  end = st_t.center[-1] + TANGENT * st_t.right[-1]
  marks = (*p_marks, 0.0, peak, duration, onset, st_t.center[-1], end)
  parts = [part for part in (atria, qrs, st_t) if part is not None]
  fields = [field.name for field in dataclasses.fields(Waves)]
  waves = Waves(
    *(
      np.concatenate([getattr(part, name) for part in parts]) for name in fields
    )
  )
  return Beat(waves, np.array(marks))


def _parts(table, duration):
  """Center, width (seconds) and dipole arrays of a table of parts."""
  center, width, dipole = zip(*table)
  return (
    np.array(center) * duration,
    np.array(width) * duration,
    np.array(dipole),
  )


def _interval_pr(patient, findings, mean_rr, day):
  """PR in seconds: shorter at high rates, over 200 ms in first degree block."""
  if "av_block" in findings:
    slow = patient.pr_interval + 0.085 + 0.03 * day.severity + day.pr_change
    return float(np.clip(slow, 0.210, 0.320))
  faster = max(60.0 / mean_rr - 70.0, 0.0)
  pr = patient.pr_interval + day.pr_change - 0.0004 * faster
  return float(np.clip(pr, patient.p_duration + 0.012, 0.195))


def _interval_qt(patient, findings, mean_rr, day):
  """QT in seconds for a narrow QRS: QTc * RR^(1/3) (Fridericia)."""
  qtc = patient.qtc + day.qtc_change
  if "long_qt" not in findings:
    return qtc * mean_rr ** (1 / 3)
  qtc = 0.490 + (patient.qtc - 0.370) * 0.4 + 0.03 * day.severity
  # Long after Bazett and after Fridericia, whichever asks for more.
  return qtc * max(mean_rr ** (1 / 3), mean_rr**0.5)


def _build_p(patient, day, pr, focus):
  """P waves, and the marks of P: it begins `pr` before QRS."""
  center, width, dipole = _parts(_ATRIA, patient.p_duration)
  dipole = (dipole + np.array(patient.p_bend)) * patient.p_size * day.p_size
  waves = Waves(center - pr, width, width, dipole + focus)
  time = np.linspace(-pr, patient.p_duration - pr, 100)
  peak = time[np.argmax(np.linalg.norm(waves.at(time), axis=1))]
  return waves, (-pr, peak, patient.p_duration - pr)


def _build_qrs(patient, findings, day, leads):
  """Duration of QRS in seconds and its waves."""
  narrow = patient.qrs_duration
  if "lafb" in findings:
    table, duration = _LEFT_ANTERIOR_BLOCK, min(narrow + 0.010, 0.116)
  elif "lbbb" in findings:
    table, duration = _LEFT_BLOCK, patient.block_duration + 0.010
  elif "pacing" in findings:
    table, duration = _PACED, patient.block_duration + 0.022
  else:
    table, duration = _NORMAL, narrow
  center, width, dipole = _parts(table, duration)
  center = center + np.array(patient.qrs_timing) * 0.5 * duration
  dipole = dipole * patient.qrs_size + np.array(patient.qrs_bend)
  if findings & {"lbbb", "pacing"}:
    dipole[1:3] += np.array(patient.block_bend)
  dipole *= day.qrs_size
  _remove_dead_wall(findings, center, width, dipole, duration)
  if "rbbb" in findings:
    center, width, dipole, duration = _delay_right(
      patient, day, center, width, dipole
    )
  waves = Waves(center, width, width, dipole)
  if "lvh" in findings:
    dipole = _grow_left(patient, day, waves, duration, leads)
  elif "low_voltage" in findings:
    dipole = dipole * _shrink(day, waves, duration, leads)
  return duration, Waves(center, width, width, dipole)


def _remove_dead_wall(findings, center, width, dipole, duration):
  """Infarcts take their wall's early forces away: a Q wave, in place."""
  for wall, *forces in _DEAD_WALLS:
    share = 0.9 if f"{wall}_old" in findings else 0.0
    share = 0.5 if f"{wall}_acute" in findings else share
    if share:
      center[0], width[0] = 0.23 * duration, 0.088 * duration
      dipole[:2] += share * (np.array(forces) - dipole[:2])


def _delay_right(patient, day, center, width, dipole):
  """Right bundle branch block: a slow last part to the right and front."""
  duration = patient.block_duration
  at, spread, end = _RIGHT_BLOCK_END
  end = (np.array(end) + patient.block_bend) * patient.qrs_size * day.qrs_size
  dipole[3] *= 0.45
  return (
    np.append(center, at * duration),
    np.append(width, spread * duration),
    np.vstack([dipole, end]),
    duration,
  )


def _grow_left(patient, day, waves, duration, leads):
  """Dipoles whose S(V1) + R(V5 or V6) is the patient's in hypertrophy (mV)."""
  target = max(patient.sokolow * day.qrs_size, 3.7)
  time = np.linspace(0.0, duration, 60)
  growth, dipole = 0.3, waves.dipole
  for _ in range(10):
    dipole = waves.dipole.copy()
    dipole[:4] += growth * _HYPERTROPHY
    signal = dataclasses.replace(waves, dipole=dipole).at(time) @ leads.T
    missing = target - (signal[:, 10:].max() - signal[:, 6].min())
    growth += 0.4 * missing  # each mV of growth adds over 1.8 mV
  return dipole


def _shrink(day, waves, duration, leads):
  """Factor under which QRS spans < 0.5 mV (limbs) and < 1.0 mV (chest)."""
  span = np.ptp(waves.at(np.linspace(0.0, duration, 60)) @ leads.T, axis=0)
  limit = 1.0 - 0.2 * day.severity
  return limit * min(1.0, 0.46 / span[:6].max(), 0.92 / span[6:].max())


def _build_st_t(patient, findings, day, leads, duration, qt, qrs):
  """ST level and T wave; T is the last of the waves."""
  faster = np.clip(0.003 * (qt - 0.40) * 1000, -0.35, 0.2)
  size = patient.t_size * day.t_size * (1 + faster)
  t = (_T + np.array(patient.t_bend) + day.t_bend) * size
  st = patient.st_level * t
  skew = patient.t_skew
  if findings & {"lbbb", "pacing"}:
    # T and ST point away from a QRS that spread by the wrong way.
    area = qrs.right @ qrs.dipole / qrs.right.sum()
    t, st = -0.55 * area * day.t_size, -0.16 * area
  if "rbbb" in findings:
    t = t - 0.24 * qrs.dipole[-1]
  if "lvh" in findings:
    t = np.array([-0.20, 0.04, -0.06]) * day.t_size + 0.4 * day.t_bend
    st = np.array([-0.07, 0.0, -0.05])
  if "inferior_old" in findings:
    t = t - np.array([0.0, 0.34, 0.0]) * size
  if "anterior_old" in findings:
    t = t + np.array([-0.12, 0.0, 0.22]) * size
  if "t_inversion" in findings:
    depth = (0.75 + 0.5 * day.severity) * np.sqrt(patient.t_size)
    t = np.array([-0.33, 0.08, 0.13]) * depth + patient.t_bend
    st, skew = 0.15 * t, 1.1
  if "low_voltage" in findings:
    t, st = 0.6 * t, 0.6 * st
  injury = _injury(patient, findings, day, leads)
  t, st = t + 1.15 * injury, st + injury / _AT_J
  right = 0.105 * qt
  peak = qt - TANGENT * right
  return Waves(
    np.array([duration + _J_DELAY, peak]),
    np.array([_J_RISE, skew * right]),
    np.array([0.45 * (peak - duration), right]),
    np.array([st, t]),
  )


def _injury(patient, findings, day, leads):
  """Dipole of ST elevation at J: over the criterion in the wall's leads."""
  level = 0.6 + 0.8 * day.severity
  if "inferior_acute" in findings:
    direction = _INFERIOR + np.array(patient.injury_bend)
    seen = (leads @ direction)[[1, 2, 5]]  # II, III, aVF
    return direction * max(0.24 * level / seen.max(), 0.13 / np.sort(seen)[1])
  if "anterior_acute" in findings:
    direction = _ANTERIOR + np.array(patient.injury_bend)
    seen = (leads @ direction)[7:10]  # V2, V3, V4
    return direction * max(0.36 * level / seen.max(), 0.30 / np.sort(seen)[1])
  return np.zeros(3)


def _build_pvc(patient, qt):
  """A beat from a ventricular focus: wide, no P, T the other way."""
  duration = patient.ectopic_duration
  center, width, share = _parts(_ECTOPIC, duration)
  way = np.array(patient.ectopic_dipole)
  # The wave front turns a little as it spreads.
  turn = np.linspace(-0.22, 0.22, 4)[:, None] * np.cross(way, (0.3, -0.5, 0.8))
  qrs = Waves(center, width, width, share[:, None] * (way + turn))
  qt = qt + 0.6 * (duration - patient.qrs_duration)
  right = 0.105 * qt
  peak = qt - TANGENT * right
  st_t = Waves(
    np.array([duration, peak]),
    np.array([0.016, 1.7 * right]),
    np.array([0.5 * (peak - duration), right]),
    np.stack([-0.09 * way, -0.36 * way]),
  )
  return _beat(duration, qrs, st_t)
