"""What a choice does to a twin: reports by three seeds, and their table."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ecgtwin_jax.evaluation import evaluate
from ecgtwin_jax.flags import load_config
from studies import held_out

ROOT = pathlib.Path(__file__).parent.parent
SEEDS = (0, 1, 2)  # of noise, of the choice of targets, of intervals
MEASURES = {
  "truth_score": "truth ↑",
  "identity_top1_share": "right patient ↑",
  "fid": "Fréchet distance ↓",
  "precision": "precision ↑",
  "recall": "recall ↑",
  "rclip": "CLIP, of real ↑",
  "criteria_index": "criteria index ↑",
  "amplitude_ratio": "amplitude, 1",
  "heart_rate_mae_bpm": "rate error, bpm ↓",
}
LEVELS = ("fidelity", "condition", "person", "truth")


def measure(
  folder: pathlib.Path,
  twin: str,
  data: str,
  patients: int,
  sampling: Mapping[str, Any],
  *,
  measures: Iterable[str] = MEASURES,
  levels: tuple[str, ...] = LEVELS,
) -> dict:
  """{measure: [value, low, high, reference]}, means over the seeds.

  Args:
    folder: of a report by each seed; what is there already is read.
    twin: its name or directory.
    data: a data set of ECGs whose patients no training has met.
    patients: of its test split, at most, four targets each.
    sampling: what differs from the defaults of configs/evaluate.py.
    measures: names of figures.
    levels: parts of the report that these are of.
  """
  folder.mkdir(parents=True, exist_ok=True)
  reports = []
  for seed in SEEDS:

    def make(seed=seed):
      config = load_config(f"{ROOT}/configs/evaluate.py")
      config.update(twin=twin, data=data, patients=patients, seed=seed)
      config.update(ablations=(), levels=levels)
      config.workdir = str(folder / f"seed-{seed}")
      config.sampling.update(sampling)
      rows = {metric.name: metric for metric in evaluate.run(config)}
      kept = [(name, rows[name]) for name in measures]
      return {name: [m.value, m.low, m.high, m.reference] for name, m in kept}

    reports.append(held_out.read_or_make(folder / f"seed-{seed}.json", make))
  return {
    name: np.mean([held_out.column(r, name)[:4] for r in reports], axis=0)
    for name in measures
  }


def to_markdown(
  first: str, rows: Mapping[str, dict], measures: Mapping[str, str] = MEASURES
) -> str:
  """A table: a row for each choice, and what real ECGs reach."""
  lines = [f"| {first} | " + " | ".join(measures.values()) + " |"]
  lines.append("|---" * (len(measures) + 1) + "|")
  for name, row in rows.items():
    cells = [
      f"{value:.3g} ({low:.3g} to {high:.3g})"
      for value, low, high, _ in (row[key] for key in measures)
    ]
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
  real = [np.mean([row[key][3] for row in rows.values()]) for key in measures]
  lines.append("| real ECGs | " + " | ".join(f"{r:.3g}" for r in real) + " |")
  return "\n".join(lines)
