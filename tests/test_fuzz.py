"""Damaged files of every kind that strangers send end in a line of words.

Sound files are changed at random, by a seed: bytes are lost, doubled, swapped
and overwritten, and numbers and words replaced by those that readers fear. What
a reader makes of it is a result or a ValueError or an OSError of one line, in
seconds. A case is found again by its number, which the failing test names:

  python tests/test_fuzz.py header 1234
"""

import hashlib
import io
import json
import pathlib
import re
import shutil
import sys
import tempfile
import time
import zipfile

import numpy as np
import pytest

from data_prep import wfdb_folder
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import ECG, read_ecg
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.inference.twin import load_twin
from ecgtwin_jax.jobs.requests import read_requests
from helpers import clinical_samples

# Of each kind: cases, and seconds of work after which no other one begins.
SHORT, LONG = (100, 2.0), (10**6, 150.0)
SLOWEST = 10.0  # seconds of work that a case may take
SIGNAL = np.random.default_rng(0).normal(0, 0.3, (5000, 12))
SHIPPED = twin_directory.shipped("simulated-small")
FEARED = (
  *(b"", b"0", b"-1", b"nan", b"inf", b"1e999", b"1e-320", b"9" * 400),
  *(b"1_0", b"0x10", b"99999999999", b"2147483648", b"-9223372036854775809"),
  *(b"/etc/passwd", b"../x", b"\0", b"\xff\xfe", b"\r", b"\n", b'"', b"'"),
  *(b"[" * 3000, b"null", b"true", b"{}", b"[]", b"\xe2\x80\xae", b",,,", b"#"),
  *(b"%s%n", b"=1+1", b"(", b"x" * 5000, "é１".encode()),
)


def damage(rng: np.random.Generator, data: bytes, head: int = 2000) -> bytes:
  """Changes bytes in one to four places, most of them near the start."""
  for _ in range(rng.integers(1, 5)):
    data = data or b"0"
    end = len(data) if rng.random() < 0.3 else min(head, len(data))
    first = int(rng.integers(end))
    last = min(first + int(rng.geometric(0.05)), len(data))
    piece = data[first:last]
    match rng.integers(7):
      case 0:
        piece = b""
      case 1:
        piece = piece * int(rng.integers(2, 50))
      case 2:
        piece = rng.bytes(len(piece))
      case 3:
        piece = FEARED[rng.integers(len(FEARED))]
      case 4:
        other = int(rng.integers(end))
        piece = data[other : other + len(piece)]
      case 5:
        tokens = list(re.finditer(rb"[\w.+-]+", data[:end]))
        if tokens:
          token = tokens[rng.integers(len(tokens))]
          first, last = token.span()
          piece = FEARED[rng.integers(len(FEARED))]
      case 6 if rng.random() < 0.2:
        return data[:first]
    data = data[:first] + piece + data[last:]
  return data


def write_header(folder):
  ECG(SIGNAL, 500, "rec", ("Age: 50", "Sex: M")).write(folder / "rec.hea")


def fuzz_header(rng, sound, folder):
  shutil.copy(sound / "rec.dat", folder)
  data = damage(rng, (sound / "rec.hea").read_bytes())
  (folder / "rec.hea").write_bytes(data)
  read_ecg(folder / "rec")


def write_csv(folder):
  ECG(SIGNAL[:1000], 100, "rec", ("Age: 50",)).write(folder / "rec.csv")


def fuzz_csv(rng, sound, folder):
  data = damage(rng, (sound / "rec.csv").read_bytes(), 400)
  (folder / "rec.csv").write_bytes(data)
  read_ecg(folder / "rec.csv")


def write_npz(folder):
  ECG(SIGNAL, 500, "rec", ("Age: 50",)).write(folder / "rec.npz")


def fuzz_npz(rng, sound, folder):
  """The archive, or an array in it whose checksum fits again."""
  data = (sound / "rec.npz").read_bytes()
  if rng.random() < 0.3:
    data = damage(rng, data)
  else:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
      members = {name: archive.read(name) for name in archive.namelist()}
    chosen = list(members)[rng.integers(len(members))]
    members[chosen] = damage(rng, members[chosen], 128)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
      for name, member in members.items():
        archive.writestr(name, member)
    data = buffer.getvalue()
  (folder / "rec.npz").write_bytes(data)
  read_ecg(folder / "rec.npz")


def write_clinical(folder):
  clinical_samples.write_pyedflib(folder / "a.edf", SIGNAL)
  clinical_samples.write_aecg(folder / "a.xml", SIGNAL)
  clinical_samples.write_scp(folder / "a.scp", SIGNAL)
  ECG(SIGNAL, 500, "rec").write(folder / "a.dcm")


def fuzz_clinical(rng, sound, folder):
  paths = sorted(sound.iterdir())
  path = paths[rng.integers(len(paths))]
  (folder / path.name).write_bytes(damage(rng, path.read_bytes()))
  read_ecg(folder / path.name)


_ROWS = """record,patient_id,time,heart_rate,age,sex,statements
a/b,7,2180-07-23 08:44:00,61,50,F,Sinus rhythm|Normal ECG
a/c,7,1234,,300,M,"AV block, first degree"
d,8,0,70.5,,,
"""


def write_table(folder):
  (folder / "recordings.csv").write_text(_ROWS)


def fuzz_table(rng, sound, folder):
  data = damage(rng, (sound / "recordings.csv").read_bytes())
  (folder / "recordings.csv").write_bytes(data)
  config = wfdb_folder.WfdbFolderConfig(input=str(folder))
  builder = wfdb_folder.WfdbFolder(data_dir=str(folder / "out"), config=config)
  for rows in builder.rows.values():
    for row in rows:
      assert row.rejection is not None or ".." not in row.path


