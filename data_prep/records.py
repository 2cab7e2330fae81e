"""A recording on its way into a data set: features, or why it is left out."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import tensorflow_datasets as tfds
import threadpoolctl

from ecgtwin_jax.beats.rhythm import MAX_BEATS
from ecgtwin_jax.constants import LATENT_LENGTH, MEDIAN_SAMPLES, MODEL_SAMPLES
from ecgtwin_jax.data.conditions import MAX_STATEMENTS, SEXES, Condition
from ecgtwin_jax.data.ecg import ECG
from ecgtwin_jax.data.leads import LEADS

SCALE = 0.001  # mV: an ECG is stored as int16 multiples of this


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
  """A recording as its source tells it.

  Attributes:
    record_id: its name, unique in the data set.
    patient_id: the patient's name.
    time: time in seconds; only the order within a patient means anything.
    ecg: 10 s at any sampling rate.
    condition: what the recording shows, and of whom.
    tally: facts that card.json counts, such as how the heart rate was found.
  """

  record_id: str
  patient_id: str
  time: int
  ecg: ECG
  condition: Condition
  tally: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Rejection:
  """Why a recording is left out: a rule's name, and what broke it."""

  rule: str
  detail: str


@functools.cache
def features(kind: str, latent_channels: int = 4) -> tfds.features.FeaturesDict:
  """Returns the columns of a data set of that kind, "ecg" or "latent".

  Args:
    kind: "ecg" or "latent".
    latent_channels: number of channels of latents.
  """
  tensor = functools.partial(
    tfds.features.Tensor, encoding=tfds.features.Encoding.BYTES
  )
  if kind == "ecg":
    arrays = {"ecg": tensor(shape=(MODEL_SAMPLES, len(LEADS)), dtype=np.int16)}
  else:
    shape = (LATENT_LENGTH, latent_channels)
    latent = tensor(shape=shape, dtype=np.float16)
    median = (MEDIAN_SAMPLES, len(LEADS))
    arrays = {
      "mean": latent,
      "std": latent,
      "beat_time": tensor(shape=(MAX_BEATS,), dtype=np.float32),
      "beat_kind": tensor(shape=(MAX_BEATS,), dtype=np.int8),
      "beat_p": tensor(shape=(MAX_BEATS,), dtype=np.int8),
      "median_beat": tensor(shape=median, dtype=np.float16),
      "median_beat_found": tensor(shape=(), dtype=np.int8),
    }
  return tfds.features.FeaturesDict(
    {
      **arrays,
      "record_id": tfds.features.Text(),
      "patient_id": tfds.features.Text(),
      "time": tfds.features.Scalar(np.int64),
      "heart_rate": tfds.features.Scalar(np.float32),
      "age": tfds.features.Scalar(np.float32),  # -1: missing
      "sex": tfds.features.Scalar(np.int8),  # 0 F, 1 M, -1 missing
      "statement_ids": tfds.features.Tensor(
        shape=(MAX_STATEMENTS,), dtype=np.int32
      ),  # padded with -1
    }
  )


def make_example(record: Record, ids: dict[str, int]) -> dict | Rejection:
  """Returns the features of a recording, resampled to 1024 samples.

  Beside them its `tally`, which is counted and not stored.

  Args:
    record: the recording.
    ids: number of every statement that may occur.
  """
  signal = np.rint(record.ecg.resample(MODEL_SAMPLES).signal / SCALE)
  limits = np.iinfo(np.int16)
  if not (limits.min <= signal.min() and signal.max() <= limits.max):
    most = np.abs(signal).max() * SCALE
    return Rejection(
      "amplitude", f"{most:.4g} mV is above {limits.max * SCALE} mV"
    )
  condition = record.condition
  statement_ids = np.full(MAX_STATEMENTS, -1, np.int32)
  numbers = [ids[statement] for statement in condition.statements]
  statement_ids[: len(numbers)] = numbers
  return {
    "ecg": signal.astype(np.int16),
    "record_id": record.record_id,
    "patient_id": record.patient_id,
    "time": record.time,
    "heart_rate": condition.heart_rate,
    "age": -1.0 if condition.age is None else condition.age,
    "sex": -1 if condition.sex is None else SEXES.index(condition.sex),
    "statement_ids": statement_ids,
    "tally": record.tally,
  }


def examples(
  read: Callable[..., Iterable[tuple[str, Record | Rejection]]],
  keys: Sequence,
  statements: Sequence[str],
) -> Iterator[tuple[str, dict | Rejection]]:
  """Yields the named examples and rejections of a shard's keys.

  Args:
    read: yields the named recordings, or rejections, of one key.
    keys: keys of the shard's records.
    statements: all that may occur, in the order of the table.
  """
  ids = {statement: number for number, statement in enumerate(statements)}
  # Threads of BLAS would fight those of other workers, and the last digit of a
  # product depends on their number.
  with threadpoolctl.threadpool_limits(1):
    for key in keys:
      for name, result in read(key):
        if isinstance(result, Record):
          result = make_example(result, ids)
        yield name, result
