"""Person level: perfect, chance, and a generator that ignores the reference."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.person import identification
from ecgtwin_jax.simulator.simulate import cohort_recordings
from ecgtwin_jax.training import checkpoint

PATIENTS, TARGETS = 41, 3
SINUS = Condition(["Sinus rhythm"], 70.0)


def embed(signals):
  """Reads the first samples of lead I, where the sets below put a person."""
  return np.asarray(signals)[:, :17, 0]


def signals_of(z):
  """ECGs that `embed` reads as z; leading axes are kept."""
  signals = np.zeros((*z.shape[:-1], 1024, 12), np.float32)
  signals[..., :17, 0] = z
  return signals


def make_examples(noise=0.3, generated=None, patients=PATIENTS, seed=0):
  """Persons are random directions; a recording is one of them with noise."""
  rng = np.random.default_rng(seed)
  persons = rng.normal(size=(patients, 17))
  numbers = np.repeat(np.arange(patients), TARGETS)
  n = len(numbers)

  def record(who, spread):
    return persons[who] + spread * rng.normal(size=(*np.shape(who), 17))

  references = np.repeat(record(np.arange(patients), noise), TARGETS, axis=0)
  arms = {
    "twin": record(np.stack([numbers] * 2, axis=1), noise),
    "shuffled_reference": record(np.roll(numbers, TARGETS)[:, None], noise),
    "zero_base": rng.normal(size=(n, 1, 17)),
    "matched_stranger": record(np.roll(numbers, -TARGETS)[:, None], noise),
  }
  if generated is not None:
    arms["twin"] = generated(rng, n)
  return Examples(
    patients=numbers * 5 + 3,
    references=signals_of(references),
    reference_conditions=(SINUS,) * n,
    real=signals_of(record(numbers, noise)),
    conditions=(SINUS,) * n,
    generated={arm: signals_of(z) for arm, z in arms.items()},
    reference_ids=tuple(f"{p}/0" for p in numbers),
    real_ids=tuple(f"{p}/{1 + i % TARGETS}" for i, p in enumerate(numbers)),
  )


def measured(examples, **options):
  metrics = identification.metrics(
    identification.compute(examples, embed), **options
  )
  names = [metric.name for metric in metrics]
  assert len(names) == len(set(names))
  return {metric.name: metric for metric in metrics}


def test_a_perfect_twin_is_found_and_the_baselines_are_chance():
  got = measured(make_examples(noise=0.05), gallery=20)
  for arm in ("", "_real_second"):
    top1 = got[f"identity_top1_share{arm}"]
    assert top1.value == 1 and (top1.low, top1.high) == (1, 1)
    assert got[f"identity_equal_error_rate{arm}"].value == 0
    assert top1.baseline == got["identity_top1_share_shuffled_reference"].value
  for arm in ("shuffled_reference", "zero_base", "matched_stranger"):
    assert got[f"identity_top1_share_{arm}"].value < 0.12
    assert got[f"identity_top5_share_{arm}"].baseline == 5 / 20
    assert got[f"identity_equal_error_rate_{arm}"].value > 0.4
    top1 = got[f"identity_top1_share_{arm}"]
    assert top1.reference == got["identity_top1_share_real_second"].value
  assert got["identity_top1_share"].n == 2 * PATIENTS * TARGETS
  assert "gallery of 20 of 41 patients" in got["identity_top1_share"].note


def test_a_generator_that_ignores_the_reference_is_caught():
  got = measured(
    make_examples(generated=lambda rng, n: rng.normal(size=(n, 2, 17))),
    gallery=20,
  )
  top1 = got["identity_top1_share"]
  # Chance is 0.05, and real second recordings are found.
  assert top1.low < 1 / 20 < top1.high and top1.value < 0.1
  assert got["identity_equal_error_rate"].low < 0.5 + 1e-9
  assert got["identity_equal_error_rate"].value > 0.42
  assert got["identity_top1_share_real_second"].value > 0.95


def test_a_generator_with_one_face_is_at_chance_exactly():
  same = measured(
    make_examples(generated=lambda rng, n: np.ones((n, 2, 17))), gallery=20
  )
  top1 = same["identity_top1_share"]
  assert top1.value == pytest.approx(1 / 20, abs=0.05)
  lookups = identification.compute(
    make_examples(), lambda signals: np.ones((len(signals), 3))
  )
  blind = identification.metrics(lookups, gallery=20)
  for metric in blind:
    chance = {"top1": 1 / 20, "top5": 5 / 20, "equal": 0.5, "tar": 0.0}
    want = chance[metric.name.split("_")[1]]
    assert metric.value == pytest.approx(want), metric


def test_own_patients_are_accepted_where_few_strangers_are():
  """One dimension of similarity: shares by the normal distribution."""
  rng = np.random.default_rng(0)
  patients, separation = 60, 2.0
  own = np.repeat(np.arange(patients), 5)
  similarity = rng.normal(size=(len(own), patients))
  similarity[np.arange(len(own)), own] += separation
  lookup = identification.Lookup(similarity, own)
  for rate in (0.01, 0.001):
    row = identification.measure_acceptance("x", lookup, rate, 0)
    true = stats.norm.sf(stats.norm.isf(rate) - separation)
    assert row.value == pytest.approx(true, abs=0.06) and row.baseline == rate
  few = identification.Lookup(similarity[:2, :40], own[:2])
  assert np.isnan(identification.measure_acceptance("x", few, 0.001, 0).value)


def test_retrieval_is_told_by_what_the_condition_changes():
  examples = make_examples(noise=0.05)
  n = len(examples.real)
  other = Condition(["Sinus rhythm", "PVC"], 70.0)
  faster = Condition(["Sinus rhythm"], 90.0)
  same = Condition(["Sinus rhythm"], 70.0)
  third = n // 3
  examples = dataclasses.replace(
    examples,
    reference_conditions=(same,) * n,
    conditions=(faster,) * third + (other,) * third + (same,) * (n - 2 * third),
  )
  # What changes rhythm is taken for somebody else.
  wrong = examples.generated["twin"].copy()
  wrong[third : 2 * third] = np.roll(wrong[third : 2 * third], 5, axis=0)
  examples = dataclasses.replace(examples, generated={"twin": wrong})
  lookups = identification.compute(examples, embed)
  assert len(lookups[identification.MEAN].target) == n
  rows = identification.by_change(examples, lookups)
  rate, statements, both = rows
  assert rate.value == 1 and statements.value < 0.2 and np.isnan(both.value)
  assert rate.reference == 1 and rate.baseline == pytest.approx(1 / 41)


def test_error_rate_of_known_gaussians():
  """One dimension of similarity: cosine is a normal number plus a shift."""
  rng = np.random.default_rng(0)
  patients, separation = 60, 2.0
  own = np.repeat(np.arange(patients), 5)
  similarity = rng.normal(size=(len(own), patients))
  similarity[np.arange(len(own)), own] += separation
  value, (low, high) = identification.error_rate(
    identification.Lookup(similarity, own), seed=0
  )
  truth = stats.norm.cdf(-separation / 2)
  assert low < truth < high and low < value < high
  assert abs(value - truth) < 0.03 and high - low < 0.1


def test_intervals_hold_whole_patients():
  """Twice the targets of the same few patients say hardly more."""
  few = measured(make_examples(noise=1.5, patients=12), gallery=12)
  metric = few["identity_top1_share"]
  hits = metric.value
  naive = 1.96 * np.sqrt(hits * (1 - hits) / metric.n)
  assert metric.high - metric.low > 2 * naive


def test_recordings_in_the_gallery_are_no_probes():
  examples = make_examples()
  ids = list(examples.real_ids)
  ids[1] = examples.reference_ids[0]
  got = identification.compute(
    examples.__class__(**{**vars(examples), "real_ids": tuple(ids)}), embed
  )
  assert len(got[identification.CEILING].target) == PATIENTS * TARGETS - 1


def test_what_the_autoencoder_costs_stands_beside_real_second_recordings():
  rng = np.random.default_rng(1)
  examples = make_examples(noise=0.05)
  lost = rng.normal(size=(len(examples.real), 17))
  decoded = dataclasses.replace(examples, decoded=signals_of(lost))
  assert not any("decoded" in name for name in measured(examples))
  got = measured(decoded, gallery=20)
  row = got["identity_top1_share_real_second_decoded"]
  assert row.value < 0.2
  assert row.reference == got["identity_top1_share_real_second"].value == 1
  assert row.baseline == got["identity_top1_share_shuffled_reference"].value


def test_one_patient_cannot_be_told_from_others():
  (metric,) = identification.metrics(
    identification.compute(make_examples(patients=1), embed)
  )
  assert np.isnan(metric.value) and metric.note
  got = measured(make_examples(patients=4))
  assert np.isnan(got["identity_top5_share"].value)
  assert got["identity_top1_share"].note.startswith("gallery of 4 of 4")


def test_the_shipped_judge_knows_people_it_has_never_met():
  patients = 40
  recordings = np.stack(
    [
      [each.ecg.resample().signal for each in cohort_recordings(77, number, 2)]
      for number in range(patients)
    ]
  )
  examples = Examples(
    patients=np.arange(patients),
    references=recordings[:, 0],
    reference_conditions=(SINUS,) * patients,
    real=recordings[:, 1],
    conditions=(SINUS,) * patients,
    generated={"twin": np.roll(recordings[:, 1:], 1, axis=0)},
    reference_ids=tuple(f"{i}/0" for i in range(patients)),
    real_ids=tuple(f"{i}/1" for i in range(patients)),
  )
  judge = identification.Identity()
  lookups = identification.compute(examples, judge.embed)
  found = identification.metrics(lookups, gallery=40)
  got = {metric.name: metric.value for metric in found}
  assert got["identity_top1_share_real_second"] > 0.75
  assert got["identity_equal_error_rate_real_second"] < 0.15
  # Real ECGs, but of somebody else.
  assert got["identity_top1_share"] < 0.15
  assert got["identity_equal_error_rate"] > 0.35


def test_the_shipped_evaluators_are_small_and_in_half_precision():
  files = list(identification.SHIPPED.glob("*"))
  assert sum(file.stat().st_size for file in files) < 12e6
  for part, limit in (("identity", 2e6), ("clip", 3e6)):
    path = identification.SHIPPED / f"{part}.safetensors"
    assert path.stat().st_size <= limit
    hyper, _ = checkpoint.load_weights(identification.SHIPPED, part)
    assert hyper["part"] == part


def test_the_picture_has_a_line_per_arm():
  figure = identification.draw(identification.compute(make_examples(), embed))
  (axes,) = figure.axes
  labels = [line.get_label() for line in axes.lines]
  assert labels == [
    "twin",
    "shuffled reference",
    "zero base",
    "matched stranger",
    "real second",
    "chance",
  ]
  best = axes.lines[labels.index("real second")].get_ydata()
  assert (np.diff(best) >= 0).all() and best[0] > 0.9
