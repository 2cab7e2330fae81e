"""The rules of quality: each found by its name, on made recordings."""

import ast
import pathlib

import numpy as np
import pytest

from data_prep import quality
from data_prep.rows import Row, read_row
from ecgtwin_jax.simulator.simulate import cohort_recordings
from helpers.recordings import LEADS, write_record

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def signal():
  """A simulated ECG, 10 s at 500 Hz in mV."""
  (recording,) = cohort_recordings(0, 0, 1)
  return recording.ecg.signal.astype(np.float64)


def read(folder, exactly=True, **facts):
  """Reads the record "rec" of a folder as data preparation does."""
  facts = {"patient_id": "p", "statements": ("Sinus rhythm",)} | facts
  row = Row("rec", str(folder / "rec"), **facts)
  ((name, result),) = read_row(row, exactly)
  assert name == "rec"
  return result


def rule_of(folder, **facts):
  return getattr(read(folder, **facts), "rule", None)


def edit_header(folder, old, new, count=1):
  path = folder / "rec.hea"
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new, count))


def test_a_sound_record_breaks_no_rule(tmp_path, signal):
  write_record(tmp_path, "rec", signal)
  record = read(tmp_path, age=300.0)
  assert record.ecg.signal.shape == (1024, 12)
  assert record.condition.age == 90
  assert set(record.tally) == {"heart_rate_detected", "sex_missing"}
  record = read(tmp_path, heart_rate=61.5, sex="M")
  assert record.condition.heart_rate == 61.5
  assert set(record.tally) == {"heart_rate_given", "age_missing"}


def test_files(tmp_path, signal):
  assert rule_of(tmp_path) == "missing_file"
  write_record(tmp_path, "rec", signal)
  data = (tmp_path / "rec.dat").read_bytes()
  (tmp_path / "rec.dat").write_bytes(data[:-2])
  assert rule_of(tmp_path) == "truncated"
  (tmp_path / "rec.dat").write_bytes(b"")
  assert rule_of(tmp_path) == "truncated"
  (tmp_path / "rec.dat").unlink()
  assert rule_of(tmp_path) == "missing_file"
  assert "rec.dat is not there" in read(tmp_path).detail
  (tmp_path / "rec.dat").mkdir()
  assert rule_of(tmp_path) == "missing_file"
  (tmp_path / "rec.hea").write_bytes(b"\xff\x00 nothing")
  assert rule_of(tmp_path) == "unreadable"


@pytest.mark.parametrize("bit", [0, 7, 12, 15])
def test_a_flipped_bit_of_the_samples_breaks_the_checksum(
  tmp_path, signal, bit
):
  write_record(tmp_path, "rec", signal)
  samples = np.fromfile(tmp_path / "rec.dat", "<u2")
  samples[31_337] ^= 1 << bit
  samples.tofile(tmp_path / "rec.dat")
  rejection = read(tmp_path)
  assert rejection.rule == "checksum"
  # The same words wherever the data are.
  assert str(tmp_path) not in rejection.detail and "rec.dat" in rejection.detail


def test_checksums_that_are_not_stated_are_not_verified(tmp_path, signal):
  write_record(tmp_path, "rec", signal)
  header = tmp_path / "rec.hea"
  lines = [line.split() for line in header.read_text().splitlines()]
  for fields in lines[1:]:
    fields[6] = "0"
  header.write_text("\n".join(" ".join(fields) for fields in lines))
  assert rule_of(tmp_path) is None
  lines[3][6] = "1"
  header.write_text("\n".join(" ".join(fields) for fields in lines))
  assert rule_of(tmp_path) == "checksum"


def test_the_checksum_of_other_formats(tmp_path, signal):
  from ecgtwin_jax.data.ecg import quiet_wfdb

  with quiet_wfdb() as wfdb:
    wfdb.wrsamp(
      "rec",
      fs=500,
      units=["mV"] * 12,
      sig_name=list(LEADS),
      p_signal=signal,
      fmt=["212"] * 12,
      adc_gain=[200.0] * 12,
      baseline=[0] * 12,
      write_dir=str(tmp_path),
    )
  assert rule_of(tmp_path) is None
  data = bytearray((tmp_path / "rec.dat").read_bytes())
  data[999] ^= 4
  (tmp_path / "rec.dat").write_bytes(data)
  assert rule_of(tmp_path) == "checksum"


