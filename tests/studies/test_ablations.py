"""Choices by three seeds: means, tables, what is read again and left out."""

import json
import sys

import jax
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from data_prep import simulated
from data_prep.encode import encode_with
from ecgtwin_jax.data.conditions import standardize_patient
from ecgtwin_jax.evaluation.metric import Metric
from ecgtwin_jax.flags import load_config
from ecgtwin_jax.models import beat_rate
from ecgtwin_jax.stages import base_extractor, vae
from studies import (
  ablations,
  autoencoder_ablations,
  equivariant_latents,
  extractor_ablations,
  sampling_choice,
  three_seeds,
)

NAMES = list(three_seeds.MEASURES)


def report(value):
  return [
    Metric(name, value + i, value - 1, value + 1, 0.0, 9.0, "higher", 7, "x")
    for i, name in enumerate([*NAMES, "another"])
  ]


def test_a_choice_is_the_mean_of_its_seeds(tmp_path, monkeypatch):
  seen = []

  def run(config):
    seen.append((config.seed, config.twin, config.sampling.steps))
    return report(float(10 * config.seed))

  monkeypatch.setattr(three_seeds.evaluate, "run", run)
  given = (tmp_path, "simulated-small", "D", 3, {"steps": 5})
  row = three_seeds.measure(*given)
  assert seen == [(seed, "simulated-small", 5) for seed in three_seeds.SEEDS]
  np.testing.assert_allclose(row[NAMES[1]], [11, 9, 11, 9])
  more = three_seeds.measure(
    tmp_path / "x", *given[1:], measures=("another",), levels=("truth",)
  )
  assert list(more) == ["another"] and seen[-1][0] == 2
  del seen[3:]
  assert three_seeds.measure(*given)[NAMES[0]][0] == 10 and len(seen) == 3
  lines = three_seeds.to_markdown("choice", {"a": row, "b": row}).splitlines()
  assert lines[2].startswith("| a | 10 (9 to 11) | 11 (9 to 11) |")
  assert lines[-1].split("|")[1:3] == [" real ECGs ", " 9 "]


def test_what_cannot_be_measured_is_no_number(tmp_path, monkeypatch):
  monkeypatch.setattr(
    three_seeds.evaluate, "run", lambda config: report(float("nan"))
  )
  row = three_seeds.measure(tmp_path, "simulated-small", "D", 3, {})
  assert np.isnan(row[NAMES[0]][0])


def test_every_setting_of_sampling_is_a_row(tmp_path, monkeypatch, capsys):
  given = {}

  def measure(folder, twin, data, patients, sampling):
    given[folder.name] = sampling
    folder.mkdir(parents=True)
    return dict.fromkeys(NAMES, np.ones(4))

  monkeypatch.setattr(three_seeds, "measure", measure)
  flags = ["--data=D", f"--output={tmp_path}"]
  monkeypatch.setattr(sys, "argv", ["sampling_choice", *flags])
  sampling_choice.main()
  assert list(given.values()) == list(sampling_choice.SETTINGS.values())
  table = (tmp_path / "sampling_choice.md").read_text()
  assert table == capsys.readouterr().out
  assert table.count("\n") == 2 + len(sampling_choice.SETTINGS) + 1


def test_a_changed_denoiser_is_trained_and_reported(
  chain, tmp_path, monkeypatch
):
  small = {
    "model.width": 16,
    "optimizer.warmup_steps": 0,
    "batch_size": 8,
    "model.base_width": 64,
  }
  changes = {"no sketch": {**small, "model.beat_sketch": 0}}
  monkeypatch.setattr(ablations, "CHANGES", changes)
  reported = []

  def measure(folder, twin, data, patients, sampling, measures, levels):
    reported.append(twin)
    return dict.fromkeys(measures, np.ones(4))

  monkeypatch.setattr(three_seeds, "measure", measure)
  flags = [f"--{key}={chain / key}" for key in ("vae", "latents", "rhythm")]
  flags += [f"--base_extractor={chain / 'stage1'}", "--steps=2"]
  flags += [f"--data={chain / 'simulated'}", "--test_data=D"]
  flags += [f"--output={tmp_path}"]
  monkeypatch.setattr(sys, "argv", ["ablations", *flags])
  ablations.main()
  (twin,) = reported
  hyper = json.loads((tmp_path / "no-sketch/twin/twin.json").read_text())
  assert twin == str(tmp_path / "no-sketch/twin")
  assert '"beat_sketch": 0' in json.dumps(hyper)
  assert "no sketch" in (tmp_path / "ablations.md").read_text()


def test_an_extractor_without_a_part_is_measured(chain, tmp_path, monkeypatch):
  kept = ("no share of another's beat", "straight way begins at zero")
  changes = {
    name: (
      {"optimizer.warmup_steps": 0, "batch_size": 8, "model.token_width": 8},
      extractor_ablations.CHANGES[name][1],
    )
    for name in kept
  }
  monkeypatch.setattr(extractor_ablations, "CHANGES", changes)
  monkeypatch.setattr(three_seeds, "SEEDS", (0,))
  trained = []
  train = extractor_ablations.train.train

  def watched(config, workdir):
    whole = base_extractor.start(config, base_extractor.load_data(config))
    trained.append((bool(whole), base_extractor.add_other_beats.__name__))
    return train(config, workdir)

  monkeypatch.setattr(extractor_ablations.train, "train", watched)
  data, latents = chain / "simulated", chain / "latents"
  others = simulated.prepare(
    tmp_path / "others", patients=20, recordings=2, seed=5, workers=1
  )
  second = tmp_path / "second"
  encode_with(others, chain / "vae", second, workers=1)
  flags = [f"--data={data}:1,{others}:1", f"--latents={latents}:1,{second}:1"]
  flags += [f"--test_latents={latents}", f"--vae={chain / 'vae'}"]
  flags += [f"--output={tmp_path}", "--steps=2"]
  monkeypatch.setattr(sys, "argv", ["extractor_ablations", *flags])
  extractor_ablations.main()
  assert trained == [(True, "<lambda>"), (False, "add_other_beats")]
  rows = (tmp_path / "extractor_ablations.md").read_text().splitlines()[2:]
  assert len(rows) == 2 and all(name in "".join(rows) for name in kept)
  measured = json.loads(
    (tmp_path / "straight-way-begins-at-zero-0/measured.json").read_text()
  )
  assert sorted(measured) == sorted(extractor_ablations.MEASURES)
  assert 0 <= measured["top1"] <= 1 and measured["own"] < 1


