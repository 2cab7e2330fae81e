"""The data of a stage, and the arrays that stages 1 and 2 make of a batch."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from ecgtwin_jax.data.dataset import Dataset
from ecgtwin_jax.data.mixture import load_mixture
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.stages import Config
from ecgtwin_jax.training import checkpoint


class Splits(NamedTuple):
  """Recordings to train on and recordings held out, by patient."""

  train: Dataset
  validation: Dataset

  @property
  def fingerprint(self) -> str:
    """Identifies the training data, to be compared on resume."""
    return self.train.card["fingerprint"]

  def names(self, rows: np.ndarray) -> list[str]:
    """Names of the training records in these rows."""
    return self.train.record_names(rows)


def load_splits(given: str, kind: str) -> Splits:
  """Reads the training and the validation split of one data set or several.

  Args:
    given: as `data.mixture.parse_parts` has it.
    kind: "ecg" or "latent".
  """
  return Splits(
    *(load_mixture(given, s, kind=kind) for s in ("train", "validation"))
  )


class Gallery(NamedTuple):
  """Held-out patients that are to find each other, a pair of each.

  Attributes:
    patients: how many, over all processes.
    pairs: numbers of this process's pairs; the last is repeated where the
      devices want more.
    valid: False for what is repeated.
  """

  patients: int
  pairs: Int[np.ndarray, " b"]
  valid: Bool[np.ndarray, " b"]


def draw_gallery(data: Dataset, limit: int, seed: int) -> Gallery:
  """Draws patients and a pair of each; of fewer than two patients, nobody.

  Args:
    data: the held-out recordings.
    limit: largest number of patients.
    seed: seed of the draw.
  """
  first, count = data.pairs.patients()
  patients = min(len(first), limit)
  if patients < 2:
    return Gallery(patients, np.zeros(0, int), np.zeros(0, bool))
  rng = np.random.default_rng(seed)
  chosen = rng.permutation(len(first))[:patients]
  pairs = first[chosen] + rng.integers(0, count[chosen])
  padded = -(-patients // jax.device_count()) * jax.device_count()
  share = np.array_split(np.arange(padded), jax.process_count())
  rows = share[jax.process_index()]
  return Gallery(
    patients, pairs[np.minimum(rows, patients - 1)], rows < patients
  )


def _skip(data: Splits, choose: Callable, words: str) -> Splits:
  """Leaves out what `choose`, split -> (kept, count of others), does not keep.

  Process 0 says how many those are, and with `words` why.
  """
  parts = []
  for split in data:
    kept, dropped = choose(split)
    if dropped and jax.process_index() == 0:
      print(f"{split.split}: {dropped} of {len(split)} recordings {words}")
    parts.append(kept)
  return Splits(*parts)


def skip_unreported(data: Splits) -> Splits:
  """Leaves out the recordings without a report, and says how many."""
  return _skip(
    data, lambda split: split.with_reports(), "have no report and are skipped"
  )


def load_pairs(config: Config) -> Splits:
  """Reads the latents that stages 1 and 2 train on.

  Recordings without a report are left out. A model without a null condition
  cannot take a missing age or sex: such recordings are left out, too. How many
  is said. With config.own_recordings each recording to train on that has no
  other is a pair with itself; held-out pairs stay those of two recordings.
  """
  data = load_splits(config.latents, "latent")
  data = trim_reports(skip_unreported(data))
  check_latents(config, data.train.card)
  if not config.model.null_condition:
    data = _skip(
      data,
      lambda split: split.without_missing(),
      "lack age or sex and are skipped (config.model.null_condition=False)",
    )
  if config.own_recordings:
    train = dataclasses.replace(data.train, own_references=True)
    data = data._replace(train=train)
  return data


def trim_reports(data: Splits) -> Splits:
  """Leaves out the padding behind the longest report: attention to it is 0."""
  counts = [(split.statement_ids >= 0).sum(axis=1) for split in data]
  longest = np.concatenate(counts).max(initial=1)
  return Splits(
    *(
      dataclasses.replace(s, statement_ids=s.statement_ids[:, :longest])
      for s in data
    )
  )


def gather_statements(
  table: Float[Array, "table e"], ids: Int[Array, "b s"]
) -> tuple[Float[Array, "b s e"], Bool[Array, "b s"]]:
  """Looks up statements on the device; ids of -1 are padding (zeros)."""
  mask = ids >= 0
  return jnp.where(mask[..., None], table[jnp.where(mask, ids, 0)], 0), mask


def draw_latent(
  rng: Key[Array, ""],
  mean: Float[Array, "b l c"],
  std: Float[Array, "b l c"],
  scale: Float[Array, "..."],
) -> Float[Array, "b l c"]:
  """Draws scaled latents, (mean + std eps) * scale, eps of the global batch.

  The scale is one number, or (1, 1, c), one per channel; see `scale_array`.
  """
  return (mean + std * jax.random.normal(rng, mean.shape)) * scale


def scale_array(scale: float | Sequence[float]) -> np.ndarray:
  """Returns a latent's scale, one number or one per channel, (1, 1, c)."""
  return np.asarray(scale, np.float32).reshape(1, 1, -1)


def latent_numbers(
  config: Config, card: dict
) -> dict[str, float | list[float]]:
  """Returns the latent's scale and clip range: the config's, or as measured.

  A measured scale may be a list of one number per channel.

  Args:
    config: a configuration with latent_scale and, in stage 2, latent_clip;
      None: measured.
    card: the card of the latents' data set.
  """
  numbers = {"latent_scale": config.latent_scale}
  if "latent_clip" in config:
    numbers["latent_clip"] = config.latent_clip
  return {
    name: np.asarray(card[name] if value is None else value, float).tolist()
    for name, value in numbers.items()
  }


def require_beats(config: Config, data: Splits) -> None:
  """Refuses latents that were encoded without median beats.

  Raises:
    ValueError: naming the command that mends it.
  """
  for split in data:
    if "median_beat" not in split.arrays:
      raise ValueError(
        f"config.latents={config.latents!r} holds no median beats, which an"
        " extractor with median_beat=True needs: encode again with `python"
        f" -m data_prep encode --data ECGS --vae {config.vae} --output DIR`"
      )


def check_latents(config: Config, card: dict) -> None:
  """Refuses latents that another autoencoder made.

  Raises:
    ValueError: naming both.
  """
  _, variables = checkpoint.load_weights(config.vae, "vae")
  digest = twin_directory.digest(variables["params"]["encoder"])
  if card["vae"] != digest:
    raise ValueError(
      f"config.latents={config.latents!r} was encoded by autoencoder "
      f"{card['vae'][:12]}, but config.vae={config.vae!r} is {digest[:12]}: "
      "encode again, or name the other one"
    )
