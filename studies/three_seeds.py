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
  seeds: Iterable[int] = SEEDS,
) -> dict:
  """{measure: [value, low, high, reference]}, means over the seeds.

  Args:
    folder: of a report by each seed; what is there already is read.
    twin: its name or directory.
    data: a data set of ECGs whose patients no training has met.
    patients: of its test split, at most, four targets each.
    sampling: what differs from the defaults of configs/evaluate.py.
    seeds: one report each.
  """
  folder.mkdir(parents=True, exist_ok=True)
  reports = []
  for seed in seeds:

    def make(seed=seed):
      config = load_config(f"{ROOT}/configs/evaluate.py")
      config.update(twin=twin, data=data, patients=patients, seed=seed)
      config.update(ablations=(), levels=LEVELS)
      config.workdir = str(folder / f"seed-{seed}")
      config.sampling.update(sampling)
      rows = {metric.name: metric for metric in evaluate.run(config)}
      kept = [(name, rows[name]) for name in MEASURES]
      return {
        name: [m.value, m.low, m.high, m.reference, m.n] for name, m in kept
      }

    reports.append(held_out.read_or_make(folder / f"seed-{seed}.json", make))
  return {
    name: np.mean([held_out.column(r, name)[:4] for r in reports], axis=0)
    for name in MEASURES
  } | {"ecgs": sum(report["fid"][4] for report in reports)}


def to_markdown(first: str, rows: Mapping[str, dict]) -> str:
  """A table: a row for each choice, and what real ECGs reach."""
  lines = [f"| {first} | " + " | ".join(MEASURES.values()) + " |"]
  lines.append("|---" * (len(MEASURES) + 1) + "|")
  for name, row in rows.items():
    cells = [f"{v:.3g} ({a:.3g} to {b:.3g})" for v, a, b, _ in _of(row)]
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
  real = np.mean([[r for *_, r in _of(row)] for row in rows.values()], axis=0)
  lines.append("| real ECGs | " + " | ".join(f"{r:.3g}" for r in real) + " |")
  return "\n".join(lines)


def _of(row):
  return [row[name] for name in MEASURES]
