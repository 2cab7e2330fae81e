"""The evaluation's identity encoder: which recordings are of one patient.

Trained on real (or simulated) ECGs alone, of patients of its own, so that it
can evaluate a generator it never met.

Batches, of two recordings of each patient:

  ecg, reference_ecg      (b, 1024, 12)  mV
  index, reference_index  (b,)           rows of the split
  patient_id              (b,)           equal numbers are one patient
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ecgtwin_jax import sharding
from ecgtwin_jax.constants import MODEL_SAMPLES
from ecgtwin_jax.data import pipeline
from ecgtwin_jax.data.mixture import load_mixture
from ecgtwin_jax.models.identity import IdentityEncoder
from ecgtwin_jax.ranking import equal_error_rate, found_within
from ecgtwin_jax.stages import Batch, Config, Tree, splits
from ecgtwin_jax.stages.losses import supervised_contrastive_losses

_HELD_OUT = 8  # of so many patients of a validation split, one is held out


def load_data(config: Config) -> splits.Splits:
  """Reads the recordings to train on and those held out.

  With config.patients = "validation" a training of a generator on the same
  data set shares no patient with this one: both parts are cut, by patient, out
  of the validation split.

  Raises:
    ValueError: config.patients is neither "train" nor "validation".
  """
  if config.patients == "train":
    return splits.load_splits(config.data, "ecg")
  if config.patients != "validation":
    raise ValueError(f"{config.patients=} must be 'train' or 'validation'")
  whole = load_mixture(config.data, "validation", kind="ecg")
  apart = whole.patient_number % _HELD_OUT == 0
  return splits.Splits(whole.select(~apart), whole.select(apart))


def load_frozen(config: Config, data: Any) -> dict:
  del config, data
  return {}


def hyper(config: Config, data: Any) -> dict:
  del data
  return {
    "part": "identity",
    "model": config.model.to_dict(),
    "patients": config.patients,
  }


def batches(
  config: Config, data: Any, start: int, process_index: int, process_count: int
) -> Iterator[Batch]:
  return pipeline.ecg_pair_batches(
    data.train,
    config.batch_size,
    config.seed,
    process_index=process_index,
    process_count=process_count,
    start_step=start,
  )


def make_module(config: Config) -> IdentityEncoder:
  return IdentityEncoder(
    **config.model, remat=config.remat, dtype=jnp.dtype(config.precision)
  )


def init(rng: Array, config: Config) -> tuple[Tree, Tree]:
  variables = dict(
    make_module(config).init(rng, jnp.zeros((1, MODEL_SAMPLES, 12)))
  )
  return variables.pop("params"), variables


def augment(
  config: Config, rng: Array, signal: Float[Array, "b t 12"]
) -> Float[Array, "b t 12"]:
  """Another gain and another start of each recording, as on another day."""
  gain, shift = jax.random.split(rng)
  size, length = signal.shape[:2]
  strength = jax.random.uniform(
    gain, (size, 1, 1), minval=-config.gain, maxval=config.gain
  )
  start = jax.random.randint(shift, (size,), 0, length)
  rolled = jax.vmap(functools.partial(jnp.roll, axis=0))(signal, start)
  return rolled * (1 + strength)


def loss(
  config: Config,
  params: Tree,
  model_state: Tree,
  frozen: Tree,
  batch: Batch,
  rng: Array,
) -> tuple[Array, tuple[Tree, dict[str, Array]]]:
  """Supervised contrast over both recordings of every patient of the batch."""
  del frozen
  keys = jax.random.split(rng)
  signal = jnp.concatenate([batch["reference_ecg"], batch["ecg"]])
  z, model_state = make_module(config).apply(
    {"params": params, **model_state},
    augment(config, keys[0], signal),
    train=True,
    mutable=["batch_stats"],
    rngs={"dropout": keys[1]},
  )
  size = len(batch["ecg"])
  similarity = z[:size] @ z[size:].T
  top1 = jnp.mean(jnp.argmax(similarity, axis=1) == jnp.arange(size))
  patients = jnp.tile(batch["patient_id"], 2)
  losses = supervised_contrastive_losses(z, patients, config.temperature)
  return losses.mean(), (model_state, {"top1": top1})


@functools.cache
def _compare(config, place):
  """Returns (weights, batch) -> similarities, whole in every process."""
  module = make_module(config)

  def compare(weights, batch):
    variables = {"params": weights["params"], **weights["model_state"]}
    gallery = module.apply(variables, batch["reference_ecg"])
    return module.apply(variables, batch["ecg"]) @ gallery.T

  return jax.jit(compare, out_shardings=place)


def evaluate(
  config: Config, data: Any, frozen: Tree, weights: Tree, put: Callable
) -> dict:
  """Finds held-out patients by another recording: one pair of each, seeded."""
  del frozen
  patients, pairs, _ = splits.draw_gallery(
    data.validation, config.eval_patients, config.seed
  )
  if patients < 2:
    return {"patients": patients}
  batch = put(pipeline.gather_ecg_pairs(data.validation, pairs))
  place = sharding.replicated(batch["ecg"].sharding.mesh)
  similarity = np.asarray(_compare(config, place)(weights, batch))
  similarity, target = similarity[:patients, :patients], np.arange(patients)
  losses = optax.softmax_cross_entropy_with_integer_labels(
    similarity / config.temperature, target
  )
  strangers = ~np.eye(patients, dtype=bool)
  return {
    "loss": float(losses.mean()),
    "top1": float(found_within(similarity, target, 1).mean()),
    "top1_chance": 1 / patients,
    "top5": float(found_within(similarity, target, min(5, patients)).mean()),
    "equal_error_rate": equal_error_rate(
      np.diagonal(similarity), similarity[strangers]
    ),
    "patients": patients,
    "score": float(losses.mean()),
  }
