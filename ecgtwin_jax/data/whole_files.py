"""Files and folders that appear whole or not at all."""

import contextlib
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
