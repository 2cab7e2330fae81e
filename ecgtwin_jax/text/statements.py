"""Statements of an ECG report as vectors: encoders by name, and the table.

A data set, a training run and a twin share one table of unique statements. The
table knows which encoder made its vectors, so vectors of two encoders are never
mixed.
"""

import dataclasses
import functools
import hashlib
import io
import json
import os
import re
from typing import Protocol, runtime_checkable

import numpy as np
from etils import epath
from jaxtyping import Float, Int32

from ecgtwin_jax.constants import TEXT_WIDTH
from ecgtwin_jax.text.wording import reword


@runtime_checkable
class StatementEncoder(Protocol):
  """What turns statements into unit vectors.

  Attributes:
    name: identifies the vectors; stored with every table.
    revision: revision of the encoder's weights; empty where it has none.
    width: length of a vector.
  """

  name: str
  revision: str
  width: int

  def embed(self, statements: list[str]) -> Float[np.ndarray, "n 768"]:
    """Returns one unit vector per statement."""
    ...


@dataclasses.dataclass(frozen=True)
class HashedEncoder:
  """Embeds by spelling: v = sum of weight * sign * e_i over features, |v| = 1.

  The features of a statement are its words and the 3- to 5-grams of its
  letters; a hash picks each feature's dimension i and its sign, so that
  unrelated statements are nearly orthogonal and similar spellings are near each
  other. Needs no weights and no network, and gives the same numbers everywhere.
  It knows spelling, not meaning: "Bradycardia" and "Slow rhythm" are far apart.

  Source: feature hashing, Weinberger et al. 2009 (arXiv:0902.2206).
  """

  name: str = "hashed-v1"
  revision: str = ""
  width: int = TEXT_WIDTH

  def embed(self, statements: list[str]) -> Float[np.ndarray, "n 768"]:
    """Returns one unit vector per statement, in the given order.

    Raises:
      ValueError: a statement is blank.
    """
    rows = np.zeros((len(statements), self.width), np.float64)
    for row, statement in zip(rows, statements):
      for feature, weight in _features(statement):
        dimension, sign = _bucket(feature, self.width)
        row[dimension] += sign * weight
    # The weights add without rounding, so sums and squares are exact.
    norms = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
    return (rows / norms).astype(np.float32)


def _features(statement: str) -> list[tuple[str, float]]:
  words = re.findall(r"[^\W_]+", statement.lower())
  if not words:
    raise ValueError(f"{statement=} must hold at least one letter or digit")
  text = " " + " ".join(words) + " "
  features = [("word:" + word, 2.0) for word in words]
  features += [("order:" + text, 1.0)]
  for size in (3, 4, 5):
    features += [
      (f"gram:{text[i : i + size]}", 0.5) for i in range(len(text) - size + 1)
    ]
  return features


@functools.lru_cache(maxsize=1 << 16)
def _bucket(feature: str, width: int) -> tuple[int, int]:
  digest = hashlib.blake2b(feature.encode(), digest_size=8).digest()
  number = int.from_bytes(digest, "little")
  return (number >> 1) % width, 1 if number & 1 else -1


ENCODERS = {"hashed-v1": HashedEncoder}


def get_encoder(name: str) -> StatementEncoder:
  """Returns the encoder of that name.

  Args:
    name: `hashed-v1`; or a language model: a folder with its files, or a hub
      name (`nomic-embed-text-v1.5`) that is in the Hugging Face cache.

  Raises:
    ValueError: there is no such encoder, or its vectors have another width.
  """
  if name in ENCODERS:
    return ENCODERS[name]()
  # Here alone, because it loads JAX, which worker processes do without.
  from ecgtwin_jax.text.nomic import load_text_encoder

  encoder = load_text_encoder(name)
  if encoder.width != TEXT_WIDTH:
    raise ValueError(
      f"encoder {name!r} has width {encoder.width}, not {TEXT_WIDTH}"
    )
  return encoder


