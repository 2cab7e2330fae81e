"""Stage 2: latent diffusion under base vector, statements and demographics.

The frozen extractor gives one base vector per recording, from the latent's mean
and the recording's own condition. They never change, so they are computed once,
when the data are loaded, and travel with the batches.

Batches, of the target of each pair but for the base vector:

  mean, std      (b, 128, c)  the latent, unscaled
  statement_ids  (b, s)       rows of the table, -1 is padding
  patient        (b, 3)       heart rate, age, sex; NaN where missing
  index          (b,)         row of the split
  base           (b, w)       of the pair's reference
  beat_time      (b, n)       s, NaN is padding  of one with a track
  beat_kind      (b, n)       -1 is padding      of one with a track
  beat_p         (b, n)       1: a P wave precedes  of one with a track
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from tqdm import tqdm

from ecgtwin_jax.constants import LATENT_LENGTH
from ecgtwin_jax.data import pipeline
from ecgtwin_jax.data.dataset import Dataset
from ecgtwin_jax.diffusion.guidance import check_strengths
from ecgtwin_jax.diffusion.schedule import (
  Schedule,
  add_noise,
  loss_weight,
  predicted_noise,
  sample_timesteps,
  unpredictable,
)
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.models.base_extractor import BaseExtractor
from ecgtwin_jax.models.beat_sketch import ForetoldBeat
from ecgtwin_jax.models.beat_track import BEAT_TRACKS, beat_track
from ecgtwin_jax.models.denoiser import Denoiser, DenoiserInputs
from ecgtwin_jax.stages import Batch, Config, Tree, splits
from ecgtwin_jax.stages.losses import mean_of_sums
from ecgtwin_jax.text.findings import names_rhythm
from ecgtwin_jax.training import checkpoint

_KEYS = ("mean", "std", "statement_ids", "patient", "index", "valid")
_BEAT_KEYS = ("beat_time", "beat_kind", "beat_p")
_EXTRACT_CHUNK = 256
FIXED = ("foretold_beat",)  # parameters that stay as `start` gives them


class Data(NamedTuple):
  """Both splits, and the base vector of every recording in them.

  `extractor` is the digest of the weights that gave the base vectors, `scale`
  that of the latents they were trained on; `foretold_beat` are its weights that
  foretell the usual beat, for a denoiser with a beat sketch.
  """

  splits: splits.Splits
  extractor: str
  scale: float | list[float]
  train_bases: np.ndarray
  validation_bases: np.ndarray
  foretold_beat: Tree | None = None

  @property
  def fingerprint(self) -> str:
    return self.splits.fingerprint

  def names(self, rows: np.ndarray) -> list[str]:
    return self.splits.names(rows)


@functools.partial(jax.jit, static_argnums=0)
def _extract(module, params, table, latent, statement_ids, patient, beats):
  statements, mask = splits.gather_statements(table, statement_ids)
  return module.apply(
    {"params": params}, latent, statements, mask, patient, **beats
  )


def extract_bases(
  dataset: Dataset, hyper: dict, params: Tree, scale: Any
) -> np.ndarray:
  """Returns the base vector of every recording of a split, (n, width)."""
  scale = splits.scale_array(scale)
  module = BaseExtractor(**hyper["model"])
  table = jnp.asarray(dataset.table.embeddings)
  n = len(dataset)
  bases = np.zeros((n, module.base_width), np.float32)
  seen = ("median_beat", "median_beat_found") if module.median_beat else ()
  starts = range(0, n, _EXTRACT_CHUNK)
  quiet = n <= 16 * _EXTRACT_CHUNK or jax.process_index() != 0
  for start in tqdm(starts, f"base vectors, {dataset.split}", disable=quiet):
    rows = np.minimum(np.arange(start, start + _EXTRACT_CHUNK), n - 1)
    out = _extract(
      module,
      params,
      table,
      dataset.arrays["mean"][rows].astype(np.float32) * scale,
      dataset.statement_ids[rows],
      dataset.patient[rows],
      {name: dataset.arrays[name][rows] for name in seen},
    )
    bases[rows] = np.asarray(out)
  return bases


def load_data(config: Config) -> Data:
  own = config.sampling
  check_strengths(
    own.statement_guidance, own.person_guidance, config.dropout.to_dict()
  )
  data = splits.load_pairs(config)
  extractor, variables = checkpoint.load_weights(
    config.base_extractor, "base_extractor"
  )
  scale = np.asarray(extractor["latent_scale"], float).tolist()
  asked = config.latent_scale
  if asked is not None and not np.allclose(asked, scale, rtol=1e-4):
    raise ValueError(
      f"config.base_extractor={config.base_extractor!r} was trained with "
      f"latent_scale={scale}, but config.latent_scale={asked}"
    )
  channels = data.train.arrays["mean"].shape[-1]
  if channels != config.model.latent_channels:
    raise ValueError(
      f"config.model.latent_channels={config.model.latent_channels} must be "
      f"{channels}, as many as config.latents={config.latents!r} has"
    )
  if config.model.beat_track != "none" and _BEAT_KEYS[0] not in (
    data.train.arrays
  ):
    raise ValueError(
      f"config.latents={config.latents!r} holds no beats, which "
      f"config.model.beat_track={config.model.beat_track!r} needs: encode "
      "again (python -m data_prep encode)"
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
  module = BaseExtractor(**extractor["model"])
  if module.median_beat:
    splits.require_beats(config, data)
  width = module.base_width
  if width != config.model.base_width:
    raise ValueError(
      f"config.model.base_width={config.model.base_width} must be {width}, the "
      f"width of config.base_extractor={config.base_extractor!r}"
    )
  bases = [
    extract_bases(split, extractor, variables["params"], scale)
    for split in data
  ]
  digest = twin_directory.digest(variables["params"])
  foretold = None
  if config.model.beat_sketch:
    foretold = _foretold_beat(config, module, variables["params"])
  return Data(data, digest, scale, *bases, foretold)


def _foretold_beat(config, extractor, params):
  """The extractor's weights that foretell the usual beat."""
  asked = config.model.beat_sketch
  if not extractor.median_beat or extractor.width != asked:
    raise ValueError(
      f"config.model.beat_sketch={asked} must be {extractor.width}, the width "
      f"of config.base_extractor={config.base_extractor!r}, which must "
      f"foretell beats (its median_beat={extractor.median_beat}); or 0"
    )
  if extractor.beat_width != ForetoldBeat.hidden:
    raise ValueError(
      f"config.base_extractor={config.base_extractor!r} has beat_width="
      f"{extractor.beat_width}, which must be {ForetoldBeat.hidden} where "
      f"config.model.beat_sketch={asked} is not 0"
    )
  if extractor.beat_gates != config.model.beat_gates:
    raise ValueError(
      f"config.model.beat_gates={config.model.beat_gates} must be "
      f"{extractor.beat_gates}, as in config.base_extractor="
      f"{config.base_extractor!r}"
    )
  return {name: params[name] for name in ("statement_tokens", "beat_head")}


