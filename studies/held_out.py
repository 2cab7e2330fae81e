"""Held-out simulated patients, and tables whose cells can be resumed.

What the tables of sampling, guidance, editing and attention share.
"""

import argparse
import csv
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.dataset import Dataset, load_split
from ecgtwin_jax.data.ecg import ECG, MODEL_SAMPLES
from ecgtwin_jax.data.whole_files import appear_whole
from ecgtwin_jax.evaluation import generate_examples
from ecgtwin_jax.evaluation.metric import bootstrap_interval
from ecgtwin_jax.inference.twin import ECGTwin, load_twin
from ecgtwin_jax.simulator import simulate

REPEATS = 1000  # resamples of an interval


def make_parser(
  doc: str, output: str, patients: int
) -> argparse.ArgumentParser:
  """The flags that all three have."""
  parser = argparse.ArgumentParser(
    description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "--twin", default="simulated-small", help="or a directory"
  )
  parser.add_argument("--data", required=True, help="a simulated cohort")
  parser.add_argument("--split", default="test")
  parser.add_argument("--patients", type=int, default=patients)
  parser.add_argument("--output", default=output)
  return parser


def start(
  arguments: argparse.Namespace, **more: Any
) -> tuple[ECGTwin, Dataset, dict]:
  """The twin, the data, and what the results are of; claims the folder.

  Raises:
    ValueError: the folder holds the results of something else.
  """
  data = load_split(arguments.data, arguments.split, kind="ecg")
  twin = load_twin(arguments.twin)
  about = {
    "twin": twin.digest,
    "data": data.card["fingerprint"],
    "split": arguments.split,
    "patients": arguments.patients,
    "seed": 0,
    **more,
  }
  generate_examples.claim(pathlib.Path(arguments.output) / "cells", about)
  return twin, data, about


class People(NamedTuple):
  """Held-out patients, one row each.

  Attributes:
    patients: the simulator's.
    now: what the reference shows.
    bases: base vectors of the references.
  """

  patients: list[simulate.Patient]
  now: list[Condition]
  bases: np.ndarray

  def ask(self, row: int, statements: tuple[str, ...], rate: float):
    """A report for one of them."""
    own = self.now[row]
    return Condition(statements, float(rate), own.age, own.sex)


def find_people(
  twin: ECGTwin, data: Dataset, count: int, seed: int = 0
) -> People:
  """Draws patients of a split of a simulated cohort.

  Raises:
    ValueError: the data set is not a simulated cohort.
  """
  if data.card["name"] != "simulated":
    raise ValueError(f"{data.directory} must be made by `data_prep simulated`")
  rows = generate_examples.choose(data, count, 1, seed).references
  cohort = data.card["options"]["seed"]
  numbers = [int(name.split("-")[0]) for name in data.record_names(rows)]
  now = [generate_examples.read_condition(data, row) for row in rows]
  references = generate_examples.as_ecgs(
    generate_examples.signals_mv(data, rows)
  )
  return People(
    [simulate.cohort_patient(cohort, number) for number in numbers],
    now,
    twin.extract_bases(references, now),
  )


def record(
  patient: simulate.Patient, condition: Condition, rng: np.random.Generator
) -> tuple[ECG, simulate.Fiducials]:
  """A true recording at the model's rate, and where its waves are."""
  shown = simulate.simulate(patient, condition, rng)
  return shown.ecg.resample(MODEL_SAMPLES), shown.fiducials


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Cosine similarity along the last axis."""
  norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
  return (a * b).sum(axis=-1) / norms


def mean(values: np.ndarray) -> float:
  """Mean of those that are numbers; nan where none is."""
  values = values[np.isfinite(values)]
  return float(values.mean()) if len(values) else math.nan


def mean_of(values: np.ndarray) -> Callable[[np.ndarray], float]:
  """The statistic `mean` of these values."""
  return lambda rows: mean(values[rows])


def estimate(
  statistic: Callable[[np.ndarray], float], patients: int
) -> list[float]:
  """[value, low, high]: 95%, bootstrap over patients, one row each."""
  everyone = np.arange(patients)
  ends = bootstrap_interval(statistic, everyone, repeats=REPEATS)
  return [float(statistic(everyone)), *ends]


def read_or_make(path: pathlib.Path, make: Callable[[], dict]) -> dict:
  """A cell of a table: of an earlier run if it is there."""
  if not path.exists():
    with appear_whole(path) as draft:
      draft.write_text(json.dumps(_plain(make()), allow_nan=False))
  return json.loads(path.read_text())


def column(cell: dict, name: str) -> np.ndarray:
  """Numbers of a cell, nan where something could not be measured."""
  return np.array(cell[name], np.float64)


def write_table(path: pathlib.Path, about: dict, rows: list[dict]) -> None:
  """Writes path.json and path.csv; [value, low, high] takes three columns."""
  content = _plain({**about, "rows": rows})
  path.with_suffix(".json").write_text(json.dumps(content, indent=1))
  with open(path.with_suffix(".csv"), "w", newline="") as file:
    writer = csv.writer(file)
    for k, row in enumerate(rows):
      flat = {}
      for name, value in row.items():
        if isinstance(value, list):
          ends = (name, f"{name}_low", f"{name}_high")
          flat |= dict(zip(ends, (f"{x:.4g}" for x in value), strict=True))
        else:
          flat[name] = f"{value:.4g}" if isinstance(value, float) else value
      if k == 0:
        writer.writerow(flat)
      writer.writerow(flat.values())


def _plain(value: Any) -> Any:
  """What JSON can hold: lists for arrays, null for nan."""
  if isinstance(value, dict):
    return {name: _plain(item) for name, item in value.items()}
  if isinstance(value, (list, tuple, np.ndarray)):
    return [_plain(item) for item in value]
  if isinstance(value, (float, np.floating)):
    return float(f"{value:.6g}") if math.isfinite(value) else None
  return value.item() if isinstance(value, np.generic) else value
