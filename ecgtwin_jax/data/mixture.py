"""Several data sets as one: "a,b", or with shares of the batches, "a:2,b:1".

Without shares the recordings of all count alike. Patients of two data sets are
two patients, whatever their names; a data set's own splits stay as they are.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ecgtwin_jax.data.dataset import (
  MEMORY_LIMIT,
  Dataset,
  Mixed,
  load_card,
  load_split,
)
from ecgtwin_jax.data.latents import DRAWS, measure_scale
from ecgtwin_jax.text.statements import StatementTable

# What all parts have to have in common, and what mends it.
_COMMON = {
  "kind": "name ECGs or latents, not both",
  "scale": "prepare them again",
  "vae": "encode them again with one autoencoder",
}


class Part(NamedTuple):
  """A data set of several, and its share of the batches; None: its size's."""

  directory: str
  share: float | None


def parse_parts(given: str | os.PathLike | Iterable[str]) -> tuple[Part, ...]:
  """Returns the data sets that a text names.

  Args:
    given: a folder; several, "a,b"; with shares, "a:2,b:1"; or a sequence of
      such texts. A folder that is there under the whole text is one data set.

  Raises:
    ValueError: no folder, a share that is not positive, one folder without a
      share beside others with one, or a folder twice.
  """
  if isinstance(given, str | os.PathLike):
    text = os.fspath(given)
    if (pathlib.Path(text) / "card.json").exists():
      return (Part(text, None),)
    given = text.split(",")
  parts = tuple(_parse_part(item.strip()) for item in given)
  shown = ",".join(given)
  if not parts or not all(part.directory for part in parts):
    raise ValueError(f"data set {shown!r} must name a folder, or several: a,b")
  if len({part.share is None for part in parts}) > 1:
    raise ValueError(
      f"data sets {shown!r} must all have a share, a:2,b:1, or none, a,b"
    )
  if len({part.directory for part in parts}) < len(parts):
    raise ValueError(f"data sets {shown!r} must differ")
  return parts


def _parse_part(text: str) -> Part:
  directory, colon, share = text.rpartition(":")
  try:
    number = float(share)
  except ValueError:
    return Part(text, None)
  if not colon:
    return Part(text, None)
  if not (np.isfinite(number) and number > 0):
    raise ValueError(f"share {share!r} of {directory!r} must be above 0")
  return Part(directory, number)


def folders(given: str | os.PathLike | Iterable[str]) -> tuple[str, ...]:
  """The folders of `parse_parts`, without their shares."""
  return tuple(part.directory for part in parse_parts(given))


def load_mixture(
  given: str | os.PathLike | Iterable[str],
  split: str,
  *,
  kind: str | None = None,
  memory_limit: int = MEMORY_LIMIT,
) -> Dataset:
  """Reads one split of a data set, or of several as one.

  A single one is what `load_split` returns. Of several, names of recordings
  and patients start with the folder, the tables of statements are one, and the
  card lists the data sets as "parts". Latents get scale and clip range of all
  training recordings, whatever the shares: extractor and denoiser may mix the
  same folders differently.

  Args:
    given: see `parse_parts`.
    split: train, validation or test.
    kind: "ecg" or "latent" where only that will do.
    memory_limit: bytes; larger arrays of the parts stay mapped from disk.

  Raises:
    ValueError: a data set is missing or damaged, or two do not fit.
  """
  parts = parse_parts(given)
  if len(parts) == 1:
    (directory, _) = parts[0]
    return load_split(directory, split, kind=kind, memory_limit=memory_limit)
  loaded = [
    load_split(
      directory, split, kind=kind, memory_limit=memory_limit // len(parts)
    )
    for directory, _ in parts
  ]
  return join(loaded, parts)


def describe_parts(
  given: str | os.PathLike | Iterable[str],
) -> list[dict[str, str | float | None]]:
  """Folder, name, licence, fingerprint and share of each data set."""
  parts = parse_parts(given)
  return [_describe(part, load_card(part.directory)) for part in parts]


def _describe(part: Part, card: dict) -> dict:
  return {
    "directory": part.directory,
    "name": card["name"],
    "licence": card.get("licence") or "not stated",
    "fingerprint": card["fingerprint"],
    "share": part.share,
  }


