"""Foretold beats against a patient's next one: known answers, a small run."""

import sys

import numpy as np
import pytest

from studies import next_beat


def beats(count, seed=0):
  return np.random.default_rng(seed).standard_normal((count, 80, 12))


def test_patients_weigh_the_same_however_many_pairs_they_have():
  patients = np.array([4, 4, 4, 9])
  weights = next_beat.weights_of(patients)
  np.testing.assert_allclose(weights, [1 / 6, 1 / 6, 1 / 6, 1 / 2])
  true = beats(4)
  wrong = true.copy()
  wrong[3] += 1
  everywhere = np.ones(4) / 4
  total = ((true - true.mean(axis=0)) ** 2).sum() / 4
  one = next_beat.explained(true, wrong, everywhere)
  np.testing.assert_allclose(one, 1 - 960 / 4 / total)
  assert next_beat.explained(true, wrong, weights) < one
  assert next_beat.explained(true, true, weights) == 1


def test_axis_goes_the_shorter_way_round():
  flat = np.zeros((2, 80, 12))
  for beat, degrees in zip(flat, (175, -175), strict=True):
    angle = np.radians(degrees)
    beat[28:32, 0] = np.cos(angle)
    beat[28:32, 5] = np.sin(angle) * np.sqrt(3) / 2
  flat[:, 50, 10], flat[:, 10, 1] = (0.4, -0.3), (0.1, 0.15)
  measured = next_beat.measure(flat)
  expected = [[175, 0.4, 0.1], [-175, -0.3, 0.15]]
  np.testing.assert_allclose(measured, expected, atol=1e-9)
  pairs = next_beat.Beats(
    flat, flat[::-1], flat, flat, np.ones(2, bool), np.array([0, 1])
  )
  _, apart = next_beat.errors(pairs, flat)
  np.testing.assert_allclose(apart, [10, 0.7, 0.05], atol=1e-9)


def test_patients_of_two_splits_stay_apart():
  one = next_beat.Beats(*[beats(2)] * 4, np.ones(2, bool), np.zeros(2, int))
  whole = next_beat.join([one, one])
  assert len(np.unique(whole.patients)) == 2
  assert whole.target.shape == (4, 80, 12)


def test_the_table_of_a_small_training(chain, monkeypatch, capsys):
  flags = [f"--base_extractor={chain / 'stage2' / 'twin'}"]
  flags += [f"--latents={chain / 'latents'}"]
  monkeypatch.setattr(sys, "argv", ["next_beat", *flags])
  next_beat.main()
  first, _, head, _, *rows = capsys.readouterr().out.splitlines()
  assert "patients" in first and head.count("|") == 8
  table = {
    row.split(" | ")[0][2:]: [
      float(x) for x in row.strip("| ").split(" | ")[1:]
    ]
    for row in rows
  }
  assert np.isfinite(list(table.values())).all()
  foretold, left = table["next, foretold"], table["next, unchanged reference"]
  assert foretold != left


def test_latents_without_a_second_recording_are_refused(chain, monkeypatch):
  monkeypatch.setattr(next_beat, "foretell", lambda *_: None)
  flags = ["--base_extractor=none", f"--latents={chain / 'latents'}"]
  monkeypatch.setattr(sys, "argv", ["next_beat", *flags])
  with pytest.raises(ValueError, match="no patient with two recordings"):
    next_beat.main()
