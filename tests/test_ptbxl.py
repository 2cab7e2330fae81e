"""PTB-XL: ten real recordings, and what happens to damaged tables."""

import datetime
import shutil

import numpy as np
import pytest
import scipy.signal

from data_prep import ptbxl
from data_prep.__main__ import main
from ecgtwin_jax.data.dataset import load_split
from ecgtwin_jax.data.errors import RecordingError
from ecgtwin_jax.data.heart_rate import detect_heart_rate
from ecgtwin_jax.data.leads import LEADS
from helpers.recordings import (
  PTBXL,
  card,
  copy_ptbxl,
  read_physical,
  recordings,
  rejections,
  write_csv,
  write_record,
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  return ptbxl.prepare(PTBXL, tmp_path_factory.mktemp("ptbxl") / "data")


@pytest.fixture(scope="module")
def found(directory):
  return recordings(directory)


def test_all_ten_are_written(directory, found):
  assert len(found) == 10 and rejections(directory) == []
  facts = card(directory)
  assert (facts["read"], facts["written"]) == (10, 10)
  assert facts["splits"] == {
    "train": {"records": 6, "patients": 4},  # folds 1, 5, 6, 7
    "validation": {"records": 2, "patients": 2},  # fold 9
    "test": {"records": 2, "patients": 2},  # fold 10
  }
  assert facts["tally"] == {"age_missing": 2, "heart_rate_detected": 10}
  assert found["318"]["split"] == "test"
  assert found["2623"]["split"] == "validation"


def test_signal_is_wfdbs_resampled(found):
  for name, row in found.items():
    path = next(PTBXL.glob(f"records500/*/{int(name):05d}_hr.hea"))
    physical = read_physical(path.with_suffix(""))
    expected = scipy.signal.resample(physical, 1024)
    assert np.abs(row["ecg"] - expected).max() < 0.6e-3  # mV


def test_columns(found):
  row = found["10470"]
  assert row["patient_id"] == "20498"  # in the file, 20498.0
  recorded = datetime.datetime(1993, 7, 10, 12, 18, 10)
  assert (
    row["time"] == (recorded - datetime.datetime(1970, 1, 1)).total_seconds()
  )
  assert (row["age"], row["sex"]) == (74, 1)  # sex 0 is male there, F is 0 here
  assert found["2623"]["sex"] == 0
  assert found["730"]["age"] == found["923"]["age"] == -1
  # Patients of the pair come in the order of time.
  assert found["17410"]["time"] < found["17497"]["time"]


def test_statements_are_rhythm_first_then_by_likelihood(found):
  assert found["11185"]["statements"] == [
    "atrial fibrillation",  # likelihood 0: not stated, so present
    "incomplete right bundle branch block",
    "ventricular premature complex",
    "ischemic in inferolateral leads",  # 50
    "left ventricular hypertrophy",  # 15
    "voltage criteria (QRS) for left ventricular hypertrophy",  # 0
  ]


def test_heart_rates_are_detected(found):
  for row in found.values():
    rate = detect_heart_rate(row["ecg"].astype(np.float32), 102.4, "xqrs")
    # Fibrillation among them: XQRS finds other first or last beats.
    assert abs(row["heart_rate"] - rate) < 0.1 * rate


def test_missing_ages_can_be_left_out(directory):
  train = load_split(directory, "train")
  kept, dropped = train.without_missing()
  assert (len(train), len(kept), dropped) == (6, 4, 2)
  assert len(kept.pairs) == len(train.pairs) == 2
  assert not {"730", "923"} & set(kept.record_id.tolist())
  rows = [train.record_id.tolist().index(name) for name in kept.record_id]
  np.testing.assert_array_equal(kept.arrays["ecg"], train.arrays["ecg"][rows])
  np.testing.assert_array_equal(kept.statement_ids, train.statement_ids[rows])
  assert kept.patient.shape == (4, 3) and np.isfinite(kept.patient).all()
  again, dropped = kept.without_missing()
  assert again is kept and dropped == 0


CODES = {
  "AAA": (False, "form a"),
  "RRR": (True, "rhythm r"),
  "BBB": (False, "form b"),
  "SSS": (True, "rhythm s"),
  "BB2": (False, "form  b"),
}


@pytest.mark.parametrize(
  "cell,expected",
  [
    ("{'AAA': 0.0, 'RRR': 0.0}", ("rhythm r", "form a")),
    ("{'SSS': 0, 'RRR': 0}", ("rhythm r", "rhythm s")),  # table's order
    ("{'RRR': 35.0, 'SSS': 80.0}", ("rhythm s", "rhythm r")),
    ("{'AAA': 15.0, 'BBB': 100}", ("form b", "form a")),
    ("{'BBB': 15.0, 'BB2': 100}", ("form b",)),
  ],
)
def test_order_of_codes(cell, expected):
  assert ptbxl.parse_codes(cell, CODES) == expected


@pytest.mark.parametrize(
  "cell",
  ["", "{}", "[1]", "{'AAA'}", "{'AAA': 'x'}", "{'AAA': 1", "{'XYZ': 100.0}"]
  + ["{'AAA': float('nan')}", "{1: 2}", "(" * 3000, "{'AAA': None}"],
)
def test_codes_that_cannot_be_understood(cell):
  with pytest.raises(RecordingError) as caught:
    ptbxl.parse_codes(cell, CODES)
  assert caught.value.rule == "statements"


# Cells of the first row (ecg_id 318), and the rule that they break.
FAULTS = {
  "ecg_id": ("", "record"),
  "patient_id": ("", "patient"),
  "age": ("old", "demographics"),
  "sex": ("2", "demographics"),
  "recording_date": ("1986-14-09", "time"),
  "scp_codes": ("", "statements"),
  "strat_fold": ("11", "split"),
  "filename_hr": ("", "record"),
}


def test_faults_of_the_table(tmp_path):
  def change(rows):
    copies = []
    for i, (column, (value, _)) in enumerate(FAULTS.items()):
      ids = {"ecg_id": str(1000 + i), "patient_id": str(2000 + i)}
      copies.append(rows[0] | ids | {column: value})
    return rows + copies

  folder = copy_ptbxl(tmp_path / "in", change)
  directory = ptbxl.prepare(folder, tmp_path / "data")
  rules = {name: rule for name, rule, _ in rejections(directory)}
  for i, (column, (_, rule)) in enumerate(FAULTS.items()):
    name = (
      str(1000 + i) if column != "ecg_id" else "row 11 of ptbxl_database.csv"
    )
    assert rules.pop(name) == rule, column
  assert not rules and len(recordings(directory)) == 10


def test_what_is_missing_or_over_89(tmp_path):
  def change(rows):
    rows[0]["age"], rows[1]["age"] = "300.0", "nan"
    rows[0]["sex"], rows[1]["sex"] = "", "1.0"

  folder = copy_ptbxl(tmp_path / "in", change)
  found = recordings(ptbxl.prepare(folder, tmp_path / "data"))
  assert (found["318"]["age"], found["318"]["sex"]) == (90, -1)
  assert (found["448"]["age"], found["448"]["sex"]) == (-1, 0)


def test_duplicates_and_patients_in_two_folds(tmp_path):
  def change(rows):
    rows[7]["strat_fold"] = "10"  # 11185, of the patient of 10470 in fold 5
    return [*rows, dict(rows[0]), rows[0] | {"ecg_id": "318.0"}]

  folder = copy_ptbxl(tmp_path / "in", change)
  directory = ptbxl.prepare(folder, tmp_path / "data")
  assert sorted(rejections(directory)) == [
    ("11185", "split", "in test, but patient 20498 is in train"),
    ("318", "duplicate", "a row above has the same record"),
    ("318", "duplicate", "a row above has the same record"),
  ]
  assert len(recordings(directory)) == 9


def test_records_at_100_hz(tmp_path, found):
  folder = copy_ptbxl(tmp_path / "in")
  for header in folder.glob("records500/*/*.hea"):
    slow = scipy.signal.resample(read_physical(header.with_suffix("")), 1000)
    write_record(
      folder / "records100" / header.parent.name,
      header.stem.replace("_hr", "_lr"),
      slow,
      [lead.upper() for lead in LEADS],
      rate=100,
      gain=1000.0,
    )
  shutil.rmtree(folder / "records500")
  with pytest.raises(
    FileNotFoundError, match=r"records500 is not there: .*--sam"
  ):
    ptbxl.prepare(folder, tmp_path / "data")
  directory = ptbxl.prepare(folder, tmp_path / "data", sampling_rate=100)
  slow = recordings(directory)
  assert slow.keys() == found.keys()
  for name, row in slow.items():
    # All below 40 Hz is there at 100 Hz as well.
    assert np.abs(row["ecg"] - found[name]["ecg"]).max() < 0.02
    assert abs(row["heart_rate"] - found[name]["heart_rate"]) < 1


def test_command_line(tmp_path, capsys):
  output = str(tmp_path / "data")
  arguments = ["ptbxl", "--input", str(PTBXL), "--workers", "1", "--output"]
  assert main([*arguments, output, "--limit", "3"]) == 0
  assert "3 read = 3 written + 0 rejected" in capsys.readouterr().out
  assert main([*arguments, output]) == 1  # another limit, another data set
  assert main([*arguments, str(tmp_path / "b"), "--limit", "0"]) == 1
  assert main([*arguments, "gs://bucket/folder"]) == 1
  arguments[2] = "gs://bucket/folder"
  assert main([*arguments, str(tmp_path / "b")]) == 1
  arguments[2] = str(tmp_path)
  assert main([*arguments, str(tmp_path / "b")]) == 1
  write_csv(tmp_path / "ptbxl_database.csv", [{"ecg_id": 1}])
  shutil.copy(PTBXL / "scp_statements.csv", tmp_path)
  (tmp_path / "records500").mkdir()
  assert main([*arguments, str(tmp_path / "b")]) == 1
  errors = capsys.readouterr().err.splitlines()
  errors = [line for line in errors if line.startswith("error: ")]
  assert "holds another data set: ptbxl" in errors[0] and "limit=3" in errors[0]
  assert errors[1] == "error: limit=0 must be at least 1"
  assert errors[2].startswith(
    "error: output gs://bucket/folder must be a folder"
  )
  assert errors[3].startswith(
    "error: input gs://bucket/folder must be a folder"
  )
  assert "scp_statements.csv is not there: is the folder right?" in errors[4]
  assert "has no column 'patient_id'" in errors[5]
  assert len(errors) == 6
  assert not (tmp_path / "b").exists()
