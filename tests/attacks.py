"""Attacks on what strangers may send: each one tried, with what came of it.

  python tests/attacks.py                  prints a table; exit code 1: one got
                                           through
  python tests/attacks.py --group=twin     one group of them
  python tests/attacks.py --write          writes docs/attacks.md as well; with
                                           --group: its rows alone

Each attack runs in a process of its own, whose seconds of work and growth of
memory are measured. It is held where it ends in one line of words (a ValueError
or an OSError, as every command prints them), leaves the rest of the work done,
and stays below a minute and a gigabyte. A running page is attacked by
soak_page.py.
No attack can take more than 8 GB: it ends there.
"""

import argparse
import asyncio
import contextlib
import csv
import gzip
import hashlib
import importlib
import io
import json
import multiprocessing
import os
import pathlib
import re
import resource
import shutil
import struct
import sys
import tempfile
import time
import types
import zipfile
import zlib
from collections.abc import Callable
from typing import NamedTuple

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import jax
import numpy as np
import safetensors.numpy

from data_prep import ptbxl, tables
from ecgtwin_jax.app import guard
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import (
  ECG,
  EXAMPLE_RECORD,
  LEADS,
  quiet_wfdb,
  read_ecg,
)
from ecgtwin_jax.data.whole_files import is_sealed, seal

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / "docs" / "attacks.md"
SECONDS, MEGABYTES = 60, 1024  # of one attack
MOST = 8 << 30  # bytes, so that a machine survives what gets through
SIGNAL = np.random.default_rng(0).normal(0, 0.3, (5000, 12))
SHIPPED = ROOT / "ecgtwin_jax" / "assets" / "simulated-small"
HEADER = """# Attacks tried

Made by `python tests/attacks.py --write`: what a recording, a table, a twin
directory, a command or a visitor of the page can say to do harm, and what came
of it. Memory is the growth of the process that reads it; an outcome is the line
that a user reads. SECURITY.md, in the repository, says what is trusted, what is
not, and the limits.

More of the kind, and what it came to on two busy cores:

- `python tests/soak_page.py`, hostile uploads while another visitor uses the
  page: 200 of 46 kinds, all refused. The page and what it starts took 386 MB
  before and at most 1027 MB (limit 1536 MB); the other visitor was answered 29
  times, after at most 6.5 s (limit 10 s); SIGTERM ended it with code 0.
- `python tests/soak_interruptions.py`, kills at random moments: 20 of 20
  trainings of stage 1 ended bit for bit as the one that nobody touched, and so
  did, by `--jobs=preparation,requests,evaluation`, 20 of 20 requests, 20 of 20
  evaluations, and 23 of 23 preparations, of which 3 had begun to write.
- `pytest -m slow tests/test_fuzz.py`, files damaged at random until 150 s of
  work are spent on each of eight kinds, warnings being faults: nothing in
  headers, .npz files, indices of twins, 49,174 CSV files, 19,498 files of
  devices, 32,292 weights and statements of twins, 85,507 tables and 191,416
  request files. What it found before is mended, and tried again by each test
  run.
"""


class Attack(NamedTuple):
  """One attack.

  Attributes:
    group: what is attacked.
    name: what it does.
    prepare: from a folder to what runs in the process that is measured; it
      returns what came of it in words where that is no error.
  """

  group: str
  name: str
  prepare: Callable[[pathlib.Path], Callable[[], str]]


def refused(action, *arguments, **options):
  """Runs an action that has to end in a line of words."""

  def run():
    action(*arguments, **options)
    raise AssertionError("accepted")

  return run


# Records of WFDB


def _record(folder, first=None, change=None, tail=""):
  ECG(SIGNAL, 500, "rec").write(folder / "rec.hea")
  lines = (folder / "rec.hea").read_text().splitlines()
  if first:
    lines[0] = first
  if change:
    lines = [change(line) for line in lines]
  (folder / "rec.hea").write_text("\n".join(lines) + "\n" + tail)
  return folder / "rec"


def _header(**options):
  return lambda folder: refused(read_ecg, _record(folder, **options))


def _instead(name, make):
  """A record with something else where one of its files was."""

  def prepare(folder):
    path = _record(folder)
    (folder / name).unlink()
    make(folder / name)
    return refused(read_ecg, path)

  return prepare


def _segments(first, *lines):
  def prepare(folder):
    _record(folder)
    (folder / "all.hea").write_text("\n".join([first, *lines]) + "\n")
    return refused(read_ecg, folder / "all")

  return prepare


