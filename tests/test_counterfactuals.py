"""Natural counterfactuals, where the answer is known."""

import numpy as np
import pytest

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.evaluation import counterfactuals
from ecgtwin_jax.evaluation.counterfactuals import (
  Counterfactuals,
  days_between,
  find_changes,
  match_strangers,
)
from helpers.evaluated import make_examples, real_signals, recordings

PATIENTS = 6


def of(*statements):
  return Condition(statements, 70.0)


def by_name(metrics):
  assert len({m.name for m in metrics}) == len(metrics)
  assert {m.level for m in metrics} == {"counterfactuals"}
  return {m.name: m for m in metrics}


@pytest.fixture(scope="module")
def found():
  """The twins are the real later recordings; strangers are far ones."""
  real = real_signals(PATIENTS, 3)
  examples = make_examples(
    real, PATIENTS, 3, matched_stranger=np.roll(real, 3, axis=0)
  )
  strangers = np.roll(real, 6, axis=0)
  days = np.tile([np.nan, 100.0, 900.0], PATIENTS)
  return counterfactuals.compute(examples, strangers, days)


def test_changes_are_what_is_stated_in_one_and_not_doubted_in_the_other():
  one = of("Sinus rhythm", "Normal ECG")
  assert find_changes(one, of("Sinus rhythm")) == frozenset()
  other = of("Atrial fibrillation", "Possible inferior infarct")
  assert find_changes(one, other) == {"sinus_rhythm", "atrial_fibrillation"}
  assert find_changes(other, one) == find_changes(one, other)


def test_a_stranger_has_the_findings_first_then_sex_then_age_and_rate():
  plain, block = frozenset(), frozenset({"left_bundle_branch_block"})
  columns = dict(
    findings=[block, block, plain, block, block, block],
    sex=np.array([0, 0, 0, 1, 0, 0]),
    age=np.array([50.0, 50.0, 50.0, 50.0, 80.0, -1.0]),
    heart_rate=np.array([70.0, 70.0, 70.0, 70.0, 70.0, 70.0]),
    patients=np.array([7, 7, 1, 2, 3, 4]),
  )
  assert match_strangers(**columns, rows=np.array([0])).tolist() == [4]
  columns["sex"][4:] = 1
  assert match_strangers(**columns, rows=np.array([0])).tolist() == [3]
  columns["findings"][3:] = [plain] * 3
  assert match_strangers(**columns, rows=np.array([0])).tolist() == [2]
  columns["patients"][:] = 7
  with pytest.raises(ValueError, match="two patients"):
    match_strangers(**columns, rows=np.array([0]))


def test_times_that_are_mere_numbers_are_not_known():
  one, other = np.array([0, 10, 86400]), np.array([1, 86410, 0])
  np.testing.assert_array_equal(days_between(one, other), [np.nan, 1.0, 1.0])


def test_the_recording_itself_is_at_no_distance_and_a_stranger_far(found):
  for apart in found.distances.values():
    good = np.isfinite(apart["twin"])
    assert good.sum() > 10
    np.testing.assert_allclose(apart["twin"][good], 0, atol=1e-6)
    # A patient's first recording is its own reference.
    first = apart["reference"][::3]
    np.testing.assert_allclose(first[np.isfinite(first)], 0, atol=1e-6)
    mean = {name: np.nanmean(values) for name, values in apart.items()}
    assert mean["stranger"] > mean["reference"] > 0.01
    assert mean["strangers_twin"] > mean["reference"]
  conditions = [shown.condition for shown in recordings(PATIENTS, 3)]
  assert not any(found.changed[::3])
  assert found.changed[1] == find_changes(*conditions[:2])


