"""MIMIC-IV-ECG: a small tree in the layout and lead order of the release."""

import datetime
import gzip

import numpy as np
import pytest
import scipy.signal

from data_prep import mimic_iv_ecg
from data_prep.__main__ import main
from data_prep.rows import hashed_split
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.leads import LEADS
from ecgtwin_jax.simulator.simulate import sample_patient, simulate
from helpers.recordings import (
  card,
  read_physical,
  recordings,
  rejections,
  write_csv,
  write_record,
)

RELEASED = ("I", "II", "III", "aVR", "aVF", "aVL", *LEADS[6:])  # aVF first
MACHINE = ("bandwidth", "filtering", "rr_interval", "p_onset", "p_end")
MACHINE += ("qrs_onset", "qrs_end", "t_end", "p_axis", "qrs_axis", "t_axis")
# RR interval in ms of each recording, and the heart rate it tells.
RR_INTERVALS = {
  "659": 60_000 / 659,
  "0": None,
  "29999": None,
  "": None,
  "300": 200,
  "1500": 40,
  "299": None,
  "1501.5": None,
  "820.0": 60_000 / 820,
}
PATIENTS, PER_PATIENT = 12, 3


def write_tree(folder):
  """Writes 36 recordings of 12 patients; returns their true heart rates."""
  listed, measured, patients, rates = [], [], [], {}
  rng = np.random.default_rng(3)
  for patient in range(PATIENTS):
    subject = 10_000_032 + 17 * patient
    anatomy = sample_patient(rng)
    for _ in range(PER_PATIENT):
      condition = Condition(("Sinus rhythm",), float(rng.integers(61, 99)))
      made = simulate(anatomy, condition, rng)
      study = 40_689_238 + len(listed)
      group = f"p{str(subject)[:4]}/p{subject}/s{study}"
      place = f"files/{group}/{study}"
      signal = made.ecg.signal[:, [LEADS.index(lead) for lead in RELEASED]]
      write_record(folder / "files" / group, str(study), signal, RELEASED)
      date = f"{2180 + patient}-07-{23 + len(listed) % PER_PATIENT} 08:44:00"
      facts = {"subject_id": subject, "study_id": study}
      listed.append(
        facts | {"file_name": study, "ecg_time": date, "path": place}
      )
      texts = [*made.condition.statements, "", "---", " Abnormal  ECG "]
      reports = {
        f"report_{i}": texts[i] if i < len(texts) else "" for i in range(18)
      }
      rr_interval = list(RR_INTERVALS)[(len(listed) - 1) % len(RR_INTERVALS)]
      measured.append(
        facts
        | {"cart_id": 6_848_296, "ecg_time": date}
        | reports
        | dict.fromkeys(MACHINE, "")
        | {"rr_interval": rr_interval}
      )
      rates[str(study)] = made.condition.heart_rate
    patients.append(
      {
        "subject_id": subject,
        "gender": "FM"[patient % 2],
        "anchor_age": 52 + patient,
        "anchor_year": 2178,
        "anchor_year_group": "2014 - 2016",
        "dod": "",
      }
    )
  write_csv(folder / "record_list.csv", listed)
  write_csv(folder / "machine_measurements.csv", measured[::-1])
  write_csv(folder / "patients.csv", patients)
  return rates


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
  folder = tmp_path_factory.mktemp("mimic")
  return folder, write_tree(folder)


@pytest.fixture(scope="module")
def found(tree, tmp_path_factory):
  folder, _ = tree
  output = tmp_path_factory.mktemp("data") / "data"
  return recordings(mimic_iv_ecg.prepare(folder, output))


def studies(tree):
  """Study, WFDB path and number of each recording, in the list's order."""
  folder, rates = tree
  for number, study in enumerate(rates):
    (header,) = folder.glob(f"files/p*/p*/s{study}/{study}.hea")
    yield study, header.with_suffix(""), number


def test_leads_come_out_in_clinical_order(tree, found):
  assert len(found) == PATIENTS * PER_PATIENT
  for study, path, _ in studies(tree):
    assert path.with_suffix(".hea").read_text().index("aVF") < (
      path.with_suffix(".hea").read_text().index("aVL")
    )
    expected = scipy.signal.resample(read_physical(path), 1024)
    assert np.abs(found[study]["ecg"] - expected).max() < 0.6e-3


def test_heart_rates(tree, found):
  _, truth = tree
  for study, _, number in studies(tree):
    rr_interval = list(RR_INTERVALS)[number % len(RR_INTERVALS)]
    told = RR_INTERVALS[rr_interval]
    if told is not None:
      assert found[study]["heart_rate"] == np.float32(told), rr_interval
    else:
      error = found[study]["heart_rate"] - truth[study]
      assert abs(error) < 2.5, rr_interval


def test_ways_to_the_heart_rate_are_counted(tree, tmp_path):
  folder, _ = tree
  directory = mimic_iv_ecg.prepare(folder, tmp_path / "data")
  assert card(directory)["tally"] == {
    "heart_rate_detected": 20,  # 5 of each 9 RR intervals tell nothing
    "heart_rate_given": 16,
  }


