"""Tables of recordings: 200 damaged copies, workers, and a killed run."""

import collections
import csv
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from data_prep import ptbxl, tables
from data_prep.rows import HELD_OUT, hashed_split
from ecgtwin_jax.data.dataset import SPLITS
from ecgtwin_jax.data.errors import RecordingError
from helpers.recordings import (
  card,
  contents,
  copy_ptbxl,
  read_csv,
  recordings,
  rejections,
)

COPIES = 200


def mutate(kind, header, data, cells, rng):
  """Damages one recording: its header, its data file and its row."""
  if kind == "truncated":
    data = data[: rng.integers(len(data))]
  elif kind == "header bits":
    header = bytearray(header)
    for place in rng.integers(0, len(header), rng.integers(1, 6)):
      header[place] ^= 1 << rng.integers(8)
  elif kind == "data bit":
    data = bytearray(data)
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
  elif kind == "counts":
    old, new = (
      (b" 12 100", b" 11 100"),
      (b" 12 100", b" 99999999999 100"),
      (b"100 1000", b"100 990"),
      (b"100 1000", b"100 100000000000"),
      (b"100 1000", b"10 1000"),
      (b"_lr 12", b"_lr/3 12"),
      (b".dat 16 ", b".dat 212 "),
      (b".dat 16 ", b".dat 16x40000000 "),
      (b".dat 16 ", b".dat 16+77777777777 "),
    )[rng.integers(9)]
    assert old in header
    header = header.replace(old, new)
  elif kind == "empty cell":
    cells[rng.choice([*cells])] = ""
  elif kind == "duplicate":
    cells["ecg_id"] = str(10_000 + rng.integers(20))
  elif kind == "cell bytes":  # what is no UTF-8 is put in below
    cells[rng.choice([*cells])] += "\udcff\udc80"
  elif kind == "empty header":
    header = b""
  elif kind == "no data":
    data = None
  else:
    assert kind == "sound"
  return bytes(header), data, cells


