"""Files and tables that mean harm, or say what cannot be: refused in words."""

import csv
import datetime
import gzip
import hashlib
import json
import os
import pathlib
import shutil
import time
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from data_prep import ptbxl, tables
from ecgtwin_jax.app import guard, uploads
from ecgtwin_jax.app.uploads import read_upload
from ecgtwin_jax.data import errors, wfdb_record
from ecgtwin_jax.data.conditions import (
  MAX_STATEMENT,
  MAX_STATEMENTS,
  Condition,
)
from ecgtwin_jax.data.ecg import ECG, LEADS, read_ecg
from ecgtwin_jax.data.errors import RecordingError
from ecgtwin_jax.diffusion.schedule import MAX_STEPS
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.inference.parameters import MAX_SIZE
from ecgtwin_jax.inference.twin import load_twin
from ecgtwin_jax.jobs import requests

SIGNAL = np.random.default_rng(0).normal(0, 0.3, (5000, 12))


@pytest.fixture
def record(tmp_path):
  """A sound record at 500 Hz: its folder, and the lines of its header."""
  ECG(SIGNAL, 500, "rec").write(tmp_path / "rec.hea")
  lines = (tmp_path / "rec.hea").read_text().splitlines()
  assert lines[0].split() == ["rec", "12", "500", "5000"]
  return tmp_path, lines


def with_first_line(record, line):
  folder, lines = record
  (folder / "rec.hea").write_text("\n".join([line, *lines[1:]]) + "\n")
  return folder / "rec.hea"


@pytest.mark.parametrize(
  "line",
  [
    "rec 12 -500 5000",
    "rec 12 /500 5000",
    "rec 12 (500) 5000",
    "rec 12 500Hz 5000",
    "rec 12 nan 5000",
    "rec 12 1_000 5000",
    "rec twelve 500 5000",
    "rec 12 500 -5000",
    "rec 12 500 5000 and more",
    "rec 999999999 500 5000",
  ],
)
def test_a_record_line_that_cannot_be_read_is_no_250_hz(record, line):
  with pytest.raises(RecordingError, match="header cannot be read") as error:
    read_ecg(with_first_line(record, line))
  assert error.value.rule == "unreadable"


@pytest.mark.parametrize(
  "line",
  [
    "rec 12 500 5000 05-Feb-2020 11:39:16",
    "rec 12 500 5000 11:39:16 05/02/2020",
    "rec 12 500 5000 11:39",
    "rec 12 500/500(0) 5000",
    "rec 12 5e2 5000",
    "rec 12 500.0 5000",
  ],
)
def test_sound_record_lines_are_read(record, line):
  ecg = read_ecg(with_first_line(record, line))
  assert ecg.sampling_rate == 500
  np.testing.assert_allclose(ecg.signal, SIGNAL, atol=5.1e-4)


def test_250_hz_is_the_rate_of_a_line_that_ends_before_it(record):
  ecg = read_ecg(with_first_line(record, "rec 12"))
  assert ecg.sampling_rate == 250


@pytest.mark.parametrize("count", [5001, 10**12])
def test_more_samples_promised_than_the_file_holds(record, count):
  with pytest.raises(RecordingError) as error:
    read_ecg(with_first_line(record, f"rec 12 500 {count}"))
  assert error.value.rule == "truncated"
  assert str(count) in str(error.value)


@pytest.mark.parametrize("form", ["16:50000000", "16x1000000"])
def test_skew_and_frames_are_bounded(record, form):
  folder, lines = record
  lines = [line.replace(" 16 ", f" {form} ") for line in lines]
  (folder / "rec.hea").write_text("\n".join(lines) + "\n")
  tracemalloc.start()
  with pytest.raises(RecordingError, match="samples per frame and a skew"):
    read_ecg(folder / "rec")
  assert tracemalloc.get_traced_memory()[1] < 20e6
  tracemalloc.stop()


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_headers_with_letters_of_other_languages_can_be_uploaded(
  record, encoding
):
  folder, lines = record
  text = "\n".join([*lines, "# Ångström"]) + "\n"
  (folder / "rec.hea").write_bytes(text.encode(encoding))
  ecg = read_upload([str(folder / "rec.hea"), str(folder / "rec.dat")])
  assert ecg.comments[-1] == "Ångström"


@pytest.mark.parametrize("where", ["long comment", "long header", "segment"])
def test_headers_are_no_place_to_store_things(record, where):
  folder, lines = record
  if where == "long comment":
    lines = [*lines, "# " + "x" * 70_000]
  elif where == "long header":
    lines = [*lines, *["# x"] * 400_000]
  else:
    (folder / "all.hea").write_text(f"all/1 12 500 {10**12}\nrec {10**12}\n")
  (folder / "rec.hea").write_text("\n".join(lines) + "\n")
  name = "all" if where == "segment" else "rec"
  with pytest.raises(RecordingError, match=r"must have at most|has 5000"):
    read_ecg(folder / name)


