"""Shards of a data set as jobs: each is written whole or not at all."""

import collections
import concurrent.futures
import ctypes
import functools
import json
import multiprocessing
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tqdm import tqdm

from data_prep.records import Rejection, features
from ecgtwin_jax.data.wfdb_record import first_line
from ecgtwin_jax.data.whole_files import appear_whole

# Yields (name of the recording, its example or why there is none).
Shard = Callable[[], Iterator[tuple[str, dict | Rejection]]]
Shards = Mapping[str, Sequence[Shard]]


class Job:
  """One shard: what yields it, where it goes, and the mark that it is done."""

  def __init__(
    self,
    split: str,
    shard: Any,
    kind: str,
    path: str | os.PathLike,
    summary: str | os.PathLike,
    latent_channels: int = 4,
  ):
    self.split = split
    self.shard = shard
    self.form = kind, latent_channels
    self.path = path
    self.summary = summary

  def __call__(self, advance: Callable[[int], object] | None = None) -> int:
    """Writes the shard, reports progress, returns how many were read."""
    sizes, rejected, patients = [], [], set()
    tally = collections.Counter()
    with appear_whole(self.path) as draft:
      writer = _on_disk(ArrayRecordWriter, os.fspath(draft), "group_size:1")
      try:
        for record, example in self.shard():
          if advance is not None:
            advance(1)
          if isinstance(example, Rejection):
            rejected.append({"record": record, **vars(example)})
            continue
          tally.update(example.pop("tally", ()))
          raw = _serialize(self.form, example)
          _on_disk(writer.write, raw)
          sizes.append(len(raw))
          patients.add(example["patient_id"])
      finally:
        _on_disk(writer.close)
    summary = {
      "written": len(sizes),
      "bytes": sum(sizes),
      "rejected": rejected,
      "patients": sorted(patients),
      "tally": tally,
    }
    write_json(self.summary, summary)
    return len(sizes) + len(rejected)


def _on_disk(action, *arguments):
  """array_record raises RuntimeError for what the system does not let it do."""
  try:
    return action(*arguments)
  except RuntimeError as error:
    raise OSError(first_line(error)) from None


@functools.cache
def _serializer(form: tuple[str, int]):
  form = features(*form)
  return form, tfds.core.ExampleSerializer(form.get_serialized_info())


def _serialize(form: tuple[str, int], example: dict) -> bytes:
  form, serializer = _serializer(form)
  message = serializer.get_tf_example(form.encode_example(example))
  return message.SerializeToString(deterministic=True)


def make_jobs(
  shards: Shards,
  name: str,
  kind: str,
  data: pathlib.Path,
  done: pathlib.Path,
  latent_channels: int = 4,
) -> list[Job]:
  """Returns a job per shard, which writes into data and marks it in done."""
  jobs = []
  for split, parts in shards.items():
    for i, shard in enumerate(parts):
      file = f"{name}-{split}.array_record-{i:05d}-of-{len(parts):05d}"
      mark = done / f"{file}.json"
      job = Job(split, shard, kind, data / file, mark, latent_channels)
      jobs.append(job)
  return jobs


def run(
  jobs: list[Job],
  *,
  workers: int,
  beam_options: str | None,
  total: int,
  name: str,
) -> None:
  """Writes the shards that are not there yet.

  Args:
    jobs: all shards.
    workers: processes.
    beam_options: options of an Apache Beam pipeline in their place, or None.
    total: recordings of all shards, for the progress bar.
    name: name of the progress bar.
  """
  with tqdm(total=total, desc=name, unit="ECG", smoothing=0) as bar:
    todo = []
    for job in jobs:
      if job.summary.exists() and job.path.exists():
        summary = json.loads(job.summary.read_text())
        bar.update(summary["written"] + len(summary["rejected"]))
      else:
        todo.append(job)
    if beam_options is not None:
      from data_prep import beam

      beam.run(todo, beam_options)
      return
    workers = min(workers, len(todo))
    if workers <= 1:
      for job in todo:
        job(bar.update)
      return
    # A fresh interpreter for each worker: a fork would copy locked threads.
    with concurrent.futures.ProcessPoolExecutor(
      workers, multiprocessing.get_context("spawn"), die_with_parent
    ) as pool:
      running = [pool.submit(job) for job in todo]
      try:
        for finished in concurrent.futures.as_completed(running):
          bar.update(finished.result())
      except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def die_with_parent() -> None:
  """Ends this worker when its parent is killed: it would wait for ever."""
  if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if not multiprocessing.parent_process().is_alive():
      os._exit(1)  # killed while this worker was starting


def write_json(path: pathlib.Path, content: dict) -> None:
  """Writes a JSON file whole or not at all."""
  text = json.dumps(content, indent=1, ensure_ascii=False)
  with appear_whole(path) as draft:
    draft.write_text(text + "\n", encoding="utf-8")
