"""Reports and ECGs that match, that do not, and that nobody can tell."""

import numpy as np
import pytest

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.evaluation.condition import clip_score
from helpers.toy_examples import PlantedSpace, make_examples, signals_of

N, REPORTS, WIDTH = 400, 20, 23
EYE = np.eye(WIDTH)
NUMBER = np.random.default_rng(0).integers(0, REPORTS, N)
CONDITIONS = tuple(Condition([f"finding {i}"], 70.0) for i in NUMBER)
SPACE = PlantedSpace(WIDTH, {f"finding {i}": EYE[i] for i in range(REPORTS)})


def noisy(points, seed, samples=2):
  noise = np.random.default_rng(seed).normal(size=(len(points), samples, WIDTH))
  return signals_of(points[:, None] + 0.1 * noise)


def measured(generated, real=None, **kwargs):
  published = kwargs.pop("published_protocol", False)
  real = noisy(EYE[NUMBER], 1)[:, 0] if real is None else real
  examples = make_examples(real, generated, conditions=CONDITIONS, **kwargs)
  metrics = clip_score.metrics(
    clip_score.compute(examples, SPACE, published_protocol=published)
  )
  assert all(m.level == "condition" for m in metrics)
  return {m.name: m for m in metrics}


def other_reports():
  return np.random.default_rng(17).permutation(NUMBER)


def test_a_generator_that_obeys_scores_as_reality_does():
  found = measured({"twin": noisy(EYE[NUMBER], 2)})
  assert found["clip_score"].value > 0.85 > 0.2 > found["clip_score"].baseline
  assert found["rclip"].value == pytest.approx(1, abs=0.03)
  for name in ("clip_score", "report_top1", "report_top5"):
    assert found[name].reference == found[f"{name}_real"].value
    assert found[name].better == "higher"
  assert found["clip_score_gain"].low > 0.7
  assert found["report_top1"].value == found["report_top1_real"].value == 1
  assert found["report_top1"].baseline == 1 / len(set(NUMBER))


@pytest.mark.parametrize("with_arm", [True, False])
def test_a_generator_that_ignores_the_report_scores_as_its_baseline(with_arm):
  # It makes the findings of anyone, whatever it is asked for.
  generated = {"twin": noisy(EYE[other_reports()], 2)}
  if with_arm:
    shuffled = np.random.default_rng(8).permutation(NUMBER)
    generated["shuffled_text"] = noisy(EYE[shuffled], 3)
  found = measured(generated)
  score, gain = found["clip_score"], found["clip_score_gain"]
  assert score.low < score.baseline < score.high
  assert gain.low < 0 < gain.high
  assert found["rclip"].value == pytest.approx(found["rclip"].baseline, abs=0.1)
  assert found["report_top1"].value < 0.2
  assert found["report_top1_real"].value == 1


def test_rclip_is_the_ratio_of_the_scores():
  real = signals_of(EYE[NUMBER])
  half = (EYE[NUMBER] + np.sqrt(3) * EYE[WIDTH - 1]) / 2  # 60 degrees
  found = measured({"twin": signals_of(half[:, None])}, real)
  assert found["clip_score_real"].value == pytest.approx(1)
  assert found["rclip"].value == pytest.approx(0.5)
  assert found["rclip"].low == pytest.approx(found["rclip"].high)


def test_published_protocol_compares_with_the_decoded():
  half = (EYE[NUMBER] + np.sqrt(3) * EYE[WIDTH - 1]) / 2
  given = dict(
    generated={"twin": signals_of(EYE[NUMBER][:, None])},
    decoded=signals_of(half),
  )
  published = measured(published_protocol=True, **given)["rclip"]
  assert published.value == pytest.approx(2, abs=1e-3)
  assert measured(**given)["rclip"].value < 1.2
  with pytest.raises(ValueError, match=r"needs examples\.decoded"):
    measured({"twin": given["generated"]["twin"]}, published_protocol=True)


def test_reports_that_are_equally_near_are_found_by_chance():
  texts = np.ones((37, 5))
  share = clip_score.retrieve(
    np.ones((37, 2, 5)), texts, list(range(37)), candidates=10, tops=(1, 5, 10)
  )
  for top, expected in ((1, 0.1), (5, 0.5), (10, 1.0)):
    np.testing.assert_allclose(share[top], expected)


def test_an_equal_report_is_no_wrong_answer():
  conditions = [
    Condition(["a", "b"], 70),
    Condition(["b", "a"], 90),
    Condition(["c"], 70),
  ]
  keys = clip_score.report_keys(conditions)
  assert keys[0] == keys[1] != keys[2]
  block = "Right bundle branch block"
  reports = (
    (block,),
    (block, "Abnormal ECG"),
    ("Normal ECG",),
    ("Sinus rhythm",),
  )
  short = clip_score.report_keys([Condition(r, 70) for r in reports])
  assert short == [(block,), (block,), (), ("Sinus rhythm",)]
  texts = np.eye(3)[[0, 0, 1]]
  share = clip_score.retrieve(texts[:, None], texts, keys)
  np.testing.assert_array_equal(share[1], 1)


def test_candidates_are_so_many_and_hold_the_right_one():
  # Each report is nearer to its neighbour's ECG than to its own, and nearest
  # to no other: the first place is lost where the neighbour is a candidate.
  n = 50
  texts = np.eye(n)
  samples = (0.5 * np.eye(n) + np.roll(np.eye(n), 1, axis=1))[:, None]
  for candidates in (10, 50):
    share = clip_score.retrieve(
      samples, texts, list(range(n)), candidates=candidates, tops=(1, 2)
    )
    missed = 1 - share[1].mean()
    assert missed == pytest.approx((candidates - 1) / (n - 1), abs=0.12)
    np.testing.assert_array_equal(share[2], 1)


def test_few_reports_are_said_to_be_few():
  conditions = tuple(Condition([f"finding {i % 5}"], 70.0) for i in range(10))
  points = signals_of(EYE[np.arange(10) % 5])
  examples = make_examples(
    points, {"twin": points[:, None]}, conditions=conditions
  )
  found = {
    m.name: m for m in clip_score.metrics(clip_score.compute(examples, SPACE))
  }
  assert np.isnan(found["report_top1"].value)
  assert "5 different reports are too few" in found["report_top1"].note
  assert found["clip_score"].value == pytest.approx(1)


def test_one_patient_alone_has_scores_and_no_baseline():
  found = measured({"twin": noisy(EYE[NUMBER], 2)}, patients=np.zeros(N, int))
  assert found["clip_score"].value > 0.85
  assert np.isnan(found["clip_score"].baseline)
  assert "clip_score_gain" not in found
