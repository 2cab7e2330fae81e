"""Delineation and QRS detection against cardiologists, on real hearts.

  python -m studies.ludb LUDB_FOLDER
  python -m studies.ludb LUDB_FOLDER --recordings=50 --leads=I,II,V2

LUDB (Kalyakulina et al. 2020, ODC-By 1.0, PhysioNet): 200 recordings of 10 s in
which cardiologists marked onset, peak and offset of P, QRS and T in each lead.
Ours reads all leads together and gives one answer for all; it marks the beats
of usual shape alone. neurokit2, where it is installed, reads each lead by
itself with its own R peaks. A mark is found if one of its kind lies within
150 ms; of what was marked outside of the cardiologists' first and last QRS
complex, nothing is said. Recordings come in a seeded random order, and those
that were read before are not read again. Intervals: 95%, bootstrap over
recordings. Writes ludb.json and .csv, of marks, and the same of QRS complexes
and of the intervals of recordings, ludb_qrs and ludb_intervals.
"""

import argparse
import pathlib
import warnings

import numpy as np
from tqdm import tqdm

from ecgtwin_jax.beats.delineation import read_ecg_beats
from ecgtwin_jax.beats.median_beat import RATE
from ecgtwin_jax.beats.rhythm import detect_rhythm
from ecgtwin_jax.data.ecg import (
  ECG,
  LEADS,
  MODEL_SAMPLES,
  quiet_wfdb,
  read_ecg,
)
from ecgtwin_jax.data.heart_rate import detect_beats, detect_beats_by_energy
from studies import held_out

WITHIN = 0.150  # s
LIBRARY = ("dwt", "peak", "cwt")  # methods of neurokit2
WAVES = {"p": "P", "N": "QRS", "t": "T"}  # LUDB's symbols
MARKS = tuple(
  f"{wave} {mark}"
  for wave in WAVES.values()
  for mark in ("onset", "peak", "offset")
)
# Standard deviations between experts, ms. Source: CSE Working Party 1985, as in
# Martinez et al. 2004 (IEEE Trans. Biomed. Eng. 51:570).
CSE = {
  "P onset": 10.2,
  "P offset": 12.7,
  "QRS onset": 6.5,
  "QRS offset": 11.6,
  "T offset": 30.6,
}
# What a recording adds to a row; errors in ms.
SUMS = ("marked", "found", "matched", "error", "square")
_QRS_LEADS = 6  # that a complex has to be marked in
_DETECTED_IN = ("I", "II")  # leads that detectors of one lead get
# Columns of neurokit2's delineation.
_COLUMNS = {
  "P onset": "ECG_P_Onsets",
  "P peak": "ECG_P_Peaks",
  "P offset": "ECG_P_Offsets",
  "QRS onset": "ECG_R_Onsets",
  "QRS offset": "ECG_R_Offsets",
  "T onset": "ECG_T_Onsets",
  "T peak": "ECG_T_Peaks",
  "T offset": "ECG_T_Offsets",
}

Times = dict[str, np.ndarray]  # {mark: seconds, ascending}


def read_marks(path: str, lead: str, rate: float) -> Times:
  """The cardiologists' marks of one lead; a wave can lack onset or offset."""
  with quiet_wfdb() as wfdb:
    notes = wfdb.rdann(path, lead.lower())
  found = {name: [] for name in MARKS}
  symbols, samples = notes.symbol, notes.sample
  for k, symbol in enumerate(symbols):
    if symbol in WAVES:
      wave = WAVES[symbol]
      found[f"{wave} peak"].append(samples[k])
      if k > 0 and symbols[k - 1] == "(":
        found[f"{wave} onset"].append(samples[k - 1])
      if k + 1 < len(symbols) and symbols[k + 1] == ")":
        found[f"{wave} offset"].append(samples[k + 1])
  return {name: np.array(x, float) / rate for name, x in found.items()}


