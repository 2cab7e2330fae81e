"""A file of JSON lines that survives being stopped while it is written."""

import json
import os
import pathlib


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


def append_line(path: pathlib.Path, line: dict) -> None:
  """Adds a line, after the end of one that a stop cut short."""
  with path.open("ab+") as file:
    if file.tell():
      file.seek(-1, os.SEEK_END)
      if file.read(1) != b"\n":
        file.write(b"\n")
    file.write(json.dumps(line).encode() + b"\n")
