"""Stage 1: the Individual Base Extractor, trained by contrast and regression.

The two recordings of a pair are to find each other among all pairs of the
batch, each seen together with its own condition. An extractor that sees median
beats has to foretell, from the base vector of each of the two and the condition
of the other, the other's median beat: so the vector holds the person's shapes
and not just what tells persons apart. What foretells them stays in the
checkpoint as `beat_head`, and stage 2 begins its beat sketch with it.

Batches hold what `pipeline.gather_pairs` gives of each recording and its
"reference_":

  mean, std          (b, 128, c)  the latent, unscaled
  statement_ids      (b, s)       rows of the table, -1 is padding
  patient            (b, 3)       heart rate, age, sex; NaN where missing
  median_beat        (b, 80, 12)  mV            of an extractor that sees it
  median_beat_found  (b,)         0: none       of an extractor that sees it
  patient_id         (b,)         equal numbers are one patient (not twice)

With `config.own_recordings` a patient's only recording is a pair with itself:
nothing to tell apart, but its beat is to come back, with a share of another's
added, so that base vectors hold the beats of hearts of which there is one
recording each. Half of the pairs of two get such a share, too, so that what a
condition does to a beat holds for all hearts (`add_other_beats`).
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32

from ecgtwin_jax import sharding
from ecgtwin_jax.constants import LATENT_LENGTH
from ecgtwin_jax.data import pipeline
from ecgtwin_jax.data.dataset import Dataset
from ecgtwin_jax.models import beat_rate
from ecgtwin_jax.models.base_extractor import (
  BEAT_SIZE,
  BaseExtractor,
  contrastive_logits,
)
from ecgtwin_jax.stages import Batch, Config, Tree, splits
from ecgtwin_jax.stages.losses import contrastive_losses

_KEYS = ("mean", "std", "statement_ids", "patient", "index")
_BEAT_KEYS = ("median_beat", "median_beat_found")
_SPREAD_ROWS = 4096  # recordings that the spread of median beats is taken from
# Of the components in the base vector: beside the rest, not above it.
_CODE_SIZE = 0.5
_NOISE = 0.05  # mV, below which a sample's spread says nothing
_OTHER_BEAT = 0.7  # standard deviation of the share that is added to a beat
_MIXED = 0.5  # of the pairs of two recordings get one, too
_P_WAVE = slice(5, 25)  # samples of a median beat: 0.25 to 0.06 s before R
_RIDGE = 1.0  # of the regression that looks for the heart rate in base vectors


def load_data(config: Config) -> splits.Splits:
  data = splits.load_pairs(config)
  if config.model.median_beat:
    splits.require_beats(config, data)
  return data


def load_frozen(config: Config, data: Any) -> dict:
  numbers = splits.latent_numbers(config, data.train.card)
  frozen = {
    "table": data.train.table.embeddings,
    "scale": splits.scale_array(numbers["latent_scale"]),
  }
  if config.model.median_beat:
    frozen["beat_variance"] = spread_of_beats(data.train)
  return frozen


def _beats(dataset):
  """Median beats (n, 80, 12) in mV from all over the split, and their rows."""
  rows = np.flatnonzero(dataset.arrays["median_beat_found"])
  if len(rows) < 2:
    raise ValueError(
      f"split {dataset.split!r} of {dataset.directory} has {len(rows)} median"
      " beats, but config.model.median_beat=True needs two: set it to False"
    )
  rows = rows[np.linspace(0, len(rows) - 1, _SPREAD_ROWS).astype(int)]
  rows = np.unique(rows)
  return dataset.arrays["median_beat"][rows].astype(np.float64), rows


def spread_of_beats(dataset: Dataset) -> Float32[np.ndarray, "80 12"]:
  """`variance_of` the median beats of a split.

  Raises:
    ValueError: fewer than two recordings have a median beat.
  """
  beats, _ = _beats(dataset)
  return variance_of(beats).astype(np.float32)


def variance_of(
  beats: Float[np.ndarray, "n 80 12"],
) -> Float[np.ndarray, "80 12"]:
  """Variance over beats in mV^2, and that of noise of 0.05 mV.

  So that where all are alike it is not next to nothing.
  """
  return beats.var(axis=0) + _NOISE**2


def start(config: Config, data: Any) -> dict[str, Tree]:
  """What goes straight through begins as principal components of the beats.

  Every second entry of the base vector begins as one of them, and what is
  foretold as the reference's own beat: what a condition changes is to be
  learned. Samples count by their spread, as in the loss: P waves are small.
  """
  if not config.model.median_beat or config.init_from is not None:
    return {}
  beats, rows = _beats(data.train)
  patients = data.train.patient[rows]
  beats = np.asarray(beat_rate.at_60_bpm(beats, patients), np.float64)
  spread = np.sqrt(variance_of(beats)).ravel()
  beats = beats.reshape(len(beats), -1)
  mean = beats.mean(axis=0)
  _, _, components = np.linalg.svd((beats - mean) / spread, full_matrices=False)
  reading = np.zeros((beats.shape[1], make_module(config).base_width))
  places = range(0, reading.shape[1], 2)
  components = components[: len(places)]
  reading[:, places[: len(components)]] = components.T
  reading *= _CODE_SIZE * BEAT_SIZE / spread[:, None]
  foretelling = np.zeros(reading.T.shape)
  foretelling[places[: len(components)]] = components
  foretelling *= spread / (_CODE_SIZE * BEAT_SIZE)
  mean /= BEAT_SIZE
  bias = mean - mean @ reading @ foretelling
  return {
    "beat_reading": {"direct": {"kernel": reading}},
    "beat_head": {
      "direct": {"kernel": foretelling},
      "output": {"bias": bias},
    },
  }


def hyper(config: Config, data: Any) -> dict:
  return {
    "part": "base_extractor",
    "model": config.model.to_dict(),
    "statement_encoder": data.train.table.encoder,
    "vae": data.train.card["vae"],
    **splits.latent_numbers(config, data.train.card),
  }


def batches(
  config: Config, data: Any, start: int, process_index: int, process_count: int
) -> Iterator[Batch]:
  pairs = pipeline.pair_batches(
    data.train,
    config.batch_size,
    config.seed,
    uniform_over=config.uniform_over,
    process_index=process_index,
    process_count=process_count,
    start_step=start,
  )
  try:
    for batch in pairs:
      yield _select(config, batch)
  finally:
    pairs.close()


def _select(config, batch: dict) -> dict:
  """What an extractor reads of a batch of pairs."""
  names = (*_KEYS, *_BEAT_KEYS) if config.model.median_beat else _KEYS
  both = [prefix + name for prefix in ("", "reference_") for name in names]
  return {name: batch[name] for name in (*both, "patient_id")}


def make_module(config: Config) -> BaseExtractor:
  return BaseExtractor(
    **config.model, remat=config.remat, dtype=jnp.dtype(config.precision)
  )


def init(rng: Array, config: Config) -> tuple[Tree, Tree]:
  module = make_module(config)
  latent = jnp.zeros((1, LATENT_LENGTH, module.latent_channels))
  statements = jnp.zeros((1, 1, module.text_width))
  mask, patient = jnp.ones((1, 1), bool), jnp.zeros((1, 3))
  variables = module.init(
    rng, latent, statements, mask, patient, method=_initialize
  )
  return variables["params"], {}


def _initialize(module, latent, *condition):
  base = module(latent, *condition)
  if module.median_beat:
    module.predict_beat(base, *condition)


def draw_lost_texts(
  config: Config, rng: Array, batch_size: int
) -> Bool[Array, " b"]:
  """Which rows are seen without their text; one draw per batch as published."""
  shape = () if config.text_dropout_per == "batch" else (batch_size,)
  drop = jax.random.bernoulli(rng, config.text_dropout, shape)
  return jnp.broadcast_to(drop, (batch_size,))


def extract_both(
  config: Config,
  params: Tree,
  frozen: Tree,
  batch: Batch,
  latents: Any,
  drop_text: Array | None = None,
) -> tuple[Float[Array, "b 2 _"], Float[Array, "b 2 _"]]:
  """Base vectors and conditions, (b, 2, w) and (b, 2, d), of each pair.

  The reference's come first. In one call, so that devices reduce one gradient
  and not one of each side. Both of a pair lie together: every device keeps its
  own rows.
  """

  def join(reference, target):
    both = jnp.stack([reference, target], axis=1)
    return both.reshape(-1, *both.shape[2:])

  def own(name):
    return join(batch["reference_" + name], batch[name])

  statements, mask = splits.gather_statements(
    frozen["table"], own("statement_ids")
  )
  beats = _BEAT_KEYS if config.model.median_beat else ()
  both = make_module(config).apply(
    {"params": params},
    join(*latents),
    statements,
    mask,
    own("patient"),
    drop_text=None if drop_text is None else join(drop_text, drop_text),
    **{name: own(name) for name in beats},
    method="with_condition",
  )
  return tuple(x.reshape(-1, 2, x.shape[-1]) for x in both)


def _predict_beat(config, params, frozen, base, batch):
  """Median beats (b, 80, 12) of these persons under the target's condition."""
  statements, mask = splits.gather_statements(
    frozen["table"], batch["statement_ids"]
  )
  return make_module(config).apply(
    {"params": params},
    base,
    statements,
    mask,
    batch["patient"],
    method="predict_beat",
  )


