"""Strength of guidance against what was asked, who it is, and variety.

  python -m studies.guidance_effect --data=runs/small/simulated
  python -m studies.guidance_effect --twin=DIR --data=DIR --patients=16

Every one of 64 held-out simulated patients is asked for seven conditions, two
ECGs each, from the same noise in every cell; one of the two guidances is varied
at a time. Per cell:

  adherence   share that meets the criterion of what was asked, mean over the
              seven; unasked: share that meets another's criterion
  rate_error  |detected - asked heart rate|, bpm
  similarity  cosine of the ECG's base vector and the reference's
  identified  share whose base vector is nearest to the own reference's
  truth       (s - g) / (s - r): median beats' distance to the patient's true
              one, of a stranger s, of these g, of the patient's recording r
  diversity   distance of the median beats of the two ECGs, over that of two
              recordings of the patient under the same condition
  size        root mean square of the signal over that of the recordings

The last row is recordings of the simulator. Intervals: 95%, bootstrap over
patients; "gain" is against guidance 1, patient by patient. Cells that are there
already are read. Writes guidance_effect.json, .csv and .png.
"""

import argparse
import functools
import pathlib

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from ecgtwin_jax.beats.criteria_checks import check_criteria
from ecgtwin_jax.beats.delineation import read_ecgs
from ecgtwin_jax.data.ecg import LEADS, MODEL_RATE
from ecgtwin_jax.data.heart_rate import detect_heart_rate
from ecgtwin_jax.evaluation import generate_examples
from ecgtwin_jax.evaluation.truth import beat_distance
from ecgtwin_jax.inference.sampling import Settings
from ecgtwin_jax.text.findings import asks_for
from studies import held_out
from studies.held_out import column, mean

STRENGTHS = {
  "statement_guidance": (1.0, 1.5, 2.0, 3.0, 5.0),
  "person_guidance": (1.0, 1.5, 2.0, 3.0),
}
# Criterion: report that asks for it, and lowest and highest heart rate.
ASKED = {
  "pvc": (
    ("Sinus rhythm", "Ventricular premature complex", "Abnormal ECG"),
    (62, 90),
  ),
  "rbbb": (
    ("Sinus rhythm", "Right bundle branch block", "Abnormal ECG"),
    (62, 98),
  ),
  "lbbb": (
    ("Sinus rhythm", "Left bundle branch block", "Abnormal ECG"),
    (62, 98),
  ),
  "fibrillation": (("Atrial fibrillation", "Abnormal ECG"), (62, 98)),
  "st_elevation": (
    ("Sinus rhythm", "Anterior infarct, possibly acute", "Abnormal ECG"),
    (62, 98),
  ),
  "bradycardia": (
    ("Sinus bradycardia", "Normal ECG except for rate"),
    (45, 57),
  ),
  "tachycardia": (
    ("Sinus tachycardia", "Normal ECG except for rate"),
    (104, 140),
  ),
}
SAMPLES = 2
MEASURES = {
  "adherence": "meets the criterion",
  "rate_error": "heart-rate error, bpm",
  "similarity": "base-vector similarity",
  "identified": "patient identified",
  "truth": "truth score",
  "diversity": "diversity (recordings: 1)",
}


