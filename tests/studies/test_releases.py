"""Evaluators that are released, and the simulator beside recordings."""

import csv
import json

import numpy as np
import pytest

from data_prep import simulated
from studies import release_evaluators, simulated_against_real


def write_log(folder, *lines):
  folder.mkdir()
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (folder / "metrics.jsonl").write_text(text)


def test_a_card_says_what_the_last_evaluation_found(tmp_path):
  top1, chance = release_evaluators.FOUND["clip"]
  write_log(
    tmp_path / "clip",
    {"step": 1, top1: 0.25, chance: 0.125},
    {"step": 2, top1: 0.75, chance: 0.125},
    {"step": 3, "loss": 1.0},
  )
  weights = {"clip": ({}, {"params": {"a": np.zeros((2, 3)), "b": np.ones(1)}})}
  options = {"patients": 3000, "seed": 5, "version": "2.0.0"}
  card = release_evaluators.make_card(tmp_path, weights, options, "One core.")
  assert "\n3,000 simulated patients of seed 5 (" in card
  assert "| clip | 7 | configs/clip.py:small |" in card
  assert "batch of 128: 0.75; by chance" in card and "0.25" not in card
  assert "\nOne core.\n" in card


def test_a_log_without_an_evaluation_is_refused(tmp_path):
  write_log(tmp_path / "identity", {"step": 1, "validation/top1": 0.5})
  with pytest.raises(
    ValueError, match=r"identity/metrics.jsonl has no eval.*eq"
  ):
    release_evaluators.describe(tmp_path / "identity")


def test_recordings_are_near_others_of_their_kind(tmp_path):
  data = tmp_path / "data"
  simulated.prepare(data, patients=80, recordings=1, seed=3, workers=1)
  simulated_against_real.run(str(data), str(tmp_path / "all"), None, 1)
  with open(
    tmp_path / "all" / "simulated_against_real.csv", newline=""
  ) as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 87 and rows[0]["real_n"] == "80"
  assert np.mean([float(row["ratio"]) <= 2 for row in rows]) > 0.95


def test_only_the_splits_that_are_named_are_read(tmp_path):
  data = tmp_path / "data"
  simulated.prepare(data, patients=20, recordings=1, seed=3, workers=1)
  read = simulated_against_real.read_real
  assert len(read(str(data)).conditions) == 20
  assert len(read(str(data), ["validation", "test"]).conditions) == 4
