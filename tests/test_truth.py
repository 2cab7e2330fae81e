"""Distance from the true twin: the patient near 1, a stranger near 0."""

import dataclasses
import functools

import numpy as np
import pytest

from ecgtwin_jax.beats.delineation import read_ecg_beats
from ecgtwin_jax.evaluation import truth
from ecgtwin_jax.simulator import simulate
from helpers.evaluated import (
  SEED,
  make_examples,
  real_signals,
  recordings,
  signal,
)


def patients():
  return truth.find_patients(make_examples(real_signals()), SEED)


@functools.cache
def measured(kind):
  shown = recordings()
  own = patients()
  each = len(shown) // len(set(own))
  donors = own if kind == "own" else own[each:] + own[:each]
  twins = np.stack(
    [
      signal(donor, one.condition, 500 + i)
      for i, (donor, one) in enumerate(zip(donors, shown, strict=True))
    ]
  )
  examples = make_examples(twins, shuffled_reference=twins)
  examples = dataclasses.replace(examples, decoded=real_signals())
  metrics = truth.metrics(truth.compute(examples, own))
  named = {m.name: m for m in metrics}
  assert len(named) == len(metrics)
  return named


def test_the_patients_of_a_cohort_are_found_again():
  for found, shown in zip(patients(), recordings(), strict=True):
    assert found == simulate.cohort_patient(SEED, shown.patient_id)


def test_another_cohort_is_refused():
  examples = make_examples(real_signals())
  with pytest.raises(ValueError, match="must be of the cohort of seed=4"):
    truth.find_patients(examples, SEED + 1)
  with pytest.raises(ValueError, match="must be the number of rows"):
    truth.compute(examples, patients()[:-1])


def test_truth_is_of_the_patient_and_a_stranger_is_another(monkeypatch):
  shown = []

  def record(patient, condition, rng, noise):
    shown.append((patient, condition, noise))
    return patient

  monkeypatch.setattr(truth, "simulate_reading", record)
  own = [*patients()[:3] * 3, patients()[-1]]
  conditions = [one.condition for one in recordings()[: len(own)]]
  found = truth.simulate_truth(conditions, own, 0)
  assert found.twin == found.again == own
  assert all(a != b for a, b in zip(found.stranger, own, strict=True))
  assert [noise for _, _, noise in shown] == [False, True, True] * len(own)
  assert [shown[3 * i][1] for i in range(len(own))] == conditions


def test_a_second_true_recording_is_near_1():
  metric = measured("own")["truth_score"]
  assert metric.value == pytest.approx(1, abs=0.1)
  assert metric.low > 0.8
  assert metric.level == "truth"
  assert measured("own")["truth_correlation"].value > 0.95


def test_a_copy_of_a_stranger_is_near_0():
  metric = measured("stranger")["truth_score"]
  assert metric.value == pytest.approx(0, abs=0.3)
  assert metric.low < 0 < metric.high
  assert metric.baseline == 0 and metric.reference == 1


def test_distances_and_intervals_lie_between_the_patient_and_a_stranger():
  near, far = measured("own"), measured("stranger")
  for name in (
    "truth_distance_mv",
    "truth_distance_V3_mv",
    "truth_pr_error_ms",
    "truth_qt_error_ms",
  ):
    assert near[name].value < 0.7 * near[name].baseline, name
    assert far[name].value > near[name].value, name


def test_arms_and_the_reference_have_scores_of_their_own():
  found = measured("own")
  arm = found["truth_score_shuffled_reference"]
  assert arm.value == found["truth_score"].value
  assert found["truth_score_reference"].value < 0.75
  # Here an autoencoder that loses nothing: second recordings as they are.
  assert found["truth_score_decoded"].value == pytest.approx(1, abs=0.1)


def test_the_true_twin_itself_has_no_distance():
  reading = read_ecg_beats(real_signals()[0])
  leads, correlation = truth.beat_distance(reading, reading)
  np.testing.assert_array_equal(leads, 0)
  assert correlation == pytest.approx(1)


