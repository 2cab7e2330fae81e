"""The loop: exact resume, losses that are not finite, what it writes."""

import json
import os
import signal
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.training import (
  checkpoint,
  metric_writer,
  preemption,
  progress,
  train,
)
from helpers import runs


@pytest.mark.parametrize("name", runs.STAGES)
def test_two_steps_and_two_more_are_four_steps(
  name, chain, stage_config, tmp_path
):
  train.train(stage_config(name, stop_at=2), tmp_path)
  assert runs.newest_step(tmp_path) == 2
  train.train(stage_config(name), tmp_path)
  runs.assert_same(tmp_path, runs.whole(chain, name))
  assert list(runs.train_losses(tmp_path)) == [1, 2, 3, 4]


def test_a_finished_run_does_nothing(chain, stage_config):
  workdir = runs.whole(chain, "stage1")
  before = (workdir / "metrics.jsonl").read_text()
  assert train.train(stage_config("stage1"), workdir) == {}
  assert (workdir / "metrics.jsonl").read_text() == before
  assert runs.newest_step(workdir) == 4


def test_another_seed_gives_other_weights_noise_and_batches(stage_config):
  stage, drawn = toy_stage(), []
  for seed in (0, 1):
    config = stage_config("stage1", seed=seed)
    state = train.init_state(config, stage)
    x = {"x": jnp.ones((2, 7))}
    _, scalars = train.train_step(config, stage, state, {}, x)
    with runs.program(config, jax.devices()[:1]) as p:
      index = next(p.batches)["index"]
    drawn.append((state.params["w"], scalars["noise"], index))
  for one, other in zip(*drawn, strict=True):
    assert (np.asarray(one) != np.asarray(other)).any()


def test_a_loss_that_is_not_finite_names_step_and_records(
  stage_config, tmp_path, monkeypatch
):
  put, batches = train.sharding.put_batch, []

  def put_damaged(rows, mesh):
    batches.append(rows)
    if len(batches) == 2:
      rows = rows | {"mean": rows["mean"] * np.float32(np.nan)}
    return put(rows, mesh)

  monkeypatch.setattr(train.sharding, "put_batch", put_damaged)
  with pytest.raises(ValueError, match=r"at step=2 must be finite; records"):
    train.train(stage_config("stage1", log_every=1), tmp_path / "run")
  # Not even under way to the disk.
  assert runs.newest_step(tmp_path / "run") == 0


def test_a_batch_that_does_not_split_is_refused(stage_config, tmp_path):
  with pytest.raises(ValueError, match=r"batch_size=12 must be divisible"):
    train.train(stage_config("stage1", batch_size=12), tmp_path / "run")


def toy_stage():
  """A stage without noise or modules, whose loss is no mean over examples."""

  def init(rng, config):
    return {"w": jax.random.normal(rng, (7,))}, {"calls": jnp.zeros(())}

  def loss(config, params, model_state, frozen, batch, rng):
    mean = jnp.mean(batch["x"] @ params["w"])
    scalars = {"noise": jax.random.normal(rng)}
    return mean**2, ({"calls": model_state["calls"] + 1}, scalars)

  return types.SimpleNamespace(init=init, loss=loss)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_accumulation_averages_gradients_of_strided_micro_batches(
  stage_config, accumulate
):
  config = stage_config("stage1", accumulate=accumulate, seed=3)
  stage = toy_stage()
  state = train.init_state(config, stage)
  x = np.random.default_rng(0).normal(size=(15, 7)).astype(np.float32)
  new, scalars = train.train_step(config, stage, state, {}, {"x": jnp.array(x)})
  w = np.asarray(state.params["w"], np.float64)
  parts = [x[m::accumulate].mean(axis=0) for m in range(accumulate)]
  gradient = np.mean([2 * (p @ w) * p for p in parts], axis=0)
  loss = np.mean([(p @ w) ** 2 for p in parts])
  np.testing.assert_allclose(scalars["loss"], loss, rtol=1e-5)
  norm = np.linalg.norm(gradient)
  np.testing.assert_allclose(scalars["gradient_norm"], norm, rtol=1e-5)
  assert new.model_state["calls"] == accumulate
  # Micro-batches do not share a key: their noise averages out.
  key = jax.random.fold_in(jax.random.key(config.seed + 1), 0)
  noise = [
    jax.random.normal(jax.random.fold_in(key, m)) for m in range(accumulate)
  ]
  np.testing.assert_allclose(scalars["noise"], np.mean(noise), rtol=1e-5)


@pytest.mark.parametrize("name", runs.STAGES)
def test_remat_is_an_option_of_every_stage(name, stage_config):
  counts = []
  with runs.program(stage_config(name), jax.devices()[:1]) as p:
    batch = next(p.batches)
    for remat in (False, True):
      config = FrozenConfigDict({**p.config.to_dict(), "remat": remat})
      counts.append(runs.count_flops(p._replace(config=config), batch))
  assert 1.05 * counts[0] < counts[1] < 1.5 * counts[0]


