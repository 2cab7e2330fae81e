"""PTB-XL: 21,799 ECGs of 18,869 patients, as PhysioNet publishes it."""

import ast
import collections
import contextlib
import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from data_prep import builder
from data_prep.rows import Row, RowBuilder, make_row
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
from ecgtwin_jax.data.errors import RecordingError

RATES = {500: "filename_hr", 100: "filename_lr"}  # Hz, and where its paths are
_MAX_CODES = 2000  # characters of scp_codes
_TABLE, _CODES = "ptbxl_database.csv", "scp_statements.csv"
_COLUMNS = (
  "ecg_id",
  "patient_id",
  "age",
  "sex",
  "recording_date",
  "scp_codes",
  "strat_fold",
)
_SEXES = {"0": "M", "1": "F"}
# Codes that say what MIMIC-IV-ECG's machine reports say, in the words of those:
# a twin of several data sets then has one vector for one meaning.
MACHINE_WORDS = {
  "1AVB": "1st degree A-V block",
  "AFIB": "Atrial fibrillation",
  "AFLT": "Atrial flutter",
  "CLBBB": "Left bundle branch block",
  "CRBBB": "Right bundle branch block",
  "IRBBB": "Incomplete right bundle branch block",
  "IVCD": "Nonspecific intraventricular conduction delay",
  "LAFB": "Left anterior fascicular block",
  "LAO/LAE": "Left atrial enlargement",
  "LNGQT": "Prolonged QT interval",
  "LVH": "Left ventricular hypertrophy",
  "NORM": "Normal ECG",
  "NST_": "Nonspecific ST-T changes",
  "PAC": "Atrial premature complex",
  "PVC": "Ventricular premature complex",
  "SARRH": "Sinus arrhythmia",
  "SBRAD": "Sinus bradycardia",
  "SR": "Sinus rhythm",
  "STACH": "Sinus tachycardia",
  "STD_": "ST depression",
}
_FOLDS = {9: "validation", 10: "test"} | dict.fromkeys(range(1, 9), "train")


@dataclasses.dataclass(kw_only=True)
class PtbxlConfig(tfds.core.BuilderConfig):
  """Where PTB-XL is, and what of it is wanted.

  Attributes:
    input: folder with ptbxl_database.csv, of any release 1.0.1 to 1.0.3.
    sampling_rate: 500 or 100 Hz: of records500 or records100.
    limit: rows of the table to read; None is all.
    without_repeats: leaves out patients with several recordings, so that a twin
      can be judged on them by whatever was trained on the others.
  """

  name: str = "ptbxl"
  input: str
  sampling_rate: int = 500
  without_repeats: bool = False
  limit: int | None = None

  def __post_init__(self):
    if self.sampling_rate not in RATES:
      raise ValueError(
        f"sampling_rate={self.sampling_rate} must be one of {list(RATES)} Hz"
      )
    builder.check_input(self.input, self.limit)


