"""Makes the evaluators that come with the package, of three trainings.

  python -m ecgtwin_jax.main train clip:small --workdir=runs/clip
  python -m ecgtwin_jax.main train identity:small --workdir=runs/identity
  python -m ecgtwin_jax.main train classifier:small --workdir=runs/classifier
  python -m studies.release_evaluators --runs=runs \\
    --data=runs/small/evaluators --note="Trained on one core."

Writes the weights in half precision and a card with what each training found on
held-out patients, read from its metrics.jsonl.
"""

import argparse
import json
import pathlib
import textwrap

import jax
import numpy as np

from ecgtwin_jax.evaluation.metric import number
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.text.statements import StatementTable
from ecgtwin_jax.training import checkpoint
from ecgtwin_jax.training.metric_writer import read_metrics

# What a card says of each: key in metrics.jsonl and its meaning.
FOUND = {
  "clip": {
    "validation/top1_report": "the right report among those of a batch of 128",
    "validation/top1_report_chance": "by chance, as many reports are alike",
  },
  "identity": {
    "validation/patients": "held-out patients",
    "validation/top1": "of these the right one is the nearest",
    "validation/equal_error_rate": "equal error rate",
  },
  "classifier": {
    "validation/auroc": "mean area under the ROC curve over findings",
    "validation/auroc_atrial_premature": "of atrial premature complexes",
  },
}
CARD = """# Evaluators trained on simulated patients

Networks that a twin is evaluated with, kept apart from it: trained on
{patients:,} simulated patients of seed {seed} (four recordings each, simulator
version {version}), whom no twin of this package has met, with nothing of the
generator in them. A test bench with a known truth, no claim about hearts.
Weights are stored in half precision. Their verdicts on recordings of real
people mean nothing: train evaluators of your own there.
{note}

| part | parameters | made by |
|---|---|---|
{rows}

On held-out patients of this cohort, at the training's end:

{found}

`configs/evaluate.py` shows with every report what they say of real ECGs, which
a twin can hardly surpass. Hyper-parameters, file hashes and sources are in
twin.json.

Not a medical device.
"""


def describe(run: pathlib.Path) -> str:
  """What the last evaluation of a part's training found.

  Args:
    run: its workdir, which has the name of the part.

  Raises:
    ValueError: the log has no evaluation with all of it.
  """
  meaning = FOUND[run.name]
  found = [x for x in read_metrics(run).values() if meaning.keys() <= x.keys()]
  if not found:
    raise ValueError(
      f"{run}/metrics.jsonl has no evaluation with {', '.join(meaning)}"
    )
  said = (f"{text}: {number(found[-1][key])}" for key, text in meaning.items())
  return f"{run.name}: {'; '.join(said)}."


def make_card(
  runs: pathlib.Path, weights: dict, options: dict, note: str
) -> str:
  """The card of evaluators: their sizes, and what their trainings found."""
  rows, found = [], []
  for part, (_, variables) in weights.items():
    size = sum(x.size for x in jax.tree.leaves(variables["params"]))
    rows.append(f"| {part} | {size:,} | configs/{part}.py:small |")
    line = describe(runs / part)
    found.append(
      textwrap.fill(line, 80, initial_indent="- ", subsequent_indent="  ")
    )
  return CARD.format(
    **{key: options[key] for key in ("patients", "seed", "version")},
    note=textwrap.fill(note, 80),
    rows="\n".join(rows),
    found="\n".join(found),
  )


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--runs", required=True, type=pathlib.Path)
  parser.add_argument("--data", required=True, type=pathlib.Path)
  parser.add_argument("--note", default="", help="hardware, time")
  parser.add_argument(
    "--output",
    type=pathlib.Path,
    default=twin_directory.shipped("simulated-evaluators"),
  )
  arguments = parser.parse_args()
  options = json.loads((arguments.data / "card.json").read_text())["options"]
  weights = {
    part: checkpoint.load_weights(str(arguments.runs / part), part)
    for part in FOUND
  }
  made = "configs/{}.py:small, on {:,} simulated patients of seed {}"
  twin_directory.write_twin(
    arguments.output,
    weights,
    sources={
      part: made.format(part, options["patients"], options["seed"])
      for part in FOUND
    },
    card=make_card(arguments.runs, weights, options, arguments.note),
    table=StatementTable.load(arguments.data),
    dtype=np.float16,
  )


if __name__ == "__main__":
  main()