def test_rates_have_a_limit(record):
  with pytest.raises(RecordingError, match="must be at most 20000 Hz"):
    read_ecg(with_first_line(record, "rec 12 1e300 5000"))


def test_only_the_lines_of_a_table_that_are_needed_become_numbers(tmp_path):
  path = tmp_path / "long.csv"
  ECG(SIGNAL, 100, "long").write(path)
  path.write_text(path.read_text() + "\n".join(["never read"] * 10))
  np.testing.assert_array_equal(
    read_ecg(path, 5).signal, SIGNAL[500:1500].astype(np.float32)
  )
  with path.open("a") as file:
    file.write("\n# sampling_rate=1_00\n")
  with pytest.raises(RecordingError, match="'1_00' must be a number"):
    read_ecg(path)


def arrays(**changes):
  return {
    "signal": SIGNAL.astype(np.float32),
    "sampling_rate": 500.0,
    "leads": np.array(LEADS),
    "units": "mV",
    **changes,
  }


@pytest.mark.parametrize(
  "changes,named",
  [
    ({"leads": np.zeros(10**5, "U80")}, "leads"),
    ({"comments": np.zeros(10**5, "U80")}, "comments"),
    ({"more": np.zeros(10**6)}, "more"),
  ],
)
def test_arrays_are_refused_by_their_headers(tmp_path, changes, named):
  path = tmp_path / "big.npz"
  np.savez_compressed(path, **arrays(**changes))
  assert path.stat().st_size < 4e6
  del changes
  tracemalloc.start()
  with pytest.raises(RecordingError, match=named):
    read_ecg(path)
  assert tracemalloc.get_traced_memory()[1] < 20e6
  tracemalloc.stop()


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_any_layout_are_read(tmp_path, order):
  path = tmp_path / "a.npz"
  np.savez(path, **arrays(signal=np.asarray(SIGNAL, order=order)))
  ecg = read_ecg(path, start=0.1, duration=5)
  np.testing.assert_array_equal(ecg.signal, SIGNAL[50:2550].astype(np.float32))


def test_a_long_recording_costs_what_is_read_of_it(tmp_path):
  path = tmp_path / "long.npz"
  signal = np.zeros((2 * 10**6, 12), np.int8)
  signal[500:5500] = 100 * SIGNAL
  np.savez_compressed(path, **arrays(signal=signal))
  del signal
  tracemalloc.start()
  with pytest.raises(RecordingError, match="range"):
    read_ecg(path, start=1)
  assert tracemalloc.get_traced_memory()[1] < 5e6
  tracemalloc.stop()


def test_what_is_read_of_an_array_is_cut_before_it_is_widened(tmp_path):
  path = tmp_path / "long.npz"
  np.savez_compressed(path, **arrays(signal=np.ones((10**6, 12), np.int8)))
  tracemalloc.start()
  with pytest.raises(RecordingError, match="range"):
    read_ecg(path)
  assert tracemalloc.get_traced_memory()[1] < 60e6  # float64: 96 MB more
  tracemalloc.stop()


@pytest.mark.parametrize(
  "statement,reason",
  [
    ("x" * 5_000_000, "5000000 characters"),
    ("x" * 301, "301 characters"),
    ("Sinus\u0000rhythm", "U\\+0000"),
    ("Sinus \u202erhythm", "U\\+202E"),
    ("Sinus\u200brhythm", "U\\+200B"),
  ],
)
def test_statements_that_are_none(statement, reason):
  began = time.monotonic()
  with pytest.raises(ValueError, match=reason) as error:
    Condition([statement], 70)
  assert len(str(error.value)) < 300
  with pytest.raises(RecordingError) as error:
    tables.parse_statements([statement])
  assert error.value.rule == "statements"
  assert time.monotonic() - began < 10


def test_a_statement_may_have_300_characters():
  assert Condition(["x" * 300], 70).statements == ("x" * 300,)


@pytest.mark.parametrize(
  "cell",
  [
    "{'NORM': " + "9" * 400 + "}",
    "{'NORM': " + "-" * 1990 + "1}",
    "{'NORM': " + "-" * 20_000 + "1}",
    "[" * 1500,
    "{'NORM': 100.0" + " " * 200_000 + "}",
  ],
)
def test_codes_that_break_a_parser_leave_one_recording_out(cell):
  with pytest.raises(RecordingError, match="cannot be read") as error:
    ptbxl.parse_codes(cell, {"NORM": (False, "normal ECG")})
  assert error.value.rule == "statements"
  assert len(str(error.value)) < 200


