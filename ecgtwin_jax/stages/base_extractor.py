"""Stage 1: the Individual Base Extractor, trained by contrast.

The two recordings of a pair are to find each other among all pairs of the
batch, each seen together with its own condition.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from ecgtwin_jax.data import pipeline
from ecgtwin_jax.models.base_extractor import BaseExtractor, contrastive_logits
from ecgtwin_jax.stages import splits

# What stands for "no candidate": finite, so that no gradient is NaN.
_EXCLUDED = -1e9


def load_data(config) -> splits.Splits:
  return splits.load_pairs(config)


def load_frozen(config, data) -> dict:
  numbers = splits.latent_numbers(config, data.train.card)
  return {
    "table": data.train.table.embeddings,
    "scale": splits.scale_array(numbers["latent_scale"]),
  }


def hyper(config, data) -> dict:
  return {
    "part": "base_extractor",
    "model": config.model.to_dict(),
    "statement_encoder": data.train.table.encoder,
    "vae": data.train.card["vae"],
    **splits.latent_numbers(config, data.train.card),
  }


def batches(config, data, start, process_index, process_count):
  return pipeline.pair_batches(
    data.train,
    config.batch_size,
    config.seed,
    uniform_over=config.uniform_over,
    process_index=process_index,
    process_count=process_count,
    start_step=start,
  )


def make_module(config) -> BaseExtractor:
  return BaseExtractor(
    **config.model, remat=config.remat, dtype=jnp.dtype(config.precision)
  )


def init(rng, config):
  module = make_module(config)
  latent = jnp.zeros((1, 128, module.latent_channels))
  statements = jnp.zeros((1, 1, module.text_width))
  mask, patient = jnp.ones((1, 1), bool), jnp.zeros((1, 3))
  variables = module.init(rng, latent, statements, mask, patient)
  return variables["params"], {}


def contrastive_losses(
  logits: Float[Array, "b b"], same: Bool[Array, "b b"] | None = None
) -> Float[Array, " b"]:
  """Symmetric InfoNCE: (-log softmax_row - log softmax_column of [i, i]) / 2.

  Args:
    logits: temperature times similarity.
    same: pairs that are no negatives of each other; the diagonal is ignored.

  Source: Radford et al. 2021 (CLIP), figure 3.
  """
  diagonal = jnp.arange(logits.shape[0])
  if same is not None:
    same = same & (diagonal[:, None] != diagonal[None, :])
    logits = jnp.where(same, _EXCLUDED, logits)
  cross_entropy = optax.softmax_cross_entropy_with_integer_labels
  both = cross_entropy(logits, diagonal) + cross_entropy(logits.T, diagonal)
  return both / 2


def _drop_text(config, rng, batch_size):
  """Which rows are seen without their text; one draw per batch as published."""
  shape = () if config.text_dropout_per == "batch" else (batch_size,)
  drop = jax.random.bernoulli(rng, config.text_dropout, shape)
  return jnp.broadcast_to(drop, (batch_size,))


def _extract_both(config, params, frozen, batch, latents, drop_text=None):
  """Base vectors (b, w) of the reference and of the target of each pair.

  In one call, so that devices reduce one gradient and not one of each side.
  Both of a pair lie together: every device keeps its own rows.
  """

  def join(reference, target):
    both = jnp.stack([reference, target], axis=1)
    return both.reshape(-1, *both.shape[2:])

  def own(name):
    return join(batch["reference_" + name], batch[name])

  statements, mask = splits.gather_statements(
    frozen["table"], own("statement_ids")
  )
  bases = make_module(config).apply(
    {"params": params},
    join(*latents),
    statements,
    mask,
    own("patient"),
    drop_text=None if drop_text is None else join(drop_text, drop_text),
  )
  bases = bases.reshape(-1, 2, bases.shape[-1])
  return bases[:, 0], bases[:, 1]


def loss(config, params, model_state, frozen, batch, rng):
  """Symmetric InfoNCE over the batch; both texts of a pair drop together."""
  keys = jax.random.split(rng, 3)
  size = batch["patient_id"].shape[0]
  drop = _drop_text(config, keys[0], size)
  latents = [
    splits.draw_latent(
      key, batch[prefix + "mean"], batch[prefix + "std"], frozen["scale"]
    )
    for key, prefix in ((keys[1], "reference_"), (keys[2], ""))
  ]
  bases = _extract_both(config, params, frozen, batch, latents, drop)
  logits = contrastive_logits(*bases, params["logit_scale"])
  patients = batch["patient_id"]
  same = None
  if not config.same_patient_negatives:
    same = patients[:, None] == patients[None, :]
  top1 = jnp.mean(jnp.argmax(logits, axis=1) == jnp.arange(size))
  metrics = {"top1": top1, "logit_scale": params["logit_scale"]}
  total = contrastive_losses(logits, same).mean()
  return total, (model_state, metrics)


@functools.partial(jax.jit, static_argnums=0)
def _evaluate_gallery(config, params, frozen, batch):
  """Retrieval among different patients, from the latents' means."""
  means = [batch[name] * frozen["scale"] for name in ("reference_mean", "mean")]
  bases = _extract_both(config, params, frozen, batch, means)
  logits = contrastive_logits(*bases, params["logit_scale"])
  valid = batch["valid"]
  logits = jnp.where(valid[:, None] & valid[None, :], logits, _EXCLUDED)
  found = jnp.argmax(logits, axis=1) == jnp.arange(len(valid))
  cosine = jnp.diagonal(logits) / jnp.exp(params["logit_scale"])
  rows = {
    "loss": contrastive_losses(logits),
    "top1": found,
    "positive_cosine": cosine,
  }
  return {
    name: jnp.sum(jnp.where(valid, value, 0)) / jnp.sum(valid)
    for name, value in rows.items()
  }


def evaluate(config, data, frozen, weights, put) -> dict:
  """Finds held-out patients' other recording: one pair of each, seeded.

  The score is the loss, which sees the negatives: the cosine of positive
  pairs alone is best where everybody looks alike.
  """
  first, count = data.validation.pairs.patients()
  patients = min(len(first), config.eval_patients)
  if patients < 2:
    return {"patients": patients}
  rng = np.random.default_rng(config.seed)
  chosen = rng.permutation(len(first))[:patients]
  pairs = first[chosen] + rng.integers(0, count[chosen])
  padded = -(-patients // jax.device_count()) * jax.device_count()
  share = np.array_split(np.arange(padded), jax.process_count())
  rows = share[jax.process_index()]
  batch = pipeline.gather_pairs(
    data.validation, pairs[np.minimum(rows, patients - 1)]
  )
  batch["valid"] = rows < patients
  metrics = _evaluate_gallery(config, weights["params"], frozen, put(batch))
  metrics = {name: float(value) for name, value in metrics.items()}
  chance = 1 / patients
  return {
    **metrics,
    "top1_chance": chance,
    "patients": patients,
    "score": metrics["loss"],
  }
