"""A twin directory: every part's weights and hyper-parameters in plain files.

twin.json (format, parts' hyper-parameters, file hashes, versions), one
<part>.safetensors per part, the statement table (statements.json, .npy) and a
README.md, the model card.
"""

import hashlib
import json
import os
import pathlib
from typing import Any

import numpy as np
from etils import epath
from flax import traverse_util
from safetensors import numpy as safetensors

from ecgtwin_jax.data.conditions import find_bad_text
from ecgtwin_jax.data.wfdb_record import first_line
from ecgtwin_jax.text.statements import StatementTable

FORMAT = 1
PARTS = (
  "vae",
  "base_extractor",
  "denoiser",
  "rhythm",
  "clip",
  "identity",
  "classifier",
)
INDEX = "twin.json"
TABLE = ("statements.json", "statements.npy")
# Bytes that a file may have: what is larger is not read.
_INDEX_BYTES = 1 << 20
_WEIGHTS_BYTES = 4 << 30
_TABLE_BYTES = {"statements.json": 1 << 26, "statements.npy": 1 << 30}


def digest(tree: dict) -> str:
  """Returns the sha256 over names, shapes, types and values of a tree."""
  total = hashlib.sha256()
  flat = traverse_util.flatten_dict(tree, sep="/")
  for name, value in sorted(flat.items()):
    value = np.asarray(value, order="C")
    total.update(f"{name} {value.shape} {value.dtype}".encode())
    total.update(value.tobytes())
  return total.hexdigest()


def shipped(name: str) -> pathlib.Path:
  """Where a bundle lies that comes with the package."""
  return pathlib.Path(__file__).parent.parent / "assets" / name


def is_twin(path: str | os.PathLike) -> bool:
  """True where `path` is a twin directory."""
  return (epath.Path(path) / INDEX).exists()


def from_json(value: Any) -> Any:
  """Turns lists into tuples again, as modules' sizes are tuples."""
  if isinstance(value, dict):
    return {key: from_json(item) for key, item in value.items()}
  if isinstance(value, list):
    return tuple(from_json(item) for item in value)
  return value


def read_index(path: str | os.PathLike) -> dict:
  """Reads twin.json.

  Raises:
    FileNotFoundError: `path` is no twin directory.
    ValueError: twin.json is damaged or of another format.
  """
  path = epath.Path(path)
  if not is_twin(path):
    raise FileNotFoundError(
      f"{os.fspath(path)!r} is no twin directory (it has no {INDEX}); "
      "configs/demo.py makes one"
    )
  data = _read(path / INDEX, _INDEX_BYTES)
  try:
    index = json.loads(data)
    if index["format"] == FORMAT:
      _check_index(index)
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise ValueError(
      f"{os.fspath(path / INDEX)!r} is damaged: {error}"
    ) from None
  if index["format"] != FORMAT:
    raise ValueError(
      f"{os.fspath(path)!r}: format={index['format']} must be {FORMAT}"
    )
  return index


def _check_index(index):
  """Refuses an index that is not built as `write_twin` builds it."""
  parts, table = index["parts"], index.get("table", {})
  if not isinstance(parts, dict) or not set(parts) <= set(PARTS):
    raise ValueError(f"its parts must be of {', '.join(PARTS)}")
  if not isinstance(table, dict) or not set(table) <= set(TABLE):
    raise ValueError(f"its table must be of {', '.join(TABLE)}")
  for part, entry in parts.items():
    if not isinstance(entry["hyper"], dict):
      raise ValueError(f"the hyper-parameters of {part!r} must have names")
    if not isinstance(entry["sha256"], str):
      raise ValueError(f"the sha256 of {part!r} must be text")


def _read(path: epath.Path, limit: int) -> bytes:
  """Reads a file, and nothing that is none or is larger than `limit` bytes."""
  name = os.fspath(path)
  if "://" not in name and os.path.exists(name) and not os.path.isfile(name):
    raise ValueError(f"{name!r} must be a file")
  size = path.stat().length
  if size > limit:
    raise ValueError(f"{name!r} has {size} bytes, must be at most {limit}")
  return path.read_bytes()


def parts(path: str | os.PathLike) -> list[str]:
  """Lists the parts that a twin directory holds."""
  return list(read_index(path)["parts"])


