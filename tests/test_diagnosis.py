"""Personalised diagnosis: prompts, figures by hand, no leak, resume."""

import collections
import json
import shutil
import types
import warnings

import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from data_prep.simulated import prepare
from ecgtwin_jax.data.dataset import load_split
from ecgtwin_jax.evaluation.diagnosis import (
  fine_tuning,
  prompts,
  report,
  synthetic_training,
  twins,
)
from ecgtwin_jax.evaluation.diagnosis import (
  job as job_module,
)
from ecgtwin_jax.evaluation.diagnosis.patients import find_people
from ecgtwin_jax.flags import load_config
from ecgtwin_jax.inference.results import Rows
from ecgtwin_jax.inference.twin import ECGTwin
from ecgtwin_jax.models.classifier import Classifier
from ecgtwin_jax.simulator.simulate import CONDITIONS
from ecgtwin_jax.training import train
from ecgtwin_jax.training.json_lines import read_lines


def test_the_published_prompts():
  counts = collections.Counter(prompts.labels_of(prompts.PROMPTS))
  assert counts == {0: 640, 1: 640}
  rng = np.random.default_rng(0)
  made = prompts.draw_conditions(prompts.PROMPTS, 110.0, "F", rng)
  assert len(made) == 1280
  first = [c.heart_rate for c in made[:128]]
  assert (min(first), max(first)) == (60, 79)
  assert {c.age for c in made} == set(range(110, 121))
  assert len(prompts.PROMPTS[12].statements) == 5
  (one, *_) = prompts.draw_conditions(prompts.PROMPTS, None, None, rng)
  assert one.age is None and one.sex is None


def test_prompts_are_translated_by_meaning_then_by_spelling():
  made, replaced = prompts.translate(prompts.PROMPTS, tuple(CONDITIONS))
  assert made[0].statements == ("Sinus rhythm", "Normal ECG")
  assert made[7].statements == ("Right bundle branch block", "Abnormal ECG")
  assert made[8].statements[1] == "Ventricular premature complex"
  assert "normal ECG." not in replaced  # the same but for case and stop
  assert replaced["rbbb"] == ("Right bundle branch block",)
  assert {s for p in made for s in p.statements} <= set(CONDITIONS)
  odd = [prompts.Prompt(("Sinus rythm",), 70.0, 0, 1)]
  (nearest,), replaced = prompts.translate(odd, ("Sinus rhythm", "Flutter"))
  assert nearest.statements == ("Sinus rhythm",) and len(replaced) == 1
  assert prompts.translate(odd, ()) == (odd, {})


def test_counts_are_scaled_by_a_factor():
  scaled = prompts.scale_counts(prompts.PROMPTS, 0.05)
  assert [p.count for p in scaled] == [6] * 5 + [3] * 10
  with pytest.raises(ValueError, match="positive"):
    prompts.scale_counts(prompts.PROMPTS, 0.0)


def test_measures_by_hand_and_by_sklearn():
  scores = np.array([0.9, 0.2, 0.6, 0.4, 0.7])
  labels = np.array([1, 0, 0, 1, 1])
  assert report.accuracy(scores, labels) == 0.6
  want = (2 * 2 / 6 + 2 * 1 / 4) / 2
  assert report.macro_f1(scores, labels) == pytest.approx(want)
  assert report.macro_f1(np.ones(3), np.ones(3, int)) == 1
  metrics = pytest.importorskip("sklearn.metrics")
  assert metrics.f1_score(labels, scores > 0.5, average="macro") == (
    pytest.approx(want)
  )


