"""Losses by hand, and a smoke training of the classifier."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from data_prep.simulated import prepare
from ecgtwin_jax.evaluation.condition.classifier import ECGClassifier
from ecgtwin_jax.flags import load_config
from ecgtwin_jax.stages import classifier
from ecgtwin_jax.training import train


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
  output = tmp_path_factory.mktemp("data") / "simulated"
  return prepare(output, patients=60, recordings=2, seed=7, workers=1)


def test_binary_losses_by_hand():
  logits = jnp.array([[2.0, 0.0], [0.0, 1.0], [5.0, -5.0]])
  each, weights = classifier.losses(
    "binary", logits, jnp.array([[0], [1], [-1]]), (2.0, 1.0)
  )
  want = [np.log(1 + np.exp(-2)), np.log(1 + np.exp(-1))]
  np.testing.assert_allclose(each[:2, 0], want, rtol=1e-6)
  np.testing.assert_array_equal(weights[:, 0], [2, 1, 0])


def test_multilabel_losses_by_hand():
  logits = jnp.array([[2.0, -1.0, 3.0]])
  each, weights = classifier.losses(
    "multilabel", logits, jnp.array([[1, 0, -1]]), (1.0, 1.0)
  )
  want = [np.log(1 + np.exp(-2)), np.log(1 + np.exp(-1))]
  np.testing.assert_allclose(each[0, :2], want, rtol=1e-6)
  np.testing.assert_array_equal(weights, [[1, 1, 0]])


def test_the_published_sizes():
  config = ml_collections.FrozenConfigDict(
    load_config("configs/classifier.py:paper")
  )
  params, state = jax.eval_shape(
    lambda: classifier.init(jax.random.key(0), config)
  )
  assert params["head"]["kernel"].shape == (512, 2)
  assert sum(name.startswith("stage_") for name in params["resnet"]) == 9
  assert set(state) == {"batch_stats"}
  assert (config.batch_size, config.class_weights) == (256, (2.0, 1.0))


def test_an_unknown_mode_is_refused():
  config = load_config("configs/classifier.py:smoke")
  config.mode = "ternary"
  with pytest.raises(ValueError, match=r"ternary.*binary"):
    classifier.load_data(config)


@pytest.mark.parametrize("mode", ["binary", "multilabel"])
def test_trains_and_is_read_again(mode, cohort, tmp_path, capsys):
  config = load_config("configs/classifier.py:smoke")
  config.data, config.mode = str(cohort), mode
  config.workdir = str(tmp_path / "run")
  found = train.train(config, config.workdir)
  assert np.isfinite(found["loss"]) and 0 <= found["auroc"] <= 1
  assert "abnormal or not is unclear:" in capsys.readouterr().out
  loaded = ECGClassifier.load(config.workdir)
  assert loaded.mode == mode and loaded.labels == classifier.NAMES[mode]
  signals = np.random.default_rng(0).normal(size=(67, 1024, 12))
  probabilities = loaded(signals.astype(np.float32))
  assert probabilities.shape == (67, len(loaded.labels))
  assert (probabilities > 0).all() and (probabilities < 1).all()
  again = loaded(signals[64:].astype(np.float32))
  np.testing.assert_allclose(probabilities[64:], again, atol=1e-6)


def test_an_unclear_label_has_no_gradient():
  config = ml_collections.FrozenConfigDict(
    load_config("configs/classifier.py:smoke")
  )
  with_label = jnp.zeros((3, len(classifier.label_names(config))), jnp.int8)
  logits = jax.random.normal(jax.random.key(0), with_label.shape)

  def mean(logits, rows):
    each, weights = classifier.losses(
      config.mode, logits, rows, config.class_weights
    )
    return (each * weights).sum() / weights.sum()

  gradient = jax.grad(mean)(logits, with_label.at[1, 2].set(-1))
  assert gradient[1, 2] == 0 and (gradient[0] != 0).all()
