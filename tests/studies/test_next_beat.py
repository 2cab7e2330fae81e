"""Foretold beats against a patient's next one: known answers, a small run."""

import dataclasses
import sys

import numpy as np
import pytest

from ecgtwin_jax.data.dataset import SPLITS, load_split
from ecgtwin_jax.evaluation.counterfactuals import find_changes
from ecgtwin_jax.evaluation.evaluate import take_half
from ecgtwin_jax.evaluation.generate_examples import read_condition
from ecgtwin_jax.models.base_extractor import BaseExtractor
from ecgtwin_jax.training import checkpoint
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


@pytest.fixture(scope="module")
def latents(chain):
  return [load_split(str(chain / "latents"), x, kind="latent") for x in SPLITS]


@pytest.fixture(scope="module")
def twin(chain):
  return str(chain / "stage2" / "twin")


def test_each_beat_is_that_of_its_recording_under_its_condition(twin, latents):
  data = latents[0]
  got = next_beat.foretell(twin, latents)
  found = data.arrays["median_beat_found"] > 0
  counts = [
    np.unique(
      part.patient_id[part.arrays["median_beat_found"] > 0], return_counts=True
    )[1]
    for part in latents
  ]
  assert len(got.patients) == sum((n * (n - 1)).sum() for n in counts)
  patient = got.patients[0]
  rows = np.flatnonzero((data.patient_id == patient) & found)
  now, then = rows[:2]
  beats = data.arrays["median_beat"]
  np.testing.assert_array_equal(got.reference[0], beats[now])
  np.testing.assert_array_equal(got.target[0], beats[then])
  hyper, variables = checkpoint.load_weights(twin, "base_extractor")
  module = BaseExtractor(**hyper["model"])
  scale = np.asarray(hyper["latent_scale"], np.float32).reshape(1, 1, -1)

  def condition(row):
    ids = data.statement_ids[[row]]
    vectors = np.where(ids[..., None] >= 0, data.table.embeddings[ids], 0)
    return vectors.astype("f4"), ids >= 0, data.patient[[row]]

  base = module.apply(
    variables,
    data.arrays["mean"][[now]].astype("f4") * scale,
    *condition(now),
    median_beat=beats[[now]].astype("f4"),
    median_beat_found=np.ones(1),
  )
  for row, beat in ((now, got.own[0]), (then, got.next[0])):
    expected = module.apply(
      variables, base, *condition(row), method="predict_beat"
    )
    np.testing.assert_allclose(beat, expected[0], atol=1e-5)
  assert np.abs(got.own[0] - got.next[0]).max() > 1e-4
  reports = [read_condition(data, row) for row in (now, then)]
  assert got.changed[0] == bool(find_changes(*reports))
  assert 0 < got.changed.sum() < len(got.changed)


def test_the_table_of_a_small_training(
  chain, twin, latents, monkeypatch, capsys
):
  halves = [take_half(part, "validation") for part in latents]
  flags = [f"--base_extractor={twin}", f"--latents={chain / 'latents'}"]
  monkeypatch.setattr(sys, "argv", ["next_beat", *flags])
  next_beat.main()
  printed, second = capsys.readouterr().out.split("\n\n| findings changed |")
  first, _, head, _, *rows = printed.splitlines()
  assert "patients" in first and head.count("|") == 8
  table = {
    row.split(" | ")[0][2:]: [
      float(x) for x in row.strip("| ").split(" | ")[1:]
    ]
    for row in rows
  }
  assert np.isfinite(list(table.values())).all()
  whole = next_beat.foretell(twin, halves)
  changed = next_beat.Beats(*(column[whole.changed] for column in whole))
  for name, pairs, beats in (
    ("next, foretold", whole, whole.next),
    ("next, unchanged reference", whole, whole.reference),
    (
      "likewise, moved as foretold",
      changed,
      changed.reference + changed.next - changed.own,
    ),
  ):
    r2, (axis, *sizes) = next_beat.errors(pairs, beats)
    expected = [f"{x:.3f}" for x in r2] + [f"{axis:.1f}"]
    expected += [f"{x:.3f}" for x in sizes]
    assert table[name] == [float(x) for x in expected]
  numbers = [
    [float(x) for x in row.strip("| ").split(" | ")[1:]]
    for row in second.splitlines()[2:]
  ]
  np.testing.assert_allclose(numbers, next_beat.changes(changed), atol=6e-3)


def test_foretold_changes_are_held_against_the_true_ones():
  flat = np.zeros((4, 80, 12))
  flat[:, 30, 0] = 1  # an axis of 0 degrees
  true, foretold = flat.copy(), flat.copy()
  true[:, 50, 10] = 0.1, 0.2, 0.3, 0.4
  foretold[:, 50, 10] = 0.4, 0.6, 0.8, 0.2
  true[:, 10, 1] = foretold[:, 10, 1] = 0.1, -0.1, 0.2, 0.1
  patients = np.array([1, 1, 1, 2])
  pairs = next_beat.Beats(
    flat, true, flat, foretold, np.ones(4, bool), patients
  )
  correlation, of_foretold, of_true = next_beat.changes(pairs)
  assert np.isnan(correlation[0]) and of_foretold[0] == of_true[0] == 0
  weights = np.array([1, 1, 1, 3]) / 6
  t, u = true[:, 50, 10], foretold[:, 50, 10]
  expected = np.cov(t, u, aweights=weights, ddof=0)
  np.testing.assert_allclose(
    correlation[1], expected[0, 1] / np.sqrt(expected[0, 0] * expected[1, 1])
  )
  assert correlation[1] < 0 and np.isclose(correlation[2], 1)
  np.testing.assert_allclose(of_true[1], np.sqrt(weights @ t**2))
  np.testing.assert_allclose(of_foretold[1], np.sqrt(weights @ u**2))
  np.testing.assert_array_equal(
    next_beat.moved_as_foretold(pairs._replace(reference=true)),
    true + foretold - flat,
  )


def test_what_cannot_be_foretold_is_refused(twin, latents, monkeypatch):
  one = np.unique(latents[0].patient_id, return_index=True)[1]
  single = latents[0].select(np.isin(np.arange(len(latents[0])), one))
  with pytest.raises(ValueError, match=r"0 patients of .* two recordings"):
    next_beat.foretell(twin, [single])
  card = latents[0].card | {"vae": "0123456789abcdef"}
  other = dataclasses.replace(latents[0], card=card)
  with pytest.raises(ValueError, match="autoencoder 0123456789ab, but"):
    next_beat.foretell(twin, [other])
  hyper, variables = checkpoint.load_weights(twin, "base_extractor")
  blind = hyper | {"model": hyper["model"] | {"median_beat": False}}
  monkeypatch.setattr(
    next_beat.checkpoint, "load_weights", lambda *_: (blind, variables)
  )
  with pytest.raises(ValueError, match="median_beat=False"):
    next_beat.foretell(twin, latents)
