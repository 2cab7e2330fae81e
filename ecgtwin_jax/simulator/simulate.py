"""Simulated patients and their 12-lead ECGs under any condition.

`simulate(patient, condition, rng)` is a pure function of its arguments, so the
true twin of a simulated patient is known: the same patient under another
condition. It is a test bench for twins, not a claim about hearts.

The heart is three dipoles, of the atria, the ventricles and their recovery,
moving in three dimensions, sums of Gaussian waves (after McSharry et al. 2003
in time; after Dower et al. 1980 in space), seen by nine electrodes. Noise acts
on electrodes, so that III = II - I and the augmented leads hold.
"""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
import scipy.fft
from jaxtyping import Float

from ecgtwin_jax.constants import SECONDS
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import ECG
from ecgtwin_jax.simulator.anatomy import (
  AXES,
  LEAD_MATRIX,
  P,
  Patient,
  lead_vectors,
  sample_patient,
)
from ecgtwin_jax.simulator.beats import MARKS, build_beats
from ecgtwin_jax.simulator.daily_variation import draw_day
from ecgtwin_jax.simulator.findings import (
  CONDITIONS,
  find_effects,
  sample_condition,
)
from ecgtwin_jax.simulator.rhythm import Rhythm, draw_rhythm
from ecgtwin_jax.simulator.waves import Waves

__all__ = [
  "CONDITIONS",
  "Fiducials",
  "Patient",
  "Recording",
  "Simulation",
  "cohort",
  "cohort_patient",
  "cohort_recordings",
  "sample_condition",
  "sample_patient",
  "simulate",
]

_SUPPORT = 4.0  # widths of a Gaussian that are computed: beyond is < 0.0004
_BREATH_SWELL = 0.015  # how much beats swell and shrink with the breath
_YEAR = 365.25 * 86400.0


@dataclasses.dataclass(frozen=True, eq=False)
class Fiducials:
  """Where the waves of each beat are, in seconds from the recording's start.

  One entry per beat whose R peak is in the recording; its other marks may lie
  outside. P marks are NaN where there is no P wave. `kind` is "normal", "pvc",
  "pac" or "paced". `qrs_offset` is the J point.
  """

  p_onset: Float[np.ndarray, " b"]
  p_peak: Float[np.ndarray, " b"]
  p_offset: Float[np.ndarray, " b"]
  qrs_onset: Float[np.ndarray, " b"]
  r_peak: Float[np.ndarray, " b"]
  qrs_offset: Float[np.ndarray, " b"]
  t_onset: Float[np.ndarray, " b"]
  t_peak: Float[np.ndarray, " b"]
  t_end: Float[np.ndarray, " b"]
  kind: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Simulation:
  """An ECG with the truth about it."""

  ecg: ECG
  fiducials: Fiducials
  condition: Condition


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
  """One recording of a cohort's patient.

  Attributes:
    patient_id: The patient's number in the cohort.
    record_id: Name of the recording, unique in the cohort.
    time: Seconds since 1970, increasing within a patient.
    patient: The patient at that time (the age has advanced).
    condition: What the recording shows.
    ecg: Ten seconds at 500 Hz unless asked otherwise.
    fiducials: Where its waves are.
  """

  patient_id: int
  record_id: str
  time: int
  patient: Patient
  condition: Condition
  ecg: ECG
  fiducials: Fiducials


def simulate(
  patient: Patient,
  condition: Condition,
  rng: np.random.Generator,
  noise: bool = True,
  sampling_rate: float = 500.0,
) -> Simulation:
  """Ten seconds of a patient's ECG: leads = M (L dipole(t) + noise).

  L are the patient's lead vectors at nine electrodes, M the lead definitions.

  Args:
    patient: Whose heart and torso. Age and sex are taken from here.
    condition: Statements (of CONDITIONS) and mean ventricular rate in bpm.
    rng: Source of all that is drawn. The same state gives the same heart with
      and without noise.
    noise: Adds baseline wander, muscle noise, a rest of mains hum, and today's
      shift of the electrodes.
    sampling_rate: In 50..5000 Hz.

  Raises:
    ValueError: `sampling_rate` is out of range, a statement is unknown, two
      contradict each other, or one contradicts the heart rate.
  """
  if not 50 <= sampling_rate <= 5000:
    raise ValueError(f"{sampling_rate=} must be in 50..5000 Hz")
  findings = find_effects(condition)
  seeds = rng.integers(2**63, size=3)
  heart, rhythm_rng, noise_rng = map(np.random.default_rng, seeds)
  day = draw_day(heart)
  habit = lead_vectors(patient)
  rhythm = draw_rhythm(
    patient, findings, condition.heart_rate, SECONDS, rhythm_rng
  )
  beats = build_beats(patient, findings, rhythm.mean_rr, day, habit)
  samples = round(SECONDS * sampling_rate)
  dipole = _add_waves(rhythm, beats, samples, sampling_rate)
  if findings & {"fibrillation", "flutter"}:
    time = np.arange(samples) / sampling_rate
    dipole[:, P] += _atrial_waves(patient, rhythm, time, rhythm_rng)
  if noise:
    shift = np.clip(noise_rng.normal(0.0, 0.5, (9, 3)), -1.2, 1.2)
    signal = dipole @ (LEAD_MATRIX @ lead_vectors(patient, shift)).T
    signal += (
      _electrode_noise(samples, sampling_rate, noise_rng) @ LEAD_MATRIX.T
    )
  else:
    signal = dipole @ (LEAD_MATRIX @ habit).T
  ecg = ECG(signal.astype(np.float32), sampling_rate)
  return Simulation(ecg, _find_fiducials(rhythm, beats), condition)