def ours(ecg: ECG) -> Times:
  """Our marks of the usual beats, and R peaks of all, for any lead."""
  marks = {name: np.zeros(0) for name in MARKS}
  rhythm = detect_rhythm(ecg.signal, ecg.sampling_rate)
  beats = rhythm.kind >= 0
  marks["QRS peak"] = rhythm.time[beats].astype(float)
  reading = read_ecg_beats(ecg.signal, ecg.sampling_rate)
  if reading is None:
    return marks
  times = reading.beats.times[reading.beats.usual]
  start = times - reading.beats.middle / RATE
  nearest = np.abs(marks["QRS peak"][:, None] - times).argmin(axis=0)
  has_p = rhythm.p_wave[beats][nearest] == 1
  for name in MARKS:
    value = getattr(reading.marks, name.lower().replace(" ", "_"), None)
    if name == "T offset":
      value = reading.marks.t_end
    if value is not None and np.isfinite(value):
      marks[name] = start[has_p] + value if name[0] == "P" else start + value
  return marks


def neurokit(
  lead: np.ndarray, rate: float, methods=LIBRARY
) -> dict[str, Times]:
  """{method: marks} of neurokit2 in one lead, with its own R peaks."""
  import neurokit2

  rate = int(rate)
  empty = {name: np.zeros(0) for name in MARKS}
  try:
    clean = neurokit2.ecg_clean(lead, sampling_rate=rate)
    _, info = neurokit2.ecg_peaks(clean, sampling_rate=rate)
  except (ValueError, IndexError, ZeroDivisionError, TypeError):
    return {method: dict(empty) for method in methods}
  peaks, found = info["ECG_R_Peaks"], {}
  for method in methods:
    marks = dict(empty)
    marks["QRS peak"] = np.array(peaks, float) / rate
    try:
      _, waves = neurokit2.ecg_delineate(
        clean, peaks, sampling_rate=rate, method=method
      )
    except (ValueError, IndexError, ZeroDivisionError, TypeError, KeyError):
      waves = {}  # it gives up on leads with few beats
    for name, column in _COLUMNS.items():
      samples = np.array(waves.get(column, ()), float)
      marks[name] = np.sort(samples[np.isfinite(samples)]) / rate
    found[method] = marks
  return found


def compare(marked: np.ndarray, found: np.ndarray, span) -> list[float]:
  """SUMS of one kind of mark: pairs of nearest ones, each used once.

  Args:
    marked: seconds, by cardiologists.
    found: seconds.
    span: first and last second that cardiologists looked at.
  """
  found = found[(found >= span[0] - WITHIN) & (found <= span[1] + WITHIN)]
  away = np.abs(found[:, None] - marked)
  errors = []
  while away.size and away.min() <= WITHIN:
    k, m = np.unravel_index(away.argmin(), away.shape)
    errors.append(1000 * (found[k] - marked[m]))
    away[k], away[:, m] = np.inf, np.inf
  errors = np.array(errors)
  return [
    len(marked),
    len(found),
    len(errors),
    float(errors.sum()),
    float((errors**2).sum()),
  ]


def common_beats(peaks: list[np.ndarray]) -> np.ndarray:
  """Seconds of the QRS complexes that are marked in six leads or more."""
  every = np.sort(np.concatenate(peaks))
  groups = np.split(every, np.flatnonzero(np.diff(every) > WITHIN) + 1)
  return np.array([np.median(g) for g in groups if len(g) >= _QRS_LEADS])


# From which mark to which, and the seconds that can lie between.
INTERVALS = {
  "PR": ("P onset", "QRS onset", 0.06, 0.40),
  "QRS": ("QRS onset", "QRS offset", 0.03, 0.25),
  "QT": ("QRS onset", "T offset", 0.20, 0.70),
}


def intervals(by_lead: list[Times]) -> dict[str, float]:
  """PR, QRS and QT of a recording, ms: medians over beats, then over leads."""
  out = {}
  for name, (first, last, least, most) in INTERVALS.items():
    medians = []
    for times in by_lead:
      away = times[last] - times[first][:, None]
      away = np.where((away >= least) & (away <= most), away, np.nan)
      away = [row[np.isfinite(row)].min() for row in away if (row > 0).any()]
      if away:
        medians.append(np.median(away))
    out[name] = 1000 * float(np.median(medians)) if medians else np.nan
  return out


