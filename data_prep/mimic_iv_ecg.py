"""MIMIC-IV-ECG: 800,035 ECGs of 161,352 patients, as PhysioNet publishes it."""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from data_prep import builder
from data_prep.rows import Row, RowBuilder, hashed_split, make_row
from data_prep.tables import (
  digest,
  is_blank,
  parse_age,
  parse_date,
  parse_id,
  parse_number,
  parse_sex,
  parse_statements,
  path_inside,
  read_table,
  seconds,
)
from ecgtwin_jax.data.conditions import MAX_STATEMENTS
from ecgtwin_jax.data.errors import RecordingError

RR_INTERVALS = (300.0, 1500.0)  # ms that are believed: 200 to 40 bpm
_LIST, _MACHINE = "record_list.csv", "machine_measurements.csv"
_PATIENTS = ("patients.csv", "patients.csv.gz")  # also in the folder hosp
_REPORTS = tuple(f"report_{i}" for i in range(MAX_STATEMENTS))


@dataclasses.dataclass(kw_only=True)
class MimicIvEcgConfig(tfds.core.BuilderConfig):
  """Where MIMIC-IV-ECG is, and what of it is wanted.

  Attributes:
    input: folder with record_list.csv and machine_measurements.csv.
    patients: patients.csv of MIMIC-IV's module hosp, plain or .gz; without it
      age and sex are missing. "" looks for it in the folder and its hosp.
    exclude: text file with a study_id or path per line to leave out; or "".
    seed: seed that assigns patients to splits.
    limit: rows of record_list.csv to read; None is all.
  """

  name: str = "mimic_iv_ecg"
  input: str
  patients: str = ""
  exclude: str = ""
  seed: int = 0
  limit: int | None = None

  def __post_init__(self):
    builder.check_input(self.input, self.limit)
    if not self.patients:
      for name in (*_PATIENTS, *(f"hosp/{name}" for name in _PATIENTS)):
        if (pathlib.Path(self.input) / name).is_file():
          self.patients = os.fspath(pathlib.Path(self.input) / name)
          break


class _Machine(NamedTuple):
  statements: tuple[str, ...]
  rr_interval: str


class _Patient(NamedTuple):
  sex: str
  anchor_age: str
  anchor_year: str


class MimicIvEcg(RowBuilder):
  """MIMIC-IV-ECG, patients split by a hash of their id.

  The statements are the machine's report_0 to report_17. The heart rate is
  60000 / rr_interval where that is in 300..1500 ms, else it is detected. The
  age is anchor_age + year of the ECG - anchor_year.
  """

  VERSION = tfds.core.Version("1.0.0")
  licence = "ODbL 1.0"
  builder_config: MimicIvEcgConfig

  def options(self) -> dict:
    config = self.builder_config
    folder = pathlib.Path(config.input)
    return {
      "seed": config.seed,
      "limit": config.limit,
      **{name: digest(folder / name) for name in (_LIST, _MACHINE)},
      "patients": config.patients and digest(pathlib.Path(config.patients)),
      "exclude": config.exclude and digest(pathlib.Path(config.exclude)),
    }

  def read_rows(self) -> Iterator[tuple[str, Row]]:
    config = self.builder_config
    folder = pathlib.Path(config.input)
    excluded = _read_excluded(config.exclude)
    machine = _read_machine(folder / _MACHINE)
    patients = _read_patients(config.patients)
    columns = ("subject_id", "study_id", "ecg_time", "path")
    table = read_table(folder / _LIST, columns)
    builder.require_folder(folder / "files", "it holds the waveforms")
    for number, cells in table:
      if config.limit is not None and number > config.limit:
        return
      try:
        name = parse_id(cells["study_id"], "record")
      except RecordingError:
        name = f"row {number} of {_LIST}"
      row = make_row(name, _parse, cells, folder, machine, patients, excluded)
      yield hashed_split(row.patient_id, config.seed), row


