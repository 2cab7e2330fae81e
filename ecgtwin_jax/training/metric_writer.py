"""Where a training's numbers go: metrics.jsonl, TensorBoard, progress bar."""

import os
import pathlib
import sys
import time
from typing import Any

import jax
from tqdm import tqdm

from ecgtwin_jax.training.json_lines import (
  open_lines,
  read_lines,
  write_line,
)


def say(text: str, file: Any = None) -> None:
  """Prints from process 0 of several alone, past a progress bar."""
  if jax.process_index() == 0:
    file = sys.stdout if file is None else file
    tqdm.write(text, file=file)
    file.flush()


_BOARD_SECONDS = 30.0  # at least so long between writes to TensorBoard's file


class MetricsWriter:
  """Writes scalars of a run; only process 0 of several writes.

  metrics.jsonl is the record: one line per step and interval. After a resume a
  step may stand twice; the last line counts (read_metrics does that).
  """

  def __init__(
    self, workdir: str | os.PathLike, steps: int, start: int, title: str
  ):
    self._active = jax.process_index() == 0
    if not self._active:
      return
    # Not tensorboardX.SummaryWriter: once its thread meets a full disk, the
    # training waits for it forever.
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto import event_pb2, summary_pb2

    self._event, self._summary = event_pb2.Event, summary_pb2.Summary
    board = pathlib.Path(workdir) / "tensorboard"
    board.mkdir(parents=True, exist_ok=True)
    self._board = EventsWriter(str(board / "events"), f".{time.time_ns()}")
    # TensorBoard forgets what an interrupted run wrote beyond `start`.
    session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._record(start + 1, session_log=session)
    self._flushed = time.monotonic()
    self._file = open_lines(pathlib.Path(workdir) / "metrics.jsonl")
    self._bar = tqdm(
      total=steps, initial=start, desc=title, unit="step", dynamic_ncols=True
    )

  def _record(self, step, **content) -> None:
    event = self._event(step=step, wall_time=time.time(), **content)
    self._board.write_event(event)

  def advance(self) -> None:
    if self._active:
      self._bar.update()

  def write(self, step: int, scalars: dict) -> None:
    """Appends one line of scalars, names with `/` for TensorBoard's groups."""
    if not self._active:
      return
    scalars = {name: float(value) for name, value in scalars.items()}
    line = {"step": step, "time": round(time.time(), 3), **scalars}
    write_line(self._file, line)
    values = [
      self._summary.Value(tag=name, simple_value=value)
      for name, value in scalars.items()
    ]
    self._record(step, summary=self._summary(value=values))

  def flush(self) -> None:
    """Brings to disk what was written."""
    if self._active:
      self._file.flush()
      # Each time an fsync, which is an upload where a bucket is mounted.
      if time.monotonic() - self._flushed > _BOARD_SECONDS:
        self._board.flush()
        self._flushed = time.monotonic()

  def show(self, **values: Any) -> None:
    """Puts values beside the progress bar."""
    if self._active:
      self._bar.set_postfix({k: f"{v:.4g}" for k, v in values.items()})

  def close(self) -> None:
    if self._active:
      self._bar.close()
      self._file.close()
      self._board.close()


def read_metrics(workdir: str | os.PathLike) -> dict[int, dict]:
  """Reads metrics.jsonl as {step: scalars}; a repeated step's last line wins.

  Lines of one step with different names are merged; a torn line, as a kill can
  leave, is dropped.
  """
  merged = {}
  for scalars in read_lines(pathlib.Path(workdir) / "metrics.jsonl"):
    step = scalars.pop("step")
    merged.setdefault(step, {}).update(scalars)
  return merged
