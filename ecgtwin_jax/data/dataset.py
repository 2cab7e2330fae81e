"""Data sets on disk and in memory: what data_prep writes, checked on reading.

A data set is a directory of ArrayRecord shards with the metadata of
tensorflow-datasets, one record per recording, and beside them card.json (what
the numbers mean), the statement table and quality.jsonl (what was rejected).
It holds ECGs (`ecg`, int16) or latents (`mean` and `std`, float16, unscaled)
with the beats that were found in each ECG.
"""

import dataclasses
import functools
import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from jaxtyping import Float, Float32, Int, Int32

from ecgtwin_jax.constants import MODEL_RATE
from ecgtwin_jax.data.bucket import refuse_remote
from ecgtwin_jax.data.conditions import MAX_STATEMENTS, standardize_patient
from ecgtwin_jax.data.leads import LEADS
from ecgtwin_jax.data.pairs import PairIndex
from ecgtwin_jax.data.whole_files import appear_whole
from ecgtwin_jax.text.statements import StatementTable

FORMAT = 1  # of the directory; raised when older code could not read it
SPLITS = ("train", "validation", "test")
MEMORY_LIMIT = 8 << 30  # bytes of signals or latents held in memory
_CHUNK = 1024  # records read at once
# Where a record keeps a column, and the column's type.
_COLUMNS = {
  "statement_ids": ("int64_list", np.int32),
  "record_id": ("bytes_list", np.str_),
  "patient_id": ("bytes_list", np.str_),
  "time": ("int64_list", np.int64),
  "heart_rate": ("float_list", np.float32),
  "age": ("float_list", np.float32),
  "sex": ("int64_list", np.int8),
}
BEATS = (
  *("beat_time", "beat_kind", "beat_p"),
  *("median_beat", "median_beat_found"),
)
_ARRAYS = {"ecg": ("ecg",), "latent": ("mean", "std", *BEATS)}
_MAKE = {
  "ecg": "python -m data_prep simulated --output {}",
  "latent": "python -m data_prep encode --data ECGS --vae CKPT --output {}",
}


