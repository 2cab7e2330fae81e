"""WFDB records: samples in physical units, checked against their header."""

import contextlib
import dataclasses
import itertools
import pathlib
import re
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from ecgtwin_jax.data.errors import RecordingError, find_window
from ecgtwin_jax.data.leads import lead_position

MAX_CHECKED = 1 << 20  # samples of a lead; of more, a piece is read unchecked
MAX_SIGNALS = 256  # of a record
MAX_FRAME = 1000  # samples per frame
MAX_HEADER = 1 << 20  # bytes of a header
MAX_COMMENTS = 1 << 16  # characters of all comments together
_MISSING = -(2**15)  # format 16's sign for a sample that is not there
# Bytes that a sample takes, of the formats that are not compressed.
_BYTES = {
  **{"8": 1, "80": 1, "16": 2, "61": 2, "160": 2, "24": 3, "32": 4},
  **{"212": 1.5, "310": 4 / 3, "311": 4 / 3},
}
# The record line: name[/segments] signals [rate[/counter[(base)]] [samples
# [time and date]]]. Time and date are of no use here and come in many forms.
_NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?"
_RECORD_LINE = re.compile(
  r"(?P<name>[^\s/]+)(?:/(?P<n_seg>\d+))?\s+(?P<n_sig>\d+)"
  rf"(?:\s+(?P<fs>{_NUMBER})(?:/-?{_NUMBER}(?:\(-?{_NUMBER}\))?)?"
  r"(?:\s+(?P<sig_len>\d+)(?P<moment>(?:\s+\d[\d:.]*|\s+\d+[-/]\w+[-/]\d+){0,2})"
  r")?)?"
)


