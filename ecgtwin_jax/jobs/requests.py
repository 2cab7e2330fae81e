"""Generates what a file of requests asks for, in full batches, resumable.

The ECGs of all rows stand in one line, in the file's order, which is cut into
batches of one size; several rows share a batch, and all devices share its ECGs.
A row's folder appears when it is whole. A second run skips the batches whose
rows are all there and puts the others together as the first did, so it writes
the same files.
"""

import csv
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from ecgtwin_jax import sharding
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import ECG, MODEL_RATE, read_ecg
from ecgtwin_jax.inference.results import describe_origin
from ecgtwin_jax.inference.sampling import Settings
from ecgtwin_jax.inference.twin import load_twin
from ecgtwin_jax.jobs import files as files_module
from ecgtwin_jax.jobs.request_file import Failure, Request, read_requests

FAILED = "failed.csv"
SUMMARY = "requests.json"
_SHOWN = 5  # reasons printed at the end; all are in FAILED

# One person's record often stands in several rows.
_read = functools.lru_cache(maxsize=32)(read_ecg)


class Outcome(NamedTuple):
  """What came of a file of requests.

  Attributes:
    rows: number of rows of the file.
    done: number of rows whose ECGs are there.
    failures: the other rows, with reasons.
  """

  rows: int
  done: int
  failures: list[Failure]


@dataclasses.dataclass
class Row:
  """A request on its way.

  Attributes:
    request: the row of the file.
    key: identifies the request and all that its result depends on.
    done: whether its result is there from an earlier run.
    reference: the record; its base vector takes its place in `base`.
    now: what the record shows.
    target: what to generate.
    notes: warnings about the conditions.
    signals: made so far.
    residuals: of their limb leads.
  """

  request: Request
  key: str
  done: bool
  reference: ECG | None = None
  now: Condition | None = None
  target: Condition | None = None
  base: np.ndarray | None = None
  notes: list[str] = dataclasses.field(default_factory=list)
  signals: list[np.ndarray] = dataclasses.field(default_factory=list)
  residuals: list[float] = dataclasses.field(default_factory=list)