def test_a_cell_above_the_csv_readers_limit_ends_nothing(tmp_path):
  path = tmp_path / "table.csv"
  with path.open("w", newline="") as file:
    csv.writer(file).writerows([["a"], ["x" * 300_000], ["y"]])
  rows = [cells["a"] for _, cells in tables.read_table(path, ["a"])]
  assert [len(rows[0]), rows[1]] == [300_000, "y"]


@pytest.mark.parametrize("cell", ["1_0", "１０", "0x10", "1e99999", "infinity"])
def test_numbers_are_written_as_numbers(cell):
  assert tables.parse_number(cell) is None
  with pytest.raises(RecordingError, match="age"):
    tables.parse_age(cell)


@pytest.mark.parametrize("cell", ["10", "10.5", "-3", ".5", "1e2"])
def test_usual_numbers_are_read(cell):
  assert tables.parse_number(cell) == float(cell)


@pytest.mark.parametrize(
  "cell", ["/etc/passwd", "../other/rec", "a/../../rec", "..\\rec", "a\0b"]
)
def test_records_outside_the_input_are_refused(tmp_path, cell):
  with pytest.raises(RecordingError, match="inside the input folder") as error:
    tables.path_inside(tmp_path, cell)
  assert error.value.rule == "record"


def test_records_inside_the_input_keep_their_path(tmp_path):
  assert tables.path_inside(tmp_path, "a/b") == str(tmp_path / "a" / "b")


def test_dates_are_no_numbers():
  assert tables.parse_time("1970-01-02") == 86_400
  assert tables.parse_date("1970-01-02") == datetime.datetime(1970, 1, 2)


