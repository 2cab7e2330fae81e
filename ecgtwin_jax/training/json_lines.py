"""A file of JSON lines that survives being stopped while it is written."""

import json
import os
import pathlib
from typing import BinaryIO


def read_lines(path: pathlib.Path) -> list[dict]:
  """Reads whole lines; half-written ones do not count."""
  lines = []
  if path.exists():
    for text in path.read_text(encoding="utf-8").splitlines():
      try:
        line = json.loads(text)
      except ValueError:
        continue
      if isinstance(line, dict):
        lines.append(line)
  return lines


def open_lines(path: pathlib.Path) -> BinaryIO:
  """Opens a file to append lines; one that a stop cut short gets its end."""
  file = path.open("ab+")
  if file.tell():
    file.seek(-1, os.SEEK_END)
    if file.read(1) != b"\n":
      file.write(b"\n")
  return file


def append_line(path: pathlib.Path, line: dict) -> None:
  """Adds a line to a file that is closed."""
  with open_lines(path) as file:
    write_line(file, line)


def write_line(file: BinaryIO, line: dict) -> None:
  """Writes a line to what `open_lines` has opened."""
  file.write(json.dumps(line).encode() + b"\n")
