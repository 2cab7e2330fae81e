"""Tables of recordings: CSV files and their cells, without any guessing."""

import csv
import datetime
import gzip
import hashlib
import io
import math
import os
import pathlib
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from data_prep.quality import AGES
from ecgtwin_jax.data.conditions import MAX_STATEMENTS, OVER_89, find_bad_text
from ecgtwin_jax.data.errors import RecordingError
from ecgtwin_jax.data.wfdb_record import decode_text

_BLANK = frozenset(("", "na", "n/a", "nan", "none", "null"))
MAX_TABLE = 1 << 31  # bytes, unpacked
MAX_CELL = 1 << 20  # characters: more is a quote that is never closed
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_EPOCH = datetime.datetime(1970, 1, 1)
_SEXES = {"m": "M", "male": "M", "f": "F", "female": "F"}


def read_table(
  path: pathlib.Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
  """Yields number (from 1) and cells of each row of a CSV file, plain or .gz.

  Cells are stripped; what a short row lacks is empty. A file that is not UTF-8
  is read as Latin-1.

  Args:
    path: path of the file.
    columns: names of columns that must be there.
    optional: columns that are empty where they are not there.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a column is missing, or this is no CSV file, or a larger one
      than 2 GiB.
  """
  if not path.is_file():
    raise FileNotFoundError(f"{path} is not there: is the folder right?")
  reads = gzip.open if path.suffix == ".gz" else open
  try:
    with reads(path, "rb") as file:
      _check_size(path, file)
      content = file.read()
  except (OSError, EOFError, zlib.error) as error:
    raise ValueError(f"{path} cannot be read: {error}") from None
  text = decode_text(content)
  csv.field_size_limit(MAX_CELL)
  rows = csv.reader(io.StringIO(text, newline=""))
  try:
    header = [name.strip() for name in next(rows, [])]
    for name in columns:
      if name not in header:
        raise ValueError(
          f"{path} has no column {name!r}, it has "
          f"{' '.join(', '.join(header).split())[:200]}"
        )
    wanted = [*columns, *(name for name in optional if name in header)]
    places = [(name, header.index(name)) for name in wanted]
    absent = {name: "" for name in optional if name not in header}
    for number, row in enumerate(rows, 1):
      if row:
        cells = {
          name: row[i].strip() if i < len(row) else "" for name, i in places
        }
        yield number, cells | absent
  except csv.Error as error:
    raise ValueError(f"{path}, line {rows.line_num}: {error}") from None


def _check_size(path, file):
  """Refuses what is too large before any of it is kept."""
  size = 0
  while piece := file.read(1 << 20):
    size += len(piece)
    if size > MAX_TABLE:
      raise ValueError(f"{path} has more than {MAX_TABLE} bytes, unpacked")
  file.seek(0)


def digest(path: pathlib.Path) -> str:
  """Returns the sha256 of a file, or "" where there is none."""
  if not path.is_file():
    return ""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def is_blank(cell: str) -> bool:
  """Whether a cell says nothing."""
  return cell.lower() in _BLANK


def parse_id(cell: str, rule: str) -> str:
  """Returns an id; pandas' "15709.0" of a column with gaps is "15709".

  Raises:
    RecordingError: the given rule; the cell is blank.
  """
  if is_blank(cell):
    raise RecordingError(rule, f"no {rule} id")
  return re.sub(r"^(\d+)\.0+$", r"\1", cell)


def parse_number(cell: str) -> float | None:
  """Returns a finite number, written as such ("1_0" is none), or None."""
  if not _NUMBER.fullmatch(cell):
    return None
  number = float(cell)
  return number if math.isfinite(number) else None


def parse_date(cell: str) -> datetime.datetime:
  """Returns a date with or without time, as ISO 8601 writes it.

  Raises:
    RecordingError: `time`.
  """
  try:
    date = datetime.datetime.fromisoformat(cell)
    if date.tzinfo is not None:
      date = date.astimezone(datetime.UTC).replace(tzinfo=None)
  except (ValueError, OverflowError):  # or in UTC before year 1
    raise RecordingError(
      "time", f"time {cell!r} must be like 2180-07-23 08:44:00"
    ) from None
  return date


def parse_time(cell: str) -> int:
  """Returns seconds, of a date or of a number of seconds.

  Raises:
    RecordingError: `time`.
  """
  number = parse_number(cell)
  if number is not None and abs(number) < 2**62:
    return round(number)
  return seconds(parse_date(cell))


def path_inside(folder: pathlib.Path, cell: str) -> str:
  """Returns the path of a record that a table names, relative to a folder.

  Raises:
    RecordingError: `record`; the path is absolute, or "..", which leads out of
      a folder, stands anywhere in it.
  """
  parts = pathlib.PurePosixPath(cell.replace("\\", "/")).parts
  if not parts or parts[0] == "/" or ".." in cell or "\0" in cell:
    raise RecordingError(
      "record",
      f"record {cell[:100]!r} must be a path inside the input folder, without "
      "'..'",
    )
  return os.fspath(folder / cell)


def seconds(date: datetime.datetime) -> int:
  """Returns the seconds from 1970 to a date."""
  return round((date - _EPOCH).total_seconds())


def parse_age(cell: str) -> float | None:
  """Returns years; 300 is PTB-XL's code for "over 89"; None: not known.

  Raises:
    RecordingError: `demographics`.
  """
  if is_blank(cell):
    return None
  age = parse_number(cell)
  low, high = AGES
  if age is None or not (low <= age <= high or age == OVER_89):
    raise RecordingError(
      "demographics", f"age {cell!r} must be in {low:g}..{high:g} years"
    )
  return age


def parse_sex(cell: str, codes: Mapping[str, str] = _SEXES) -> str | None:
  """Returns "F" or "M"; None: not known.

  Args:
    cell: text of a cell of the table.
    codes: sex of each code, in lower case.

  Raises:
    RecordingError: `demographics`.
  """
  if is_blank(cell):
    return None
  sex = codes.get(cell.lower().removesuffix(".0"))
  if sex is None:
    raise RecordingError(
      "demographics", f"sex {cell!r} must be one of {', '.join(codes)}"
    )
  return sex


def parse_statements(cells: Iterable[str]) -> tuple[str, ...]:
  """Returns the statements that say something, spaces normalised.

  Raises:
    RecordingError: `statements`.
  """
  # Lines without a letter or digit, such as "---", separate others.
  statements = [" ".join(x.split()) for x in cells if re.search(r"[^\W_]", x)]
  if not 1 <= len(statements) <= MAX_STATEMENTS:
    raise RecordingError(
      "statements", f"{len(statements)} statements, must be 1..{MAX_STATEMENTS}"
    )
  for statement in statements:
    if "|" in statement:
      raise RecordingError("statements", f"{statement!r} must not contain '|'")
    problem = find_bad_text(statement)
    if problem:
      raise RecordingError("statements", f"{statement[:60]!r} {problem}")
  return tuple(statements)
