"""A file of requests: a CSV row per recording and condition to generate.

The ECGs of the rows whose folder is not there stand in one line, in the file's
order, which is cut into batches of one size; several rows share a batch, and
all devices share its ECGs. A row depends on its own cells alone, and its folder
appears when it is whole: a second run makes what is missing.
"""

import csv
import dataclasses
import difflib
import functools
import hashlib
import itertools
import json
import math
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from ecgtwin_jax import sharding
from ecgtwin_jax.beats.criteria_checks import find_mismatches
from ecgtwin_jax.beats.notation import read_beats, write_beats
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import ECG, MODEL_RATE, read_ecg
from ecgtwin_jax.data.whole_files import appear_whole, hold, sha256_of
from ecgtwin_jax.inference.results import describe_origin
from ecgtwin_jax.inference.twin import load_twin
from ecgtwin_jax.jobs.inputs import (
  fill_condition,
  plain_number,
  split_statements,
)
from ecgtwin_jax.jobs.outputs import suffix_of, versions, write_ecgs

FAILED = "failed.csv"
SUMMARY = "requests.json"
ROW = "row.json"
_SHOWN = 5  # reasons printed at the end; all are in FAILED
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
  "beats",
)
MAX_SAMPLES = 10_000  # of a row, which is held in memory until it is whole


