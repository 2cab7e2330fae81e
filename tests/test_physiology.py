"""Intervals, waves, spectra and limb leads, where the answer is known."""

import dataclasses

import numpy as np
import pytest

from ecgtwin_jax.beats.delineation import read_ecg_beats
from ecgtwin_jax.beats.intervals import (
  MEASURES,
  difference,
  measure_beat,
  measure_ecgs,
)
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import LEADS
from ecgtwin_jax.evaluation.physiology import physiology
from ecgtwin_jax.evaluation.physiology.measuring_error import check_chain
from ecgtwin_jax.evaluation.resampling import compare_halves, split_patients
from ecgtwin_jax.simulator import simulate
from helpers.evaluated import make_examples, real_signals


def show(number, *statements, rate=72.0, noise=True, seed=1):
  patient = simulate.cohort_patient(11, number)
  condition = Condition(statements, rate)
  rng = np.random.default_rng(seed)
  return simulate.simulate(patient, condition, rng, noise)


def read(shown):
  return read_ecg_beats(shown.ecg.resample(1024).signal)


def by_name(metrics):
  assert len({m.name for m in metrics}) == len(metrics)
  return {m.name: m for m in metrics}


@pytest.mark.parametrize("rate", [47.0, 72.0, 118.0])
def test_beats_are_found_at_their_times(rate):
  shown = show(2, "Sinus rhythm", rate=rate)
  beats = read(shown).beats
  found = shown.fiducials
  middle = (found.qrs_onset + found.qrs_offset) / 2
  inside = middle[(middle > 0.1) & (middle < 9.9)]
  nearest = np.abs(beats.times[:, None] - inside).min(axis=0)
  assert nearest.max() < 0.03
  assert beats.usual.all()
  assert 60 / beats.rr == pytest.approx(rate, rel=0.02)


def test_a_wide_premature_beat_is_found_and_kept_out_of_the_median():
  for number in range(8):
    shown = show(number, "Sinus rhythm", "Ventricular premature complex")
    found, beats = shown.fiducials, read(shown).beats
    middle = (found.qrs_onset + found.qrs_offset) / 2
    for time in middle[(found.kind == "pvc") & (middle < 9.5)]:
      nearest = np.argmin(np.abs(beats.times - time))
      assert abs(beats.times[nearest] - time) < 0.12
      assert not beats.usual[nearest]


def test_intervals_are_the_simulators_within_the_stated_tolerance():
  check = check_chain(30, 2, seed=4)
  # The tolerance: bias and spread in ms, mV and degrees.
  stated = {
    "pr_ms": (5, 8),
    "qrs_ms": (4, 8),
    "qt_ms": (6, 15),
    "qtcb_ms": (6, 18),
    "qtcf_ms": (6, 16),
    "p_amplitude_mv": (0.01, 0.03),
    "t_amplitude_mv": (0.02, 0.07),
    "axis_deg": (4, 12),
  }
  assert tuple(check) == MEASURES
  for name, (bias, spread) in stated.items():
    assert abs(check[name].bias) < bias, name
    assert check[name].spread < spread, name
    assert check[name].failed <= 6, name
    assert check[name].n >= 40, name


def test_wide_left_blocks_are_read():
  errors = []
  for number in range(30):
    shown = show(number, "Sinus rhythm", "Left bundle branch block")
    marks = shown.fiducials
    true = 1000 * float((marks.qrs_offset - marks.qrs_onset)[0])
    assert true > 119
    errors.append(measure_beat(read(shown))[1] - true)
  assert np.isfinite(errors).all()
  assert np.abs(errors).max() < 50
  assert np.abs(errors).mean() < 12


