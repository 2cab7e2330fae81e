"""The evaluation's ECG-text CLIP: which report belongs to which ECG.

Batches:

  ecg            (b, 1024, 12)  mV
  index          (b,)           row of the split
  statement_ids  (b, s)         rows of the table, -1 is padding
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ecgtwin_jax.constants import MODEL_SAMPLES
from ecgtwin_jax.data import pipeline
from ecgtwin_jax.models.base_extractor import contrastive_logits
from ecgtwin_jax.models.clip import CLIP
from ecgtwin_jax.stages import Batch, Config, Tree, splits
from ecgtwin_jax.stages.losses import contrastive_losses


def load_data(config: Config) -> splits.Splits:
  return splits.skip_unreported(splits.load_splits(config.data, "ecg"))


def load_frozen(config: Config, data: Any) -> dict:
  del config
  return {"table": data.train.table.embeddings}


def hyper(config: Config, data: Any) -> dict:
  return {
    "part": "clip",
    "model": config.model.to_dict(),
    "statement_encoder": data.train.table.encoder,
  }


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
      yield _with_report(data.train, batch)
  finally:
    ecgs.close()


def _with_report(dataset, batch: dict) -> dict:
  return {**batch, "statement_ids": dataset.statement_ids[batch["index"]]}


def make_module(config: Config) -> CLIP:
  return CLIP(
    **config.model, remat=config.remat, dtype=jnp.dtype(config.precision)
  )


def init(rng: Array, config: Config) -> tuple[Tree, Tree]:
  module = make_module(config)
  text = jnp.zeros((1, module.text_width))
  variables = dict(module.init(rng, jnp.zeros((1, MODEL_SAMPLES, 12)), text))
  return variables.pop("params"), variables


def mean_embedding(
  table: Array, statement_ids: Int[Array, "b s"]
) -> Float[Array, "b e"]:
  """The text of a report: the mean of its statements' vectors, (b, 768)."""
  statements, mask = splits.gather_statements(table, statement_ids)
  count = jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
  return statements.sum(axis=1) / count


def _logits_and_twins(params, projections, statement_ids):
  """Returns the logits, and which ECGs have the same report."""
  logits = contrastive_logits(*projections, params["logit_scale"])
  equal = statement_ids[:, None] == statement_ids[None, :]
  return logits, equal.all(axis=2)


def loss(
  config: Config,
  params: Tree,
  model_state: Tree,
  frozen: Tree,
  batch: Batch,
  rng: Array,
) -> tuple[Array, tuple[Tree, dict[str, Array]]]:
  """Symmetric InfoNCE of ECGs and reports within the batch."""
  text = mean_embedding(frozen["table"], batch["statement_ids"])
  projections, model_state = make_module(config).apply(
    {"params": params, **model_state},
    batch["ecg"],
    text,
    train=True,
    mutable=["batch_stats"],
    rngs={"dropout": rng},
  )
  logits, twins = _logits_and_twins(params, projections, batch["statement_ids"])
  same = None if config.same_report_negatives else twins
  metrics = {"logit_scale": params["logit_scale"]}
  return contrastive_losses(logits, same).mean(), (model_state, metrics)


@functools.partial(jax.jit, static_argnums=0)
def _evaluate_batch(config, weights, frozen, batch):
  text = mean_embedding(frozen["table"], batch["statement_ids"])
  variables = {"params": weights["params"], **weights["model_state"]}
  projections = make_module(config).apply(variables, batch["ecg"], text)
  logits, twins = _logits_and_twins(
    weights["params"], projections, batch["statement_ids"]
  )
  best = jnp.argmax(logits, axis=1)
  found = twins[jnp.arange(len(best)), best]
  return {
    "loss": contrastive_losses(logits, twins).mean(),
    "top1_report": found.mean(),
    "top1_report_chance": twins.mean(),
  }


def evaluate(
  config: Config, data: Any, frozen: Tree, weights: Tree, put: Callable
) -> dict:
  """The right report of held-out ECGs among those of the batch.

  Whole batches alone count, since the loss depends on their size.
  """
  totals = []
  for batch in pipeline.eval_ecg_batches(
    data.validation,
    config.batch_size,
    limit=config.eval_records,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  ):
    batch = _with_report(data.validation, batch)
    if len(totals) * config.batch_size + config.batch_size > min(
      len(data.validation), config.eval_records
    ):
      break
    batch.pop("valid")
    totals.append(_evaluate_batch(config, weights, frozen, put(batch)))
  count = len(totals) * config.batch_size
  if not totals:
    return {"recordings": 0}
  means = jax.tree.map(lambda *x: float(sum(x) / len(x)), *totals)
  return {**means, "recordings": count, "score": means["loss"]}
