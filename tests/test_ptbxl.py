"""PTB-XL: twelve real recordings, and what happens to damaged tables."""

import csv
import datetime
import json
import shutil

import numpy as np
import pytest
import scipy.signal

from data_prep import ptbxl
from data_prep.__main__ import main
from ecgtwin_jax.data.dataset import load_split
from ecgtwin_jax.data.errors import RecordingError
from ecgtwin_jax.data.heart_rate import detect_heart_rate
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.text.wording import reword
from helpers.recordings import (
  PTBXL,
  card,
  copy_ptbxl,
  read_physical,
  recordings,
  rejections,
  write_csv,
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  """The twelve, of whom two lack their ages."""

  def change(rows):
    for row in rows:
      if row["ecg_id"] in ("730", "923"):
        row["age"] = ""

  folder = copy_ptbxl(tmp_path_factory.mktemp("ptbxl") / "in", change)
  return ptbxl.prepare(folder, folder.parent / "data", sampling_rate=100)


@pytest.fixture(scope="module")
def found(directory):
  return recordings(directory)


def test_all_twelve_are_written(directory, found):
  assert len(found) == 12 and rejections(directory) == []
  facts = card(directory)
  assert (facts["read"], facts["written"]) == (12, 12)
  assert facts["splits"] == {
    "train": {"records": 8, "patients": 6},  # folds 1, 2, 4, 6, 7
    "validation": {"records": 2, "patients": 2},  # fold 9
    "test": {"records": 2, "patients": 2},  # fold 10
  }
  assert facts["tally"] == {"age_missing": 2, "heart_rate_detected": 12}
  assert found["318"]["split"] == "test"
  assert found["144"]["split"] == "validation"


def test_signal_is_wfdbs_resampled(found):
  for name, row in found.items():
    path = next(PTBXL.glob(f"records100/*/{int(name):05d}_lr.hea"))
    physical = read_physical(path.with_suffix(""))
    expected = scipy.signal.resample(physical, 1024)
    assert np.abs(row["ecg"] - expected).max() < 0.6e-3  # mV


def test_columns(found):
  row = found["942"]
  assert row["patient_id"] == "410"  # in the file, 410.0
  recorded = datetime.datetime(1987, 7, 18, 9, 28, 14)
  assert (
    row["time"] == (recorded - datetime.datetime(1970, 1, 1)).total_seconds()
  )
  assert (row["age"], row["sex"]) == (67, 0)  # sex 1 is female there, F is 0
  assert found["318"]["sex"] == 1
  assert found["730"]["age"] == found["923"]["age"] == -1
  # Patients of the pair come in the order of time.
  assert found["942"]["time"] < found["948"]["time"]


def test_statements_are_rhythm_first_then_by_likelihood(found):
  assert found["859"]["statements"] == [
    "Atrial fibrillation",  # likelihood 0: not stated, so present
    "non-diagnostic T abnormalities",  # 100
    "Incomplete right bundle branch block",
    "Ventricular premature complex",
    "ST depression",  # 0
    "low amplitude T-waves",
  ]


def test_heart_rates_are_detected(found):
  for row in found.values():
    rate = detect_heart_rate(row["ecg"].astype(np.float32), 102.4, "xqrs")
    # Fibrillation among them: XQRS finds other first or last beats.
    assert abs(row["heart_rate"] - rate) < 0.1 * rate


def test_missing_ages_can_be_left_out(directory):
  train = load_split(directory, "train")
  kept, dropped = train.without_missing()
  assert (len(train), len(kept), dropped) == (8, 6, 2)
  assert len(kept.pairs) == len(train.pairs) == 2
  assert not {"730", "923"} & set(kept.record_id.tolist())
  rows = [train.record_id.tolist().index(name) for name in kept.record_id]
  np.testing.assert_array_equal(kept.arrays["ecg"], train.arrays["ecg"][rows])
  np.testing.assert_array_equal(kept.statement_ids, train.statement_ids[rows])
  assert kept.patient.shape == (6, 3) and np.isfinite(kept.patient).all()
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


# Cells of the first row (ecg_id 8), and the rule that they break.
FAULTS = {
  "ecg_id": ("", "record"),
  "patient_id": ("", "patient"),
  "age": ("old", "demographics"),
  "sex": ("2", "demographics"),
  "recording_date": ("1986-14-09", "time"),
  "scp_codes": ("", "statements"),
  "strat_fold": ("11", "split"),
  "filename_lr": ("", "record"),
}


def test_faults_of_the_table(tmp_path):
  def change(rows):
    copies = []
    for i, (column, (value, _)) in enumerate(FAULTS.items()):
      ids = {"ecg_id": str(1000 + i), "patient_id": str(2000 + i)}
      copies.append(rows[0] | ids | {column: value})
    return rows + copies

  folder = copy_ptbxl(tmp_path / "in", change)
  directory = ptbxl.prepare(folder, tmp_path / "data", sampling_rate=100)
  rules = {name: rule for name, rule, _ in rejections(directory)}
  for i, (column, (_, rule)) in enumerate(FAULTS.items()):
    name = (
      str(1000 + i) if column != "ecg_id" else "row 13 of ptbxl_database.csv"
    )
    assert rules.pop(name) == rule, column
  assert not rules and len(recordings(directory)) == 12


def test_what_is_missing_or_over_89(tmp_path):
  def change(rows):
    rows[0]["age"], rows[1]["age"] = "300.0", "nan"
    rows[0]["sex"], rows[1]["sex"] = "", "1.0"

  folder = copy_ptbxl(tmp_path / "in", change)
  found = recordings(
    ptbxl.prepare(folder, tmp_path / "data", sampling_rate=100)
  )
  assert (found["8"]["age"], found["8"]["sex"]) == (90, -1)
  assert (found["45"]["age"], found["45"]["sex"]) == (-1, 0)


def test_patients_with_several_recordings_can_be_left_out(tmp_path, found):
  output = tmp_path / "data"
  arguments = ["ptbxl", "--input", str(PTBXL), "--output", str(output)]
  main([*arguments, "--sampling_rate", "100", "--without_repeats"])
  patients = [row["patient_id"] for row in found.values()]
  alone = {n for n, r in found.items() if patients.count(r["patient_id"]) == 1}
  assert 0 < len(alone) < 12 and set(recordings(output)) == alone


def test_duplicates_and_patients_in_two_folds(tmp_path):
  def change(rows):
    rows[11]["strat_fold"] = "10"  # 948, of the patient of 942 in fold 2
    return [*rows, dict(rows[0]), rows[0] | {"ecg_id": "8.0"}]

  folder = copy_ptbxl(tmp_path / "in", change)
  directory = ptbxl.prepare(folder, tmp_path / "data", sampling_rate=100)
  assert sorted(rejections(directory)) == [
    ("8", "duplicate", "a row above has the same record"),
    ("8", "duplicate", "a row above has the same record"),
    ("948", "split", "in test, but patient 410 is in train"),
  ]
  assert len(recordings(directory)) == 11


def test_records_at_500_hz(tmp_path, found):
  def change(rows):
    return [r for r in rows if (PTBXL / f"{r['filename_hr']}.hea").exists()]

  folder = copy_ptbxl(tmp_path / "in", change)
  fast = recordings(ptbxl.prepare(folder, tmp_path / "data"))
  assert fast.keys() == {"8", "45", "55", "56"}
  for name, row in fast.items():
    # The slower one was filtered, and lost an artefact of 1 mV.
    ratio = found[name]["ecg"].std() / row["ecg"].std()
    assert 0.95 < ratio < 1.05
    error = row["ecg"] - found[name]["ecg"]
    assert error.std() < 0.04 and np.abs(error).mean() < 0.012  # mV
    assert abs(row["heart_rate"] - found[name]["heart_rate"]) < 1
    limb = row["ecg"][:, 0] + row["ecg"][:, 2] - row["ecg"][:, 1]
    assert np.abs(limb).max() < 0.01  # I + III = II
  shutil.rmtree(folder / "records500")
  with pytest.raises(
    FileNotFoundError, match=r"records500 is not there: .*--sam"
  ):
    ptbxl.prepare(folder, tmp_path / "none")


def test_command_line(tmp_path, capsys):
  output = str(tmp_path / "data")
  arguments = ["ptbxl", "--input", str(PTBXL), "--workers", "1"]
  arguments += ["--sampling_rate", "100", "--output"]
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
  (tmp_path / "records100").mkdir()
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
  assert "scp_statements.csv is not there" in errors[4]
  assert "has no column 'patient_id'" in errors[5]
  assert len(errors) == 6
  assert not (tmp_path / "b").exists()


def test_codes_in_the_words_of_machine_reports_say_the_same():
  with open(PTBXL / "scp_statements.csv", newline="") as file:
    described = {row[""]: row["description"] for row in csv.DictReader(file)}
  folder = twin_directory.shipped("simulated-small")
  known = json.loads((folder / "statements.json").read_text())["statements"]
  assert len(ptbxl.MACHINE_WORDS) == 20
  for code, words in ptbxl.MACHINE_WORDS.items():
    assert reword(described[code], known).statements == (words,), code
