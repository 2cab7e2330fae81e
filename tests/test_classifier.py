"""Labels by rule, losses by hand, and a smoke training of the classifier."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from data_prep.simulated import prepare
from ecgtwin_jax.evaluation.condition.classifier import ECGClassifier
from ecgtwin_jax.flags import load_config
from ecgtwin_jax.simulator.findings import CONDITIONS
from ecgtwin_jax.stages import classifier
from ecgtwin_jax.text import findings
from ecgtwin_jax.training import train


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
  output = tmp_path_factory.mktemp("data") / "simulated"
  return prepare(output, patients=60, recordings=2, seed=7, workers=1)


@pytest.mark.parametrize(
  ("report", "wanted"),
  [
    (["Sinus rhythm", "Normal ECG"], 0),
    (["sinus rhythm", "normal ECG."], 0),
    (["Sinus bradycardia", "Normal ECG except for rate"], 1),
    (["Sinus rhythm", "Otherwise normal ECG"], 1),
    (["Atrial fibrillation", "Abnormal ECG"], 1),
    (["1st degree A-V block", "Borderline ECG"], -1),
    (["Normal ECG", "Abnormal ECG"], -1),
    (["Possibly abnormal", "Possible normal ECG"], -1),
    (["Sinus rhythm"], -1),
    (["sinus rhythm", "complete right bundle branch block"], 1),
    (["sinus rhythm", "normal ECG"], 0),  # PTB-XL's NORM
    (["Possible inferior infarct"], -1),
    (["sinus rhythm", "Wolf-Parkinson-White syndrome"], 1),
    (["sinus rhythm", "inverted T-waves"], 1),
    (["Sinus rhythm", "Inferior infarct, possibly acute"], 1),
  ],
)
def test_normality_by_rule(report, wanted):
  assert findings.normality(report) == wanted


@pytest.mark.parametrize(
  ("name", "statement", "wanted"),
  [
    ("right_bundle_branch_block", "rbbb", 1),
    ("right_bundle_branch_block", "Incomplete right bundle branch block", 0),
    ("left_bundle_branch_block", "Right bundle branch block", 0),
    ("atrial_premature", "Sinus rhythm with PAC(s).", 1),
    ("atrial_premature", "Ventricular pacing", 0),
    ("pacing", "A-V sequential pacemaker", 1),
    ("acute_infarct", "Inferior infarct, possibly acute", 1),
    ("acute_infarct", "Inferior infarct, age undetermined", 0),
    ("inferior_infarct", "Cannot rule out inferior infarct", -1),
    ("atrial_flutter", "Possible atrial flutter", -1),
    ("first_degree_av_block", "first degree AV block", 1),
    ("first_degree_av_block", "prolonged PR interval", 1),
    ("anterior_infarct", "anteroseptal myocardial infarction", 1),
  ],
)
def test_findings_by_rule(name, statement, wanted):
  assert findings.finding(name, ["Sinus rhythm", statement]) == wanted


def test_each_statement_of_the_simulator_has_its_finding():
  without = {"Sinus rhythm", "Sinus arrhythmia"}
  for statement in CONDITIONS:
    found = [n for n in findings.FINDINGS if findings.finding(n, [statement])]
    summary = statement.endswith("ECG") or "ECG except" in statement
    assert bool(found) != (summary or statement in without), statement
    assert all(findings.finding(n, [statement]) == 1 for n in found)


def test_rows_get_the_labels_of_their_statements():
  table = ("Normal ECG", "Atrial flutter", "Abnormal ECG")
  ids = np.array([[0, -1], [1, 2], [-1, -1], [1, 2]])
  found = findings.label_rows(("abnormal", "atrial_flutter"), table, ids)
  np.testing.assert_array_equal(found, [[0, 0], [1, 1], [-1, 0], [1, 1]])


def test_auroc_by_hand_and_by_sklearn():
  assert (
    findings.auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    == 0.75
  )
  assert findings.auroc(np.ones(4), np.array([0, 1, 0, 1])) == 0.5
  assert np.isnan(findings.auroc(np.ones(2), np.array([1, -1])))
  metrics = pytest.importorskip("sklearn.metrics")
  rng = np.random.default_rng(0)
  scores, answers = rng.integers(0, 9, 53) / 9, rng.integers(0, 2, 53)
  want = metrics.roc_auc_score(answers, scores)
  np.testing.assert_allclose(findings.auroc(scores, answers), want)
  scores = np.append(scores, 100.0)
  answers = np.append(answers, -1)
  np.testing.assert_allclose(findings.auroc(scores, answers), want)


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
