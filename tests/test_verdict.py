"""The verdict: the worst figure answers, and what is not separated is said."""

import pytest

from ecgtwin_jax.evaluation.metric import NAN, Metric, missing
from ecgtwin_jax.evaluation.verdict import give_verdicts, position


def metric(name, value, low, high, baseline, reference, better="higher"):
  return Metric(
    name, value, low, high, baseline, reference, better, 100, "condition"
  )


GOOD = [
  metric("criteria_index", 0.95, 0.9, 1.0, 0.0, 1.0),
  metric("heart_rate_slope", 1.01, 0.98, 1.04, 0.05, 0.99),
  metric("identity_top1_share", 0.8, 0.75, 0.85, 0.01, 0.85),
  metric("fid", 0.4, 0.3, 0.5, 20.0, 0.2, "lower"),
  metric("recall", 0.85, 0.8, 0.9, NAN, 0.87),
  metric("beat_spread_sinus_uv", 20.0, 19.0, 21.0, NAN, 22.0),
  metric("sample_spread_uv", 60.0, 55.0, 65.0, 0.0, 6.0),
  metric("privacy_replay_share", 0.03, 0.01, 0.06, NAN, 0.05, "lower"),
  metric("measurements_failed_share", 0.01, 0.0, 0.02, NAN, 0.01, "lower"),
]


def answers(*changed):
  known = {m.name: m for m in GOOD} | {m.name: m for m in changed}
  text, person, real, vary, unchanged, replay, failed = give_verdicts(
    list(known.values())
  )
  return {
    "text": text,
    "person": person,
    "real": real,
    "vary": vary,
    "unchanged": unchanged,
    "replay": replay,
    "failed": failed,
  }


def test_a_good_twin_is_praised_and_each_figure_is_said():
  found = answers()
  unchanged = found.pop("unchanged")
  assert (unchanged.word, unchanged.colour) == ("Not measured", "unknown")
  assert [a.word for a in found.values()] == [
    *("Yes", "Yes", "Yes", "Yes", "No", "1.0%")
  ]
  assert {a.colour for a in found.values()} == {"good"}
  assert found["person"].sentence == (
    "Right patient found first (identity_top1_share ↑): 0.8, 0.75 to 0.85; "
    "baseline 0.01; reference 0.85."
  )
  assert found["failed"].sentence.endswith("0 of 9 figures show a dash.")


@pytest.mark.parametrize(
  ("low", "high", "word", "colour"),
  [
    (0.0, 0.3, "Cannot tell", "unknown"),  # the baseline, 0.01, is inside
    (0.05, 0.2, "Hardly", "bad"),
    (0.4, 0.6, "In part", "fair"),
    (0.0, 0.005, "No", "bad"),
    (0.0, 0.1, "No", "bad"),  # all of it next to the baseline
    (NAN, NAN, "Cannot tell", "unknown"),
  ],
)
def test_words_follow_interval_baseline_and_reference(low, high, word, colour):
  value = (low + high) / 2 if low == low else 0.5
  found = answers(metric("identity_top1_share", value, low, high, 0.01, 0.85))[
    "person"
  ]
  assert (found.word, found.colour) == (word, colour)


@pytest.mark.parametrize(
  ("value", "low", "high", "word"),
  [
    (0.3, 0.2, 0.4, "Yes"),  # nearer than either
    (1.5, 1.4, 1.6, "No"),  # farther than both
    (1.3, 1.2, 1.4, "Cannot tell"),
  ],
)
def test_a_reference_no_better_than_the_baseline_is_no_scale(
  value, low, high, word
):
  spectrum = ("power_spectrum_distance_db", value, low, high, 1.2, 1.33)
  assert answers(metric(*spectrum, "lower"))["real"].word == word


@pytest.mark.parametrize("value", [0.98, 1.0, 1.01])
def test_what_is_best_at_the_reference_may_lie_on_either_side(value):
  better = "lower" if value > 1 else "higher"
  low, high = value - 0.01, value + 0.01
  slope = metric("heart_rate_slope", value, low, high, 0.0, 1.0, better)
  assert answers(slope)["text"].word == "Yes"


def test_what_cannot_tell_hides_no_lack():
  spectrum = ("power_spectrum_distance_db", 1.3, 1.2, 1.4, 1.2, 1.33, "lower")
  leads = metric("leads_in_place_share", 7 / 12, 0.5, 0.6, NAN, 1.0)
  found = answers(metric(*spectrum), leads)["real"]
  assert found.word == "In part" and "leads_in_place" in found.sentence


