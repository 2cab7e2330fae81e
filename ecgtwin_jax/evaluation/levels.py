"""The levels of a report: what each measures, with what, and its pictures.

LEVELS is the one place that says which figures belong to which level, and
which evaluators they need.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float32, Shaped

from ecgtwin_jax.data.dataset import Dataset, load_split
from ecgtwin_jax.evaluation import (
  counterfactual,
  counterfactuals,
  generate_examples,
  truth,
)
from ecgtwin_jax.evaluation.condition import (
  classifier,
  clip_score,
  criteria,
  heart_rate,
  leakage,
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
from ecgtwin_jax.evaluation.physiology import (
  lead_places,
  physiology,
  variation,
)
from ecgtwin_jax.evaluation.privacy import membership, privacy
from ecgtwin_jax.evaluation.readings import Readings
from ecgtwin_jax.inference.twin import ECGTwin
from ecgtwin_jax.text.statements import StatementTable

if TYPE_CHECKING:
  import matplotlib.figure

_MEMBERS = 200  # patients on each side of membership inference


class Recordings(NamedTuple):
  """Recordings in mV, and whose they are.

  Attributes:
    train: that the twin was trained on.
    unseen: of patients that it was not trained on.
    train_patients: of `train`.
    unseen_patients: of `unseen`.
  """

  train: Float32[np.ndarray, "m 1024 12"]
  unseen: Float32[np.ndarray, "unseen 1024 12"]
  train_patients: Shaped[np.ndarray, " m"]
  unseen_patients: Shaped[np.ndarray, " unseen"]


@dataclasses.dataclass(frozen=True)
class EvaluationContext:
  """What the levels measure, and with what.

  Attributes:
    twin: what is evaluated; None where nothing but its ECGs is at hand.
    examples: real and generated ECGs.
    evaluators: {part: where that evaluator, a network, lies}.
    config: of configs/evaluate.py seed, published_protocol, and what levels
      that ask the twin need.
    table: of the statements; None: that of the evaluators.
    cohort_seed: of simulated patients; None: they are not simulated.
    recordings: that the twin was trained on, and unseen ones; None: of
      config.data.
    data: the data set that the real ECGs are from; None: there is none.
  """

  twin: ECGTwin | None
  examples: Examples
  evaluators: dict[str, str]
  config: object
  table: StatementTable | None = None
  cohort_seed: int | None = None
  recordings: Recordings | None = None
  data: Dataset | None = None

  @functools.cached_property
  def readings(self) -> Readings:
    """The beats of the examples, read once for all levels."""
    return Readings(self.examples)

  @functools.cached_property
  def clip(self) -> ClipSpace:
    """The evaluators' CLIP, which projects each ECG once for all levels."""
    return ClipSpace.load(self.evaluators["clip"], table=self.table)


class Measured(NamedTuple):
  """What a level gives: figures, and by name what draws each picture."""

  metrics: list[Metric]
  pictures: dict[str, Callable[[], "matplotlib.figure.Figure"]]


def measure_fidelity(context: EvaluationContext) -> Measured:
  """Height of the ECGs; with a CLIP their distance from real ones as a set."""
  examples, seed = context.examples, context.config.seed
  amplitudes = amplitude.compute(examples)
  pictures = {"amplitude": functools.partial(amplitude.draw, amplitudes)}
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
  carried = leakage.compute(examples, checked, context.readings)
  metrics += leakage.metrics(carried, seed=seed)
  metrics.append(leakage.rate_metric(examples))
  pictures = {
    "heart_rate": functools.partial(heart_rate.draw, rates),
    "criteria": functools.partial(criteria.draw, checked),
  }
  if context.twin is not None and "rhythm" in context.twin.networks.modules:
    rhythms = rhythm.compute(examples, context.twin.draw_rhythms, seed=seed)
    metrics += rhythm.metrics(rhythms, seed=seed)
    pictures["rhythm"] = functools.partial(rhythm.draw, rhythms)
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
    pictures["classifier"] = functools.partial(classifier.draw, areas)
  else:
    metrics += _without("condition", "classifier")
  return Measured(metrics, pictures)


def measure_physiology(context: EvaluationContext) -> Measured:
  """Intervals, waves, spectra and limb leads, and variation between beats."""
  examples, seed = context.examples, context.config.seed
  result = physiology.compute(examples, context.readings)
  spreads = variation.compute(examples, context.readings, seed=seed)
  places = lead_places.compute(
    context.readings.of("twin"),
    context.readings.of("real"),
    examples.patients,
  )
  metrics = physiology.metrics(result, seed=seed)
  metrics += variation.metrics(spreads, seed=seed)
  metrics += lead_places.metrics(places, seed=seed)
  return Measured(
    metrics,
    {
      "physiology": functools.partial(physiology.draw, result),
      "variation": functools.partial(variation.draw, spreads),
    },
  )