def test_what_is_left_out_comes_back():
  start = base_extractor.start
  with extractor_ablations.CHANGES["straight way begins at zero"][1]():
    assert base_extractor.start is not start
  assert base_extractor.start is start
  with pytest.raises(ValueError):
    with extractor_ablations.CHANGES["straight way begins at zero"][1]():
      raise ValueError
  assert base_extractor.start is start


def test_beats_as_recorded_are_left_at_their_rate():
  beat = np.random.default_rng(0).normal(size=(1, 80, 12)).astype(np.float32)
  patient = standardize_patient(np.array([120.0]), -1, -1)
  with extractor_ablations.CHANGES["beats as recorded, not as at 60 bpm"][1]():
    for move in (beat_rate.at_60_bpm, beat_rate.from_60_bpm):
      np.testing.assert_array_equal(move(beat, patient), beat)
  assert np.abs(beat_rate.at_60_bpm(beat, patient) - beat).max() > 0.1


def test_samples_that_count_alike_have_the_mean_variance():
  beats = np.random.default_rng(0).normal(size=(50, 80, 12))
  beats[:, :40] *= 3
  with extractor_ablations.CHANGES["samples of a beat count alike"][1]():
    variance = base_extractor.variance_of(beats)
  np.testing.assert_allclose(variance, beats.var(axis=0).mean())
  own = base_extractor.variance_of(beats)
  assert own[:40].mean() > 5 * own[40:].mean()


def test_a_changed_autoencoder_is_measured(chain, tmp_path, monkeypatch):
  small = {
    "optimizer.warmup_steps": 0,
    "batch_size": 8,
    **autoencoder_ablations.both_parts(widths=(32,), groups=8, blocks=1),
  }
  four = autoencoder_ablations.CHANGES["four channels"]
  changes = {"as it is": small, "four": {**small, **four}}
  monkeypatch.setattr(autoencoder_ablations, "CHANGES", changes)
  data = chain / "simulated"
  flags = [f"--data={data}", f"--test_data={data}", "--steps=2"]
  flags += [f"--output={tmp_path}"]
  monkeypatch.setattr(sys, "argv", ["autoencoder_ablations", *flags])
  autoencoder_ablations.main()
  first = (tmp_path / "autoencoder_ablations.md").read_text()
  signals = np.zeros((70, 1024, 12), np.float32)
  for name, channels in (("as-it-is", 8), ("four", 4)):
    decoded, stds = autoencoder_ablations.decode(tmp_path / name, signals)
    assert decoded.shape == (70, 1024, 12) and stds.shape == (70, channels)
    measured = json.loads((tmp_path / name / "measured.json").read_text())
    value, low, high = measured["rms_uv"]
    assert 10 < low <= value <= high and 0 < measured["std"][0] < 2
    assert 0 < measured["slope_uv"][0] < 2 * high
  assert first.splitlines()[-1].startswith("| real recordings | 0 (0 to 0) |")
  monkeypatch.setattr(autoencoder_ablations, "measure", print)
  autoencoder_ablations.main()  # with every cell there nothing is measured
  assert (tmp_path / "autoencoder_ablations.md").read_text() == first


def test_wander_is_what_lies_below_a_heart_rate():
  time = np.arange(1024) / 102.4
  drift, beats = 0.1 * time - 0.5, np.sin(40 * time)
  waves = autoencoder_ablations.slow_waves(1024)
  kept = waves @ (waves.T @ (drift + beats))
  assert np.square(kept - drift).mean() < 0.01 * np.square(drift).mean()


def test_what_moves_and_halves_stays_the_same_line():
  time = np.arange(1024, dtype=np.float32)
  ecg = np.broadcast_to(time[None, :, None], (2, 1024, 12))
  latent = np.broadcast_to(time[None, 3::8, None], (2, 128, 8))
  later, moved = equivariant_latents.moved(latent, ecg, np.int32(3))
  np.testing.assert_allclose(moved[0, :, 0], time[8:] - 3)
  np.testing.assert_allclose(later[0, :, 0], time[11::8] - 3, rtol=1e-6)
  half = equivariant_latents.at_half_rate(ecg)
  np.testing.assert_allclose(half[1, :, 5], time[::2] + 0.5)


def test_latents_that_should_move_cost_more(chain):
  config = load_config(f"{three_seeds.ROOT}/configs/vae.py:smoke")
  config.data = str(chain / "simulated")
  data = vae.load_data(config)
  batch = next(vae.batches(config, data, 0, 0, 1))
  config = FrozenConfigDict(config)
  params, state = vae.init(jax.random.key(0), config)
  rest = (params, state, {}, batch, jax.random.key(1))
  plain, _ = equivariant_latents.LOSSES["as it is"](config, *rest)
  more, _ = equivariant_latents.LOSSES["equivariant"](config, *rest)
  assert plain < more < 2 * plain