def _add_waves(rhythm, beats, samples, rate):
  """(samples, 9) dipoles: every wave of every beat, near its support only."""
  swell = 1 + _BREATH_SWELL * np.sin(rhythm.breath)
  center, left, right, dipole = [], [], [], []
  for kind, beat in beats.items():
    chosen = rhythm.kind == kind
    onset, waves = rhythm.onset[chosen], beat.waves
    center.append((onset[:, None] + waves.center).ravel())
    left.append(np.tile(waves.left, len(onset)))
    right.append(np.tile(waves.right, len(onset)))
    dipole.append((swell[chosen, None, None] * waves.dipole).reshape(-1, AXES))
  # No wave narrower than the sampling can hold (the pacing spike).
  narrowest = 0.4 / rate
  every = Waves(
    np.concatenate(center),
    np.maximum(np.concatenate(left), narrowest),
    np.maximum(np.concatenate(right), narrowest),
    np.concatenate(dipole),
  )
  start = np.ceil((every.center - _SUPPORT * every.left) * rate).astype(int)
  stop = (
    np.floor((every.center + _SUPPORT * every.right) * rate).astype(int) + 1
  )
  start, stop = np.clip(start, 0, samples), np.clip(stop, 0, samples)
  length = np.maximum(stop - start, 0)
  wave = np.repeat(np.arange(len(length)), length)
  ends = np.cumsum(length)
  index = np.arange(ends[-1]) + np.repeat(start - (ends - length), length)
  distance = index / rate - every.center[wave]
  width = np.where(distance < 0, every.left[wave], every.right[wave])
  height = np.exp(-0.5 * (distance / width) ** 2)
  return np.stack(
    [
      np.bincount(index, height * every.dipole[wave, axis], samples)
      for axis in range(AXES)
    ],
    axis=1,
  )


def _atrial_waves(patient, rhythm, time, rng):
  """(s, 3) dipole of fibrillatory waves, or of the sawtooth of flutter."""
  size, speed = patient.fibrillation
  if np.isfinite(rhythm.atrial_cycle):
    lag = rng.uniform(0.0, 1.0)
    phase = 2 * np.pi * ((time - rhythm.onset[0]) / rhythm.atrial_cycle + lag)
    # Four harmonics of a sawtooth, damped so that it does not ring.
    saw = sum(
      np.sin(k * phase) * np.sinc(k / 5) / k * (-1) ** k for k in range(1, 5)
    )
    return (1.0 * size + 0.05) * saw[:, None] * np.array([0.05, 1.0, -0.35])
  waves = np.zeros((len(time), 3))
  for way in ((0.2, 0.5, -0.9), (-0.3, 0.6, -0.3)):
    wander = 0.9 * np.sin(
      2 * np.pi * rng.uniform(0.2, 0.5) * time + rng.uniform(0, 6.28)
    )
    drift = rng.uniform(-0.6, 0.6) + rng.uniform(0.5, 0.9) * wander
    phase = 2 * np.pi * speed * time + 2 * drift + rng.uniform(0, 2 * np.pi)
    wave = np.sin(phase) + 0.25 * np.sin(2 * phase + 0.7)
    swell = 1 + 0.4 * np.sin(
      2 * np.pi * rng.uniform(0.15, 0.6) * time + rng.uniform(0, 6.28)
    )
    waves += (0.6 * size * swell * wave)[:, None] * np.array(way)
  return waves


