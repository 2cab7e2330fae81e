"""Heart-rate errors of simulated ECGs whose rate is known, and of arrays."""

import functools

import numpy as np
import pytest

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.evaluation.condition import heart_rate as hre
from ecgtwin_jax.simulator import simulate
from helpers.toy_examples import make_examples

RATES = (50.0, 60.0, 75.0, 90.0, 105.0, 130.0)


@functools.cache
def simulated(rate, seed):
  rng = np.random.default_rng(seed)
  patient = simulate.sample_patient(rng)
  name = "Sinus rhythm"
  if rate < 60 or rate > 100:
    name = "Sinus bradycardia" if rate < 60 else "Sinus tachycardia"
  ecg = simulate.simulate(patient, Condition([name], rate), rng).ecg
  return ecg.resample().signal


def examples(rates, **changes):
  """Two rows per patient, whose reference has 60 bpm."""
  n = len(RATES)
  asked = tuple(Condition(["Sinus rhythm"], rate) for rate in RATES)
  before = (Condition(["Sinus rhythm"], 60.0),) * n
  return make_examples(
    np.stack([simulated(rate, i) for i, rate in enumerate(RATES)]),
    {
      "twin": np.stack(
        [
          [simulated(rate, 10 * i + j) for j in range(2)]
          for i, rate in enumerate(rates)
        ]
      )
    },
    conditions=asked,
    reference_conditions=before,
    **changes,
  )


def measured(given, **kwargs):
  metrics = hre.metrics(hre.compute(given, **kwargs))
  assert all(m.level == "condition" for m in metrics)
  return {m.name: m for m in metrics}


def test_the_asked_rate_is_found():
  found = measured(examples(RATES))
  assert found["heart_rate_mae_bpm"].value < 1.5
  assert abs(found["heart_rate_bias_bpm"].value) < 1.5
  assert found["heart_rate_slope"].value == pytest.approx(1, abs=0.03)
  assert found["heart_rate_failed_share"].value == 0
  assert found["heart_rate_mae_bpm_real"].value < 1.5
  assert found["heart_rate_mae_bpm"].n == 2 * len(RATES)
  assert found["heart_rate_mae_bpm"].baseline > 20


def test_a_copy_of_the_reference_is_wrong_by_the_change():
  found = measured(examples((60.0,) * len(RATES)))
  mean = np.mean([abs(rate - 60) for rate in RATES])
  assert found["heart_rate_mae_bpm"].value == pytest.approx(mean, abs=1.5)
  assert found["heart_rate_bias_bpm"].value == pytest.approx(
    60 - np.mean(RATES), abs=1.5
  )
  assert found["heart_rate_slope"].value == pytest.approx(0, abs=0.03)
  for name, wrong, n in (
    ("change_under_10", 0.0, 2),  # 60
    ("change_10_to_30", 12.5, 4),  # 50, 75
    ("change_over_30", 48.33, 6),  # 90, 105, 130
  ):
    metric = found[f"heart_rate_mae_bpm_{name}"]
    assert metric.value == pytest.approx(wrong, abs=1.5)
    assert metric.n == n


def test_failed_detections_are_counted_apart():
  given = examples(RATES)
  given.generated["twin"][0] = 0.0  # no ECG; 2 of 12
  default = measured(given)
  assert default["heart_rate_mae_bpm"].value < 1.5
  assert default["heart_rate_mae_bpm"].n == 10
  assert "2 of 12 failed" in default["heart_rate_mae_bpm"].note
  assert default["heart_rate_failed_share"].value == pytest.approx(2 / 12)
  rates = hre.compute(given)._replace(failed_as=0.0)
  published = {m.name: m for m in hre.metrics(rates)}
  wrong = published["heart_rate_mae_bpm"].value
  assert wrong == pytest.approx(2 / 12 * RATES[0], abs=1.5)
  assert published["heart_rate_mae_bpm"].n == 12
  assert published["heart_rate_failed_share"].value == pytest.approx(2 / 12)


def test_published_protocol_uses_xqrs_at_the_models_rate_and_the_decoded():
  given = examples(RATES, decoded=np.zeros((len(RATES), 1024, 12), np.float32))
  given.generated["twin"][0] = 0.0
  found = measured(given, published_protocol=True)
  assert found["heart_rate_mae_bpm_real"].value == np.mean(RATES)
  assert found["heart_rate_mae_bpm"].n == 12
  assert found["heart_rate_mae_bpm"].value > 2 / 12 * RATES[0] - 1
  with pytest.raises(ValueError, match=r"needs examples\.decoded"):
    measured(examples(RATES), published_protocol=True)


def test_xqrs_at_102_hz_takes_these_t_waves_for_beats():
  x = simulated(60.0, 8)
  assert hre.detect_rates(x[None]) == pytest.approx(60, abs=1)
  assert hre.detect_rates(x[None], published_protocol=True) > 110
  assert hre.detect_rates(np.stack([[x, x]] * 3)).shape == (3, 2)


def planted(found, shuffled=None, n=400):
  rng = np.random.default_rng(0)
  asked = rng.uniform(50, 120, n)
  arms = {"twin": found(asked, rng)[:, None]}
  if shuffled:
    arms["shuffled_text"] = shuffled(asked, rng)[:, None]
  people = np.arange(n) // 4
  rates = hre.Rates(asked, rng.uniform(60, 80, n), asked + 1.0, arms, people)
  return {m.name: m for m in hre.metrics(rates)}


def anyone(asked, rng):
  return rng.uniform(50, 120, len(asked))


def test_slope_and_bias_of_a_known_line():
  found = planted(lambda asked, rng: 20 + 0.5 * asked)
  slope, bias = found["heart_rate_slope"], found["heart_rate_bias_bpm"]
  assert slope.value == pytest.approx(0.5)
  assert (slope.low, slope.high) == pytest.approx((0.5, 0.5))
  assert bias.value == pytest.approx(20 - 0.5 * 85, abs=1.5)
  assert found["heart_rate_mae_bpm_real"].value == pytest.approx(1)
  assert found["heart_rate_bias_bpm_real"].value == pytest.approx(1)
  assert found["heart_rate_mae_bpm"].reference == pytest.approx(1)
  assert bias.reference == pytest.approx(1) and bias.better == "higher"
  assert slope.reference == pytest.approx(1) and slope.better == "higher"
  assert found["heart_rate_slope_real"].value == pytest.approx(1)


@pytest.mark.parametrize("shuffled", [anyone, None])
def test_a_generator_that_ignores_the_rate_scores_as_its_baseline(shuffled):
  found = planted(anyone, shuffled)
  error, slope = found["heart_rate_mae_bpm"], found["heart_rate_slope"]
  assert error.low < error.baseline < error.high
  assert slope.low < 0 < slope.high
  assert slope.baseline == pytest.approx(0, abs=0.12)


def test_nothing_found_is_no_number():
  found = planted(lambda asked, rng: np.full(len(asked), np.nan))
  assert np.isnan(found["heart_rate_mae_bpm"].value)
  assert np.isnan(found["heart_rate_slope"].value)
  assert found["heart_rate_failed_share"].value == 1


def test_the_picture_shows_both_kinds():
  found = hre.Rates(
    np.array([60.0, 70.0]),
    np.array([60.0, 60.0]),
    np.array([61.0, np.nan]),
    {"twin": np.array([[60.0, 62.0], [np.nan, 71.0]])},
    np.arange(2),
  )
  titles = [axis.get_title() for axis in hre.draw(found).axes]
  assert titles == ["generated: 1 of 4 not found", "real: 1 of 2 not found"]