def _zeros(path):
  path.symlink_to("/dev/zero")


def _sparse(path):
  with path.open("wb") as file:
    file.truncate(1 << 40)


def _form(form):
  return lambda line: line.replace(" 16 ", f" {form} ")


HEADERS = {
  "rate -500": _header(first="rec 12 -500 5000"),
  "rate /500": _header(first="rec 12 /500 5000"),
  "rate (500)": _header(first="rec 12 (500) 5000"),
  "rate nan": _header(first="rec 12 nan 5000"),
  "rate 1e999": _header(first="rec 12 1e999 5000"),
  "rate 1e300": _header(first="rec 12 1e300 5000"),
  "10^12 samples promised": _header(first="rec 12 500 1000000000000"),
  "a number of samples with 10^5 digits": _header(
    first=f"rec 12 500 {'9' * 10**5}"
  ),
  "999,999,999 signals": _header(first="rec 999999999 500 5000"),
  "skew of 5e7": _header(change=_form("16:50000000")),
  "skew of 5e7, 10^12 compressed samples": _header(
    first="rec 12 500 1000000000000", change=_form("516:50000000")
  ),
  "10^12 compressed samples": _header(
    first="rec 12 500 1000000000000", change=_form("516")
  ),
  "10^6 samples per frame": _header(change=_form("16x1000000")),
  "byte offset of 10^18": _header(change=_form(f"16+{10**18}")),
  "unknown format 999": _header(change=_form("999")),
  "gain 1e-320": _header(change=lambda x: x.replace("1000.0(0)", "1e-320(0)")),
  "baseline of 400 digits": _header(
    change=lambda x: x.replace("(0)", f"({'9' * 400})")
  ),
  "data file ../rec.dat": _header(
    change=lambda x: x.replace("rec.dat", "../rec.dat")
  ),
  "data file /etc/passwd": _header(
    change=lambda x: x.replace("rec.dat", "/etc/passwd")
  ),
  "20 MB of comments": _header(tail=("# " + "x" * 998 + "\n") * 20_000),
  "a comment of 20 MB": _header(tail="# " + "x" * 20_000_000),
  "20 MB of noise as header": _instead(
    "rec.hea",
    lambda path: path.write_bytes(np.random.default_rng(0).bytes(20_000_000)),
  ),
  "the header is a FIFO": _instead("rec.hea", os.mkfifo),
  "the data file is a FIFO": _instead("rec.dat", os.mkfifo),
  "the header is /dev/zero": _instead("rec.hea", _zeros),
  "the data file is /dev/zero": _instead("rec.dat", _zeros),
  "the header is a sparse file of 1 TB": _instead("rec.hea", _sparse),
  "10^9 segments": _segments("all/1000000000 12 500 5000", "rec 5000"),
  "a segment that is the record itself": _segments(
    "all/2 12 500 5000", "all 2500", "all 2500"
  ),
  "a segment of 10^12 samples": _segments(
    "all/1 12 500 1000000000000", "rec 1000000000000"
  ),
}

# Arrays and text


def _npz(**changes):
  def prepare(folder):
    arrays = {
      "signal": SIGNAL.astype(np.float32),
      "sampling_rate": 500.0,
      "leads": np.array(LEADS),
      "units": "mV",
    }
    made = {k: v() if callable(v) else v for k, v in changes.items()}
    np.savez_compressed(folder / "a.npz", **{**arrays, **made})
    return refused(read_ecg, folder / "a.npz")

  return prepare


def _lying_npy(shape, dtype="<f4", data=b"\0" * 64):
  """Bytes of an array whose header says another shape than there is."""
  text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}}}"
  text = text.ljust(117) + "\n"
  head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
  return head + data


def _lying_npz(*arguments, **options):
  def prepare(folder):
    np.savez(folder / "a.npz", sampling_rate=500.0, leads=LEADS, units="mV")
    with zipfile.ZipFile(folder / "a.npz", "a", zipfile.ZIP_DEFLATED) as file:
      file.writestr("signal.npy", _lying_npy(*arguments, **options))
    return refused(read_ecg, folder / "a.npz")

  return prepare


def _csv(text):
  def prepare(folder):
    (folder / "a.csv").write_text(text() if callable(text) else text)
    return refused(read_ecg, folder / "a.csv")

  return prepare


_BARE = {"sampling_rate": 500, "leads": LEADS, "unit": "mV"}


