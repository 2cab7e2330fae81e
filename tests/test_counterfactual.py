"""The counterfactual level: true patients pass it, a copy does not."""

import dataclasses

import numpy as np
import pytest

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.evaluation import counterfactual
from ecgtwin_jax.simulator import simulate
from helpers.evaluated import make_examples, real_signals, recordings

PATIENTS = 12


@pytest.fixture(scope="module")
def figures():
  """The figures of the true patients, and of one who returns the reference."""
  every = make_examples(real_signals(PATIENTS, 2), PATIENTS, 2)
  later = np.arange(1, 2 * PATIENTS, 2)  # the other rows are the references
  examples = dataclasses.replace(
    every,
    patients=every.patients[later],
    references=every.references[later],
    real=every.real[later],
    reference_conditions=every.reference_conditions[1::2],
    conditions=every.conditions[1::2],
    generated={"twin": every.twins[later]},
  )
  people = [shown.patient for shown in recordings(PATIENTS, 2)[1::2]]
  found = {}

  def truth(signals, now, then, numbers):
    out = []
    for i, (condition, number) in enumerate(zip(then, numbers, strict=True)):
      rng = np.random.default_rng([9, i, number])
      shown = simulate.simulate(people[i], condition, rng)
      out.append(shown.ecg.resample(1024).signal)
    return np.stack(out)

  for name, generate in (("truth", truth), ("copy", lambda x, *_: x)):
    result = counterfactual.compute(
      examples, generate, people=people, cycles=2, samples=3
    )
    rows = counterfactual.metrics(result)
    assert {row.level for row in rows} == {"counterfactual"}
    found[name] = {row.name: row for row in rows}
  assert len(counterfactual.draw(result).axes) == 1
  return found


def test_a_true_patient_is_as_near_as_on_another_day(figures):
  for name in ("composition_uv", "reversibility_1_uv", "reversibility_2_uv"):
    row = figures["truth"][name]
    assert row.value < 2 * row.reference < row.baseline, row


def test_effects_are_those_of_the_true_patient(figures):
  rows = figures["truth"]
  for name in ("effect_qt_slope", "effect_pr_ms", "effect_st_uv"):
    assert rows[name].value == pytest.approx(rows[name].reference, rel=0.3)
    assert rows[name].reference > 20
    assert figures["copy"][name].value == pytest.approx(0, abs=1e-6)
  grades = rows["effect_st_spread_uv"]
  assert min(grades.value, grades.reference) > 20
  assert grades.low <= grades.value <= grades.high
  assert figures["copy"][grades.name].value == pytest.approx(0, abs=1e-6)


def test_one_who_returns_the_reference_composes_and_is_not_calibrated(figures):
  rows = figures["copy"]
  for name in ("composition_uv", "reversibility_2_uv"):
    assert rows[name].value == pytest.approx(0, abs=1e-6)
  assert rows["calibration_qt_share"].value < 0.5
  assert rows["calibration_qt_share"].reference == 0.8
  assert rows["mean_of_samples_uv"].value == pytest.approx(
    rows["mean_of_samples_uv"].baseline
  )


def test_crps_by_hand():
  samples = np.array([[0.0, 2.0], [1.0, np.nan], [3.0, 3.0]])
  got = counterfactual.crps(samples, np.array([1.0, 1.0, 5.0]))
  assert got[0] == 1 - 2 / 2 and np.isnan(got[1]) and got[2] == 2


def test_a_twin_that_does_not_know_a_statement_has_dashes(figures):
  del figures
  now = [Condition(["Sinus rhythm"], 70.0)] * 2
  effects = counterfactual.measure_effects(now, None, None, ("Sinus rhythm",))
  assert all(np.isnan(values).all() for values in effects.values())


def test_axes_are_compared_on_the_circle():
  samples = np.array([[170.0, -170.0, 180.0]] * 2)
  found = counterfactual.Counterfactual(
    {},
    {},
    {},
    {},
    {"axis_deg": samples},
    {"axis_deg": np.array([179.0, 0.0])},
    np.zeros((2, 2)),
    np.arange(2),
    np.ones(2, bool),
  )
  share, score = counterfactual.check_calibration("axis_deg", found, 0)
  assert share.value == 0.5 and score.value < 100


def test_only_the_rate_of_plain_references_is_changed():
  plain = Condition(["Sinus rhythm"], 85.0)
  assert counterfactual.is_plain(plain)
  assert counterfactual.change_rate(plain).heart_rate == 70
  for other in (
    dataclasses.replace(plain, heart_rate=110.0),
    Condition(["Atrial fibrillation"], 85.0),
  ):
    assert not counterfactual.is_plain(other)
