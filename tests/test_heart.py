"""The simulated heart: each statement's criteria on the true fiducials."""

import dataclasses

import numpy as np
import pytest

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import LEADS
from ecgtwin_jax.simulator import simulate, waves

PATIENTS = range(12)
LEAD = {lead: i for i, lead in enumerate(LEADS)}
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


def read_beat(simulation, kind=None):
  """QRS (from its onset's level), J and T levels of a beat in the middle."""
  marks, ecg = simulation.fiducials, simulation.ecg
  inner = [
    k for k in range(1, len(marks.kind) - 1) if kind in (None, marks.kind[k])
  ]
  k = inner[len(inner) // 2]
  onset, j, t = (
    round(float(mark[k]) * ecg.sampling_rate)
    for mark in (marks.qrs_onset, marks.qrs_offset, marks.t_peak)
  )
  signal = ecg.signal - ecg.signal[onset]
  return signal[onset : j + 1], signal[j], signal[t]


def qrs_durations(simulation):
  marks = simulation.fiducials
  return 1000 * (marks.qrs_offset - marks.qrs_onset)


def test_sinus_rhythm_is_regular_and_in_order():
  for number in PATIENTS:
    simulation = show(number, "Sinus rhythm")
    marks = simulation.fiducials
    onset = np.diff(marks.qrs_onset)
    assert onset.std() / onset.mean() < 0.06
    assert set(marks.kind) == {"normal"}
    order = np.stack(
      [getattr(marks, f.name) for f in dataclasses.fields(marks)][:9]
    )
    assert (np.diff(order, axis=0) > 0).all()
    pr = marks.qrs_onset - marks.p_onset
    assert (pr > 0.11).all() and (pr <= 0.2).all()
    assert (qrs_durations(simulation) < 120).all()


@pytest.mark.parametrize(
  "statement",
  [
    "Atrial fibrillation",
    "Atrial fibrillation with rapid ventricular response",
  ],
)
def test_fibrillation_is_irregular_without_p(statement):
  for number in PATIENTS:
    simulation = show(number, statement)
    onset = np.diff(simulation.fiducials.qrs_onset)
    assert onset.std() / onset.mean() > 0.10
    assert np.isnan(simulation.fiducials.p_onset).all()


@pytest.mark.parametrize(
  ("rhythm", "lead"), [("Atrial fibrillation", "V1"), ("Atrial flutter", "aVF")]
)
def test_atrial_waves_fill_the_gaps(rhythm, lead):
  def before_qrs(statement):
    simulation = show(5, statement, rate=50.0)
    marks = simulation.fiducials
    # From the end of T to where P would begin.
    gaps = [
      simulation.ecg.signal[round(500 * end) : round(500 * onset) - 110]
      for end, onset in zip(marks.t_end + 0.05, marks.qrs_onset[1:])
      if onset - end > 0.4
    ]
    assert len(gaps) >= 3
    return np.mean([gap[:, LEAD[lead]].std() for gap in gaps])

  assert before_qrs(rhythm) > 3 * before_qrs("Sinus rhythm")


def test_flutter_conducts_whole_numbers_of_waves():
  for number in PATIENTS:
    simulation = show(number, "Atrial flutter")
    steps = np.diff(simulation.fiducials.qrs_onset) * 5.0
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-6)
    assert np.isnan(simulation.fiducials.p_peak).all()


def test_sinus_arrhythmia_swings_with_the_breath():
  for number in PATIENTS:
    rr = np.diff(show(number, "Sinus arrhythmia", rate=70.0).fiducials.r_peak)
    assert np.ptp(rr) > 0.12


def test_ventricular_premature_complex():
  for number in PATIENTS:
    simulation = show(number, "Sinus rhythm", "Ventricular premature complex")
    marks = simulation.fiducials
    early = np.flatnonzero(marks.kind == "pvc")
    usual = 60 / simulation.condition.heart_rate
    assert 1 <= len(early) <= 3
    assert (qrs_durations(simulation)[early] >= 120).all()
    assert np.isnan(marks.p_onset[early]).all()
    rr = np.diff(marks.qrs_onset)
    assert (rr[early - 1] < 0.92 * usual).all()
    np.testing.assert_allclose(rr[early - 1] + rr[early], 2 * usual, rtol=0.1)
    qrs, _, t = read_beat(simulation, "pvc")
    strongest = np.abs(qrs).max(axis=0).argmax()
    peak = qrs[np.abs(qrs[:, strongest]).argmax(), strongest]
    assert np.sign(peak) != np.sign(t[strongest])


def test_atrial_premature_complex():
  for number in PATIENTS:
    simulation = show(number, "Atrial premature complex")
    marks = simulation.fiducials
    early = np.flatnonzero(marks.kind == "pac")
    rr = np.diff(marks.qrs_onset)
    assert len(early) >= 1
    assert (rr[early - 1] < 0.85 * np.median(rr)).all()
    assert np.isfinite(marks.p_onset[early]).all()
    assert (qrs_durations(simulation) < 120).all()