def _npy(shape):
  def prepare(folder):
    (folder / "a.npy").write_bytes(_lying_npy(shape))
    return refused(read_ecg, folder / "a.npy", **_BARE)

  return prepare


def _mat_bomb(folder):
  """800 MB of zeros in 4 MB, in MATLAB's own packing."""
  pack = zlib.compressobj(1)
  rows = 1 << 26  # of 12 bytes
  pieces = [pack.compress(_matlab_head(rows))]
  pieces += [pack.compress(bytes(1 << 24)) for _ in range(rows * 12 >> 24)]
  data = b"".join([*pieces, pack.flush()])
  head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H2s", 256, b"IM")
  tag = struct.pack("<II", 15, len(data))
  (folder / "a.mat").write_bytes(head + tag + data)
  return refused(read_ecg, folder / "a.mat", **_BARE)


def _matlab_head(rows):
  """The start of an array `val` of (rows, 12) bytes."""
  words = struct.pack("<IIII", 6, 8, 9, 0)
  words += struct.pack("<IIii", 5, 8, rows, 12)
  words += struct.pack("<HH4s", 1, 3, b"val\0")
  words += struct.pack("<II", 2, rows * 12)
  return struct.pack("<II", 14, len(words) + rows * 12) + words


_NAMES = ",".join(LEADS)
ARRAYS = {
  "80 million characters as leads": _npz(leads=lambda: np.zeros(10**6, "U80")),
  "16,000 leads of one character": _npz(leads=np.zeros(16_000, "U1")),
  "80 million characters as comments": _npz(
    comments=lambda: np.zeros(10**6, "U80")
  ),
  "1.2 GB of integers, packed in 1.2 MB": _npz(
    signal=lambda: np.zeros((10**8, 12), np.int8)
  ),
  "960 MB of integers, packed in 1 MB": _npz(
    signal=lambda: np.zeros((8 * 10**7, 12), np.int8)
  ),
  "an array that is not known": _npz(more=lambda: np.zeros(10**7)),
  "a pickled object": _npz(signal=np.array([print], object)),
  "complex numbers": _npz(signal=SIGNAL.astype(complex)),
  "a header that says (10^12, 12)": _lying_npz((10**12, 12)),
  "a header that says (-1, 12)": _lying_npz((-1, 12)),
  "a header that says (0, 2^62)": _lying_npz((0, 2**62), data=b""),
  "a header that is code": _lying_npz("__import__('os').getpid()"),
  "a bare array that says (10^12, 12)": _npy((10**12, 12)),
  "a MATLAB file that unpacks to 800 MB": _mat_bomb,
  "a sampling rate that is text": _npz(sampling_rate="500"),
  "a rate of 1e18": _npz(sampling_rate=1e18),
  "comments that are one text": _npz(comments="none"),
  "comments of half characters": _npz(comments=["\ud800"]),
  "CSV, a column of times that no line has": _csv(
    "I,II,time\n" + "1,2\n" * 5000
  ),
  "CSV, rate 1e18": _csv(f"# sampling_rate=1e18\n{_NAMES}\n1,2\n"),
  "CSV, rate 5_00": _csv(
    lambda: f"# sampling_rate=5_00\n{_NAMES}\n" + ("1," * 11 + "2\n") * 5000
  ),
  "CSV of 10 million lines": _csv(
    lambda: f"# sampling_rate=500\n{_NAMES}\n" + "1\n" * 10**7
  ),
  "CSV of 20 MB of comments": _csv(
    lambda: "# age 9\n" * 2_500_000 + f"# sampling_rate=500\n{_NAMES}\n1\n"
  ),
  "CSV of one line of 20 MB": _csv(
    lambda: f"# sampling_rate=500\n{_NAMES}\n" + "1," * 10**7
  ),
}

# Conditions and tables


def _statement(text):
  return lambda folder: refused(Condition, [text], 70)


def _table(cells, column="scp_codes"):
  """A recording whose cell is bad is left out, the next one is not."""
  codes = {"NORM": (False, "normal ECG")}

  def read(path):
    outcomes = []
    for _, row in tables.read_table(path, ["scp_codes", "age", "path"]):
      try:
        ptbxl.parse_codes(row["scp_codes"], codes)
        tables.parse_age(row["age"])
        tables.path_inside(path.parent, row["path"])
        outcomes.append("read")
      except tables.RecordingError as error:
        outcomes.append(f"left out: {error}")
    assert outcomes[1:] == ["read"], outcomes
    assert outcomes[0].startswith("left out"), "accepted"
    return outcomes[0]

  def prepare(folder):
    good = {"scp_codes": "{'NORM': 100.0}", "age": "50", "path": "a/b"}
    with (folder / "t.csv").open("w", newline="") as file:
      table = csv.DictWriter(file, list(good))
      table.writeheader()
      table.writerows([good | {column: cells}, good])
    return lambda: read(folder / "t.csv")

  return prepare