class Context:
  """The patients, what they are asked, and the measures of any ECGs."""

  def __init__(self, twin, data, patients: int):
    self.twin = twin
    self.people = held_out.find_people(twin, data, patients)
    self.conditions = []  # patient after patient
    for i in range(len(self.people.now)):
      rng = np.random.default_rng([0, i])
      for statements, (low, high) in ASKED.values():
        rate = rng.integers(low, high + 1)
        self.conditions.append(self.people.ask(i, statements, rate))
    self.wants = np.array(
      [
        [asks_for(c.statements, name) is False for name in ASKED]
        for c in self.conditions
      ]
    )

  def generate(self, **settings) -> np.ndarray:
    """(patients * conditions * samples, 1024, 12) mV."""
    each = len(ASKED) * SAMPLES
    n = len(self.people.now)
    return self.twin.generate_rows(
      np.repeat(self.people.bases, each, axis=0),
      [c for c in self.conditions for _ in range(SAMPLES)],
      np.repeat(np.arange(n), each).tolist(),
      list(range(SAMPLES)) * (n * len(ASKED)),
      Settings(**settings),
    ).signals

  def simulate(self) -> np.ndarray:
    """As generate, of the simulator."""
    signals = []
    for i, condition in enumerate(self.conditions):
      patient = self.people.patients[i // len(ASKED)]
      for k in range(SAMPLES):
        rng = np.random.default_rng([1, i, k])
        signals.append(held_out.record(patient, condition, rng)[0].signal)
    return np.stack(signals)

  @functools.cached_property
  def true(self) -> list:
    """Median beat of every patient's true ECG under every condition."""
    return self._recordings(0)

  def strangers(self) -> list[float]:
    """Distance of another patient's recording from the true one."""
    return self._distances(self._recordings(1), self.true)

  def _recordings(self, shift):
    signals = []
    for i, condition in enumerate(self.conditions):
      who = (i // len(ASKED) + shift) % len(self.people.patients)
      rng = np.random.default_rng([2 + shift, i])
      signals.append(
        held_out.record(self.people.patients[who], condition, rng)[0].signal
      )
    return read_ecgs(signals)

  def _distances(self, made, true):
    """mV over leads, mean of each patient's conditions."""
    pairs = zip(made, true, strict=True)
    square = [np.mean(beat_distance(a, b)[0] ** 2) for a, b in pairs]
    return self._per_patient(np.sqrt(square))

  def _per_patient(self, values):
    n = len(self.people.now)
    return [mean(row) for row in np.reshape(values, (n, -1))]

  def measure(self, signals) -> dict:
    """Columns of one number per patient, adherence of one per condition."""
    n = len(self.people.now)
    conditions = [c for c in self.conditions for _ in range(SAMPLES)]
    readings = read_ecgs(signals)
    met = [check_criteria(*pair) for pair in zip(readings, conditions)]
    met = np.array([[m[name] for name in ASKED] for m in met], float)
    met = met.reshape(len(self.conditions), SAMPLES, -1).mean(axis=1)
    each = met.reshape(n, len(ASKED), len(ASKED))
    asked = np.diagonal(each, axis1=1, axis2=2)
    rates = [detect_heart_rate(s, MODEL_RATE, "energy") for s in signals]
    errors = np.abs(np.array(rates) - [c.heart_rate for c in conditions])
    bases = self.twin.extract_bases(
      generate_examples.as_ecgs(signals), conditions
    )
    alike = held_out.cosine(bases[:, None], self.people.bases[None])
    own = np.repeat(np.arange(n), len(bases) // n)
    first, second = readings[::SAMPLES], readings[1::SAMPLES]
    strip = signals[list(ASKED).index("pvc") * SAMPLES, :, LEADS.index("II")]
    return {
      "met": asked,
      "unasked": self._per_patient(np.where(self.wants, met, np.nan)),
      "rate_error": self._per_patient(errors),
      "similarity": self._per_patient(alike[np.arange(len(own)), own]),
      "identified": self._per_patient(alike.argmax(axis=1) == own),
      "distance": self._distances(first, self.true),
      "apart": self._distances(first, second),
      "size": self._per_patient(np.sqrt((signals**2).mean(axis=(1, 2)))),
      "failed_rates": int(np.isnan(rates).sum()),
      "unread": sum(reading is None for reading in readings),
      "ecgs": len(signals),
      "strip": strip,
    }


def cells(context: Context, kept: pathlib.Path) -> dict:
  """{(statement, person guidance): cell}, and "real"; earlier ones read."""
  wanted = [(s, 1.0) for s in STRENGTHS["statement_guidance"]]
  wanted += [(1.0, p) for p in STRENGTHS["person_guidance"] if p != 1]
  found = {}
  for key in tqdm([*wanted, "real"], desc="cells"):

    def make(key=key):
      if key == "real":
        own = context.measure(context.simulate())
        return {**own, "stranger": context.strangers()}
      settings = dict(zip(STRENGTHS, key, strict=True))
      return context.measure(context.generate(**settings))

    name = key if key == "real" else f"{key[0]:g}-{key[1]:g}"
    found[key] = held_out.read_or_make(kept / f"{name}.json", make)
  return found


def truth_score(
  made: np.ndarray, real: np.ndarray, stranger: np.ndarray
) -> float:
  """(s - g) / (s - r) of the means of rows where all three are known."""
  good = np.isfinite(made) & np.isfinite(real) & np.isfinite(stranger)
  if not good.any():
    return float("nan")
  far, near = stranger[good].mean(), real[good].mean()
  return float((far - made[good].mean()) / (far - near))


def ratio(made: np.ndarray, real: np.ndarray) -> float:
  """Ratio of the means of rows where both are known."""
  good = np.isfinite(made) & np.isfinite(real)
  return float(made[good].mean() / real[good].mean()) if good.any() else np.nan


def summarise(found: dict) -> list[dict]:
  """Table rows, each measure as [value, low, high]."""
  real, plain = found["real"], found[1.0, 1.0]
  n = len(real["distance"])
  strangers = column(real, "stranger")
  rows = []
  for key, cell in found.items():
    strengths = ("recordings", "") if key == "real" else key
    row = dict(zip(STRENGTHS, strengths, strict=True))
    row |= {"patients": n, **{k: cell[k] for k in ("ecgs", "unread")}}
    row["failed_rates"] = cell["failed_rates"]
    met, before = column(cell, "met"), column(plain, "met")
    statistics = {
      "adherence": lambda i, x=met: x[i].mean(),
      "gain": lambda i, x=met - before: x[i].mean(),
    }
    for k, name in enumerate(ASKED):
      statistics[name] = lambda i, x=met[:, k]: x[i].mean()
    for name in ("unasked", "rate_error", "similarity", "identified"):
      statistics[name] = held_out.mean_of(column(cell, name))
    distance = column(cell, "distance")
    statistics["truth"] = lambda i, x=distance: truth_score(
      x[i], column(real, "distance")[i], strangers[i]
    )
    for name, of in (("diversity", "apart"), ("size", "size")):
      statistics[name] = lambda i, x=cell, of=of: ratio(
        column(x, of)[i], column(real, of)[i]
      )
    for name, statistic in statistics.items():
      row[name] = held_out.estimate(statistic, n)
    rows.append(row)
  return rows


def draw(rows: list[dict], found: dict) -> Figure:
  """Curves of the measures, and one patient's lead II as guidance grows."""
  figure = Figure(figsize=(13, 8.5), layout="constrained")
  upper, lower = figure.subfigures(2, 1, height_ratios=(1.25, 1))
  colours = {"statement_guidance": "tab:blue", "person_guidance": "tab:orange"}
  for axes, (name, title) in zip(
    upper.subplots(2, 3).flat, MEASURES.items(), strict=True
  ):
    value, low, high = rows[-1][name]
    axes.axhspan(low, high, color="0.87", label="recordings, 95%")
    axes.axhline(value, color="0.5", linewidth=0.8)
    for which, (kind, strengths) in enumerate(STRENGTHS.items()):
      wanted = [(s, 1.0) if which == 0 else (1.0, s) for s in strengths]
      keys = list(found)
      values, low, high = np.array(
        [rows[keys.index(key)][name] for key in wanted]
      ).T
      axes.errorbar(
        strengths,
        values,
        [np.maximum(values - low, 0), np.maximum(high - values, 0)],
        marker="o",
        markersize=4,
        linewidth=1.2,
        capsize=2,
        color=colours[kind],
        label=kind.replace("_", " "),
      )
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("strength", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
  axes.legend(frameon=False, fontsize=8)
  strengths = STRENGTHS["statement_guidance"]
  grid = lower.subplots(len(strengths), 1, sharex=True, sharey=True)
  for axes, strength in zip(grid, strengths, strict=True):
    strip = column(found[strength, 1.0], "strip")
    axes.plot(np.arange(len(strip)) / MODEL_RATE, strip, "k", linewidth=0.8)
    axes.set_ylabel(f"{strength:g}", rotation=0, labelpad=14, va="center")
    axes.tick_params(labelsize=7)
    axes.set_xlim(0, 10)
    axes.spines[["top", "right"]].set_visible(False)
  grid[-1].set_xlabel("s", fontsize=8)
  lower.suptitle(
    "Lead II (mV) of the first patient from the same noise, asked for "
    f"“{ASKED['pvc'][0][1]}”, at growing statement guidance",
    fontsize=10,
  )
  return figure


def main() -> None:
  run(held_out.make_parser(__doc__, "runs/guidance_effect", 64).parse_args())


def run(arguments: argparse.Namespace) -> None:
  """Makes what is missing, and writes the table and the picture."""
  folder = pathlib.Path(arguments.output)
  twin, data, about = held_out.start(arguments)
  found = cells(Context(twin, data, arguments.patients), folder / "cells")
  rows = summarise(found)
  held_out.write_table(folder / "guidance_effect", about, rows)
  draw(rows, found).savefig(folder / "guidance_effect.png", dpi=100)
  print(about)
  print((folder / "guidance_effect.csv").read_text())


if __name__ == "__main__":
  main()
