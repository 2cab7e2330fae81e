"""Stage 2 without one thing at a time, at equal budget: what each one gains.

  python -m studies.ablations --vae=DIR --latents=DIR --base_extractor=DIR \\
    --rhythm=DIR --data=DIR --test_data=DIR

Trains the denoiser `small` on the same latents from the same seed, once as it
is and once with each change, and reports each twin by three seeds of sampling
(studies.three_seeds) on patients whom no training has met. What is there
already is read; a training that was stopped goes on. Writes ablations.md.
"""

import argparse
import pathlib
import time

from ecgtwin_jax.data.dataset import load_split
from ecgtwin_jax.flags import load_config
from ecgtwin_jax.jobs.train import assemble
from ecgtwin_jax.training import train
from studies import held_out, three_seeds

CHANGES = {
  "as it is": {},
  "no beat sketch": {"model.beat_sketch": 0},
  "no attention to other beats": {"model.beat_attention": False},
  # The attention needs kinds: compare with the row before. Without kinds no
  # beat is laid without a P wave, either.
  "neither that, and a track of timing alone": {
    "model.beat_attention": False,
    "model.beat_track": "timing",
  },
  "noise predicted": {"prediction": "noise"},
  "uniform weighting": {"loss_weighting": "uniform"},
  # Attention to other beats is the unet's: compare with the row without it.
  "transformer": {
    "model.backbone": "dit",
    "model.depth": 3,
    "model.beat_attention": False,
  },
  "AdamW": {"optimizer.muon": False, "optimizer.learning_rate": 1e-3},
}
MEASURES = {
  **three_seeds.MEASURES,
  "beat_spread_sinus_uv": "beats about their median, uV",
}
LEVELS = (*three_seeds.LEVELS, "physiology")


def train_twin(arguments, folder: pathlib.Path, changes: dict) -> None:
  """Makes folder/twin."""
  config = load_config(f"{three_seeds.ROOT}/configs/stage2.py:small")
  config.update_from_flattened_dict(changes)
  config.workdir = str(folder / "stage2")
  config.data, config.steps = arguments.data, arguments.steps
  for key in ("vae", "latents", "base_extractor", "rhythm"):
    config[key] = getattr(arguments, key)
  config.eval_every = arguments.steps
  train.train(config, config.workdir)
  assemble(
    folder / "twin",
    vae=config.vae,
    base_extractor=config.base_extractor,
    denoiser=config.workdir,
    rhythm=config.rhythm,
    table=load_split(config.latents, "train").table,
    note="A twin under comparison.",
  )


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  for name in ("vae", "latents", "base_extractor", "rhythm", "data"):
    parser.add_argument(f"--{name}", required=True)
  parser.add_argument("--test_data", required=True, help="a cohort of others")
  parser.add_argument("--steps", type=int, default=1000, help="of training")
  parser.add_argument("--patients", type=int, default=100)
  parser.add_argument("--only", nargs="+", default=list(CHANGES))
  parser.add_argument("--output", default="runs/ablations")
  arguments = parser.parse_args()
  rows = {}
  for name in arguments.only:
    folder = pathlib.Path(arguments.output) / name.replace(" ", "-")

    def make(name=name, folder=folder):
      began = time.monotonic()
      train_twin(arguments, folder, CHANGES[name])
      return {"minutes": (time.monotonic() - began) / 60}

    folder.mkdir(parents=True, exist_ok=True)
    minutes = held_out.read_or_make(folder / "trained.json", make)["minutes"]
    rows[f"{name} ({minutes:.1f} min)"] = three_seeds.measure(
      folder / "reports",
      str(folder / "twin"),
      arguments.test_data,
      arguments.patients,
      {},
      measures=MEASURES,
      levels=LEVELS,
    )
    table = three_seeds.to_markdown("change (training)", rows, MEASURES)
    output = pathlib.Path(arguments.output)
    (output / "ablations.md").write_text(table + "\n")
  print(table)


if __name__ == "__main__":
  main()
