"""Statements against the heart rate."""

import pytest

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.text.contradictions import find_contradictions


@pytest.mark.parametrize(
  ("statement", "rate"),
  [
    ("Sinus bradycardia", 60),
    ("SINUS BRADYCARDIA with sinus arrhythmia", 45),
    ("Sinus tachycardia", 100),
    ("Atrial fibrillation with rapid ventricular response", 130),
    ("Atrial fibrillation with slow ventricular response", 55),
    ("Tachycardia-bradycardia syndrome", 80),
    ("Sinus rhythm", 200),
  ],
)
def test_statements_that_agree_with_the_rate(statement, rate):
  assert find_contradictions(Condition([statement], rate)) == []


@pytest.mark.parametrize(
  ("statement", "rate", "rule"),
  [
    ("Sinus bradycardia", 95, "means at most 60 bpm"),
    ("Sinus bradycardia", 61, "means at most 60 bpm"),
    ("Marked sinus Bradycardia.", 80, "means at most 60 bpm"),
    ("Sinus tachycardia", 70, "means at least 100 bpm"),
    ("Supraventricular tachycardia", 99, "means at least 100 bpm"),
    (
      "Atrial flutter with uncontrolled ventricular response",
      80,
      "means at least 100 bpm",
    ),
  ],
)
def test_contradictions_name_statement_rate_and_rule(statement, rate, rule):
  (text,) = find_contradictions(Condition(["Sinus rhythm", statement], rate))
  assert repr(statement) in text
  assert f"heart_rate={rate}" in text
  assert rule in text
