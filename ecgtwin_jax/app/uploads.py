"""Recordings that strangers upload: read, but not trusted.

A file may say anything, so what is read is limited to the uploaded files, their
size and what they hold unpacked, and nothing is named as its sender named it.
"""

import multiprocessing
import pathlib
import re
import resource
import shutil
import sys
import tempfile
import zipfile

from ecgtwin_jax.data.array_files import Given
from ecgtwin_jax.data.clinical_files import SUFFIXES
from ecgtwin_jax.data.ecg import ECG, read_ecg
from ecgtwin_jax.data.errors import RecordingError
from ecgtwin_jax.data.leads import lead_position
from ecgtwin_jax.data.wfdb_record import decode_text

MAINS = (".hea", ".csv", ".npz", ".npy", *SUFFIXES)  # stand for a recording
DATA = (".dat", ".mat", ".xyz")  # of a .hea; a .mat may also be alone
UNSAID = Given()  # of files that say all of themselves
MB = 2**20  # bytes, as Gradio counts
MAX_FILES = 16  # a header and its data files
UNPACKED = 10  # times the limit that an .npz file may hold unpacked
MEMORY = 1 << 29  # bytes that reading one upload may take
SECONDS = 20  # and the time


def read_upload_apart(
  paths: list[str] | tuple[str, ...],
  start: float | int = 0.0,
  max_mb: float | int = 20.0,
  given: Given = UNSAID,
) -> ECG:
  """Does `read_upload` in a process of its own, with limits of its own.

  The process is forked from one that holds the readers and nothing else; what
  goes wrong in it leaves the page as it is.

  Raises:
    ValueError: as read_upload; or reading takes more than 20 s or 512 MB.
  """
  context = _context()
  ours, theirs = context.Pipe(duplex=False)
  # Gradio's own kind of text would have the process import Gradio: seconds.
  paths = [str(path) for path in paths]
  process = context.Process(
    target=_read_apart, args=(theirs, paths, start, max_mb, given), daemon=True
  )
  process.start()
  theirs.close()
  try:
    in_time = ours.poll(SECONDS)
    result = ours.recv() if in_time else "took too long to read"
  except EOFError:
    result = "took too much to read"
  finally:
    ours.close()
    process.kill()
    process.join()
  if isinstance(result, str):
    raise ValueError(result)
  return result


def start_reader() -> None:
  """Starts the process that those of `read_upload_apart` are forked from."""
  process = _context().Process(target=int)
  process.start()
  process.join()


def _context():
  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload([__name__, "wfdb"])
  return context


def _read_apart(pipe, paths, start, max_mb, given):
  if sys.platform == "linux":  # elsewhere the limit is not kept
    status = pathlib.Path("/proc/self/status").read_text()
    taken = int(re.search(r"VmData:\s+(\d+) kB", status)[1]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (taken + MEMORY, taken + MEMORY))
  resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
  try:
    result = read_upload(paths, start, max_mb, given)
  except (ValueError, OSError) as error:
    result = str(error)
  except MemoryError:
    result = f"reading it takes more than {MEMORY // MB} MB of memory"
  pipe.send(result)


def read_upload(
  paths: list[str] | tuple[str, ...],
  start: float | int = 0.0,
  max_mb: float | int = 20.0,
  given: Given = UNSAID,
) -> ECG:
  """Reads 10 s of one recording from uploaded files.

  Args:
    paths: a WFDB header (.hea) with its data files, or one file of another
      format that `read_ecg` takes.
    start: seconds to skip.
    max_mb: limit of all files together, in MB (2^20 bytes).
    given: rate, leads and unit of a .csv, .npy or .mat that does not say them.

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
      path = pathlib.Path(folder) / (name + main.suffix)
      return read_ecg(path, start, **given._asdict())
    except (ValueError, OSError) as error:
      text = str(error).replace(f"{folder}/", "")
      text = text.replace("give read_ecg", "say beside the upload")
      text = text.replace("read_ecg's", "beside the upload")
      rule = getattr(error, "rule", "unreadable")
      raise RecordingError(rule, text) from None


def _find_main(files):
  """The file that stands for the recording."""
  if len(files) == 1 and files[0].suffix.lower() == ".mat":
    return files[0]
  mains = [file for file in files if file.suffix.lower() in MAINS]
  data = [file for file in files if file.suffix.lower() in DATA]
  one = len(mains) == 1 and len(mains) + len(data) == len(files)
  if not one or (data and mains[0].suffix != ".hea"):
    names = ", ".join(file.name for file in files)
    raise ValueError(
      f"the files ({names}) must be one recording: a WFDB header (.hea) with "
      f"its data files ({', '.join(DATA)}), or one of {', '.join(MAINS[1:])} "
      "and .mat"
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
