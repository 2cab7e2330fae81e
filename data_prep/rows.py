"""Data sets that a table describes: a row per recording, and how to read it."""

import abc
import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from data_prep import quality
from data_prep.builder import Builder
from data_prep.records import Record, Rejection
from ecgtwin_jax.constants import SECONDS
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.dataset import SPLITS
from ecgtwin_jax.data.ecg import read_ecg
from ecgtwin_jax.data.errors import RecordingError
from ecgtwin_jax.data.heart_rate import detect_heart_rate

HELD_OUT = 0.1  # of the patients, in validation and in test each


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
  """What a table says about a recording, or why it is left out.

  Attributes:
    name: name of the recording.
    path: path of its WFDB record.
    patient_id: the patient's name.
    time: time in seconds.
    statements: of its report; () where there is none.
    heart_rate: bpm, None where it has to be detected.
    age: years, None where not known.
    sex: "F", "M" or None where not known.
    rejection: why it is left out; then only the name counts.
  """

  name: str
  path: str = ""
  patient_id: str = ""
  time: int = 0
  statements: tuple[str, ...] = ()
  heart_rate: float | None = None
  age: float | None = None
  sex: str | None = None
  rejection: Rejection | None = None


class RowBuilder(Builder):
  """A builder whose keys are the rows of a table."""

  exactly = True  # recordings have to be 10 s long; False: at least

  @abc.abstractmethod
  def read_rows(self) -> Iterator[tuple[str, Row]]:
    """Yields split and row of every recording, in the order of the table."""

  @functools.cached_property
  def rows(self) -> dict[str, list[Row]]:
    """The rows of each split, of which no two share a name or a patient."""
    return _check_rows(self.read_rows())

  def keys(self) -> dict[str, list[Row]]:
    return self.rows

  def total(self) -> int:
    return sum(map(len, self.rows.values()))

  def statements(self) -> Sequence[str]:
    rows = (row for rows in self.rows.values() for row in rows)
    return sorted({text for row in rows for text in row.statements})

  def reader(self) -> Callable[[Row], Iterator[tuple[str, Record | Rejection]]]:
    return functools.partial(read_row, exactly=self.exactly)


def make_row(name: str, parse: Callable[..., dict], *args: Any) -> Row:
  """Returns the row that `parse(*args)` describes, or its rejection.

  Args:
    name: name of the recording.
    parse: returns the other attributes of the row, or raises RecordingError.
    *args: arguments of `parse`.
  """
  try:
    return Row(name, **parse(*args))
  except RecordingError as error:
    return Row(name, rejection=quality.reject(error))


def _check_rows(rows: Iterable[tuple[str, Row]]) -> dict[str, list[Row]]:
  """Sorts rows into splits, rejecting what breaks a rule of the whole table."""
  splits = {split: [] for split in SPLITS}
  names, home = set(), {}
  for split, row in rows:
    try:
      if row.name in names:
        raise RecordingError("duplicate", "a row above has the same record")
      if row.rejection is None:
        first = home.setdefault(row.patient_id, split)
        if first != split:
          raise RecordingError(
            "split",
            f"in {split}, but patient {row.patient_id} is in {first}",
          )
    except RecordingError as error:
      row = Row(row.name, rejection=quality.reject(error))
    names.add(row.name)
    splits[split].append(row)
  return splits


def hashed_split(patient_id: str, seed: int) -> str:
  """Returns the split of a patient, whatever other patients there are.

  Of 10 patients about 1 is in validation and 1 in test, by the first 8 bytes of
  sha256("seed:patient").
  """
  content = hashlib.sha256(f"{seed}:{patient_id}".encode()).digest()
  place = int.from_bytes(content[:8], "big") / 2**64
  if place < HELD_OUT:
    return "test"
  return "validation" if place < 2 * HELD_OUT else "train"


def read_row(
  row: Row, exactly: bool
) -> Iterator[tuple[str, Record | Rejection]]:
  """Yields name and recording of a row, or why it is left out.

  Args:
    row: a row of the table.
    exactly: whether the recording has to be 10 s long; the first 10 s of a
      longer one are taken otherwise.
  """
  if row.rejection is not None:
    yield row.name, row.rejection
    return
  try:
    result = _read(row, exactly)
  except RecordingError as error:
    result = quality.reject(error)
  except FileNotFoundError as error:
    result = Rejection("missing_file", str(error))
  except OSError as error:
    result = Rejection("unreadable", str(error))
  if isinstance(result, Rejection):
    # The same words wherever the files are.
    folder = os.fspath(pathlib.Path(row.path).parent) + os.sep
    detail = result.detail.replace(folder, "")
    result = dataclasses.replace(result, detail=detail)
  yield row.name, result


def _read(row: Row, exactly: bool) -> Record:
  ecg = read_ecg(row.path, duration=None if exactly else SECONDS)
  quality.check_duration(ecg)
  quality.check_saturation(ecg)
  ecg = ecg.resample()
  heart_rate = row.heart_rate
  if heart_rate is None:
    heart_rate = detect_heart_rate(ecg.signal, ecg.sampling_rate, "energy")
  quality.check_heart_rate(heart_rate)
  facts = {
    "heart_rate_given": row.heart_rate is not None,
    "heart_rate_detected": row.heart_rate is None,
    "report_missing": not row.statements,
    "age_missing": row.age is None,
    "sex_missing": row.sex is None,
  }
  person = heart_rate, row.age, row.sex
  if row.statements:
    condition = Condition(row.statements, *person)
  else:
    condition = Condition.unreported(*person)
  return Record(
    record_id=row.name,
    patient_id=row.patient_id,
    time=row.time,
    ecg=ecg,
    condition=condition,
    tally=tuple(fact for fact, true in facts.items() if true),
  )