def start(config: Config, data: Any) -> dict[str, Tree]:
  """What foretells the usual beat is what stage 1 has learned."""
  if data.foretold_beat is None:
    return {}
  return {"foretold_beat": data.foretold_beat}


def load_frozen(config: Config, data: Any) -> dict:
  train = data.splits.train
  return {
    "table": train.table.embeddings,
    "scale": splits.scale_array(data.scale),
    "rhythm": np.array([names_rhythm(s) for s in train.table.statements]),
  }


def hyper(config: Config, data: Any) -> dict:
  card = data.splits.train.card
  own = config.sampling.to_dict()
  if config.model.beat_track == "none":
    own["shape_temperature"] = 1.0  # nothing says where the beats are
  return {
    "part": "denoiser",
    "model": config.model.to_dict(),
    "schedule": config.schedule.to_dict(),
    "timesteps": list(config.timesteps),
    "dropout": config.dropout.to_dict(),
    "sampling": own,
    "prediction": config.prediction,
    "statement_encoder": data.splits.train.table.encoder,
    "vae": card["vae"],
    "base_extractor": data.extractor,
    **splits.latent_numbers(config, card),
    "latent_scale": data.scale,
  }


def _with_base(config, batch: dict, bases: np.ndarray) -> dict:
  beats = _BEAT_KEYS if config.model.beat_track != "none" else ()
  kept = {key: batch[key] for key in (*_KEYS, *beats) if key in batch}
  return {**kept, "base": bases[batch["reference_index"]]}