def beat_losses(
  config: Config,
  params: Tree,
  frozen: Tree,
  bases: Float[Array, "b 2 d"],
  conditions: Float[Array, "b 2 e"],
  batch: Batch,
) -> Float[Array, " b"]:
  """Mean over ways and samples of |predicted - beat|^2 / variance, per pair.

  1 is what a constant reaches. A recording without a median beat costs nothing.
  Both ways in one call, so that devices reduce one gradient.

  Args:
    config: the configuration of the training.
    params: parameters of the extractor.
    frozen: what `load_frozen` returns.
    bases: (b, 2, w), of the references and of the targets.
    conditions: (b, 2, d) conditions of both recordings of each pair.
    batch: a batch with the keys above.
  """
  patients = jnp.stack([batch["patient"], batch["reference_patient"]], axis=1)
  predicted = make_module(config).apply(
    {"params": params},
    bases.reshape(-1, bases.shape[-1]),
    conditions[:, ::-1].reshape(-1, conditions.shape[-1]),
    patients.reshape(-1, patients.shape[-1]),
    method="beat_under",
  )
  names = ("median_beat", "median_beat_found")
  beat, found = (
    jnp.stack([batch[name], batch["reference_" + name]], axis=1)
    for name in names
  )
  square = jnp.square(predicted.reshape(beat.shape) - beat)
  error = (square / frozen["beat_variance"][None, None]).mean(axis=(2, 3))
  return jnp.where(found > 0, error, 0).mean(axis=1)