def _electrode_noise(samples, rate, rng):
  """(s, 9) mV: wander, muscle noise (most of it 1..43 Hz), some mains hum."""
  wander, muscle, hum = np.exp(rng.normal(0.0, (0.6, 0.36, 0.5))) * (
    0.052,
    0.0187,
    0.0015,
  )
  basis = _wander_basis(samples, rate)
  slow = rng.standard_normal((basis.shape[1], 9)) * rng.uniform(0.5, 1.5, 9)
  noise = basis @ (wander * slow)
  # Muscle noise and hum are drawn as spectra and turned into time together.
  frequency = scipy.fft.rfftfreq(samples, 1 / rate)
  low, high = np.searchsorted(frequency, (1.0, min(150.0, rate / 2)))
  spectrum = np.zeros((9, len(frequency)), np.complex64)
  band = rng.standard_normal((9, high - low, 2), dtype=np.float32)
  level = np.exp(rng.normal(0.0, 0.4, 9)).astype(np.float32)
  part = frequency[low:high]
  falling = ((20 / part) ** 0.42 / (1 + (part / 43) ** 6)).astype(np.float32)
  scale = muscle * samples / np.sqrt(4 * max(high - low, 1))
  spectrum[:, low:high] = (
    np.float32(scale)
    * level[:, None]
    * falling
    * band.view(np.complex64)[:, :, 0]
  )
  mains = round((50.0, 60.0)[int(rng.integers(2))] * SECONDS)
  if mains < len(frequency) - 1:
    phase = np.exp(1j * rng.uniform(0, 2 * np.pi))
    spectrum[:, mains] += hum * rng.normal(1.0, 0.5, 9) * phase * samples / 2
  return noise + scipy.fft.irfft(spectrum, samples, axis=1).T


@functools.lru_cache(maxsize=4)
def _wander_basis(samples, rate):
  """(s, 12) slow waves, 0.05..0.55 Hz, that do not join up at the ends."""
  time = np.arange(samples) / rate
  columns = []
  for half_turns in range(1, 13, 2):
    angle = np.pi * half_turns * time / SECONDS
    columns += [
      np.sin(angle) / half_turns**0.9,
      np.cos(angle) / half_turns**0.9,
    ]
  basis = np.stack(columns, axis=1)
  basis.flags.writeable = False
  return basis


def _find_fiducials(rhythm: Rhythm, beats) -> Fiducials:
  """Marks of every beat whose R peak is in the recording."""
  marks = np.stack([beats[kind].marks for kind in rhythm.kind])
  marks = marks + rhythm.onset[:, None]
  r_peak = marks[:, MARKS.index("r_peak")]
  inside = (r_peak >= 0) & (r_peak < SECONDS)
  return Fiducials(*marks[inside].T, kind=rhythm.kind[inside])


def cohort_patient(seed: int, number: int) -> Patient:
  """The patient of this number in the cohort of this seed.

  The age is that at the first recording. `simulate` with this patient and any
  condition gives the patient's true twin.
  """
  return sample_patient(np.random.default_rng([seed, number, 0]))


def cohort_recordings(
  seed: int,
  number: int,
  recordings: int,
  noise: bool = True,
  sampling_rate: float = 500.0,
) -> list[Recording]:
  """All recordings of one patient of a cohort, in order of time.

  Depends on nothing but the arguments, so that patients can be made in
  parallel. Recordings are hours to years apart; more recordings begin with
  the same ones.
  """
  patient = cohort_patient(seed, number)
  calendar = np.random.default_rng([seed, number, 1])
  first = 4.7e9 + calendar.uniform(0, 60) * _YEAR  # as if in 2118..2178
  time, made = first, []
  for k in range(recordings):
    now = dataclasses.replace(
      patient, age=min(patient.age + (time - first) / _YEAR, 110.0)
    )
    rng = np.random.default_rng([seed, number, k + 2])
    condition = sample_condition(now, rng)
    shown = simulate(now, condition, rng, noise, sampling_rate)
    record_id = f"{number:06d}-{k:03d}"
    ecg = dataclasses.replace(shown.ecg, record=record_id)
    made.append(
      Recording(
        number, record_id, int(time), now, condition, ecg, shown.fiducials
      )
    )
    time += 3600.0 + 86400.0 * np.exp(calendar.normal(4.5, 1.7))
  return made


def cohort(
  patients: int,
  recordings_per_patient: int,
  seed: int,
  noise: bool = True,
  sampling_rate: float = 500.0,
) -> Iterator[Recording]:
  """Recordings of patients 0..patients-1, patient after patient.

  Raises:
    ValueError: A number is not positive, or the seed is negative.
  """
  if patients < 1 or recordings_per_patient < 1:
    raise ValueError(f"{patients=} and {recordings_per_patient=} must be >= 1")
  if seed < 0:
    raise ValueError(f"{seed=} must be >= 0")
  for number in range(patients):
    yield from cohort_recordings(
      seed, number, recordings_per_patient, noise, sampling_rate
    )
