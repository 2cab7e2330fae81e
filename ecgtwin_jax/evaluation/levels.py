"""The levels of a report: what each measures, with what, and its pictures.

LEVELS is the one place that says which figures belong to which level, and
which evaluators they need.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ecgtwin_jax.data.dataset import Dataset, load_split
from ecgtwin_jax.evaluation import counterfactuals, generate_examples, truth
from ecgtwin_jax.evaluation.condition import (
  classifier,
  clip_score,
  criteria,
  heart_rate,
  rhythm,
)
from ecgtwin_jax.evaluation.evaluators.clip import ClipSpace
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.fidelity import amplitude, fidelity
from ecgtwin_jax.evaluation.metric import Metric, missing
from ecgtwin_jax.evaluation.person import (
  base_similarity,
  beat_from_base,
  identification,
)
from ecgtwin_jax.evaluation.physiology import physiology, variation
from ecgtwin_jax.evaluation.privacy import membership, privacy
from ecgtwin_jax.evaluation.readings import Readings
from ecgtwin_jax.inference.twin import ECGTwin

_MEMBERS = 200  # patients on each side of membership inference


@dataclasses.dataclass(frozen=True)
class EvaluationContext:
  """What the levels measure, and with what.

  Attributes:
    twin: what is evaluated.
    data: the data set that the real ECGs are from.
    examples: real and generated ECGs.
    evaluators: {part: where that evaluator, a network, lies}.
    config: configs/evaluate.py.
  """

  twin: ECGTwin
  data: Dataset
  examples: Examples
  evaluators: dict[str, str]
  config: object

  @functools.cached_property
  def readings(self) -> Readings:
    """The beats of the examples, read once for all levels."""
    return Readings(self.examples)

  @functools.cached_property
  def clip(self) -> ClipSpace:
    """The evaluators' CLIP, which projects each ECG once for all levels."""
    return ClipSpace.load(self.evaluators["clip"], table=self.data.table)


class Measured(NamedTuple):
  """What a level gives: figures, and pictures by name."""

  metrics: list[Metric]
  pictures: dict


def measure_fidelity(context: EvaluationContext) -> Measured:
  """Height of the ECGs; with a CLIP their distance from real ones as a set."""
  examples, seed = context.examples, context.config.seed
  amplitudes = amplitude.compute(examples)
  pictures = {"amplitude": amplitude.draw(amplitudes)}
  if "clip" in context.evaluators:
    points = fidelity.compute(
      examples,
      context.clip,
      seed=seed,
      published_protocol=context.config.published_protocol,
    )
    metrics = fidelity.metrics(points, seed=seed)
  else:
    metrics = _without("fidelity", "clip")
  return Measured(metrics + amplitude.metrics(amplitudes, seed=seed), pictures)


def measure_condition(context: EvaluationContext) -> Measured:
  """Rates, rhythms and criteria; a CLIP and a classifier judge, too."""
  examples, seed = context.examples, context.config.seed
  published = context.config.published_protocol
  rates = heart_rate.compute(examples, published_protocol=published)
  checked = criteria.compute(examples, context.readings)
  metrics = heart_rate.metrics(rates, seed=seed)
  metrics += criteria.metrics(checked, seed=seed)
  pictures = {
    "heart_rate": heart_rate.draw(rates),
    "criteria": criteria.draw(checked),
  }
  if "rhythm" in context.twin.networks.modules:
    rhythms = rhythm.compute(examples, context.twin.draw_rhythms, seed=seed)
    metrics += rhythm.metrics(rhythms, seed=seed)
    pictures["rhythm"] = rhythm.draw(rhythms)
  if "clip" in context.evaluators:
    projections = clip_score.compute(
      examples, context.clip, published_protocol=published
    )
    metrics += clip_score.metrics(projections, seed=seed)
  else:
    metrics += _without("condition", "clip")
  if "classifier" in context.evaluators:
    path = context.evaluators["classifier"]
    classify = classifier.ECGClassifier.load(path)
    areas = classifier.compute(examples, classify, seed=seed)
    metrics += classifier.metrics(areas)
    pictures["classifier"] = classifier.draw(areas)
  else:
    metrics += _without("condition", "classifier")
  return Measured(metrics, pictures)


def measure_physiology(context: EvaluationContext) -> Measured:
  """Intervals, waves, spectra and limb leads, and variation between beats."""
  examples, seed = context.examples, context.config.seed
  result = physiology.compute(examples, context.readings)
  spreads = variation.compute(examples, context.readings)
  metrics = physiology.metrics(result, seed=seed)
  metrics += variation.metrics(spreads, seed=seed)
  return Measured(
    metrics,
    {
      "physiology": physiology.draw(result),
      "variation": variation.draw(spreads),
    },
  )


