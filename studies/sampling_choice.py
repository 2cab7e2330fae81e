"""Sampler, steps and guidance against quality: the reason for the defaults.

  python -m studies.sampling_choice --data=DIR

A row of settings is a report by each of three seeds (studies.three_seeds), by
default on 200 patients and four targets each. The patients must be others than
those whose figures are published. Reports that are there already are read.
Writes sampling_choice.md.
"""

import argparse
import pathlib

from studies import three_seeds

# What differs from the defaults: dpm++ of 5 steps, and the twin's own guidance.
SETTINGS = {
  "the defaults": {},
  "8 steps": {"steps": 8},
  "20 steps": {"steps": 20},
  "sde-dpm++, 8 steps": {"sampler": "sde-dpm++", "steps": 8},
  "ddim": {"sampler": "ddim"},
  "ddpm, 25 steps": {"sampler": "ddpm", "steps": 25},
  "no guidance": {"statement_guidance": 1.0, "person_guidance": 1.0},
  "temperature 1": {"temperature": 1.0},
  "shape temperature 1": {"shape_temperature": 1.0},
}


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--twin", default="simulated-small")
  parser.add_argument("--data", required=True)
  parser.add_argument("--patients", type=int, default=200)
  parser.add_argument("--output", default="runs/sampling_choice")
  arguments = parser.parse_args()
  folder = pathlib.Path(arguments.output)
  rows = {}
  for name, sampling in SETTINGS.items():
    rows[name] = three_seeds.measure(
      folder / name.replace(" ", "-"),
      arguments.twin,
      arguments.data,
      arguments.patients,
      sampling,
    )
    table = three_seeds.to_markdown("settings", rows)
    (folder / "sampling_choice.md").write_text(table + "\n")
  print(table)


if __name__ == "__main__":
  main()