class Ptbxl(RowBuilder):
  """PTB-XL, with its own folds: 1-8 train, 9 validation, 10 test.

  The statements are the English descriptions of the SCP codes, or the words of
  machine reports where those say the same, rhythm first, then by likelihood;
  the free-text reports, partly German, are not used. A code of likelihood 0 is
  present, its likelihood is not stated. Heart rates are detected. Age 300 means
  over 89 and becomes 90.
  """

  VERSION = tfds.core.Version("1.2.0")
  licence = "CC BY 4.0"
  builder_config: PtbxlConfig

  def options(self) -> dict:
    config = self.builder_config
    folder = pathlib.Path(config.input)
    return {
      "sampling_rate": config.sampling_rate,
      "limit": config.limit,
      **({"without_repeats": True} if config.without_repeats else {}),
      **{name: digest(folder / name) for name in (_TABLE, _CODES)},
    }

  @functools.cached_property
  def codes(self) -> dict[str, tuple[bool, str]]:
    """Whether a rhythm, and the words, of each SCP code."""
    path = pathlib.Path(self.builder_config.input) / _CODES
    return {
      cells[""]: (
        not is_blank(cells["rhythm"]),
        MACHINE_WORDS.get(cells[""], cells["description"]),
      )
      for _, cells in read_table(path, ("", "description", "rhythm"))
      if not is_blank(cells["description"])
    }

  def statements(self) -> Sequence[str]:
    descriptions = [
      statement
      for _, description in self.codes.values()
      for statement in parse_statements([description])
    ]
    return list(dict.fromkeys(descriptions))

  def read_rows(self) -> Iterator[tuple[str, Row]]:
    config = self.builder_config
    folder = pathlib.Path(config.input)
    column = RATES[config.sampling_rate]
    table = read_table(folder / _TABLE, (*_COLUMNS, column))
    builder.require_folder(
      folder / f"records{config.sampling_rate}", "the other is --sampling_rate"
    )
    recordings = collections.Counter()
    if config.without_repeats:
      for _, cells in read_table(folder / _TABLE, _COLUMNS):
        recordings[cells["patient_id"]] += 1
    for number, cells in table:
      if config.limit is not None and number > config.limit:
        return
      if recordings[cells["patient_id"]] > 1:
        continue
      fold = parse_number(cells["strat_fold"])
      try:
        name = parse_id(cells["ecg_id"], "record")
      except RecordingError:
        name = f"row {number} of {_TABLE}"
      yield (
        _FOLDS.get(fold, "train"),
        make_row(name, self._parse, cells, folder, column),
      )

  def _parse(self, cells: dict[str, str], folder, column) -> dict:
    parse_id(cells["ecg_id"], "record")
    if is_blank(cells[column]):
      raise RecordingError("record", f"no {column}")
    if parse_number(cells["strat_fold"]) not in _FOLDS:
      fold = cells["strat_fold"]
      raise RecordingError("split", f"strat_fold {fold!r} must be 1..10")
    return {
      "path": path_inside(folder, cells[column]),
      "patient_id": parse_id(cells["patient_id"], "patient"),
      "time": seconds(parse_date(cells["recording_date"])),
      "age": parse_age(cells["age"]),
      "sex": parse_sex(cells["sex"], _SEXES),
      "statements": parse_codes(cells["scp_codes"], self.codes),
    }


def parse_codes(
  cell: str, codes: dict[str, tuple[bool, str]]
) -> tuple[str, ...]:
  """Returns the words of SCP codes: rhythm first, then by likelihood.

  Equally likely ones stand in the order of scp_statements.csv. A likelihood of
  0 means that none is stated, not that the code is absent.

  Args:
    cell: like {'NORM': 80.0, 'SR': 0.0}.
    codes: whether a rhythm, and the words, of each code.

  Raises:
    RecordingError: `statements`; the cell is no such dictionary, or a code is
      not known.
  """
  likelihood = None
  if len(cell) <= _MAX_CODES:
    with contextlib.suppress(
      *(ValueError, TypeError, SyntaxError, AttributeError),
      *(RecursionError, MemoryError, OverflowError),
    ):
      likelihood = {str(k): float(v) for k, v in ast.literal_eval(cell).items()}
  if likelihood is None or any(map(math.isnan, likelihood.values())):
    raise RecordingError(
      "statements", f"scp_codes {cell[:100]!r} cannot be read"
    )
  for code in likelihood:
    if code not in codes:
      raise RecordingError("statements", f"code {code!r} is not in {_CODES}")
  order = {code: place for place, code in enumerate(codes)}
  chosen = sorted(
    likelihood, key=lambda x: (not codes[x][0], -likelihood[x], order[x])
  )
  return tuple(
    dict.fromkeys(parse_statements([codes[code][1] for code in chosen]))
  )


def prepare(
  input: str | os.PathLike,
  output: str | os.PathLike,
  *,
  sampling_rate: int = 500,
  limit: int | None = None,
  without_repeats: bool = False,
  **options: Any,
) -> pathlib.Path:
  """Writes PTB-XL as a data set.

  Args:
    input: folder with ptbxl_database.csv.
    output: directory of the data set.
    sampling_rate: 500 or 100 Hz: of records500 or records100.
    limit: rows of the table to read; None is all.
    without_repeats: leaves out patients with several recordings.
    **options: arguments of `data_prep.builder.prepare`.

  Raises:
    FileNotFoundError: a table or the records are not there.
    ValueError: an option is out of range, a table is none, or something else is
      at the output.
  """
  config = PtbxlConfig(
    input=os.fspath(input),
    sampling_rate=sampling_rate,
    limit=limit,
    without_repeats=without_repeats,
  )
  return builder.prepare(Ptbxl, config, output, **options)