def measure(folder: pathlib.Path, name: str, leads, library) -> dict:
  """What one recording adds: {"marks": {method: {lead: {mark: SUMS}}}, ..}."""
  path = str(folder / "data" / name)
  ecg = read_ecg(path)
  rate = ecg.sampling_rate
  marked = {lead: read_marks(path, lead, rate) for lead in LEADS}
  whole, slow = ours(ecg), ours(ecg.resample(MODEL_SAMPLES))
  answers = {
    "ours": dict.fromkeys(leads, whole),
    "ours at 102.4 Hz": dict.fromkeys(leads, slow),
    "ours, all leads": dict.fromkeys(LEADS, whole),
  }
  for lead in leads if library else ():
    found = neurokit(ecg.signal[:, LEADS.index(lead)], rate)
    for method, times in found.items():
      answers.setdefault(f"neurokit2 {method}", {})[lead] = times
  rows = {}
  for method, by_lead in answers.items():
    rows[method] = {}
    for lead, times in by_lead.items():
      beats = marked[lead]["QRS peak"]
      if len(beats):
        span = beats[0], beats[-1]
        rows[method][lead] = {
          # Waves of the beats inside: P before the first, T behind the last.
          mark: compare(
            marked[lead][mark], times[mark], _widen(marked[lead], mark, span)
          )
          for mark in MARKS
        }
  beats = common_beats([m["QRS peak"] for m in marked.values()])
  span = (beats[0], beats[-1]) if len(beats) else (0.0, 0.0)
  qrs = {
    detector: compare(beats, times, span)
    for detector, times in detect_all(ecg, whole, answers).items()
  }
  answers["cardiologists"] = marked
  lengths = {
    method: intervals(list(by_lead.values()))
    for method, by_lead in answers.items()
  }
  return {"marks": rows, "qrs": qrs, "intervals": lengths}


def _widen(marked: Times, mark: str, span):
  """The span in which this kind of mark was looked for."""
  times = marked[mark]
  if not len(times):
    return span
  return min(span[0], times[0]), max(span[1], times[-1])


def detect_all(ecg: ECG, whole: Times, answers: dict) -> Times:
  """{detector: seconds of QRS complexes}."""
  with quiet_wfdb():
    from wfdb.processing import gqrs_detect

  rate = ecg.sampling_rate
  found = {
    "energy (all leads)": detect_beats_by_energy(ecg.signal, rate) / rate,
    "rhythm (all leads)": whole["QRS peak"],
  }
  for lead in _DETECTED_IN:
    signal = ecg.signal[:, LEADS.index(lead)]
    found[f"XQRS at 250 Hz, lead {lead}"] = detect_beats(signal, rate) / rate
    found[f"XQRS at 500 Hz, lead {lead}"] = (
      detect_beats(signal, rate, rate) / rate
    )
    found[f"GQRS, lead {lead}"] = np.asarray(gqrs_detect(signal, rate)) / rate
    for method, by_lead in answers.items():
      if method == "neurokit2 dwt" and lead in by_lead:
        found[f"neurokit2, lead {lead}"] = by_lead[lead]["QRS peak"]
  return found