BFLOAT16 = dict(precision="bfloat16", profile_steps=(2, 3))


@pytest.fixture(scope="module")
def bfloat16(chain, tmp_path_factory):
  """Stage 2 trained in bfloat16, two of its steps profiled: its folder."""
  folder = tmp_path_factory.mktemp("bfloat16")
  train.train(runs.config_of(chain, "stage2", folder, **BFLOAT16), folder)
  return folder


def test_bfloat16_learns_as_float32_does(chain, bfloat16):
  want = metric_writer.read_metrics(runs.whole(chain, "stage2"))[4]
  got = metric_writer.read_metrics(bfloat16)[4]
  loss = "validation/loss"
  assert got[loss] != want[loss]
  np.testing.assert_allclose(got[loss], want[loss], rtol=0.02)
  _, trees = runs.final_state(bfloat16)
  types_found = {str(x.dtype) for x in jax.tree.leaves(trees)}
  assert types_found == {"float32", "int32"}


def test_what_a_person_watches_is_written(bfloat16, stage_config):
  config = stage_config("stage2", **BFLOAT16)
  last = metric_writer.read_metrics(bfloat16)[4]
  for name in (
    "train/loss",
    "train/gradient_norm",
    "watch/learning_rate",
    "watch/samples_per_s",
    "watch/input_wait_share",
    "watch/tflop_per_s",
    "validation/mse",
    "validation/pairs",
  ):
    assert np.isfinite(last[name]), name
  assert 0 <= last["watch/input_wait_share"] <= 1
  # One device's FLOPs do not become eight times as many on eight.
  ratio = last["watch/tflop_per_s"] * 1e12 / last["watch/samples_per_s"]
  want = runs.flops_of(config) / config.batch_size
  np.testing.assert_allclose(ratio, want, rtol=1e-5)
  assert list(bfloat16.glob("profile/**/*.xplane.pb"))
  assert list(bfloat16.glob("tensorboard/events*"))
  saved = json.loads((bfloat16 / "config.json").read_text())
  assert saved["stage"] == "denoiser"


def test_init_from_starts_with_the_given_weights(chain, stage_config, tmp_path):
  config = stage_config("stage1", init_from=str(chain / "stage1"))
  with runs.program(config, jax.devices()) as p:
    state = train.first_state(p.config, p.stage, p.shapes, "base_extractor")
  _, given = checkpoint.load_weights(chain / "stage1", "base_extractor")
  for got in (state.params, state.ema):
    jax.tree.map(np.testing.assert_array_equal, got, given["params"])
  wrong = stage_config(
    "stage1", init_from=str(chain / "stage1"), **{"model.depth": 2}
  )
  with pytest.raises(ValueError, match="has other sizes"):
    train.train(wrong, tmp_path / "other")


def test_sigterm_saves_the_step_and_the_same_call_continues(
  chain, stage_config, tmp_path, monkeypatch, capsys
):
  add = progress.Progress.add

  def add_and_kill(self, step, scalars, rows):
    add(self, step, scalars, rows)
    if step == 3:
      os.kill(os.getpid(), signal.SIGTERM)

  before = signal.getsignal(signal.SIGTERM)
  with monkeypatch.context() as patch:
    patch.setattr(progress.Progress, "add", add_and_kill)
    with pytest.raises(preemption.Preempted) as stopped:
      train.train(stage_config("stage1"), tmp_path)
  assert stopped.value.code == preemption.EXIT_PREEMPTED == 75
  assert signal.getsignal(signal.SIGTERM) == before
  assert "saved step 3" in capsys.readouterr().err
  assert runs.newest_step(tmp_path) == 3
  train.train(stage_config("stage1"), tmp_path)
  assert "continuing" in (out := capsys.readouterr().out)
  assert "at step 3" in out
  runs.assert_same(tmp_path, runs.whole(chain, "stage1"))


def test_another_precision_is_refused(stage_config, tmp_path):
  with pytest.raises(ValueError, match=r"config.precision='bf16' must be"):
    train.train(stage_config("stage1", precision="bf16"), tmp_path)


def test_a_workdir_in_a_bucket_is_refused(stage_config):
  with pytest.raises(ValueError, match="gs://bucket/run must be a folder"):
    train.train(stage_config("stage1"), "gs://bucket/run")


def test_the_latents_of_another_autoencoder_are_refused(
  chain, stage_config, tmp_path
):
  hyper, variables = checkpoint.load_weights(chain / "vae", "vae")
  other = jax.tree.map(lambda x: 2 * x, variables)
  twin_directory.write_twin(
    tmp_path / "other", {"vae": (hyper, other)}, sources={}, card=""
  )
  config = stage_config("stage1", vae=str(tmp_path / "other"))
  with pytest.raises(ValueError, match="was encoded by autoencoder"):
    train.train(config, tmp_path / "run")
