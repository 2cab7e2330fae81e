"""Does an edit change what it should, and leave the rest?

  python -m studies.edit_effect --data=runs/small/simulated
  python -m studies.edit_effect --twin=DIR --data=DIR --patients=16

One source ECG of each held-out simulated patient, and edits of it from the same
noise: a statement added, swapped or re-weighted, by the source's attention at
several thresholds (share of the schedule in which the edit goes its own way),
and by its own, the default ("own"). Per cell:

  edit, source  share that meets the criterion of the changed statement
  inside        root mean square of edit - source in the part that the statement
                is about, mV: the ectopic beats, or QRS to the end of T; where
                the whole ECG is, nothing is outside
  outside       likewise in the rest
  similarity    cosine of the base vectors of edit and source
  rate_error    |detected - asked heart rate| of the edit, bpm
  size          root mean square of the edit over that of the source

A broken ECG may meet a criterion (beats of all shapes read as ectopic): rate,
size and similarity tell. The example shown is of the default edit.

Beside them, rows "direct": the edit's report generated without regard to the
source, from the same noise; "consistent": likewise, with the report worded as
in training; "seed": the source's report from other noise, the baseline of what
stays. The part for "seed" is that of "direct". Intervals: 95%, bootstrap
over patients. Cells that are there already are read. Writes edit_effect.json,
.csv and .png.
"""

import argparse
import pathlib

import jax
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from ecgtwin_jax.beats.criteria_checks import check_criteria
from ecgtwin_jax.beats.delineation import read_ecgs
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import LEADS, MODEL_RATE
from ecgtwin_jax.data.heart_rate import detect_heart_rate
from ecgtwin_jax.evaluation import generate_examples
from ecgtwin_jax.inference import sampling
from ecgtwin_jax.inference.rhythms import edit_rhythms
from studies import held_out
from studies.edit_kinds import KINDS, Kind, distances, part_of
from studies.held_out import column, mean

THRESHOLDS = (0.2, 0.5, 0.8, 1.0)
MEASURES = (
  *("source", "edit", "inside", "outside"),
  *("similarity", "rate_error", "size"),
)
_COLOURS = {0.0: "tab:purple", 1.0: "tab:red", 3.0: "tab:orange"}


