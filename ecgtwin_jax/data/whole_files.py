"""Files and folders that appear whole, have one writer, and may be sealed."""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
from collections.abc import Iterator


@contextlib.contextmanager
def appear_whole(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Gives a draft beside `path`, which takes its place where the block ends.

  A file at `path` is replaced; a folder there must be empty or removed by then.
  Where the block raises, the draft goes and `path` stays as it was. A killed
  process leaves its draft, whose name begins with a dot and holds its number.

  Args:
    path: path of a file, or of a folder that the block makes of the draft.

  Yields:
    The draft's path, with the suffix of `path`.
  """
  path = pathlib.Path(path)
  draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
  try:
    yield draft
    os.replace(draft, path)
  finally:
    if draft.is_dir():
      shutil.rmtree(draft)
    else:
      draft.unlink(missing_ok=True)


@contextlib.contextmanager
def hold(folder: str | os.PathLike) -> Iterator[None]:
  """Keeps other processes from writing into a folder, as long as they ask.

  The lock dies with its process and leaves no file. File systems that have no
  locks hold nobody off.

  Args:
    folder: made where it is not there.

  Raises:
    ValueError: another process holds it.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  place = os.open(folder, os.O_RDONLY)
  try:
    try:
      fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise ValueError(
        f"{os.fspath(folder)!r} is in use by another process: wait for its "
        "end, or name another folder"
      ) from None
    except OSError:
      pass  # a file system without locks
    yield
  finally:
    os.close(place)


def sha256_of(path: str | os.PathLike) -> str:
  """The sha256 of a file."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def seal(path: str | os.PathLike, made_from: str) -> None:
  """Writes PATH.sha256 beside a file: what it holds and what it was made from.

  Args:
    path: of the file.
    made_from: all that it depends on, as text.
  """
  path = pathlib.Path(path)
  with appear_whole(_seal_of(path)) as draft:
    draft.write_text(_sealed(path, made_from))


def is_sealed(path: str | os.PathLike, made_from: str) -> bool:
  """True where a file is there as it was sealed, made from the same."""
  path = pathlib.Path(path)
  try:
    return _seal_of(path).read_text() == _sealed(path, made_from)
  except (OSError, UnicodeDecodeError):
    return False


def _seal_of(path):
  return path.with_name(f"{path.name}.sha256")


def _sealed(path, made_from):
  return hashlib.sha256(f"{made_from}\n{sha256_of(path)}".encode()).hexdigest()
