"""Classifiers of ECGs: normal or abnormal, or a report's findings.

`binary` tells normal (0) from abnormal (1) by two logits and cross-entropy.
`multilabel` tells each of text/findings.py's LABELS by a logit of its own.
What a report leaves unclear is left out of loss and scores.

Batches:

  ecg     (b, 1024, 12)  mV
  index   (b,)           row of the split
  labels  (b, labels)    1, 0, or -1 where unclear
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jaxtyping import Array, Float, Int

from ecgtwin_jax.constants import MODEL_SAMPLES
from ecgtwin_jax.data import pipeline
from ecgtwin_jax.data.dataset import Dataset
from ecgtwin_jax.models.classifier import Classifier
from ecgtwin_jax.stages import Batch, Config, Tree, splits
from ecgtwin_jax.text import findings

NAMES = {
  "binary": ("abnormal",),
  "multilabel": tuple(findings.LABELS),
}


class Labelled(NamedTuple):
  """Recordings and the labels that their reports give, a row each."""

  train: Dataset
  validation: Dataset
  train_labels: np.ndarray
  validation_labels: np.ndarray

  @property
  def fingerprint(self) -> str:
    """Identifies the training data, to be compared on resume."""
    return self.train.card["fingerprint"]

  def names(self, rows: np.ndarray) -> list[str]:
    """Names of the training records in these rows."""
    return self.train.record_names(rows)


def label_names(config: Config) -> tuple[str, ...]:
  """What the classifier of config.mode tells.

  Raises:
    ValueError: no such mode.
  """
  if config.mode not in NAMES:
    raise ValueError(f"{config.mode=} must be one of {', '.join(NAMES)}")
  return NAMES[config.mode]


def load_data(config: Config) -> Labelled:
  """Reads the recordings, labels them and says how many are unclear.

  Raises:
    ValueError: a data set that does not fit, or without one of the two classes.
  """
  names = label_names(config)
  data = splits.skip_unreported(splits.load_splits(config.data, "ecg"))
  labels = [
    findings.label_rows(names, split.table.statements, split.statement_ids)
    for split in data
  ]
  first = labels[0][:, 0]
  if len(set(first.tolist()) - {findings.UNCLEAR}) < 2:
    raise ValueError(
      f"{config.data!r} must hold ECGs that their reports call normal, and "
      "some that they call abnormal"
    )
  if jax.process_index() == 0:
    for split, rows in zip(data, labels):
      print(describe_labels(split.split, names, rows), flush=True)
  return Labelled(*data, *labels)


def describe_labels(split: str, names: Sequence[str], rows: np.ndarray) -> str:
  """One line: how many recordings have and lack each label."""
  counts = ", ".join(
    f"{name} {int((column == 1).sum())}" for name, column in zip(names, rows.T)
  )
  unclear = int((rows[:, 0] == findings.UNCLEAR).sum())
  return (
    f"{split}: of {len(rows)} recordings: {counts}; {names[0]} or "
    f"not is unclear: {unclear}"
  )


def load_frozen(config: Config, data: Any) -> dict:
  del config, data
  return {}


def hyper(config: Config, data: Any) -> dict:
  del data
  return {
    "part": "classifier",
    "mode": config.mode,
    "labels": label_names(config),
    "model": {**config.model.to_dict(), "outputs": outputs(config)},
  }


def outputs(config: Config) -> int:
  """Number of logits."""
  return 2 if config.mode == "binary" else len(label_names(config))


def batches(
  config: Config, data: Any, start: int, process_index: int, process_count: int
) -> Iterator[Batch]:
  ecgs = pipeline.ecg_batches(
    data.train,
    config.batch_size,
    config.seed,
    process_index=process_index,
    process_count=process_count,
    start_step=start,
  )
  try:
    for batch in ecgs:
      yield {**batch, "labels": data.train_labels[batch["index"]]}
  finally:
    ecgs.close()


def make_module(config: Config) -> Classifier:
  return Classifier(
    outputs(config),
    **config.model,
    remat=config.remat,
    dtype=jnp.dtype(config.precision),
  )


def init(rng: Array, config: Config) -> tuple[Tree, Tree]:
  variables = dict(
    make_module(config).init(rng, jnp.zeros((1, MODEL_SAMPLES, 12)))
  )
  return variables.pop("params"), variables


def losses(
  mode: str,
  logits: Float[Array, "b outputs"],
  labels: Int[Array, "b labels"],
  class_weights: tuple[float, float],
) -> tuple[Float[jax.Array, "b labels"], Float[jax.Array, "b labels"]]:
  """Cross-entropy of each label, and its weight: 0 where it is unclear.

  binary: -log softmax(logits)[label]; multilabel: that of a sigmoid each. The
  loss is the weighted mean, sum(w l) / sum(w).

  Args:
    mode: "binary" or "multilabel".
    logits: raw, not probabilities.
    labels: 1, 0 or -1.
    class_weights: weights of label 0 and of label 1.
  """
  known = jnp.maximum(labels, 0)
  if mode == "binary":
    each = optax.softmax_cross_entropy_with_integer_labels(logits, known[:, 0])
    each = each[:, None]
  else:
    each = optax.sigmoid_binary_cross_entropy(
      logits, known.astype(logits.dtype)
    )
  weights = jnp.asarray(class_weights, jnp.float32)[known]
  return each, jnp.where(labels >= 0, weights, 0.0)


def loss(
  config: Config,
  params: Tree,
  model_state: Tree,
  frozen: Tree,
  batch: Batch,
  rng: Array,
) -> tuple[Array, tuple[Tree, dict[str, Array]]]:
  """Weighted mean of `losses` over a batch."""
  del frozen
  logits, model_state = make_module(config).apply(
    {"params": params, **model_state},
    batch["ecg"],
    train=True,
    mutable=["batch_stats"],
    rngs={"dropout": rng},
  )
  each, weights = losses(
    config.mode, logits, batch["labels"], config.class_weights
  )
  mean = (each * weights).sum() / jnp.maximum(weights.sum(), 1.0)
  return mean, (model_state, {"labelled": (weights > 0).mean()})


@functools.partial(jax.jit, static_argnums=0)
def _evaluate_batch(config, weights, batch):
  variables = {"params": weights["params"], **weights["model_state"]}
  logits = make_module(config).apply(variables, batch["ecg"])
  each, w = losses(config.mode, logits, batch["labels"], config.class_weights)
  w = w * batch["valid"][:, None]
  return (each * w).sum(), w.sum(), scores(config.mode, logits)


def scores(
  mode: str, logits: Float[Array, "b outputs"]
) -> Float[jax.Array, "b labels"]:
  """Probabilities of label 1, a column per label."""
  if mode == "binary":
    return jax.nn.softmax(logits)[:, 1:]
  return jax.nn.sigmoid(logits)


def evaluate(
  config: Config, data: Any, frozen: Tree, weights: Tree, put: Callable
) -> dict:
  """Loss and areas under the ROC curve on held-out patients."""
  del frozen
  total, weight, found, known = 0.0, 0.0, [], []
  for batch in pipeline.eval_ecg_batches(
    data.validation,
    config.batch_size,
    limit=config.eval_records,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  ):
    labels = data.validation_labels[batch["index"]]
    labels[~batch["valid"]] = findings.UNCLEAR
    placed = put({**batch, "labels": labels})
    part, part_weight, given = _evaluate_batch(config, weights, placed)
    total, weight = total + float(part), weight + float(part_weight)
    gather = functools.partial(multihost_utils.process_allgather, tiled=True)
    found.append(np.asarray(gather(given)))
    known.append(np.asarray(gather(placed["labels"])))
  if not weight:
    return {"recordings": 0}
  found, known = np.concatenate(found), np.concatenate(known)
  areas = {
    f"auroc_{name}": findings.auroc(column, answer)
    for name, column, answer in zip(label_names(config), found.T, known.T)
  }
  areas = {name: area for name, area in areas.items() if np.isfinite(area)}
  mean = {"auroc": float(np.mean(list(areas.values())))} if areas else {}
  return {
    "loss": total / weight,
    **mean,
    **(areas if len(areas) > 1 else {}),
    "recordings": int((known >= 0).any(axis=1).sum()),
    "score": total / weight,
  }