def add_other_beats(rng: Array, batch: Batch) -> Batch:
  """Adds some of another row's beat to both beats of pairs.

  To each pair of a recording with itself, so that beats which are to come back
  cannot be learned by heart. And to half of the others: what a condition does
  to a beat, which they alone show, then holds for mixed hearts of both kinds.
  Without it, beats of hearts that were only ever pairs with themselves come
  back whatever is asked for.
  """
  keys = jax.random.split(rng)
  own = batch["index"] == batch["reference_index"]
  mixed = own | jax.random.bernoulli(keys[0], _MIXED, own.shape)
  share = _OTHER_BEAT * jax.random.normal(keys[1], own.shape)
  share = jnp.where(mixed, share, 0)[:, None, None]
  rates = {
    prefix: jnp.nan_to_num(batch[prefix + "patient"])
    for prefix in ("", "reference_")
  }
  beats = beat_rate.at_60_bpm(batch["median_beat"], rates[""])
  added = share * jnp.roll(beats, 1, axis=0)
  names = "median_beat", "reference_median_beat"
  return batch | {
    name: batch[name] + beat_rate.from_60_bpm(added, patient)
    for name, patient in zip(names, rates.values(), strict=True)
  }


def loss(
  config: Config,
  params: Tree,
  model_state: Tree,
  frozen: Tree,
  batch: Batch,
  rng: Array,
) -> tuple[Array, tuple[Tree, dict[str, Array]]]:
  """Symmetric InfoNCE over the batch, and the regression of median beats.

  Both texts of a pair drop together.
  """
  keys = jax.random.split(rng, 3)
  size = batch["patient_id"].shape[0]
  if config.own_recordings and config.model.median_beat:
    batch = add_other_beats(jax.random.fold_in(rng, 3), batch)
  drop = draw_lost_texts(config, keys[0], size)
  latents = [
    splits.draw_latent(
      key, batch[prefix + "mean"], batch[prefix + "std"], frozen["scale"]
    )
    for key, prefix in ((keys[1], "reference_"), (keys[2], ""))
  ]
  bases, conditions = extract_both(config, params, frozen, batch, latents, drop)
  logits = contrastive_logits(bases[:, 0], bases[:, 1], params["logit_scale"])
  patients = batch["patient_id"]
  same = None
  if not config.same_patient_negatives:
    same = patients[:, None] == patients[None, :]
  top1 = jnp.mean(jnp.argmax(logits, axis=1) == jnp.arange(size))
  metrics = {"top1": top1, "logit_scale": params["logit_scale"]}
  total = contrastive_losses(logits, same).mean()
  if config.model.median_beat:
    metrics["contrast"] = total
    metrics["beat"] = beat_losses(
      config, params, frozen, bases, conditions, batch
    ).mean()
    total += config.beat_weight * metrics["beat"]
  return total, (model_state, metrics)


