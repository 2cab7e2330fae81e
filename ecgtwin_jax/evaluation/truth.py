"""How near is a generated twin to the true one? On simulated patients alone.

The simulator gives a patient's ECG under any condition, so the twin that
should have been generated is known.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from tqdm import tqdm

from ecgtwin_jax.beats.delineation import Reading, read_ecg_beats
from ecgtwin_jax.beats.intervals import MEASURES, difference, measure_beat
from ecgtwin_jax.beats.median_beat import RATE
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import LEADS, MODEL_SAMPLES
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import (
  NAN,
  Metric,
  bootstrap_interval,
  mean_metric,
  mean_of,
  missing,
)
from ecgtwin_jax.evaluation.readings import Readings, without_segments
from ecgtwin_jax.simulator import simulate
from ecgtwin_jax.simulator.simulate import Patient

if TYPE_CHECKING:
  import matplotlib.figure

LEVEL = "truth"
_BEFORE, _AFTER = 0.26, 0.44  # s of a beat that are compared, at a slow rate
_SHIFT = 0.04  # s by which two beats are moved against each other, at most
_SHOWN = ("I", "II", "aVF", "V1", "V3", "V6")
# Sets whose truth score stands beside the twin's, as far as they are there.
_BESIDE = (
  "references",
  "decoded",
  "shuffled_reference",
  "zero_base",
  "matched_stranger",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
  """Median beats of simulated ECGs under each row's condition.

  Attributes:
    twin: the row's patient, without noise: what should have been generated.
    again: the same patient on another day, with noise.
    stranger: another patient, with noise.
  """

  twin: list[Reading | None]
  again: list[Reading | None]
  stranger: list[Reading | None]


class Comparison(NamedTuple):
  """What `compute` gives.

  Attributes:
    truth: the truth of each row.
    readings: {set: a list per row of its readings}; "twin" and what stands
      beside it.
    conditions: the condition of each row.
    patients: dense number of each row's patient.
  """

  truth: Truth
  readings: dict[str, list[list[Reading | None]]]
  conditions: Sequence[Condition]
  patients: Shaped[np.ndarray, " n"]


def find_patients(examples: Examples, seed: int) -> list[Patient]:
  """The simulated patient of each row of a cohort's examples.

  Args:
    examples: ECGs of a data set made by `data_prep simulated`.
    seed: seed of the cohort, as its card says.

  Raises:
    ValueError: a record is not named as a cohort's, or its patient is not of
      the sex that the condition says: it is another cohort's.
  """
  patients = []
  for name, condition in zip(
    examples.real_ids, examples.conditions, strict=True
  ):
    number = name.split("/")[0].split("-")[0]
    if not number.isdecimal():
      raise ValueError(f"record {name!r} must be named as a simulated cohort's")
    patient = simulate.cohort_patient(seed, int(number))
    if condition.sex not in (None, patient.sex):
      raise ValueError(
        f"record {name!r} with {condition.sex=} must be of the cohort of "
        f"{seed=}, where patient {number} is {patient.sex!r}"
      )
    patients.append(patient)
  return patients


def simulate_truth(
  conditions: Sequence[Condition], patients: Sequence[Patient], seed: int
) -> Truth:
  """True recordings of each row's patient, and one of another, read alike."""
  truth = Truth([], [], [])
  rows = list(zip(conditions, patients, strict=True))
  for i, (condition, patient) in enumerate(
    tqdm(rows, desc="True twins", unit=" ECG")
  ):
    rng = np.random.default_rng([seed, i])
    others = [k for k, p in enumerate(patients) if p != patient]
    other = patients[rng.choice(others)] if others else None
    truth.twin.append(simulate_reading(patient, condition, rng, False))
    truth.again.append(simulate_reading(patient, condition, rng, True))
    truth.stranger.append(simulate_reading(other, condition, rng, True))
  return truth


def simulate_reading(
  patient: Patient | None,
  condition: Condition,
  rng: np.random.Generator,
  noise: float | int,
) -> Reading | None:
  """What is read of a true recording; None: no patient, or nothing read."""
  if patient is None:
    return None
  shown = simulate.simulate(patient, condition, rng, noise)
  reading = read_ecg_beats(shown.ecg.resample(MODEL_SAMPLES).signal)
  return None if reading is None else without_segments(reading)


