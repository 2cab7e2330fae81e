"""The simulator: purity, identity, cohorts, and what it refuses."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import LEADS
from ecgtwin_jax.data.heart_rate import detect_beats
from ecgtwin_jax.simulator import findings, simulate
from ecgtwin_jax.text.findings import names_conclusion
from studies.recording_measures import measure, simulate_recordings

RATES = {
  "Sinus bradycardia": 50.0,
  "Sinus tachycardia": 122.0,
  "Atrial fibrillation": 84.0,
  "Atrial fibrillation with rapid ventricular response": 138.0,
  "Atrial flutter": 100.0,
  "Ventricular pacing": 70.0,
}


def show(number, *statements, rate=None, noise=False, seed=None, **kwargs):
  patient = simulate.cohort_patient(11, number)
  rate = rate or RATES.get(statements[0], float(round(patient.heart_rate)))
  rng = np.random.default_rng(number if seed is None else seed)
  condition = Condition(tuple(statements), rate)
  return simulate.simulate(patient, condition, rng, noise, **kwargs)


def test_simulate_is_a_pure_function():
  one, two, other = (
    show(3, "Atrial fibrillation", noise=True, seed=s) for s in (5, 5, 6)
  )
  assert one.ecg.signal.shape == (5000, 12)
  np.testing.assert_array_equal(one.ecg.signal, two.ecg.signal)
  np.testing.assert_array_equal(one.fiducials.r_peak, two.fiducials.r_peak)
  assert not np.array_equal(one.ecg.signal, other.ecg.signal)


def test_noise_leaves_the_heart_alone():
  clean, noisy = (
    show(2, "Sinus rhythm", noise=n, seed=4) for n in (False, True)
  )
  np.testing.assert_array_equal(clean.fiducials.r_peak, noisy.fiducials.r_peak)
  difference = noisy.ecg.signal - clean.ecg.signal
  assert 0.003 < np.abs(difference).mean() < 0.3


def test_sampling_rate_samples_the_same_heart():
  fine, coarse = (
    show(4, "Atrial flutter", sampling_rate=rate) for rate in (500.0, 250.0)
  )
  np.testing.assert_allclose(fine.ecg.signal[::2], coarse.ecg.signal, atol=1e-4)
  with pytest.raises(ValueError, match=r"sampling_rate=20.0 must be in 50"):
    show(4, "Sinus rhythm", sampling_rate=20.0)


@pytest.mark.parametrize("number", [0, 1])
def test_limb_leads_hold_with_noise(number):
  signal = show(number, "Ventricular pacing", noise=True).ecg.signal
  i, ii, iii, avr, avl, avf = signal.T[:6].astype(np.float64)
  close = dict(rtol=0, atol=1e-6)
  np.testing.assert_allclose(iii, ii - i, **close)
  np.testing.assert_allclose(avr, -(i + ii) / 2, **close)
  np.testing.assert_allclose(avl, i - ii / 2, **close)
  np.testing.assert_allclose(avf, ii - i / 2, **close)


def test_age_and_sex_shape_patients():
  def draw(age, sex):
    drawn = [
      simulate.sample_patient(np.random.default_rng([3, n]), age, sex)
      for n in range(150)
    ]
    return lambda name: np.mean([getattr(patient, name) for patient in drawn])

  young, old = draw(25.0, "F"), draw(85.0, "F")
  man = draw(25.0, "M")
  assert old("pr_interval") > young("pr_interval") + 0.01
  assert old("respiratory_rr") < 0.5 * young("respiratory_rr")
  assert young("qtc") > man("qtc") + 0.005
  assert young("qrs_duration") < man("qrs_duration")
  assert young("t_size") < man("t_size")
  for wrong in (dict(age=12.0), dict(sex="X")):
    with pytest.raises(ValueError, match="must be"):
      simulate.sample_patient(np.random.default_rng(0), **wrong)


def test_sampled_conditions_agree_with_themselves():
  seen = []
  for number in range(600):
    rng = np.random.default_rng([7, number])
    patient = simulate.sample_patient(rng)
    condition = simulate.sample_condition(patient, rng)
    findings.find_effects(condition)  # raises where statements disagree
    assert condition.sex == patient.sex and 0 <= patient.age - condition.age < 1
    seen.extend(condition.statements)
  assert set(seen) == set(simulate.CONDITIONS)
  assert seen.count("Sinus rhythm") > 300


@pytest.mark.parametrize(
  ("statements", "rate", "message"),
  [
    (("Sinus rhythm", "Atrial flutter"), 75, "'Sinus rhythm' and 'Atrial flut"),
    (("Atrial fibrillation", "1st degree A-V block"), 75, "contradict"),
    (("Normal ECG", "Prolonged QT interval"), 75, "contradict"),
    (("Left ventricular hypertrophy", "Low QRS voltages"), 75, "contradict"),
    (("Atrial flutter", "Left atrial enlargement"), 75, "contradict"),
    (("Left bundle branch block", "ST depression"), 75, "contradict"),
    (("Nonspecific ST-T changes", "ST depression"), 75, "contradict"),
    (("Normal ECG", "Nonspecific ST-T changes"), 75, "contradict"),
    (
      ("Left ventricular hypertrophy", "Nonspecific ST-T changes"),
      *(75, "contradict"),
    ),
    (("Sinus bradycardia",), 90, r"heart_rate=90 must be in 20..60 bpm"),
    (("Right bundel block",), 75, "nearest.*'Right bundle branch block'"),
  ],
)
def test_impossible_conditions_are_refused(statements, rate, message):
  condition = Condition(statements, float(rate))
  with pytest.raises(ValueError, match=message):
    findings.find_effects(condition)


def test_statements_are_known_in_any_case():
  condition = Condition(("SINUS RHYTHM", "right bundle branch block."), 70.0)
  assert findings.find_effects(condition) == {"sinus", "rbbb"}


def test_conflicts_are_mutual():
  for one in findings.CONDITIONS:
    for other in findings.CONDITIONS:
      assert findings.conflict(one, other) == findings.conflict(other, one)


def test_cohort_is_reproducible_patient_by_patient():
  recordings = list(simulate.cohort(3, 2, seed=5, sampling_rate=100.0))
  assert [r.patient_id for r in recordings] == [0, 0, 1, 1, 2, 2]
  assert len({r.record_id for r in recordings}) == 6
  alone = simulate.cohort_recordings(5, 2, 3, sampling_rate=100.0)
  for one, two in zip(recordings[4:], alone):
    np.testing.assert_array_equal(one.ecg.signal, two.ecg.signal)
    assert (one.record_id, one.time) == (two.record_id, two.time)
  patient = simulate.cohort_patient(5, 2)
  for recording in alone:
    age = recording.patient.age
    assert dataclasses.replace(recording.patient, age=patient.age) == patient
    years = (recording.time - alone[0].time) / (365.25 * 86400)
    assert age == pytest.approx(patient.age + years, abs=1e-3)
    assert recording.condition.age == int(age)
  assert alone[0].time < alone[1].time < alone[2].time
  for wrong in ((0, 2, 5), (3, 0, 5), (3, 2, -1)):
    with pytest.raises(ValueError, match="must be >="):
      next(simulate.cohort(*wrong))


def test_identity_is_visible_and_recordings_vary():
  beats = []
  for number in range(16):
    for day in (0, 1):
      simulation = show(
        number, "Sinus rhythm", rate=72.0, noise=True, seed=100 * day + number
      )
      at = simulation.fiducials.qrs_onset[1:-1]
      rows = np.round(at * 500).astype(int)[:, None] + np.arange(-90, 230)
      beat = np.median(simulation.ecg.signal[rows], axis=0)
      beats.append(beat - beat.mean(axis=0))
  beats = np.array(beats).reshape(32, -1)
  distance = np.sqrt(((beats[:, None] - beats) ** 2).mean(axis=-1))
  person = np.arange(32) // 2
  same = (person[:, None] == person) & ~np.eye(32, dtype=bool)
  within, between = distance[same], distance[person[:, None] != person]
  assert within.min() > 0.005
  assert np.median(between) > 3 * np.median(within)
  np.fill_diagonal(distance, np.inf)
  assert (person[distance.argmin(axis=1)] == person).mean() > 0.9


@pytest.mark.parametrize("statement", findings.CONDITIONS)
def test_mean_rr_interval_is_the_asked_one(statement):
  low, high = findings.CONDITIONS[statement].rates
  for number, rate in enumerate({low, (low + high) // 2, high}):
    marks = show(number, statement, rate=float(rate)).fiducials
    measured = 60 / np.diff(marks.qrs_onset).mean()
    assert measured == pytest.approx(rate, rel=0.02)
    assert np.diff(marks.r_peak).min() > 0.2


def test_wfdb_finds_the_heart_rate():
  errors = []
  for statement in findings.CONDITIONS:
    for number in range(8):
      simulation = show(number, statement, noise=True)
      beats = detect_beats(simulation.ecg.signal[:, LEADS.index("II")], 500.0)
      rate = 60 * 500 / np.diff(beats).mean() if len(beats) > 1 else 0.0
      errors.append(abs(rate - simulation.condition.heart_rate))
  assert len(errors) >= 50
  assert np.median(errors) < 2
  assert np.mean(np.array(errors) < 5) > 0.8


def test_no_process_draws_differently():
  """Sets of strings have another order in each process; nothing may see it."""
  code = """
