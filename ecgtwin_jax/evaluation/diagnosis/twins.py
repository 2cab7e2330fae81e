"""One patient's diagnosis: twins, fine-tuning on them, classification."""

import os
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from ecgtwin_jax.data.dataset import Dataset
from ecgtwin_jax.data.ecg import ECG, MODEL_RATE
from ecgtwin_jax.evaluation.condition.classifier import ECGClassifier, predict
from ecgtwin_jax.evaluation.diagnosis import fine_tuning, prompts
from ecgtwin_jax.evaluation.diagnosis.patients import Person, number_of
from ecgtwin_jax.evaluation.generate_examples import read_condition, signals_mv
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.inference.sampling import Settings
from ecgtwin_jax.inference.twin import ECGTwin

_DIGITS = 6  # of probabilities


class DiagnosisContext(NamedTuple):
  """What patients are diagnosed with."""

  twin: ECGTwin
  classifier: ECGClassifier
  prompts: list[prompts.Prompt]
  sampling: dict
  tuning: FrozenConfigDict
  seed: int


def make_twins(
  context: DiagnosisContext, data: Dataset, people: list[Person]
) -> np.ndarray:
  """Twins of several people from their references, (people, n, 1024, 12) mV."""
  now = [read_condition(data, person.reference) for person in people]
  rows = np.array([person.reference for person in people])
  references = [ECG(x, MODEL_RATE) for x in signals_mv(data, rows)]
  conditions, seeds = [], []
  for person, condition in zip(people, now):
    seed = number_of(context.seed, person.patient)
    rng = np.random.default_rng(seed)
    drawn = prompts.draw_conditions(
      context.prompts, condition.age, condition.sex, rng
    )
    conditions.append(drawn)
    seeds.append(seed)
  n = len(conditions[0])
  bases = context.twin.extract_bases(references, now)
  signals = context.twin.generate_rows(
    np.repeat(bases, n, axis=0),
    [condition for drawn in conditions for condition in drawn],
    np.repeat(seeds, n).tolist(),
    list(range(n)) * len(people),
    Settings(**context.sampling),
  ).signals
  return signals.reshape(len(people), n, *signals.shape[1:])


def classify_after_tuning(
  context: DiagnosisContext,
  twins: np.ndarray,
  labels: np.ndarray,
  seed: int,
  tests: dict[str, np.ndarray],
) -> tuple[dict[str, list], str]:
  """Fine-tunes on twins, and classifies recordings after each step.

  Args:
    context: what holds the population's classifier.
    twins: (n, 1024, 12) mV, all there is to learn from.
    labels: 0 normal or 1 abnormal, of each twin.
    seed: what the fine-tuning draws from.
    tests: {name: recordings in mV}.

  Returns:
    {name: per recording the probability of abnormal before fine-tuning and
    after each step}, and a digest of the final weights.
  """
  module, start = context.classifier.module, context.classifier.variables
  signals = np.concatenate(list(tests.values()))
  scores = [predict(module, "binary", start, signals)[:, 0]]
  for variables in fine_tuning.tune(
    module, start, twins, labels, context.tuning, seed
  ):
    scores.append(predict(module, "binary", variables, signals)[:, 0])
  digest = twin_directory.digest(jax.tree.map(np.asarray, variables))[:16]
  rows = np.round(np.stack(scores, axis=1).astype(float), _DIGITS)
  ends = np.cumsum([len(recordings) for recordings in tests.values()])[:-1]
  parts = [part.tolist() for part in np.split(rows, ends)]
  return dict(zip(tests, parts)), digest


def load_binary(config: ConfigDict) -> ECGClassifier:
  """The population's classifier.

  Raises:
    ValueError: it is not there, or tells findings.
  """
  command = (
    "python -m ecgtwin_jax.main --config=configs/classifier.py:small "
    "--config.mode=binary --workdir="
  )
  if not os.path.exists(config.classifier):
    raise ValueError(
      f"config.classifier={config.classifier!r} is missing; train it with: "
      f"{command}{config.classifier}"
    )
  classifier = ECGClassifier.load(config.classifier)
  if classifier.mode != "binary":
    raise ValueError(
      f"config.classifier={config.classifier!r} is {classifier.mode}, but must "
      f"tell normal from abnormal: {command}DIR"
    )
  return classifier
