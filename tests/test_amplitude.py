"""Amplitudes that are known."""

import numpy as np
import pytest

from ecgtwin_jax.data.leads import LEADS
from ecgtwin_jax.evaluation.fidelity import amplitude
from helpers.toy_examples import make_examples

GAINS = np.linspace(0.5, 1.6, 12)


def examples(**more):
  rng = np.random.default_rng(0)
  real = rng.normal(size=(14, 1024, 12)).astype(np.float32)
  twins = np.stack([real * GAINS * f for f in (0.9, 1.1)], axis=1)
  return make_examples(real, {"twin": twins.astype(np.float32)}, **more)


def test_the_ratio_of_each_lead_is_its_gain():
  given = examples()
  found = {m.name: m for m in amplitude.metrics(amplitude.compute(given))}
  assert set(found) == {
    "amplitude_ratio",
    *(f"amplitude_ratio_{lead}" for lead in LEADS),
  }
  for lead, gain in zip(LEADS, GAINS):
    metric = found[f"amplitude_ratio_{lead}"]
    assert metric.value == pytest.approx(gain, rel=1e-5)
    assert (metric.low, metric.high) == pytest.approx((gain, gain), rel=1e-5)
    assert metric.level == "fidelity" and np.isnan(metric.baseline)
    assert metric.better == ("higher" if metric.value < 1 else "lower")
  everything = found["amplitude_ratio"]
  assert 1.0 < everything.low <= everything.value <= everything.high < 1.1


def test_millivolts_count_and_not_shares():
  high = np.zeros((4, 1024, 12), np.float32)
  high[:, 0] = np.array([1.0, 3.0, 1.0, 3.0])[:, None]
  gain = np.array([1.0, 2.0, 1.0, 2.0], np.float32)[:, None, None]
  given = make_examples(high, {"twin": (high * gain)[:, None]})
  found = amplitude.metrics(amplitude.compute(given))
  assert {m.value for m in found} == {(1 + 6) / 4}


def test_the_autoencoders_own_ratio_stands_beside():
  given = examples()
  given = examples(decoded=given.real * 0.8)
  found = {m.name: m for m in amplitude.metrics(amplitude.compute(given))}
  assert found["amplitude_ratio_decoded"].value == pytest.approx(0.8)
  assert found["amplitude_ratio_V2"].reference == pytest.approx(0.8)


def test_a_dead_lead_has_no_ratio():
  given = examples()
  given.real[:, :, 3] = 0.25
  found = {m.name: m for m in amplitude.metrics(amplitude.compute(given))}
  assert np.isnan(found["amplitude_ratio_aVR"].value)
  assert np.isfinite(found["amplitude_ratio"].value)


def test_a_panel_per_lead():
  titles = [
    axis.get_title()
    for axis in amplitude.draw(amplitude.compute(examples())).axes
  ]
  assert titles[0] == "I: 0.50" and titles[-1] == "V6: 1.60"