def test_leads_and_units(tmp_path, signal):
  write_record(tmp_path, "rec", signal[:, 1:], LEADS[1:])
  assert rule_of(tmp_path) is None  # I comes from two others
  edit_header(tmp_path, " V4\n", " V7\n")
  assert rule_of(tmp_path) == "lead"
  edit_header(tmp_path, " V7\n", " V5\n")
  assert rule_of(tmp_path) == "lead"
  edit_header(tmp_path, " V5\n", " V4\n")
  edit_header(tmp_path, "/mV", "/mmHg")
  assert rule_of(tmp_path) == "unit"


@pytest.mark.parametrize(
  "samples,rate,exactly,rule",
  [
    (5000, 500, True, None),
    (4999, 500, True, "duration"),
    (5001, 500, True, "duration"),
    (4999, 500, False, "duration"),
    (5001, 500, False, None),
    (5000, 499, True, "duration"),
    (400, 40, True, "duration"),  # 10 s, but too few samples
  ],
)
def test_duration(tmp_path, signal, samples, rate, exactly, rule):
  longer = np.concatenate([signal, signal])[:samples]
  write_record(tmp_path, "rec", longer, rate=rate)
  assert rule_of(tmp_path, exactly=exactly) == rule


def test_a_promised_length_that_is_not_there(tmp_path, signal):
  write_record(tmp_path, "rec", signal)
  edit_header(tmp_path, "rec 12 500 5000", "rec 12 500 6000")
  assert rule_of(tmp_path, exactly=False) == "truncated"
  edit_header(tmp_path, "rec 12 500 6000", "rec 12 400 4000")
  assert rule_of(tmp_path) == "checksum"


def spoil(signal, kind):
  signal = signal.copy()
  if kind == "nan":
    signal[:251, 3] = np.nan
  elif kind == "flat":
    signal[:, 3] = 0.2
  elif kind == "amplitude":
    signal[100, 3] += 31
  elif kind == "saturation":
    signal[:, 3] = signal[:, 3].clip(max=np.quantile(signal[:, 3], 0.94))
  elif kind == "heart_rate":
    rng = np.random.default_rng(0)
    signal = rng.normal(0, 0.1, signal.shape)
  return signal


KINDS = ("nan", "flat", "amplitude", "saturation", "heart_rate")


@pytest.mark.parametrize("kind", KINDS)
def test_signals(tmp_path, signal, kind):
  write_record(tmp_path, "rec", spoil(signal, kind), gain=1000.0)
  assert rule_of(tmp_path) == kind


def test_a_little_of_each_is_allowed(tmp_path, signal):
  signal = signal.copy()
  signal[:250, 3] = np.nan  # 5 %
  signal[:, 5] = signal[:, 5].clip(max=np.quantile(signal[:, 5], 0.96))
  signal[:, 7] *= 0.02 / np.ptp(signal[:, 7])
  write_record(tmp_path, "rec", signal, gain=1000.0)
  assert rule_of(tmp_path) is None


def test_an_offset_that_cannot_be_stored(tmp_path, signal):
  from data_prep.records import examples

  write_record(tmp_path, "rec", signal + 40, gain=200.0)
  row = Row("rec", str(tmp_path / "rec"), "p", 0, ("a",))
  ((_, rejection),) = examples(lambda row: read_row(row, True), [row], ["a"])
  assert rejection.rule == "amplitude"


@pytest.mark.parametrize(
  "rate,rule", [(19.9, "heart_rate"), (20, None), (300.1, "heart_rate")]
)
def test_given_heart_rates(tmp_path, signal, rate, rule):
  write_record(tmp_path, "rec", signal)
  assert rule_of(tmp_path, heart_rate=rate) == rule


def test_every_rule_that_is_raised_is_in_the_table():
  names = [rule.name for rule in quality.RULES]
  assert len(set(names)) == len(names)
  files = [*ROOT.glob("data_prep/**/*.py"), *ROOT.glob("ecgtwin_jax/data/*.py")]
  place = {"RecordingError": 0, "Rejection": 0, "parse_id": 1}
  raised = set()
  for path in files:
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        rule = node.args[place.get(node.func.id, len(node.args)) :]
        if rule and isinstance(rule[0], ast.Constant):
          raised.add(rule[0].value)
  assert raised == set(names)


def test_the_readmes_table_names_every_rule():
  lines = quality.markdown().splitlines()
  assert len(lines) == 2 + len(quality.RULES)
  for line, rule in zip(lines[2:], quality.RULES):
    assert line == f"| `{rule.name}` | {rule.threshold} | {rule.meaning} |"
