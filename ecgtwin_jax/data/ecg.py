"""The ECG: twelve leads in clinical order and millivolt, and its files."""

import dataclasses
import importlib.resources
import math
import os
import pathlib
import re
import zipfile

import numpy as np
import scipy.signal
from jaxtyping import Float

from ecgtwin_jax.constants import MODEL_RATE as MODEL_RATE
from ecgtwin_jax.constants import MODEL_SAMPLES, SECONDS
from ecgtwin_jax.data.errors import MAX_RATE, RecordingError, find_window
from ecgtwin_jax.data.leads import LEADS, order_leads
from ecgtwin_jax.data.wfdb_record import (
  check_comments,
  decode_text,
  first_line,
  quiet_wfdb,
  read_wfdb,
  require_file,
)

# Bytes that an array of an .npz file may take.
_NPZ_BYTES = {
  "signal": 1 << 30,
  "sampling_rate": 8,
  "leads": 1 << 16,
  "units": 1 << 16,
  "comments": 1 << 20,
}
WFDB_GAIN = 1000.0  # steps per mV in the WFDB records we write
EXAMPLE_RECORD = str(
  importlib.resources.files("ecgtwin_jax") / "assets" / "s0010_re_10s"
)


@dataclasses.dataclass(frozen=True, eq=False)
class ECG:
  """Twelve leads of one recording.

  Attributes:
    signal: (s, 12) float32 in millivolt, leads in the order of LEADS.
    sampling_rate: Samples per second.
    record: Name of the recording, for titles and messages.
    comments: Free text kept with the recording.

  Raises:
    ValueError: The signal is not (s, 12) and finite, or the rate not positive.
  """

  signal: Float[np.ndarray, "s 12"]
  sampling_rate: float | int
  record: str = ""
  comments: tuple[str, ...] | list[str] = ()

  def __post_init__(self):
    signal = np.asarray(self.signal, np.float32)
    if signal.ndim != 2 or signal.shape[1] != len(LEADS) or not signal.size:
      raise ValueError(
        f"{self.record}: signal {signal.shape=} must be (samples, 12)"
      )
    if not np.isfinite(signal).all():
      raise ValueError(f"{self.record}: signal must be finite")
    rate = float(self.sampling_rate)
    if not 0 < rate < np.inf:
      raise ValueError(f"{self.record}: sampling_rate={rate} must be positive")
    object.__setattr__(self, "signal", signal)
    object.__setattr__(self, "sampling_rate", rate)
    comments = tuple(" ".join(line.split()) for line in self.comments)
    object.__setattr__(self, "comments", comments)

  def __repr__(self) -> str:
    name = f"{self.record}, " if self.record else ""
    return f"ECG({name}{self.duration:g} s, {self.sampling_rate:g} Hz)"

  @property
  def duration(self) -> float:
    """Length in seconds."""
    return len(self.signal) / self.sampling_rate

  def resample(self, samples: int = MODEL_SAMPLES) -> "ECG":
    """The same seconds in `samples` samples, by Fourier resampling.

    Source: Lai et al., arXiv 2508.02720 (FFT-resampled to 1024 samples).
    """
    count = len(self.signal)
    if samples == count:
      return self
    signal = scipy.signal.resample(self.signal.astype(np.float64), samples)
    rate = self.sampling_rate * samples / count
    return dataclasses.replace(self, signal=signal, sampling_rate=rate)

  def plot(self, path=None, **options):
    """Draws the clinical print; see `ecgtwin_jax.plotting.plot_ecg`."""
    from ecgtwin_jax import plotting

    return plotting.plot_ecg(self, path, **options)

  def write(self, path: str | os.PathLike):
    """Writes a WFDB record (.hea and .dat), a .csv or an .npz file.

    .csv and .npz keep float32 exactly; WFDB is format 16 in steps of 1 uV.

    Raises:
      ValueError: Unknown suffix, a name WFDB refuses, or beyond 32.767 mV.
    """
    path = pathlib.Path(path)
    writers = {"": _write_wfdb, ".hea": _write_wfdb}
    writers |= {".csv": _write_csv, ".npz": _write_npz}
    if path.suffix not in writers:
      raise ValueError(f"{str(path)!r} must end in .hea, .csv or .npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    writers[path.suffix](self, path)


def example_ecg() -> ECG:
  """The bundled reference: 10 s of PTB record s0010_re, see assets/README."""
  return read_ecg(EXAMPLE_RECORD)


def read_ecg(
  path: str | os.PathLike,
  start: float | int = 0.0,
  duration: float | int | None = SECONDS,
) -> ECG:
  """Reads `duration` seconds from `start` of a WFDB record, .csv or .npz file.

  WFDB: with or without .hea; any number of signals, any rate and format.
  CSV: comment lines first, `# sampling_rate=500,units=mV` among them, then a
  line of lead names, then one line per sample. Instead of sampling_rate there
  may be a column `time` in seconds, evenly spaced.
  NPZ: arrays signal (s, n), sampling_rate, leads (n,), units (one or n).

  Args:
    path: The record or file.
    start: Seconds to skip.
    duration: Seconds to read; 10 is what the networks take, None is all.

  Raises:
    FileNotFoundError: A file of the record is not there.
    RecordingError: A file cannot be understood or is damaged, the recording is
      too short, or a lead breaks a rule of `order_leads`. It is a ValueError
      whose message names the record.
  """
  path = pathlib.Path(path)
  if not (0 <= start < np.inf and (duration is None or 0 < duration < np.inf)):
    raise ValueError(f"{start=} and {duration=} must be seconds from 0 on")
  if path.suffix in (".hea", ".dat"):
    path = path.with_suffix("")
  reader = {".csv": _read_csv, ".npz": _read_npz}.get(path.suffix, read_wfdb)
  try:
    signal, rate, names, units, comments = reader(path, start, duration)
    signal = order_leads(signal, names, units)
  except ValueError as error:
    rule = getattr(error, "rule", "unreadable")
    raise RecordingError(rule, f"{path}: {error}") from None
  record = path.name if reader is read_wfdb else path.stem
  return ECG(signal, rate, record, comments)


def _read_csv(path, start, duration):
  require_file(path, "give a WFDB record, a .csv or an .npz file")
  lines = decode_text(path.read_bytes()).splitlines()
  lines = [line for line in lines if line.strip()]
  notes = [line[1:].strip() for line in lines if line.startswith("#")]
  check_comments(notes)
  names, *rows = [x for x in lines if not x.startswith("#")] or [""]
  if not rows:
    raise ValueError("a line of lead names and a line per sample are needed")
  names = [name.strip() for name in names.split(",")]
  pattern = r"(sampling_rate|units)\s*=\s*([^,\s]+)"
  settings = {"units": "mV"} | dict(re.findall(pattern, "\n".join(notes)))
  notes = [note for note in notes if not re.match(pattern, note)]
  rate = _cell(settings.get("sampling_rate", ""))
  if duration is not None and rate <= MAX_RATE:
    rows = rows[: round((start + duration) * rate) + 1]  # no more is needed
  signal = np.loadtxt(rows, delimiter=",", ndmin=2, converters=_cell)
  if "sampling_rate" not in settings:
    if "time" not in names:
      raise ValueError(
        "a comment line '# sampling_rate=500,units=mV' or a column 'time' in "
        "seconds is needed"
      )
    rate = _rate_of(signal[:, names.index("time")])
  window = slice(*find_window(len(signal), rate, start, duration))
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


def _read_npz(path, start, duration):
  require_file(path, "give a WFDB record, a .csv or an .npz file")
  try:
    with zipfile.ZipFile(path) as archive:
      arrays = {
        name: _read_array(archive, name)
        for name in map(_array_name, archive.namelist())
        if name != "signal"
      }
      rate = float(arrays["sampling_rate"])
      names = [str(x) for x in arrays["leads"]]
      units = arrays["units"].astype(str).tolist()
      signal = _read_array(archive, "signal", (rate, start, duration))
  except RecordingError:
    raise
  except Exception as error:
    raise ValueError(
      f"not an .npz file with arrays signal, sampling_rate, leads and units "
      f"({first_line(error)})"
    ) from None
  comments = tuple(str(x) for x in arrays.get("comments", ()))
  return signal.astype(np.float64), rate, names, units, comments


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


def _write_wfdb(ecg, path):
  if not re.fullmatch("[-A-Za-z0-9_]+", path.stem):
    raise ValueError(
      f"WFDB record name {path.stem!r} must have letters, digits, - or _ alone"
    )
  peak = float(np.abs(ecg.signal).max())
  if peak * WFDB_GAIN > 2**15 - 1:
    raise ValueError(f"{ecg.record}: {peak=:.4g} mV must be below 32.767 mV")
  count = len(LEADS)
  with quiet_wfdb() as wfdb:
    wfdb.wrsamp(
      path.stem,
      fs=ecg.sampling_rate,
      units=["mV"] * count,
      sig_name=list(LEADS),
      p_signal=ecg.signal.astype(np.float64),
      fmt=["16"] * count,
      adc_gain=[WFDB_GAIN] * count,
      baseline=[0] * count,
      comments=list(ecg.comments),
      write_dir=str(path.parent),
    )


def _write_csv(ecg, path):
  lines = [f"# sampling_rate={ecg.sampling_rate!r},units=mV"]
  lines += [f"# {comment}" for comment in ecg.comments]
  with path.open("w", encoding="utf-8") as file:
    file.write("\n".join([*lines, ",".join(LEADS)]) + "\n")
    np.savetxt(file, ecg.signal, fmt="%.9g", delimiter=",")


def _write_npz(ecg, path):
  np.savez_compressed(
    path,
    signal=ecg.signal,
    sampling_rate=ecg.sampling_rate,
    leads=LEADS,
    units="mV",
    comments=np.array(ecg.comments, np.str_),
  )