def test_distance_is_in_millivolt_and_lead_by_lead():
  shown = recordings()[0]
  x = shown.ecg.resample(1024).signal.astype(np.float64)
  reading, double = read_ecg_beats(x), read_ecg_beats(2 * x)
  leads, correlation = truth.beat_distance(double, reading)
  assert correlation == pytest.approx(1, abs=1e-3)
  beats = reading.beats
  before = round(min(0.26, 0.4 * beats.rr) * 500)
  after = round(min(0.44, 0.55 * beats.rr) * 500)
  piece = beats.median[beats.middle - before : beats.middle + after]
  np.testing.assert_allclose(leads, np.sqrt((piece**2).mean(axis=0)), rtol=0.05)


def beats_of(median):
  reading = read_ecg_beats(real_signals()[0])
  beats = dataclasses.replace(reading.beats, median=median)
  return dataclasses.replace(reading, beats=beats)


def test_a_beat_is_moved_to_where_it_fits_best():
  rng = np.random.default_rng(0)
  shape = read_ecg_beats(real_signals()[0]).beats.median.shape
  target, made = rng.normal(size=(2, *shape)).cumsum(axis=1)
  beats = beats_of(target).beats
  before = round(min(0.26, 0.4 * beats.rr) * 500)
  after = round(min(0.44, 0.55 * beats.rr) * 500)

  def cut(median, moved):
    middle = beats.middle + moved
    return median[middle - before : middle + after]

  pieces = [cut(made, moved) - cut(target, 0) for moved in range(-20, 21)]
  best = min(pieces, key=lambda piece: (piece**2).sum())
  leads, _ = truth.beat_distance(beats_of(made), beats_of(target))
  np.testing.assert_allclose(leads, np.sqrt((best**2).mean(axis=0)))
  for moved, near in ((20, True), (-20, True), (25, False)):
    late = beats_of(np.roll(target, moved, axis=0))
    leads, _ = truth.beat_distance(late, beats_of(target))
    assert (leads.max() < 1e-9) == near
  # The nearest, not what has the largest product.
  followed = target.copy()
  end = beats.middle + after
  followed[end:] = 1000 * np.sign(target[end - 1])
  leads, _ = truth.beat_distance(beats_of(followed), beats_of(target))
  assert leads.max() < 1e-9


def test_what_cannot_be_read_is_counted_and_not_replaced():
  leads, correlation = truth.beat_distance(None, None)
  assert np.isnan(leads).all()
  assert np.isnan(correlation)
  far = np.array([0.2, np.nan, 0.2, 0.2])
  own, stranger = np.full(4, 0.1), np.full(4, 0.3)
  metric = truth.score(far, own, stranger, np.arange(4), 0)
  assert metric.value == pytest.approx(0.5)
  assert metric.n == 3
  assert "1 of 4 rows failed" in metric.note
  own_lost = np.where(np.arange(4) == 3, np.nan, own)
  again = truth.score(far, own_lost, stranger, np.arange(4), 0)
  assert again.n == 2 and again.value == pytest.approx(0.5)
  # A stranger who is no further than the patient tells nothing.
  assert np.isnan(truth.score(far, stranger, own, np.arange(4), 0).value)
  several = [np.array([1.0, 2.0, np.nan]), np.array([3.0, np.nan, np.nan])]
  np.testing.assert_array_equal(
    truth.mean_of_known(several), [2.0, 2.0, np.nan]
  )


def test_truth_draws():
  figure = truth.draw(
    truth.compute(make_examples(real_signals()), patients()), shown=2
  )
  assert len(figure.axes) == 12
  # The second strip is the second patient's.
  lines = {line.get_label(): line for line in figure.axes[6].lines}
  reading = read_ecg_beats(real_signals()[3])
  np.testing.assert_allclose(
    lines["generated"].get_ydata(), reading.beats.median[:, 0]
  )