@dataclasses.dataclass(frozen=True, eq=False)
class StatementTable:
  """Unique statements, one vector each, and the name of what made the vectors.

  Attributes:
    statements: the unique statements; a statement's id is its place here.
    embeddings: their unit vectors, row by row.
    encoder: name of the encoder.
    revision: revision of the encoder's weights; empty where it has none.
  """

  statements: tuple[str, ...]
  embeddings: Float[np.ndarray, "n 768"]
  encoder: str
  revision: str = ""

  def __post_init__(self):
    if len(self.statements) != len(self.embeddings):
      raise ValueError(
        f"{len(self.statements)=} must equal {len(self.embeddings)=}"
      )
    if len(set(self.statements)) != len(self.statements):
      raise ValueError("the statements of a table must be unique")

  @classmethod
  def from_encoder(
    cls, statements: list[str], encoder: StatementEncoder
  ) -> "StatementTable":
    """Embeds the unique statements, in the order of their first appearance."""
    unique = list(dict.fromkeys(statements))
    return cls(
      tuple(unique), encoder.embed(unique), encoder.name, encoder.revision
    )

  def __len__(self) -> int:
    return len(self.statements)

  def __contains__(self, statement: str) -> bool:
    return statement in self._ids

  @functools.cached_property
  def _ids(self) -> dict[str, int]:
    return {text: number for number, text in enumerate(self.statements)}

  def ids(self, statements: list[str]) -> Int32[np.ndarray, " n"]:
    """Returns the statements' rows in the table.

    Raises:
      ValueError: one of them is not in the table.
    """
    for statement in statements:
      if statement not in self._ids:
        raise ValueError(
          f"{statement=} is not in the table of {len(self)} statements;"
          f" {reword(statement, self.statements)}"
        )
    return np.array([self._ids[text] for text in statements], np.int32)

  def require(self, encoder: str, revision: str | None = None) -> None:
    """Refuses the table unless the named encoder made it.

    Args:
      encoder: name that is needed.
      revision: the revision that is needed; None accepts any.

    Raises:
      ValueError: another encoder, or another revision of it, made the table.
    """
    if self.encoder != encoder:
      raise ValueError(
        f"the statement table was made by encoder {self.encoder!r}, but"
        f" {encoder!r} is needed: their vectors do not mix"
      )
    if revision is not None and self.revision != revision:
      raise ValueError(
        f"the statement table was made by revision {self.revision!r} of"
        f" {encoder!r}, but {revision!r} is needed: their vectors do not mix"
      )

  def save(self, directory: str | os.PathLike) -> None:
    """Writes statements.json and statements.npy into the directory."""
    directory = epath.Path(directory)
    buffer = io.BytesIO()
    np.save(buffer, self.embeddings)
    (directory / "statements.npy").write_bytes(buffer.getvalue())
    record = {
      "encoder": self.encoder,
      "revision": self.revision,
      "width": self.embeddings.shape[1],
      "statements": list(self.statements),
    }
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (directory / "statements.json").write_text(text + "\n", encoding="utf-8")

  @classmethod
  def load(cls, directory: str | os.PathLike) -> "StatementTable":
    """Reads what save() wrote.

    Raises:
      ValueError: the directory holds no table, or its parts do not agree.
    """
    directory = epath.Path(directory)
    for name in ("statements.json", "statements.npy"):
      if not (directory / name).exists():
        raise ValueError(f"{directory} must hold {name}")
    text = (directory / "statements.json").read_text(encoding="utf-8")
    data = (directory / "statements.npy").read_bytes()
    try:
      record = json.loads(text)
      statements, width = record["statements"], record["width"]
      encoder, revision = record["encoder"], record["revision"]
      if not isinstance(statements, list) or not all(
        isinstance(x, str) for x in (*statements, encoder, revision)
      ):
        raise ValueError("its statements and their encoder must be text")
      embeddings = np.load(io.BytesIO(data), allow_pickle=False)
      if embeddings.dtype.kind != "f":
        raise ValueError(f"vectors of {embeddings.dtype} must be floats")
    except Exception as e:  # numpy also evaluates and splits a file's header
      raise ValueError(
        f"the statement table in {directory} is damaged: {str(e)[:200]!r}"
      ) from None
    if width != TEXT_WIDTH:
      raise ValueError(f"{directory}: {width=} must be {TEXT_WIDTH}")
    if embeddings.shape != (len(statements), width):
      raise ValueError(
        f"{directory}/statements.npy has shape {embeddings.shape}, but"
        f" statements.json names {len(statements)} statements of width {width}"
      )
    if not np.isfinite(embeddings).all():
      bad = int(np.flatnonzero(~np.isfinite(embeddings).all(axis=1))[0])
      raise ValueError(
        f"{directory}/statements.npy must be finite: the vector of "
        f"{statements[bad]!r} is not"
      )
    return cls(tuple(statements), embeddings, encoder, revision)