class Context:
  """The patients, and sources, edits and direct twins of them."""

  def __init__(self, twin, data, patients: int):
    self.twin = twin
    self.people = held_out.find_people(twin, data, patients)
    self.n = len(self.people.now)
    self.rates = np.random.default_rng(0).integers(62, 91, self.n)

  def ask(self, report: tuple[str, ...]) -> list[Condition]:
    rates = enumerate(self.rates)
    return [self.people.ask(i, report, rate) for i, rate in rates]

  def generate(self, report: tuple[str, ...], number: int = 0) -> np.ndarray:
    """One ECG of each patient from noise of this number."""
    return self.twin.generate_rows(
      self.people.bases,
      self.ask(report),
      list(range(self.n)),
      [number] * self.n,
      sampling.Settings(),
    ).signals

  def edit(
    self, kind: Kind, threshold: float, weight: float, own_maps: bool
  ) -> tuple:
    """Sources and edits, as ECGTwin.edit makes them with patient i's seed i."""
    settings = self.twin.settings()
    plan = settings.plan(self.twin.hyper["denoiser"])
    rngs = sampling.make_keys(range(self.n), [0] * self.n)
    networks = self.twin.networks
    inputs = []
    for report in (kind.source, kind.edit):
      rows = [
        networks.inputs(base, self.twin.arrays(condition, "denoiser"), 1)
        for base, condition in zip(self.people.bases, self.ask(report))
      ]
      inputs.append(jax.tree.map(lambda *parts: np.concatenate(parts), *rows))
    if networks.reads_beats:
      inputs = [
        each._replace(track=networks.track(rhythms))
        for each, rhythms in zip(inputs, self.rhythms(kind), strict=True)
      ]
    latents = networks.sample_edit(
      plan,
      kind.rule,
      round(threshold * plan.schedule.steps),
      own_maps,
      networks.draw_noise(plan, rngs, inputs[0].track),
      rngs,
      *inputs,
      kind.row,
      weight,
      settings.strengths,
    )
    return tuple(networks.decode(latent) for latent in latents)

  def rhythms(self, kind: Kind) -> tuple:
    """Those of the sources and of their edits, as ECGTwin.edit has them."""
    before, after = self.ask(kind.source), self.ask(kind.edit)
    none = [0] * self.n
    source = self.twin.draw_rhythms(before, range(self.n), none)
    other = self.twin.draw_rhythms(after, range(self.n), none)
    edit = [
      edit_rhythms([rhythm], *pair, lambda drawn=drawn: [drawn], seed)[0]
      for seed, (rhythm, drawn, *pair) in enumerate(
        zip(source, other, before, after, strict=True)
      )
    ]
    return source, edit

  def measure(self, kind: Kind, source, edit, like=None) -> dict:
    """Columns of one number per patient.

    Args:
      kind: kind of the edit.
      source: ECGs.
      edit: what was made of them.
      like: ECGs that show the kind's part where the edit does not.
    """
    reports = self.ask(kind.source), self.ask(kind.edit)
    readings = [read_ecgs(signals) for signals in (source, edit)]
    met, bases = [], []
    for signals, report, read in zip((source, edit), reports, readings):
      pairs = zip(read, report, strict=True)
      met.append([check_criteria(*pair)[kind.criterion] for pair in pairs])
      ecgs = generate_examples.as_ecgs(signals)
      bases.append(self.twin.extract_bases(ecgs, report))
    shown = readings[1] if like is None else read_ecgs(like)
    if kind.rule == "reweight":
      shown = readings[0]  # the source has the sign, the edit may not
    parts = [part_of(kind, reading, source.shape[1]) for reading in shown]
    apart = [distances(*triple) for triple in zip(edit, source, parts)]
    inside, outside = np.array(apart).T
    rates = [detect_heart_rate(x, MODEL_RATE, "energy") for x in edit]
    strangers = np.roll(bases[0], 1, axis=0)
    return {
      "source": np.array(met[0], float),
      "edit": np.array(met[1], float),
      "inside": inside,
      "outside": outside,
      "similarity": held_out.cosine(bases[1], bases[0]),
      "stranger": held_out.cosine(strangers, bases[0]),
      "rate_error": np.abs(np.array(rates) - self.rates),
      "size": np.sqrt((edit**2).mean((1, 2)) / (source**2).mean((1, 2))),
      "unread": sum(reading is None for reading in readings[1]),
      "example": self._example(kind, source, edit, met, apart),
    }

  def _example(self, kind, source, edit, met, apart):
    """The edit that changed the criterion and least else; of all if none did.

    "Else" is everything where nothing is outside.
    """
    changed = np.array(met[0]) != np.array(met[1])
    inside, outside = np.array(apart).T
    rest = np.where(np.isfinite(outside), outside, inside)
    rest = np.where(np.isfinite(rest), rest, np.inf)
    i = int(np.argmin(rest + 1e3 * ~changed))
    lead = LEADS.index(kind.lead)
    return {
      "patient": i,
      "changed": bool(changed[i]),
      "source": source[i, :, lead],
      "edit": edit[i, :, lead],
    }


def cells(context: Context, kept: pathlib.Path, thresholds) -> list[dict]:
  """Every cell, those of an earlier run read."""
  wanted = []
  for name, kind in KINDS.items():
    wanted += [
      (name, "edit", threshold, weight)
      for weight in kind.weights
      for threshold in thresholds
    ]
    wanted.append((name, "own", 1.0, kind.weights[0]))
    if kind.rule != "reweight":
      wanted.append((name, "direct", 1.0, 1.0))
    if kind.consistent:
      wanted.append((name, "consistent", 1.0, 1.0))
    wanted.append((name, "seed", 1.0, 1.0))
  rows, made = [], {}

  def generate(*key):
    if key not in made:
      made[key] = context.generate(*key)
    return made[key]

  for name, what, threshold, weight in tqdm(wanted, desc="cells"):

    def make(kind=KINDS[name], what=what, threshold=threshold, weight=weight):
      if what in ("edit", "own"):
        pair = context.edit(kind, threshold, weight, what == "own")
        return context.measure(kind, *pair)
      source, direct = generate(kind.source), generate(kind.edit)
      if what == "seed":
        again = generate(kind.source, 1)
        return context.measure(kind, source, again, like=direct)
      report = kind.edit if what == "direct" else kind.consistent
      return context.measure(
        kind._replace(edit=report), source, generate(report)
      )

    place = f"{name} {what} {threshold:g} {weight:g}".replace(" ", "-")
    cell = held_out.read_or_make(kept / f"{place}.json", make)
    about = {"kind": name, "made": what}
    edited = what in ("edit", "own")
    about["threshold"] = threshold if edited else ""
    about["weight"] = weight if edited else ""
    rows.append({**about, **cell})
  return rows


def summarise(rows: list[dict]) -> list[dict]:
  """Table rows, each measure as [value, low, high]."""
  table = []
  for row in rows:
    n = len(row["edit"])
    short = {k: row[k] for k in ("kind", "made", "threshold", "weight")}
    short |= {"patients": n, "unread": row["unread"]}
    for name in MEASURES:
      short[name] = held_out.estimate(held_out.mean_of(column(row, name)), n)
    short["stranger"] = mean(column(row, "stranger"))
    table.append(short)
  return table