def summarise(sums: np.ndarray) -> dict:
  """Sensitivity, predictivity, F1, mean and SD of the error, with intervals.

  Args:
    sums: (recordings, 5), SUMS of each.
  """

  def of(name):
    def statistic(rows):
      marked, found, matched, error, square = sums[rows].sum(axis=0)
      mean = error / max(matched, 1)
      return {
        "sensitivity": matched / max(marked, 1),
        "predictivity": matched / max(found, 1),
        "f1": 2 * matched / max(marked + found, 1),
        "mean": mean,
        "sd": np.sqrt(max(square / max(matched, 1) - mean**2, 0)),
      }[name]

    return statistic

  names = ("sensitivity", "predictivity", "f1", "mean", "sd")
  return {name: held_out.estimate(of(name), len(sums)) for name in names}


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("folder", help="of LUDB: RECORDS and data/")
  parser.add_argument("--recordings", type=int, default=200)
  parser.add_argument(
    "--leads", default="I,II,V2,V5", help="that all methods are compared in"
  )
  parser.add_argument("--output", default="runs/ludb")
  arguments = parser.parse_args()
  folder, leads = pathlib.Path(arguments.folder), arguments.leads.split(",")
  output = pathlib.Path(arguments.output)
  (output / "cells").mkdir(parents=True, exist_ok=True)
  try:
    import neurokit2

    version = neurokit2.__version__
  except ImportError:
    version = None
    print("neurokit2 is not installed: ours alone")
  names = sorted(p.stem for p in (folder / "data").glob("*.hea"))
  order = np.random.default_rng(0).permutation(len(names))
  cells = []
  warnings.simplefilter("ignore")  # of libraries, on hard leads
  for k in tqdm(order[: arguments.recordings], unit=" ECG"):
    cell = f"{names[k]}_{'_'.join(leads)}_{version}.json"
    cells.append(
      held_out.read_or_make(
        output / "cells" / cell,
        lambda name=names[k]: measure(folder, name, leads, version),
      )
    )
  about = {"recordings": len(cells), "leads": leads, "neurokit2": version}
  rows = []
  for mark in MARKS:
    for method in cells[0]["marks"]:
      by_lead = [
        [cell["marks"][method][lead][mark] for lead in cell["marks"][method]]
        for cell in cells
      ]
      sums = np.array([np.sum(x, axis=0) for x in by_lead if x])
      if sums[:, SUMS.index("found")].any():
        row = {"mark": mark, "method": method, "marked": int(sums[:, 0].sum())}
        rows.append({**row, **summarise(sums), "cse": CSE.get(mark, np.nan)})
  held_out.write_table(output / "ludb", about, rows)
  detectors = []
  for detector in cells[0]["qrs"]:
    sums = np.array([cell["qrs"][detector] for cell in cells], float)
    row = {"detector": detector, "marked": int(sums[:, 0].sum())}
    detectors.append({**row, **summarise(sums)})
  held_out.write_table(output / "ludb_qrs", about, detectors)
  lengths = _compare_intervals(cells)
  held_out.write_table(output / "ludb_intervals", about, lengths)
  for row in lengths:
    print(
      f"{row['interval']} {row['method']:<20} {row['recordings']} recordings,"
      f" error {_show(row['mean'], 1)} ms, SD {_show(row['sd'], 1)} ms"
    )
  for row in (*rows, *detectors):
    first = f"{row.get('mark', '')} {row.get('method', row.get('detector'))}"
    print(
      f"{first:<34} Se {_show(row['sensitivity'])}, PPV"
      f" {_show(row['predictivity'])}, error {_show(row['mean'], 1)} ms, SD"
      f" {_show(row['sd'], 1)} ms"
    )


def _compare_intervals(cells: list[dict]) -> list[dict]:
  """Error of each interval where cardiologists' and method's are both known."""
  rows = []
  for name in INTERVALS:
    for method in cells[0]["marks"]:
      both = np.array(
        [
          [cell["intervals"][who][name] for who in (method, "cardiologists")]
          for cell in cells
        ],
        float,
      )
      error = both[:, 0] - both[:, 1]
      known = error[np.isfinite(error)]
      if len(known) < 2:
        continue
      rows.append(
        {
          "interval": name,
          "method": method,
          "marked": int(np.isfinite(both[:, 1]).sum()),
          "recordings": len(known),
          "mean": held_out.estimate(
            lambda r, x=known: float(x[r].mean()), len(known)
          ),
          "sd": held_out.estimate(
            lambda r, x=known: float(x[r].std()), len(known)
          ),
          "absolute": held_out.estimate(
            lambda r, x=known: float(np.abs(x[r]).mean()), len(known)
          ),
        }
      )
  return rows


def _show(estimate, digits=3):
  value, low, high = (f"{x:.{digits}f}" for x in estimate)
  return f"{value} ({low} to {high})"


if __name__ == "__main__":
  main()
