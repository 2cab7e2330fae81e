"""How far simulated ECGs are from real ones, measure by measure.

  python -m data_prep ptbxl --input=PTBXL --output=DIR --sampling_rate=100
  python -m studies.simulated_against_real DIR

One recording of every real patient beside one of as many simulated patients,
read by the same delineation. Real patients with several recordings are left
out: they judge twins. Tables as CSV and Markdown, and a picture. The search
for the simulator's wave sizes saw the training split alone:
--splits=validation,test measures it on the others.
"""

import argparse
import csv
import math
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.dataset import SPLITS
from ecgtwin_jax.data.ecg import LEADS
from ecgtwin_jax.evaluation.metric import Metric, bootstrap_interval, number
from ecgtwin_jax.evaluation.physiology.physiology import (
  power_spectra,
  spectrum_distance,
)
from ecgtwin_jax.evaluation.resampling import (
  compare_halves,
  wasserstein_metric,
)
from ecgtwin_jax.text.findings import FINDINGS, auroc, finding
from studies.recording_measures import (
  COLUMNS,
  GROUPS,
  WAVES,
  measure,
  read_real,
  simulate_recordings,
)

LEAST = 30  # recordings of a condition, in both sets
COMMON = 20  # recordings of a finding that the simulator should know
FOLDS = 5
# What stands in the table by condition.
BY_CONDITION = (
  *("heart_rate_bpm", "pr_ms", "qrs_ms", "qtcf_ms", "axis_deg"),
  *("p_II_mv", "r_V5_mv", "s_V1_mv", "t_V5_mv", "beat_spread_uv"),
  "rr_spread_ms",
)


def compare(
  name: str,
  simulated: Float[np.ndarray, " n"],
  real: Float[np.ndarray, " m"],
  seed: int,
) -> Metric:
  """Wasserstein distance of as many patients, real against real beside it."""
  size = min(len(simulated), len(real))
  return wasserstein_metric(
    name,
    simulated[:size, None],
    real[:size],
    np.arange(size),
    "physiology",
    "",
    seed,
  )


def row_of(metric: Metric, simulated, real, **more) -> dict:
  """A line of a table: both distributions, distance, and its ratio."""
  row = more | {"measure": metric.name}
  for name, values in (("real", real), ("simulated", simulated)):
    good = values[np.isfinite(values)]
    row[f"{name}_n"] = len(good)
    for percent in (5, 50, 95):
      row[f"{name}_p{percent}"] = (
        float(np.percentile(good, percent)) if len(good) else math.nan
      )
  return row | {
    "distance": metric.value,
    "low": metric.low,
    "high": metric.high,
    "real_against_real": metric.reference,
    "ratio": metric.value / metric.reference,
  }


def shares(
  real: list[Condition], simulated: list[Condition]
) -> list[dict[str, float | int | str]]:
  """How often each finding is stated in both sets, the most frequent first."""
  rows = []
  for name in FINDINGS:
    counts = [
      sum(finding(name, c.statements) == 1 for c in conditions)
      for conditions in (real, simulated)
    ]
    rows.append(
      {
        "finding": name,
        "real_n": counts[0],
        "real_share": counts[0] / len(real),
        "simulated_n": counts[1],
        "simulated_share": counts[1] / len(simulated),
      }
    )
  rows = [row for row in rows if row["real_n"] or row["simulated_n"]]
  return sorted(rows, key=lambda row: -row["real_n"])


def recognise(
  real: Float[np.ndarray, "n f"],
  simulated: Float[np.ndarray, "m f"],
  seed: int,
) -> tuple[float, float, float]:
  """AUROC of real against simulated on patients not trained on, with interval.

  Boosted trees, which take missing measures as they are; of five folds each is
  judged by trees grown on the others.
  """
  from sklearn.ensemble import HistGradientBoostingClassifier
  from sklearn.model_selection import StratifiedKFold, cross_val_predict

  features = np.concatenate([real, simulated])
  label = np.repeat([1, 0], [len(real), len(simulated)])
  scores = cross_val_predict(
    HistGradientBoostingClassifier(max_iter=150, random_state=seed),
    features,
    label,
    cv=StratifiedKFold(FOLDS, shuffle=True, random_state=seed),
    method="predict_proba",
  )[:, 1]
  low, high = bootstrap_interval(
    lambda rows: auroc(scores[rows], label[rows]),
    np.arange(len(label)),
    repeats=300,
    seed=seed,
  )
  return auroc(scores, label), low, high


def fit_qt(
  measured: dict[str, Float[np.ndarray, " n"]], seed: int
) -> tuple[float, float, float]:
  """Slope of QT on the RR interval, ms per s, with its interval."""
  rr = 60 / measured["heart_rate_bpm"]
  good = np.isfinite(rr) & np.isfinite(measured["qt_ms"])
  rr, qt = rr[good], measured["qt_ms"][good]

  def slope(rows):
    return float(np.polyfit(rr[rows], qt[rows], 1)[0])

  every = np.arange(len(rr))
  return slope(every), *bootstrap_interval(slope, every, seed=seed)