@pytest.mark.parametrize(
  ("number", "name"),
  [(17, "pr_ms"), (31, "pr_ms"), (20, "qrs_ms")],
  ids=["P turns", "P turns, in an infarct", "QRS ends slowly"],
)
def test_the_slow_part_of_a_wave_belongs_to_it(number, name):
  recording = simulate.cohort_recordings(4, number, 2)[number == 31]
  marks, kept = recording.fiducials, recording.fiducials.kind == "normal"
  first = marks.p_onset if name == "pr_ms" else marks.qrs_offset
  true = 1000 * abs(float(np.median((marks.qrs_onset - first)[kept])))
  read_as = measure_beat(read(recording))[MEASURES.index(name)]
  assert read_as == pytest.approx(true, abs=12)


def test_where_it_is_never_still_before_qrs_nothing_is_read():
  shown = show(2, "Sinus rhythm", noise=False)
  signal = shown.ecg.resample(1024).signal
  assert read_ecg_beats(signal) is not None
  away = np.arange(1024)[:, None] / 102.4 - shown.fiducials.qrs_onset
  before = (away > -0.25) & (away < 0)
  ringing = (before * 0.15 * np.sin(2 * np.pi * 30 * away)).sum(axis=1)
  assert read_ecg_beats(signal + ringing[:, None]) is None
  # The same behind QRS and T hinders nobody.
  later = (away > 0.45) & (away < 0.55)
  ringing = (later * 0.15 * np.sin(2 * np.pi * 30 * away)).sum(axis=1)
  assert read_ecg_beats(signal + ringing[:, None]) is not None


def test_pr_follows_the_patient():
  for number in range(4):
    plain = measure_beat(read(show(number, "Sinus rhythm")))[0]
    block = show(number, "Sinus rhythm", "1st degree A-V block")
    slow = measure_beat(read(block))[0]
    true = 1000 * float(
      (block.fiducials.qrs_onset - block.fiducials.p_onset)[0]
    )
    assert slow == pytest.approx(true, abs=12)
    assert slow > plain + 40


def test_no_p_wave_is_not_measured_and_never_replaced():
  for number in range(4):
    measured = measure_beat(read(show(number, "Atrial fibrillation", rate=85)))
    assert np.isnan(measured[MEASURES.index("pr_ms")])
    assert np.isnan(measured[MEASURES.index("p_amplitude_mv")])
    assert np.isfinite(measured[MEASURES.index("qrs_ms")])


@pytest.mark.parametrize("number", (1, 2, 5))
def test_a_trough_before_qrs_is_no_p_wave_but_a_bump_is(number):
  shown = show(number, "Atrial fibrillation", rate=70, noise=False)
  signal = shown.ecg.resample(1024).signal
  time = np.arange(1024) / 102.4

  def add(height, before, width):
    onsets = shown.fiducials.qrs_onset
    apart = (time[:, None] - (onsets - before)[None]) / width
    wave = height * np.exp(-(apart**2) / 2).sum(axis=1)
    return measure_beat(read_ecg_beats(signal + wave[:, None]))[0]

  # Between the end of T and the trough a straight line leaves a hump.
  assert np.isnan(add(-0.08, before=0.01, width=0.03))
  assert add(0.08, before=0.11, width=0.025) == pytest.approx(170, abs=30)


def test_what_is_no_ecg_cannot_be_read():
  assert read_ecg_beats(np.zeros((1024, 12))) is None
  noise = np.random.default_rng(0).normal(size=(1024, 12))
  assert np.isnan(measure_beat(read_ecg_beats(noise))).all()


def test_axis_difference_goes_the_short_way_round():
  measured, true = np.zeros((2, len(MEASURES)))
  measured[-1], true[-1] = 175, -170
  assert difference(measured, true)[-1] == pytest.approx(-15)
  many = np.broadcast_to(measured, (3, 2, 8)), np.broadcast_to(true, (3, 1, 8))
  assert difference(*many).shape == (3, 2, 8)


@pytest.mark.parametrize("lead", LEADS[:6])
def test_a_planted_error_of_a_limb_lead_is_reported_as_it_is(lead):
  signals = real_signals()[:5].copy()
  assert (physiology.limb_lead_error(signals) < 0.01).all()
  signals[..., LEADS.index(lead)] += 0.037
  reported = physiology.limb_lead_error(signals)
  np.testing.assert_allclose(reported, 37.0, rtol=1e-3)


