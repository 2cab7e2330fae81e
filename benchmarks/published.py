"""The published sizes with seeded random weights, ours and PyTorch's alike."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from ecgtwin_jax.diffusion.schedule import Schedule
from ecgtwin_jax.inference.twin import ECGTwin
from ecgtwin_jax.text.statements import StatementTable, get_encoder
from ecgtwin_jax.torch_import import convert

STATEMENTS = ("Sinus rhythm", "Normal ECG", "Left axis deviation")
_SCALE = 0.18215


def reports(rng, rows: int, table: int, longest: int = 6) -> np.ndarray:
  """Random statement ids (rows, longest), 1 to `longest`, padded with -1."""
  counts = rng.integers(1, longest + 1, (rows, 1))
  counts[0] = longest
  ids = rng.integers(0, table, (rows, longest))
  return np.where(np.arange(longest) < counts, ids, -1).astype(np.int32)


def training_rows(rng, rows: int, table: int) -> dict[str, np.ndarray]:
  """Random latents and conditions, as a data set's batch holds them."""
  return {
    "mean": rng.standard_normal((rows, 128, 4), np.float32),
    "std": np.full((rows, 128, 4), 0.1, np.float32),
    "statement_ids": reports(rng, rows, table),
    "patient": rng.standard_normal((rows, 3)).astype(np.float32),
  }


def text_of(table: np.ndarray, ids: np.ndarray):
  """What PyTorch is given in place of ids: (embedded statements, mask)."""
  mask = ids >= 0
  return np.where(mask[..., None], table[ids], 0).astype(np.float32), mask


def condition(rng, rows: int, statements: int = 3) -> dict[str, np.ndarray]:
  """Random (text, mask, patient, base) of one denoiser call."""
  return {
    "text": rng.standard_normal((rows, statements, 768), np.float32) / 28,
    "mask": np.ones((rows, statements), bool),
    "patient": rng.standard_normal((rows, 3)).astype(np.float32),
    "base": rng.standard_normal((rows, 256)).astype(np.float32),
  }


@functools.cache
def variables(name: str) -> dict:
  """Our variables of a published network, by its initial distribution."""
  module = convert.published(name)
  latent, signal = jnp.zeros((1, 128, 4)), jnp.zeros((1, 1024, 12))
  one = (jnp.zeros((1, 1, 768)), jnp.ones((1, 1), bool), jnp.zeros((1, 3)))
  arguments = {
    "vae_encoder": (signal,),
    "vae_decoder": (latent,),
    "base_extractor": (latent, *one),
    "denoiser_adax": (latent, jnp.zeros(1, int), *one, jnp.zeros((1, 256))),
  }[name]
  return jax.jit(module.init)(jax.random.key(0), *arguments)


def make_parts() -> dict:
  """A twin's parts of published sizes, as ECGTwin takes them."""

  def sizes(name):
    return convert.sizes(convert.published(name))

  vae = {
    part: variables(f"vae_{part}")["params"] for part in ("encoder", "decoder")
  }
  models = {part: sizes(f"vae_{part}") for part in vae}
  denoiser = {
    "model": sizes("denoiser_adax"),
    "schedule": dataclasses.asdict(Schedule()),
    "timesteps": [0, 999],
    "dropout": {"statements": 0.0, "patient": 0.0, "base": 0.0},
    "latent_scale": _SCALE,
    "latent_clip": 1.0,
    "statement_encoder": "hashed-v1",
  }
  extractor = {"model": sizes("base_extractor"), "latent_scale": _SCALE}
  parts = {
    "vae": ({"model": models}, {"params": vae}),
    "base_extractor": (extractor, variables("base_extractor")),
    "denoiser": (denoiser, variables("denoiser_adax")),
  }
  return {
    part: ({"part": part, **hyper}, jax.tree.map(np.asarray, trees))
    for part, (hyper, trees) in parts.items()
  }


def make_table() -> StatementTable:
  return StatementTable.from_encoder(list(STATEMENTS), get_encoder("hashed-v1"))


def make_twin(precision: str) -> ECGTwin:
  """A twin of published sizes whose products are of that type."""
  twin = ECGTwin(make_parts(), make_table(), "random")
  modules = twin.networks.modules
  for name, module in modules.items():
    modules[name] = module.clone(dtype=jnp.dtype(precision))
  return twin
