"""Any folder of WFDB records: real ones, of any rate, length and lead names."""

import shutil

import numpy as np
import pytest
import scipy.signal

from data_prep import wfdb_folder
from data_prep.__main__ import main
from data_prep.rows import hashed_split
from ecgtwin_jax.data.ecg import EXAMPLE_RECORD
from helpers.recordings import (
  PTBXL,
  card,
  read_physical,
  recordings,
  rejections,
  write_csv,
)

EXAMPLE = {
  "record": "ptb/s0010_re_10s.hea",
  "patient_id": "patient001",
  "time": "1990-10-01",
  "heart_rate": "",
  "age": "81",
  "sex": "female",
  "statements": "Sinus rhythm | Inferior infarct",
}


@pytest.fixture
def folder(tmp_path):
  """The bundled 1000 Hz record, and two of PTB-XL, in folders of their own."""
  folder = tmp_path / "in"
  (folder / "ptb").mkdir(parents=True)
  for suffix in (".hea", ".dat"):
    shutil.copy(EXAMPLE_RECORD + suffix, folder / "ptb")
  shutil.copytree(PTBXL / "records100", folder / "xl")
  return folder


def row(number, **cells):
  name = f"{number:05d}"
  facts = {"record": f"xl/{name[:2]}000/{name}_lr", "patient_id": "x"}
  facts |= {"time": "12.0", "statements": "Sinus rhythm"}
  return dict.fromkeys(EXAMPLE, "") | facts | cells


def test_records_of_any_kind(folder, tmp_path):
  rows = [EXAMPLE, row(318, heart_rate="71.5", sex="m"), row(448)]
  write_csv(folder / "recordings.csv", rows)
  directory = wfdb_folder.prepare(folder, tmp_path / "data")
  found = recordings(directory)
  example = found.pop("ptb/s0010_re_10s")
  physical = read_physical(EXAMPLE_RECORD)  # i, ii, iii, avr .. in its header
  expected = scipy.signal.resample(physical, 1024)
  assert np.abs(example.pop("ecg") - expected).max() < 0.6e-3
  assert abs(example.pop("heart_rate") - 82) < 1
  assert example == {
    "split": hashed_split("patient001", 0),
    "patient_id": "patient001",
    "time": 7578 * 86_400,
    "age": 81,
    "sex": 0,
    "statements": ["Sinus rhythm", "Inferior infarct"],
  }
  given, detected = found.values()
  assert (given["heart_rate"], given["age"], given["sex"]) == (71.5, -1, 1)
  assert detected["sex"] == -1 and 40 < detected["heart_rate"] < 150
  assert given["split"] == detected["split"] == hashed_split("x", 0)
  assert card(directory)["tally"] == {
    "age_missing": 2,
    "heart_rate_detected": 2,
    "heart_rate_given": 1,
    "sex_missing": 1,
  }


def test_the_first_ten_seconds_of_longer_records(folder, tmp_path):
  # The record again, with its last 2 s in front: 12 s at 1000 Hz.
  path = folder / "ptb" / "s0010_re_10s"
  samples = np.fromfile(path.with_suffix(".dat"), "<i2").reshape(10_000, -1)
  longer = np.concatenate([samples[-2000:], samples])
  longer.tofile(path.with_suffix(".dat"))
  lines = path.with_suffix(".hea").read_text().splitlines()
  lines[0] = lines[0].replace(" 10000", " 12000")
  for i, total in enumerate(longer.sum(0, dtype=np.int64), 1):
    fields = lines[i].split()
    fields[6] = str(total % 65536)
    lines[i] = " ".join(fields)
  path.with_suffix(".hea").write_text("\n".join(lines))
  write_csv(folder / "recordings.csv", [EXAMPLE])
  (found,) = recordings(wfdb_folder.prepare(folder, tmp_path / "data")).values()
  expected = scipy.signal.resample(read_physical(path)[:10_000], 1024)
  assert np.abs(found["ecg"] - expected).max() < 0.6e-3


def test_faults_of_the_table(folder, tmp_path):
  faults = {
    8: ({"heart_rate": "fast"}, "heart_rate"),
    45: ({"heart_rate": "600"}, "heart_rate"),
    55: ({"statements": " | "}, "statements"),
    56: ({"statements": "|".join("abcdefghijklmnopqrs")}, "statements"),
    859: ({"age": "130"}, "demographics"),
    942: ({"time": ""}, "time"),
    730: ({"patient_id": ""}, "patient"),
    99: ({"record": "xl/none"}, "missing_file"),
    448: ({"record": ""}, "record"),
  }
  rows = [row(number, **cells) for number, (cells, _) in faults.items()]
  rows += [row(318), row(318), row(318, record="xl/00000/00318_lr.hea")]
  table = tmp_path / "elsewhere.csv"
  write_csv(table, rows)
  directory = wfdb_folder.prepare(folder, tmp_path / "data", table=table)
  expected = {
    row(number, **cells)["record"] or "row 9 of elsewhere.csv": rule
    for number, (cells, rule) in faults.items()
  }
  assert {name: rule for name, rule, _ in rejections(directory)} == (
    expected | {"xl/00000/00318_lr": "duplicate"}
  )
  assert card(directory)["read"] == 12 and card(directory)["written"] == 1


def test_no_column_of_heart_rates(folder, tmp_path):
  del (cells := row(318))["heart_rate"]
  write_csv(folder / "recordings.csv", [cells])
  directory = wfdb_folder.prepare(folder, tmp_path / "data", seed=3)
  assert card(directory)["tally"]["heart_rate_detected"] == 1
  (found,) = recordings(directory).values()
  assert found["split"] == hashed_split("x", 3)


def test_a_recording_without_a_report(folder, tmp_path, capsys):
  rows = [EXAMPLE, row(318, statements=""), row(448, age="300", sex="f")]
  write_csv(folder / "recordings.csv", rows)
  directory = wfdb_folder.prepare(
    folder, tmp_path / "data", licence="CC BY 4.0"
  )
  found = recordings(directory)
  assert [each["statements"] for each in found.values()].count([]) == 1
  assert found["xl/00000/00318_lr"]["statements"] == []
  assert found["xl/00000/00448_lr"]["age"] == 90
  assert card(directory)["tally"]["report_missing"] == 1
  assert card(directory)["licence"] == "CC BY 4.0"
  assert main(["describe", str(directory)]) == 0
  assert "reports: 1 missing" in capsys.readouterr().out
  without = [{k: v for k, v in r.items() if k != "statements"} for r in rows]
  write_csv(folder / "recordings.csv", without)
  found = recordings(wfdb_folder.prepare(folder, tmp_path / "none"))
  assert [each["statements"] for each in found.values()] == [[], [], []]


def test_command_line(folder, tmp_path, capsys):
  arguments = ["wfdb_folder", "--input", str(folder), "--workers", "1"]
  arguments += ["--output", str(tmp_path / "data")]
  assert main(arguments) == 1  # no table
  assert main([*arguments, "--input", str(tmp_path / "none")]) == 1
  errors = capsys.readouterr().err.splitlines()
  assert "recordings.csv is not there" in errors[0]
  assert "none is not there: give the folder" in errors[1]
  write_csv(tmp_path / "table.csv", [EXAMPLE, row(318), row(448)])
  arguments += ["--table", str(tmp_path / "table.csv"), "--limit", "2"]
  assert main(arguments) == 0
  assert "2 read = 2 written + 0 rejected" in capsys.readouterr().out
