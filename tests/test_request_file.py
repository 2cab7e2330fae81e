"""A CSV of requests: good rows read, bad rows listed, bad files refused."""

import pytest

from ecgtwin_jax.jobs.requests import read_requests

NEEDED = "record,now_statements,target_statements,target_heart_rate"
GOOD = "a,Sinus rhythm,Sinus rhythm|Low QRS voltages,75"


def read(tmp_path, text, n=4, seed=9):
  path = tmp_path / "requests.csv"
  path.write_bytes(text.encode() if isinstance(text, str) else text)
  return read_requests(path, n, seed)


def test_what_is_not_given_is_none_or_the_default(tmp_path):
  text = f"{NEEDED},n,seed,start,now_age,target_sex,beats\n"
  text += f"{GOOD},,,,,,\n\nb/c,A,B,60.5,2,7,1.5,81,f,1 2 pvc@2.6\n"
  requests, failures = read(tmp_path, text)
  assert failures == []
  first, second = requests
  assert (first.number, first.line, first.n, first.seed) == (1, 2, 4, 9)
  assert (first.start, first.beats) == (0, None)
  assert first.record == str(tmp_path / "a")
  assert first.now == {
    "statements": "Sinus rhythm",
    "heart_rate": None,
    "age": None,
    "sex": None,
  }
  assert first.target["statements"] == "Sinus rhythm|Low QRS voltages"
  # An empty line is no row, but it is a line.
  assert (second.number, second.line, second.n, second.seed) == (2, 4, 2, 7)
  assert second.record == str(tmp_path / "b" / "c")
  assert (second.start, second.now["age"]) == (1.5, 81)
  assert second.beats == "1 2 pvc@2.6"
  assert (second.target["heart_rate"], second.target["sex"]) == (60.5, "F")


def test_an_absolute_record_and_a_byte_order_mark(tmp_path):
  text = f"\ufeff{NEEDED}\r\n/data/a,A,B,70\r\n"
  ((request,), _) = read(tmp_path, text)
  assert request.record == "/data/a"


@pytest.mark.parametrize(
  ("row", "reason"),
  [
    ("a,A,B", "one cell per column"),
    (f"{GOOD},1,1,extra", "one cell per column"),
    (",A,B,70,1,1", "record must be given"),
    ("a, ,B,70,1,1", "now_statements must be given"),
    ("a,A,B,fast,1,1", "target_heart_rate='fast' must be a number"),
    ("a,A,B,nan,1,1", "target_heart_rate='nan' must be a number"),
    ("a,A,B,7_0,1,1", "target_heart_rate='7_0' must be a number"),
    ("a,A,B,７０,1,1", "must be a number"),
    (f"{GOOD},１,1", "must be a whole number"),
    (f"{GOOD},0,1", "n='0' must be a whole number in 1..10000"),
    (f"{GOOD},1.5,1", "n='1.5' must be a whole number"),
    (f"{GOOD},1,-1", "seed='-1' must be a whole number in 0.."),
    (f"{GOOD},1,4294967296", "seed='4294967296' must be"),
  ],
)
def test_a_bad_row_does_not_stop_the_others(tmp_path, row, reason):
  text = f"{NEEDED},n,seed\n{GOOD},1,1\n{row}\n{GOOD},1,1\n"
  requests, (failure,) = read(tmp_path, text)
  assert [request.number for request in requests] == [1, 3]
  assert (failure.number, failure.line) == (2, 3)
  assert reason in failure.reason


def test_a_row_whose_beats_cannot_be_is_a_failure(tmp_path):
  text = f"{NEEDED},beats\n{GOOD},1 2\n{GOOD},2 1\n"
  (request,), (failure,) = read(tmp_path, text)
  assert (request.beats, failure.number) == ("1 2", 2)
  assert failure.reason == "beats at 2 s and 1 s: times must ascend"


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", "must have columns record, now_statements"),
    ("record,now_statements\n", "target_statements, target_heart_rate"),
    (f"{NEEDED},target_hart_rate\n", "did you mean 'target_heart_rate'"),
    (f"{NEEDED},record\n", "'record' must stand there once"),
    (f'{NEEDED}\na,"A,B,70\n{GOOD}\n', "must be UTF-8 CSV"),
    (NEEDED.encode() + b"\n\xff\xfe,A,B,70\n", "must be UTF-8 CSV"),
  ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path, text, message):
  with pytest.raises(ValueError, match=message):
    read(tmp_path, text)


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="no file of requests"):
    read_requests(tmp_path / "none.csv", 1, 0)
