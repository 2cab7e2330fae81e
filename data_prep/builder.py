"""What every data set of ECGs is: keys per split, and how to read a key."""

import abc
import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import tensorflow_datasets as tfds
from absl import logging

from data_prep.jobs import Shards
from data_prep.records import SCALE, Record, Rejection, examples, features
from data_prep.writing import cut, write
from ecgtwin_jax.data.bucket import refuse_remote
from ecgtwin_jax.text.statements import StatementTable, get_encoder


class Builder(tfds.core.ShardBasedBuilder):
  """A TFDS builder whose shards `prepare` can also write in parallel.

  A subclass says what there is and how to read it. A key is what one call
  reads: a row of a table, or a patient with several recordings.
  """

  licence = ""  # of the recordings, for card.json; "": not stated

  @abc.abstractmethod
  def options(self) -> dict:
    """Returns all that the content depends on, as JSON can hold it."""

  @abc.abstractmethod
  def keys(self) -> Mapping[str, Sequence]:
    """Returns the keys of each split; a patient's are all in one."""

  @abc.abstractmethod
  def statements(self) -> Sequence[str]:
    """Returns all statements that may occur, in the order of their ids."""

  @abc.abstractmethod
  def reader(self) -> Callable[..., Iterator[tuple[str, Record | Rejection]]]:
    """Returns the picklable function that reads the recordings of a key.

    It yields (name, recording or why it is left out), once per recording.
    """

  @abc.abstractmethod
  def total(self) -> int:
    """Returns how many recordings all keys hold together."""

  def shards(self) -> Shards:
    """Returns the shards of each split, independent of who writes them."""
    read, statements = self.reader(), tuple(self.statements())
    splits = self.keys()
    per_key = self.total() / max(1, sum(map(len, splits.values())))
    return {
      split: [
        partial(examples, read, part, statements) for part in cut(keys, per_key)
      ]
      for split, keys in splits.items()
    }

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self, description=type(self).__doc__, features=features("ecg")
    )

  def _shard_iterators_per_split(self, dl_manager):
    del dl_manager
    return {
      split: [partial(_accepted, shard) for shard in shards]
      for split, shards in self.shards().items()
    }


def _accepted(shard):
  for name, example in shard():
    if not isinstance(example, Rejection):
      example.pop("tally")
      yield name, example


def check_input(input: str, limit: int | None) -> None:
  """Refuses an input that is no folder, and a limit that lets nothing through.

  Raises:
    ValueError: the input is a bucket, or the limit below 1.
  """
  refuse_remote(input, "input")
  if limit is not None and limit < 1:
    raise ValueError(f"{limit=} must be at least 1")


def require_folder(path: pathlib.Path, advice: str) -> None:
  """Refuses an input that lacks a folder.

  Raises:
    FileNotFoundError: with the advice.
  """
  if not path.is_dir():
    raise FileNotFoundError(f"{path} is not there: {advice}")


def prepare(
  builder_class: type[Builder],
  config: tfds.core.BuilderConfig,
  output: str | os.PathLike,
  *,
  workers: int = 1,
  encoder: str = "hashed-v1",
  beam_options: str | None = None,
) -> pathlib.Path:
  """Writes a builder's data set, or finds it finished and does nothing.

  Args:
    builder_class: class of the data set.
    config: configuration of the builder.
    output: directory of the data set.
    workers: processes. More than one must be started from a program whose main
      module is guarded by `if __name__ == "__main__"`.
    encoder: statement encoder, as `get_encoder` knows it.
    beam_options: options of an Apache Beam pipeline in the workers' place.

  Returns:
    The directory of the data set.

  Raises:
    ValueError: something else is at the output, or there is no such encoder.
    RuntimeError: recordings read are not those written and rejected.
  """
  with _quiet():
    builder = builder_class(config=config)
  embedder = get_encoder(encoder)
  return write(
    output,
    name=builder.name,
    kind="ecg",
    options={
      "version": str(builder.version),
      "statement_encoder": f"{embedder.name} {embedder.revision}".strip(),
      **builder.options(),
    },
    shards=builder.shards(),
    make_table=lambda: StatementTable.from_encoder(
      list(builder.statements()), embedder
    ),
    total=builder.total(),
    workers=workers,
    beam_options=beam_options,
    card={"scale": SCALE, "licence": builder.licence},
  )


@contextlib.contextmanager
def _quiet():
  """Keeps tfds from warning that a configuration is not a predefined one."""
  before = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    yield
  finally:
    logging.set_verbosity(before)
