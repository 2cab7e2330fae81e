"""Stage 2: latent diffusion under base vector, statements and demographics.

The frozen extractor gives one base vector per recording, from the latent's mean
and the recording's own condition. They never change, so they are computed once,
when the data are loaded, and travel with the batches.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ecgtwin_jax.data import pipeline
from ecgtwin_jax.data.dataset import Dataset
from ecgtwin_jax.diffusion.schedule import (
  Schedule,
  add_noise,
  loss_weight,
  sample_timesteps,
)
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.models.base_extractor import BaseExtractor
from ecgtwin_jax.models.denoiser import Denoiser
from ecgtwin_jax.stages import splits
from ecgtwin_jax.stages.vae import mean_of_sums
from ecgtwin_jax.training import checkpoint

_KEYS = ("mean", "std", "statement_ids", "patient", "index", "valid")
_EXTRACT_CHUNK = 256


class Data(NamedTuple):
  """Both splits, and the base vector of every recording in them.

  `extractor` is the digest of the weights that gave the base vectors.
  """

  splits: splits.Splits
  extractor: str
  train_bases: np.ndarray
  validation_bases: np.ndarray

  @property
  def fingerprint(self) -> str:
    return self.splits.fingerprint

  def names(self, rows) -> list[str]:
    return self.splits.names(rows)


@functools.partial(jax.jit, static_argnums=0)
def _extract(module, params, table, latent, statement_ids, patient):
  statements, mask = splits.gather_statements(table, statement_ids)
  return module.apply({"params": params}, latent, statements, mask, patient)


def extract_bases(dataset: Dataset, hyper: dict, params, scale: float):
  """Returns the base vector of every recording of a split, (n, width)."""
  module = BaseExtractor(**hyper["model"])
  table = jnp.asarray(dataset.table.embeddings)
  n = len(dataset)
  bases = np.zeros((n, module.width), np.float32)
  starts = range(0, n, _EXTRACT_CHUNK)
  quiet = n <= 16 * _EXTRACT_CHUNK or jax.process_index() != 0
  for start in tqdm(starts, f"base vectors, {dataset.split}", disable=quiet):
    rows = np.minimum(np.arange(start, start + _EXTRACT_CHUNK), n - 1)
    out = _extract(
      module,
      params,
      table,
      dataset.arrays["mean"][rows].astype(np.float32) * np.float32(scale),
      dataset.statement_ids[rows],
      dataset.patient[rows],
    )
    bases[rows] = np.asarray(out)
  return bases


def load_data(config) -> Data:
  data = splits.load_pairs(config)
  extractor, variables = checkpoint.load_weights(
    config.base_extractor, "base_extractor"
  )
  scale = splits.latent_numbers(config, data.train.card)["latent_scale"]
  if not np.isclose(extractor["latent_scale"], scale, rtol=1e-4):
    raise ValueError(
      f"config.base_extractor={config.base_extractor!r} was trained with "
      f"latent_scale={extractor['latent_scale']}, but it is {scale} here"
    )
  encoder = data.train.table.encoder
  if extractor["statement_encoder"] != encoder:
    raise ValueError(
      f"config.base_extractor={config.base_extractor!r} was trained on "
      f"statements of {extractor['statement_encoder']!r}, but "
      f"config.latents={config.latents!r} holds those of {encoder!r}"
    )
  if config.model.null_condition and not extractor["model"]["null_condition"]:
    for split in data:
      if np.isnan(split.patient).any():
        raise ValueError(
          f"config.latents={config.latents!r} has recordings without age or "
          f"sex, which config.base_extractor={config.base_extractor!r} cannot "
          "take: set config.model.null_condition=False to skip them"
        )
  width = extractor["model"]["width"]
  if width != config.model.base_width:
    raise ValueError(
      f"config.model.base_width={config.model.base_width} must be {width}, the "
      f"width of config.base_extractor={config.base_extractor!r}"
    )
  bases = [
    extract_bases(split, extractor, variables["params"], scale)
    for split in data
  ]
  return Data(data, twin_directory.digest(variables["params"]), *bases)


def load_frozen(config, data) -> dict:
  train = data.splits.train
  numbers = splits.latent_numbers(config, train.card)
  return {
    "table": train.table.embeddings,
    "scale": np.float32(numbers["latent_scale"]),
  }


def hyper(config, data) -> dict:
  card = data.splits.train.card
  return {
    "part": "denoiser",
    "model": config.model.to_dict(),
    "schedule": config.schedule.to_dict(),
    "timesteps": list(config.timesteps),
    "dropout": config.dropout.to_dict(),
    "statement_encoder": data.splits.train.table.encoder,
    "vae": card["vae"],
    "base_extractor": data.extractor,
    **splits.latent_numbers(config, card),
  }


def _with_base(batch: dict, bases: np.ndarray) -> dict:
  kept = {key: batch[key] for key in _KEYS if key in batch}
  return {**kept, "base": bases[batch["reference_index"]]}


def batches(config, data, start, process_index, process_count):
  pairs = pipeline.pair_batches(
    data.splits.train,
    config.batch_size,
    config.seed,
    uniform_over=config.uniform_over,
    process_index=process_index,
    process_count=process_count,
    start_step=start,
  )
  try:
    for batch in pairs:
      yield _with_base(batch, data.train_bases)
  finally:
    pairs.close()


def make_module(config) -> Denoiser:
  return Denoiser(
    **config.model, remat=bool(config.remat), dtype=jnp.dtype(config.precision)
  )


def init(rng, config):
  module = make_module(config)
  variables = module.init(
    rng,
    jnp.zeros((1, 128, module.latent_channels)),
    jnp.zeros((1,), jnp.int32),
    jnp.zeros((1, 1, module.text_width)),
    jnp.ones((1, 1), bool),
    jnp.zeros((1, 3)),
    jnp.zeros((1, module.base_width)),
    drop_statements=jnp.zeros((1,), bool) if module.null_condition else None,
  )
  return variables["params"], {}


def _drop_conditions(config, rng, patient, base):
  """Loses conditions of some examples; returns patient, base, drop_statements.

  A lost patient vector is NaN (the model's learned null vector takes its
  place), a lost base vector is zero.
  """
  keys = jax.random.split(rng, 4)
  size = base.shape[0]
  rates = config.dropout

  def draw(key, rate, shape=(size, 1)):
    return jax.random.bernoulli(key, rate, shape)

  if rates.patient:
    patient = jnp.where(draw(keys[0], rates.patient), jnp.nan, patient)
  if rates.base:
    base = jnp.where(draw(keys[1], rates.base), 0, base)
  if config.base_entry_mask:
    hidden = draw(keys[2], config.base_entry_mask, (1, base.shape[1]))
    base = jnp.where(hidden, 0, base)
  drop = draw(keys[3], rates.statements, (size,)) if rates.statements else None
  return patient, base, drop


def noise_errors(
  config, params, frozen, latent, t, eps, batch, patient, base, drop
):
  """Per example: sum over positions and channels of (eps - eps')^2."""
  schedule = Schedule(**config.schedule)
  noisy = add_noise(schedule, latent, eps, t)
  statements, mask = splits.gather_statements(
    frozen["table"], batch["statement_ids"]
  )
  predicted = make_module(config).apply(
    {"params": params},
    noisy,
    t,
    statements,
    mask,
    patient,
    base,
    drop_statements=drop,
  )
  return jnp.sum(jnp.square(eps - predicted), axis=(1, 2))


def loss(config, params, model_state, frozen, batch, rng):
  """Squared error of the predicted noise, summed per latent, weighted mean."""
  keys = jax.random.split(rng, 4)
  latent = splits.draw_latent(
    keys[0], batch["mean"], batch["std"], frozen["scale"]
  )
  t = sample_timesteps(keys[1], latent.shape[0], *config.timesteps)
  eps = jax.random.normal(keys[2], latent.shape)
  conditions = _drop_conditions(
    config, keys[3], batch["patient"], batch["base"]
  )
  errors = noise_errors(
    config, params, frozen, latent, t, eps, batch, *conditions
  )
  weights = loss_weight(Schedule(**config.schedule), t, config.loss_weighting)
  metrics = {"mse": errors.mean() / latent[0].size}
  return (weights * errors).mean(), (model_state, metrics)


@functools.partial(jax.jit, static_argnums=0)
def _evaluate_batch(config, params, frozen, batch, number):
  """Sums over valid rows; time and noise depend on seed and batch alone."""
  rng = jax.random.fold_in(jax.random.key(config.seed + 2), number)
  keys = jax.random.split(rng, 2)
  latent = batch["mean"] * frozen["scale"]
  t = sample_timesteps(keys[0], latent.shape[0], *config.timesteps)
  eps = jax.random.normal(keys[1], latent.shape)
  conditions = (batch["patient"], batch["base"], None)
  errors = noise_errors(
    config, params, frozen, latent, t, eps, batch, *conditions
  )
  rows = {
    "loss": errors,
    "mse": errors / latent[0].size,
    "pairs": jnp.ones_like(errors),
  }
  return {k: jnp.sum(jnp.where(batch["valid"], v, 0)) for k, v in rows.items()}


def evaluate(config, data, frozen, weights, put) -> dict:
  """The training's loss on pairs of held-out patients, nothing dropped."""
  totals = []
  held_out = pipeline.eval_pair_batches(
    data.splits.validation,
    config.batch_size,
    limit=config.eval_pairs,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  for number, batch in enumerate(held_out):
    batch = put(_with_base(batch, data.validation_bases))
    totals.append(
      _evaluate_batch(config, weights["params"], frozen, batch, number)
    )
  return mean_of_sums(totals, "pairs")
