"""Recordings that strangers upload: read, but not trusted.

A file may say anything, so what is read is limited to the uploaded files, their
size and what they hold unpacked, and nothing is named as its sender named it.
"""

import pathlib
import re
import shutil
import tempfile
import zipfile

from ecgtwin_jax.data.clinical_files import SUFFIXES
from ecgtwin_jax.data.ecg import ECG, read_ecg
from ecgtwin_jax.data.errors import RecordingError
from ecgtwin_jax.data.leads import lead_position
from ecgtwin_jax.data.wfdb_record import decode_text

MAINS = (".hea", ".csv", ".npz", *SUFFIXES)  # what stands for a recording
DATA = (".dat", ".mat", ".xyz")  # of a .hea
MB = 2**20  # bytes, as Gradio counts
MAX_FILES = 16  # a header and its data files
UNPACKED = 10  # times the limit that an .npz file may hold unpacked


def read_upload(
  paths: list[str] | tuple[str, ...],
  start: float | int = 0.0,
  max_mb: float | int = 20.0,
) -> ECG:
  """Reads 10 s of one recording from uploaded files.

  Args:
    paths: a WFDB header (.hea) with its data files, or one file of another
      format that `read_ecg` takes and that says its own rate, leads and unit.
    start: seconds to skip.
    max_mb: limit of all files together, in MB (2^20 bytes).

  Returns:
    The recording, named by the letters, digits, - and _ of its file's name.

  Raises:
    ValueError: too many or too large files, not one recording, a header that
      names other files, or a recording that cannot be used.
  """
  files = [pathlib.Path(path) for path in paths]
  size = sum(file.stat().st_size for file in files) / MB
  if len(files) > MAX_FILES or size > max_mb:
    raise ValueError(
      f"{len(files)} files of {size:.1f} MB together must be at most "
      f"{MAX_FILES} files and {max_mb:g} MB: cut out the part you need"
    )
  main = _find_main(files)
  if main.suffix == ".hea":
    _check_header(main, {file.name for file in files})
  if main.suffix == ".npz":
    _check_unpacked(main, UNPACKED * max_mb)
  name = re.sub("[^-A-Za-z0-9_]+", "_", main.stem)[:60] or "upload"
  with tempfile.TemporaryDirectory() as folder:
    # Each upload has a folder of its own; a record's files lie in one.
    for file in files:
      target = name + main.suffix if file == main else file.name
      shutil.copyfile(file, pathlib.Path(folder) / target)
    try:
      return read_ecg(pathlib.Path(folder) / (name + main.suffix), start=start)
    except (ValueError, OSError) as error:
      text = str(error).replace(f"{folder}/", "")
      rule = getattr(error, "rule", "unreadable")
      raise RecordingError(rule, text) from None


def _find_main(files):
  """The file that stands for the recording."""
  mains = [file for file in files if file.suffix.lower() in MAINS]
  data = [file for file in files if file.suffix.lower() in DATA]
  one = len(mains) == 1 and len(mains) + len(data) == len(files)
  if not one or (data and mains[0].suffix != ".hea"):
    names = ", ".join(file.name for file in files)
    raise ValueError(
      f"the files ({names}) must be one recording: a WFDB header (.hea) with "
      f"its data files ({', '.join(DATA)}), or one of {', '.join(MAINS[1:])}"
    )
  return mains[0]


def _check_header(header, names):
  """Refuses headers that lead to files which were not uploaded."""
  text = decode_text(header.read_bytes())
  lines = [line.split() for line in text.splitlines() if line.strip()]
  lines = [words for words in lines if not words[0].startswith("#")]
  if not lines or "/" in lines[0][0]:
    raise ValueError(
      f"{header.name} must be the header of one record, not of several segments"
    )
  # The files of its leads are needed, those of other signals are not read.
  named = {
    words[0]
    for words in lines[1:]
    if len(words) < 9 or lead_position(words[-1]) is not None
  }
  missing = named - names
  if missing:
    raise ValueError(
      f"{header.name} names {', '.join(sorted(missing))}: upload the header "
      "and its data files together"
    )


def _check_unpacked(file, limit):
  """Refuses archives that are small only as long as they are packed."""
  try:
    with zipfile.ZipFile(file) as archive:
      size = sum(member.file_size for member in archive.infolist()) / MB
  except zipfile.BadZipFile:
    raise ValueError(f"{file.name} is not an .npz file") from None
  if size > limit:
    raise ValueError(
      f"{file.name} holds {size:.0f} MB unpacked, which must be at most "
      f"{limit:g} MB"
    )