def batches(
  config: Config, data: Any, start: int, process_index: int, process_count: int
) -> Iterator[Batch]:
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
      yield _with_base(config, batch, data.train_bases)
  finally:
    pairs.close()


def make_module(config: Config) -> Denoiser:
  return Denoiser(
    **config.model, remat=bool(config.remat), dtype=jnp.dtype(config.precision)
  )


def init(rng: Array, config: Config) -> tuple[Tree, Tree]:
  module = make_module(config)
  channels = BEAT_TRACKS[config.model.beat_track]
  inputs = DenoiserInputs(
    statements=jnp.zeros((1, 1, module.text_width)),
    mask=jnp.ones((1, 1), bool),
    patient=jnp.zeros((1, 3)),
    base=jnp.zeros((1, module.base_width)),
    track=jnp.zeros((1, LATENT_LENGTH, channels)) if channels else None,
  )
  variables = module.init(
    rng,
    jnp.zeros((1, LATENT_LENGTH, module.latent_channels)),
    jnp.zeros((1,), jnp.int32),
    **inputs._asdict(),
    drop_statements=jnp.zeros((1,), bool) if module.null_condition else None,
  )
  return variables["params"], {}


def gather_inputs(config: Config, frozen: Tree, batch: dict) -> DenoiserInputs:
  """What the denoiser is given of a batch's targets and their base vectors."""
  statements, mask = splits.gather_statements(
    frozen["table"], batch["statement_ids"]
  )
  track, kind = None, config.model.beat_track
  if kind != "none":
    length = batch["mean"].shape[1]
    beats = [batch[name] for name in _BEAT_KEYS]
    track = beat_track(*beats, length, kinds=kind == "kinds")
  return DenoiserInputs(
    statements, mask, batch["patient"], batch["base"], track
  )


def drop_rhythm(
  ids: Int[Array, "b s"],
  says_rhythm: Bool[Array, " table"],
  lost: Bool[Array, " b"],
) -> Int[Array, "b s"]:
  """Takes the statements of a rhythm out of the reports of some rows.

  What is left moves up, and a report that says nothing else stays whole.

  Args:
    ids: numbers of statements, -1 behind the last one.
    says_rhythm: whether each statement of the table names a rhythm.
    lost: rows that lose those statements.
  """
  kept = (ids >= 0) & ~says_rhythm[jnp.maximum(ids, 0)]
  order = jnp.argsort(~kept, axis=1, stable=True)
  others = jnp.take_along_axis(jnp.where(kept, ids, -1), order, axis=1)
  lost = lost & kept.any(axis=1)
  return jnp.where(lost[:, None], others, ids)


def drop_conditions(
  config: Config, rng: Array, inputs: DenoiserInputs
) -> tuple[DenoiserInputs, Bool[Array, " b"] | None]:
  """Loses conditions of some examples.

  A lost patient vector is NaN (the model's learned null vector takes its
  place), a lost base vector is zero, a lost beat track all zeros.

  Returns:
    What is left, and which reports are lost; None: the training loses none.
  """
  keys = jax.random.split(rng, 4)
  size = inputs.base.shape[0]
  rates = config.dropout

  def draw(key, rate, shape=(size, 1)):
    return jax.random.bernoulli(key, rate, shape)

  patient, base, track = inputs.patient, inputs.base, inputs.track
  if rates.patient:
    patient = jnp.where(draw(keys[0], rates.patient), jnp.nan, patient)
  if rates.base:
    base = jnp.where(draw(keys[1], rates.base), 0, base)
  if config.base_entry_mask:
    hidden = draw(keys[2], config.base_entry_mask, (1, base.shape[1]))
    base = jnp.where(hidden, 0, base)
  if rates.track and track is not None:
    key = jax.random.fold_in(rng, 4)
    track = jnp.where(draw(key, rates.track, (size, 1, 1)), 0, track)
  drop = draw(keys[3], rates.statements, (size,)) if rates.statements else None
  return inputs._replace(patient=patient, base=base, track=track), drop


