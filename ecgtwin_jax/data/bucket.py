"""Buckets such as gs://bucket/folder: mounted or copied beforehand."""

import os
import re


def refuse_remote(path: str | os.PathLike, name: str) -> None:
  """Refuses a bucket where only a folder will do.

  A pathlib.Path made of one, which has lost a slash, is one still.

  Args:
    path: a folder, or a bucket's address.
    name: how the message calls it.

  Raises:
    ValueError: it is a bucket.
  """
  match = re.fullmatch(r"([a-z0-9]{2,}):/+(.*?)/*", os.fspath(path))
  if match:
    raise ValueError(
      f"{name} {match[1]}://{match[2]} must be a folder: mount the bucket"
      " (gcsfuse), or copy with `gcloud storage cp -r`"
    )
