"""Simulated patients: what makes one person's ECG differ from another's.

Directions are (left, down, back) as seen by the patient, the axes of the Frank
system. The heart is three current dipoles at places of their own: the atria,
the ventricles' depolarisation and their recovery; an electrode sees each
through a lead vector, potential = lead vector . dipole.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float

ELECTRODES = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")
CHEST = slice(3, 9)
# Columns of lead vectors, and of dipoles.
QRS, P, T = slice(0, 3), slice(3, 6), slice(6, 9)
AXES = 9

Vector = tuple[float, float, float]

# Leads I, II and V1..V6 from the Frank leads: Dower et al. 1980, the values
# also used by Edenbrandt and Pahlm 1988 for the inverse matrix.
_DOWER = np.array(
  [
    [0.632, -0.235, 0.059],
    [0.235, 1.066, -0.132],
    [-0.515, 0.157, -0.917],
    [0.044, 0.164, -1.387],
    [0.882, 0.098, -1.277],
    [1.213, 0.127, -0.601],
    [1.125, 0.127, -0.086],
    [0.831, 0.076, 0.230],
  ]
)
# Centimetres from the middle of the chest, an average adult.
_ELECTRODE_POSITION = np.array(
  [
    [-18.0, -20.0, 0.0],
    [18.0, -20.0, 0.0],
    [8.0, 45.0, 0.0],
    [-2.5, -1.0, -11.5],
    [2.5, -1.0, -11.8],
    [5.8, 1.0, -11.2],
    [9.0, 3.0, -10.0],
    [12.5, 3.0, -7.0],
    [15.0, 3.0, -1.5],
  ]
)
_HEART_POSITION = np.array([2.5, 0.0, -4.0])
# Places of the dipoles of QRS, P and T from there, cm, and how much each turns
# from person to person, in parts of the angles of QRS. They are fitted to what
# leads of real ECGs show, through one dipole's law, and are not anatomy.
_SOURCES = (
  ((0.0, 0.0, 0.0), 1.0),
  ((-8.6, -4.1, 6.7), 0.53),
  ((-0.4, -2.9, -0.6), 0.43),
)
_HEART_SIZE = 4.0  # cm: no point, so that near electrodes do not see too much
# Makes the dipole law as strong as Dower's vectors at V2..V6 (cm^2).
_DIPOLE_STRENGTH = 115.0


@dataclasses.dataclass(frozen=True)
class Patient:
  """A simulated person: everything about the ECG that stays from day to day.

  Attributes:
    age: Years.
    sex: "F" or "M".
    heart_rate: Usual rate at rest, beats per minute.
    heart_position: Shift of the heart from the average place, cm.
    heart_rotation: Turns about the three axes, radians; the third is the
      electrical axis in the frontal plane (positive: towards the feet).
    electrode_offset: (9 x 3) habitual places of the electrodes, cm from the
      average adult's.
    p_duration, pr_interval, qrs_duration, qtc: Seconds at 60 bpm; qtc after
      Fridericia.
    p_size, qrs_size, t_size: Wave sizes, 1 for the average.
    limb_size: Voltage of the limb electrodes, 1 for the average.
    qrs_bend: (4 x 3) what is added to the four parts of QRS, mV.
    qrs_timing: (4) shifts of these parts, in parts of the duration.
    p_bend, t_bend: What is added to the P and T dipoles, mV.
    t_skew: How much slower T rises than it falls.
    st_level: ST level along T, in parts of T.
    respiration: Breaths per second.
    respiratory_rr: Swing of the RR interval with the breath, in parts of it.
    ectopic_dipole: Where a ventricular premature beat goes, mV.
    ectopic_duration, ectopic_coupling: Its QRS in seconds; its earliness in
      parts of the RR interval.
    atrial_focus: What an atrial premature P wave adds to P, mV.
    block_duration: QRS in a bundle branch block, seconds.
    block_bend: What is added to the blocked and the paced dipoles, mV.
    injury_bend: What is added to the direction of ST elevation.
    st_bend: What is added to the ST level, mV.
    hypertrophy: Voltages in left ventricular hypertrophy; 1 is the criterion.
    fibrillation: (size in mV, waves per second) of fibrillatory waves.
  """

  age: float
  sex: str
  heart_rate: float
  heart_position: Vector
  heart_rotation: Vector
  electrode_offset: tuple[Vector, ...]
  p_duration: float
  pr_interval: float
  qrs_duration: float
  qtc: float
  p_size: float
  qrs_size: float
  t_size: float
  limb_size: float
  qrs_bend: tuple[Vector, ...]
  qrs_timing: tuple[float, ...]
  p_bend: Vector
  t_bend: Vector
  t_skew: float
  st_level: float
  respiration: float
  respiratory_rr: float
  ectopic_dipole: Vector
  ectopic_duration: float
  ectopic_coupling: float
  atrial_focus: Vector
  block_duration: float
  block_bend: Vector
  injury_bend: Vector
  st_bend: Vector
  hypertrophy: float
  fibrillation: tuple[float, float]


# Ventricular premature beats: outflow tract, apex, left ventricle twice.
_ECTOPIC = (
  (0.35, 1.30, 0.75),
  (0.95, -0.95, 0.60),
  (-0.70, -0.75, -1.00),
  (-0.55, 1.00, -0.90),
)


def sample_patient(
  rng: np.random.Generator, age: float | None = None, sex: str | None = None
) -> Patient:
  """Draws a patient; age and sex shape what can be expected.

  The old have slower conduction, a more leftward axis, flatter T waves and less
  respiratory arrhythmia; women have shorter QRS, longer QT, smaller voltages
  and a faster heart.

  Args:
    rng: Source of all that is drawn.
    age: Years; None draws an age as in a hospital population.
    sex: "F" or "M"; None draws one.

  Raises:
    ValueError: `sex` is neither, or `age` is not in 18..100.
  """
  if sex not in (None, "F", "M"):
    raise ValueError(f"{sex=} must be 'F' or 'M'")
  if age is not None and not 18 <= age <= 100:
    raise ValueError(f"{age=} must be in 18..100 years")
  drawn_age, drawn_sex = rng.normal(63.0, 17.0), rng.random()
  age = float(np.clip(drawn_age, 18, 95)) if age is None else float(age)
  sex = ("M" if drawn_sex < 0.52 else "F") if sex is None else sex
  man, decades = sex == "M", (age - 60) / 10

  def normal(mean, spread, low, high):
    return float(np.clip(rng.normal(mean, spread), low, high))

  def vector(*spread):
    drawn = rng.normal(0, 1, 3).clip(-2.2, 2.2)
    return tuple((np.array(spread) * drawn).tolist())

  ectopic = np.array(_ECTOPIC[rng.choice(4, p=[0.4, 0.25, 0.2, 0.15])])
  ectopic = ectopic * rng.uniform(0.85, 1.2) + rng.normal(0, 0.15, 3)
  return Patient(
    age=age,
    sex=sex,
    heart_rate=normal(71 - 2 * man, 9, 54, 96),
    heart_position=vector(1.89, 2.31, 0.73),
    heart_rotation=(
      float(rng.normal(0.01, 0.067)),
      float(rng.normal(0.06, 0.36)),
      float(np.clip(rng.normal(-0.177 - 0.05 * decades, 0.19), -1.2, 0.7)),
    ),
    electrode_offset=tuple(vector(1.3, 1.3, 1.25) for _ in ELECTRODES),
    p_duration=normal(0.099 + 0.002 * decades, 0.009, 0.080, 0.118),
    pr_interval=normal(0.166 + 0.004 * decades, 0.021, 0.131, 0.197),
    qrs_duration=normal(0.079 + 0.006 * man, 0.0076, 0.062, 0.108),
    qtc=normal(0.388 - 0.010 * man + 0.002 * decades, 0.018, 0.335, 0.435),
    p_size=normal(0.74, 0.15, 0.4, 1.6),
    qrs_size=normal(0.75 + 0.10 * man - 0.02 * decades, 0.04, 0.55, 1.45),
    t_size=normal(0.72 + 0.20 * man - 0.05 * decades, 0.2, 0.3, 1.8),
    limb_size=normal(1.02, 0.1, 0.7, 1.4),
    qrs_bend=(
      vector(0.06, 0.07, 0.08),
      vector(0.028, 0.04, 0.039),
      vector(0.24, 0.2, 0.15),
      vector(0.24, 0.24, 0.23),
    ),
    qrs_timing=tuple(
      np.clip(
        rng.normal(0, 0.08, 4), (-0.02, -0.08, -0.08, -0.08), 0.04
      ).tolist()
    ),
    p_bend=vector(0.035, 0.037, 0.009),
    t_bend=vector(0.137, 0.035, 0.0),
    t_skew=normal(1.55, 0.2, 1.1, 2.0),
    st_level=normal(-0.022 + 0.05 * man - 0.01 * decades, 0.074, -0.4, 0.45),
    respiration=normal(0.25, 0.035, 0.16, 0.34),
    respiratory_rr=normal(0.026 - 0.006 * decades, 0.008, 0.006, 0.06),
    ectopic_dipole=tuple(ectopic.tolist()),
    ectopic_duration=normal(0.156, 0.012, 0.132, 0.185),
    ectopic_coupling=normal(0.62, 0.05, 0.52, 0.75),
    atrial_focus=tuple((np.array([-0.03, -0.13, 0.0]) + vector(0.03)).tolist()),
    block_duration=normal(0.140, 0.008, 0.126, 0.164),
    block_bend=vector(0.10),
    injury_bend=vector(0.12),
    hypertrophy=normal(1.22, 0.10, 1.08, 1.5),
    st_bend=vector(0.044, 0.042, 0.042),
    fibrillation=(normal(0.07, 0.025, 0.03, 0.14), normal(6.3, 0.7, 5, 8)),
  )


@functools.lru_cache(maxsize=1024)
def _heart_turn(patient, part):
  """Rotation of average dipoles (as rows, from the right) to a patient's."""
  turn = np.eye(3)
  for axis, angle in enumerate(patient.heart_rotation):
    angle = part * angle
    i, j = [k for k in range(3) if k != axis]
    step = np.eye(3)
    step[i, i] = step[j, j] = np.cos(angle)
    step[i, j], step[j, i] = np.sin(angle), -np.sin(angle)
    turn = turn @ step
  turn.flags.writeable = False
  return turn