def _parse(cells, folder, machine, patients, excluded) -> dict:
  study = parse_id(cells["study_id"], "record")
  if is_blank(cells["path"]):
    raise RecordingError("record", "no path")
  if excluded & {study, cells["path"]}:
    raise RecordingError("excluded", "in the exclusion list")
  patient_id = parse_id(cells["subject_id"], "patient")
  date = parse_date(cells["ecg_time"])
  report = machine.get(study)
  if report is None:
    raise RecordingError("statements", f"no row in {_MACHINE}")
  age = sex = None
  patient = patients.get(patient_id)
  if patient is not None:
    sex = parse_sex(patient.sex)
    age = _age_at(date.year, patient)
  return {
    "path": path_inside(folder, cells["path"]),
    "patient_id": patient_id,
    "time": seconds(date),
    "statements": parse_statements(report.statements),
    "heart_rate": heart_rate_of(report.rr_interval),
    "age": age,
    "sex": sex,
  }


def _age_at(year: int, patient: _Patient) -> float | None:
  age = parse_age(patient.anchor_age)
  if age is None or is_blank(patient.anchor_year):
    return None
  anchor_year = parse_number(patient.anchor_year)
  if anchor_year is None:
    raise RecordingError(
      "demographics", f"anchor_year {patient.anchor_year!r} must be a year"
    )
  return parse_age(f"{age + year - anchor_year}")


def heart_rate_of(rr_interval: str) -> float | None:
  """Returns 60000 / rr_interval in bpm, or None: it has to be detected.

  Args:
    rr_interval: milliseconds; 0, 29999 and blanks are no measurement.

  Source: Lai et al., arXiv 2508.02720. The published code compares seconds
  with these limits of milliseconds and so detects every heart rate.
  """
  number = parse_number(rr_interval)
  low, high = RR_INTERVALS
  if number is None or not low <= number <= high:
    return None
  return 60_000.0 / number


def _read_machine(path: pathlib.Path) -> dict[str, _Machine]:
  """Returns statements and RR interval of each study, the first row's."""
  machine = {}
  for _, cells in read_table(path, ("study_id", "rr_interval"), _REPORTS):
    study = cells["study_id"].removesuffix(".0")
    if study not in machine:
      # 800,000 reports are made of few statements: each is kept once.
      texts = (sys.intern(cells[name]) for name in _REPORTS if cells[name])
      machine[study] = _Machine(tuple(texts), cells["rr_interval"])
  return machine


def _read_patients(path: str) -> dict[str, _Patient]:
  if not path:
    return {}
  columns = ("subject_id", "gender", "anchor_age", "anchor_year")
  return {
    cells["subject_id"]: _Patient(*(cells[name] for name in columns[1:]))
    for _, cells in read_table(pathlib.Path(path), columns)
  }


def _read_excluded(path: str) -> set[str]:
  if not path:
    return set()
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(f"{path} is not there")
  lines = pathlib.Path(path).read_text("utf-8", "replace").splitlines()
  return {line.strip() for line in lines} - {""}


def prepare(
  input: str | os.PathLike,
  output: str | os.PathLike,
  *,
  patients: str | os.PathLike = "",
  exclude: str | os.PathLike = "",
  seed: int = 0,
  limit: int | None = None,
  **options: Any,
) -> pathlib.Path:
  """Writes MIMIC-IV-ECG as a data set.

  Args:
    input: folder with record_list.csv and machine_measurements.csv.
    output: directory of the data set.
    patients: patients.csv, see `MimicIvEcgConfig`.
    exclude: file of what to leave out.
    seed: seed that assigns patients to splits.
    limit: rows of record_list.csv to read; None is all.
    **options: arguments of `data_prep.builder.prepare`.

  Raises:
    FileNotFoundError: a table or the records are not there.
    ValueError: an option is out of range, a table is none, or something else is
      at the output.
  """
  config = MimicIvEcgConfig(
    input=os.fspath(input),
    patients=os.fspath(patients),
    exclude=os.fspath(exclude),
    seed=seed,
    limit=limit,
  )
  return builder.prepare(MimicIvEcg, config, output, **options)