def test_spectrum_distance_of_twice_the_voltage_is_6_db():
  spectra = physiology.power_spectra(real_signals()[:6])
  double = physiology.power_spectra(2 * real_signals()[:6])
  assert physiology.spectrum_distance(spectra, spectra) == 0
  distance = physiology.spectrum_distance(double, spectra)
  assert distance == pytest.approx(6.02, abs=0.01)


def test_a_tone_is_in_its_band():
  time = np.arange(1024) / 102.4
  tone = np.repeat(np.sin(2 * np.pi * 10 * time)[:, None], 12, axis=1)
  power = physiology.power_spectra(tone[None])[0, :, 0]
  # Bands begin at 0.5, 1.5, ... Hz.
  assert np.argmax(power) == 9


def test_generated_as_real_has_no_error_and_no_distance():
  real = real_signals()
  examples = make_examples(real)
  examples = dataclasses.replace(examples, decoded=real)
  metrics = by_name(physiology.metrics(physiology.compute(examples)))
  for name, metric in metrics.items():
    if "limb" not in name:
      assert metric.value == metric.low == metric.high == 0, name
    if "_error_" in name and "limb" not in name:
      assert metric.baseline > metric.reference == 0, name
    if "wasserstein" in name or "spectrum" in name:
      assert metric.baseline > 0 and metric.reference > 0, name
    assert metric.level == "physiology"
  assert metrics["limb_lead_error_decoded_uv"].value < 0.01
  assert "on 1" in metrics["qt_error_ms"].note  # simulated ECGs of the check


def test_what_is_wrong_is_found_and_failures_are_counted():
  real = real_signals()
  wrong = 1.5 * real
  wrong[..., 0] += 0.02
  wrong[:4] = 0
  metrics = by_name(
    physiology.metrics(physiology.compute(make_examples(wrong)))
  )
  assert metrics["limb_lead_error_uv"].value == pytest.approx(20, abs=3)
  assert metrics["limb_lead_error_real_uv"].value < 0.01
  assert np.isnan(metrics["limb_lead_error_decoded_uv"].value)
  assert metrics["power_spectrum_distance_db"].value > 3
  assert metrics["t_amplitude_wasserstein_mv"].value > 0.05
  qt = measure_ecgs(real)[:, MEASURES.index("qt_ms")]
  failed = int(np.isnan(qt).sum())
  lost = int(np.isfinite(qt[:4]).sum())
  note = metrics["qt_error_ms"].note
  assert f"{failed + lost} of {len(real)} generated" in note
  assert f"{failed} of {len(real)} real, {lost} where the real one is" in note
  assert metrics["qt_error_ms"].n <= len(real) - 4


def test_halves_share_no_patient():
  patients = np.repeat(np.arange(7), 3)
  halves = split_patients(patients, 5, 0)
  assert len(halves) == 5
  for one, other in halves:
    assert len(one) == len(other) == 9
    assert not set(patients[one]) & set(patients[other])


def test_the_reference_is_of_sets_of_the_same_size():
  rng = np.random.default_rng(0)
  patients = np.arange(200)
  made, real = rng.normal(size=(2, 200))
  value, low, high, reference = compare_halves(
    lambda rows: made[rows],
    lambda rows: real[rows],
    lambda a, b: abs(float(a.mean() - b.mean())),
    patients,
    0,
  )
  assert value < 2.5 * reference
  assert low < high
  far = compare_halves(
    lambda rows: made[rows] + 3,
    lambda rows: real[rows],
    lambda a, b: abs(float(a.mean() - b.mean())),
    patients,
    0,
  )
  assert far[0] == pytest.approx(3, abs=0.3)
  assert far[1] < 3 < far[2] + 0.3


def test_physiology_draws():
  figure = physiology.draw(physiology.compute(make_examples(real_signals())))
  assert len(figure.axes) == len(MEASURES)


def test_measure_ecgs_is_one_row_each():
  assert measure_ecgs(real_signals()[:3]).shape == (3, len(MEASURES))