def shows(conditions: list[Condition], name: str) -> Bool[np.ndarray, " n"]:
  """Whose report states a finding."""
  return np.array([finding(name, c.statements) == 1 for c in conditions])


def draw(real, simulated, overall, areas, spectra):
  """Distributions, distances by wave and lead, spectra, and the classifier."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(13, 10), layout="constrained")
  grid = figure.add_gridspec(4, 4)
  for place, name in enumerate(BY_CONDITION[:5] + BY_CONDITION[-6:-3]):
    axes = figure.add_subplot(grid[place // 4, place % 4])
    both = [x[name][np.isfinite(x[name])] for x in (real, simulated)]
    bins = np.linspace(*np.percentile(np.concatenate(both), [0.5, 99.5]), 31)
    for values, label in zip(both, ("real", "simulated"), strict=True):
      weights = np.full(len(values), 1 / len(values))
      axes.hist(values, bins, weights=weights, alpha=0.55, label=label)
    axes.set_title(name, fontsize=9)
    axes.set_yticks([])
  figure.axes[0].legend(fontsize=8)
  ratio = {row["measure"]: row["ratio"] for row in overall}
  table = np.array([[ratio[f"{w}_{k}_mv"] for k in LEADS] for w in WAVES])
  axes = figure.add_subplot(grid[2, :2])
  image = axes.imshow(table, vmin=1, vmax=8, cmap="viridis", aspect="auto")
  axes.set_xticks(range(12), LEADS, fontsize=8)
  axes.set_yticks(range(len(WAVES)), [w.upper() for w in WAVES])
  axes.set_title("distance, in distances of real from real", fontsize=9)
  figure.colorbar(image, ax=axes)
  axes = figure.add_subplot(grid[2:, 2:])
  hertz = np.arange(spectra["real"].shape[1]) + 1
  for name, power in spectra.items():
    level = 10 * np.log10(power.mean(axis=2))
    middle = np.median(level, axis=0)
    axes.plot(hertz, middle, label=name)
    axes.fill_between(
      hertz, *np.percentile(level, [25, 75], axis=0), alpha=0.25
    )
  axes.set_xlabel("Hz")
  axes.set_title("power, dB of mV²/Hz, mean over leads", fontsize=9)
  axes.legend(fontsize=8)
  axes = figure.add_subplot(grid[3, :2])
  names = list(areas)
  value, low, high = np.array([areas[name] for name in names]).T
  axes.barh(names, value, xerr=np.stack([value - low, high - value]))
  axes.set_xlim(0.5, 1.0)
  axes.set_title("AUROC of real against simulated", fontsize=9)
  return figure


def write_table(path: pathlib.Path, rows: list[dict]) -> None:
  """Writes rows as CSV, numbers with four digits."""
  with open(path, "w", newline="") as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    for row in rows:
      writer.writerow({k: _cell(v) for k, v in row.items()})


def _cell(value):
  return number(value) if isinstance(value, float) else value


def to_markdown(head: Iterable[str], rows: Iterable[Iterable]) -> str:
  """A table in Markdown."""
  head = list(head)
  lines = [head, ["---"] * len(head), *(map(_cell, row) for row in rows)]
  return "\n".join("| " + " | ".join(map(str, x)) + " |" for x in lines)


def describe(row: dict) -> list[str]:
  """A row of the overall table for people."""

  def spread(name):
    return (
      f"{number(row[f'{name}_p50'])} ({number(row[f'{name}_p5'])} to "
      f"{number(row[f'{name}_p95'])})"
    )

  distance = (
    f"{number(row['distance'])} ({number(row['low'])} to {number(row['high'])})"
  )
  return [
    row["measure"],
    *(spread(name) for name in ("real", "simulated")),
    distance,
    number(row["real_against_real"]),
    f"{row['ratio']:.1f}",
  ]


def run(
  directory: str,
  output: str,
  patients: int | None,
  seed: int,
  splits: Sequence[str] = SPLITS,
) -> None:
  """Measures both sets and writes tables and picture.

  Args:
    directory: a data set of real ECGs in mV.
    output: folder of tables and picture.
    patients: simulated; None: twice the real ones, as some conditions are rare.
    seed: of cohort, halves, folds and resampling.
    splits: of the real data set.
  """
  folder = pathlib.Path(output)
  folder.mkdir(parents=True, exist_ok=True)
  true = read_real(directory, splits)
  made = simulate_recordings(patients or 2 * len(true.conditions), seed)
  real, simulated = measure(true, "Real"), measure(made, "Simulated")

  overall = [
    row_of(
      compare(name, simulated[name], real[name], seed),
      simulated[name],
      real[name],
    )
    for name in COLUMNS
  ]
  write_table(folder / "simulated_against_real.csv", overall)
  close = sum(row["ratio"] <= 2 for row in overall)
  print(f"{len(true.conditions)} real, {len(made.conditions)} simulated")
  for name, people in (("real", true), ("simulated", made)):
    ages = [c.age for c in people.conditions if c.age is not None]
    women = np.mean([c.sex == "F" for c in people.conditions])
    print(f"{name}: median age {np.median(ages):.0f}, {women:.0%} women")
  print(f"{close} of {len(overall)} distances within twice real against real\n")
  head = ("measure", "real", "simulated", "distance", "real from real", "ratio")
  few = [row for row in overall if row["measure"] not in GROUPS["sizes"]]
  print(to_markdown(head, map(describe, few)), "\n")
  ratio = {row["measure"]: row["ratio"] for row in overall}
  print(
    to_markdown(
      ("wave", *LEADS),
      (
        [w.upper(), *(f"{ratio[f'{w}_{k}_mv']:.1f}" for k in LEADS)]
        for w in WAVES
      ),
    ),
    "\n",
  )
  for name, measured in (("real", real), ("simulated", simulated)):
    slope, low, high = fit_qt(measured, seed)
    print(f"QT on RR, {name}: {slope:.0f} ({low:.0f} to {high:.0f}) ms per s")

  size = len(true.signals)
  spectra = {
    "real": power_spectra(true.signals),
    "simulated": power_spectra(made.signals[:size]),
  }
  decibel, low, high, apart = compare_halves(
    lambda rows: spectra["simulated"][rows],
    lambda rows: spectra["real"][rows],
    spectrum_distance,
    np.arange(len(spectra["simulated"])),
    seed,
  )
  print(
    f"spectrum: {decibel:.1f} dB ({low:.1f} to {high:.1f}), real from real "
    f"{apart:.1f}\n"
  )

  statements = shares(true.conditions, made.conditions)
  write_table(folder / "simulated_against_real_findings.csv", statements)
  print(
    to_markdown(
      ("finding", "real", "simulated"),
      (
        [r["finding"], f"{r['real_share']:.1%}", f"{r['simulated_share']:.1%}"]
        for r in statements
        if max(r["real_n"], r["simulated_n"]) >= COMMON
      ),
    ),
    "\n",
  )

  by_condition, lines = [], []
  for entry in statements:
    name = entry["finding"]
    if min(entry["real_n"], entry["simulated_n"]) < LEAST:
      continue
    here, there = shows(true.conditions, name), shows(made.conditions, name)
    cells = []
    for column in BY_CONDITION:
      one, other = simulated[column][there], real[column][here]
      metric = compare(column, one, other, seed)
      by_condition.append(row_of(metric, one, other, condition=name))
      cells.append(f"{by_condition[-1]['ratio']:.1f}")
    lines.append([name, entry["real_n"], entry["simulated_n"], *cells])
  write_table(folder / "simulated_against_real_conditions.csv", by_condition)
  print(to_markdown(("condition", "real", "simulated", *BY_CONDITION), lines))

  areas = {}
  both = [
    np.stack([measured[name][:size] for name in COLUMNS], axis=1)
    for measured in (real, simulated)
  ]
  areas["all measures"] = recognise(*both, seed)
  normal = [
    table[shows(people.conditions[:size], "normal_ecg")]
    for table, people in zip(both, (true, made), strict=True)
  ]
  areas["all, normal ECGs alone"] = recognise(*normal, seed)
  for group, names in GROUPS.items():
    columns = [COLUMNS.index(name) for name in names]
    areas[f"{group} alone"] = recognise(*(x[:, columns] for x in both), seed)
  print()
  print(
    to_markdown(
      ("measures", "AUROC"),
      (
        [name, f"{area:.3f} ({low:.3f} to {high:.3f})"]
        for name, (area, low, high) in areas.items()
      ),
    )
  )
  write_table(
    folder / "simulated_against_real_auroc.csv",
    [
      {"measures": name, "auroc": area, "low": low, "high": high}
      for name, (area, low, high) in areas.items()
    ],
  )
  figure = draw(real, simulated, overall, areas, spectra)
  figure.savefig(folder / "simulated_against_real.png", dpi=90)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("data", help="a data set of real ECGs in mV")
  parser.add_argument("--patients", type=int, help="simulated ones")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--splits", default=",".join(SPLITS), help="by commas")
  parser.add_argument("--output", default="runs/simulated_against_real")
  arguments = parser.parse_args()
  run(
    arguments.data,
    arguments.output,
    arguments.patients,
    arguments.seed,
    arguments.splits.split(","),
  )


if __name__ == "__main__":
  main()
