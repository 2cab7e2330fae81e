"""Whether latents that move as the ECG does are easier to draw.

  python -m studies.equivariant_latents --vae=TWIN --base_extractor=TWIN \\
    --rhythm=TWIN --data=SIM --test_data=OTHER_SIM

Goes on training an autoencoder, once as it is and once with two more errors in
its loss: a latent that is moved by some samples must decode to the ECG that is
moved so, and one of half the rate to the ECG of half the rate. Encodes the data
with either, goes on training the extractor, trains a denoiser from nothing, and
reports each autoencoder (studies.autoencoder_ablations) and each twin
(studies.three_seeds). What is there already is read. Writes
equivariant_latents.md.

Source: Kouzelis et al., arXiv 2502.09509, whose transformations are rotations
and scales of pictures.
"""

import argparse
import pathlib
from unittest import mock

import jax
import jax.numpy as jnp

from data_prep.encode import encode_with
from ecgtwin_jax.constants import LATENT_LENGTH, MODEL_SAMPLES
from ecgtwin_jax.data.dataset import load_split
from ecgtwin_jax.flags import load_config
from ecgtwin_jax.stages import vae
from ecgtwin_jax.training import train
from studies import ablations, autoencoder_ablations, held_out, three_seeds

INSIDE = MODEL_SAMPLES // LATENT_LENGTH  # samples of a position
WEIGHT = 0.25  # of either error beside that of the ECG as it is


def moved(latent: jax.Array, ecg: jax.Array, samples: jax.Array):
  """Both later by 1 .. 7 samples, without the first position and its samples.

  Between two positions the latent is on the straight line.
  """
  part = samples / INSIDE
  latent = (1 - part) * latent[:, 1:] + part * latent[:, :-1]
  ecg = jnp.roll(ecg, samples, axis=1)[:, INSIDE:]
  return latent, ecg


def at_half_rate(x: jax.Array) -> jax.Array:
  """Means of two neighbours each."""
  return x.reshape(x.shape[0], -1, 2, x.shape[2]).mean(axis=2)


def equivariant_loss(config, params, model_state, frozen, batch, rng):
  """That of stage 0, and what moved and half latents decode to."""
  total, rest = _loss(config, params, model_state, frozen, batch, rng)
  encoder, decoder = vae.make_modules(config)
  ecg = batch["ecg"]
  mean, log_variance = encoder.apply({"params": params["encoder"]}, ecg)
  # The same draw as in the loss that is added to.
  latent = mean + jnp.exp(log_variance / 2) * jax.random.normal(rng, mean.shape)
  samples = jax.random.randint(jax.random.fold_in(rng, 1), (), 1, INSIDE)
  pairs = (
    moved(latent, ecg, samples),
    (at_half_rate(latent), at_half_rate(ecg)),
  )
  for given, wanted in pairs:
    decoded = decoder.apply({"params": params["decoder"]}, given)
    error, _ = vae.losses(
      wanted, decoded, mean, log_variance, config.slope_weight
    )
    total += WEIGHT * error.mean() * ecg.shape[1] / wanted.shape[1]
  return total, rest


_loss = vae.loss
LOSSES = {"as it is": _loss, "equivariant": equivariant_loss}


def make_twin(arguments, folder: pathlib.Path) -> None:
  """Trains folder/vae, encodes, and makes folder/twin."""
  config = load_config(f"{three_seeds.ROOT}/configs/vae.py:small")
  config.update(data=arguments.data, init_from=arguments.vae, seed=31)
  config.update(steps=arguments.vae_steps, eval_every=arguments.vae_steps)
  config.optimizer.update(learning_rate=5e-4, final_learning_rate=2e-5)
  config.workdir = str(folder / "vae")
  train.train(config, config.workdir)
  latents = folder / "latents"
  if not latents.exists():
    encode_with(arguments.data, config.workdir, latents)
  extractor = load_config(f"{three_seeds.ROOT}/configs/stage1.py:small")
  extractor.update(data=arguments.data, latents=str(latents), seed=32)
  extractor.update(vae=config.workdir, init_from=arguments.base_extractor)
  extractor.update(steps=400, eval_every=400, workdir=str(folder / "stage1"))
  extractor.optimizer.learning_rate = 1e-3
  train.train(extractor, extractor.workdir)
  parts = dict(vae=config.workdir, base_extractor=extractor.workdir)
  given = {**vars(arguments), **parts, "latents": str(latents)}
  ablations.train_twin(argparse.Namespace(**given), folder, {})


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  for name in ("vae", "base_extractor", "rhythm", "data", "test_data"):
    parser.add_argument(f"--{name}", required=True)
  parser.add_argument("--vae_steps", type=int, default=600)
  parser.add_argument("--steps", type=int, default=800, help="of stage 2")
  parser.add_argument("--patients", type=int, default=100)
  parser.add_argument("--output", default="runs/equivariant_latents")
  arguments = parser.parse_args()
  output = pathlib.Path(arguments.output)
  ecgs = load_split(arguments.test_data, "test", kind="ecg")
  measures = autoencoder_ablations.MEASURES
  lines = ["| autoencoder | " + " | ".join(measures.values()) + " |"]
  lines.append("|---" * (len(measures) + 1) + "|")
  rows = {}
  for name, loss in LOSSES.items():
    folder = output / name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    with mock.patch.object(vae, "loss", loss):
      make_twin(arguments, folder)

    def measure(folder=folder):
      return autoencoder_ablations.measure(folder, ecgs)

    decoded = held_out.read_or_make(folder / "measured.json", measure)
    cells = [
      f"{value:.3g} ({low:.3g} to {high:.3g})"
      for value, low, high in (decoded[key] for key in measures)
    ]
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
    rows[name] = three_seeds.measure(
      folder / "reports",
      str(folder / "twin"),
      arguments.test_data,
      arguments.patients,
      {},
      measures=ablations.MEASURES,
      levels=ablations.LEVELS,
    )
  table = three_seeds.to_markdown("twin", rows, ablations.MEASURES)
  text = "\n".join([*lines, "", table])
  (output / "equivariant_latents.md").write_text(text + "\n")
  print(text)


if __name__ == "__main__":
  main()
