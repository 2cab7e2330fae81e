"""Does the statement of ectopic beats look at the ectopic beats?

  python -m studies.attention_share --data=runs/small/simulated
  python -m studies.attention_share --twin=DIR --data=DIR --patients=20

Recordings with premature ventricular beats of 100 held-out simulated patients,
where the beats are known. Of each statement of the report, attention inside the
ectopic beats (QRS onset to the end of T) over attention outside, by interval of
the noise schedule: 1 is attention that does not look there. Control: the same
ratio for the report's other statements, and inside normal beats. Then the same
for ECGs that the twin generates for that report, where a detector finds such
beats. Intervals: 95%, bootstrap over patients. Cells that are there already are
read. Writes attention_share.json, .csv and .png.
"""

import argparse
import pathlib

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from ecgtwin_jax.beats.delineation import read_ecg_beats
from ecgtwin_jax.data.ecg import LEADS, MODEL_RATE
from studies import held_out
from studies.attention_spans import attention_share, beat_spans
from studies.edit_kinds import KINDS, part_of
from studies.held_out import column, mean

REPORT = ("Sinus rhythm", "Ventricular premature complex", "Abnormal ECG")
PVC = 1  # place in the report
INTERVALS = ((0.0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.0))
# Even in time, so that every interval has as many.
STEPS = 25


class Context:
  """Held-out patients and their recordings with ectopic beats."""

  def __init__(self, twin, data, patients: int):
    self.twin = twin
    self.people = held_out.find_people(twin, data, patients)
    self.n = len(self.people.now)
    self.conditions, self.recordings = [], []
    for i, patient in enumerate(self.people.patients):
      rng = np.random.default_rng([0, i])
      condition = self.people.ask(i, REPORT, rng.integers(62, 91))
      self.conditions.append(condition)
      self.recordings.append(held_out.record(patient, condition, rng))

  def explain(self, i: int, between, ecg=None):
    """(ECG, attention (128, statements) per block)."""
    found = self.twin.explain(
      self.people.bases[i],
      self.conditions[i],
      seed=i,
      ecg=ecg,
      between=between,
      sampler="ddim",
      steps=STEPS,
    )
    return found.ecgs[0], found.attention[0]

  def recorded(self, between) -> dict:
    """Ratios in simulated recordings, with one as example."""
    rows, example = [], None
    for i, (ecg, marks) in enumerate(self.recordings):
      _, attention = self.explain(i, between, ecg)
      spans = beat_spans(marks)
      rows.append(
        {
          "ectopic": ratios(attention.mean(axis=0), spans),
          "normal": ratios(attention.mean(axis=0), beat_spans(marks, "normal")),
          "blocks": [ratios(block, spans)[PVC] for block in attention],
        }
      )
      if example is None and len(spans) > 1:
        example = {
          "lead": ecg.signal[:, LEADS.index("II")],
          "attention": attention.mean(axis=0)[:, PVC],
          "spans": spans,
        }
    return {**_stack(rows), "example": example}

  def generated(self, between, patients: int) -> dict:
    """Ratios in generated ECGs, nan where no ectopic beat is found."""
    rows = []
    for i in range(min(patients, self.n)):
      ecg, attention = self.explain(i, between)
      reading = read_ecg_beats(ecg.signal)
      inside = part_of(KINDS["add PVC"], reading, len(ecg.signal))
      spans = to_spans(inside)
      rows.append(
        {
          "ectopic": ratios(attention.mean(axis=0), spans),
          "blocks": [ratios(block, spans)[PVC] for block in attention],
        }
      )
    return _stack(rows)


def _stack(rows):
  return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def ratios(attention: np.ndarray, spans: np.ndarray) -> np.ndarray:
  """Attention inside over outside, per statement; nan without a span inside."""
  inside = np.clip(spans, 0, 10)
  if not (inside[:, 1] > inside[:, 0]).any():
    return np.full(attention.shape[1], np.nan)
  return attention_share(attention, spans).ratio


def to_spans(inside: np.ndarray) -> np.ndarray:
  """First and last second of each run of samples of ten seconds."""
  edges = np.diff(np.concatenate([[0], inside.astype(int), [0]]))
  ends = np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)], 1)
  return ends * 10.0 / len(inside)


def cells(context: Context, kept: pathlib.Path, generated: int) -> list[dict]:
  """Every cell, those of an earlier run read."""
  wanted = [("recorded", span) for span in ((0.0, 1.0), *INTERVALS)]
  if generated:
    wanted += [("generated", span) for span in ((0.0, 1.0), *INTERVALS)]
  rows = []
  for what, span in tqdm(wanted, desc="cells"):

    def make(what=what, span=span):
      if what == "recorded":
        return context.recorded(span)
      return context.generated(span, generated)

    path = kept / f"{what}-{span[0]:g}-{span[1]:g}.json"
    cell = held_out.read_or_make(path, make)
    rows.append({"ecgs": what, "low": span[0], "high": span[1], **cell})
  return rows


