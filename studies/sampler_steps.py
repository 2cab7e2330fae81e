"""Calls of the network against quality, for each sampler: the default's reason.

  python -m studies.sampler_steps --data=runs/small/simulated
  python -m studies.sampler_steps --twin=DIR --data=DIR --ecgs=64

One ECG for each of 256 held-out patients per cell, from the same noise in every
cell, under the condition of a later recording of theirs. Against it: Frechet
distance to the real ECGs in CLIP space, error of the detected heart rate,
similarity of the base vector to the reference's. The last rows are real ECGs.
Intervals: 95%, bootstrap over patients. Cells that are there already are read.
Writes sampler_steps.json, .csv and .png.
"""

import argparse
import pathlib
import time

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from ecgtwin_jax.data.dataset import load_split
from ecgtwin_jax.data.ecg import MODEL_RATE
from ecgtwin_jax.data.heart_rate import detect_heart_rate
from ecgtwin_jax.evaluation import generate_examples
from ecgtwin_jax.evaluation.evaluate import find_evaluator
from ecgtwin_jax.evaluation.evaluators.clip import ClipSpace
from ecgtwin_jax.evaluation.fidelity import frechet
from ecgtwin_jax.evaluation.metric import bootstrap_interval
from ecgtwin_jax.inference.sampling import Settings
from ecgtwin_jax.inference.twin import load_twin
from studies import held_out

STEPS = (5, 10, 15, 20, 25, 50, 100, 1000)
SAMPLERS = ("dpm++", "ddim", "ddpm")
MEASURES = {
  "frechet": "Frechet distance",
  "rate_error": "heart-rate error, bpm",
  "similarity": "base-vector similarity",
}


class Context:
  """The examples, and the measures of any ECGs made for them."""

  def __init__(self, twin, data, ecgs: int, clip: str | None):
    self.twin = twin
    choice = generate_examples.choose(data, ecgs, 1, seed=0)
    self.patients = data.patient_number[choice.targets]
    read = generate_examples.read_condition
    now = [read(data, row) for row in choice.references]
    self.conditions = [read(data, row) for row in choice.targets]
    references = generate_examples.signals_mv(data, choice.references)
    self.bases = self._extract(references, now)
    self.real = generate_examples.signals_mv(data, choice.targets)
    # Of other patients, so that nobody is compared with himself.
    others = np.flatnonzero(~np.isin(data.patient_number, self.patients))
    self.space = ClipSpace.load(find_evaluator("clip", clip), table=data.table)
    points = self.space.ecgs(generate_examples.signals_mv(data, others))
    self.others = frechet.fit(points)

  def _extract(self, signals, conditions):
    ecgs = generate_examples.as_ecgs(signals)
    return self.twin.extract_bases(ecgs, conditions)

  def generate(self, sampler: str, steps: int):
    return self.twin.generate_rows(
      self.bases,
      self.conditions,
      [0] * len(self.bases),
      list(range(len(self.bases))),
      Settings(sampler=sampler, steps=steps),
    ).signals

  def measure(self, signals) -> dict:
    """{measure: [value, low, high]} of one ECG per patient."""
    points = self.space.ecgs(signals)
    asked = np.array([c.heart_rate for c in self.conditions])
    found = np.array(
      [detect_heart_rate(s, MODEL_RATE, method="energy") for s in signals]
    )
    errors = np.abs(found - asked)
    bases = self._extract(signals, self.conditions)
    cosine = held_out.cosine(bases, self.bases)
    statistics = {
      "frechet": lambda rows: frechet.distance(
        frechet.fit(points[rows]), self.others
      ),
      "rate_error": lambda rows: np.nanmean(errors[rows]),
      "similarity": lambda rows: cosine[rows].mean(),
    }
    measured = {"failed_rates": int(np.isnan(found).sum())}
    for name, statistic in statistics.items():
      value = float(statistic(np.arange(len(signals))))
      low, high = bootstrap_interval(statistic, self.patients, repeats=200)
      if name == "frechet":  # of a resample it is larger: the width counts
        low, high = value - (high - low) / 2, value + (high - low) / 2
      measured[name] = [value, low, high]
    return measured


def cells(context: Context, kept: pathlib.Path) -> list[dict]:
  """Every cell, those of an earlier run read."""
  # The cheap ones first.
  wanted = [(sampler, steps) for steps in STEPS for sampler in SAMPLERS]
  rows = []
  for sampler, steps in tqdm([("real", 0), *wanted], desc="cells"):

    def make(sampler=sampler, steps=steps):
      began = time.monotonic()
      real = sampler == "real"
      signals = context.real if real else context.generate(sampler, steps)
      seconds = round(time.monotonic() - began, 1)
      cell = {"sampler": sampler, "steps": steps, "n": len(signals)}
      return {**cell, "seconds": seconds, **context.measure(signals)}

    name = f"{sampler}-{steps}.json"
    rows.append(held_out.read_or_make(kept / name, make))
  return rows


def draw(rows: list[dict]) -> Figure:
  """Each measure over the steps, a line per sampler, real ECGs as a band."""
  figure = Figure(figsize=(11, 3.4), layout="constrained")
  for axes, (name, title) in zip(
    figure.subplots(1, len(MEASURES)), MEASURES.items(), strict=True
  ):
    real = next(row for row in rows if row["sampler"] == "real")
    axes.axhspan(*real[name][1:], color="0.85", label="real ECGs, 95%")
    axes.axhline(real[name][0], color="0.5", linewidth=0.8)
    for sampler in SAMPLERS:
      own = [row for row in rows if row["sampler"] == sampler]
      values, low, high = np.array([row[name] for row in own]).T
      axes.errorbar(
        [row["steps"] for row in own],
        values,
        [values - low, high - values],
        marker="o",
        markersize=3,
        linewidth=1,
        capsize=2,
        label=sampler,
      )
    axes.set(xscale="log", xlabel="calls of the network", title=title)
    if name != "similarity":
      axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)
  axes.legend(frameon=False, fontsize=8)
  return figure


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "--twin", default="simulated-small", help="or a directory"
  )
  parser.add_argument("--data", required=True, help="a data set with ECGs")
  parser.add_argument("--clip", help="a CLIP; the shipped one")
  parser.add_argument("--ecgs", type=int, default=256, help="of each cell")
  parser.add_argument("--output", default="runs/sampler_steps")
  arguments = parser.parse_args()
  folder = pathlib.Path(arguments.output)
  data = load_split(arguments.data, "test", kind="ecg")
  twin = load_twin(arguments.twin)
  about = {
    "twin": twin.digest,
    "data": data.card["fingerprint"],
    "ecgs": arguments.ecgs,
  }
  generate_examples.claim(folder / "cells", about)
  rows = cells(
    Context(twin, data, arguments.ecgs, arguments.clip), folder / "cells"
  )
  held_out.write_table(folder / "sampler_steps", about, rows)
  draw(rows).savefig(folder / "sampler_steps.png", dpi=130)
  print((folder / "sampler_steps.csv").read_text())


if __name__ == "__main__":
  main()
