"""The shape of each kind of beat: its waves, and where they begin and end."""

import dataclasses

import numpy as np
from jaxtyping import Float

from ecgtwin_jax.simulator.anatomy import AXES, LEAD_MATRIX, QRS, P, Patient, T
from ecgtwin_jax.simulator.daily_variation import Day
from ecgtwin_jax.simulator.qrs import build_qrs
from ecgtwin_jax.simulator.repolarization import T_WIDTH, TANGENT, build_st_t
from ecgtwin_jax.simulator.waves import Waves, join_waves, read_table

MARKS = (
  *("p_onset", "p_peak", "p_offset"),
  *("qrs_onset", "r_peak", "qrs_offset"),
  *("t_onset", "t_peak", "t_end"),
)
_ATRIA = (  # (center, width) in parts of the duration of P, dipole in mV
  (0.35, 0.150, (0.131, 0.127, -0.002)),  # right
  (0.66, 0.155, (0.086, 0.07, 0.251)),  # left
)
_LARGE_LEFT = (  # enlarged left atrium: later and more to the back
  (0.30, 0.130, (0.121, 0.111, -0.005)),
  (0.68, 0.140, (0.085, 0.063, 0.406)),
)
_ECTOPIC = (  # dipoles in parts of the ectopic one
  (0.15, 0.054, 0.30),
  (0.34, 0.066, 0.90),
  (0.51, 0.078, 0.78),
  (0.67, 0.064, 0.75),
  (0.82, 0.062, 0.25),
)
_SPIKE = Waves(  # of a pacemaker
  np.array([-0.005]),
  *(np.array([0.0012]),) * 2,
  np.array([[0.5, 0.9, 0.3]]),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Beat:
  """Waves of one kind of beat and its MARKS, in seconds from QRS onset."""

  waves: Waves
  marks: Float[np.ndarray, " 9"]


def build_beats(
  patient: Patient,
  findings: frozenset[str],
  mean_rr: float,
  day: Day,
  vectors: Float[np.ndarray, "9 9"],
) -> dict[str, Beat]:
  """Shapes of the kinds of beat: "normal" or "paced", "pvc", "pac".

  Args:
    patient: Whose heart.
    findings: Keys of the effects at work (see findings.CONDITIONS).
    mean_rr: Seconds; QT = QTc * RR^(1/3), and PR shortens at high rates.
    day: Today's changes.
    vectors: Lead vectors at the habitual electrode places. The sizes that
      statements promise are set through them.
  """
  leads = LEAD_MATRIX @ vectors
  duration, qrs = build_qrs(patient, findings, day, leads[:, QRS])
  qt = _interval_qt(patient, findings, mean_rr, day)
  wide_qt = qt + 0.6 * max(duration - 0.110, 0.0)
  st_t = build_st_t(patient, findings, day, leads, duration, wide_qt, qrs)
  p = _ATRIA, patient.p_duration, _interval_pr(patient, findings, mean_rr, day)
  if "left_atrium" in findings:
    longer = float(np.clip(patient.p_duration + 0.024, 0.122, 0.140))
    p = _LARGE_LEFT, longer, max(p[2], longer + 0.012)
  if findings & {"fibrillation", "flutter"}:
    beats = {"normal": _beat(duration, qrs, st_t)}
  elif "pacing" in findings:
    beats = {"paced": _beat(duration, join_waves([_SPIKE, qrs]), st_t)}
  else:
    beats = {
      "normal": _beat(duration, qrs, st_t, *_build_p(patient, day, *p, 0.0))
    }
  if "pac" in findings:
    atria = _build_p(patient, day, *p, np.array(patient.atrial_focus))
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
  parts = [_place(qrs, QRS), _place(st_t, T)]
  if atria is not None:
    parts.append(_place(atria, P))
  return Beat(join_waves(parts), np.array(marks))


def _place(waves, columns):
  """Waves of one of the dipoles among the axes of all."""
  dipole = np.zeros((len(waves.dipole), AXES))
  dipole[:, columns] = waves.dipole
  return dataclasses.replace(waves, dipole=dipole)


def _interval_pr(patient, findings, mean_rr, day):
  """PR in seconds: shorter at high rates, over 200 ms in first degree block."""
  if "av_block" in findings:
    slow = patient.pr_interval + 0.062 + 0.035 * day.severity + day.pr_change
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


def _build_p(patient, day, table, duration, pr, focus):
  """P waves, and the marks of P: it begins `pr` before QRS."""
  center, width, dipole = read_table(table, duration)
  dipole = (dipole + np.array(patient.p_bend)) * patient.p_size * day.p_size
  waves = Waves(center - pr, width, width, dipole + focus)
  time = np.linspace(-pr, duration - pr, 100)
  peak = time[np.argmax(np.linalg.norm(waves.at(time), axis=1))]
  return waves, (-pr, peak, duration - pr)


def _build_pvc(patient, qt):
  """A beat from a ventricular focus: wide, no P, T the other way."""
  duration = patient.ectopic_duration
  center, width, share = read_table(_ECTOPIC, duration)
  way = np.array(patient.ectopic_dipole)
  # The wave front turns a little as it spreads.
  turn = np.linspace(-0.22, 0.22, 5)[:, None] * np.cross(way, (0.3, -0.5, 0.8))
  qrs = Waves(center, width, width, share[:, None] * (way + turn))
  qt = qt + 0.6 * (duration - patient.qrs_duration)
  right = T_WIDTH * qt
  peak = qt - TANGENT * right
  st_t = Waves(
    np.array([duration, peak]),
    np.array([0.016, 1.7 * right]),
    np.array([0.5 * (peak - duration), right]),
    np.stack([-0.09 * way, -0.36 * way]),
  )
  return _beat(duration, qrs, st_t)