def draw(rows: list[dict], table: list[dict]) -> Figure:
  """Per kind a good example, and what changes and stays by threshold."""
  figure = Figure(figsize=(14, 13), layout="constrained")
  grid = figure.subplots(len(KINDS), 3, width_ratios=(4, 1, 1), squeeze=False)
  for line, name in zip(grid, KINDS, strict=True):
    _draw_example(line[0], choose_example(rows, name), KINDS[name])
    own = [row for row in table if row["kind"] == name]
    rest = "inside" if KINDS[name].part == "all" else "outside"
    _draw_curves(line[1], own, "edit")
    _draw_curves(line[2], own, rest)
    line[1].set_ylim(-0.05, 1.05)
    line[2].set_ylim(bottom=0)
    for axes in line:
      axes.tick_params(labelsize=7)
      axes.spines[["top", "right"]].set_visible(False)
  grid[0, 0].legend(frameon=False, fontsize=8, loc="upper right", ncols=2)
  grid[0, 1].set_title("meets the criterion", fontsize=9)
  grid[0, 2].set_title("edit - source in the rest, mV", fontsize=9)
  grid[-1, 0].set_xlabel("s", fontsize=8)
  for axes in grid[-1, 1:]:
    axes.set_xlabel("threshold", fontsize=8)
  handles = {}
  for axes in grid[:, 1:].flat:
    lines, labels = axes.get_legend_handles_labels()
    handles |= dict(zip(labels, lines, strict=True))
  figure.legend(
    handles.values(), handles, fontsize=8, loc="outside lower right", ncols=7
  )
  return figure


def _draw_example(axes, row, kind):
  example = row["example"]
  time = np.arange(len(example["source"])) / MODEL_RATE
  source, edit = column(example, "source"), column(example, "edit")
  axes.plot(time, source, "0.65", linewidth=2, label="source")
  axes.plot(time, edit, "tab:red", linewidth=0.9, label="edit")
  title = f"{row['kind']}: lead {kind.lead}, weight {row['weight']:g}, "
  title += f"threshold {row['threshold']:g}"
  title += ", own attention" if row["made"] == "own" else ""
  if not example["changed"]:
    title += " (the criterion changed in no ECG)"
  axes.set_title(title, fontsize=9, loc="left")
  axes.set_ylabel("mV", fontsize=8)
  axes.set_xlim(0, 10)


def _draw_curves(axes, own, measure):
  """A measure over the threshold, and what it is without an edit."""
  for made, style in (
    ("own", {"color": "tab:green"}),
    ("direct", {"color": "tab:blue", "linestyle": "--"}),
    ("consistent", {"color": "tab:blue", "linestyle": ":"}),
    ("seed", {"color": "0.5", "linestyle": "-."}),
  ):
    for row in own:
      if row["made"] == made:
        label = {"seed": "source's report, other seed"}.get(made, made)
        axes.axhline(row[measure][0], linewidth=1, label=label, **style)
  edits = [row for row in own if row["made"] == "edit"]
  if measure == "edit":
    level = edits[0]["source"][0]
    axes.axhline(level, color="0.65", linewidth=2, label="source")
  for weight in dict.fromkeys(row["weight"] for row in edits):
    chosen = [row for row in edits if row["weight"] == weight]
    values, low, high = np.array([row[measure] for row in chosen]).T
    axes.errorbar(
      [row["threshold"] for row in chosen],
      values,
      [np.maximum(values - low, 0), np.maximum(high - values, 0)],
      marker="o",
      markersize=3,
      linewidth=1,
      capsize=2,
      color=_COLOURS[weight],
      label=f"edit, weight {weight:g}",
    )


def choose_example(rows: list[dict], name: str) -> dict:
  """The cell to show: the default edit of this kind."""
  return next(r for r in rows if r["kind"] == name and r["made"] == "own")


def main() -> None:
  parser = held_out.make_parser(__doc__, "runs/edit_effect", 48)
  parser.add_argument("--thresholds", type=float, nargs="+", default=THRESHOLDS)
  run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
  """Makes what is missing, and writes the table and the picture."""
  folder = pathlib.Path(arguments.output)
  twin, data, about = held_out.start(arguments)
  context = Context(twin, data, arguments.patients)
  rows = cells(context, folder / "cells", arguments.thresholds)
  table = summarise(rows)
  held_out.write_table(folder / "edit_effect", about, table)
  draw(rows, table).savefig(folder / "edit_effect.png", dpi=75)
  print(about)
  print((folder / "edit_effect.csv").read_text())


if __name__ == "__main__":
  main()