def test_only_rows_whose_findings_differ_count(found):
  metrics = by_name(counterfactuals.metrics(found))
  differ = [bool(names) for names in found.changed]
  row = metrics["counterfactual_beat_mv"]
  assert 5 < row.n <= sum(differ) < len(differ)
  assert row.value == pytest.approx(0, abs=1e-6)
  apart = found.distances["beat"]
  unchanged = apart["reference"][differ]
  assert row.baseline == pytest.approx(np.nanmean(unchanged))
  count = int(np.isfinite(unchanged).sum())
  assert f"nearer than reference in {count} of {count}" in row.note
  for rival in ("reference", "stranger", "strangers_twin"):
    share = metrics[f"counterfactual_beat_nearer_than_{rival}_share"]
    assert share.value == share.low == share.high == 1
    assert share.better == "higher" and share.baseline < 0.7
  assert "100 (100 to 100) days" in (
    metrics["counterfactual_within_year_beat_mv"].note
  )
  assert metrics["counterfactual_after_year_measures_sd"].n > 0


def toy(twin, reference, changed, patients):
  near = {"twin": np.array(twin), "reference": np.array(reference)}
  near["stranger"] = np.full(len(twin), 4.0)
  return Counterfactuals(
    {"beat": near, "measures": near},
    [frozenset(names) for names in changed],
    np.full(len(twin), np.nan),
    np.array(patients),
    {"twin": np.ones((len(twin), 8)), "reference": np.ones((len(twin), 8))},
  )


def test_shares_and_findings_of_toy_rows():
  n = 8
  twin = [1.0, 3.0, 2.0, np.nan, 5.0, 1.0, 9.0, 1.0]
  changed = [["low_voltage"]] * 5 + [["long_qt"]] + [[]] + [["long_qt"]]
  rows = toy(twin, [2.0] * n, changed, range(n))
  metrics = by_name(counterfactuals.metrics(rows))
  row = metrics["counterfactual_beat_mv"]
  # The row without a change does not count, and the failed one is said.
  assert row.value == pytest.approx(np.mean([1, 3, 2, 5, 1, 1]))
  assert row.baseline == 2 and "1 of 7 failed" in row.note
  assert "not known" in row.note and np.isnan(row.reference)
  share = metrics["counterfactual_beat_nearer_than_reference_share"]
  assert share.value == pytest.approx(3.5 / 6)  # as near counts half
  assert share.baseline == 0.5
  share = metrics["counterfactual_beat_nearer_than_stranger_share"]
  assert share.value == pytest.approx(5 / 6)
  absent = metrics["counterfactual_beat_nearer_than_strangers_twin_share"]
  assert np.isnan(absent.value) and "matched_stranger" in absent.note
  assert metrics["counterfactual_low_voltage_beat_mv"].n == 4
  assert "counterfactual_long_qt_beat_mv" not in metrics  # two patients
  soon = rows._replace(days=np.full(n, 10.0))
  metrics = by_name(counterfactuals.metrics(soon))
  assert metrics["counterfactual_within_year_beat_mv"].n == 6


def test_measures_are_won_by_their_means_where_both_are_there():
  n = 6
  rows = toy([1.0] * n, [2.0] * n, [["long_qt"]] * 5 + [[]], range(n))
  rng = np.random.default_rng(0)
  reference = rng.uniform(4, 6, (n, 8))
  twin = reference - 3.0
  twin[:, 2] += 6  # is lost
  twin[0, 1], reference[0, 1] = 99.0, np.nan  # would be lost if it counted
  twin[5] = 99.0  # no finding changed
  found = rows._replace(errors={"twin": twin, "reference": reference})
  row = by_name(counterfactuals.metrics(found))["counterfactual_measures_won"]
  assert (row.value, row.low, row.high, row.n) == (7, 7, 7, 5)
  assert row.reference == 8 and row.better == "higher"
  mean = twin[1:5, 1].mean(), reference[1:5, 1].mean()
  assert f"qrs_ms: {mean[0]:.4g} for {mean[1]:.4g}; qt_ms" in row.note
  twin[:, 3] = np.nan
  (row,) = [
    m for m in counterfactuals.metrics(found) if m.name.endswith("_won")
  ]
  assert np.isnan(row.value) and "cannot be taken" in row.note


def test_the_recording_itself_wins_all_measures(found):
  row = by_name(counterfactuals.metrics(found))["counterfactual_measures_won"]
  assert row.value == 8 and row.low > 5


def test_without_changes_it_says_so():
  (row,) = counterfactuals.metrics(toy([1.0], [1.0], [[]], [0]))
  assert np.isnan(row.value) and "differ in findings" in row.note
