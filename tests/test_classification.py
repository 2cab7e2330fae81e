"""A classifier asked about generated ECGs: generators whose answer is known."""

import numpy as np
import pytest

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.evaluation.condition import classifier
from ecgtwin_jax.evaluation.examples import Examples

LABELS = ("abnormal", "atrial_flutter", "pacing")
REPORTS = (
  ("Sinus rhythm", "Normal ECG"),
  ("Atrial flutter", "Abnormal ECG"),
  ("Sinus rhythm", "Borderline ECG"),
)


def draw_signals(reports, k, rng):
  """An "ECG" per report whose mean over lead I is what it shows."""
  signals = rng.normal(size=(len(reports), k, 1024, 12)).astype(np.float32)
  shown = np.array(["Atrial flutter" in report for report in reports])
  signals[..., 0] += shown[:, None, None]
  return signals


def classify(signals):
  shown = signals[:, :, 0].mean(axis=1)
  return np.stack([shown, shown, shown], axis=1)


classify.labels = LABELS


def make(generate, k=2, n=60):
  rng = np.random.default_rng(0)
  reports = [REPORTS[i % 3] for i in range(n)]
  shuffled = [reports[i] for i in rng.permutation(n)]
  return Examples(
    patients=np.repeat(np.arange(n // 2), 2),
    references=np.zeros((n, 1024, 12), np.float32),
    reference_conditions=tuple(Condition(r, 70) for r in reports),
    real=draw_signals(reports, 1, rng)[:, 0],
    conditions=tuple(Condition(r, 70) for r in reports),
    generated={
      "twin": generate(reports, k, rng),
      "shuffled_text": draw_signals(shuffled, 1, rng),
    },
    reference_ids=tuple(map(str, range(n))),
    real_ids=tuple(map(str, range(n))),
  )


def by_name(examples, **options):
  metrics = classifier.metrics(
    classifier.compute(examples, classify, **options)
  )
  names = [metric.name for metric in metrics]
  assert len(set(names)) == len(names)
  return dict(zip(names, metrics))


def test_a_perfect_generator_reaches_the_real_ones():
  found = by_name(make(draw_signals))
  for name in ("abnormal", "atrial_flutter", "mean"):
    assert found[f"auroc_generated_{name}"].value == 1
    assert found[f"auroc_real_{name}"].value == 1
    assert 0.3 < found[f"auroc_generated_{name}"].baseline < 0.7
    assert found[f"auroc_generated_{name}"].reference == 1
  assert found["auroc_lost_mean"].value == 0
  assert found["auroc_lost_mean"].baseline > 0.3
  assert found["auroc_generated_atrial_flutter"].n == 120
  note = found["auroc_generated_abnormal"].note
  assert "20 targets with it" in note and "20 unclear" in note


def test_a_generator_that_ignores_the_text_is_at_a_half():
  def ignore(reports, k, rng):
    return draw_signals([reports[0]] * len(reports), k, rng)

  found = by_name(make(ignore, n=240))
  metric = found["auroc_generated_mean"]
  assert metric.low < 0.5 < metric.high and abs(metric.value - 0.5) < 0.1
  assert found["auroc_lost_mean"].low > 0.3


def test_what_is_too_rare_is_missing_and_says_so():
  metric = by_name(make(draw_signals))["auroc_generated_pacing"]
  assert np.isnan(metric.value) and "fewer than 5" in metric.note


def test_without_the_ablation_the_baseline_is_chance():
  examples = make(draw_signals)
  del examples.generated["shuffled_text"]
  assert by_name(examples)["auroc_generated_mean"].baseline == 0.5


def test_columns_may_be_named():
  examples = make(draw_signals)
  (first, *_) = classifier.metrics(
    classifier.compute(
      examples, lambda x: classify(x)[:, :1], labels=("atrial_flutter",)
    )
  )
  assert first.name == "auroc_generated_atrial_flutter" and first.value == 1
  with pytest.raises(ValueError, match="sinus"):
    classifier.compute(examples, classify, labels=("sinus",))


def test_the_picture_holds_the_findings_that_were_measured():
  areas = classifier.compute(make(draw_signals), classify)
  (axes,) = classifier.draw(areas).axes
  shown = [text.get_text() for text in axes.get_yticklabels()]
  assert shown == ["abnormal", "atrial flutter", "mean"]
