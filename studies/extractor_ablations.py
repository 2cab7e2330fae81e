"""Stage 1 without one thing at a time, by three trainings of each.

  python -m studies.extractor_ablations --vae=DIR --data=SIM,PTBXL \\
    --latents=SIM_LATENTS,PTBXL_LATENTS --test_latents=OTHER_SIM_LATENTS

The second part of --data holds real recordings of which each is a patient's
only one. Trains the extractor `small` with three seeds per change, and measures
it by three galleries: on simulated patients whom no training has met, the right
one of 512 and the R2 of another recording's median beat; on the real recordings
of the split `validation`, the R2 of the recording's own beat and of its P wave,
and how much findings do to such beats (studies.finding_effect, mean of four).
What is there already is read. Writes extractor_ablations.md.
"""

import argparse
import contextlib
import dataclasses
import functools
import pathlib
from unittest import mock

import numpy as np
from ml_collections import FrozenConfigDict

from ecgtwin_jax import sharding
from ecgtwin_jax.data.dataset import load_split
from ecgtwin_jax.data.mixture import folders
from ecgtwin_jax.flags import load_config
from ecgtwin_jax.models import beat_rate
from ecgtwin_jax.stages import base_extractor, splits
from ecgtwin_jax.training import checkpoint, train
from studies import finding_effect, held_out, three_seeds

MEASURES = {
  "top1": "right patient of 512, simulated ↑",
  "other": "R2 of another beat, simulated ↑",
  "own": "R2 of the own beat, real ↑",
  "own_p": "of its P wave, real ↑",
  "effect": "effect of findings on real beats, of simulated ↑",
}


def _without(function, result, module=base_extractor):
  return mock.patch.object(module, function, result)


@contextlib.contextmanager
def _as_recorded():
  with (
    _without("at_60_bpm", lambda beat, patient: beat, beat_rate),
    _without("from_60_bpm", lambda beat, patient: beat, beat_rate),
  ):
    yield


def _alike(beats):
  """The mean variance in the place of each sample's."""
  return np.full(beats.shape[1:], beats.var(axis=0).mean())


# Changes of the configuration, and what is left out of the code.
CHANGES = {
  "as it is": ({}, contextlib.nullcontext),
  "no recordings of their own": (
    {"own_recordings": False},
    contextlib.nullcontext,
  ),
  "no share of another's beat": (
    {},
    lambda: _without("add_other_beats", lambda rng, batch: batch),
  ),
  "that share for pairs with themselves alone": (
    {},
    lambda: _without("_MIXED", 0.0),
  ),
  "straight way begins at zero": (
    {},
    lambda: _without("start", lambda config, data: {}),
  ),
  "beats as recorded, not as at 60 bpm": ({}, _as_recorded),
  "samples of a beat count alike": (
    {},
    lambda: _without("variance_of", _alike),
  ),
}


def make_config(arguments, workdir, changes, seed):
  config = load_config(f"{three_seeds.ROOT}/configs/stage1.py:small")
  config.update(data=arguments.data, latents=arguments.latents)
  config.update(vae=arguments.vae, own_recordings=True, workdir=str(workdir))
  config.update(seed=seed, steps=arguments.steps, eval_every=arguments.steps)
  config.update_from_flattened_dict(changes)
  if not config.own_recordings:  # the real ones have no other pairs
    config.data = folders(config.data)[0]
    config.latents = folders(config.latents)[0]
  return config


def measure(config, arguments) -> dict:
  """{measure: value} of a trained extractor."""
  config = FrozenConfigDict(config)
  data = base_extractor.load_data(config)
  frozen = base_extractor.load_frozen(config, data)
  _, weights = checkpoint.load_weights(config.workdir, "base_extractor")
  put = functools.partial(sharding.put_batch, mesh=sharding.make_mesh())

  def evaluate(held):
    parts = splits.trim_reports(splits.Splits(held, held))
    return base_extractor.evaluate(
      config, parts, {**frozen, "table": held.table.embeddings}, weights, put
    )

  simulated = load_split(arguments.test_latents, "train", kind="latent")
  others = evaluate(simulated)
  real = load_split(folders(arguments.latents)[1], "validation", kind="latent")
  own = evaluate(dataclasses.replace(real, own_references=True))
  shares = finding_effect.share_on_real(config.workdir, simulated, real)
  return {
    "top1": others["top1"],
    "other": others["beat_r2"],
    "own": own["beat_r2"],
    "own_p": own["p_wave_r2"],
    "effect": float(np.mean([each.mean() for each in shares.values()])),
  }


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  for name in ("vae", "data", "latents", "test_latents"):
    parser.add_argument(f"--{name}", required=True)
  parser.add_argument("--steps", type=int, default=400)
  parser.add_argument("--only", nargs="+", default=list(CHANGES))
  parser.add_argument("--output", default="runs/extractor_ablations")
  arguments = parser.parse_args()
  output = pathlib.Path(arguments.output)
  lines = ["| change | " + " | ".join(MEASURES.values()) + " |"]
  lines.append("|---" * (len(MEASURES) + 1) + "|")
  for name in arguments.only:
    changes, left_out = CHANGES[name]
    found = []
    for seed in three_seeds.SEEDS:
      workdir = output / f"{name.replace(' ', '-')}-{seed}"

      def make(workdir=workdir, changes=changes, left_out=left_out, seed=seed):
        config = make_config(arguments, workdir, changes, seed)
        with left_out():
          train.train(config, config.workdir)
          return measure(config, arguments)

      workdir.mkdir(parents=True, exist_ok=True)
      found.append(held_out.read_or_make(workdir / "measured.json", make))
    cells = [
      f"{np.mean(x):.3f} ({min(x):.3f} to {max(x):.3f})"
      for x in ([row[key] for row in found] for key in MEASURES)
    ]
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
    (output / "extractor_ablations.md").write_text("\n".join(lines) + "\n")
  print("\n".join(lines))


if __name__ == "__main__":
  main()