@functools.cache
def _compare(config, place):
  """Returns (params, frozen, batch) -> arrays, whole in every process."""

  def compare(params, frozen, batch):
    means = [
      batch[name] * frozen["scale"] for name in ("reference_mean", "mean")
    ]
    both, _ = extract_both(config, params, frozen, batch, means)
    bases = both[:, 0], both[:, 1]
    out = {
      "reference_base": bases[0],
      "logits": contrastive_logits(*bases, params["logit_scale"]),
      "reference_patient": batch["reference_patient"],
      "patient": batch["patient"],
    }
    if config.model.median_beat:
      valid = batch["valid"][:, None]
      nobody = jnp.where(valid, bases[0], 0).sum(0) / valid.sum()
      nobody = jnp.broadcast_to(nobody, bases[0].shape)
      for name, base in (("predicted", bases[0]), ("of_nobody", nobody)):
        out[name] = _predict_beat(config, params, frozen, base, batch)
      out["beat"] = batch["median_beat"]
      out["found"] = batch["median_beat_found"] > 0
    return out

  return jax.jit(compare, out_shardings=place)


def effective_dimension(bases: Float[np.ndarray, "n base"]) -> float:
  """(sum of variances)^2 / sum of their squares, over principal components.

  Between 1, all on a line, and w, as wide each way.
  """
  centred = bases - bases.mean(axis=0)
  variances = np.linalg.svd(centred, compute_uv=False) ** 2
  return float(variances.sum() ** 2 / max((variances**2).sum(), 1e-30))