def test_a_table_that_unpacks_to_gigabytes_is_refused_by_its_size(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(tables, "MAX_TABLE", 10_000_000)
  path = tmp_path / "p.csv.gz"
  path.write_bytes(gzip.compress(b"0" * 40_000_000))
  tracemalloc.start()
  with pytest.raises(ValueError, match="more than 10000000 bytes, unpacked"):
    list(tables.read_table(path, ("id",)))
  assert tracemalloc.get_traced_memory()[1] < 8e6
  tracemalloc.stop()


def make_fifo(path):
  (path / "denoiser.safetensors").unlink()
  os.mkfifo(path / "denoiser.safetensors")


def point_to_zeros(path):
  (path / "statements.npy").unlink()
  (path / "statements.npy").symlink_to("/dev/zero")


def nest(path):
  (path / "twin.json").write_text("[" * 100_000)


def grow(path):
  with (path / "vae.safetensors").open("wb") as file:
    file.truncate(1 << 40)


def change_index(path, change):
  index = json.loads((path / "twin.json").read_text())
  change(index["parts"])
  (path / "twin.json").write_text(json.dumps(index))


def widen(path):
  def change(parts):
    parts["denoiser"]["hyper"]["model"]["width"] = 10**9

  change_index(path, change)


def deepen(part, key):
  def change(parts):
    parts[part]["hyper"]["model"][key] = 5000

  return lambda path: change_index(path, change)


def name_another_part(path):
  change_index(path, lambda parts: parts.update({"../x": parts["vae"]}))


def put_other_weights(path):
  shutil.copy(path / "vae.safetensors", path / "rhythm.safetensors")

  def change(parts):
    parts["rhythm"]["sha256"] = parts["vae"]["sha256"]

  change_index(path, change)


def spoil(path):
  file = path / "rhythm.safetensors"
  arrays = {k: v.copy() for k, v in load_file(file).items()}
  next(iter(arrays.values())).flat[0] = np.nan
  save_file(arrays, file)
  digest = hashlib.sha256(file.read_bytes()).hexdigest()
  change_index(path, lambda parts: parts["rhythm"].update(sha256=digest))


def call_it_low(path):
  def change(parts):
    parts["denoiser"]["hyper"]["sampling"]["temperature"] = "low"

  change_index(path, change)


def set_hyper(part, key, value):
  def change(path):
    change_index(path, lambda parts: parts[part]["hyper"].update({key: value}))

  return change


def forget_the_encoder(path):
  def change(parts):
    parts["rhythm"]["hyper"].pop("statement_encoder")

  change_index(path, change)


def name_arrays(part, *names):
  def change(path):
    file = path / f"{part}.safetensors"
    save_file({name: np.ones(3, np.float32) for name in names}, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    change_index(path, lambda parts: parts[part].update(sha256=digest))

  return change


def state(change):
  """Changes the record of the statements, and seals it again."""

  def apply(path):
    record = json.loads((path / "statements.json").read_text())
    change(record)
    (path / "statements.json").write_text(json.dumps(record))
    count = len(record["statements"])
    np.save(path / "statements.npy", np.zeros((count, record["width"])))
    index = json.loads((path / "twin.json").read_text())
    for name in index["table"]:
      data = (path / name).read_bytes()
      index["table"][name] = hashlib.sha256(data).hexdigest()
    (path / "twin.json").write_text(json.dumps(index))

  return apply


def cut(path):
  file = path / "rhythm.safetensors"
  file.write_bytes(file.read_bytes()[:1000])
  digest = hashlib.sha256(file.read_bytes()).hexdigest()
  change_index(path, lambda parts: parts["rhythm"].update(sha256=digest))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (make_fifo, "must be a file"),
    (point_to_zeros, "must be a file"),
    (nest, "is damaged"),
    (grow, "has 1099511627776 bytes, must be at most"),
    (widen, "width=1000000000 must be in 0..65536"),
    (deepen("denoiser", "depth"), r"more blocks than \d+ arrays"),
    (deepen("base_extractor", "beat_gates"), r"more blocks than \d+ arrays"),
    (name_another_part, "its parts must be of vae, base_extractor"),
    (put_other_weights, "the rhythm's arrays are not those"),
    (cut, "rhythm.safetensors is damaged"),
    (spoil, r"rhythm.safetensors is damaged: \S+ must be finite"),
    (call_it_low, "temperature='low' must be in 0"),
    (forget_the_encoder, "cannot be used .KeyError: 'statement_encoder'"),
    (set_hyper("denoiser", "latent_scale", None), "latent_scale=.nan. must"),
    (set_hyper("denoiser", "latent_scale", -1), "latent_scale=.-1.. must be"),
    (set_hyper("denoiser", "latent_clip", "x"), "latent_clip='x' must be ab"),
    (set_hyper("denoiser", "latent_clip", 0), "latent_clip=0 must be above 0"),
    (set_hyper("denoiser", "prediction", "x"), "prediction='x' must be one"),
    (name_arrays("rhythm", "x"), "the rhythm's arrays are not those"),
    (name_arrays("rhythm", "params"), "the rhythm's arrays are not those"),
    (
      name_arrays("vae", "params/encoder", "params/decoder"),
      "the encoder's arrays are not those",
    ),
    (state(lambda r: r.update(width=10)), "width=10 must be 768"),
    (
      state(lambda r: r.update(statements=dict.fromkeys(r["statements"]))),
      "its statements and their encoder must be text",
    ),
    (
      state(lambda r: r["statements"].insert(0, r["statements"].pop() + "\n")),
      "must not hold the control character U.000A",
    ),
    (
      state(lambda r: r["statements"].insert(r["statements"].pop() and 0, " ")),
      "statement ' ' must not be blank",
    ),
  ],
)
def test_a_twin_directory_may_hold_anything(tmp_path, change, message):
  path = tmp_path / "twin"
  shutil.copytree(twin_directory.shipped("simulated-small"), path)
  change(path)
  with pytest.raises(ValueError, match=message) as error:
    load_twin(path)
  assert "\n" not in str(error.value)


def test_security_page_says_the_limits_of_the_code():
  page = (pathlib.Path(__file__).parent.parent / "SECURITY.md").read_text()
  for rule in (
    f"| one statement | {MAX_STATEMENT} characters",
    f"| statements of a condition | {MAX_STATEMENTS} |",
    f"| sampling rate | {errors.MIN_RATE:g} to {errors.MAX_RATE:.0f} Hz |",
    f"1 MiB; comments {wfdb_record.MAX_COMMENTS} characters |",
    f"{wfdb_record.MAX_SIGNALS}; samples of a frame {wfdb_record.MAX_FRAME} |",
    f"{tables.MAX_TABLE >> 30} GiB unpacked; a cell 1 MiB |",
    f"| ECGs of a row of requests | {requests.MAX_SAMPLES} |",
    f"numbers of a model {MAX_SIZE}; steps of the schedule {MAX_STEPS} |",
    f"| {uploads.MAX_FILES} files, 20 MB together",
    f"{uploads.MEMORY >> 20} MiB and {uploads.SECONDS} s, in a process",
    f"{guard.MAX_BODY >> 20} MiB; {guard.PLACES} in the queue per session",
    f"| {guard.MAX_STORED >> 30} GiB together, each file as "
    f"{guard.LEAST_STORED >> 10} KiB at least, for an hour |",
  ):
    assert rule in page
