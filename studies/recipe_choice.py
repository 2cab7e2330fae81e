"""Noise schedule and loss weighting of stage 2, compared at small size.

  python -m studies.recipe_choice --vae=DIR --latents=DIR \\
    --base_extractor=DIR --rhythm=DIR --data=DIR --steps=1000

Trains the `small` denoiser with each recipe on the same latents, batches, noise
and seed, and measures ECGs of held-out patients from each with the default
sampler, as sampler_steps does. The predicted noise's error is no measure here:
schedules make it another task. Recipes that are there already are read.
"""

import argparse
import json
import pathlib

from ecgtwin_jax.data.dataset import load_split
from ecgtwin_jax.flags import load_config
from ecgtwin_jax.inference.twin import ECGTwin
from ecgtwin_jax.jobs import train as train_module
from ecgtwin_jax.training import train
from studies.sampler_steps import MEASURES, Context

ROOT = pathlib.Path(__file__).parent.parent
RECIPES = {
  "linear, uniform (published)": {},
  "cosine, uniform": {"schedule.kind": "cosine"},
  "linear, min-SNR": {"loss_weighting": "min_snr"},
  "cosine, min-SNR": {
    "schedule.kind": "cosine",
    "loss_weighting": "min_snr",
  },
}


def train_twin(arguments, number: int, changes: dict) -> pathlib.Path:
  """The twin of one recipe."""
  config = load_config(f"{ROOT}/configs/stage2.py:small")
  config.update_from_flattened_dict(changes)
  config.workdir = f"{arguments.output}/recipe-{number}"
  config.data, config.steps = arguments.data, arguments.steps
  for key in ("vae", "latents", "base_extractor", "rhythm"):
    config[key] = getattr(arguments, key)
  config.eval_every = config.checkpoint_every = arguments.steps
  train.train(config, config.workdir)
  twin = pathlib.Path(config.workdir) / "twin"
  train_module.assemble(
    twin,
    vae=config.vae,
    base_extractor=config.base_extractor,
    denoiser=config.workdir,
    rhythm=config.rhythm,
    table=load_split(config.latents, "train").table,
    note="A recipe under comparison.",
  )
  return twin


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  for name in ("vae", "latents", "base_extractor", "rhythm", "data"):
    parser.add_argument(f"--{name}", required=True)
  parser.add_argument("--clip", help="a CLIP; the shipped one")
  parser.add_argument("--steps", type=int, default=1000, help="of training")
  parser.add_argument("--ecgs", type=int, default=256)
  parser.add_argument("--output", default="runs/recipe_choice")
  arguments = parser.parse_args()
  folder = pathlib.Path(arguments.output)
  data = load_split(arguments.data, "test", kind="ecg")
  rows = []
  for number, (name, changes) in enumerate(RECIPES.items()):
    path = folder / f"recipe-{number}.json"
    if not path.exists():
      twin = ECGTwin.from_checkpoint(train_twin(arguments, number, changes))
      context = Context(twin, data, arguments.ecgs, arguments.clip)
      measured = context.measure(context.generate("dpm++", 20))
      row = {"recipe": name, "steps": arguments.steps, **measured}
      path.write_text(json.dumps(row))
    rows.append(json.loads(path.read_text()))
  print("| recipe |", " | ".join(MEASURES.values()), "| rates not found |")
  print("|---" * (len(MEASURES) + 2) + "|")
  for row in rows:
    cells = [
      f"{row[m][0]:.3g} ({row[m][1]:.3g} to {row[m][2]:.3g})" for m in MEASURES
    ]
    print(
      f"| {row['recipe']} |", " | ".join(cells), f"| {row['failed_rates']} |"
    )


if __name__ == "__main__":
  main()