def join(loaded: list[Dataset], parts: tuple[Part, ...]) -> Dataset:
  """One data set of several splits of one name; see `load_mixture`.

  Raises:
    ValueError: two are the same, or do not fit each other.
  """
  _check_fit(loaded)
  first = loaded[0]
  described = [_describe(part, each.card) for part, each in zip(parts, loaded)]
  identity = [[p["fingerprint"], p["share"]] for p in described]
  card = {
    **first.card,
    "name": " + ".join(p["name"] for p in described),
    "options": {p["directory"]: p["fingerprint"] for p in described},
    "fingerprint": hashlib.sha256(json.dumps(identity).encode()).hexdigest(),
    "parts": described,
  }
  arrays = {
    name: _stack([each.arrays[name] for each in loaded])
    for name in first.arrays
  }
  for key in ("latent_scale", "latent_clip"):
    card.pop(key, None)
  if card["kind"] == "latent" and first.split == "train":
    card.update(_measure(arrays))
  table, numbers = _merge_tables([each.table for each in loaded])
  shares = [part.share for part in parts]
  counts = [len(each) for each in loaded]
  mixed = None
  if shares[0] is not None:
    mixed = Mixed(
      np.repeat(np.arange(len(parts)), counts),
      tuple(part.directory for part in parts),
      tuple(share / sum(shares) for share in shares),
    )

  def named(column):
    return np.concatenate(
      [
        np.array([f"{k:03d}:{folder}/{name}" for name in getattr(each, column)])
        if len(each)
        else np.empty(0, "U1")
        for k, (each, (folder, _)) in enumerate(zip(loaded, parts))
      ]
    )

  return dataclasses.replace(
    first,
    directory=pathlib.Path(",".join(part.directory for part in parts)),
    card=card,
    table=table,
    arrays=arrays,
    record_id=named("record_id"),
    patient_id=named("patient_id"),
    **{
      name: np.concatenate([getattr(each, name) for each in loaded])
      for name in ("time", "heart_rate", "age", "sex")
    },
    statement_ids=np.concatenate(
      [
        # -1, padding, takes the last number.
        np.append(number, -1).astype(np.int32)[each.statement_ids]
        for each, number in zip(loaded, numbers)
      ]
    ),
    mixed=mixed,
  )


def _check_fit(loaded: list[Dataset]) -> None:
  first = loaded[0]
  for each in loaded[1:]:
    for key, advice in _COMMON.items():
      one, other = first.card.get(key), each.card.get(key)
      if one != other:
        raise ValueError(
          f"{first.directory} and {each.directory} differ in {key}, {one!r}"
          f" and {other!r}: {advice}"
        )
    if first.arrays.keys() != each.arrays.keys():
      raise ValueError(
        f"{first.directory} holds {', '.join(first.arrays)}, but"
        f" {each.directory} holds {', '.join(each.arrays)}: encode the older"
        " one again"
      )
    try:
      each.table.require(first.table.encoder, first.table.revision)
    except ValueError as error:
      raise ValueError(
        f"{each.directory} beside {first.directory}: {error}; prepare it again"
        " with the same --encoder"
      ) from None
  prints = [each.card["fingerprint"] for each in loaded]
  for k, each in enumerate(loaded):
    if prints[k] in prints[:k]:
      raise ValueError(
        f"{each.directory} holds the same recordings as"
        f" {loaded[prints.index(prints[k])].directory}: name one of them"
      )


def _merge_tables(
  tables: list[StatementTable],
) -> tuple[StatementTable, list[np.ndarray]]:
  """One table, and the numbers in it of each table's statements."""
  rows = {}
  for table in tables:
    for statement, row in zip(table.statements, table.embeddings):
      rows.setdefault(statement, row)
  width = tables[0].embeddings.shape[1]
  merged = dataclasses.replace(
    tables[0],
    statements=tuple(rows),
    embeddings=np.array(list(rows.values()), np.float32).reshape(-1, width),
  )
  return merged, [merged.ids(list(table.statements)) for table in tables]


def _measure(arrays) -> dict:
  count = len(arrays["mean"])
  rows = np.linspace(0, count - 1, DRAWS).astype(np.int64)
  return measure_scale(arrays["mean"][rows], arrays["std"][rows])


class Stacked:
  """Arrays one below the other, without a copy: those mapped from disk."""

  def __init__(self, parts: list[np.ndarray]):
    self.parts = parts
    self.ends = np.cumsum([len(part) for part in parts])
    self.dtype = parts[0].dtype
    self.shape = (int(self.ends[-1]), *parts[0].shape[1:])

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, key) -> np.ndarray:
    """Rows by number or mask, or [:, columns], as an array in memory."""
    if isinstance(key, tuple) and key[0] == slice(None):
      return np.concatenate([part[key] for part in self.parts])
    rows = np.arange(len(self))[key]
    owner = np.searchsorted(self.ends, rows, side="right")
    out = np.empty((*rows.shape, *self.shape[1:]), self.dtype)
    start = 0
    for k, part in enumerate(self.parts):
      own = owner == k
      out[own] = part[rows[own] - start]
      start = self.ends[k]
    return out


def _stack(arrays: list[np.ndarray]) -> np.ndarray | Stacked:
  if any(isinstance(array, np.memmap) for array in arrays):
    return Stacked(arrays)
  return np.concatenate(arrays)