def noise_errors(
  config: Config,
  params: Tree,
  latent: Array,
  t: Array,
  eps: Array,
  inputs: DenoiserInputs,
  drop: Array | None = None,
) -> Float[Array, "b l c"]:
  """(eps - eps')^2 of each entry of the latents, (b, l, c)."""
  schedule = Schedule(**config.schedule)
  noisy = add_noise(schedule, latent, eps, t)
  out = make_module(config).apply(
    {"params": params}, noisy, t, **inputs._asdict(), drop_statements=drop
  )
  predicted = predicted_noise(schedule, config.prediction, out, noisy, t)
  return jnp.square(eps - predicted)


def loss(
  config: Config,
  params: Tree,
  model_state: Tree,
  frozen: Tree,
  batch: Batch,
  rng: Array,
) -> tuple[Array, tuple[Tree, dict[str, Array]]]:
  """Squared error of the predicted noise, summed per latent, weighted mean."""
  keys = jax.random.split(rng, 4)
  latent = splits.draw_latent(
    keys[0], batch["mean"], batch["std"], frozen["scale"]
  )
  size = latent.shape[0]
  t = sample_timesteps(keys[1], size, *config.timesteps)
  eps = jax.random.normal(keys[2], latent.shape)
  if config.dropout.rhythm:
    lost = jax.random.bernoulli(
      jax.random.fold_in(rng, 4), config.dropout.rhythm, (size,)
    )
    ids = drop_rhythm(batch["statement_ids"], frozen["rhythm"], lost)
    batch = {**batch, "statement_ids": ids}
  inputs, drop = drop_conditions(
    config, keys[3], gather_inputs(config, frozen, batch)
  )
  squares = noise_errors(config, params, latent, t, eps, inputs, drop)
  errors = jnp.sum(squares, axis=(1, 2))
  weights = loss_weight(Schedule(**config.schedule), t, config.loss_weighting)
  metrics = {"mse": errors.mean() / latent[0].size}
  return (weights * errors).mean(), (model_state, metrics)


@functools.partial(jax.jit, static_argnums=0)
def _evaluate_batch(config, params, frozen, batch, number):
  """Sums over valid rows; draws depend on seed and number of the batch."""
  rng = jax.random.fold_in(jax.random.key(config.seed + 2), number)
  keys = jax.random.split(rng, 3)
  latent = splits.draw_latent(
    keys[2], batch["mean"], batch["std"], frozen["scale"]
  )
  t = sample_timesteps(keys[0], latent.shape[0], *config.timesteps)
  eps = jax.random.normal(keys[1], latent.shape)
  inputs = gather_inputs(config, frozen, batch)
  squares = noise_errors(config, params, latent, t, eps, inputs)
  least = unpredictable(
    Schedule(**config.schedule), batch["std"] * frozen["scale"], t
  )
  rows = {
    "loss": jnp.sum(squares, axis=(1, 2)),
    "mse": squares.mean(axis=(1, 2)),
    "mse_unpredictable": least.mean(axis=(1, 2)),
    "pairs": jnp.ones(t.shape),
  }
  for c in range(latent.shape[2]):
    rows[f"mse_channel_{c}"] = squares[..., c].mean(axis=1)
    rows[f"mse_unpredictable_channel_{c}"] = least[..., c].mean(axis=1)
  return {k: jnp.sum(jnp.where(batch["valid"], v, 0)) for k, v in rows.items()}


def evaluate(
  config: Config, data: Any, frozen: Tree, weights: Tree, put: Callable
) -> dict:
  """The training's error on pairs of held-out patients, nothing dropped.

  On draws of the latents, as in the training. `mse_unpredictable` is the part
  of `mse` that the draws cost who knows the latents' means (see
  schedule.unpredictable); both are given per channel, too.
  """
  totals = []
  held_out = pipeline.eval_pair_batches(
    data.splits.validation,
    config.batch_size,
    limit=config.eval_pairs,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  for number, batch in enumerate(held_out):
    batch = put(_with_base(config, batch, data.validation_bases))
    totals.append(
      _evaluate_batch(config, weights["params"], frozen, batch, number)
    )
  return mean_of_sums(totals, "pairs")