def read_part(path: str | os.PathLike, part: str) -> tuple[dict, dict]:
  """Reads one part's (hyper-parameters, variables in float32).

  Raises:
    ValueError: the part is not in this twin, or its file is damaged.
  """
  path = epath.Path(path)
  index = read_index(path)
  if part not in index["parts"]:
    raise ValueError(
      f"{os.fspath(path)!r} holds {sorted(index['parts'])}, not {part!r}"
    )
  entry = index["parts"][part]
  file = path / f"{part}.safetensors"
  data = _read(file, _WEIGHTS_BYTES)
  if hashlib.sha256(data).hexdigest() != entry["sha256"]:
    raise ValueError(f"{os.fspath(file)} does not match the sha256 in {INDEX}")
  try:
    flat = _arrays(data)
    variables = traverse_util.unflatten_dict(flat, sep="/")
  # Of safetensors, NumPy and flax, which do not agree on a family.
  except Exception as error:
    raise ValueError(
      f"{os.fspath(file)} is damaged: {first_line(error)}"
    ) from None
  return from_json(entry["hyper"]), variables


def _arrays(data: bytes) -> dict[str, np.ndarray]:
  """The arrays of a part, in float32, every number of them finite."""
  flat = safetensors.load(data)
  for name, value in flat.items():
    if value.dtype.kind != "f":
      raise ValueError(f"{name} must hold floats, not {value.dtype}")
    if not np.isfinite(value).all():
      raise ValueError(f"{name} must be finite")
  return {
    name: value.astype(np.float32) if value.dtype == np.float16 else value
    for name, value in flat.items()
  }


def read_table(path: str | os.PathLike) -> StatementTable | None:
  """Reads a twin's statement table; None where it has none (imported ones).

  Raises:
    ValueError: a file of it is missing or damaged, or does not match the
      sha256 in twin.json. A twin that was written without these is not
      compared.
  """
  path = epath.Path(path)
  expected = read_index(path).get("table", {})
  for name, limit in _TABLE_BYTES.items():
    there = (path / name).exists()
    found = hashlib.sha256(_read(path / name, limit)) if there else None
    if name in expected and (
      found is None or found.hexdigest() != expected[name]
    ):
      raise ValueError(
        f"{os.fspath(path / name)} does not match the sha256 in {INDEX}: copy "
        "the twin directory anew"
      )
  if not (path / "statements.json").exists():
    return None
  table = StatementTable.load(path)
  for statement in table.statements:
    problem = find_bad_text(statement)
    if problem or not statement.strip():
      raise ValueError(
        f"the statement table in {os.fspath(path)} is damaged: statement "
        f"{statement[:60]!r} {problem or 'must not be blank'}"
      )
  return table


def _sha256(path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()


def write_twin(
  path: str | os.PathLike,
  weights: dict,
  *,
  sources: dict,
  card: str,
  table: StatementTable | None = None,
  dtype: type | None = None,
) -> None:
  """Writes a twin directory, all of it or nothing.

  Args:
    path: folder to make; one that holds a twin is replaced.
    weights: {part: (hyper-parameters, variables)}.
    sources: {part: where the weights come from}, for the record.
    card: text of the model card.
    table: the statements that the twin was trained on.
    dtype: np.float16 stores the weights so, in half the space; None: as they
      are.
  """
  path = epath.Path(path)
  if path.exists() and not is_twin(path) and any(path.iterdir()):
    raise ValueError(f"{os.fspath(path)!r} is not empty and holds no twin")
  path.mkdir(parents=True, exist_ok=True)
  # Without its index a folder is no twin: it goes first and comes back last.
  (path / INDEX).unlink(missing_ok=True)
  index = {"format": FORMAT, "parts": {}}
  for part, (hyper, variables) in weights.items():
    flat = traverse_util.flatten_dict(variables, sep="/")
    data = safetensors.save(
      {k: np.asarray(v, dtype, order="C") for k, v in sorted(flat.items())}
    )
    (path / f"{part}.safetensors").write_bytes(data)
    index["parts"][part] = {
      "hyper": hyper,
      "sha256": hashlib.sha256(data).hexdigest(),
      "source": sources.get(part, ""),
    }
  (path / "README.md").write_text(card)
  if table is not None:
    table.save(path)
    index["table"] = {name: _sha256(path / name) for name in TABLE}
  (path / INDEX).write_text(json.dumps(index, indent=1))


def copy_twin(source: str | os.PathLike, path: str | os.PathLike) -> None:
  """Copies a twin directory, file by file, its index last.

  Args:
    source: a twin directory.
    path: folder to make; one that holds a twin is replaced.

  Raises:
    ValueError: there is something else at `path`.
  """
  source, path = epath.Path(source), epath.Path(path)
  if path.exists() and not is_twin(path) and any(path.iterdir()):
    raise ValueError(f"{os.fspath(path)!r} is not empty and holds no twin")
  path.mkdir(parents=True, exist_ok=True)
  (path / INDEX).unlink(missing_ok=True)
  names = [f"{part}.safetensors" for part in parts(source)]
  for name in (*names, "README.md", "statements.json", "statements.npy", INDEX):
    if (source / name).exists():
      (path / name).write_bytes((source / name).read_bytes())