@dataclasses.dataclass(frozen=True)
class Request:
  """One row: whose ECG, what it shows, what to generate, how many.

  Attributes:
    number: number of the row, from 1 on; the line of column names is not
      counted.
    line: line of the file, from 1 on.
    record: path of the reference.
    start: seconds to skip in it.
    now: statements (text), heart_rate, age and sex of the reference; None: not
      given.
    target: statements, heart_rate, age and sex of the ECGs to generate.
    n: how many ECGs.
    seed: what they are drawn from.
    beats: when the beats of each of them fall, as text; None: drawn.
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
  beats: str | None
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
    n: number of ECGs of rows that do not say how many.
    seed: seed of rows that do not give one.

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
    beats=_beats(cells.get("beats")),
    cells=cells,
  )


def _beats(text):
  if not text:
    return None
  read_beats(text)  # is refused here where it is none of beats
  return text


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
    value = plain_number(text)
  except ValueError:
    value = math.nan
  if not math.isfinite(value):
    raise ValueError(f"{name}={text[:60]!r} must be a number")
  return value


def _whole(cells, name, default, low, high):
  text = cells.get(name, "")
  if not text:
    return default
  digits = text.isascii() and text.isdecimal() and len(text) < 20
  value = int(text) if digits else -1
  if not low <= value <= high:
    raise ValueError(
      f"{name}={text[:60]!r} must be a whole number in {low}..{high}"
    )
  return value


# One record often stands in several rows.
_read = functools.lru_cache(maxsize=32)(read_ecg)


class Summary(NamedTuple):
  """What came of a file of requests.

  Attributes:
    rows: number of rows of the file.
    done: number of rows whose ECGs are there.
    failures: the other rows, with reasons.
    warnings: {number of a row that is done: what is odd about it}; rows of
      which nothing is odd are left out.
  """

  rows: int
  done: int
  failures: list[Failure]
  warnings: dict[int, list[str]]


@dataclasses.dataclass
class _OpenRequest:
  """A request whose record was read, and what was generated for it so far.

  Attributes:
    request: the row of the file.
    reference: the record; its base vector takes its place in `base`.
    now: what the record shows.
    target: what to generate.
    remarks: warnings about both conditions.
    signals: the ECGs generated so far.
    residuals: how far their limb leads are from adding up, in mV.
    beats: the beats that they were generated with, as text; empty of a twin
      that is told of none.
  """

  request: Request
  reference: ECG
  now: Condition
  target: Condition
  remarks: list[str]
  base: np.ndarray | None = None
  signals: list[np.ndarray] = dataclasses.field(default_factory=list)
  residuals: list[float] = dataclasses.field(default_factory=list)
  beats: list[str] = dataclasses.field(default_factory=list)


class _Run:
  """One run over a file of requests."""

  def __init__(self, config):
    suffix_of(config.format)
    self.config = config
    self.batch = dict(batch_size=config.batch_size, mesh=sharding.make_mesh())
    sharding.check_batch_size(config.batch_size, 1, self.batch["mesh"])
    self.folder = pathlib.Path(config.workdir)
    self.requests, self.failures = read_requests(
      config.requests, config.num_samples, config.seed
    )
    self.twin = load_twin(config.twin, config.encoder)
    self.settings = self.twin.settings(**config.sampling)
    self.settings.plan(self.twin.hyper["denoiser"])
    self.warnings = {}
    self.progress = tqdm(disable=True)

  def run(self) -> Summary:
    self.folder.mkdir(parents=True, exist_ok=True)
    for draft in self.folder.glob(".row_*"):
      shutil.rmtree(draft)  # of a run that was killed
    rows = len(self.requests) + len(self.failures)
    missing = [not self._is_there(request) for request in self.requests]
    opened = self._open_requests(missing)
    total = sum(r.n for r, lacks in zip(self.requests, missing) if lacks)
    # Each ECG has its place in a batch, whatever was there before: with the
    # place its last bits change.
    ends = itertools.accumulate(request.n for request in self.requests)
    starts = {r.number: end - r.n for r, end in zip(self.requests, ends)}
    line = (
      (starts[each.request.number] + i, each, i)
      for each in opened
      for i in range(each.request.n)
    )
    size = self.config.batch_size
    with tqdm(total=total, unit=" ECG") as self.progress:
      for _, batch in itertools.groupby(line, lambda row: row[0] // size):
        batch = [(at % size, each, i) for at, each, i in batch]
        self._generate(batch)
        self.progress.update(len(batch))
    self.failures.sort(key=lambda failure: failure.number)
    failed = {failure.number for failure in self.failures}
    odd = {
      number: texts
      for number, texts in sorted(self.warnings.items())
      if texts and number not in failed
    }
    summary = Summary(rows, rows - len(failed), self.failures, odd)
    self._report(summary)
    return summary

  def _open_requests(self, missing: list[bool]) -> Iterator[_OpenRequest]:
    """Reads what requests name and extracts base vectors, a batch at a time."""
    size = self.config.batch_size
    for first in range(0, len(self.requests), size):
      block = zip(self.requests[first : first + size], missing[first:])
      block = [self._open(r) if lacks else None for r, lacks in block]
      opened = [each for each in block if each is not None]
      if opened:
        filled = [each or opened[0] for each in block]
        bases = self.twin.extract_bases(
          [p.reference for p in filled], [p.now for p in filled], **self.batch
        )
        for each, base in zip(block, bases, strict=True):
          if each is not None:
            each.base = base
      yield from opened

  def _open(self, request: Request) -> _OpenRequest | None:
    """Reads what a request names; None where that fails."""
    try:
      reference = _read(request.record, request.start)
      now = fill_condition(reference, **request.now, name="now_{}")
      age, sex = request.target["age"], request.target["sex"]
      target = Condition(
        split_statements(request.target["statements"]),
        request.target["heart_rate"],
        now.age if age is None else age,
        now.sex if sex is None else sex,
      )
      self.twin.arrays(now, "base_extractor")
      self.twin.arrays(target, "denoiser")
      self.twin.check_beats(request.beats)
    except (ValueError, OSError) as error:
      self._fail(request, error)
      self.progress.total -= request.n
      return None
    remarks = [
      *self.twin.remarks(now),
      *(f"what the record shows: {x}" for x in find_mismatches(reference, now)),
      *self.twin.remarks(target, target=True),
    ]
    remarks = list(dict.fromkeys(remarks))
    self.warnings[request.number] = remarks
    target = self.twin.state_rhythm(target)
    return _OpenRequest(request, reference.resample(), now, target, remarks)

  def _generate(self, batch: list[tuple[int, _OpenRequest, int]]) -> None:
    """Generates a batch by places, and writes the rows that are whole by it."""
    filled = [batch[0][1:]] * self.config.batch_size
    for at, opened, i in batch:
      filled[at] = opened, i
    rows = self.twin.generate_rows(
      [opened.base for opened, _ in filled],
      [opened.target for opened, _ in filled],
      [opened.request.seed for opened, _ in filled],
      [i for _, i in filled],
      self.settings,
      beats=[opened.request.beats for opened, _ in filled],
      **self.batch,
    )
    for k, opened, _ in batch:
      opened.signals.append(rows.signals[k])
      opened.residuals.append(float(rows.residuals[k]))
      if rows.beats is not None:
        opened.beats.append(write_beats(rows.beats[k]))
      if len(opened.signals) == opened.request.n:
        try:
          self._write(opened)
        except (ValueError, OSError) as error:
          self._fail(opened.request, error)
        opened.signals = []

  def _write(self, opened: _OpenRequest) -> None:
    """Writes a whole row, so that its folder is there whole or not at all."""
    request = opened.request
    facts = {"twin": self.twin.digest, "seed": request.seed}
    facts |= dataclasses.asdict(self.settings)
    lines = describe_origin(opened.target, facts)
    lines += (f"reference: {opened.reference.record} from {request.start:g} s",)
    name = f"row{request.number:05d}"
    ecgs = []
    for i, signal in enumerate(opened.signals):
      comments = [f"sample: {i}"]
      if opened.beats:
        comments.append(f"beats: {opened.beats[i]}")
      ecgs.append(ECG(signal, MODEL_RATE, f"{name}_{i}", (*lines, *comments)))
    record = {
      "synthetic": True,
      "key": self._key(request),
      "request": request.cells,
      "now": opened.now.as_json(),
      "target": opened.target.as_json(),
      "n": request.n,
      **facts,
      "warnings": opened.remarks,
      "lead_residual_mv": np.round(opened.residuals, 4).tolist(),
      "beats": opened.beats or None,
    }
    place = self._place(request)
    with appear_whole(place) as draft:
      names = write_ecgs(draft, ecgs, self.config.format)
      record["files"] = {name: sha256_of(draft / name) for name in names}
      record["versions"] = versions()
      (draft / ROW).write_text(json.dumps(record, indent=1))
      shutil.rmtree(place, ignore_errors=True)

  def _is_there(self, request: Request) -> bool:
    """True where this very request was written and its files are as they were.

    A row of an earlier version, which has no hashes, is made again.
    """
    place = self._place(request)
    try:
      record = json.loads((place / ROW).read_text())
      same = record["key"] == self._key(request) and all(
        sha256_of(place / name) == digest
        for name, digest in record["files"].items()
      )
      remarks = list(record["warnings"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
      return False
    self.warnings[request.number] = remarks
    return same

  def _key(self, request: Request) -> str:
    """Identifies a request and all that its result depends on."""
    parts = {
      **dataclasses.asdict(request),
      "record": request.cells["record"],
      "sampling": dataclasses.asdict(self.settings),
      "format": self.config.format,
      "twin": self.twin.digest,
    }
    parts.pop("line")
    if request.beats is None:  # a row of a file without beats, as ever
      parts.pop("beats")
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

  def _place(self, request: Request) -> pathlib.Path:
    return self.folder / f"row_{request.number:05d}"

  def _fail(self, request: Request, error: Exception) -> None:
    reason = " ".join(str(error).split())
    self.failures.append(
      Failure(request.number, request.line, request.cells["record"], reason)
    )

  def _report(self, summary: Summary) -> None:
    with (self.folder / FAILED).open("w", newline="", encoding="utf-8") as file:
      table = csv.writer(file)
      table.writerow(["row", "line", "record", "reason"])
      for failure in summary.failures:
        table.writerow(map(as_cell, dataclasses.astuple(failure)))
    record = {
      "synthetic": True,
      "requests": str(self.config.requests),
      "rows": summary.rows,
      "done": summary.done,
      "failed": len(summary.failures),
      "warned": len(summary.warnings),
      "twin": self.twin.digest,
      **dataclasses.asdict(self.settings),
      "versions": versions(),
    }
    (self.folder / SUMMARY).write_text(json.dumps(record, indent=1))
    print(
      f"{summary.done} of {summary.rows} rows are done in {self.folder}, "
      f"{len(summary.failures)} failed, {len(summary.warnings)} have warnings"
    )
    for failure in summary.failures[:_SHOWN]:
      print(f"  row {failure.number}, line {failure.line}: {failure.reason}")
    if summary.failures:
      print(f"reasons of all: {self.folder / FAILED}")
    self._report_warnings(summary)

  def _report_warnings(self, summary: Summary) -> None:
    """Prints each warning once, with the rows that it is of."""
    rows = {}
    for number, texts in summary.warnings.items():
      for text in texts:
        rows.setdefault(text, []).append(number)
    for text in sorted(rows, key=lambda text: -len(rows[text]))[:_SHOWN]:
      first = ", ".join(map(str, rows[text][:_SHOWN]))
      more = ", ..." * (len(rows[text]) > _SHOWN)
      print(f"  warning of {len(rows[text])} rows ({first}{more}): {text}")
    if rows:
      print(f"warnings of a row: its {ROW} in {self.folder}", flush=True)


def as_cell(value: int | str) -> int | str:
  """A cell that a spreadsheet shows and does not compute."""
  if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
    return f"'{value}"
  return value


def run(config: ConfigDict) -> Summary:
  """Does configs/generate.py for a file of requests.

  Raises:
    FileNotFoundError: no such file.
    ValueError: the file cannot be used as a whole, a value of the configuration
      is out of range, there are several processes, or another run writes into
      the workdir.
  """
  if jax.process_count() > 1:
    raise ValueError(
      f"process_count={jax.process_count()} must be 1 for a file of requests: "
      "give each process a file of its own, without --multihost"
    )
  run = _Run(config)
  with hold(config.workdir):
    return run.run()