_REQUESTS = """\
record,now_statements,now_heart_rate,now_age,now_sex,target_statements,\
target_heart_rate,n,seed,beats
rec.hea,Sinus rhythm,61,50,F,Atrial fibrillation|PVC,110,2,7,
rec.hea,Normal ECG,61,,,"Sinus tachycardia",120,1,,0.5 1.0 1.5
"""


def write_requests(folder):
  (folder / "r.csv").write_text(_REQUESTS)


def fuzz_requests(rng, sound, folder):
  data = damage(rng, (sound / "r.csv").read_bytes())
  (folder / "r.csv").write_bytes(data)
  requests, failures = read_requests(folder / "r.csv", 1, 0)
  for failure in failures:
    assert "\n" not in failure.reason
  for request in requests:
    for given in (request.now, request.target):
      statements = given["statements"].split("|")
      try:
        Condition(statements, given["heart_rate"], given["age"], given["sex"])
      except ValueError as error:
        assert "\n" not in str(error)


def write_twin(folder):
  for path in SHIPPED.iterdir():
    (folder / path.name).symlink_to(path)


def copy_twin(sound, folder):
  for path in sound.iterdir():
    (folder / path.name).symlink_to(path.resolve())


def fuzz_index(rng, sound, folder):
  """The index as text, or one of its values."""
  copy_twin(sound, folder)
  text = (sound / "twin.json").read_bytes()
  if rng.random() < 0.3:
    text = damage(rng, text, len(text))
  else:
    index = json.loads(text)
    node, key = index, None
    while isinstance(node, (dict, list)) and node:
      keys = list(node) if isinstance(node, dict) else range(len(node))
      parent, key = node, keys[rng.integers(len(keys))]
      node = parent[key]
      if rng.random() < 0.1:
        break
    hostile = [-1, 0, 1, 2.5, 10**9, 10**30, "x", None, True, [], {}, [[]], "7"]
    parent[key] = hostile[rng.integers(len(hostile))]
    text = json.dumps(index).encode()
  (folder / "twin.json").unlink()
  (folder / "twin.json").write_bytes(text)
  load_twin(folder)


def fuzz_weights(rng, sound, folder):
  """A part's file or one of the table's, sealed again."""
  copy_twin(sound, folder)
  names = ("rhythm.safetensors", "statements.json", "statements.npy")
  name = names[rng.integers(len(names))]
  data = damage(rng, (sound / name).read_bytes())
  (folder / name).unlink()
  (folder / name).write_bytes(data)
  index = json.loads((sound / "twin.json").read_bytes())
  digest = hashlib.sha256(data).hexdigest()
  if name in index["table"]:
    index["table"][name] = digest
  else:
    index["parts"]["rhythm"]["sha256"] = digest
  (folder / "twin.json").unlink()
  (folder / "twin.json").write_text(json.dumps(index))
  if name in index["table"]:
    twin_directory.read_table(folder)
  else:
    twin_directory.read_part(folder, "rhythm")


KINDS = {
  "header": (write_header, fuzz_header),
  "csv": (write_csv, fuzz_csv),
  "npz": (write_npz, fuzz_npz),
  "clinical": (write_clinical, fuzz_clinical),
  "table": (write_table, fuzz_table),
  "requests": (write_requests, fuzz_requests),
  "index": (write_twin, fuzz_index),
  "weights": (write_twin, fuzz_weights),
}


def run_case(kind: str, number: int, sound: pathlib.Path) -> None:
  """Reads one damaged file.

  Raises:
    AssertionError: it was not answered in a line of words, or in no time.
  """
  rng = np.random.default_rng([list(KINDS).index(kind), number])
  began = time.process_time()
  with tempfile.TemporaryDirectory() as folder:
    try:
      KINDS[kind][1](rng, sound, pathlib.Path(folder))
    except (ValueError, OSError) as error:
      assert "\n" not in str(error), (kind, number, str(error))
    except Exception as error:
      raise AssertionError(f"{kind} {number}: {error!r}") from error
  seconds = time.process_time() - began
  assert seconds < SLOWEST, f"{kind} {number}: {seconds:.1f} s"


def run_cases(kind, first, folder, limits) -> None:
  """Reads damaged files one after the other, within both limits."""
  KINDS[kind][0](folder)
  cases, seconds = limits
  end = time.process_time() + seconds
  for number in range(first, first + cases):
    run_case(kind, number, folder)
    if time.process_time() > end:
      break
  print(f"{kind}: {number + 1 - first} cases")


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_end_in_words(kind, tmp_path):
  run_cases(kind, 0, tmp_path, SHORT)


@pytest.mark.parametrize(
  "kind, number",
  [
    ("clinical", 1_002_729),  # a DICOM class whose name has a line break
    ("csv", 1_001_108),  # numbers that are none in lead I
    ("csv", 1_029_722),  # a rate of minus infinity
    ("index", 1_001_636),  # a latent scale that is no number
    ("weights", 1_000_038),  # a header of vectors that does not end
    ("table", 20_020_433),  # a record in a folder called "Norm.."
  ],
)
def test_what_was_found_by_trying_for_long(kind, number, tmp_path):
  KINDS[kind][0](tmp_path)
  run_case(kind, number, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_end_in_words_for_long(kind, tmp_path):
  run_cases(kind, 1_000_000, tmp_path, LONG)


if __name__ == "__main__":
  with tempfile.TemporaryDirectory() as place:
    KINDS[sys.argv[1]][0](pathlib.Path(place))
    run_case(sys.argv[1], int(sys.argv[2]), pathlib.Path(place))
