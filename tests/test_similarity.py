"""Base vectors of the right patient, of another one, and of anyone."""

import numpy as np
import pytest

from ecgtwin_jax.evaluation.person import base_similarity
from helpers.toy_examples import make_examples, signals_of

PATIENTS = np.repeat(np.arange(12), 3)
WIDTH = 40
EYE = np.eye(WIDTH)


def vectors(people, seed, samples=1, noise=0.03):
  rng = np.random.default_rng(seed)
  points = np.repeat(EYE[people][:, None], samples, axis=1)
  return points + noise * rng.normal(size=points.shape)


def measured(twin, seed=0, **arms):
  bases = {
    "reference": vectors(PATIENTS, 1),
    "real": vectors(PATIENTS, 2),
    "twin": twin,
    **arms,
  }
  metrics = base_similarity.metrics(
    base_similarity.Bases(bases, PATIENTS), seed=seed
  )
  assert all(m.level == "person" for m in metrics)
  return {m.name: m for m in metrics}


def test_a_twin_of_the_patient_is_as_near_as_reality():
  found = measured(vectors(PATIENTS, 3, samples=2))
  near, real = found["base_similarity"], found["base_similarity_real"]
  assert near.value == pytest.approx(real.value, abs=0.02)
  assert near.reference == real.value and near.better == "higher"
  assert real.value > 0.9
  assert abs(near.baseline) < 0.05 and abs(real.baseline) < 0.05
  assert found["silhouette_10_patients"].value > 0.9
  assert found["silhouette_10_patients_real"].value > 0.9
  assert found["silhouette_10_patients"].n == 30


def test_a_generator_that_ignores_the_reference_scores_as_its_baseline():
  anyone = vectors(np.random.default_rng(5).integers(0, 12, 36), 3)
  shuffled = vectors(np.random.default_rng(6).integers(0, 12, 36), 4)
  found = measured(anyone, shuffled_reference=shuffled)
  near = found["base_similarity"]
  assert near.low - 0.1 < near.baseline < near.high + 0.1
  assert near.value < 0.3 < 0.9 < found["base_similarity_real"].low
  other = found["base_similarity_shuffled_reference"]
  assert near.baseline == other.value < 0.3
  assert abs(other.baseline) < 0.05
  silhouette = found["silhouette_10_patients"]
  assert silhouette.value < 0.1
  assert silhouette.value == pytest.approx(silhouette.baseline, abs=0.4)


def test_each_arm_has_its_own_figure():
  found = measured(
    vectors(PATIENTS, 3),
    zero_base=vectors(np.full(36, 30), 4),
    matched_stranger=vectors(PATIENTS, 5),
  )
  assert found["base_similarity_zero_base"].value == pytest.approx(0, abs=0.05)
  assert found["base_similarity_matched_stranger"].value > 0.9


def test_what_the_condition_alone_gives_is_the_baseline():
  # Bases that hold age and sex alone, which the extractor is told.
  told = np.ones((36, 1, WIDTH)) + vectors(PATIENTS, 3)
  bases = dict.fromkeys(("reference", "real", "twin", "stranger"), told)
  found = {
    m.name: m
    for m in base_similarity.metrics(base_similarity.Bases(bases, PATIENTS))
  }
  real = found["base_similarity_real"]
  assert real.baseline == real.value == pytest.approx(1)


def test_silhouette_by_hand():
  points = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
  found = base_similarity.silhouettes(points, np.array([0, 0, 1, 1]))
  d = 1 - np.sqrt(0.5)  # cosine distance of 45 degrees
  expected = [1, 1, (1 - d) / 1, 0]
  np.testing.assert_allclose(found, expected, atol=1e-12)


def test_too_few_for_a_silhouette_or_a_stranger():
  people = np.arange(4)
  bases = {a: vectors(people, 1) for a in ("reference", "real", "twin")}
  found = {
    m.name: m
    for m in base_similarity.metrics(base_similarity.Bases(bases, people))
  }
  assert np.isnan(found["silhouette"].value)
  assert found["base_similarity"].value > 0.9
  (alone,) = base_similarity.metrics(
    base_similarity.Bases(bases, np.zeros(4, int))
  )
  assert np.isnan(alone.value)


def test_bases_are_extracted_under_what_each_ecg_shows():
  points = vectors(PATIENTS, 1)
  given = make_examples(
    signals_of(points[:, 0]),
    {"twin": signals_of(vectors(PATIENTS, 2, samples=2))},
    patients=PATIENTS,
    references=signals_of(vectors(PATIENTS, 3)[:, 0]),
  )
  calls = []

  def extract(signals, conditions):
    assert len(signals) == len(conditions)
    calls.append(len(signals))
    return signals[:, :WIDTH, 0]

  bases = base_similarity.compute(given, extract).sets
  assert calls == [36, 36, 36, 72]  # real, stranger, reference, twin
  strange = bases["stranger"][:, 0].argmax(axis=1)
  assert (strange != PATIENTS).all()
  np.testing.assert_allclose(
    bases["twin"], vectors(PATIENTS, 2, samples=2), atol=1e-6
  )
  own = make_examples(
    given.real,
    given.generated,
    patients=PATIENTS,
    bases=EYE[PATIENTS].astype(np.float32),
  )
  np.testing.assert_array_equal(
    base_similarity.compute(own, extract).sets["reference"][:, 0],
    EYE[PATIENTS],
  )


def test_the_picture_shows_every_kind():
  bases = {
    "reference": vectors(PATIENTS, 1),
    "real": vectors(PATIENTS, 2),
    "twin": vectors(PATIENTS, 3),
  }
  (axis,) = base_similarity.draw(
    base_similarity.Bases(bases, PATIENTS), count=5
  ).axes
  sizes = [len(c.get_offsets()) for c in axis.collections]
  assert sizes == [5, 15, 15]
  labels = [text.get_text() for text in axis.get_legend().get_texts()]
  assert labels == ["reference", "real", "generated"]
