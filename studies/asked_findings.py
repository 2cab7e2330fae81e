"""How often a person shows a finding that is asked for.

  python -m studies.asked_findings --twin=real-small --data=PTBXL

Asks for one finding each of patients of the half `validation` who have neither
fibrillation, paced beats, premature ventricular beats nor a left block, at the
reference's rate, age and sex, one ECG each. Writes asked_findings.md: the share
whose ECG meets the criterion.
"""

import argparse
import pathlib

import numpy as np

from ecgtwin_jax.beats.criteria_checks import check_criteria
from ecgtwin_jax.beats.delineation import read_ecgs
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.evaluation import evaluate, generate_examples
from ecgtwin_jax.inference.sampling import Settings
from ecgtwin_jax.inference.twin import load_twin
from ecgtwin_jax.text.findings import finding

ASKED = {
  "pvc": ("Sinus rhythm", "Ventricular premature complex"),
  "fibrillation": ("Atrial fibrillation",),
  "lbbb": ("Sinus rhythm", "Left bundle branch block"),
  "rbbb": ("Sinus rhythm", "Right bundle branch block"),
  "av_block": ("Sinus rhythm", "1st degree A-V block"),
  "lvh": ("Sinus rhythm", "Left ventricular hypertrophy"),
}
LEFT_OUT = (
  "atrial_fibrillation",
  "pacing",
  "ventricular_premature",
  "left_bundle_branch_block",
)


def measure(twin, data) -> dict[str, float]:
  """{criterion: share of the patients' ECGs that meet it}."""
  choice = generate_examples.choose(data, len(data), 4, seed=0)
  rows, now = [], []
  for row in np.unique(choice.references):
    condition = generate_examples.read_condition(data, row)
    if not any(finding(n, condition.statements) for n in LEFT_OUT):
      rows.append(row)
      now.append(condition)
  references = generate_examples.as_ecgs(
    generate_examples.signals_mv(data, np.array(rows))
  )
  bases = twin.extract_bases(references, now)
  shares = {}
  for criterion, asked in ASKED.items():
    then = [Condition(asked, c.heart_rate, c.age, c.sex) for c in now]
    zeros = [0] * len(rows)
    made = twin.generate_rows(bases, then, zeros, zeros, Settings())
    met = [
      check_criteria(reading, condition)[criterion]
      for reading, condition in zip(read_ecgs(made.signals), then, strict=True)
    ]
    shares[criterion] = float(np.mean(met))
  print(f"{len(rows)} patients")
  return shares


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--twin", default="real-small", help="or a directory")
  parser.add_argument("--data", required=True, help="of data_prep ptbxl")
  parser.add_argument("--output", default="runs/asked_findings")
  arguments = parser.parse_args()
  splits = ("train", "validation", "test")
  data = evaluate.take_half(
    evaluate.load_splits(arguments.data, splits), "validation"
  )
  shares = measure(load_twin(arguments.twin), data)
  lines = ["| " + " | ".join(ASKED) + " |", "|---" * len(ASKED) + "|"]
  lines.append("| " + " | ".join(f"{x:.2f}" for x in shares.values()) + " |")
  output = pathlib.Path(arguments.output)
  output.mkdir(parents=True, exist_ok=True)
  (output / "asked_findings.md").write_text("\n".join(lines) + "\n")
  print("\n".join(lines))


if __name__ == "__main__":
  main()