def lead_vectors(
  patient: Patient, shift: Float[np.ndarray, "9 3"] | None = None
) -> Float[np.ndarray, "9 9"]:
  """Lead vectors L_e = (D_e + g(r_e - h) - g(r_e0 - h0)) turned to the heart.

  D is Dower's lead vector of the average torso; the law of a dipole that is
  spread out, g(r) = k r / (|r|^2 + a^2)^(3/2), moves it with the patient's
  electrodes r and the dipole's place h.

  Args:
    patient: Whose torso.
    shift: Where the electrodes are today, cm from their habitual places.

  Returns:
    Potential of each of ELECTRODES per unit dipole, against the mean of the
    limb electrodes of the average torso, for the dipoles of QRS, P and T in the
    axes of the average heart.
  """
  electrode = _ELECTRODE_POSITION + np.array(patient.electrode_offset)
  if shift is not None:
    electrode = electrode + shift
  heart = _HEART_POSITION + np.array(patient.heart_position)
  lead_i, lead_ii = _DOWER[:2]
  average = np.vstack(
    [
      -(lead_i + lead_ii) / 3,
      (2 * lead_i - lead_ii) / 3,
      (2 * lead_ii - lead_i) / 3,
      _DOWER[2:],
    ]
  )
  average = average - _dipole_law(_ELECTRODE_POSITION - _HEART_POSITION)
  vectors = [
    (average + _dipole_law(electrode - heart - place))
    @ _heart_turn(patient, part).T
    for place, part in _SOURCES
  ]
  vectors = np.hstack(vectors)
  vectors[:3] *= patient.limb_size
  return vectors


def _dipole_law(r):
  square = np.sum(r**2, axis=1, keepdims=True) + _HEART_SIZE**2
  return _DIPOLE_STRENGTH * r / square**1.5


def _lead_matrix():
  """(12, 9) leads from electrode potentials (Einthoven, Goldberger, Wilson)."""
  right, left, foot = np.eye(9)[:3]
  centre = (right + left + foot) / 3
  limbs = [
    left - right,
    foot - right,
    foot - left,
    right - (left + foot) / 2,
    left - (right + foot) / 2,
    foot - (right + left) / 2,
  ]
  return np.vstack([limbs, np.eye(9)[CHEST] - centre])


LEAD_MATRIX = _lead_matrix()
