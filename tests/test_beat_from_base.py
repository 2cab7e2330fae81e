"""R2 of the patient's beat: full, none, and what age and sex give."""

import numpy as np

from ecgtwin_jax.evaluation.person import beat_from_base

N = 120


def planted(base, told=None, beat=None, seed=0):
  """Beats of 120 patients that follow from three numbers each."""
  rng = np.random.default_rng(seed)
  hidden = rng.normal(size=(N, 3))
  beats = hidden @ rng.normal(size=(3, 50))
  inputs = {
    "base": base(hidden, rng),
    "demographics": rng.normal(size=(N, 3)) if told is None else told(hidden),
    "beat": beats,
  }
  spread, errors = beat_from_base.predict(inputs, beats)
  prediction = beat_from_base.Prediction(
    spread, **errors, patients=np.arange(N)
  )
  (metric,) = beat_from_base.metrics(prediction)
  return metric, prediction


def test_a_base_that_holds_the_beat_gives_it_and_noise_gives_nothing():
  whole, prediction = planted(lambda hidden, rng: hidden * [1.0, 10.0, 0.1])
  assert whole.value > 0.99 and whole.reference > 0.99 > 0.1 > whole.baseline
  assert whole.low <= whole.value <= whole.high and whole.n == N
  none, _ = planted(lambda hidden, rng: rng.normal(size=(N, 64)))
  # Fitted on other patients than it is scored on, noise explains nothing.
  assert none.low < 0 and none.value < 0.05
  half, _ = planted(lambda hidden, rng: hidden[:, :1])
  assert 0.1 < half.value < 0.7
  assert len(beat_from_base.draw(prediction).axes) == 1


def test_a_column_that_is_the_same_for_all_is_no_harm():
  whole, _ = planted(
    lambda hidden, rng: np.concatenate([hidden, np.ones((N, 1))], axis=1)
  )
  assert whole.value > 0.99


def test_few_patients_are_said_to_be_few():
  few = beat_from_base.Prediction(*[np.ones(4)] * 4, patients=np.arange(4))
  (metric,) = beat_from_base.metrics(few)
  assert np.isnan(metric.value) and metric.better == "higher"
  assert metric.note == "4 patients with a usual beat: fewer than 30"


def test_compute_takes_unaltered_beats_of_known_patients():
  from helpers.evaluated import make_examples, real_signals, recordings

  examples = make_examples(real_signals(5), patients=5)
  found = beat_from_base.compute(examples, np.zeros((len(examples.real), 5)))
  assert 2 <= len(found.patients) <= 5
  assert np.isnan(found.base).all()  # too few to fit
  assert set(found.patients) <= {shown.patient_id for shown in recordings(5)}
