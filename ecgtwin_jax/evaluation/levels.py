"""The levels of a report: what each measures, with what, and its pictures."""

from typing import NamedTuple

import numpy as np

from ecgtwin_jax.data.dataset import Dataset, load_split
from ecgtwin_jax.evaluation import generate_examples, truth
from ecgtwin_jax.evaluation.condition import (
  classifier,
  clip_score,
  criteria,
  heart_rate,
)
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.fidelity import amplitude, fidelity
from ecgtwin_jax.evaluation.judges.clip import ClipSpace
from ecgtwin_jax.evaluation.metric import Metric, missing
from ecgtwin_jax.evaluation.person import base_similarity, identification
from ecgtwin_jax.evaluation.physiology import physiology
from ecgtwin_jax.evaluation.privacy import membership, privacy
from ecgtwin_jax.inference import batch
from ecgtwin_jax.inference.twin import ECGTwin

_MEMBERS = 200  # patients on each side of membership inference


class Bench(NamedTuple):
  """What the levels measure, and with what.

  Attributes:
    twin: what is evaluated.
    data: where the real ECGs are from.
    examples: real and generated ECGs.
    evaluators: {part: where that judging network lies}.
    config: configs/evaluate.py.
  """

  twin: ECGTwin
  data: Dataset
  examples: Examples
  evaluators: dict[str, str]
  config: object


class Measured(NamedTuple):
  """What a level gives: figures, and pictures by name."""

  metrics: list[Metric]
  pictures: dict


def measure_fidelity(bench: Bench) -> Measured:
  if "clip" not in bench.evaluators:
    return _without("fidelity", "clip")
  metrics = fidelity.measure(
    bench.examples,
    _clip_space(bench),
    seed=bench.config.seed,
    published_protocol=bench.config.published_protocol,
  )
  metrics += amplitude.measure(bench.examples, seed=bench.config.seed)
  return Measured(metrics, {"amplitude": amplitude.draw(bench.examples)})


def measure_condition(bench: Bench) -> Measured:
  seed, published = bench.config.seed, bench.config.published_protocol
  examples = bench.examples
  rates = heart_rate.find_rates(examples, published_protocol=published)
  metrics = heart_rate.measure(
    examples, seed=seed, published_protocol=published, rates=rates
  )
  pictures = {"heart_rate": heart_rate.draw(rates)}
  checked = criteria.check_all(examples)
  metrics += criteria.measure(examples, seed=seed, checked=checked)
  pictures["criteria"] = criteria.draw(checked)
  if "clip" in bench.evaluators:
    metrics += clip_score.measure(
      examples, _clip_space(bench), seed=seed, published_protocol=published
    )
  else:
    metrics += _without("condition", "clip").metrics
  if "classifier" in bench.evaluators:
    classify = classifier.ECGClassifier.load(bench.evaluators["classifier"])
    own = classifier.measure(examples, classify, seed=seed)
    pictures["classifier"] = classifier.draw(own)
    metrics += own
  else:
    metrics += _without("condition", "classifier").metrics
  return Measured(metrics, pictures)


def measure_physiology(bench: Bench) -> Measured:
  beats = physiology.measure_beats(bench.examples)
  metrics = physiology.measure(
    bench.examples, seed=bench.config.seed, beats=beats
  )
  return Measured(metrics, {"physiology": physiology.draw(beats)})


def measure_person(bench: Bench) -> Measured:
  def extract(signals, conditions):
    return batch.extract_bases(
      bench.twin, generate_examples.as_ecgs(signals), conditions
    )

  examples, seed = bench.examples, bench.config.seed
  bases = base_similarity.extract_bases(examples, extract)
  metrics = base_similarity.measure(examples, extract, seed=seed, bases=bases)
  pictures = {"base_vectors": base_similarity.draw(bases, examples.patients)}
  if "identity" in bench.evaluators:
    embed = identification.Identity(bench.evaluators["identity"]).embed
    metrics += identification.measure(examples, embed, seed=seed)
    pictures["retrieval"] = identification.draw(examples, embed)
  else:
    metrics += _without("person", "identity").metrics
  return Measured(metrics, pictures)


def measure_truth(bench: Bench) -> Measured:
  card = bench.data.card
  if card["name"] != "simulated":
    why = (
      f"the true twin is known of simulated patients only, not {card['name']}"
    )
    return Measured([missing("truth", "truth", why)], {})
  patients = truth.find_patients(bench.examples, card["options"]["seed"])
  metrics = truth.measure(bench.examples, patients, seed=bench.config.seed)
  pictures = {"true_twins": truth.draw(bench.examples, patients)}
  return Measured(metrics, pictures)


def measure_privacy(bench: Bench) -> Measured:
  directory, config = bench.config.data, bench.config
  train = load_split(directory, "train", kind="ecg")
  unseen = load_split(directory, "validation", kind="ecg")
  limit = config.training_recordings
  rng = np.random.default_rng([config.seed, 2])
  rows = np.sort(rng.permutation(len(train))[:limit])
  others = np.sort(rng.permutation(len(unseen))[:limit])
  signals = (
    generate_examples.signals_mv(train, rows),
    generate_examples.signals_mv(unseen, others),
  )
  found = privacy.find(
    bench.examples,
    *signals,
    train_patients=train.patient_number[rows],
    validation_patients=unseen.patient_number[others],
    seed=config.seed,
  )
  losses = tuple(
    membership.denoising_losses(
      bench.twin,
      split,
      generate_examples.choose(split, _MEMBERS, 1, config.seed),
      seed=config.seed,
    )
    for split in (train, unseen)
    if len(split.pairs)
  )
  metrics = privacy.measure(
    bench.examples,
    *signals,
    losses=losses if len(losses) == 2 else None,
    seed=config.seed,
    found=found,
  )
  return Measured(metrics, {"nearest": privacy.draw(found)})


def _clip_space(bench: Bench) -> ClipSpace:
  return ClipSpace.load(bench.evaluators["clip"], table=bench.data.table)


def _without(level: str, part: str) -> Measured:
  why = f"no {part}: train one and name it with --config.{part}=DIR"
  return Measured([missing(f"{level}_by_{part}", level, why)], {})


MEASURES = {
  "fidelity": measure_fidelity,
  "condition": measure_condition,
  "physiology": measure_physiology,
  "person": measure_person,
  "truth": measure_truth,
  "privacy": measure_privacy,
}
