"""Recordings as plain arrays: .csv, .npz, .npy and MATLAB files."""

import math
import os
import pathlib
import re
import sys
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ecgtwin_jax.data.errors import MAX_RATE, RecordingError, find_window
from ecgtwin_jax.data.leads import LEADS
from ecgtwin_jax.data.wfdb_record import (
  check_comments,
  decode_text,
  first_line,
)

# Bytes that an array of an .npz file may take.
_NPZ_BYTES = {
  "signal": 1 << 30,
  "sampling_rate": 8,
  "leads": 1 << 16,
  "units": 1 << 16,
  "comments": 1 << 20,
}
_MATLAB_ARRAYS = ("val", "signal", "ecg", "data")  # that may hold the samples


class Given(NamedTuple):
  """What the caller of `read_ecg` says of a file that does not say it."""

  sampling_rate: float | None = None
  leads: tuple[str, ...] | None = None
  unit: str | None = None


def read_csv(
  path: pathlib.Path,
  start: float | int,
  duration: float | int | None,
  given: Given,
) -> tuple:
  lines = decode_text(path.read_bytes()).splitlines()
  lines = [line for line in lines if line.strip()]
  notes = [line[1:].strip() for line in lines if line.startswith("#")]
  check_comments(notes)
  names, *rows = [x for x in lines if not x.startswith("#")] or [""]
  if not rows:
    raise ValueError("a line of lead names and a line per sample are needed")
  names = [name.strip().strip('"') for name in names.split(",")]
  pattern = r"(sampling_rate|units)\s*=\s*([^,\s]+)"
  settings = {"units": "mV"} | dict(re.findall(pattern, "\n".join(notes)))
  if given.unit is not None:
    settings["units"] = given.unit
  notes = [note for note in notes if not re.match(pattern, note)]
  rate = _cell(settings.get("sampling_rate", ""))
  if given.sampling_rate is not None:
    rate = given.sampling_rate
  if duration is not None and 0 < rate <= MAX_RATE:
    rows = rows[: round((start + duration) * rate) + 1]  # no more is needed
  signal = np.loadtxt(rows, delimiter=",", ndmin=2, converters=_cell)
  if np.isnan(rate):
    if "time" not in names:
      raise ValueError(
        "a comment line '# sampling_rate=500,units=mV' or a column 'time' in "
        "seconds is needed, or read_ecg's sampling_rate="
      )
    if len(names) != signal.shape[1]:
      raise ValueError(
        f"{len(names)} names must be as many as columns: {signal.shape[1]}"
      )
    rate = _rate_of(signal[:, names.index("time")])
  window = slice(*find_window(len(signal), rate, start, duration))
  names = list(given.leads) if given.leads else names
  return signal[window], rate, names, settings["units"], tuple(notes)


def _cell(text):
  """A number as it is usually written; NaN where nothing stands."""
  if "_" in text:  # Python would skip them
    raise ValueError(f"{text[:60]!r} must be a number")
  return float(text) if text.strip() else np.nan


def _rate_of(time):
  """Sampling rate of evenly spaced seconds."""
  even = np.linspace(time[0], time[-1], len(time))
  step = (time[-1] - time[0]) / max(len(time) - 1, 1)
  if not (np.abs(time - even) < 0.5 * step).all():
    raise ValueError("column 'time' must be in seconds and evenly spaced")
  return float(1 / step)


def read_npz(
  path: pathlib.Path, start: float | int, duration: float | int | None
) -> tuple:
  try:
    with zipfile.ZipFile(path) as archive:
      arrays = {
        name: _read_array(archive, name)
        for name in map(_array_name, archive.namelist())
        if name != "signal"
      }
      rate = float(arrays["sampling_rate"])
      for name in ("leads", "units", "comments"):
        _check_text(name, arrays.get(name, np.array("")))
      names = [str(x) for x in arrays["leads"]]
      units = arrays["units"].astype(str).tolist()
      comments = tuple(str(x) for x in arrays.get("comments", ()))
      signal = _read_array(archive, "signal", (rate, start, duration))
  except RecordingError:
    raise
  except Exception as error:
    raise ValueError(
      f"not an .npz file with arrays signal, sampling_rate, leads and units "
      f"({first_line(error)})"
    ) from None
  with np.errstate(invalid="ignore"):  # what is not finite is counted later
    return signal.astype(np.float64), rate, names, units, comments


def _check_text(name, array):
  """Refuses numbers that stand for no letter: Python cannot write them."""
  if array.dtype.kind != "U" or not array.nbytes:
    return
  codes = np.frombuffer(array.tobytes(), np.uint32)
  if not array.dtype.isnative:
    codes = codes.byteswap()
  surrogate = (codes >= 0xD800) & (codes < 0xE000)
  if codes.max() > sys.maxunicode or surrogate.any():
    raise ValueError(f"{name} holds what is no text")


