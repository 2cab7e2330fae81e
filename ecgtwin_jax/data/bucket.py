"""Data sets in a bucket: reached for within a time, then copied once."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import threading
from collections.abc import Callable

TIMEOUT = 15.0  # s until a bucket that does not answer counts as unreachable
CACHE_VARIABLE = "ECGTWIN_CACHE"  # environment variable: where copies are kept
_CARD = "card.json"


def find_url(path: str | os.PathLike) -> str | None:
  """Returns the URL of a path in a bucket, such as gs://bucket/folder, or None.

  A pathlib.Path made of one, which has lost a slash, is one still.
  """
  match = re.fullmatch(r"([a-z0-9]{2,}):/+(.*?)/*", os.fspath(path))
  return match and f"{match[1]}://{match[2]}"


def refuse_remote(path: str | os.PathLike, name: str) -> None:
  """Refuses a bucket where only a folder will do.

  Raises:
    ValueError: it is a bucket.
  """
  url = find_url(path)
  if url:
    raise ValueError(
      f"{name} {url} must be a folder: mount the bucket (gcsfuse), or copy with"
      " `gcloud storage cp -r`"
    )


def local_copy(
  directory: str | os.PathLike, timeout: float = TIMEOUT
) -> pathlib.Path:
  """Returns the directory itself, or where a data set in a bucket is copied.

  The copy is made once, in ~/.cache/ecgtwin_jax or $ECGTWIN_CACHE, and named by
  what the data set's card says, so that another data set at the same place is
  copied anew. Latents of 800,000 ECGs take 2 GB.

  Args:
    directory: a path, or gs://bucket/folder; any file system of fsspec.
    timeout: seconds that the bucket has to answer.

  Raises:
    ValueError: the bucket cannot be reached, or holds no data set there.
  """
  url = find_url(directory)
  if url is None:
    return pathlib.Path(directory)
  files, root, card = _reach(url, timeout)
  name = hashlib.sha256(f"{url}\n{card}".encode()).hexdigest()[:24]
  folder = os.environ.get(CACHE_VARIABLE, "~/.cache/ecgtwin_jax")
  copy = pathlib.Path(folder).expanduser() / name
  if copy.exists():
    return copy
  partial = copy.with_name(f"{name}.partial-{os.getpid()}")
  partial.mkdir(parents=True)
  try:
    for file in files.ls(root, detail=True):
      if file["type"] == "file":
        target = partial / file["name"].rsplit("/", 1)[-1]
        files.get_file(file["name"], os.fspath(target))
        if target.stat().st_size != file["size"]:
          raise OSError(f"{file['name']} came incomplete")
    os.replace(partial, copy)
  except Exception as error:
    shutil.rmtree(partial)
    if not copy.exists():  # or another process was faster
      raise ValueError(f"{url} could not be copied: {error}") from None
  return copy


def _reach(url: str, timeout: float):
  """Returns file system, path and card of a data set in a bucket."""

  def look():
    import fsspec

    files, root = fsspec.core.url_to_fs(url)
    path = f"{root}/{_CARD}"
    return (
      files,
      root,
      files.cat_file(path).decode() if files.exists(path) else "",
    )

  try:
    files, root, card = _within(timeout, look)
  except TimeoutError:
    raise ValueError(
      f"{url} did not answer within {timeout:g} s: check the network and"
      " `gcloud auth application-default login`"
    ) from None
  except ImportError as error:
    raise ValueError(
      f"{url} cannot be read: {error}; pip install 'ecgtwin_jax[gcs]'"
    ) from None
  except Exception as error:
    message = " ".join(str(error).split()) or type(error).__name__
    raise ValueError(f"{url} cannot be reached: {message[:200]}") from None
  try:
    json.loads(card)
  except ValueError:
    raise ValueError(f"{url} holds no data set: there is no {_CARD}") from None
  return files, root, card


def _within(timeout: float, look: Callable):
  """Returns look(), or raises TimeoutError while it still hangs."""
  result = []

  def run():
    try:
      result.append((look(), None))
    except BaseException as error:
      result.append((None, error))

  # A daemon: what hangs does not keep the program from ending.
  thread = threading.Thread(target=run, daemon=True)
  thread.start()
  thread.join(timeout)
  if not result:
    raise TimeoutError
  value, error = result[0]
  if error is not None:
    raise error
  return value