def test_the_worst_figure_answers():
  # A perfectly periodic ECG has all but the spread of its beats.
  spread = metric("beat_spread_sinus_uv", 1.0, 0.9, 1.1, NAN, 22.0)
  found = answers(spread)["real"]
  assert found.word == "Hardly" and "beat_spread_sinus_uv" in found.sentence
  wide = spread._replace(value=60.0, low=55.0, high=65.0, better="lower")
  assert answers(wide)["real"].word == "Hardly"
  steep = metric("heart_rate_slope", 2.0, 1.9, 2.1, 0.05, 0.99)
  assert answers(steep)["text"].word == "In part"


@pytest.mark.parametrize(
  ("low", "high", "word", "colour"),
  [
    (0.2, 0.4, "Yes", "bad"),
    (0.0, 0.09, "No", "good"),
    (0.01, 0.2, "Cannot tell", "unknown"),
    (NAN, NAN, "Cannot tell", "unknown"),
  ],
)
def test_replay(low, high, word, colour):
  share = metric("privacy_replay_share", 0.05, low, high, NAN, 0.05, "lower")
  found = answers(share)["replay"]
  assert (found.word, found.colour) == (word, colour)


def row(name, value, baseline, level="physiology"):
  return metric(name, value, value, value, baseline, 0.0, "lower")._replace(
    level=level
  )


def test_rows_nearer_than_the_unchanged_reference_are_counted():
  rows = [
    row("pr_error_ms", 5.0, 9.0),
    row("qt_error_ms", 5.0, 5.0),  # as near is no gain
    row("pr_wasserstein_ms", 2.0, 3.0),
    row("limb_lead_error_uv", 1.0, NAN),
    row("qrs_error_ms", NAN, 3.0),
    row("heart_rate_mae_bpm", 1.0, 9.0, "condition"),
  ]
  found = answers(*rows)["unchanged"]
  assert (found.word, found.colour) == ("2 of 3", "good")
  assert "in 1 of 2 of those that compare" in found.sentence
  rows[2] = row("pr_wasserstein_ms", 4.0, 3.0)
  assert answers(*rows)["unchanged"].colour == "bad"


def test_what_was_not_measured_says_so():
  found = answers(missing("identity_top1_share", "person", "no encoder"))
  assert found["person"].word == "Not measured"
  assert "1 of 9 figures" in found["failed"].sentence
  instead = answers(
    missing("identity_top1_share", "person", "no encoder"),
    metric("base_similarity", 0.8, 0.7, 0.9, 0.6, 0.83),
  )["person"]
  assert instead.word == "Yes" and "circular" in instead.sentence


def test_position_runs_from_baseline_to_reference():
  error = metric("x", 5.0, 4.0, 6.0, 20.0, 0.0, "lower")
  assert position(error) == 0.75
  assert position(error._replace(value=25.0)) == -0.25
  # Without a baseline it is a ratio.
  ratio = error._replace(baseline=NAN, reference=2.5)
  assert position(ratio) == 0.5 and position(ratio._replace(value=1.0)) == 1
  assert position(ratio._replace(value=5.0), at_best=True) == 0.5
  assert position(ratio._replace(value=1.25), at_best=True) == 0.5


def test_a_collapsed_twin_does_not_vary_and_one_that_varies_too_much_does():
  one = metric("sample_spread_uv", 0.0, 0.0, 0.0, 0.0, 6.0)
  found = answers(one)
  assert found["vary"].word == "No" and found["real"].word == "Yes"
  assert "samples of one request" in found["vary"].sentence
  wide = metric("beat_spread_sinus_uv", 60.0, 55.0, 65.0, NAN, 22.0, "lower")
  found = answers(wide)
  assert found["vary"].word == "Yes" and found["real"].word == "Hardly"


def test_the_worst_kind_of_replay_answers():
  def share(name, value, low, high):
    return metric(name, value, low, high, NAN, 0.05, "lower")

  leak = share("privacy_leak_share", 1.0, 0.9, 1.0)
  wide = share("privacy_beat_replay_share", 0.08, 0.02, 0.15)
  found = answers(leak, wide)["replay"]
  assert found.word == "Yes" and "only the true recording" in found.sentence
  found = answers(wide)["replay"]
  assert (
    found.word == "Cannot tell" and "beats nearer" in found.sentence.lower()
  )
  # Above what unseen recordings do, by less than as much again.
  slight = share("privacy_reference_replay_share", 0.08, 0.06, 0.095)
  assert answers(slight)["replay"].word == "No"