def summarise(rows: list[dict]) -> list[dict]:
  """Table rows, each ratio as [value, low, high]."""
  table = []
  for row in rows:
    ectopic, blocks = column(row, "ectopic"), column(row, "blocks")
    n = len(ectopic)
    found = int(np.isfinite(ectopic[:, PVC]).sum())
    short = {
      "ecgs": row["ecgs"],
      "between": f"{row['low']:g}-{row['high']:g}",
      "patients": n,
      "with_beats": found,
    }
    columns = {
      "pvc": ectopic[:, PVC],
      "sinus": ectopic[:, 0],
      "abnormal": ectopic[:, 2],
    }
    nothing = np.full(n, np.nan)
    normal = column(row, "normal") if "normal" in row else nothing[:, None]
    columns["pvc_in_normal_beats"] = normal[:, min(PVC, normal.shape[1] - 1)]
    for k in range(blocks.shape[1]):
      columns[f"block_{k}"] = blocks[:, k]
    for name, x in columns.items():
      short[name] = held_out.estimate(held_out.mean_of(x), n)
    table.append(short)
  return table


def draw(rows: list[dict], table: list[dict]) -> Figure:
  """Ratios over the schedule, and one ECG with the attention under it."""
  figure = Figure(figsize=(12, 6.2), layout="constrained")
  upper, lower = figure.subfigures(2, 1, height_ratios=(1.2, 1))
  lines = {
    "pvc": (REPORT[PVC], "tab:red"),
    "sinus": (REPORT[0], "tab:blue"),
    "abnormal": (REPORT[2], "0.4"),
    "pvc_in_normal_beats": (f"{REPORT[PVC]},\nin normal beats", "tab:orange"),
  }
  grid = upper.subplots(1, 2, sharey=True)
  for axes, what in zip(grid, ("recorded", "generated"), strict=True):
    own = [row for row in table if row["ecgs"] == what][1:]
    axes.axhline(1.0, color="0.6", linewidth=0.8)
    for k, (name, (label, colour)) in enumerate(lines.items()):
      if not own or not np.isfinite(own[0][name][0]):
        continue
      value, low, high = np.array([row[name] for row in own]).T
      axes.errorbar(
        np.arange(len(own)) + 0.04 * (k - 1.5),
        value,
        [value - low, high - value],
        marker="o",
        markersize=4,
        capsize=2,
        linewidth=1.2,
        color=colour,
        label=label,
      )
    axes.set_xticks(range(len(own)), [row["between"] for row in own])
    axes.set_xlabel("share of the schedule (0: clean, 1: noise)", fontsize=9)
    count = own[0]["with_beats"] if own else 0
    shown = {"recorded": "simulated recordings"}.get(what, "generated ECGs")
    axes.set_title(f"{count} {shown}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
  grid[0].set_ylabel("attention inside / outside\nectopic beats")
  grid[0].legend(frameon=False, fontsize=8)
  own = [row for row in rows if row["ecgs"] == "recorded"][1:]
  best = max(own, key=lambda row: mean(column(row, "ectopic")[:, PVC]))
  axes = lower.subplots()
  example = best["example"]
  for start, stop in column(example, "spans"):
    axes.axvspan(start, stop, color="tab:red", alpha=0.12, linewidth=0)
  lead = column(example, "lead")
  axes.plot(np.arange(len(lead)) / MODEL_RATE, lead, "k", linewidth=0.9)
  axes.set(xlim=(0, 10), xlabel="s", ylabel="lead II, mV")
  other = axes.twinx()
  attention = column(example, "attention")
  time = (np.arange(len(attention)) + 0.5) * 10 / len(attention)
  other.step(time, attention, where="mid", color="tab:red", linewidth=1)
  other.set_ylabel("attention to the statement", color="tab:red")
  axes.set_title(
    f"The first recording with two such beats (shaded), schedule "
    f"{best['low']:g}-{best['high']:g}",
    fontsize=10,
  )
  return figure


def main() -> None:
  parser = held_out.make_parser(__doc__, "runs/attention_share", 120)
  parser.add_argument(
    "--generated", type=int, default=60, help="patients to generate for"
  )
  run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
  """Makes what is missing, and writes the table and the picture."""
  folder = pathlib.Path(arguments.output)
  generated = arguments.generated
  twin, data, about = held_out.start(arguments, generated=generated)
  context = Context(twin, data, arguments.patients)
  rows = cells(context, folder / "cells", generated)
  table = summarise(rows)
  held_out.write_table(folder / "attention_share", about, table)
  draw(rows, table).savefig(folder / "attention_share.png", dpi=90)
  print(about)
  print((folder / "attention_share.csv").read_text())


if __name__ == "__main__":
  main()
