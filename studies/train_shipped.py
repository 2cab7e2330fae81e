"""Trains the shipped twins: all data, all parts, one command.

  python -m studies.train_shipped --ptbxl=DIR --output=runs/shipped

Runs the commands that --dry_run prints, one after the other: simulated cohorts
and PTB-XL prepared, the autoencoder on both (and on --unreported recordings),
latents, extractor, rhythm model, and two denoisers: of simulated pairs alone,
`simulated`, and of real recordings in half of each batch, `real`. Autoencoder
and first denoiser go twice: from a lower rate down again, for what the first go
had not reached. Each command continues where it stopped, so this one does. The
twins are stage2_simulated/twin and stage2_real/twin in the output;
configs/evaluate.py judges them.
"""

import argparse
import pathlib
import shlex
import subprocess
import sys

# Simulated cohorts by name: patients, seed. The denoisers' patients are such as
# the extractor has not met, as those will be who use the twin.
COHORTS = {
  "autoencoder": (10_000, 77),
  "extractor": (8_000, 101),
  "second": (8_000, 107),
  "third": (8_000, 111),
  "fourth": (8_000, 117),
  "denoiser": (5_000, 913),
}
EXTRACTOR = ("extractor", "second", "third", "fourth")


def commands(
  ptbxl: str,
  output: pathlib.Path,
  *,
  sampling_rate: int = 500,
  unreported: str | None = None,
  licence: str = "not stated",
  workers: int = 1,
) -> list[list[str]]:
  """Arguments of `python` for each step, in order.

  Args:
    ptbxl: folder with ptbxl_database.csv.
    output: folder of all data sets and runs.
    sampling_rate: of PTB-XL's records, 500 or 100 Hz.
    unreported: folder of WFDB records with recordings.csv, without reports.
    licence: of those.
    workers: processes that prepare data.
  """
  at = {
    name: str(output / name)
    for name in (*COHORTS, "ptbxl", "unreported", "vae", "stage1", "rhythm")
  }
  latents = {
    name: f"{at[name]}_latents" for name in (*EXTRACTOR, "denoiser", "ptbxl")
  }
  steps = []

  def prepare(name, *arguments):
    written = latents[name] if "encode" in arguments else at[name]
    more = [f"--output={written}", f"--workers={workers}"]
    steps.append(["-m", "data_prep", *arguments, *more])

  def train(stage, folder, data, **keys):
    keys = {"data": data, "workdir": str(output / folder)} | keys
    flags = [f"--{key}={value}" for key, value in keys.items()]
    steps.append(["-m", "ecgtwin_jax.main", "train", f"{stage}:small", *flags])

  def mix(folders, **shares):
    return ",".join(f"{folders[name]}:{x}" for name, x in shares.items())

  for name, (patients, seed) in COHORTS.items():
    prepare(name, "simulated", f"--patients={patients}", f"--seed={seed}")
  single = (f"--sampling_rate={sampling_rate}", "--without_repeats")
  prepare("ptbxl", "ptbxl", f"--input={ptbxl}", *single)
  shares = {"autoencoder": 1, "ptbxl": 1}
  if unreported is not None:
    given = (f"--input={unreported}", f"--licence={licence}")
    prepare("unreported", "wfdb_folder", *given)
    shares["unreported"] = 0.6
  train("vae", "vae_first", mix(at, **shares), steps=15_000)
  train(
    "vae",
    "vae",
    mix(at, **shares),
    init_from=str(output / "vae_first"),
    steps=7000,
    seed=1,
    **{"optimizer.learning_rate": 6e-4},
  )
  for name in latents:
    prepare(name, "encode", f"--data={at[name]}", f"--vae={at['vae']}")
  both = dict.fromkeys(EXTRACTOR, 1)
  real = {"vae": at["vae"], "own_recordings": True}
  for name, shares, keys in (
    ("stage1", both, {"vae": at["vae"]}),
    # Beats of others, which real recordings are given a share of, cost the
    # simulated ones: each denoiser has an extractor of its own.
    ("stage1_real", both | {"ptbxl": 1.25}, real),
  ):
    train(
      "stage1",
      name,
      mix(at, **shares),
      latents=mix(latents, **shares),
      **keys,
      steps=10_000,
    )
  # Without shares: recordings count alike.
  train(
    "rhythm",
    "rhythm",
    f"{at['extractor']},{at['ptbxl']}",
    latents=f"{latents['extractor']},{latents['ptbxl']}",
    vae=at["vae"],
  )
  rhythm = {"rhythm": at["rhythm"]}
  parts = rhythm | {"base_extractor": at["stage1"]}
  simulated = {"latents": latents["denoiser"], "vae": at["vae"]}
  train(
    "stage2",
    "stage2_first",
    at["denoiser"],
    **simulated,
    **parts,
    steps=13_000,
  )
  train(
    "stage2",
    "stage2_simulated",
    at["denoiser"],
    **simulated,
    **parts,
    init_from=str(output / "stage2_first"),
    steps=10_500,
    seed=2,
  )
  half = {"denoiser": 1, "ptbxl": 1}
  train(
    "stage2",
    "stage2_real",
    mix(at, **half),
    latents=mix(latents, **half),
    base_extractor=str(output / "stage1_real"),
    **real,
    **rhythm,
    steps=10_000,
  )
  return steps


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--ptbxl", required=True, help="with ptbxl_database.csv")
  parser.add_argument("--sampling_rate", type=int, default=500)
  parser.add_argument("--unreported", help="WFDB records with recordings.csv")
  parser.add_argument("--licence", default="not stated", help="of those")
  parser.add_argument("--workers", type=int, default=1)
  parser.add_argument("--output", default="runs/shipped", type=pathlib.Path)
  parser.add_argument("--dry_run", action="store_true", help="print them")
  arguments = vars(parser.parse_args())
  dry_run = arguments.pop("dry_run")
  for command in commands(**arguments):
    print(shlex.join(["python", *command]), flush=True)
    if not dry_run:
      subprocess.run([sys.executable, *command], check=True)


if __name__ == "__main__":
  main()