class _Job:
  """One run over a file of requests."""

  def __init__(self, config):
    self.config = config
    self.settings = Settings(**config.sampling)
    self.suffix = files_module.suffix_of(config.format)
    self.mesh = sharding.make_mesh()
    self.size = config.batch_size
    sharding.check_batch_size(self.size, 1, self.mesh)
    self.folder = pathlib.Path(config.workdir)
    self.requests, self.failures = read_requests(
      config.requests, config.num_samples, config.seed
    )
    self.twin = load_twin(config.twin, config.encoder)
    self.settings.plan(self.twin.hyper["denoiser"])
    self.folder.mkdir(parents=True, exist_ok=True)
    self.progress = tqdm(disable=True)

  def run(self) -> Outcome:
    rows = len(self.requests) + len(self.failures)
    total = sum(request.n for request in self.requests)
    slots = ((row, i) for row in self._rows() for i in range(row.request.n))
    with tqdm(total=total, unit=" ECG") as self.progress:
      while batch := list(itertools.islice(slots, self.size)):
        self._make(batch)
        self.progress.update(len(batch))
    self.failures.sort(key=lambda failure: failure.number)
    outcome = Outcome(rows, rows - len(self.failures), self.failures)
    self._report(outcome)
    return outcome

  def _rows(self) -> Iterator[Row]:
    """The rows in order, read and with base vectors, in groups of a batch.

    A row's place in its group follows from its number alone.
    """
    for _, group in itertools.groupby(
      self.requests, lambda request: (request.number - 1) // self.size
    ):
      rows = [self._open(request) for request in group]
      rows = [row for row in rows if row is not None]
      todo = [row for row in rows if not row.done]
      if todo:
        places = [todo[0]] * self.size
        for row in todo:
          places[(row.request.number - 1) % self.size] = row
        bases = self.twin.extract_bases(
          [row.reference for row in places],
          [row.now for row in places],
          batch_size=self.size,
          mesh=self.mesh,
        )
        for row in todo:
          row.base = bases[(row.request.number - 1) % self.size]
      yield from rows

  def _open(self, request: Request) -> Row | None:
    """Reads what a request names; None where that fails."""
    row = Row(request, self._key(request), False)
    if _is_done(self._place(request), row.key):
      return dataclasses.replace(row, done=True)
    try:
      reference = _read(request.record, request.start)
      row.reference = reference.resample()
      row.now = files_module.fill_condition(
        reference, **request.now, name="now_{}"
      )
      age, sex = request.target["age"], request.target["sex"]
      row.target = Condition(
        files_module.split_statements(request.target["statements"]),
        request.target["heart_rate"],
        row.now.age if age is None else age,
        row.now.sex if sex is None else sex,
      )
      self.twin.arrays(row.now, "base_extractor")
      self.twin.arrays(row.target, "denoiser")
      row.notes = self.twin.remarks(row.now) + self.twin.remarks(row.target)
    except (ValueError, OSError) as error:
      self._fail(request, error)
      self.progress.total -= request.n
      return None
    return row

  def _make(self, batch: list[tuple[Row, int]]) -> None:
    """Generates a batch; places of rows that are done are filled with others'.

    What stands in a place does not change what comes out of the others.
    """
    filler = next((slot for slot in batch if not slot[0].done), None)
    if filler is None:
      return
    places = [filler if row.done else (row, i) for row, i in batch]
    places += [filler] * (self.size - len(batch))
    rows = self.twin.generate_rows(
      [row.base for row, _ in places],
      [row.target for row, _ in places],
      [row.request.seed for row, _ in places],
      [i for _, i in places],
      self.settings,
      batch_size=self.size,
      mesh=self.mesh,
    )
    for (row, _), signal, residual in zip(batch, rows.signals, rows.residuals):
      if row.done:
        continue
      row.signals.append(signal)
      row.residuals.append(float(residual))
      if len(row.signals) == row.request.n:
        try:
          self._write(row)
        except (ValueError, OSError) as error:
          self._fail(row.request, error)
        row.signals, row.residuals = [], []

  def _write(self, row: Row) -> None:
    """Writes a whole row, so that its folder is there whole or not at all."""
    request, place = row.request, self._place(row.request)
    facts = {"twin": self.twin.digest, "seed": request.seed}
    facts |= dataclasses.asdict(self.settings)
    lines = describe_origin(row.target, facts)
    lines += (f"reference: {row.reference.record} from {request.start:g} s",)
    ecgs = [
      ECG(
        signal,
        MODEL_RATE,
        f"row{request.number:05d}_{i}",
        (*lines, f"sample: {i}"),
      )
      for i, signal in enumerate(row.signals)
    ]
    partial = place.with_name(f".{place.name}")
    shutil.rmtree(partial, ignore_errors=True)
    files = files_module.write_ecgs(partial, ecgs, self.config.format)
    record = {
      "key": row.key,
      "request": request.cells,
      "now": files_module.as_json(row.now),
      "target": files_module.as_json(row.target),
      "n": request.n,
      **facts,
      "warnings": row.notes,
      "lead_residual_mv": np.round(row.residuals, 4).tolist(),
      "files": files,
      "versions": files_module.versions(),
    }
    (partial / "row.json").write_text(json.dumps(record, indent=1))
    shutil.rmtree(place, ignore_errors=True)
    os.replace(partial, place)

  def _key(self, request: Request) -> str:
    parts = {
      **dataclasses.asdict(request),
      "record": request.cells["record"],
      "sampling": dataclasses.asdict(self.settings),
      "format": self.config.format,
      "twin": self.twin.digest,
    }
    parts.pop("line")
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

  def _place(self, request: Request) -> pathlib.Path:
    return self.folder / f"row_{request.number:05d}"

  def _fail(self, request: Request, error: Exception) -> None:
    reason = " ".join(str(error).split())
    self.failures.append(
      Failure(request.number, request.line, request.cells["record"], reason)
    )

  def _report(self, outcome: Outcome) -> None:
    with (self.folder / FAILED).open("w", newline="", encoding="utf-8") as file:
      table = csv.writer(file)
      table.writerow(["row", "line", "record", "reason"])
      table.writerows(map(dataclasses.astuple, outcome.failures))
    summary = {
      "requests": str(self.config.requests),
      "rows": outcome.rows,
      "done": outcome.done,
      "failed": len(outcome.failures),
      "twin": self.twin.digest,
      **dataclasses.asdict(self.settings),
      "versions": files_module.versions(),
    }
    (self.folder / SUMMARY).write_text(json.dumps(summary, indent=1))
    print(
      f"{outcome.done} of {outcome.rows} rows are done in {self.folder}, "
      f"{len(outcome.failures)} failed"
    )
    for failure in outcome.failures[:_SHOWN]:
      print(f"  row {failure.number}, line {failure.line}: {failure.reason}")
    if outcome.failures:
      print(f"reasons of all: {self.folder / FAILED}", flush=True)


def _is_done(place: pathlib.Path, key: str) -> bool:
  """True where this very request was written, and nothing of it is missing."""
  try:
    record = json.loads((place / "row.json").read_text())
    files = record["files"] if record["key"] == key else None
  except (OSError, ValueError, KeyError, TypeError):
    return False
  return files is not None and all((place / name).exists() for name in files)


def run(config) -> Outcome:
  """Does configs/generate.py for a file of requests.

  Raises:
    FileNotFoundError: no such file.
    ValueError: the file cannot be used as a whole, a value of the configuration
      is out of range, or there are several processes.
  """
  if jax.process_count() > 1:
    raise ValueError(
      f"process_count={jax.process_count()} must be 1 for a file of requests: "
      "give each process a file of its own, without --multihost"
    )
  return _Job(config).run()