def _array_name(member):
  name = member.removesuffix(".npy")
  if name not in _NPZ_BYTES:
    raise ValueError(f"an array {name[:60]!r} is not known")
  return name


def _read_array(archive, name, window=None):
  """Reads an array, or the rows of a window alone.

  Its header is read first, and an array that is too large is refused by it.
  """
  with archive.open(f"{name}.npy") as file:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
      read = np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    size = math.prod(shape) * dtype.itemsize
    if size > _NPZ_BYTES[name] or dtype.hasobject:
      raise ValueError(
        f"{name} {shape} of {dtype} takes {size} bytes, must be at most "
        f"{_NPZ_BYTES[name]}"
      )
    if window is not None:
      if len(shape) != 2 or dtype.kind not in "fiu" or not size:
        raise RecordingError(
          "unreadable",
          f"{name} {shape} must be (samples, leads) and numbers, not {dtype}",
        )
      first, last = find_window(shape[0], *window)
      if not fortran:
        row = size // shape[0]
        file.seek(first * row, os.SEEK_CUR)
        data = file.read((last - first) * row)
        return np.frombuffer(data, dtype).reshape(last - first, shape[1])
    data = np.frombuffer(file.read(size), dtype)
    array = data.reshape(shape, order="F" if fortran else "C")
    return array if window is None else array[first:last]


def read_npy(
  path: pathlib.Path,
  start: float | int,
  duration: float | int | None,
  given: Given,
) -> tuple:
  try:
    signal = np.load(path, allow_pickle=False)
  except Exception as error:
    raise ValueError(f"not an .npy file ({first_line(error)})") from None
  return _cut_bare_array(signal, start, duration, given)


def read_mat(
  path: pathlib.Path,
  start: float | int,
  duration: float | int | None,
  given: Given,
) -> tuple:
  from scipy.io import loadmat, whosmat

  try:
    for name, shape, _ in whosmat(path):
      if math.prod(shape) * 8 > _NPZ_BYTES["signal"]:
        raise ValueError(f"{name} {shape} is larger than a recording")
    arrays = loadmat(path)
  except NotImplementedError:
    raise ValueError(
      "MATLAB's HDF5 form is not read: save it with -v7, or with NumPy as .npz"
    ) from None
  except Exception as error:
    raise ValueError(f"not a MATLAB file ({first_line(error)})") from None
  found = [name for name in _MATLAB_ARRAYS if name in arrays]
  if len(found) != 1:
    named = ", ".join(name for name in arrays if not name.startswith("__"))
    raise ValueError(
      f"of its arrays ({named}) exactly one must be called one of"
      f" {', '.join(_MATLAB_ARRAYS)}"
    )
  return _cut_bare_array(arrays[found[0]], start, duration, given)


def _cut_bare_array(signal, start, duration, given):
  """The window of an array that says nothing of itself."""
  lacking = [
    f"{name}={example}"
    for name, example, value in (
      ("sampling_rate", "500", given.sampling_rate),
      ("leads", "ecgtwin_jax.LEADS", given.leads),
      ("unit", "'mV'", given.unit),
    )
    if value is None
  ]
  if lacking:
    raise ValueError(
      "the file says neither rate nor leads nor unit: give read_ecg "
      + ", ".join(lacking)
    )
  _check_numbers(signal)
  count = len(given.leads)
  if signal.shape[1] != count and signal.shape[0] == count:
    signal = signal.T
  window = slice(
    *find_window(len(signal), given.sampling_rate, start, duration)
  )
  signal = signal[window].astype(np.float64)
  return signal, given.sampling_rate, list(given.leads), given.unit, ()


def _check_numbers(signal):
  if signal.ndim != 2 or signal.dtype.kind not in "fiu":
    raise ValueError(
      f"{signal.shape=} must be (samples, leads) and numbers, not"
      f" {signal.dtype}"
    )


def write_csv(ecg: Any, path: pathlib.Path, comments: Sequence[str]) -> None:
  lines = [f"# sampling_rate={ecg.sampling_rate!r},units=mV"]
  lines += [f"# {comment}" for comment in comments]
  with path.open("w", encoding="utf-8") as file:
    file.write("\n".join([*lines, ",".join(LEADS)]) + "\n")
    np.savetxt(file, ecg.signal, fmt="%.9g", delimiter=",")


def write_npz(ecg: Any, path: pathlib.Path, comments: Sequence[str]) -> None:
  np.savez_compressed(
    path,
    signal=ecg.signal,
    sampling_rate=ecg.sampling_rate,
    leads=LEADS,
    units="mV",
    comments=np.array(comments, np.str_),
  )