def _bomb(folder):
  """10 GB of zeros in 10 MB."""
  piece = gzip.compress(b"\0" * (1 << 24))
  (folder / "p.csv.gz").write_bytes(piece * 640)
  return refused(list, tables.read_table(folder / "p.csv.gz", ["a"]))


def _failed(folder):
  """What a row says of itself, in the table of those that failed."""
  from ecgtwin_jax.jobs import requests

  evil = "=cmd|' /C calc'!A0"
  del folder

  def run():
    cell = requests.as_cell(evil)
    assert cell[0] not in "=+-@", cell
    return f"escaped: {cell}"

  return run


# Files of devices


def _labels(folder):
  """Names of signals with a line break and an escape code."""
  ECG(SIGNAL, 500, "rec").write(folder / "a.edf")
  data = (folder / "a.edf").read_bytes()
  names = b"x\ny\x1b[2J         " * int(data[252:256])
  (folder / "a.edf").write_bytes(data[:256] + names + data[256 + len(names) :])
  return refused(read_ecg, folder / "a.edf")


def _xml(entities, said):
  def prepare(folder):
    (folder / "a.xml").write_text(
      f'<?xml version="1.0"?><!DOCTYPE x [{entities}]>'
      f'<AnnotatedECG xmlns="urn:hl7-org:v3"><id>{said}</id></AnnotatedECG>'
    )
    return refused(read_ecg, folder / "a.xml")

  return prepare


_LAUGHS = '<!ENTITY l0 "lol">' + "".join(
  f'<!ENTITY l{i + 1} "{f"&l{i};" * 10}">' for i in range(10)
)
DEVICES = {
  "EDF, names with line breaks": _labels,
  "XML, entities of 10^10 characters": _xml(_LAUGHS, "&l10;"),
  "XML, an entity that is /etc/passwd": _xml(
    '<!ENTITY x SYSTEM "file:///etc/passwd">', "&x;"
  ),
}
TABLES = {
  "a statement of 5 MB": _statement("x" * 5_000_000),
  "a statement of 301 characters": _statement("x" * 301),
  "a statement with a control character": _statement("Sinus\x00rhythm"),
  "a statement that turns text around": _statement("Sinus \u202erhythm"),
  "10^6 statements": lambda folder: refused(Condition, ["a"] * 10**6, 70),
  "scp_codes: a number of 400 digits": _table(f"{{'NORM': {'9' * 400}}}"),
  "scp_codes: 20,000 signs": _table(f"{{'NORM': {'-' * 20_000}1}}"),
  "scp_codes: 1,500 brackets": _table("[" * 1500),
  "scp_codes: 300,000 characters": _table("x" * 300_000),
  "age 1_0": _table("1_0", "age"),
  "age of other digits": _table("１０", "age"),
  "age 1e999": _table("1e999", "age"),
  "time before the year 1, in UTC": lambda folder: refused(
    tables.parse_time, "0001-01-01T00:00:00+05:00"
  ),
  "record /etc/passwd": _table("/etc/passwd", "path"),
  "record ../../x": _table("../../x", "path"),
  "record a\\..\\..\\x": _table("a\\..\\..\\x", "path"),
  "record a../x": _table("a../x", "path"),
  "a table that unpacks to 10 GB": _bomb,
  "=cmd|... as a record of requests": _failed,
}

# Twin directories, with hashes that fit what was put there


def _twin(change):
  def prepare(folder):
    path = folder / "twin"
    shutil.copytree(SHIPPED, path)
    change(path)
    return refused(_load, path)

  return prepare


def _load(path):
  from ecgtwin_jax.inference.twin import load_twin

  load_twin(path)


def _index(change):
  def apply(path):
    index = json.loads((path / "twin.json").read_text())
    changed = change(index)
    index = index if changed is None else changed
    (path / "twin.json").write_text(json.dumps(index))

  return _twin(apply)


def _part(change, part="denoiser"):
  """Bytes from bytes, sealed again."""

  def apply(path):
    file = path / f"{part}.safetensors"
    file.write_bytes(change(file.read_bytes()))
    index = json.loads((path / "twin.json").read_text())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    index["parts"][part]["sha256"] = digest
    (path / "twin.json").write_text(json.dumps(index))

  return _twin(apply)


