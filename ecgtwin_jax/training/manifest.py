"""A folder's manifest: size and sha256 of each file, checked on restore."""

import hashlib
import json
import os

from etils import epath

NAME = "manifest.json"


def _files(folder: epath.Path, prefix: str = "") -> list[str]:
  names = []
  for path in folder.iterdir():
    name = prefix + path.name
    names += _files(path, f"{name}/") if path.is_dir() else [name]
  return sorted(name for name in names if not name.startswith(NAME))


def _entry(path: epath.Path) -> dict:
  data = path.read_bytes()
  return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def seal(step_dir: str | os.PathLike) -> None:
  """Writes the manifest of a committed checkpoint."""
  step_dir = epath.Path(step_dir)
  entries = {name: _entry(step_dir / name) for name in _files(step_dir)}
  draft = step_dir / f"{NAME}.tmp"
  draft.write_text(json.dumps(entries, indent=1))
  draft.rename(step_dir / NAME)


def fault(step_dir: str | os.PathLike) -> str | None:
  """Returns what is wrong with a sealed checkpoint, None where nothing is."""
  step_dir = epath.Path(step_dir)
  try:
    found = json.loads((step_dir / NAME).read_text())
    entries = {name: (e["size"], e["sha256"]) for name, e in found.items()}
  except (ValueError, KeyError, TypeError, AttributeError, OSError):
    return f"{NAME} cannot be read"
  for name, (size, digest) in entries.items():
    if not (step_dir / name).exists():
      return f"{name} is missing"
    found = _entry(step_dir / name)
    if found["size"] != size:
      return f"{name} has {found['size']} bytes instead of {size}"
    if found["sha256"] != digest:
      return f"{name} does not match its sha256"
  return None if entries else f"{NAME} is empty"