@contextlib.contextmanager
def quiet_wfdb() -> Iterator[None]:
  """The wfdb package, imported late, without the warnings of its pandas use."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    import wfdb

    yield wfdb


@dataclasses.dataclass(frozen=True)
class _Signal:
  """A signal line of a header."""

  name: str
  unit: str
  file: str
  plain: bool  # format 16 without skew, offset or several samples per frame
  sample_bytes: float = 0.0  # 0: compressed, or not known
  gain: float = 1.0
  baseline: int = 0
  checksum: int | None = None


@dataclasses.dataclass(frozen=True)
class _Header:
  rate: float
  count: int  # samples of each signal; 0: not said
  signals: list[_Signal]
  comments: tuple[str, ...]
  segments: bool


def read_wfdb(
  path: pathlib.Path, start: float, duration: float | None
) -> tuple[
  Float[np.ndarray, "t signals"], float, list[str], list[str], tuple[str, ...]
]:
  """Reads the ECG leads among a record's signals.

  Plain files of format 16, as PTB-XL and MIMIC-IV-ECG have, are read by NumPy
  in a tenth of wfdb's time; all else is read by wfdb. The checksums of the
  header are verified, unless all of them are 0, which some writers leave there.

  Args:
    path: path of the record, without suffix.
    start: seconds to skip.
    duration: seconds to read; None is all the rest.

  Returns:
    Samples by leads, sampling rate, names and units of the leads, comments.

  Raises:
    FileNotFoundError: a file of the record is not there.
    RecordingError: `unreadable`, `truncated`, `checksum`, `lead` or `duration`.
  """
  header_file = path.with_name(path.name + ".hea")
  require_file(
    header_file,
    "give a WFDB record, or a file of another format with its suffix",
  )
  # Bad files make wfdb raise anything, IndexError and TypeError among them.
  with quiet_wfdb() as wfdb:
    try:
      header = _parse_header(wfdb, header_file)
    except Exception as error:
      raise RecordingError(
        "unreadable",
        f"the header cannot be read ({first_line(error)}): "
        "get a fresh copy of the record",
      ) from None
    signals = header.signals
    wanted = [
      i for i, x in enumerate(signals) if lead_position(x.name) is not None
    ]
    if not wanted:
      named = ", ".join(x.name for x in signals)
      raise RecordingError(
        "lead", f"none of its signals ({named}) is a lead of an ECG"
      )
    files = sorted({signals[i].file for i in wanted})
    for name in files:
      require_file(path.with_name(name), f"{header_file.name} refers to it")
    plain = all(x.plain for x in signals if x.file in files)
    try:
      _check_sizes(path.parent, header, files)
      if plain and header.count and not header.segments:
        signal = _read_plain(path.parent, header, wanted, start, duration)
      else:
        signal = _read_other(wfdb, path, header, wanted, start, duration)
    except RecordingError:
      raise
    except Exception as error:
      raise RecordingError(
        "unreadable",
        f"the samples cannot be read ({first_line(error)}), as when a data "
        "file is cut short: get a fresh copy of the record",
      ) from None
  names, units = zip(*((signals[i].name, signals[i].unit) for i in wanted))
  return signal, header.rate, list(names), list(units), header.comments


def _check_sizes(folder, header, files):
  """Refuses a header that promises more samples than its files hold."""
  if header.segments or not header.count:
    return
  for file, group in itertools.groupby(header.signals, lambda x: x.file):
    needed = int(header.count * sum(x.sample_bytes for x in group))
    if file not in files:
      continue
    size = (folder / file).stat().st_size
    if needed > size:
      raise RecordingError(
        "truncated",
        f"the samples cannot be read: {file} has {size} bytes, and"
        f" {header.count} samples need {needed}: get a fresh copy of the"
        " record",
      )


def _read_plain(folder, header, wanted, start, duration):
  window = find_window(header.count, header.rate, start, duration)
  whole = header.count <= MAX_CHECKED
  first, last = (0, header.count) if whole else window
  columns = dict.fromkeys(wanted)
  place = itertools.count()
  for file, group in itertools.groupby(header.signals, lambda x: x.file):
    group = [(next(place), x) for x in group]
    if not any(i in columns for i, _ in group):
      continue
    size = (last - first) * len(group)
    samples = np.fromfile(
      folder / file, "<i2", size, offset=2 * first * len(group)
    )
    if samples.size < size:
      raise RecordingError(
        "truncated",
        f"the samples cannot be read: {file} ends after {samples.size} of "
        f"{size} samples: get a fresh copy of the record",
      )
    samples = samples.reshape(-1, len(group))
    if whole:
      _verify(samples, [x.checksum for _, x in group], file)
      samples = samples[slice(*window)]
    for column, (i, x) in enumerate(group):
      if i in columns:
        digital = samples[:, column]
        columns[i] = (digital - float(x.baseline)) / x.gain
        columns[i][digital == _MISSING] = np.nan
  return np.stack(list(columns.values()), axis=1)


def _read_other(wfdb, path, header, wanted, start, duration):
  count = header.count
  if count:
    window = find_window(count, header.rate, start, duration)
  if header.segments or count > MAX_CHECKED:
    signal = wfdb.rdrecord(str(path), *window, channels=wanted).p_signal
    return signal
  record = wfdb.rdrecord(str(path), channels=wanted, physical=False)
  if set(record.samps_per_frame) == {1}:
    _verify(record.d_signal, record.checksum, path.name)
  window = find_window(len(record.d_signal), header.rate, start, duration)
  return record.dac()[slice(*window)]


def _verify(
  samples: Int[np.ndarray, "t signals"], checksums: list[int | None], file: str
) -> None:
  """Compares the 16-bit sums of the signals with those of the header."""
  sums = samples.sum(axis=0, dtype=np.int64) % 2**16
  stated = [None if x is None else x % 2**16 for x in checksums]
  if not any(stated):
    return
  for found, checksum in zip(sums.tolist(), stated):
    if checksum not in (None, found):
      raise RecordingError(
        "checksum",
        f"the samples of {file} add up to {found}, but must to {checksum}: "
        "get a fresh copy of the record",
      )


def _parse_header(wfdb, file):
  """Reads a header with the grammar of wfdb.

  wfdb's own reading drops what is not ASCII, which turns microvolt into volt,
  and takes most of the time of a recording.
  """
  from wfdb.io import header

  size = file.stat().st_size
  if size > MAX_HEADER:
    raise ValueError(f"it has {size} bytes, must have at most {MAX_HEADER}")
  text = decode_text(file.read_bytes())
  lines, comments = header.parse_header_content(text)
  check_comments(comments)
  fields = _RECORD_LINE.fullmatch(lines[0].strip())
  if fields is None:
    raise ValueError(
      f"the record line says {lines[0][:100]!r}, which must be: name, number "
      "of signals, samples per second, number of samples"
    )
  if int(fields["n_sig"]) > MAX_SIGNALS:
    raise ValueError(f"{fields['n_sig']} signals must be at most {MAX_SIGNALS}")
  if fields["n_seg"]:
    whole = wfdb.rdheader(str(file.with_suffix("")), rd_segments=True)
    part = next(x for x in whole.segments if x is not None)
    for length, segment in zip(whole.seg_len, whole.segments):
      if segment is not None and segment.sig_len not in (length, 0, None):
        raise ValueError(f"a segment of {length} samples has {segment.sig_len}")
    signals = [
      _Signal(name, unit, file.name, False)
      for name, unit in zip(part.sig_name, part.units)
    ]
  else:
    limit = min(int(fields["sig_len"] or MAX_CHECKED), MAX_CHECKED)
    signals = [
      _parse_signal(line, header.rx_signal.match(line), limit)
      for line in lines[1:]
    ]
  if not signals or len(signals) != int(fields["n_sig"]):
    raise ValueError(f"{len(signals)} of {fields['n_sig']} signals described")
  return _Header(
    rate=float(fields["fs"] or 250),  # WFDB's default
    count=int(fields["sig_len"] or 0),
    signals=signals,
    comments=tuple(line.lstrip("# ") for line in comments),
    segments=bool(fields["n_seg"]),
  )


def _parse_signal(line, fields, limit) -> _Signal:
  if fields is None:
    raise ValueError(f"{line[:100]!r} describes no signal of a file beside it")
  frame, skew = int(fields["samps_per_frame"] or 1), int(fields["skew"] or 0)
  if not 1 <= frame <= MAX_FRAME or not 0 <= skew <= limit:
    raise ValueError(
      f"{frame} samples per frame and a skew of {skew} must be in"
      f" 1..{MAX_FRAME} and 0..{limit}"
    )
  plain = fields["fmt"] == "16" and not int(fields["byte_offset"] or 0)
  return _Signal(
    name=fields["sig_name"],
    unit=fields["units"] or "mV",
    file=fields["file_name"],
    plain=plain and frame == 1 and not skew,
    sample_bytes=float(frame * _BYTES.get(fields["fmt"], 0)),
    gain=float(fields["adc_gain"] or 0) or 200.0,  # WFDB's default
    baseline=int(fields["baseline"] or fields["adc_zero"] or 0),
    checksum=int(fields["checksum"]) if fields["checksum"] else None,
  )


def check_comments(comments: Sequence[str]) -> None:
  """Refuses comments that are too long to be carried along.

  Raises:
    RecordingError: `unreadable`.
  """
  size = sum(map(len, comments))
  if size > MAX_COMMENTS:
    raise RecordingError(
      "unreadable",
      f"its comments have {size} characters, must have at most {MAX_COMMENTS}",
    )


def decode_text(content: bytes) -> str:
  """Text of a header or table: UTF-8, or else Latin-1."""
  try:
    return content.decode("utf-8-sig")
  except UnicodeDecodeError:
    return content.decode("latin-1")


def require_file(path: pathlib.Path, advice: str) -> None:
  """Refuses a file that is not there.

  Raises:
    FileNotFoundError: with the advice.
  """
  if not path.is_file():
    raise FileNotFoundError(f"{path} is not there: {advice}")


def first_line(error: Exception) -> str:
  """What an error says first, or its name where it says nothing."""
  return (str(error).splitlines() or [type(error).__name__])[0]