def outcome(own, stranger, labels):
  patients = np.repeat([f"p{i}" for i in range(len(labels) // 2)], 2)
  return report.Predictions(
    patients,
    patients,
    labels,
    {"own": own, "stranger": stranger, "crowd": stranger},
  )


def test_a_perfect_own_twin_is_found_and_a_useless_one_is_not():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 2, 80)
  guess = rng.random((80, 3))
  perfect = np.stack([guess[:, 0], labels, 1 - labels], axis=1) * 0.98 + 0.01
  data = outcome(perfect, guess, labels)
  found = {m.name: m for m in report.measure(data, data)}
  assert found["diagnosis_own_accuracy"].value == 1
  assert "step 1" in found["diagnosis_own_accuracy"].note
  assert found["diagnosis_own_whole_pass_accuracy"].value == 0
  gain = found["diagnosis_own_minus_stranger_auroc"]
  assert gain.low > 0.2
  assert abs(found["diagnosis_population_auroc"].value - 0.5) < 0.2
  per_patient = found["diagnosis_own_auroc_per_patient"]
  assert per_patient.value == 1 and per_patient.n < 40
  assert "failed" in per_patient.note
  baseline = found["diagnosis_own_accuracy"].baseline
  assert baseline == pytest.approx(max(labels.mean(), 1 - labels.mean()))

  same = outcome(guess, guess, labels)
  found = {m.name: m for m in report.measure(same, same)}
  gain = found["diagnosis_own_minus_stranger_auroc"]
  assert gain.value == gain.low == gain.high == 0
  assert len(report.draw(list(found.values())).axes) == 6


def test_the_step_is_chosen_on_validation_alone():
  labels = np.tile([0, 1], 20)
  bad, good = np.full(40, 0.5), np.where(labels == 1, 0.9, 0.1)
  validation = outcome(np.stack([bad, bad, good], 1), bad[:, None], labels)
  validation = validation._replace(
    scores=dict.fromkeys(("own", "stranger", "crowd"), validation.scores["own"])
  )
  test = validation._replace(
    scores=dict.fromkeys(
      ("own", "stranger", "crowd"), np.stack([bad, good, bad], 1)
    )
  )
  chosen, steps = report.choose_scores(validation, test)
  assert steps["own"] == 2
  np.testing.assert_array_equal(chosen["own"], bad)


def test_mixing_replaces_the_share_and_keeps_the_places():
  real, synthetic = np.zeros((20, 2)), np.ones((20, 2))
  fewer = synthetic_training.mix(real, synthetic, 0.25, seed=3)
  more = synthetic_training.mix(real, synthetic, 0.5, seed=3)
  assert fewer[:, 0].sum() == 5 and more[:, 0].sum() == 10
  assert (more >= fewer).all() and not real.any()


def test_steps_of_a_pass():
  assert fine_tuning.count_steps(1280, 256, 1) == (5, 256)
  assert fine_tuning.count_steps(64, 256, 2) == (2, 64)
  assert fine_tuning.count_steps(61, 30, 1) == (3, 20)


def test_fine_tuning_learns_what_twins_show():
  import jax
  import jax.numpy as jnp

  config = load_config("configs/diagnose.py:smoke")
  settings = config.fine_tuning
  with settings.ignore_type():
    settings.passes, settings.optimizer.learning_rate = 6, 1e-2
  module = Classifier(2, (16,), (1,), kernel=3, dropout=0.0)
  start = dict(module.init(jax.random.key(0), jnp.zeros((1, 1024, 12))))
  rng = np.random.default_rng(0)
  labels = np.arange(16) % 2
  signals = rng.normal(size=(16, 1024, 12)) * (1 + 2.0 * labels)[:, None, None]
  steps = list(
    fine_tuning.tune(
      module,
      start,
      signals.astype(np.float32),
      labels,
      FrozenConfigDict(settings),
      0,
    )
  )
  assert len(steps) == 12
  mode = "binary"
  after = twins.predict(module, mode, steps[-1], signals.astype(np.float32))
  wrong = np.abs(after[:, 0] - labels).mean()
  before = twins.predict(module, mode, start, signals.astype(np.float32))
  assert wrong < np.abs(before[:, 0] - labels).mean()


# A whole job, small.


class Toy(ECGTwin):
  """A twin of which the job sees these attributes alone."""

  statements = tuple(CONDITIONS)

  def __init__(self):
    self.digest = "toy"
    self.hyper = {"denoiser": {}}
    denoiser = types.SimpleNamespace(null_condition=True)
    self.networks = types.SimpleNamespace(modules={"denoiser": denoiser})


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
  output = tmp_path_factory.mktemp("data") / "simulated"
  return prepare(output, patients=60, recordings=3, seed=7, workers=1)


@pytest.fixture(scope="module")
def classifier(cohort, tmp_path_factory):
  config = load_config("configs/classifier.py:smoke")
  config.mode, config.data = "binary", str(cohort)
  config.workdir = str(tmp_path_factory.mktemp("normality"))
  train.train(config, config.workdir)
  return config.workdir


@pytest.fixture
def job(cohort, classifier, tmp_path, monkeypatch):
  """Returns run(name, **changes) -> the finished job's folder."""

  def generate(twin, bases, conditions, seeds, numbers, settings):
    rows = []
    for base, seed, number in zip(bases, seeds, numbers):
      rng = np.random.default_rng([seed, number])
      rows.append(rng.normal(base[0], 1, (1024, 12)))
    return Rows(np.array(rows, np.float32), None, None)

  def extract(twin, references, conditions):
    return np.array([[ecg.signal.std()] for ecg in references])

  monkeypatch.setattr(job_module, "load_twin", lambda path: Toy())
  monkeypatch.setattr(Toy, "generate_rows", generate)
  monkeypatch.setattr(Toy, "extract_bases", extract)

  def run(name, **changes):
    config = load_config("configs/diagnose.py:smoke")
    config.data, config.classifier = str(cohort), classifier
    config.workdir = str(tmp_path / name)
    with config.ignore_type():
      config.update_from_flattened_dict(changes)
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter("always")
      job_module.run(config)
    assert [w for w in caught if "not known to the twin" in str(w.message)]
    return tmp_path / name

  return run


def read(folder):
  return {
    name: (folder / name).read_bytes()
    for name in ("metrics.json", "diagnosis.csv", "recordings.csv")
  }


def test_a_stopped_job_goes_on_to_the_same_files(job, tmp_path):
  whole = job("whole")
  lines = (whole / job_module.LINES).read_text().splitlines()
  assert len(lines) == 5
  part = tmp_path / "part"
  shutil.copytree(whole, part)
  cut = "\n".join([*lines[:3], lines[3][:40]])
  (part / job_module.LINES).write_text(cut)
  shares = (part / synthetic_training.LINES).read_text().splitlines()
  (part / synthetic_training.LINES).write_text(shares[0] + "\n{")
  for name in read(whole):
    (part / name).unlink()
  job("part")
  assert read(part) == read(whole)
  again = (part / job_module.LINES).read_text().splitlines()
  assert len(again) == 6 and sorted(again[:3] + again[4:]) == sorted(lines)
  found = json.loads((whole / "metrics.json").read_text())["metrics"]
  names = [metric["name"] for metric in found]
  assert len(set(names)) == len(names)
  assert "diagnosis_trained_100_percent_synthetic_on_real_auroc" in names
  assert {metric["level"] for metric in found} == {"diagnosis"}
  for name in ("diagnosis.png", "example.png", "notes.txt"):
    assert (whole / name).stat().st_size
  with pytest.raises(ValueError, match="name another workdir"):
    job("whole", seed=1)


def test_later_recordings_have_no_part_in_fine_tuning(job, monkeypatch):
  none = {"synthetic.shares": ()}
  monkeypatch.setattr(report, "write", lambda *_: [])
  before = read_lines(job("before", **none) / job_module.LINES)

  def turned(directory, split, **options):
    data = load_split(directory, split, **options)
    people, _ = find_people(data, 100, 0)
    later = np.concatenate([person.tests for person in people])
    data.arrays["ecg"][later] *= -1
    return data

  monkeypatch.setattr(job_module, "load_split", turned)
  after = read_lines(job("after", **none) / job_module.LINES)
  for line, other in zip(before, after, strict=True):
    assert other["patient"] == line["patient"]
    assert other["weights"] == line["weights"]
    assert other["scores"] != line["scores"]
  # While the first recording, of which the twins are made, does count.
  weights = [line["weights"] for line in before]
  assert len(set(weights)) == len(weights)


def test_people_have_a_first_recording_and_later_labelled_ones(cohort):
  data = load_split(cohort, "test", kind="ecg")
  people, unclear = find_people(data, 100, 0)
  for person in people:
    rows = np.flatnonzero(data.patient_id == person.patient)
    assert data.time[person.reference] == data.time[rows].min()
    assert person.reference not in person.tests
    assert set(person.tests) <= set(rows) and set(person.labels) <= {0, 1}
  assert sum(len(p.tests) for p in people) + unclear <= 2 * 6
  fewer, _ = find_people(data, 2, 0)
  assert len(fewer) == 2


def test_a_classifier_of_another_kind_is_refused(tmp_path):
  config = load_config("configs/diagnose.py:smoke")
  config.classifier = str(tmp_path / "none")
  with pytest.raises(ValueError, match="mode=binary"):
    twins.load_binary(config)
