"""Beat-to-beat variation: noise is measured, a repeated beat has none."""

import dataclasses

import numpy as np
import pytest

from ecgtwin_jax.beats.median_beat import find_median_beat
from ecgtwin_jax.beats.variation import beat_spread, rr_spread
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.evaluation.physiology import lead_places, variation
from ecgtwin_jax.evaluation.readings import Readings
from helpers.evaluated import make_examples, real_signals

PATIENTS = 8


def periodic(spread=0.0, seed=0, period=80):
  """A beat that repeats every 80 samples of 102.4 Hz, and noise in mV."""
  time = np.arange(1024) % period
  beat = np.exp(-0.5 * ((time - 40) / 1.5) ** 2)
  beat = beat + 0.2 * np.exp(-0.5 * ((time - 65) / 5) ** 2)
  noise = np.random.default_rng(seed).normal(0, spread, (1024, 12))
  return beat[:, None] * np.linspace(0.5, 1.5, 12) + noise


def test_a_repeated_beat_has_no_spread_and_noise_has_its_own():
  still = find_median_beat(periodic(), 102.4)
  assert beat_spread(still) < 5
  assert rr_spread(still) < 2
  noisy = find_median_beat(periodic(0.05), 102.4)
  # The median of a dozen beats takes little of their noise.
  assert beat_spread(noisy) == pytest.approx(50, rel=0.15)


def test_spreads_need_three_beats_and_leave_odd_ones_out():
  beats = find_median_beat(periodic(0.05), 102.4)
  two = dataclasses.replace(beats, segments=beats.segments[:2])
  assert np.isnan(beat_spread(two))
  times, usual = np.arange(8) * 0.8, np.ones(8, bool)
  times[4] -= 0.3
  usual[4] = False
  odd = dataclasses.replace(beats, times=times, usual=usual)
  assert rr_spread(odd) == pytest.approx(0, abs=1e-9)
  usual = np.arange(8) < 3  # two intervals
  few = dataclasses.replace(odd, times=np.arange(8) * 0.8, usual=usual)
  assert np.isnan(rr_spread(few))
  uneven = dataclasses.replace(
    odd, times=np.cumsum(np.tile([0.7, 0.9], 4)), usual=np.ones(8, bool)
  )
  assert rr_spread(uneven) == pytest.approx(100, rel=0.03)


def test_groups_follow_the_reports():
  reports = (
    ("Sinus rhythm",),
    ("Atrial fibrillation",),
    ("Sinus rhythm", "Ventricular premature complex"),
    ("Atrial fibrillation", "Ventricular premature complex"),
    ("Atrial flutter",),
  )
  found = variation.find_groups([Condition(r, 70) for r in reports])
  rows = {
    name: np.flatnonzero(chosen).tolist() for name, chosen in found.items()
  }
  assert rows == {"sinus": [0], "fibrillation": [1, 3], "ectopic": [2]}


def figures(twins, **more):
  examples = dataclasses.replace(
    make_examples(twins, patients=PATIENTS), **more
  )
  result = variation.compute(examples, Readings(examples))
  rows = variation.metrics(result)
  assert {m.level for m in rows} == {"physiology"}
  return result, {m.name: m for m in rows}


def test_a_periodic_generator_is_seen_and_the_real_one_is_at_the_reference():
  real = real_signals(PATIENTS)
  twins = np.stack([periodic()] * len(real)).astype(np.float32)
  _, still = figures(twins)
  beats, rr = still["beat_spread_sinus_uv"], still["rr_spread_sinus_ms"]
  assert beats.value < 0.5 * beats.reference and beats.better == "higher"
  assert rr.value < 0.3 * rr.reference and rr.better == "higher"
  result, same = figures(real, decoded=real)
  assert same["beat_spread_sinus_uv"].value == pytest.approx(
    same["beat_spread_sinus_uv"].reference
  )
  assert same["beat_spread_sinus_wasserstein_uv"].value == 0
  assert "after the autoencoder" in same["beat_spread_sinus_uv"].note
  assert len(variation.draw(result).axes) == 6
  assert "num_samples=2" in same.pop("sample_spread_uv").note
  few = [m for m in same.values() if np.isnan(m.value)]
  assert few and all("fewer than 10" in m.note for m in few)


def test_samples_and_patients_that_do_not_differ_are_seen():
  real = real_signals(PATIENTS)
  twice = make_examples(real, patients=PATIENTS).real[:, None].repeat(2, axis=1)
  noise = np.random.default_rng(0).normal(0, 0.01, twice.shape)
  noisy = (twice + noise).astype(np.float32)
  result, rows = figures(real, generated={"twin": noisy})
  samples, patients = rows["sample_spread_uv"], rows["patient_spread_uv"]
  assert 1 < samples.value < 20 and samples.reference > 1
  assert patients.value == pytest.approx(patients.reference, rel=0.05)
  assert result.strangers["real"].shape == (len(real), 2)
  one = np.broadcast_to(twice[:1], twice.shape).copy()
  _, rows = figures(real, generated={"twin": one})
  for name in ("sample_spread_uv", "patient_spread_uv"):
    assert rows[name].value == pytest.approx(0, abs=1e-6)
    assert rows[name].reference > 1 and rows[name].baseline == 0


def test_leads_that_are_not_where_they_belong_are_counted():
  examples = make_examples(real_signals(PATIENTS), patients=PATIENTS)
  real = Readings(examples).of("real")
  arms = examples.real[..., [0, 2, 1, 4, 3, *range(5, 12)]].copy()
  arms[..., 0] *= -1  # I is upside down, II and III, aVR and aVL change places
  for twins, share in (
    (examples.real, 1),
    (arms, 7 / 12),
    (np.roll(examples.real, 2, axis=-1), 0),  # neighbours are alike
    (-examples.real, 0),
  ):
    changed = make_examples(twins, patients=PATIENTS)
    places = lead_places.compute(
      Readings(changed).of("twin"), real, examples.patients
    )
    (row,) = lead_places.metrics(places)
    assert row.value == pytest.approx(share, abs=0.01 if share else 0.2)
    assert row.reference == 1
  # Two of three samples are upside down, not the first.
  inverted = Readings(changed).of("twin")
  rows = [[a[0], b[0], b[0]] for a, b in zip(real, inverted, strict=True)]
  places = lead_places.compute(rows, real, examples.patients)
  (row,) = lead_places.metrics(places)
  assert row.value < 0.5


def test_readings_are_made_once_and_a_reference_once_per_patient(monkeypatch):
  from ecgtwin_jax.evaluation import readings as module

  calls = []
  read = module.read_ecg_beats
  monkeypatch.setattr(
    module, "read_ecg_beats", lambda x: calls.append(1) or read(x)
  )
  examples = make_examples(real_signals(4), patients=4)
  found = Readings(examples)
  rows = found.of("references")
  assert len(calls) == 4 and len(rows) == 12
  assert rows[0][0] is rows[1][0] and rows[0][0] is not rows[3][0]
  assert found.of("references") is rows and len(calls) == 4
  assert len(rows[0][0].beats.segments) == 0
  assert found.spreads("references").shape == (12, 1)
  assert len(calls) == 4
