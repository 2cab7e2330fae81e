"""Conditions: what is accepted, what is refused, and the patient vector."""

import math

import jaxtyping
import numpy as np
import pytest

from ecgtwin_jax.data.conditions import Condition, standardize_patient


def test_a_condition_keeps_its_fields():
  condition = Condition(["Sinus  rhythm ", "Normal ECG"], 82, age=81, sex="F")
  assert condition.statements == ("Sinus rhythm", "Normal ECG")
  assert condition.text() == "Sinus rhythm|Normal ECG"
  assert (condition.heart_rate, condition.age, condition.sex) == (82, 81, "F")
  assert condition == Condition(("Sinus rhythm", "Normal ECG"), 82.0, 81, "F")
  assert hash(condition)


def test_patient_vector_by_hand():
  vector = Condition(["a"], 98.32, age=81.38, sex="M").patient_vector()
  assert vector.dtype == np.float32
  np.testing.assert_allclose(vector, [1, 1, 1], atol=1e-6)
  vector = Condition(["a"], 57.58, age=47.12, sex="F").patient_vector()
  np.testing.assert_allclose(vector, [-1, -1, 0], atol=1e-6)


@pytest.mark.parametrize("missing", [None, math.nan, np.float64("nan")])
def test_what_is_missing_is_nan_and_never_a_number(missing):
  condition = Condition(["a"], 77.95, age=missing)
  assert condition.age is None
  np.testing.assert_array_equal(
    condition.patient_vector(), np.float32([0, np.nan, np.nan])
  )


def test_standardize_patient_takes_arrays():
  vectors = standardize_patient(
    np.float32([77.95, 98.32]), np.int32([-1, 0]), np.int32([1, -1])
  )
  assert vectors.dtype == np.float32
  expected = [[0, np.nan, 1], [1, -64.25 / 17.13, np.nan]]
  np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_ages_over_89_in_ptbxl():
  assert Condition(["a"], 60, age=300).age == 90


def test_limits_are_accepted():
  for rate in (20, 300):
    for age in (0, 120):
      condition = Condition(["x"] * 18, rate, age)
      assert (condition.heart_rate, condition.age) == (rate, age)


@pytest.mark.parametrize(
  "change,message",
  [
    (dict(heart_rate=19.9), "heart_rate=19.9 must be a number in 20..300"),
    (dict(heart_rate=301), "heart_rate=301 must be a number in 20..300"),
    (dict(heart_rate=math.nan), "heart_rate=nan must be"),
    (dict(heart_rate="80"), "heart_rate='80' must be"),
    (dict(heart_rate=None), "heart_rate=None must be"),
    (dict(heart_rate=True), "heart_rate=True must be"),
    (dict(age=-1), "age=-1 must be a number in 0..120"),
    (dict(age=121), "age=121 must be"),
    (dict(age="old"), "age='old' must be"),
    (dict(sex="x"), "sex='x' must be"),
    (dict(sex=0), "sex=0 must be"),
    (dict(statements="Sinus rhythm"), "must be a list of statements"),
    (dict(statements=[]), "statements=0 must be in 1..18"),
    (dict(statements=["x"] * 19), "statements=19 must be in 1..18"),
    (dict(statements=["a", " "]), "statement=' ' must be a string that is not"),
    (dict(statements=[3]), "statement=3 must be a string"),
    (dict(statements=["a|b"]), r"'a\|b' must not contain '\|'"),
    (dict(embeddings=np.zeros((2, 768))), r"must be \(1, 768\)"),
    (dict(embeddings=np.zeros((1, 767))), r"must be \(1, 768\)"),
    (dict(embeddings=np.full((1, 768), np.nan)), "must be finite"),
  ],
)
def test_what_is_refused(monkeypatch, change, message):
  # As a user runs it, without the type checks of the tests.
  monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
  good = dict(statements=["a"], heart_rate=60, age=50, sex="F")
  Condition(**good)
  with pytest.raises(ValueError, match=message):
    Condition(**{**good, **change})


def test_own_embeddings():
  rows = np.arange(2 * 768).reshape(2, 768).astype(np.float64)
  condition = Condition(["a", "b"], 60, embeddings=rows)
  assert condition.embeddings.dtype == np.float32
  np.testing.assert_array_equal(condition.embeddings, rows)
