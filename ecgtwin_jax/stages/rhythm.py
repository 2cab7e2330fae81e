"""The rhythm model: when beats fall, learned from the beats that were found.

Batches:

  beat_time      (b, n)  s, NaN is padding
  beat_kind      (b, n)  -1 is padding
  beat_p         (b, n)  1: a P wave precedes, 0: none, -1 is padding
  statement_ids  (b, s)  rows of the table, -1 is padding
  patient        (b, 3)  heart rate, age, sex; NaN where missing
  index          (b,)    row of the split
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ecgtwin_jax.constants import PATIENT_MEAN, PATIENT_STD
from ecgtwin_jax.data import pipeline
from ecgtwin_jax.data.dataset import Dataset
from ecgtwin_jax.models.rhythm import RhythmModel, log_likelihoods
from ecgtwin_jax.stages import Batch, Config, Tree, splits
from ecgtwin_jax.stages.denoiser import drop_rhythm
from ecgtwin_jax.stages.losses import mean_of_sums
from ecgtwin_jax.text.findings import names_sinus_rhythm

_BEATS = ("beat_time", "beat_kind", "beat_p")


def load_data(config: Config) -> splits.Splits:
  """Reads the recordings with a report in which beats were found.

  Raises:
    ValueError: the latents are without beats.
  """
  data = splits.load_splits(config.latents, "latent")
  for split in data:
    split.require_beats()
  data = splits.trim_reports(splits.skip_unreported(data))
  longest = max(
    (split.arrays["beat_kind"] >= 0).sum(axis=1).max(initial=2)
    for split in data
  )
  return splits.Splits(*(_select(split, int(longest)) for split in data))


def _select(split: Dataset, longest: int) -> Dataset:
  """Rows with an interval, cut behind the longest rhythm and its end."""
  beats = {name: split.arrays[name][:, : longest + 1] for name in _BEATS}
  rows = (beats["beat_kind"] >= 0).sum(axis=1) >= 2
  return dataclasses.replace(split, arrays=beats).select(rows)


def load_frozen(config: Config, data: Any) -> dict:
  del config
  table = data.train.table
  sinus = [names_sinus_rhythm(s) for s in table.statements]
  return {"table": table.embeddings, "sinus": np.array(sinus)}


def hyper(config: Config, data: Any) -> dict:
  return {
    "part": "rhythm",
    "model": config.model.to_dict(),
    "statement_encoder": data.train.table.encoder,
  }


def batches(
  config: Config, data: Any, start: int, process_index: int, process_count: int
) -> Iterator[Batch]:
  return pipeline.rhythm_batches(
    data.train,
    config.batch_size,
    config.seed,
    process_index=process_index,
    process_count=process_count,
    start_step=start,
  )


def make_module(config: Config) -> RhythmModel:
  return RhythmModel(**config.model)


def init(rng: Array, config: Config) -> tuple[Tree, Tree]:
  module = make_module(config)
  variables = module.init(
    rng,
    jnp.zeros((1, 2)),
    jnp.zeros((1, 2), jnp.int32),
    jnp.zeros((1, 2), jnp.int32),
    jnp.ones((1,)),
    jnp.zeros((1, 1, module.text_width)),
    jnp.ones((1, 1), bool),
    jnp.zeros((1, 3)),
  )
  return variables["params"], {}


def _log_likelihoods(config, params, frozen, batch, patient):
  """Per example: {part: log likelihood}, the parts' sum as "rhythm"."""
  statements, mask = splits.gather_statements(
    frozen["table"], batch["statement_ids"]
  )
  rate = batch["patient"][:, 0] * PATIENT_STD[0] + PATIENT_MEAN[0]
  rhythm = (
    batch["beat_time"],
    batch["beat_kind"].astype(jnp.int32),
    batch["beat_p"].astype(jnp.int32),
    60 / rate,
  )
  predicted = make_module(config).apply(
    {"params": params}, *rhythm, statements, mask, patient
  )
  return log_likelihoods(predicted, *rhythm)


def loss(
  config: Config,
  params: Tree,
  model_state: Tree,
  frozen: Tree,
  batch: Batch,
  rng: Array,
) -> tuple[Array, tuple[Tree, dict[str, Array]]]:
  """Minus the log likelihood of a rhythm in nats, mean over rhythms.

  Age and sex are lost at times, so that the model knows what to do without;
  the heart rate is always known. So are the statements of a sinus rhythm: a
  report that names no rhythm means one.
  """
  patient, keys = batch["patient"], jax.random.split(rng)
  lost = jax.random.bernoulli(
    keys[0], config.dropout.patient, (len(patient), 3)
  )
  patient = jnp.where(lost.at[:, 0].set(False), jnp.nan, patient)
  lost = jax.random.bernoulli(keys[1], config.dropout.sinus, (len(patient),))
  ids = drop_rhythm(batch["statement_ids"], frozen["sinus"], lost)
  batch = {**batch, "statement_ids": ids}
  parts = _log_likelihoods(config, params, frozen, batch, patient)
  metrics = {name: value.mean() for name, value in parts.items()}
  return -sum(metrics.values()), (model_state, metrics)


@functools.partial(jax.jit, static_argnums=0)
def _evaluate_batch(config, params, frozen, batch):
  """Sums over the batch's valid rows."""
  parts = _log_likelihoods(config, params, frozen, batch, batch["patient"])
  total = sum(parts.values())
  rows = {"loss": -total, **parts, "recordings": jnp.ones_like(total)}
  return {k: jnp.sum(jnp.where(batch["valid"], v, 0)) for k, v in rows.items()}


def evaluate(
  config: Config, data: Any, frozen: Tree, weights: Tree, put: Callable
) -> dict:
  """Log likelihood of the rhythms of held-out patients, in nats."""
  totals = []
  for batch in pipeline.eval_rhythm_batches(
    data.validation,
    config.batch_size,
    limit=config.eval_records,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  ):
    totals.append(
      _evaluate_batch(config, weights["params"], frozen, put(batch))
    )
  return mean_of_sums(totals, "recordings")