def measure_person(context: EvaluationContext) -> Measured:
  """Base vectors and what they hold; with an identity encoder who is found."""

  def extract(signals, conditions):
    return context.twin.extract_bases(
      generate_examples.as_ecgs(signals), conditions
    )

  examples, seed = context.examples, context.config.seed
  if context.twin is None:
    metrics = [missing("base_similarity", "person", "needs the twin's weights")]
    pictures = {}
  else:
    bases = base_similarity.compute(examples, extract, seed=seed)
    prediction = beat_from_base.compute(
      examples, bases.sets["reference"][:, 0], context.readings
    )
    metrics = base_similarity.metrics(bases, seed=seed)
    metrics += beat_from_base.metrics(prediction, seed=seed)
    pictures = {
      "base_vectors": functools.partial(base_similarity.draw, bases),
      "beat_from_base": functools.partial(beat_from_base.draw, prediction),
    }
  if "identity" in context.evaluators:
    encoder = identification.Identity(context.evaluators["identity"])
    lookups = identification.compute(examples, encoder.embed)
    metrics += identification.metrics(lookups, seed=seed)
    metrics += identification.by_change(examples, lookups, seed=seed)
    pictures["retrieval"] = functools.partial(identification.draw, lookups)
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
    {"counterfactuals": functools.partial(counterfactuals.draw, found)},
  )


def measure_truth(context: EvaluationContext) -> Measured:
  """Distance from the true twin, of simulated patients."""
  seed = context.config.seed
  if context.cohort_seed is None:
    why = "the true twin is known of simulated patients only"
    return Measured([missing("truth", "truth", why)], {})
  patients = truth.find_patients(context.examples, context.cohort_seed)
  comparison = truth.compute(
    context.examples, patients, context.readings, seed=seed
  )
  return Measured(
    truth.metrics(comparison, seed=seed),
    {"true_twins": functools.partial(truth.draw, comparison)},
  )


def measure_privacy(context: EvaluationContext) -> Measured:
  """Nearness to the recordings of the twin's training, and attacks."""
  seed, losses = context.config.seed, None
  recordings = context.recordings
  if recordings is None:
    splits = [
      load_split(context.config.data, split, kind="ecg")
      for split in ("train", "validation")
    ]
    recordings = _draw_recordings(*splits, context.config)
    if context.twin is not None and all(len(split.pairs) for split in splits):
      losses = tuple(
        membership.denoising_losses(
          context.twin,
          split,
          generate_examples.choose(split, _MEMBERS, 1, seed),
          seed=seed,
        )
        for split in splits
      )
  nearness = privacy.compute(
    context.examples,
    recordings.train,
    recordings.unseen,
    train_patients=recordings.train_patients,
    validation_patients=recordings.unseen_patients,
    losses=losses,
    seed=seed,
  )
  return Measured(
    privacy.metrics(nearness, seed=seed),
    {"nearest": functools.partial(privacy.draw, nearness)},
  )


def measure_counterfactual(context: EvaluationContext) -> Measured:
  """Whether changes hold together: there and back, nothing changed, graded."""
  twin, config = context.twin, context.config
  if twin is None:
    why = "needs the twin itself"
    return Measured([missing("composition_uv", "counterfactual", why)], {})
  settings = twin.settings(**config.sampling)

  def generate(signals, now, then, numbers):
    bases = twin.extract_bases(generate_examples.as_ecgs(signals), now)
    seeds = [config.seed + i for i in range(len(bases))]
    rows = twin.generate_rows(bases, then, seeds, numbers, settings)
    return rows.signals.astype(np.float32)

  people = None
  if context.cohort_seed is not None:
    people = truth.find_patients(context.examples, context.cohort_seed)
  found = counterfactual.compute(
    context.examples,
    generate,
    people=people,
    known=twin.statements,
    seed=config.seed,
    **config.counterfactual.to_dict(),
  )
  return Measured(
    counterfactual.metrics(found, seed=config.seed),
    {"counterfactual": functools.partial(counterfactual.draw, found)},
  )


def _draw_recordings(train: Dataset, unseen: Dataset, config) -> Recordings:
  rng = np.random.default_rng([config.seed, 2])
  rows, others = (
    np.sort(rng.permutation(len(split))[: config.training_recordings])
    for split in (train, unseen)
  )
  return Recordings(
    generate_examples.signals_mv(train, rows),
    generate_examples.signals_mv(unseen, others),
    train.patient_number[rows],
    unseen.patient_number[others],
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
  "counterfactual": Level(
    "Counterfactual: do its changes hold together?", measure_counterfactual
  ),
}