def beat_distance(
  generated: Reading | None, true: Reading | None
) -> tuple[Float[np.ndarray, " 12"], float]:
  """Root mean square difference (mV) of each lead, and correlation of all.

  The generated beat is moved by up to 40 ms to where it fits best. A fast
  heart's beats are compared over less time, so that no neighbour takes part.
  nan where either could not be read.
  """
  if generated is None or true is None:
    return np.full(len(LEADS), np.nan), math.nan
  x, y = true.beats, generated.beats
  before = round(min(_BEFORE, 0.4 * x.rr) * RATE)
  after = round(min(_AFTER, 0.55 * x.rr) * RATE)
  target = x.median[x.middle - before : x.middle + after]
  shift = round(_SHIFT * RATE)
  reach = y.median[y.middle - before - shift : y.middle + after + shift]
  windows = np.lib.stride_tricks.sliding_window_view(reach, len(target), axis=0)
  # |window - target|^2 of each shift, but for the constant |target|^2.
  power = np.insert(np.cumsum((reach**2).sum(axis=1)), 0, 0.0)
  error = power[len(target) :] - power[: -len(target)]
  error = error - 2 * np.einsum("wkl,lk->w", windows, target)
  piece = windows[np.argmin(error)].T
  square = ((piece - target) ** 2).mean(axis=0)
  correlation = float(np.corrcoef(piece.ravel(), target.ravel())[0, 1])
  return np.sqrt(square), correlation


def _compare(readings, truth):
  """(n, 12) mV, (n,) mV over leads, and (n,) correlation."""
  pairs = [beat_distance(a, b) for a, b in zip(readings, truth, strict=True)]
  leads = np.stack([lead for lead, _ in pairs])
  overall = np.sqrt((leads**2).mean(axis=1))
  return leads, overall, np.array([correlation for _, correlation in pairs])


def compute(
  examples: Examples,
  patients: Sequence[Patient],
  readings: Readings | None = None,
  *,
  seed: int = 0,
) -> Comparison:
  """Simulates the true twins, and reads what is compared with them.

  Args:
    examples: ECGs of a simulated cohort.
    patients: the simulated patient of each row, see `find_patients`.
    readings: readings of the examples' beats; None: they are made here.
    seed: seed of the true recordings' noise.

  Raises:
    ValueError: there is not one patient per row.
  """
  if len(patients) != len(examples.real):
    raise ValueError(
      f"{len(patients)=} must be the number of rows, {len(examples.real)}"
    )
  readings = readings or Readings(examples)
  there = {"references", *examples.generated}
  there |= set() if examples.decoded is None else {"decoded"}
  return Comparison(
    simulate_truth(examples.conditions, patients, seed),
    {name: readings.of(name) for name in ("twin", *_BESIDE) if name in there},
    examples.conditions,
    examples.patients,
  )


def metrics(comparison: Comparison, *, seed: int = 0) -> list[Metric]:
  """Distance from the true twin, between a stranger's and the patient's own.

  truth_score = (s - g) / (s - r) with the mean distances s of a stranger under
  the same condition, r of a second recording of the patient, g of what was
  generated: 0 is as far as a stranger, 1 as close as the patient. Of the other
  figures the stranger's is the baseline, the second recording's the reference.

  Args:
    comparison: what `compute` returns.
    seed: seed of resampling.
  """
  truth, readings, _, rows = comparison
  leads, far, alike = _means(readings["twin"], truth.twin)
  second_leads, second, second_alike = _compare(truth.again, truth.twin)
  stranger_leads, other, other_alike = _compare(truth.stranger, truth.twin)

  def mean(name, values, stranger, patient, chosen=slice(None), better="lower"):
    return mean_metric(
      name,
      values[chosen],
      rows[chosen],
      LEVEL,
      better=better,
      baseline=mean_of(stranger[chosen]),
      reference=mean_of(patient[chosen]),
      note="baseline: a stranger under the same condition; reference: the "
      "patient's own second recording",
      seed=seed,
    )

  figures = [
    score(far, second, other, rows, seed),
    mean("truth_distance_mv", far, other, second),
    mean(
      "truth_correlation", alike, other_alike, second_alike, better="higher"
    ),
  ]
  for k, lead in enumerate(LEADS):
    figures.append(
      mean(
        f"truth_distance_{lead}_mv",
        leads[:, k],
        stranger_leads[:, k],
        second_leads[:, k],
      )
    )
  figures += _intervals(readings["twin"], truth, mean)
  for name in _BESIDE:
    if name in readings:
      distance = _means(readings[name], truth.twin)[1]
      title = "reference" if name == "references" else name
      row = score(distance, second, other, rows, seed)
      figures.append(row._replace(name=f"truth_score_{title}"))
  return figures


