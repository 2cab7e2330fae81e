"""Holds two checkouts against each other: same seed, same twin, same results?

  git worktree add ../before COMMIT
  python -m studies.compare_commits ../before .

Runs in each checkout, by its own code: eight ECGs of the bundled recording with
a twin (--twin; the older checkout's shipped one); two training steps of each
stage of the published recipe at small width; and the report on a small
simulated cohort. Prints the largest difference of each, and ends with 1 where a
number differs by more than rounding (relative 1e-5 of the largest value,
figures of the report 1e-6).

Compares commits that claim to change nothing: where recipes, file formats or
figures were changed on purpose in between, it says so and is no use.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

SMALL_VAE = [
  f"--config.model.{part}.{key}={value}"
  for part in ("encoder", "decoder")
  for key, value in (("widths", "(16,32,32)"), ("groups", "8"))
]
SMALL = ["--config.model.width=32", "--config.model.heads=4"]
COMMON = ["--config.steps=2", "--config.log_every=1"]


def run(checkout, cache, *arguments):
  """Runs a command of that checkout; its last lines on failure."""
  print(f"{checkout.name}: {' '.join(arguments[:3])}", flush=True)
  out = subprocess.run(
    [sys.executable, "-m", *arguments],
    cwd=checkout,
    env={
      **os.environ,
      "PYTHONPATH": str(checkout),
      "JAX_PLATFORMS": "cpu",
      # Programs that are the same to the letter are compiled once.
      "JAX_COMPILATION_CACHE_DIR": str(cache),
    },
    capture_output=True,
    text=True,
  )
  if out.returncode:
    raise ValueError(
      f"{' '.join(arguments)} in {checkout}: {out.stderr[-800:]}"
    )


def make(checkout, twin, data, folder, steps):
  """Everything that is compared, made by the code of one checkout."""
  main, cache = "ecgtwin_jax.main", data / "cache"
  sampling = f"--config.sampling.steps={steps}"
  run(
    checkout,
    cache,
    main,
    "--config=configs/generate.py",
    f"--config.twin={twin}",
    "--config.format=npz",
    sampling,
    f"--workdir={folder}/generated",
  )
  stages = {
    "vae": [*SMALL_VAE, "--config.batch_size=8"],
    "stage1": [*SMALL, "--config.batch_size=16", "--config.accumulate=1"],
    "stage2": [
      *SMALL,
      "--config.batch_size=16",
      "--config.model.base_width=32",
    ],
  }
  for stage, changes in stages.items():
    places = {
      "stage1": [
        f"--config.vae={data}/vae",
        f"--config.latents={data}/latents",
      ],
      "stage2": [
        f"--config.vae={data}/vae",
        f"--config.latents={data}/latents",
        f"--config.base_extractor={folder}/stage1",
      ],
    }.get(stage, [])
    run(
      checkout,
      cache,
      main,
      f"--config=configs/{stage}.py:paper",
      f"--config.data={data}/ecgs",
      f"--workdir={folder}/{stage}",
      *COMMON,
      *changes,
      *places,
    )
  run(
    checkout,
    cache,
    main,
    "--config=configs/evaluate.py",
    sampling,
    f"--config.twin={twin}",
    f"--config.data={data}/ecgs",
    "--config.patients=12",
    "--config.conditions=2",
    f"--workdir={folder}/evaluated",
  )


def read_signals(folder):
  files = sorted((folder / "generated").rglob("*.npz"))
  return np.stack([np.load(path)["signal"] for path in files])


def read_losses(folder, stage):
  lines = (folder / stage / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  return np.array(
    [row[key] for row in rows for key in sorted(row) if key.endswith("loss")]
  )


def read_figures(folder):
  rows = json.loads((folder / "evaluated" / "metrics.json").read_text())
  return {
    (row["level"], row["name"]): (
      row["value"],
      row["low"],
      row["high"],
      row["n"],
    )
    for row in rows["metrics"]
  }


def compare_figures(before, after):
  """Prints rows that differ; returns how many."""
  different = 0
  for name in sorted(before.keys() | after.keys()):
    pair = before.get(name), after.get(name)
    if None in pair:
      print(f"  {name}: only {'after' if pair[0] is None else 'before'}")
      continue
    numbers = [np.array([np.nan if x is None else x for x in y]) for y in pair]
    if not np.allclose(*numbers, rtol=1e-6, atol=1e-9, equal_nan=True):
      different += 1
      print(f"  {name}: {pair[0]} -> {pair[1]}")
  return different


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("before", type=pathlib.Path)
  parser.add_argument("after", type=pathlib.Path)
  parser.add_argument("--twin", type=pathlib.Path, help="a twin directory")
  parser.add_argument("--steps", type=int, default=20, help="of sampling")
  arguments = parser.parse_args()
  before, after = arguments.before.resolve(), arguments.after.resolve()
  twin = before / "ecgtwin_jax" / "assets" / "simulated-small"
  twin = arguments.twin.resolve() if arguments.twin else twin
  worst = 0.0
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    data = folder / "data"
    cache = data / "cache"
    run(
      before,
      cache,
      "data_prep",
      "simulated",
      *("--output", f"{data}/ecgs", "--patients", "120", "--recordings", "3"),
    )
    run(
      before,
      cache,
      "ecgtwin_jax.main",
      "--config=configs/vae.py:paper",
      f"--config.data={data}/ecgs",
      f"--workdir={data}/vae",
      *COMMON,
      *SMALL_VAE,
      "--config.batch_size=8",
    )
    run(
      before,
      cache,
      "data_prep",
      "encode",
      *("--data", f"{data}/ecgs", "--vae", f"{data}/vae"),
      *("--output", f"{data}/latents"),
    )
    folders = [folder / "before", folder / "after"]
    for checkout, place in zip((before, after), folders):
      make(checkout, twin, data, place, arguments.steps)
    signals = [read_signals(place) for place in folders]
    pairs = {"signals, mV": signals}
    for stage in ("vae", "stage1", "stage2"):
      pairs[f"losses of {stage}"] = [read_losses(x, stage) for x in folders]
    for name, (one, other) in pairs.items():
      relative = float(np.abs(one - other).max() / np.abs(one).max())
      worst = max(worst, relative)
      print(f"{name}: {one.shape}, largest relative difference {relative:.2g}")
    print("figures of the report that differ:")
    different = compare_figures(*map(read_figures, folders))
    print(f"{different} differ")
  return int(worst > 1e-5 or different > 0)


if __name__ == "__main__":
  sys.exit(main())
