"""A file of requests: a CSV row per person and condition to generate."""

import csv
import dataclasses
import difflib
import math
import os
import pathlib

NEEDED = ("record", "now_statements", "target_statements", "target_heart_rate")
OPTIONAL = (
  "start",
  "now_heart_rate",
  "now_age",
  "now_sex",
  "target_age",
  "target_sex",
  "n",
  "seed",
)
MAX_SAMPLES = 10_000  # of a row, which is held in memory until it is whole


@dataclasses.dataclass(frozen=True)
class Request:
  """One row: whose ECG, what it shows, what to generate, how many.

  Attributes:
    number: of the row, from 1 on; the line of column names is not counted.
    line: of the file, from 1 on.
    record: path of the reference.
    start: seconds to skip in it.
    now: statements (text), heart_rate, age and sex of the reference; None: not
      given.
    target: likewise of the ECGs to generate.
    n: how many.
    seed: of their draw.
    cells: the row as it stands in the file.
  """

  number: int
  line: int
  record: str
  start: float
  now: dict
  target: dict
  n: int
  seed: int
  cells: dict


@dataclasses.dataclass(frozen=True)
class Failure:
  """A row that could not be done, and why."""

  number: int
  line: int
  record: str
  reason: str


def read_requests(
  path: str | os.PathLike, n: int, seed: int
) -> tuple[list[Request], list[Failure]]:
  """Reads a file of requests; a row that cannot be understood is a failure.

  Args:
    path: UTF-8 CSV with a first line of column names: NEEDED and any of
      OPTIONAL. Empty cells are values that are not given. Records are relative
      to the file's folder.
    n: of rows that do not say how many.
    seed: of rows that do not give one.

  Returns:
    Requests and failures, each in the file's order.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is no CSV file, or a column is missing, unknown or double.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"no file of requests {str(path)!r}")
  requests, failures = [], []
  try:
    with path.open(newline="", encoding="utf-8-sig") as file:
      reader = csv.DictReader(file, strict=True)
      _check_columns(path, reader.fieldnames or [])
      for number, cells in enumerate(reader, 1):
        line = reader.line_num
        try:
          request = _read_row(path.parent, number, line, cells, n, seed)
          requests.append(request)
        except ValueError as error:
          record = cells.get("record") or ""
          failures.append(Failure(number, line, record, str(error)))
  except (csv.Error, UnicodeDecodeError) as error:
    raise ValueError(f"{str(path)!r} must be UTF-8 CSV: {error}") from None
  return requests, failures


def _check_columns(path, names):
  for name in names:
    if names.count(name) > 1:
      raise ValueError(f"{str(path)!r}: column {name!r} must stand there once")
    if name not in NEEDED + OPTIONAL:
      near = difflib.get_close_matches(name or "", NEEDED + OPTIONAL, 1, 0.5)
      hint = f"; did you mean {near[0]!r}?" if near else ""
      raise ValueError(f"{str(path)!r}: unknown column {name!r}{hint}")
  missing = [name for name in NEEDED if name not in names]
  if missing:
    raise ValueError(f"{str(path)!r} must have columns {', '.join(missing)}")


def _read_row(folder, number, line, cells, n, seed) -> Request:
  if None in cells or None in cells.values():
    raise ValueError("the row must have one cell per column")
  cells = {name: cell.strip() for name, cell in cells.items()}
  for name in NEEDED:
    if not cells[name]:
      raise ValueError(f"{name} must be given")
  start = _number(cells, "start")
  return Request(
    number=number,
    line=line,
    record=str(folder / cells["record"]),
    start=0.0 if start is None else start,
    now=_condition(cells, "now"),
    target=_condition(cells, "target"),
    n=_whole(cells, "n", n, 1, MAX_SAMPLES),
    seed=_whole(cells, "seed", seed, 0, 2**32 - 1),
    cells=cells,
  )


def _condition(cells, when):
  return {
    "statements": cells[f"{when}_statements"],
    "heart_rate": _number(cells, f"{when}_heart_rate"),
    "age": _number(cells, f"{when}_age"),
    "sex": cells.get(f"{when}_sex", "").upper() or None,
  }


def _number(cells, name):
  text = cells.get(name, "")
  if not text:
    return None
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not math.isfinite(value):
    raise ValueError(f"{name}={text!r} must be a number")
  return value


def _whole(cells, name, default, low, high):
  text = cells.get(name, "")
  if not text:
    return default
  value = int(text) if text.isdecimal() else -1
  if not low <= value <= high:
    raise ValueError(f"{name}={text!r} must be a whole number in {low}..{high}")
  return value