def _arrays(change):
  def apply(data):
    return safetensors.numpy.save(change(safetensors.numpy.load(data)))

  return _part(apply)


def _replace(name, make):
  def apply(path):
    (path / name).unlink()
    make(path / name)

  return _twin(apply)


def _table_file(name, make):
  """Another file of the statement table, sealed again."""

  def apply(path):
    (path / name).unlink()
    make(path / name)
    index = json.loads((path / "twin.json").read_text())
    digest = hashlib.sha256((path / name).read_bytes()).hexdigest()
    index["table"][name] = digest
    (path / "twin.json").write_text(json.dumps(index))

  return _twin(apply)


def _first(value):
  def change(arrays):
    name = next(iter(arrays))
    return arrays | {name: value(arrays[name])}

  return change


def _set(*keys, to):
  def change(index):
    for key in keys[:-1]:
      index = index[key]
    index[keys[-1]] = to

  return change


def _turn_statements(path):
  """The same statements from the last to the first, not sealed again."""
  record = json.loads((path / "statements.json").read_text())
  record["statements"].reverse()
  (path / "statements.json").write_text(json.dumps(record))


_MODEL = ("parts", "denoiser", "hyper", "model")
TWINS = {
  "twin.json is a FIFO": _replace("twin.json", os.mkfifo),
  "twin.json is /dev/zero": _replace("twin.json", _zeros),
  "twin.json is a sparse file of 1 TB": _replace("twin.json", _sparse),
  "weights are a FIFO": _replace("denoiser.safetensors", os.mkfifo),
  "weights are /dev/zero": _replace("denoiser.safetensors", _zeros),
  "weights are a sparse file of 1 TB": _replace(
    "denoiser.safetensors", _sparse
  ),
  "statements.json is a FIFO": _replace("statements.json", os.mkfifo),
  "statements.npy is /dev/zero": _replace("statements.npy", _zeros),
  "statements.json in another order": _twin(_turn_statements),
  "statements.json with escape codes": _table_file(
    "statements.json",
    lambda path: path.write_text(
      (SHIPPED / path.name).read_text().replace("Sinus", "\\u001b[2J")
    ),
  ),
  "statements.npy of NaN": _table_file(
    "statements.npy", lambda p: np.save(p, np.full((26, 768), np.nan))
  ),
  "statements.json is a list": _table_file(
    "statements.json", lambda path: path.write_text("[]")
  ),
  "statements.json 100,000 lists deep": _table_file(
    "statements.json", lambda path: path.write_text("[" * 100_000)
  ),
  "statements.npy is a pickle": _table_file(
    "statements.npy", lambda p: np.save(p, np.array([print], object))
  ),
  "statements.npy says (10^12, 768)": _table_file(
    "statements.npy", lambda p: p.write_bytes(_lying_npy((10**12, 768)))
  ),
  "statements.npy holds text": _table_file(
    "statements.npy", lambda p: np.save(p, np.zeros((26, 768), "U1"))
  ),
  "twin.json is a list": _index(lambda index: []),
  "parts is a list": _index(_set("parts", to=[])),
  "a part is a number": _index(_set("parts", "denoiser", to=3)),
  "a part without sha256": _index(
    lambda index: index["parts"]["denoiser"].pop("sha256") and None
  ),
  "a part named ../x": _index(
    lambda index: index["parts"].update({"../x": index["parts"]["vae"]})
  ),
  "a rhythm model without the name of an encoder": _index(
    lambda index: (
      index["parts"]["rhythm"]["hyper"].pop("statement_encoder") and None
    )
  ),
  "a scale of latents that is null": _index(
    _set("parts", "denoiser", "hyper", "latent_scale", to=None)
  ),
  "a range of latents that is text": _index(
    _set("parts", "denoiser", "hyper", "latent_clip", to="5.8")
  ),
  "no hyper-parameters": _index(_set("parts", "denoiser", "hyper", to={})),
  "unknown hyper-parameter": _index(_set(*_MODEL, "evil", to=1)),
  "a width of 10^9": _index(_set(*_MODEL, "width", to=10**9)),
  "a width that is text": _index(_set(*_MODEL, "width", to="96")),
  "a depth of 10^9": _index(_set(*_MODEL, "depth", to=10**9)),
  "10^12 steps of the schedule": _index(
    _set("parts", "denoiser", "hyper", "schedule", "steps", to=10**12)
  ),
  "JSON 100,000 lists deep": _twin(
    lambda path: (path / "twin.json").write_text("[" * 100_000)
  ),
  "weights that are noise": _part(
    lambda data: np.random.default_rng(0).bytes(10**6)
  ),
  "weights cut short": _part(lambda data: data[: len(data) // 2]),
  "a header of 2^60 bytes": _part(
    lambda data: struct.pack("<Q", 2**60) + data[8:]
  ),
  "empty weights": _part(lambda data: b""),
  "weights of another part": _twin(
    lambda path: (
      shutil.copy(path / "vae.safetensors", path / "rhythm.safetensors"),
      _copy_entry(path, "vae", "rhythm"),
    )
  ),
  "an array is missing": _arrays(lambda arrays: dict(list(arrays.items())[1:])),
  "an array of another shape": _arrays(_first(lambda x: x[..., :1])),
  "an array of NaN": _arrays(_first(lambda x: x * np.float16("nan"))),
  "an array of integers": _arrays(_first(lambda x: x.astype(np.int32))),
  "a part of one array": _part(
    lambda data: safetensors.numpy.save({"params": np.zeros(3, np.float32)}),
    "rhythm",
  ),
  "one array more": _arrays(lambda arrays: arrays | {"params/x": np.zeros(3)}),
  "a name that is a file and a folder": _arrays(
    lambda arrays: arrays | {f"{next(iter(arrays))}/x": np.zeros(3)}
  ),
}


def _copy_entry(path, source, part):
  index = json.loads((path / "twin.json").read_text())
  sha256 = index["parts"][source]["sha256"]
  index["parts"][part]["sha256"] = sha256
  (path / "twin.json").write_text(json.dumps(index))


# Commands


def _command(*arguments, program="ecgtwin_jax.main", before=None):
  def prepare(folder):
    if before is not None:
      before(folder)
    words = [x.replace("{folder}", str(folder)) for x in arguments]
    return lambda: _run_command(program, words)

  return prepare


def _run_command(program, words):
  module = importlib.import_module(program)
  error = io.StringIO()
  # What it prints must not count as a file, where a file's size is limited.
  with (
    contextlib.redirect_stdout(io.StringIO()),
    contextlib.redirect_stderr(error),
  ):
    code = module.main(words)
  text = error.getvalue()
  lines = [x for x in text.splitlines() if x.startswith("error:")]
  assert code == 1 and len(lines) == 1, f"exit code {code}: {text[-300:]}"
  return lines[0].removeprefix("error: ")


def _unwritable(folder):
  (folder / "file").write_text("")


def _small_disk(folder):
  """A limit on the size of a file, which ends a write as a full disk does."""
  del folder
  resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def _data(folder):
  from data_prep import simulated

  simulated.prepare(folder / "data", patients=20, recordings=2)


def _data_and_small_disk(folder):
  _data(folder)
  _small_disk(folder)


def _held(name):
  def before(folder):
    from ecgtwin_jax.data.whole_files import hold

    (folder / name).mkdir()
    _held.kept = hold(folder / name)
    _held.kept.__enter__()

  return before


_GENERATE = (
  "--config=generate",
  "--config.num_samples=1",
  "--config.sampling.steps=2",
)
_PREPARE = ("simulated", "--patients=10", "--recordings=2", "--workers=1")
_TRAIN = (
  *("--config=vae:smoke", "--workdir={folder}/x"),
  *("--config.data={folder}/data", "--config.cohort.path={folder}/data"),
  "--config.cohort.patients=20",
)
COMMANDS = {
  "--config=/etc/passwd": _command("--config=/etc/passwd"),
  "--config=/dev/zero": _command("--config=/dev/zero"),
  "a configuration that is no Python": _command(
    "--config={folder}/x.py", before=lambda f: (f / "x.py").write_text("a b c")
  ),
  "ECGs into a folder that is a file": _command(
    *_GENERATE, "--workdir={folder}/file/x", before=_unwritable
  ),
  "ECGs onto a full disk": _command(
    *_GENERATE, "--workdir={folder}/x", before=_small_disk
  ),
  "a data set into a folder that is a file": _command(
    *_PREPARE,
    "--output={folder}/file/x",
    program="data_prep.__main__",
    before=_unwritable,
  ),
  "a data set onto a full disk": _command(
    *_PREPARE,
    "--output={folder}/x",
    program="data_prep.__main__",
    before=_small_disk,
  ),
  "a training onto a full disk": _command(
    *_TRAIN, "--config.steps=2", before=_data_and_small_disk
  ),
  "two preparations of one data set": _command(
    *_PREPARE,
    "--output={folder}/x",
    program="data_prep.__main__",
    before=_held("x.partial"),
  ),
  "two trainings in one folder": _command(*_TRAIN, before=_held("x")),
  "two evaluations in one folder": _command(
    "--config=evaluate",
    "--workdir={folder}/x",
    "--config.data={folder}/data",
    before=lambda folder: (_data(folder), _held("x")(folder)),
  ),
  "an evaluation into a folder that is a file": _command(
    "--config=evaluate",
    "--workdir={folder}/file/x",
    "--config.data={folder}/data",
    before=lambda folder: (_data(folder), _unwritable(folder)),
  ),
  "two runs of requests in one folder": _command(
    "--config=generate",
    "--config.requests={folder}/r.csv",
    "--workdir={folder}/x",
    before=lambda folder: (
      _held("x")(folder),
      (folder / "r.csv").write_text(
        "record,now_statements,target_statements,target_heart_rate\n"
      ),
    ),
  ),
}


# Files of earlier runs


def _leaked_arm(folder):
  """An array of an evaluation is replaced by what it should be like."""
  np.save(folder / "arm.npy", np.zeros(3))
  seal(folder / "arm.npy", "the twin's digest")

  def run():
    assert is_sealed(folder / "arm.npy", "the twin's digest")
    np.save(folder / "arm.npy", np.ones(3))
    assert not is_sealed(folder / "arm.npy", "the twin's digest")
    return "made again: its sha256 is not the kept one"

  return run


def _emptied_row(folder):
  (folder / "r.csv").write_text(
    "record,now_statements,target_statements,target_heart_rate\n"
    f"{EXAMPLE_RECORD},Sinus rhythm,Sinus rhythm,70\n"
  )
  words = [
    *(*_GENERATE, "--config.twin=simulated-small"),
    *(f"--config.requests={folder}/r.csv", f"--workdir={folder}/x"),
  ]

  from ecgtwin_jax import main

  with contextlib.redirect_stdout(io.StringIO()):
    assert main.main(words) == 0
  (data,) = (folder / "x").rglob("*.dat")
  size = data.stat().st_size
  data.write_bytes(b"")

  def run():
    with contextlib.redirect_stdout(io.StringIO()):
      assert main.main(words) == 0
    assert data.stat().st_size == size
    return f"made again: {size} bytes"

  return run


KEPT = {
  "an arm of an evaluation is leaked truth": _leaked_arm,
  "an empty .dat in a row of requests that is done": _emptied_row,
}


# The page


def _asked(**headers):
  """A request to a page on loopback."""

  def run():
    sent = []

    async def page(scope, receive, send):
      raise AssertionError("it reached the page")

    async def send(message):
      sent.append(message)

    coded = [(k.encode(), v.encode()) for k, v in headers.items()]
    scope = {"type": "http", "path": "/", "method": "GET", "headers": coded}
    app = guard.Guard(page, guard.LOOPBACK, 1 << 20, "none")
    asyncio.run(app(scope, None, send))
    detail = json.loads(sent[1]["body"])["detail"]
    return f"{sent[0]['status']}: {detail}"

  return lambda folder: run


def _posts(folder):
  """45 requests of one session, of which none is done meanwhile."""
  del folder
  events = types.SimpleNamespace(queue=[])
  queue = types.SimpleNamespace(event_queue_per_concurrency_id={"t": events})

  async def push(body):
    events.queue.append(body)
    return True, "", "success"

  queue.push = push

  def run():
    guard.limit_places(queue)
    one = types.SimpleNamespace(session_hash="one")
    answers = [asyncio.run(queue.push(body=one)) for _ in range(45)]
    assert len(events.queue) == guard.PLACES
    return answers[-1][1]

  return run


VISITS = {
  "a foreign Host": _asked(host="evil.example:7860"),
  "a foreign Origin": _asked(host="localhost", origin="http://evil.example"),
  "a request of 10^12 bytes": _asked(
    **{"host": "localhost", "content-length": str(10**12)}
  ),
  "45 requests of one visitor": _posts,
}
GROUPS = {
  "record": HEADERS,
  "arrays": ARRAYS,
  "device": DEVICES,
  "table": TABLES,
  "twin": TWINS,
  "command": COMMANDS,
  "kept": KEPT,
  "page": VISITS,
}
ATTACKS = [
  Attack(group, name, prepare)
  for group, attacks in GROUPS.items()
  for name, prepare in attacks.items()
]


class Outcome(NamedTuple):
  """What came of an attack: whether it was held, in words, at which cost."""

  held: bool
  words: str
  seconds: float
  megabytes: float


def try_attack(attack: Attack) -> Outcome:
  """Runs an attack in a process of its own."""
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_attacked, args=(attack, folder, theirs))
    child.start()
    theirs.close()
    try:
      ended = ours.poll(20 * SECONDS)  # however busy the machine is
      answer = ours.recv() if ended else (False, "no end")
    except EOFError:
      answer = (False, "the process died")
    if len(answer) == 2:
      answer = (*answer, float("nan"), float("nan"))
    child.kill()
    child.join()
  outcome = Outcome(*answer)
  cheap = outcome.seconds < SECONDS and outcome.megabytes < MEGABYTES
  words = re.sub(r"\s+", " ", outcome.words.replace(f"{folder}/", ""))
  return outcome._replace(held=outcome.held and cheap, words=words)


def _attacked(attack, folder, pipe):
  with quiet_wfdb():
    pass
  if attack.group in ("twin", "command", "kept"):
    importlib.import_module("ecgtwin_jax.inference.twin")
  if attack.group == "twin":
    jax.devices()
  run = attack.prepare(folder)
  resource.setrlimit(resource.RLIMIT_DATA, (MOST, MOST))
  before = _peak(reset=True)
  began = time.process_time()
  try:
    held, words = True, run()
  except (ValueError, OSError) as error:
    held, words = "\n" not in str(error), str(error)
  except BaseException as error:
    held, words = False, f"{type(error).__name__}: {error}"
  seconds = time.process_time() - began
  pipe.send((held, words[:2000], seconds, (_peak() - before) / 2**20))


def _peak(reset=False):
  """Highest resident memory of this process, since it was last reset."""
  if reset:
    pathlib.Path("/proc/self/clear_refs").write_text("5")
  status = pathlib.Path("/proc/self/status").read_text()
  return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024


def to_row(attack: Attack, outcome: Outcome) -> str:
  """One line of the table."""
  words = outcome.words.replace("|", "\\|").replace("<", "&lt;")
  words = words if len(words) <= 110 else f"{words[:107]}..."
  held = "held" if outcome.held else "FELL"
  cells = (
    *(attack.group, attack.name.replace("|", "\\|"), held, f"`{words}`"),
    *(f"{outcome.seconds:.1f}", f"{max(0.0, outcome.megabytes):.0f}"),
  )
  return f"| {' | '.join(cells)} |"


def main() -> int:
  parser = argparse.ArgumentParser()
  parser.add_argument("--group", choices=GROUPS)
  parser.add_argument("--name", default="")
  parser.add_argument("--write", action="store_true")
  parsed = parser.parse_args()
  rows = [
    "| what | attack | | outcome | s | MB |",
    "|---|---|---|---|---|---|",
  ]
  print("\n".join(rows), flush=True)
  fell = 0
  chosen = [x for x in ATTACKS if parsed.group in (None, x.group)]
  chosen = [x for x in chosen if parsed.name in x.name]
  for attack in chosen:
    outcome = try_attack(attack)
    fell += not outcome.held
    rows.append(to_row(attack, outcome))
    print(rows[-1], flush=True)
    if parsed.write:
      write_page(dict(zip(chosen, rows[2:], strict=False)), rows[:2])
  print(f"\n{len(chosen) - fell} of {len(chosen)} attacks were held.")
  return 1 if fell else 0


def write_page(found: dict[Attack, str], head: list[str]) -> None:
  """Writes the table of all attacks; rows of those not tried now are kept."""
  kept = PAGE.read_text().splitlines() if PAGE.exists() else []
  rows = []
  for attack in ATTACKS:
    first = to_row(attack, Outcome(True, "", 0, 0)).partition("| held")[0]
    there = [line for line in kept if line.startswith(first)]
    rows += [found[attack]] if attack in found else there
  held = sum("| held |" in row for row in rows)
  total = f"{held} of {len(rows)} attacks with a row were held."
  if missing := len(ATTACKS) - len(rows):
    total += f" The script has {missing} more."
  PAGE.write_text("\n".join([HEADER, total, "", *head, *rows]) + "\n")


if __name__ == "__main__":
  sys.exit(main())