def measure_person(context: EvaluationContext) -> Measured:
  """Base vectors and what they hold; with an identity encoder who is found."""

  def extract(signals, conditions):
    return context.twin.extract_bases(
      generate_examples.as_ecgs(signals), conditions
    )

  examples, seed = context.examples, context.config.seed
  bases = base_similarity.compute(examples, extract, seed=seed)
  prediction = beat_from_base.compute(
    examples, bases.sets["reference"][:, 0], context.readings
  )
  metrics = base_similarity.metrics(bases, seed=seed)
  metrics += beat_from_base.metrics(prediction, seed=seed)
  pictures = {
    "base_vectors": base_similarity.draw(bases),
    "beat_from_base": beat_from_base.draw(prediction),
  }
  if "identity" in context.evaluators:
    encoder = identification.Identity(context.evaluators["identity"])
    lookups = identification.compute(examples, encoder.embed)
    metrics += identification.metrics(lookups, seed=seed)
    pictures["retrieval"] = identification.draw(lookups)
  else:
    metrics += _without("person", "identity")
  return Measured(metrics, pictures)


def measure_counterfactuals(context: EvaluationContext) -> Measured:
  """The patient's own later recordings whose findings differ."""
  examples, data = context.examples, context.data
  row_of = {name: row for row, name in enumerate(data.record_id.tolist())}
  references, targets = (
    np.array([row_of[name] for name in names])
    for names in (examples.reference_ids, examples.real_ids)
  )
  strangers = counterfactuals.find_strangers(data, targets)
  found = counterfactuals.compute(
    examples,
    generate_examples.signals_mv(data, strangers),
    counterfactuals.days_between(data.time[references], data.time[targets]),
    context.readings,
  )
  return Measured(
    counterfactuals.metrics(found, seed=context.config.seed),
    {"counterfactuals": counterfactuals.draw(found)},
  )


def measure_truth(context: EvaluationContext) -> Measured:
  """Distance from the true twin, of simulated patients."""
  card, seed = context.data.card, context.config.seed
  if card["name"] != "simulated":
    why = (
      f"the true twin is known of simulated patients only, not {card['name']}"
    )
    return Measured([missing("truth", "truth", why)], {})
  patients = truth.find_patients(context.examples, card["options"]["seed"])
  comparison = truth.compute(
    context.examples, patients, context.readings, seed=seed
  )
  return Measured(
    truth.metrics(comparison, seed=seed),
    {"true_twins": truth.draw(comparison)},
  )


def measure_privacy(context: EvaluationContext) -> Measured:
  """Nearness to the recordings of the twin's training, and attacks."""
  directory, config = context.config.data, context.config
  train = load_split(directory, "train", kind="ecg")
  unseen = load_split(directory, "validation", kind="ecg")
  limit = config.training_recordings
  rng = np.random.default_rng([config.seed, 2])
  rows = np.sort(rng.permutation(len(train))[:limit])
  others = np.sort(rng.permutation(len(unseen))[:limit])
  losses = tuple(
    membership.denoising_losses(
      context.twin,
      split,
      generate_examples.choose(split, _MEMBERS, 1, config.seed),
      seed=config.seed,
    )
    for split in (train, unseen)
    if len(split.pairs)
  )
  nearness = privacy.compute(
    context.examples,
    generate_examples.signals_mv(train, rows),
    generate_examples.signals_mv(unseen, others),
    train_patients=train.patient_number[rows],
    validation_patients=unseen.patient_number[others],
    losses=losses if len(losses) == 2 else None,
    seed=config.seed,
  )
  return Measured(
    privacy.metrics(nearness, seed=config.seed),
    {"nearest": privacy.draw(nearness)},
  )


def _without(level: str, part: str) -> list[Metric]:
  why = f"no {part}: train one and name it with --config.{part}=DIR"
  return [missing(f"{level}_by_{part}", level, why)]


class Level(NamedTuple):
  """Its title in the report, and what measures it."""

  title: str
  measure: Callable[[EvaluationContext], Measured]


LEVELS = {
  "fidelity": Level("Fidelity: are they like real ECGs?", measure_fidelity),
  "condition": Level(
    "Condition: do they show what was asked for?", measure_condition
  ),
  "physiology": Level(
    "Physiology: intervals, waves, spectra, leads, variation",
    measure_physiology,
  ),
  "person": Level("Person: is it this patient?", measure_person),
  "counterfactuals": Level(
    "Natural counterfactuals: near to the patient's later recording?",
    measure_counterfactuals,
  ),
  "truth": Level("Truth: how far from the patient's true ECG?", measure_truth),
  "privacy": Level("Privacy: does it replay recordings?", measure_privacy),
}