KINDS = ("truncated", "header bits", "data bit", "counts", "empty cell")
KINDS += ("duplicate", "cell bytes", "empty header", "no data", "sound")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
  """200 damaged copies of the recordings, and their kinds in order."""
  folder = tmp_path_factory.mktemp("damaged")
  copy_ptbxl(folder)
  sources = read_csv(folder / "ptbxl_database.csv")
  rng = np.random.default_rng(0)
  rows, kinds = [], []
  for i in range(COPIES):
    source = sources[i % len(sources)]
    kind = KINDS[rng.integers(len(KINDS))]
    header, data = (
      (folder / (source["filename_lr"] + suffix)).read_bytes()
      for suffix in (".hea", ".dat")
    )
    place = f"records100/copies/{i:05d}_lr"
    cells = source | {"ecg_id": str(20_000 + i), "filename_lr": place}
    cells["patient_id"] = str(i // 2)
    cells["strat_fold"] = str(i // 2 % 10 + 1)
    name = os.path.basename(source["filename_lr"]).encode()
    header = header.replace(name, f"{i:05d}_lr".encode())
    header, data, cells = mutate(kind, header, data, cells, rng)
    target = folder / place
    target.parent.mkdir(exist_ok=True)
    target.with_suffix(".hea").write_bytes(header)
    if data is not None:
      target.with_suffix(".dat").write_bytes(data)
    rows.append(cells)
    kinds.append(kind)
  path = folder / "ptbxl_database.csv"
  with open(path, "w", newline="", errors="surrogateescape") as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
  with pytest.raises(UnicodeDecodeError):
    path.read_bytes().decode()
  return folder, kinds, rows


@pytest.fixture(scope="module")
def prepared(damaged, tmp_path_factory):
  folder, _, _ = damaged
  output = tmp_path_factory.mktemp("data") / "data"
  return ptbxl.prepare(folder, output, sampling_rate=100)


def test_200_damaged_copies_are_all_accounted_for(damaged, prepared):
  _, kinds, rows = damaged
  written, rejected = recordings(prepared), rejections(prepared)
  facts = card(prepared)
  assert facts["read"] == COPIES == len(written) + len(rejected)
  assert facts["written"] == len(written)
  rules = collections.Counter(rule for _, rule, _ in rejected)
  assert facts["rejected"] == dict(rules)
  names = collections.Counter([*written, *(name for name, _, _ in rejected)])
  assert names.total() == COPIES

  rule = {name: rule for name, rule, _ in rejected}
  homes = collections.Counter()
  for kind, cells in zip(kinds, rows):
    name = cells["ecg_id"]
    if kind == "sound":
      # But its patient's other recording may have lost its fold.
      assert name in written or rule[name] == "split"
    elif kind in ("truncated", "data bit", "empty header", "no data"):
      expected = {
        "truncated": {"truncated"},
        "data bit": {"checksum"},
        "empty header": {"unreadable"},
        "no data": {"missing_file"},
      }[kind]
      assert rule[name] in expected | {"split"}, kind
    homes[kind] += 1
  assert set(homes) == set(KINDS)
  # No statement was lost, and no condition made up.
  for name, row in written.items():
    assert row["statements"] and 20 <= row["heart_rate"] <= 300
    assert np.isfinite(row["ecg"]).all(), name


def test_any_number_of_workers_gives_the_same(damaged, prepared, tmp_path):
  folder, _, _ = damaged
  several = ptbxl.prepare(
    folder, tmp_path / "data", workers=2, sampling_rate=100
  )
  assert contents(several) == contents(prepared)
  assert len(list(prepared.glob("*train.array_record*"))) > 1


def test_a_killed_run_goes_on_to_the_same_content(tmp_path):
  # 400 recordings that share ten files.
  def change(rows):
    return [
      rows[i % 10] | {"ecg_id": str(i), "patient_id": str(i), "strat_fold": "1"}
      for i in range(400)
    ]

  folder = copy_ptbxl(tmp_path / "in", change)
  whole = ptbxl.prepare(folder, tmp_path / "whole", sampling_rate=100)
  output, done = tmp_path / "data", tmp_path / "data.partial" / "done"
  command = [sys.executable, "-m", "data_prep", "ptbxl", "--workers", "2"]
  command += ["--sampling_rate", "100"]
  command += ["--input", str(folder), "--output", str(output)]
  process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
  shards = len(list(whole.glob("*.array_record*")))
  marks = "[!.]*.json"  # a draft, which begins with a dot, is no mark yet
  while not any(done.glob(marks)):
    assert process.poll() is None
    time.sleep(0.002)
  workers = list_children(process.pid)
  process.kill()
  process.wait()
  assert 0 < len(list(done.glob(marks))) < shards
  assert not output.exists()
  deadline = time.monotonic() + 60
  while any(map(is_alive, workers)):  # they would wait for work for ever
    assert time.monotonic() < deadline
    time.sleep(0.01)
  ready = {path: path.stat().st_mtime_ns for path in done.iterdir()}
  kept = {
    path.name: path.stat().st_mtime_ns
    for path in (done.parent / "data").iterdir()
    if done / f"{path.name}.json" in ready
  }
  assert kept

  ptbxl.prepare(folder, output, sampling_rate=100)
  assert contents(output) == contents(whole)
  for name, written_at in kept.items():  # finished shards are not redone
    assert (output / name).stat().st_mtime_ns == written_at
  assert not done.parent.exists()


LATE = """
import multiprocessing, os, pathlib, sys, time
from data_prep import jobs

def work(folder):
  (folder / "pid").write_text(str(os.getpid()))
  (folder / "pid").rename(folder / "started")
  while not (folder / "killed").exists():
    time.sleep(0.01)
  jobs.die_with_parent()
  (folder / "survived").touch()

if __name__ == "__main__":
  folder = pathlib.Path(sys.argv[1])
  context = multiprocessing.get_context("spawn")
  worker = context.Process(target=work, args=(folder,))
  worker.start()
  worker.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells of a death")
def test_a_worker_whose_parent_died_while_it_started_ends(tmp_path):
  script = tmp_path / "late.py"
  script.write_text(LATE)
  environment = os.environ | {"PYTHONPATH": os.getcwd()}
  process = subprocess.Popen(
    [sys.executable, str(script), str(tmp_path)], env=environment
  )
  deadline = time.monotonic() + 60
  while not (tmp_path / "started").exists():
    assert time.monotonic() < deadline
    time.sleep(0.01)
  worker = int((tmp_path / "started").read_text())
  process.kill()
  process.wait()
  (tmp_path / "killed").touch()
  while is_alive(worker):
    assert time.monotonic() < deadline
    time.sleep(0.01)
  assert not (tmp_path / "survived").exists()


def list_children(pid):
  if not os.path.exists(f"/proc/{pid}/task/{pid}/children"):
    return []
  with open(f"/proc/{pid}/task/{pid}/children") as file:
    return [int(child) for child in file.read().split()]


def is_alive(pid):
  try:
    os.kill(pid, 0)
    with open(f"/proc/{pid}/stat") as file:
      return file.read().rpartition(")")[2].split()[0] != "Z"
  except OSError:
    return False


def test_splits_by_hash():
  names = [str(patient) for patient in range(20_000)]
  splits = [hashed_split(name, 0) for name in names]
  counts = collections.Counter(splits)
  for split in ("validation", "test"):
    assert abs(counts[split] / len(names) - HELD_OUT) < 0.007
  assert set(counts) == set(SPLITS)
  assert [hashed_split(name, 0) for name in names[:9]] == splits[:9]
  assert [hashed_split(name, 1) for name in names] != splits
  # Part of the data sets that people have: it must stay as it is.
  held_out = [split[0] if split != "train" else "." for split in splits[:30]]
  assert "".join(held_out) == ".......v.......t..v.v....v...."


@pytest.mark.parametrize(
  "cell,expected",
  [
    ("2180-07-23 08:44:00", 6644623440),
    ("1970-01-02", 86_400),
    ("1970-01-01T02:00:00+02:00", 0),
    ("12.6", 13),
    ("-5", -5),
  ],
)
def test_times(cell, expected):
  assert tables.parse_time(cell) == expected


@pytest.mark.parametrize(
  "cell",
  [
    *("", "soon", "1e99", "nan", "2180-13-01"),
    *("0001-01-01T00:00:00+05:00", "9999-12-31T23:00:00-05:00"),
  ],
)
def test_no_times(cell):
  with pytest.raises(RecordingError) as caught:
    tables.parse_time(cell)
  assert caught.value.rule == "time"


def test_tables_of_any_encoding(tmp_path):
  text = "id,name,,extra\n1, größer ,x,y\n\n2\n"
  for encoding in ("utf-8", "utf-8-sig", "latin-1"):
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    rows = list(
      tables.read_table(tmp_path / "a.csv", ("id", "name"), ("z", ""))
    )
    assert [cells for _, cells in rows] == [
      {"id": "1", "name": "größer", "": "x", "z": ""},
      {"id": "2", "name": "", "": "", "z": ""},
    ]


def test_tables_that_are_none(tmp_path):
  for name, content, message in (
    ("a.csv", b"", "has no column 'id'"),
    ("b.csv.gz", b"id\n1", "cannot be read: Not a gzipped file"),
    ("c.csv", b'id\n"' + b"x" * 2_000_000, "field larger than field limit"),
  ):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
      list(tables.read_table(tmp_path / name, ("id",)))