import hashlib
import numpy as np
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.simulator.simulate import cohort_patient, simulate
condition = Condition((
  "Sinus rhythm",
  "Left anterior fascicular block",
  "Anterior infarct, age undetermined",
), 70.0)
signals = [
  simulate(cohort_patient(0, i), condition, np.random.default_rng(i)).ecg.signal
  for i in range(20)
]
print(hashlib.sha256(np.stack(signals).tobytes()).hexdigest())
"""
  hashes = {
    subprocess.run(
      [sys.executable, "-c", code],
      capture_output=True,
      text=True,
      check=True,
      env={**os.environ, "PYTHONHASHSEED": str(seed)},
    ).stdout
    for seed in range(3)
  }
  assert len(hashes) == 1


def test_measures_lie_where_those_of_real_recordings_do():
  """Medians of 1,474 recordings of PTB-XL (CC BY 4.0), studies/RESULTS.md."""
  measured = measure(simulate_recordings(150, 0), "")
  for name, real, near in (
    ("heart_rate_bpm", 70.4, 4),
    ("pr_ms", 164, 12),
    ("qrs_ms", 88, 6),
    ("qtcf_ms", 389, 8),
    ("axis_deg", 25, 15),
    ("p_I_mv", 0.09, 0.02),
    ("p_aVL_mv", 0.04, 0.02),
    ("p_V6_mv", 0.07, 0.02),
    ("r_I_mv", 0.76, 0.12),
    ("r_V5_mv", 1.31, 0.15),
    ("s_V1_mv", 0.77, 0.15),
    ("t_II_mv", 0.23, 0.04),
    ("t_aVR_mv", -0.21, 0.03),
    ("noise_5_15hz_uv", 10.9, 2),
    ("wander_0.05_0.25hz_uv", 37, 10),
  ):
    assert np.nanmedian(measured[name]) == pytest.approx(real, abs=near), name


def test_three_reports_in_ten_end_without_a_conclusion():
  ends = [
    simulate.cohort_recordings(3, number, 1)[0].condition.statements[-1]
    for number in range(200)
  ]
  share = np.mean([names_conclusion(end) for end in ends])
  assert share == pytest.approx(0.7, abs=0.1)


def test_a_persons_own_st_level_shows_in_the_leads():
  patient = simulate.cohort_patient(5, 0)
  shown = [
    simulate.simulate(
      dataclasses.replace(patient, st_bend=(level, 0.0, 0.0)),
      Condition(("Sinus rhythm",), 60.0),
      np.random.default_rng(0),
      False,
    )
    for level in (0.0, 0.1)
  ]
  at = round(500 * (shown[0].fiducials.qrs_offset[1] + 0.02))
  rise = (shown[1].ecg.signal - shown[0].ecg.signal)[at]
  assert rise[LEADS.index("I")] > 0.03 and rise[LEADS.index("V6")] > 0.03
  assert rise[LEADS.index("aVR")] < -0.03