class Mixed(NamedTuple):
  """Of a data set made of several: whose its rows are, and their shares.

  Attributes:
    part: (n,) number of the row's data set.
    names: of the data sets.
    shares: of the batches, which sum to 1.
  """

  part: np.ndarray
  names: tuple[str, ...]
  shares: tuple[float, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """One split of a data set: a row per recording.

  Attributes:
    directory: folder that it was read from.
    split: train, validation or test.
    card: what card.json says.
    table: the statements that `statement_ids` count.
    arrays: `ecg` (n, 1024, 12) int16, times card["scale"] in mV; or `mean` and
      `std` (n, 128, 4) float16, and what `beats.rhythm` finds: `beat_time`
      (n, 48) float32 seconds, `beat_kind` and `beat_p` (n, 48) int8,
      `median_beat` (n, 80, 12) float16 mV and `median_beat_found` (n,) int8;
      older latents are without these. In memory, or memory-mapped where large
      (of several data sets then a `mixture.Stacked`).
    record_id: names of the recordings.
    patient_id: names of the patients.
    time: seconds; only their order within a patient means anything.
    heart_rate: bpm.
    age: years, -1 where missing.
    sex: 0 female, 1 male, -1 missing.
    statement_ids: rows of the table, 18 as read, padded with -1; none of a
      recording without a report.
    mixed: whose the rows are, where several data sets have shares.
    own_references: whether recordings of patients without a pair count as
      pairs of themselves.
  """

  directory: pathlib.Path
  split: str
  card: dict
  table: StatementTable
  arrays: dict[str, Any]
  record_id: np.ndarray
  patient_id: np.ndarray
  time: Int[np.ndarray, " n"]
  heart_rate: Float[np.ndarray, " n"]
  age: Float[np.ndarray, " n"]
  sex: Int[np.ndarray, " n"]
  statement_ids: Int32[np.ndarray, "n s"]
  mixed: Mixed | None = None
  own_references: bool = False

  def __len__(self) -> int:
    return len(self.record_id)

  def record_names(self, rows: Int[np.ndarray, " b"]) -> list[str]:
    """Returns the names of the recordings in those rows."""
    return self.record_id[np.asarray(rows)].tolist()

  @functools.cached_property
  def patient(self) -> Float32[np.ndarray, "n 3"]:
    """Patient vectors; a missing age or sex is NaN."""
    return standardize_patient(self.heart_rate, self.age, self.sex)

  @functools.cached_property
  def patient_number(self) -> Int32[np.ndarray, " n"]:
    """Patients counted from 0, in the order of their names."""
    _, number = np.unique(self.patient_id, return_inverse=True)
    return number.astype(np.int32)

  @functools.cached_property
  def pairs(self) -> PairIndex:
    """The numbered pairs of this split."""
    return PairIndex.from_columns(
      patient_id=self.patient_number,
      time=self.time,
      record_id=self.record_id,
      heart_rate=self.heart_rate,
      statement_ids=self.statement_ids,
      own=self.own_references,
    )

  def without_missing(self) -> tuple["Dataset", int]:
    """The recordings whose age and sex are known, and how many are not."""
    known = np.isfinite(self.patient).all(axis=1)
    if known.all():
      return self, 0
    kept = self.select(known)
    return kept, len(self) - len(kept)

  def with_reports(self) -> tuple["Dataset", int]:
    """The recordings that have a report, and how many have none."""
    reported = (self.statement_ids >= 0).any(axis=1)
    if reported.all():
      return self, 0
    kept = self.select(reported)
    return kept, len(self) - len(kept)

  def select(self, rows: np.ndarray) -> "Dataset":
    """Some of the recordings: a mask, or row numbers."""
    columns = {name: getattr(self, name)[rows] for name in _COLUMNS}
    arrays = {name: array[rows] for name, array in self.arrays.items()}
    mixed = self.mixed and self.mixed._replace(part=self.mixed.part[rows])
    return dataclasses.replace(self, arrays=arrays, mixed=mixed, **columns)

  def require(self, kind: str) -> None:
    """Refuses the data set unless it holds that kind, "ecg" or "latent".

    Raises:
      ValueError: it holds the other kind.
    """
    _require_kind(self.directory, self.card, kind)

  def require_beats(self) -> None:
    """Refuses latents without the beats of their ECGs.

    Raises:
      ValueError: they are older than beats in latents, or it holds ECGs.
    """
    self.require("latent")
    missing = [name for name in BEATS if name not in self.arrays]
    if missing:
      raise ValueError(
        f"{self.directory} holds latents without {', '.join(missing)}: encode"
        f" again with `{_MAKE['latent'].format('DIR')}`"
      )


def _require_kind(directory, card, kind):
  if card["kind"] != kind:
    raise ValueError(
      f"{directory} holds {card['kind']} records, but {kind} records are"
      f" needed: make them with `{_MAKE[kind].format('DIR')}`"
    )


def load_card(directory: str | os.PathLike, kind: str = "ecg") -> dict:
  """Reads what a data set says about itself, and checks that we understand it.

  Args:
    directory: folder of the data set; a bucket's is mounted or copied before.
    kind: the kind the caller hopes for; names the command that makes one.

  Raises:
    ValueError: there is no data set, or its format, unit, leads or sampling
      rate are not ours, or it is in a bucket.
  """
  refuse_remote(directory, "the data set")
  directory = pathlib.Path(directory)
  path = directory / "card.json"
  if not path.exists():
    raise ValueError(
      f"{directory} holds no data set; make one with"
      f" `{_MAKE[kind].format(directory)}`"
    )
  card = json.loads(path.read_text(encoding="utf-8"))
  rules = {
    "format": FORMAT,
    "unit": "mV",
    "leads": list(LEADS),
    "sampling_rate": MODEL_RATE,
  }
  for key, wanted in rules.items():
    if card.get(key) != wanted:
      raise ValueError(f"{path}: {key}={card.get(key)!r} must be {wanted!r}")
  return card


def load_split(
  directory: str | os.PathLike,
  split: str,
  *,
  kind: str | None = None,
  with_arrays: bool = True,
  memory_limit: int = MEMORY_LIMIT,
) -> Dataset:
  """Reads one split of a data set, after checking every shard.

  Signals or latents above the memory limit are copied once into plain arrays
  in the folder `mapped` of the data set and memory-mapped from there.

  Args:
    directory: folder of the data set; a bucket's is mounted or copied before.
    split: train, validation or test.
    kind: "ecg" or "latent" where only that will do.
    with_arrays: False leaves signals or latents out.
    memory_limit: bytes.

  Raises:
    ValueError: the directory, the split or a shard is missing or damaged, or
      the data are of another kind, unit, lead order or sampling rate.
  """
  import tensorflow_datasets as tfds

  directory = pathlib.Path(directory)
  card = load_card(directory, kind or "ecg")
  if kind is not None:
    _require_kind(directory, card, kind)
  builder = tfds.builder_from_directory(directory)
  if split not in builder.info.splits:
    known = ", ".join(builder.info.splits)
    raise ValueError(f"{split=} of {directory} must be one of: {known}")
  info = builder.info.splits[split]
  shards = _check_shards(info)
  features = builder.info.features
  specs = {
    name: (np.dtype(features[name].np_dtype), features[name].shape)
    for name in _ARRAYS[card["kind"]]
    if with_arrays and name in features
  }
  count = sum(info.shard_lengths)
  record_bytes = sum(dtype.itemsize * np.prod(s) for dtype, s in specs.values())
  if count * record_bytes <= memory_limit:
    arrays = {name: np.empty((count, *s), d) for name, (d, s) in specs.items()}
    columns = _read(shards, arrays)
  else:
    arrays, columns = _map(directory / "mapped" / split, shards, specs, count)
  return Dataset(
    directory=directory,
    split=split,
    card=card,
    table=StatementTable.load(directory),
    arrays=arrays,
    **columns,
  )


def _check_shards(info) -> list[tuple[str, int]]:
  """Returns each shard's path and count: one that is missing reads as empty."""
  shards = [
    (os.fspath(path), count)
    for path, count in zip(info.filepaths, info.shard_lengths)
  ]
  for path, count in shards:
    if not os.path.exists(path):
      raise ValueError(f"shard {path} is missing: prepare the data set again")
    found = _count_records(path)
    if found != count:
      raise ValueError(
        f"shard {path} holds {found} records, but must hold {count}: it is"
        " damaged, prepare the data set again"
      )
  return shards


def _count_records(path: str) -> int:
  reader = ArrayRecordReader(path)
  try:
    count = reader.num_records()
    reader.close()  # complains of what num_records took for an empty file
  except RuntimeError:
    return 0
  return count


def _read(
  shards: list[tuple[str, int]], arrays: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Fills the arrays, record by record, and returns the other columns."""
  from tensorflow_datasets.proto import tf_example_pb2

  # tfds' own decoder gives the same, ten times slower.
  columns = {name: [] for name in _COLUMNS}
  row = 0
  for raw in _records(shards):
    features = tf_example_pb2.Example.FromString(raw).features.feature
    for name, array in arrays.items():
      (content,) = features[name].bytes_list.value
      array[row] = np.frombuffer(content, array.dtype).reshape(array.shape[1:])
    for name, (field, _) in _COLUMNS.items():
      value = getattr(features[name], field).value
      columns[name].append(value[:] if name == "statement_ids" else value[0])
    row += 1
  ids = np.array(columns.pop("statement_ids"), np.int32)
  return {
    "statement_ids": ids.reshape(row, MAX_STATEMENTS),
    **{name: _column(name, values) for name, values in columns.items()},
  }


def _column(name, values):
  _, dtype = _COLUMNS[name]
  if dtype is np.str_:
    values = [text.decode() for text in values]
  return np.array(values, dtype)


def _records(shards):
  for path, count in shards:
    reader = ArrayRecordReader(path)
    try:
      for start in range(0, count, _CHUNK):
        yield from reader.read(start, min(start + _CHUNK, count))
    except RuntimeError as error:
      raise ValueError(
        f"shard {path} is damaged, prepare the data set again: {error}"
      ) from None
    finally:
      reader.close()


def _map(folder, shards, specs, count):
  """Opens the plain copies of a split, made here where there are none yet."""
  if not folder.exists():
    folder.parent.mkdir(exist_ok=True)
    try:
      with appear_whole(folder) as draft:
        draft.mkdir()
        arrays = {
          name: np.lib.format.open_memmap(
            draft / f"{name}.npy", "w+", dtype, (count, *shape)
          )
          for name, (dtype, shape) in specs.items()
        }
        columns = _read(shards, arrays)
        for array in arrays.values():
          array.flush()
        np.savez(draft / "columns.npz", **columns)
    except OSError:
      if not folder.exists():  # else another process was faster
        raise
  with np.load(folder / "columns.npz") as file:
    columns = dict(file)
  arrays = {
    name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in specs
  }
  return arrays, columns
