"""The autoencoder without one thing at a time, at equal budget.

  python -m studies.autoencoder_ablations --data=SIM --test_data=OTHER_SIM

Trains the autoencoder `small` of a few hundred steps once as it is and once
with each change, and measures it on patients whom no training has met: what
decoding leaves out, whether decoded second recordings find their patient among
100 (the recordings themselves: last row), and the largest std of a channel's
posterior (1: dead). Intervals: 95%, bootstrap over patients. What is there
already is read. Writes autoencoder_ablations.md.
"""

import argparse
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from ecgtwin_jax.constants import MODEL_RATE
from ecgtwin_jax.data.dataset import load_split
from ecgtwin_jax.evaluation import generate_examples
from ecgtwin_jax.evaluation.metric import bootstrap_interval
from ecgtwin_jax.evaluation.person.identification import Identity
from ecgtwin_jax.flags import load_config
from ecgtwin_jax.models.vae import Decoder, Encoder
from ecgtwin_jax.ranking import found_within
from ecgtwin_jax.training import checkpoint, train
from studies import held_out, three_seeds


def both_parts(**sizes):
  return {
    f"model.{part}.{key}": value
    for part in ("encoder", "decoder")
    for key, value in sizes.items()
  }


CHANGES = {
  "as it is": {},
  "twelve leads": both_parts(independent_leads=False),
  "four channels": both_parts(latent_channels=4),
  "weight of the KL 1, as published": {"kl_weight": 1.0},
  "no weight of slopes": {"slope_weight": 0.0},
  "AdamW": {"optimizer.muon": False},
}
MEASURES = {
  "rms_uv": "left out above 0.7 Hz, uV ↓",
  "slope_uv": "of first differences, uV ↓",
  "found": "right patient of 100 ↑",
  "std": "largest posterior std ↓",
}
PATIENTS = 200  # of the split, at most
GALLERY = 100  # patients of a search
_ROWS = 64  # of a call
_WANDER_HZ = 0.7  # baseline wander lies below, heart rates from 42 bpm above


def train_one(arguments, folder: pathlib.Path, changes: dict) -> None:
  """Makes the run `folder`/vae."""
  config = load_config(f"{three_seeds.ROOT}/configs/vae.py:small")
  config.update(data=arguments.data, steps=arguments.steps)
  config.update(eval_every=arguments.steps, workdir=str(folder / "vae"))
  with config.ignore_type():
    config.update_from_flattened_dict({**changes, "max_posterior_std": None})
  train.train(config, config.workdir)


def slow_waves(length: int) -> np.ndarray:
  """Orthonormal cosines of up to 0.7 Hz, (length, waves): baseline wander."""
  count = int(2 * _WANDER_HZ * length / MODEL_RATE) + 1
  time = (np.arange(length)[:, None] + 0.5) / length
  waves = np.cos(np.pi * time * np.arange(count))
  return waves / np.linalg.norm(waves, axis=0)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _through(encoder, decoder, params, signals):
  mean, log_variance = encoder.apply({"params": params["encoder"]}, signals)
  decoded = decoder.apply({"params": params["decoder"]}, mean)
  return decoded, jnp.exp(log_variance / 2).mean(axis=1)


def decode(folder: pathlib.Path, signals: np.ndarray):
  """Signals (n, 1024, 12) from the means of their latents, and stds (n, c)."""
  hyper, weights = checkpoint.load_weights(str(folder / "vae"), "vae")
  sizes = hyper["model"]
  modules = Encoder(**sizes["encoder"]), Decoder(**sizes["decoder"], scale=1.0)
  parts = [
    _through(*modules, weights["params"], signals[i : i + _ROWS])
    for i in range(0, len(signals), _ROWS)
  ]
  return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def measure(folder: pathlib.Path | None, data) -> dict:
  """{measure: [value, low, high]}; None: of the recordings themselves."""
  choice = generate_examples.choose(data, PATIENTS, 4, seed=0)
  patients = data.patient_number[choice.targets]
  _, first, target = np.unique(patients, return_index=True, return_inverse=True)
  listed = choice.references[first]
  gallery = generate_examples.signals_mv(data, listed)
  second = ~np.isin(choice.targets, listed)
  real = generate_examples.signals_mv(data, choice.targets[second])
  decoded, stds = (real, np.zeros((len(real), 1)))
  if folder is not None:
    decoded, stds = decode(folder, real)
  identity = Identity()
  similarity = identity.embed(decoded) @ identity.embed(gallery).T
  found = found_within(similarity, target[second], 1, min(GALLERY, len(first)))
  error = 1000 * (real - decoded)
  waves = slow_waves(error.shape[1])
  slow = np.einsum("tw,nwk->ntk", waves, np.einsum("ntk,tw->nwk", error, waves))
  rms = np.sqrt(np.square(error - slow).mean(axis=(1, 2)))
  slopes = np.sqrt(np.square(np.diff(error, axis=1)).mean(axis=(1, 2)))
  statistics = {
    "rms_uv": lambda rows: rms[rows].mean(),
    "slope_uv": lambda rows: slopes[rows].mean(),
    "found": lambda rows: found[rows].mean(),
    "std": lambda rows: stds[rows].mean(axis=0).max(),
  }
  return {
    name: [
      float(statistic(np.arange(len(real)))),
      *bootstrap_interval(statistic, patients[second], repeats=1000),
    ]
    for name, statistic in statistics.items()
  }


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--data", required=True, help="ECGs to train on")
  parser.add_argument("--test_data", required=True, help="a cohort of others")
  parser.add_argument("--steps", type=int, default=600)
  parser.add_argument("--output", default="runs/autoencoder_ablations")
  arguments = parser.parse_args()
  output = pathlib.Path(arguments.output)
  data = load_split(arguments.test_data, "test", kind="ecg")
  lines = ["| change | " + " | ".join(MEASURES.values()) + " |"]
  lines.append("|---" * (len(MEASURES) + 1) + "|")
  for name, changes in {**CHANGES, "real recordings": None}.items():
    folder = output / name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    trained = folder if changes is not None else None
    if trained:
      train_one(arguments, folder, changes)
    row = held_out.read_or_make(
      folder / "measured.json", functools.partial(measure, trained, data)
    )
    cells = [
      f"{value:.3g} ({low:.3g} to {high:.3g})"
      for value, low, high in (row[key] for key in MEASURES)
    ]
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
    (output / "autoencoder_ablations.md").write_text("\n".join(lines) + "\n")
  print("\n".join(lines))


if __name__ == "__main__":
  main()