def score(
  generated: Float[np.ndarray, " n"],
  second: Float[np.ndarray, " n"],
  stranger: Float[np.ndarray, " n"],
  patients: np.ndarray,
  seed: int,
) -> Metric:
  """(s - g) / (s - r) of mean distances, where all three are known."""
  good = np.isfinite(generated) & np.isfinite(second) & np.isfinite(stranger)
  name, failed = "truth_score", f"{(~good).sum()} of {len(good)} rows failed"
  n = int(good.sum())
  if not n or 2 * n < len(good):
    return missing(name, LEVEL, failed, n, better="higher")
  generated, second, stranger = generated[good], second[good], stranger[good]

  def ratio(rows):
    far, near = stranger[rows].mean(), second[rows].mean()
    if far <= near:
      return NAN
    return float((far - generated[rows].mean()) / (far - near))

  low, high = bootstrap_interval(ratio, patients[good], seed=seed)
  note = (
    "baseline, 0: as far as a stranger under the same condition; reference, 1: "
    f"as close as the patient's own second recording; {failed}"
  )
  value = ratio(np.arange(n))
  return Metric(name, value, low, high, 0.0, 1.0, "higher", n, LEVEL, note)


def _means(rows, true):
  """As _compare, averaged over a row's generated ECGs that could be read."""
  several = [_compare(readings, true) for readings in zip(*rows, strict=True)]
  return [mean_of_known(parts) for parts in zip(*several, strict=True)]


def mean_of_known(parts: Sequence[np.ndarray]) -> np.ndarray:
  """Mean over parts without those that are NaN; NaN where all are."""
  values = np.stack(parts)
  good = np.isfinite(values)
  total = np.where(good, values, 0.0).sum(axis=0)
  count = good.sum(axis=0)
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _intervals(generated, truth, mean):
  """Errors of PR, QRS and QT against the true twin's."""
  true, again, stranger = (
    np.stack([measure_beat(reading) for reading in readings])
    for readings in (truth.twin, truth.again, truth.stranger)
  )
  twins = [
    np.abs(difference(np.stack([measure_beat(r) for r in readings]), true))
    for readings in zip(*generated, strict=True)
  ]
  error = mean_of_known(twins)
  second, other = (np.abs(difference(x, true)) for x in (again, stranger))
  figures = []
  for name in ("pr_ms", "qrs_ms", "qt_ms"):
    k = MEASURES.index(name)
    # Without a P wave in the true twin there is nothing to be missed.
    known = np.isfinite(true[:, k])
    title = f"truth_{name[:-3]}_error_ms"
    if not known.any():
      figures.append(missing(title, LEVEL, "not in any true twin"))
      continue
    row = mean(title, error[:, k], other[:, k], second[:, k], known)
    absent = f"{int((~known).sum())} true twins have none"
    figures.append(row._replace(note=f"{row.note}; {absent}"))
  return figures


def draw(
  comparison: Comparison, *, shown: int = 4
) -> "matplotlib.figure.Figure":
  """True and generated median beats of the first few patients, lead by lead.

  Args:
    comparison: what `compute` returns.
    shown: patients, at most; of each its first row.
  """
  from matplotlib.figure import Figure

  truth, readings, conditions, patients = comparison
  _, rows = np.unique(patients, return_index=True)
  rows = np.sort(rows)[:shown]
  figure = Figure(figsize=(13, 2.2 * len(rows)), layout="constrained")
  strips = figure.subfigures(len(rows), squeeze=False)[:, 0]
  twins = [samples[0] for samples in readings["twin"]]
  sets = (
    ("true twin", truth.twin, {"color": "black"}),
    ("generated", twins, {"color": "tab:red"}),
    ("true, another day", truth.again, {"color": "gray", "linestyle": ":"}),
  )
  for r, row in enumerate(rows):
    grid = strips[r].subplots(1, len(_SHOWN))
    for label, several, style in sets:
      if several[row] is None:
        continue
      beat = several[row].beats
      time = (np.arange(len(beat.median)) - beat.middle) / RATE
      for lead, axes in zip(_SHOWN, grid, strict=True):
        signal = beat.median[:, LEADS.index(lead)]
        axes.plot(time, signal, linewidth=1.0, label=label, **style)
    for lead, axes in zip(_SHOWN, grid, strict=True):
      axes.set_title(lead, fontsize=9, loc="right")
      axes.tick_params(labelsize=7)
    condition = conditions[row]
    title = f"{condition.text()}, {condition.heart_rate:.0f} bpm"
    strips[r].suptitle(title, fontsize=9)
    grid[0].set_ylabel("mV", fontsize=8)
  handles, labels = strips[0].axes[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc="outside lower center", ncols=3)
  return figure