def heart_rate_leakage(
  bases: Float[np.ndarray, "n base"],
  rates: Float[np.ndarray, " n"],
  known: Float[np.ndarray, "n k"],
) -> float:
  """Share of the heart rate's variance that base vectors add to what is known.

  Ridge regression on four of five parts of the people, tested on the fifth, in
  turn: the squared error with both over that with `known` alone, from 1. About
  0 where the base vector says nothing of the reference's rate, at most 1.

  Args:
    bases: base vectors of the references.
    rates: heart rates of the references.
    known: what the twin is told anyway: the target's rate, age, sex.
  """

  def scaled(x):
    spread = x.std(axis=0)
    return (x - x.mean(axis=0)) / np.where(spread, spread, 1)

  def error(*features):
    x = np.column_stack([*features, np.ones(len(rates))])
    parts = np.arange(len(rates)) % 5
    squares = 0.0
    for part in range(5):
      train, test = parts != part, parts == part
      gram = x[train].T @ x[train] + _RIDGE * np.eye(x.shape[1])
      weights = np.linalg.solve(gram, x[train].T @ rates[train])
      squares += np.square(x[test] @ weights - rates[test]).sum()
    return squares

  known = scaled(known)
  # All entries together weigh what one known number does.
  bases = scaled(bases) / np.sqrt(bases.shape[1])
  return 1 - error(bases, known) / error(known)


def _explained(beat, predicted) -> float:
  """R2 over people: 1 - squared error / squared distance to the mean beat."""
  total = np.square(beat - beat.mean(axis=0)).sum()
  return float(1 - np.square(beat - predicted).sum() / max(total, 1e-30))


def evaluate(
  config: Config, data: Any, frozen: Tree, weights: Tree, put: Callable
) -> dict:
  """What base vectors of held-out patients hold: one pair of each, seeded.

  The score is the loss, which sees the negatives: the cosine of positive
  pairs alone is best where everybody looks alike. `beat_r2` is the share of
  the targets' median beats, as they differ from patient to patient, that base
  vector and condition give, `p_wave_r2` that of their samples before QRS alone;
  `beat_r2_of_nobody` what the mean base vector does.
  """
  patients, pairs, valid = splits.draw_gallery(
    data.validation, config.eval_patients, config.seed
  )
  if patients < 2:
    return {"patients": patients}
  batch = _select(config, pipeline.gather_pairs(data.validation, pairs))
  batch["valid"] = valid
  batch = put(batch)
  place = sharding.replicated(batch["valid"].sharding.mesh)
  out = _compare(config, place)(weights["params"], frozen, batch)
  out = {name: np.asarray(a)[:patients] for name, a in out.items()}
  logits = out["logits"][:, :patients]
  loss = float(contrastive_losses(jnp.asarray(logits)).mean())
  bases = out["reference_base"].astype(np.float64)
  metrics = {
    "loss": loss,
    "top1": float(np.mean(logits.argmax(axis=1) == np.arange(patients))),
    "positive_cosine": float(
      np.diagonal(logits).mean() / np.exp(weights["params"]["logit_scale"])
    ),
    "effective_dimension": effective_dimension(bases),
    "top1_chance": 1 / patients,
    "patients": patients,
  }
  known = np.nan_to_num(out["patient"].astype(np.float64))
  if patients >= 10:
    rates = out["reference_patient"][:, 0].astype(np.float64)
    metrics["heart_rate_leakage"] = float(
      heart_rate_leakage(bases, rates, known)
    )
  if config.model.median_beat and out["found"].sum() > 1:
    beat, predicted, of_nobody = (
      out[name][out["found"]].astype(np.float64)
      for name in ("beat", "predicted", "of_nobody")
    )
    metrics["beat_r2"] = _explained(beat, predicted)
    metrics["p_wave_r2"] = _explained(beat[:, _P_WAVE], predicted[:, _P_WAVE])
    metrics["beat_r2_of_nobody"] = _explained(beat, of_nobody)
    error = np.square(beat - predicted) / frozen["beat_variance"][None]
    loss += config.beat_weight * float(error.mean())
    metrics["loss"] = loss
  return {**metrics, "score": loss}
