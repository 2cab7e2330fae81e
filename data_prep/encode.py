"""ECGs into latents and beats: a data set for stages 1 and 2."""

import functools
import os
import pathlib
from collections.abc import Callable, Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from data_prep.beats import FindBeats, open_finder
from data_prep.writing import write
from ecgtwin_jax.beats import rhythm
from ecgtwin_jax.data.dataset import SPLITS, Dataset, load_card, load_split
from ecgtwin_jax.data.latents import DRAWS, measure_scale
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.models.vae import Encoder
from ecgtwin_jax.text.statements import StatementTable
from ecgtwin_jax.training import checkpoint

PER_SHARD = 4096  # latents: a multiple of usual batches, so that few are padded


def encode_with(
  data: str | os.PathLike,
  vae: str | os.PathLike,
  output: str | os.PathLike,
  *,
  batch_size: int = 256,
  workers: int = 1,
) -> pathlib.Path:
  """Encodes a data set of ECGs with a trained autoencoder; see `encode`.

  Args:
    data: directory of the ECGs.
    vae: workdir of a run, a checkpoint of it, or a twin directory.
    output: directory of the latents.
    batch_size: ECGs per call, on all local devices together.
    workers: processes that find the beats; more than one must be started from
      a program whose main module is guarded by `if __name__ == "__main__"`.
  """
  load_card(data)  # the quicker failure first
  hyper, variables = checkpoint.load_weights(vae, "vae")
  encoder = Encoder(**hyper["model"]["encoder"])
  params = variables["params"]["encoder"]
  return encode(
    data, output, encoder, params, batch_size=batch_size, workers=workers
  )


def encode(
  data: str | os.PathLike,
  output: str | os.PathLike,
  encoder: nn.Module,
  params: dict,
  *,
  batch_size: int = 256,
  workers: int = 1,
) -> pathlib.Path:
  """Writes mean and std of every ECG's latent, unscaled, as float16.

  Beside them stand the beats that `beats.rhythm` finds in the ECG.
  The card gets the digest of the encoder's parameters as `vae`, and two things
  measured on 16,384 draws mean + std * noise, spread evenly over the training
  split: `latent_scale` is 1 / std of the draws, per channel, and `latent_clip`
  the range within which 99.99 % of their scaled values lie.

  Args:
    data: directory of the ECGs.
    output: directory of the latents.
    encoder: maps ({"params": params}, ecg in mV) to mean and log-variance.
    params: parameters of the encoder.
    batch_size: ECGs per call, on all local devices together.
    workers: processes that find the beats; more than one must be started from
      a program whose main module is guarded by `if __name__ == "__main__"`.

  Returns:
    The directory of the latents.

  Raises:
    ValueError: there are no ECGs to train on, the encoder gives no finite
      latent, or something else is at the output.
  """
  datasets = {s: load_split(data, s, kind="ecg") for s in SPLITS}
  if not len(datasets["train"]):
    raise ValueError(
      f"split 'train' of {data} holds 0 recordings: there is nothing to measure"
      " the scale of the latents on"
    )
  card = datasets["train"].card
  digest = twin_directory.digest(params)
  apply = _make_apply(encoder, params, card["scale"], batch_size)
  total = sum(map(len, datasets.values()))
  with open_finder(workers, card["scale"], total) as find:
    return write(
      output,
      name=card["name"],
      kind="latent",
      options={
        "source": card["fingerprint"],
        "vae": digest,
        "beats": rhythm.VERSION,
      },
      shards={
        split: [
          functools.partial(_examples, apply, find, dataset, start)
          for start in range(0, max(1, len(dataset)), PER_SHARD)
        ]
        for split, dataset in datasets.items()
      },
      make_table=lambda: StatementTable.load(data),
      total=total,
      card={
        "vae": digest,
        "source": card["options"],
        "licence": card.get("licence", ""),
      },
      latent_channels=encoder.latent_channels,
      measure=_measure,
    )


Apply = Callable[[np.ndarray], Iterator[tuple[np.ndarray, np.ndarray]]]


def _make_apply(encoder, params, scale: float, batch_size: int) -> Apply:
  """Returns the function from int16 ECGs to batches of (mean, std)."""
  devices = jax.local_devices()
  mesh = Mesh(np.array(devices), ("data",))
  rows = NamedSharding(mesh, P("data"))
  params = jax.device_put(params, NamedSharding(mesh, P()))
  size = -(-batch_size // len(devices)) * len(devices)

  @functools.partial(jax.jit, out_shardings=rows)
  def step(params, ecg):
    ecg = ecg.astype(jnp.float32) * scale
    mean, log_variance = encoder.apply({"params": params}, ecg)
    std = jnp.exp(log_variance / 2)
    return mean.astype(jnp.float16), std.astype(jnp.float16)

  def apply(ecgs):
    waiting = None
    for start in range(0, len(ecgs), size):
      part = ecgs[start : start + size]
      padded = np.zeros((size, *part.shape[1:]), part.dtype)
      padded[: len(part)] = part
      # The device works on this batch while the one before is written.
      started = len(part), step(params, jax.device_put(padded, rows))
      if waiting is not None:
        yield _fetch(*waiting)
      waiting = started
    if waiting is not None:
      yield _fetch(*waiting)

  return apply


def _fetch(count, results):
  return tuple(np.asarray(array)[:count] for array in results)


def _examples(apply: Apply, find: FindBeats, dataset: Dataset, start: int):
  ecgs = dataset.arrays["ecg"][start : start + PER_SHARD]
  row = start
  beats = find(ecgs)
  for means, stds in apply(ecgs):
    # Beats come last: zip takes none too many where a batch ends.
    for mean, std, found in zip(means, stds, beats):
      name = str(dataset.record_id[row])
      if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise ValueError(
          f"the autoencoder gives no finite latent for recording {name!r}"
        )
      yield (
        name,
        {
          "mean": mean,
          "std": std,
          **found,
          "record_id": name,
          "patient_id": str(dataset.patient_id[row]),
          "time": int(dataset.time[row]),
          "heart_rate": float(dataset.heart_rate[row]),
          "age": float(dataset.age[row]),
          "sex": int(dataset.sex[row]),
          "statement_ids": dataset.statement_ids[row],
        },
      )
      row += 1


def _measure(directory: pathlib.Path) -> dict[str, float | list[float]]:
  """Returns latent_scale and latent_clip of the training split."""
  train = load_split(directory, "train", kind="latent")
  rows = np.linspace(0, len(train) - 1, DRAWS).astype(np.int64)
  return measure_scale(train.arrays["mean"][rows], train.arrays["std"][rows])
