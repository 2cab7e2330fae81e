"""Speed of data preparation on one core, and what takes the time.

  python benchmarks/data_prep_speed.py [--recordings 512] [--ptbxl DIR]

Simulated ECGs, 12 leads of 10 s at 500 Hz in format 16, are written as a tree
of MIMIC-IV-ECG and prepared by one process, files in the page cache; the import
of libraries is not timed, the writing of shards is. Once with rr_interval in
the table, once without, so that heart rates are detected.
With a folder of PTB-XL, its records are timed as well, and the heart rates of
both detectors are compared there.
"""

import argparse
import contextlib
import csv
import io
import pathlib
import tempfile
import time

import numpy as np

from data_prep import builder, mimic_iv_ecg, ptbxl, quality
from data_prep.records import make_example
from data_prep.rows import Row, read_row
from ecgtwin_jax.data.dataset import load_card
from ecgtwin_jax.data.ecg import quiet_wfdb, read_ecg
from ecgtwin_jax.data.heart_rate import detect_beats, detect_heart_rate
from ecgtwin_jax.data.leads import LEADS
from ecgtwin_jax.simulator.simulate import cohort_recordings

REPORTS = [f"report_{i}" for i in range(18)]


def write_tree(folder: pathlib.Path, count: int) -> None:
  """Writes recordings in the layout of MIMIC-IV-ECG."""
  listed, measured = [], []
  for patient in range(-(-count // 4)):
    for made in cohort_recordings(0, patient, 4):
      study = 40_000_000 + len(listed)
      place = f"files/p1000/p{10_000_000 + patient}/s{study}/{study}"
      made.ecg.write(folder / f"{place}.hea")
      facts = {
        "subject_id": 10_000_000 + patient,
        "study_id": study,
        "ecg_time": "2180-07-23 08:44:00",
      }
      listed.append(facts | {"file_name": study, "path": place})
      texts = dict(zip(REPORTS, made.condition.statements))
      rr_interval = 60_000 / made.condition.heart_rate
      rr_interval = min(max(rr_interval, 300), 1500)
      measured.append(
        facts
        | dict.fromkeys(REPORTS, "")
        | texts
        | {"rr_interval": rr_interval}
      )
  write_csv(folder / "record_list.csv", listed[:count])
  write_csv(folder / "machine_measurements.csv", measured[:count])


def write_csv(path, rows):
  with path.open("w", newline="") as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


def time_run(name: str, builder_class, config, output: pathlib.Path) -> None:
  wall, cpu = time.perf_counter(), time.process_time()
  with (
    contextlib.redirect_stdout(io.StringIO()),
    contextlib.redirect_stderr(io.StringIO()),
  ):
    directory = builder.prepare(builder_class, config, output)
  wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
  count = load_card(directory)["read"]
  print(
    f"{name:<34}{count / wall:8.0f} recordings/s,"
    f" {count / cpu:6.0f} per second of CPU"
  )


def time_parts(paths: list[str]) -> None:
  """Times the steps of a recording, one after the other."""
  steps = {}

  def timed(step, work, items):
    start = time.perf_counter()
    results = [work(item) for item in items]
    steps[step] = (time.perf_counter() - start) / len(results)
    return results

  rows = [Row(path, path, "p", 0, ("a",), 60.0) for path in paths]
  ecgs = timed("read, order leads, check them", read_ecg, paths)
  timed("check saturation", quality.check_saturation, ecgs)
  small = timed("resample to 1024 samples", lambda x: x.resample(), ecgs)
  timed(
    "detect the heart rate (energy)",
    lambda x: detect_heart_rate(x.signal, x.sampling_rate, "energy"),
    small,
  )
  records = [record for row in rows for _, record in read_row(row, True)]
  timed("round to int16", lambda x: make_example(x, {"a": 0}), records)
  with quiet_wfdb() as wfdb:
    timed("(wfdb.rdrecord)", wfdb.rdrecord, paths[:64])
  timed(
    "(XQRS, leads in turn)",
    lambda x: detect_heart_rate(x.signal, x.sampling_rate, "xqrs"),
    ecgs[:64],
  )
  for step, seconds in steps.items():
    print(f"  {step:<32}{1e3 * seconds:6.2f} ms")


def compare_detectors(paths: list[str]) -> None:
  """Compares both detectors with the median over leads of XQRS."""
  rates = {"energy": [], "xqrs": []}
  medians = []
  for path in paths:
    ecg = read_ecg(path)
    for method, found in rates.items():
      found.append(detect_heart_rate(ecg.signal, ecg.sampling_rate, method))
    leads = [detect_beats(lead, ecg.sampling_rate) for lead in ecg.signal.T]
    intervals = [np.diff(x).mean() for x in leads if len(x) > 1]
    medians.append(np.median(60 * ecg.sampling_rate / np.array(intervals)))
  for method, found in rates.items():
    error = np.abs(np.array(found) - medians)
    shares = ", ".join(f"{np.mean(error <= k):.1%} to {k}" for k in (1, 2, 5))
    print(f"  {method:<8} {shares} bpm, of {len(paths)} recordings")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--recordings", type=int, default=512)
  parser.add_argument("--ptbxl", type=pathlib.Path)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    write_tree(folder, args.recordings)
    config = mimic_iv_ecg.MimicIvEcgConfig(input=str(folder))
    limit = mimic_iv_ecg.MimicIvEcgConfig(input=str(folder), limit=8)
    mimic = mimic_iv_ecg.MimicIvEcg
    with contextlib.redirect_stdout(io.StringIO()):
      builder.prepare(mimic, limit, folder / "warm")
    time_run("MIMIC-IV-ECG, rr_interval given", mimic, config, folder / "a")
    table = folder / "machine_measurements.csv"
    with table.open() as file:
      rows = list(csv.DictReader(file))
    write_csv(table, [row | {"rr_interval": "29999"} for row in rows])
    time_run("MIMIC-IV-ECG, heart rate detected", mimic, config, folder / "b")
    time_parts(sorted(str(x)[:-4] for x in folder.glob("files/*/*/*/*.hea")))
    if args.ptbxl:
      config = ptbxl.PtbxlConfig(input=str(args.ptbxl))
      time_run("PTB-XL, 500 Hz", ptbxl.Ptbxl, config, folder / "c")
      compare_detectors(
        sorted(str(x)[:-4] for x in args.ptbxl.glob("records500/*/*.hea"))
      )
  print(f"{len(LEADS)} leads, 10 s at 500 Hz; one process, one thread")


if __name__ == "__main__":
  main()
