"""What commands leave: generated files, and the versions that made them."""

import os
import pathlib
from collections.abc import Sequence
from fnmatch import fnmatch

import jax

from ecgtwin_jax import __version__
from ecgtwin_jax.data.ecg import ECG

SUFFIXES = {
  **{"wfdb": ".hea", "npz": ".npz", "csv": ".csv"},
  **{"edf": ".edf", "dicom": ".dcm"},
}


def versions() -> dict[str, str]:
  """Of what a result may depend on."""
  return {"ecgtwin_jax": __version__, "jax": jax.__version__}


def suffix_of(file_format: str) -> str:
  """The suffix that ECG.write takes for a format.

  Raises:
    ValueError: unknown format.
  """
  if file_format not in SUFFIXES:
    raise ValueError(
      f"config.format={file_format!r} must be one of {', '.join(SUFFIXES)}"
    )
  return SUFFIXES[file_format]


def write_ecgs(
  folder: str | os.PathLike, ecgs: list[ECG], file_format: str
) -> list[str]:
  """Writes each ECG under its name; returns the names of all files."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  suffix = suffix_of(file_format)
  for ecg in ecgs:
    ecg.write(folder / f"{ecg.record}{suffix}")
  suffixes = (".hea", ".dat") if suffix == ".hea" else (suffix,)
  return [f"{ecg.record}{end}" for ecg in ecgs for end in suffixes]


def find_earlier(
  folder: str | os.PathLike, index: str, names: tuple[str, ...]
) -> list[pathlib.Path]:
  """The files of an earlier run of this command in a folder.

  Args:
    folder: where the command is to write; need not be there.
    index: the file that the command writes last.
    names: patterns of the names of all its files.

  Raises:
    ValueError: the folder holds files of something else and no index, or it
      cannot be made or written.
  """
  folder = pathlib.Path(folder)
  path = folder.absolute()
  there = next(place for place in (path, *path.parents) if place.exists())
  if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
    raise ValueError(
      f"nothing can be written into {folder}, because of {there}: give another"
      " --workdir"
    )
  if not folder.exists():
    return []
  files = list(folder.iterdir())
  own = [
    file
    for file in files
    if file.is_file() and any(fnmatch(file.name, name) for name in names)
  ]
  foreign = sorted(x.name for x in set(files) - set(own))
  if foreign and not (folder / index).exists():
    raise ValueError(
      f"{folder} holds other files ({', '.join(foreign[:3])}): give another"
      " --workdir"
    )
  return own


def replace_earlier(files: Sequence[pathlib.Path]) -> None:
  """Removes the files of an earlier run, and says so."""
  if files:
    print(f"{len(files)} files of an earlier run are replaced")
  for file in files:
    file.unlink()