def test_ages_sexes_times_and_statements(tree, found):
  for study, _, number in studies(tree):
    row, patient = found[study], number // PER_PATIENT
    # anchor_age + year of the ECG - anchor_year
    assert row["age"] == 52 + patient + (2180 + patient) - 2178
    assert row["sex"] == patient % 2
    assert row["patient_id"] == str(10_000_032 + 17 * patient)
    date = datetime.datetime(2180 + patient, 7, 23 + number % 3, 8, 44)
    assert datetime.timedelta(seconds=row["time"]) == (
      date - datetime.datetime(1970, 1, 1)
    )
    assert row["statements"][-1] == "Abnormal ECG"  # spaces normalised
    assert "---" not in row["statements"] and len(row["statements"]) >= 2


def test_splits_are_by_patient(found):
  for row in found.values():
    assert row["split"] == hashed_split(row["patient_id"], 0)


def test_splits_are_stable_when_the_set_grows(tree, found, tmp_path):
  folder, _ = tree
  few = mimic_iv_ecg.prepare(folder, tmp_path / "few", limit=8)
  part = recordings(few)
  assert len(part) == 8
  for study, row in part.items():
    assert row["split"] == found[study]["split"]
    np.testing.assert_array_equal(row["ecg"], found[study]["ecg"])
    assert row["statements"] == found[study]["statements"]


def test_without_patients_age_and_sex_are_missing(tree, tmp_path):
  folder, _ = tree
  bare = tmp_path / "bare"
  bare.mkdir()
  for name in ("files", "record_list.csv", "machine_measurements.csv"):
    (bare / name).symlink_to(folder / name)
  directory = mimic_iv_ecg.prepare(bare, tmp_path / "data")
  for row in recordings(directory).values():
    assert (row["age"], row["sex"]) == (-1, -1)
  tally = card(directory)["tally"]
  assert tally["age_missing"] == tally["sex_missing"] == 36

  (bare / "hosp").mkdir()
  compressed = gzip.compress((folder / "patients.csv").read_bytes())
  (bare / "hosp" / "patients.csv.gz").write_bytes(compressed)
  directory = mimic_iv_ecg.prepare(bare, tmp_path / "with")
  assert "age_missing" not in card(directory)["tally"]


def test_faults_and_exclusions(tree, tmp_path):
  folder, rates = tree
  studied = list(rates)
  broken = tmp_path / "broken"
  broken.mkdir()
  (broken / "files").symlink_to(folder / "files")

  def edit(name, change):
    from helpers.recordings import read_csv

    rows = read_csv(folder / name)
    write_csv(broken / name, change(rows) or rows)

  def change_list(rows):
    rows[0]["subject_id"] = ""
    rows[1]["ecg_time"] = "yesterday"
    rows[2]["path"] = ""
    rows[3]["path"] = "files/p1/none"
    rows[4]["study_id"] = ""
    return [*rows, dict(rows[6])]

  def change_machine(rows):
    rows.reverse()
    for name in [x for x in rows[7] if x.startswith("report_")]:
      rows[7][name] = " "
    rows[9]["report_3"] = "one|two"
    del rows[8]

  def change_patients(rows):
    rows[4]["anchor_age"] = "-1"  # 3 recordings
    rows[5]["gender"] = "?"
    rows[6]["anchor_age"] = rows[6]["gender"] = ""  # missing, not wrong
    del rows[7]

  edit("record_list.csv", change_list)
  edit("machine_measurements.csv", change_machine)
  edit("patients.csv", change_patients)
  listed = (broken / "record_list.csv").read_text().splitlines()
  exclude = tmp_path / "exclude.txt"
  path = listed[1 + 11].split(",")[-1]
  exclude.write_text(f"{studied[10]}\n\n{path}\n")

  directory = mimic_iv_ecg.prepare(broken, tmp_path / "data", exclude=exclude)
  assert {
    studied.index(name) if name in studied else name: rule
    for name, rule, _ in rejections(directory)
    if rule != "duplicate"
  } == {
    0: "patient",
    1: "time",
    2: "record",
    3: "missing_file",
    "row 5 of record_list.csv": "record",
    7: "statements",
    8: "statements",
    9: "statements",
    10: "excluded",
    11: "excluded",
    12: "demographics",
    13: "demographics",
    14: "demographics",
    15: "demographics",
    16: "demographics",
    17: "demographics",
  }
  facts = card(directory)
  assert facts["rejected"]["duplicate"] == 1 and facts["read"] == 37
  assert facts["tally"]["age_missing"] == facts["tally"]["sex_missing"] == 6


def test_command_line(tree, tmp_path, capsys):
  folder, _ = tree
  arguments = ["mimic_iv_ecg", "--input", str(folder), "--workers", "1"]
  arguments += ["--output", str(tmp_path / "data"), "--limit", "4"]
  assert main([*arguments, "--exclude", str(tmp_path / "none")]) == 1
  assert main([*arguments, "--patients", str(tmp_path / "none")]) == 1
  assert main([*arguments, "--encoder", "nothing-like-it"]) == 1
  errors = capsys.readouterr().err.splitlines()
  errors = [line for line in errors if line.startswith("error: ")]
  assert len(errors) == 3 and "nothing-like-it" in errors[2]
  assert all("none is not there" in line for line in errors[:2])
  assert main([*arguments, "--seed", "5"]) == 0
  assert "4 read = 4 written" in capsys.readouterr().out
  assert card(tmp_path / "data")["options"]["seed"] == 5
