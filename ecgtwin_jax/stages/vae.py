"""Stage 0: the variational autoencoder of 10 s, 12-lead ECGs.

Batches:

  ecg    (b, 1024, 12)  mV
  index  (b,)           row of the split
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ecgtwin_jax.constants import MODEL_SAMPLES
from ecgtwin_jax.data import pipeline
from ecgtwin_jax.models.vae import Decoder, Encoder
from ecgtwin_jax.stages import Batch, Config, Tree
from ecgtwin_jax.stages.losses import correlation, mean_of_sums
from ecgtwin_jax.stages.splits import Splits, load_splits


def load_data(config: Config) -> Splits:
  return load_splits(config.data, "ecg")


def load_frozen(config: Config, data: Any) -> dict:
  del config, data
  return {}


def hyper(config: Config, data: Any) -> dict:
  return {
    "part": "vae",
    "model": config.model.to_dict(),
    "statement_encoder": data.train.table.encoder,
  }


def batches(
  config: Config, data: Any, start: int, process_index: int, process_count: int
) -> Iterator[Batch]:
  return pipeline.ecg_batches(
    data.train,
    config.batch_size,
    config.seed,
    process_index=process_index,
    process_count=process_count,
    start_step=start,
  )


def make_modules(config: Config) -> tuple[Encoder, Decoder]:
  options = dict(remat=config.remat, dtype=jnp.dtype(config.precision))
  # Unscaled here: the scale is measured on the latents of the trained one.
  return (
    Encoder(**config.model.encoder, **options),
    Decoder(**config.model.decoder, **options, scale=1.0),
  )


def init(rng: Array, config: Config) -> tuple[Tree, Tree]:
  encoder, decoder = make_modules(config)
  keys = jax.random.split(rng)
  signal = jnp.zeros((1, MODEL_SAMPLES, 12))
  latent, _ = jax.eval_shape(
    lambda: encoder.init_with_output(keys[0], signal)[0]
  )
  params = {
    "encoder": encoder.init(keys[0], signal)["params"],
    "decoder": decoder.init(keys[1], jnp.zeros(latent.shape))["params"],
  }
  return params, {}


def losses(
  ecg: Float[Array, "b n k"],
  decoded: Float[Array, "b n k"],
  mean: Float[Array, "b l c"],
  log_variance: Float[Array, "b l c"],
  slope_weight: float = 0.0,
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
  """Per example: squared error, and the KL summed over c, mean over l.

  With e = x - x': sum e^2 + slope_weight (e[t + 1] - e[t])^2 and
  KL = (mean^2 + var - 1 - log var) / 2. Source: the released training code of
  the paper, by its description; there slope_weight is 0.
  """
  difference = ecg - decoded
  error = jnp.sum(jnp.square(difference), axis=(1, 2))
  if slope_weight:
    slope = jnp.diff(difference, axis=1)
    error += slope_weight * jnp.sum(jnp.square(slope), axis=(1, 2))
  kl = jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance
  return error, jnp.mean(jnp.sum(kl / 2, axis=2), axis=1)


def loss(
  config: Config,
  params: Tree,
  model_state: Tree,
  frozen: Tree,
  batch: Batch,
  rng: Array,
) -> tuple[Array, tuple[Tree, dict[str, Array]]]:
  """Weighted squared error, over samples and leads, + kl_weight * KL."""
  del frozen
  encoder, decoder = make_modules(config)
  mean, log_variance = encoder.apply(
    {"params": params["encoder"]}, batch["ecg"]
  )
  noise = jax.random.normal(rng, mean.shape)
  latent = mean + jnp.exp(log_variance / 2) * noise
  decoded = decoder.apply({"params": params["decoder"]}, latent)
  error, kl = losses(
    batch["ecg"],
    decoded,
    mean,
    log_variance,
    config.slope_weight,
  )
  metrics = {"reconstruction": error.mean(), "kl": kl.mean()}
  total = error.mean() + config.kl_weight * kl.mean()
  return total, (model_state, metrics)


@functools.partial(jax.jit, static_argnums=0)
def _evaluate_batch(config, params, batch):
  """Sums over the batch's valid rows, from the latent's mean."""
  encoder, decoder = make_modules(config)
  mean, log_variance = encoder.apply(
    {"params": params["encoder"]}, batch["ecg"]
  )
  decoded = decoder.apply({"params": params["decoder"]}, mean)
  error, kl = losses(
    batch["ecg"],
    decoded,
    mean,
    log_variance,
    config.slope_weight,
  )
  squared = jnp.mean(jnp.square(batch["ecg"] - decoded), axis=(1, 2))
  rows = {
    "loss": error + config.kl_weight * kl,
    "correlation": correlation(batch["ecg"], decoded).mean(axis=1),
    "rmse_mv": jnp.sqrt(squared),
    "recordings": jnp.ones_like(error),
  }
  stds = jnp.exp(log_variance / 2).mean(axis=1)
  for channel in range(stds.shape[1]):
    rows[f"posterior_std_{channel}"] = stds[:, channel]
  return {k: jnp.sum(jnp.where(batch["valid"], v, 0)) for k, v in rows.items()}


def check(config: Config, step: int, evaluation: dict) -> None:
  """Refuses a dead channel of the latent in the second half of a training.

  A channel whose posterior stays near the prior N(0, 1) says nothing of the
  ECG, does not come back by itself, and is noise that stage 2 learns to draw.

  Args:
    config: a configuration with max_posterior_std; None: never refused.
    step: after which was evaluated.
    evaluation: what `evaluate` returned.

  Raises:
    ValueError: names the channel, its posterior's std and the bound.
  """
  bound = config.max_posterior_std
  if bound is None or step < config.steps / 2:
    return
  stds = [
    (name.removeprefix("posterior_std_"), value)
    for name, value in evaluation.items()
    if name.startswith("posterior_std_")
  ]
  dead = [f"{channel} ({std:.2f})" for channel, std in stds if std > bound]
  if dead:
    raise ValueError(
      f"dead channels of the latent after step {step}: {', '.join(dead)}; the "
      f"posterior's std on unseen ECGs must be at most {bound} in the second "
      "half of a training (config.max_posterior_std): start again with another "
      "config.seed, a smaller config.kl_weight or fewer "
      "config.model.*.latent_channels"
    )


def evaluate(
  config: Config, data: Any, frozen: Tree, weights: Tree, put: Callable
) -> dict:
  """Reconstruction of held-out recordings from the latent's mean."""
  del frozen
  totals = []
  for batch in pipeline.eval_ecg_batches(
    data.validation,
    config.batch_size,
    limit=config.eval_records,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  ):
    totals.append(_evaluate_batch(config, weights["params"], put(batch)))
  return mean_of_sums(totals, "recordings")
