"""The loop: exact resume, non-finite losses, what stops it and what it writes."""

import json
import os
import signal

import jax
import numpy as np
import pytest

from ecgtwin_jax import checkpoint, metrics, train, watch

STAGES = ("vae", "stage1", "stage2", "clip")


def final_state(workdir):
  """The newest checkpoint's arrays, as saved."""
  import orbax.checkpoint as ocp

  root = workdir / "checkpoints"
  newest = max(int(p.name) for p in root.iterdir() if p.name.isdigit())
  leaves = {}
  for item in ("weights", "state"):
    handler = ocp.PyTreeCheckpointHandler()
    folder = (root / str(newest) / item).resolve()
    restore_args = jax.tree.map(
      lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
      handler.metadata(folder).tree,
    )
    leaves[item] = handler.restore(
      folder, args=ocp.args.PyTreeRestore(restore_args=restore_args)
    )
  return newest, leaves


def train_losses(workdir):
  return {
    step: scalars["train/loss"]
    for step, scalars in metrics.read_metrics(workdir).items()
  }


@pytest.mark.parametrize("name", STAGES)
def test_two_steps_and_two_more_are_four_steps(name, stage_config, tmp_path):
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  train.train(stage_config(name), whole)
  train.train(stage_config(name, stop_at=2), parts)
  assert final_state(parts)[0] == 2
  train.train(stage_config(name), parts)
  (step, want), (again, got) = final_state(whole), final_state(parts)
  assert step == again == 4
  jax.tree.map(np.testing.assert_array_equal, got, want)
  assert train_losses(whole) == train_losses(parts)
  assert len(train_losses(whole)) == 4


def test_a_finished_run_does_nothing(stage_config, tmp_path):
  train.train(stage_config("stage1"), tmp_path / "run")
  before = final_state(tmp_path / "run")
  assert train.train(stage_config("stage1"), tmp_path / "run") == {}
  after = final_state(tmp_path / "run")
  jax.tree.map(np.testing.assert_array_equal, before, after)


def test_another_seed_gives_other_losses(stage_config, tmp_path):
  train.train(stage_config("stage1"), tmp_path / "a")
  train.train(stage_config("stage1", seed=1), tmp_path / "b")
  assert train_losses(tmp_path / "a") != train_losses(tmp_path / "b")


def test_a_loss_that_is_not_finite_names_step_and_records(
  stage_config, tmp_path
):
  config = stage_config(
    "stage1", **{"optimizer.learning_rate": float("inf"), "log_every": 1}
  )
  with pytest.raises(ValueError, match=r"at step=2 must be finite; records"):
    train.train(config, tmp_path / "run")


def test_a_batch_that_does_not_split_is_refused(stage_config, tmp_path):
  with pytest.raises(ValueError, match=r"batch_size=12 must be divisible"):
    train.train(stage_config("stage1", batch_size=12), tmp_path / "run")


def test_accumulation_is_the_mean_over_micro_batches(stage_config, tmp_path):
  # The autoencoder's loss is a mean over examples, so without noise in the
  # latent two halves give the gradient of the whole.
  changes = {"kl_weight": 0.0, "batch_size": 16, "steps": 1}
  losses = []
  for accumulate in (1, 2):
    workdir = tmp_path / str(accumulate)
    config = stage_config("vae", accumulate=accumulate, **changes)
    train.train(config, workdir)
    losses.append(train_losses(workdir)[1])
  # The latents' noise differs between the two; it moves the loss but little.
  np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)


def test_what_a_person_watches_is_written(stage_config, tmp_path):
  train.train(stage_config("stage2"), tmp_path / "run")
  last = metrics.read_metrics(tmp_path / "run")[4]
  for name in (
    "train/loss",
    "train/gradient_norm",
    "watch/learning_rate",
    "watch/samples_per_s",
    "watch/input_wait_share",
    "validation/mse",
    "validation/pairs",
  ):
    assert np.isfinite(last[name]), name
  assert list((tmp_path / "run" / "tensorboard").iterdir())
  config = json.loads((tmp_path / "run" / "config.json").read_text())
  assert config["stage"] == "denoiser"


def test_init_from_starts_with_the_given_weights(chain, stage_config, tmp_path):
  config = stage_config(
    "stage1",
    init_from=str(chain / "stage1"),
    steps=1,
    **{
      "optimizer.learning_rate": 1e-12,
      "optimizer.final_learning_rate": 1e-12,
      "optimizer.weight_decay": 0.0,
    },
  )
  train.train(config, tmp_path / "run")
  _, given = checkpoint.load_weights(chain / "stage1", "base_extractor")
  _, got = checkpoint.load_weights(tmp_path / "run", "base_extractor")
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, given
  )
  wrong = stage_config(
    "stage1", init_from=str(chain / "stage1"), **{"model.depth": 1}
  )
  with pytest.raises(ValueError, match="has other sizes"):
    train.train(wrong, tmp_path / "other")


def test_sigterm_saves_the_step_and_the_same_command_continues(
  stage_config, tmp_path, monkeypatch
):
  add = watch.Watch.add

  def add_and_kill(self, step, scalars, rows):
    add(self, step, scalars, rows)
    if step == 3:
      os.kill(os.getpid(), signal.SIGTERM)

  workdir = tmp_path / "run"
  with monkeypatch.context() as patch:
    patch.setattr(watch.Watch, "add", add_and_kill)
    with pytest.raises(train.Preempted) as stopped:
      train.train(stage_config("stage1"), workdir)
  assert stopped.value.code == train.EXIT_PREEMPTED
  assert final_state(workdir)[0] == 3
  train.train(stage_config("stage1"), workdir)
  whole = tmp_path / "whole"
  train.train(stage_config("stage1"), whole)
  want, got = final_state(whole)[1], final_state(workdir)[1]
  jax.tree.map(np.testing.assert_array_equal, got, want)


def test_the_latents_of_another_autoencoder_are_refused(stage_config, tmp_path):
  train.train(stage_config("vae", seed=5, steps=1), tmp_path / "other")
  config = stage_config("stage1", vae=str(tmp_path / "other"))
  with pytest.raises(ValueError, match="was encoded by autoencoder"):
    train.train(config, tmp_path / "run")
