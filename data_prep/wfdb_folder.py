"""Any folder of WFDB records, with a table that says whose they are."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from data_prep import builder
from data_prep.rows import Row, RowBuilder, hashed_split, make_row
from data_prep.tables import (
  digest,
  is_blank,
  parse_age,
  parse_id,
  parse_number,
  parse_sex,
  parse_statements,
  parse_time,
  path_inside,
  read_table,
)
from ecgtwin_jax.data.errors import RecordingError

TABLE = "recordings.csv"
_COLUMNS = ("record", "patient_id", "time", "age", "sex")
_OPTIONAL = ("heart_rate", "statements")


@dataclasses.dataclass(kw_only=True)
class WfdbFolderConfig(tfds.core.BuilderConfig):
  """Where the records are, and what of them is wanted.

  Attributes:
    input: folder that the paths of the table start from.
    table: CSV file; "" is recordings.csv in the folder.
    seed: seed that assigns patients to splits.
    limit: rows of the table to read; None is all.
    licence: of the recordings; "" is not stated.
  """

  name: str = "wfdb_folder"
  input: str
  table: str = ""
  seed: int = 0
  limit: int | None = None
  licence: str = ""

  def __post_init__(self):
    builder.check_input(self.input, self.limit)
    self.table = self.table or os.fspath(pathlib.Path(self.input) / TABLE)


class WfdbFolder(RowBuilder):
  """WFDB records of a folder, patients split by a hash of their id.

  A CSV file has the columns record (path from the folder, with or without
  .hea), patient_id, time (a date with or without time, or seconds), heart_rate
  (bpm; may be left out, a blank is detected), age (years), sex (F or M) and
  statements (separated by '|'; may be left out). Blank ages and sexes are
  stored as missing; a recording with blank statements is stored without a
  report, for the autoencoder alone. The first 10 s of a record are taken.
  """

  VERSION = tfds.core.Version("1.1.0")
  builder_config: WfdbFolderConfig
  exactly = False

  @property
  def licence(self) -> str:
    return self.builder_config.licence

  def options(self) -> dict:
    config = self.builder_config
    return {
      "seed": config.seed,
      "limit": config.limit,
      "table": digest(pathlib.Path(config.table)),
    }

  def read_rows(self) -> Iterator[tuple[str, Row]]:
    config = self.builder_config
    folder = pathlib.Path(config.input)
    table = pathlib.Path(config.table)
    builder.require_folder(folder, "give the folder of the records")
    for number, cells in read_table(table, _COLUMNS, _OPTIONAL):
      if config.limit is not None and number > config.limit:
        return
      name = cells["record"].removesuffix(".hea").removesuffix(".dat")
      name = name or f"row {number} of {table.name}"
      row = make_row(name, _parse, cells, folder)
      yield hashed_split(row.patient_id, config.seed), row


def _parse(cells: dict[str, str], folder: pathlib.Path) -> dict:
  return {
    "path": path_inside(folder, parse_id(cells["record"], "record")),
    "patient_id": parse_id(cells["patient_id"], "patient"),
    "time": parse_time(cells["time"]),
    "heart_rate": _parse_heart_rate(cells["heart_rate"]),
    "age": parse_age(cells["age"]),
    "sex": parse_sex(cells["sex"]),
    "statements": _parse_statements(cells["statements"]),
  }


def _parse_statements(cell: str) -> tuple[str, ...]:
  return () if is_blank(cell) else parse_statements(cell.split("|"))


def _parse_heart_rate(cell: str) -> float | None:
  if is_blank(cell):
    return None
  heart_rate = parse_number(cell)
  if heart_rate is None:
    raise RecordingError("heart_rate", f"heart_rate {cell!r} must be a number")
  return heart_rate


def prepare(
  input: str | os.PathLike,
  output: str | os.PathLike,
  *,
  table: str | os.PathLike = "",
  seed: int = 0,
  limit: int | None = None,
  licence: str = "",
  **options: Any,
) -> pathlib.Path:
  """Writes a folder of WFDB records as a data set.

  Args:
    input: folder that the paths of the table start from.
    output: directory of the data set.
    table: CSV file, see `WfdbFolder`.
    seed: seed that assigns patients to splits.
    limit: rows of the table to read; None is all.
    licence: of the recordings, for the card; "" is not stated.
    **options: arguments of `data_prep.builder.prepare`.

  Raises:
    FileNotFoundError: the table or the folder is not there.
    ValueError: an option is out of range, the table is none, or something else
      is at the output.
  """
  config = WfdbFolderConfig(
    input=os.fspath(input),
    table=os.fspath(table),
    seed=seed,
    limit=limit,
    licence=licence,
  )
  return builder.prepare(WfdbFolder, config, output, **options)
