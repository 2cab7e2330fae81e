"""What commands leave: generated files, and the versions that made them."""

import os
import pathlib

import jax

from ecgtwin_jax import __version__
from ecgtwin_jax.data.ecg import ECG

SUFFIXES = {"wfdb": ".hea", "npz": ".npz", "csv": ".csv"}


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