def test_first_degree_block_is_long_pr():
  for number in PATIENTS:
    marks = show(number, "1st degree A-V block").fiducials
    assert (marks.qrs_onset - marks.p_onset > 0.2).all()


def test_right_bundle_branch_block():
  for number in PATIENTS:
    simulation = show(number, "Sinus rhythm", "Right bundle branch block")
    assert (qrs_durations(simulation) >= 120).all()
    qrs, _, _ = read_beat(simulation)
    early, late = np.split(qrs, [int(0.55 * len(qrs))])
    v1 = LEAD["V1"]
    assert late[:, v1].max() > max(early[:, v1].max(), 0.2)  # rsR'
    assert (late[:, [LEAD["I"], LEAD["V6"]]].min(axis=0) < -0.08).all()


def test_left_bundle_branch_block():
  for number in PATIENTS:
    simulation = show(number, "Sinus rhythm", "Left bundle branch block")
    assert (qrs_durations(simulation) >= 120).all()
    qrs, _, t = read_beat(simulation)
    v1, v6 = qrs[:, LEAD["V1"]], qrs[:, [LEAD["I"], LEAD["V6"]]]
    assert v1.min() < -0.4 and v1.max() < 0.25  # QS or rS
    assert (v6.max(axis=0) > 0.25).all()
    assert (v6[: len(v6) // 3].min(axis=0) > -0.03).all()  # no septal q
    assert t[LEAD["V6"]] < 0 < t[LEAD["V1"]]


def test_left_anterior_fascicular_block_turns_the_axis():
  for number in PATIENTS:
    simulation = show(number, "Left anterior fascicular block")
    qrs, _, _ = read_beat(simulation)
    net = qrs.sum(axis=0)
    axis = np.arctan2(net[LEAD["aVF"]] * 2 / 3**0.5, net[LEAD["I"]])
    assert -90 < np.degrees(axis) < -30
    assert (qrs_durations(simulation) < 120).all()


def test_hypertrophy_meets_sokolow_or_cornell():
  usual = 0
  for number in PATIENTS:
    for statement in ("Left ventricular hypertrophy", "Sinus rhythm"):
      simulation = show(number, statement)
      qrs, _, _ = read_beat(simulation)
      low, high = qrs.min(axis=0), qrs.max(axis=0)
      sokolow = high[LEAD["V5"] :].max() - low[LEAD["V1"]]
      cornell = high[LEAD["aVL"]] - low[LEAD["V3"]]
      sex = simulate.cohort_patient(11, number).sex
      meets = sokolow > 3.5 or cornell > (2.8 if sex == "M" else 2.0)
      if statement == "Sinus rhythm":
        usual += meets
      else:
        assert meets
  assert usual <= 3


def test_low_voltage():
  for number in PATIENTS:
    span = np.ptp(read_beat(show(number, "Low QRS voltages"))[0], axis=0)
    assert span[:6].max() < 0.5 and span[6:].max() < 1.0


@pytest.mark.parametrize(
  ("statement", "up", "down"),
  [
    ("Inferior infarct, possibly acute", ("II", "III", "aVF"), "aVL"),
    ("Anterior infarct, possibly acute", ("V2", "V3", "V4"), None),
  ],
)
def test_acute_infarct_lifts_st(statement, up, down):
  for number in PATIENTS:
    patient = simulate.cohort_patient(11, number)
    _, j, _ = read_beat(show(number, "Sinus rhythm", statement))
    man, young = patient.sex == "M", patient.age < 40
    for lead in up:
      limit = 0.1
      if lead in ("V2", "V3"):
        limit = (0.25 if young else 0.2) if man else 0.15
      assert j[LEAD[lead]] >= limit
    assert down is None or j[LEAD[down]] < 0


def test_old_infarcts_leave_q_waves():
  for number in PATIENTS:
    qrs, _, _ = read_beat(show(number, "Inferior infarct, age undetermined"))
    early = qrs[: len(qrs) // 2]
    assert (early[:, [LEAD["III"], LEAD["aVF"]]].min(axis=0) < -0.12).all()
    qrs, _, _ = read_beat(show(number, "Anterior infarct, age undetermined"))
    early = qrs[: len(qrs) // 3, LEAD["V1"] : LEAD["V3"] + 1]
    assert (early.max(axis=0) < 0.08).all()  # no r


def test_t_wave_inversion():
  wall = [LEAD[lead] for lead in ("I", "V4", "V5", "V6")]
  for number in PATIENTS:
    _, _, t = read_beat(show(number, "Anterolateral T wave inversion"))
    assert (t[wall] < -0.05).all()
    _, _, t = read_beat(show(number, "Sinus rhythm"))
    assert t[wall].max() > 0.05


def test_qt_follows_the_rate():
  for number in PATIENTS:
    marks = show(number, "Sinus rhythm", rate=60.0).fiducials
    qt = marks.t_end - marks.qrs_onset
    assert (qt < 0.46).all()
    fast = show(number, "Sinus tachycardia").fiducials
    assert (fast.t_end - fast.qrs_onset).max() < 0.9 * qt.min()
    for rate in (45.0, 70.0, 120.0):
      marks = show(number, "Prolonged QT interval", rate=rate).fiducials
      qt, rr = marks.t_end - marks.qrs_onset, 60 / rate
      assert (qt / rr ** (1 / 3) > 0.48).all()  # Fridericia
      assert (qt / rr**0.5 > 0.48).all()  # Bazett


def test_pacing_is_a_spike_and_a_wide_beat():
  for number in PATIENTS:
    simulation = show(number, "Ventricular pacing")
    marks = simulation.fiducials
    assert set(marks.kind) == {"paced"}
    assert (qrs_durations(simulation) >= 140).all()
    assert np.isnan(marks.p_onset).all()
    # The last beat may be out of the recording with its spike inside.
    inside = simulation.ecg.signal[: round(500 * (marks.r_peak[-1] + 0.2))]
    bend = np.abs(np.diff(inside, 2, axis=0)).sum(axis=1)
    spike = (bend.argmax() + 1) / 500
    assert np.abs(marks.qrs_onset - 0.005 - spike).min() < 0.005
    _, _, t = read_beat(simulation)
    assert t[LEAD["V1"]] > 0


def test_reach_moves_only_what_falls_short():
  leads = np.eye(12, 3)
  dipole = np.array([0.3, -0.2, 0.1])
  limits = (("I", 1, 0.2), ("II", 1, 0.05), ("III", -1, 0.4))
  moved = waves.reach(dipole, leads, limits)
  np.testing.assert_allclose(moved, [0.3, 0.05, -0.4])


def test_incomplete_right_block_ends_in_a_small_r_in_v1():
  for number in PATIENTS:
    usual, shown = (
      show(number, "Sinus rhythm", *more)
      for more in ((), ("Incomplete right bundle branch block",))
    )
    durations = qrs_durations(shown)
    assert (durations >= 99).all() and (durations <= 117).all()
    qrs, _, _ = read_beat(shown)
    late = qrs[2 * len(qrs) // 3 :, LEAD["V1"]]
    before = read_beat(usual)[0][-1, LEAD["V1"]]
    assert late.max() > max(0.05, before)


def test_slow_ventricles_have_a_qrs_between_110_and_130_ms():
  statement = "Nonspecific intraventricular conduction delay"
  for number in PATIENTS:
    durations = qrs_durations(show(number, "Sinus rhythm", statement))
    assert (durations > 110).all() and (durations < 130).all()


def test_left_atrial_enlargement_is_a_long_p_that_ends_below_in_v1():
  for number in PATIENTS:
    ends, lengths = [], []
    for more in ((), ("Left atrial enlargement",)):
      simulation = show(number, "Sinus rhythm", *more)
      marks, signal = simulation.fiducials, simulation.ecg.signal
      onset, offset = marks.p_onset[2], marks.p_offset[2]
      lengths.append(offset - onset)
      start, late = (
        round(t * simulation.ecg.sampling_rate)
        for t in (onset, onset + 0.7 * (offset - onset))
      )
      ends.append(signal[late, LEAD["V1"]] - signal[start, LEAD["V1"]])
      assert offset < marks.qrs_onset[2]
    assert lengths[1] > 0.120 and lengths[1] > lengths[0]
    assert ends[1] < ends[0] - 0.03


def show_beside_usual(number, statement):
  """J and T levels of a usual beat and of one with a statement, mV."""
  return [
    read_beat(show(number, "Sinus rhythm", *more))[1:]
    for more in ((), (statement,))
  ]


def test_st_t_changes_flatten_t():
  for number in PATIENTS:
    (_, usual), (_, t) = show_beside_usual(number, "Nonspecific ST-T changes")
    lead = np.abs(usual).argmax()
    assert 0 <= t[lead] / usual[lead] <= 0.6


@pytest.mark.parametrize(
  "statement",
  ["ST depression", "Lateral ST-T changes may be due to myocardial ischemia"],
)
def test_st_falls_in_lateral_leads(statement):
  lateral = [LEAD["V5"], LEAD["V6"]]
  levels = [show_beside_usual(number, statement) for number in range(60)]
  change = np.array([(j - usual)[lateral] for (usual, _), (j, _) in levels])
  level = np.array([j[lateral] for _, (j, _) in levels])
  assert change.max() < 0
  assert change[:, 0].max() < -0.02 and level[:, 0].max() < -0.03
  assert (np.quantile(change, 0.95, axis=0) < -0.02).all()
  assert (np.quantile(level, 0.95, axis=0) < -0.03).all()


def test_st_depression_leaves_t_upright_and_ischemia_turns_it():
  for number in PATIENTS:
    (_, usual), (_, t) = show_beside_usual(number, "ST depression")
    lead = np.abs(usual).argmax()
    assert 0.2 <= t[lead] / usual[lead] <= 0.9
    statement = "Lateral ST-T changes may be due to myocardial ischemia"
    _, (_, t) = show_beside_usual(number, statement)
    assert t[LEAD["V5"]] < -0.02
