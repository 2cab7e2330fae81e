"""Data preparation: the same whoever runs it, nothing lost, nothing half."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep import builder, simulated, writing
from data_prep.__main__ import main
from data_prep.records import SCALE, Record, Rejection
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.dataset import SPLITS, load_split
from ecgtwin_jax.data.ecg import ECG
from ecgtwin_jax.simulator.simulate import cohort

PATIENTS, RECORDINGS, SEED = 37, 5, 7
SIZE = {"patients": PATIENTS, "recordings": RECORDINGS, "seed": SEED}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  """A small cohort, written by one process."""
  return simulated.prepare(tmp_path_factory.mktemp("data") / "cohort", **SIZE)


@pytest.fixture(scope="module")
def splits(directory):
  return {split: load_split(directory, split) for split in SPLITS}


def contents(directory):
  """Every file of a data set, by name."""
  return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_any_number_of_workers_writes_the_same_bytes(directory, tmp_path):
  several = simulated.prepare(tmp_path / "several", workers=2, **SIZE)
  assert contents(several) == contents(directory)
  assert len(list(directory.glob("*train*"))) > 1  # several did share the work


def test_columns_are_the_simulators_truth(splits):
  truth = {r.record_id: r for r in cohort(PATIENTS, RECORDINGS, SEED)}
  for data in splits.values():
    for row in range(len(data)):
      made = truth.pop(data.record_names(np.array([row]))[0])
      assert int(data.patient_id[row]) == made.patient_id
      assert data.time[row] == made.time
      assert data.heart_rate[row] == np.float32(made.condition.heart_rate)
      assert data.age[row] == np.float32(made.condition.age)
      assert data.sex[row] == (made.condition.sex == "M")
      ids = data.statement_ids[row]
      texts = [data.table.statements[i] for i in ids[ids >= 0]]
      assert tuple(texts) == made.condition.statements
      assert (ids[len(texts) :] == -1).all()
      np.testing.assert_array_equal(
        data.patient[row], made.condition.patient_vector()
      )
      # Half a step of the int16 scale, and the rounding of float32.
      error = data.arrays["ecg"][row] * SCALE - made.ecg.resample().signal
      assert np.abs(error).max() < SCALE / 2 + 1e-6
  assert not truth


def test_no_patient_is_in_two_splits(splits):
  patients = [set(data.patient_id.tolist()) for data in splits.values()]
  assert len(set.union(*patients)) == sum(map(len, patients)) == PATIENTS
  assert [len(each) for each in patients] == [29, 4, 4]


def test_patients_stay_in_their_split_when_the_cohort_grows():
  few, many = (
    simulated.Simulated(config=simulated.SimulatedConfig(patients=n)).keys()
    for n in (15, 150)
  )
  for split in SPLITS:
    assert few[split] == [patient for patient in many[split] if patient < 15]


def test_running_again_does_nothing(directory, capsys):
  before = {p: p.stat().st_mtime_ns for p in directory.iterdir()}
  simulated.prepare(directory, **SIZE)
  assert "nothing to do" in capsys.readouterr().out
  assert before == {p: p.stat().st_mtime_ns for p in directory.iterdir()}


def test_another_data_set_is_not_overwritten(directory, tmp_path):
  with pytest.raises(ValueError, match=r"seed=7\); wanted .* seed=8\)"):
    simulated.prepare(directory, **{**SIZE, "seed": 8})
  (tmp_path / "notes.txt").write_text("mine")
  with pytest.raises(ValueError, match="exists and is no data set"):
    simulated.prepare(tmp_path, **SIZE)


def test_tfds_reads_it_and_writes_the_same_by_itself(directory, tmp_path):
  ours = tfds.builder_from_directory(directory)
  config = simulated.SimulatedConfig(**SIZE)
  theirs = simulated.Simulated(
    config=config, data_dir=tmp_path, file_format="array_record"
  )
  theirs.download_and_prepare()
  for split in SPLITS:
    a, b = ours.as_data_source(split), theirs.as_data_source(split)
    assert len(a) == len(b)
    for i in range(len(a)):
      assert a[i].keys() == b[i].keys()
      for key in a[i]:
        np.testing.assert_array_equal(a[i][key], b[i][key])


# A data set with faults; keys are (patient, number of the recording).
def _read(key):
  patient, number = key
  name = f"{patient}-{number}"
  signal = np.full((500, 12), 0.1 * number, np.float32)
  if number == 3:
    yield name, Rejection("flat_line", f"lead I of {name}")
    return
  if number == 4:
    signal += 33
  condition = Condition(("Sinus rhythm",), 60.0 + number, None, None)
  yield name, Record(name, f"p{patient}", number, ECG(signal, 50.0), condition)


@dataclasses.dataclass(kw_only=True)
class FaultyConfig(tfds.core.BuilderConfig):
  name: str = "faulty_test"
  lost: int = 0
  shared: bool = False


class Faulty(builder.Builder):
  """Recordings of which two in five are rejected."""

  VERSION = tfds.core.Version("1.0.0")

  def options(self):
    return {"lost": self.builder_config.lost}

  def keys(self):
    patients = {"train": range(70), "validation": range(70, 72), "test": []}
    if self.builder_config.shared:
      patients["test"] = [5]
    return {
      split: [(patient, number) for patient in part for number in range(5)]
      for split, part in patients.items()
    }

  def statements(self):
    return ["Atrial fibrillation", "Sinus rhythm"]

  def reader(self):
    return _read

  def total(self):
    return sum(map(len, self.keys().values())) + self.builder_config.lost


def prepare_faulty(output, **options):
  return builder.prepare(Faulty, FaultyConfig(**options), output)


def test_rejected_recordings_are_accounted_for(tmp_path, capsys):
  directory = prepare_faulty(tmp_path / "data")
  assert "360 read = 216 written + 144 rejected" in capsys.readouterr().out
  lines = (directory / "quality.jsonl").read_text().splitlines()
  lines = [json.loads(line) for line in lines]
  assert len(lines) == 144
  assert lines[0] == {
    "record": "0-3",
    "rule": "flat_line",
    "detail": "lead I of 0-3",
  }
  assert lines[1]["rule"] == "amplitude" and "33.4 mV" in lines[1]["detail"]
  card = json.loads((directory / "card.json").read_text())
  assert card["rejected"] == {"flat_line": 72, "amplitude": 72}
  assert card["splits"]["train"] == {"records": 210, "patients": 70}
  assert card["splits"]["test"] == {"records": 0, "patients": 0}
  train = load_split(directory, "train")
  assert np.isnan(train.patient[:, 1:]).all()  # no age, no sex: not guessed
  assert len(load_split(directory, "test")) == 0


def test_recordings_that_do_not_add_up_fail_the_run(tmp_path):
  with pytest.raises(RuntimeError, match="361 recordings were to be read"):
    prepare_faulty(tmp_path / "data", lost=1)
  with pytest.raises(RuntimeError, match="p5' is in the splits train and test"):
    prepare_faulty(tmp_path / "shared", shared=True)
  assert not (tmp_path / "data").exists()


def test_interrupted_run_goes_on_to_the_same_content(tmp_path, monkeypatch):
  whole = prepare_faulty(tmp_path / "whole")
  output, partial = tmp_path / "data", tmp_path / "data.partial"

  def read_until_interrupted(key):
    if key == (40, 0):
      raise KeyboardInterrupt
    yield from _read(key)

  with monkeypatch.context() as patch:
    patch.setattr(Faulty, "reader", lambda self: read_until_interrupted)
    with pytest.raises(KeyboardInterrupt):
      prepare_faulty(output)
  assert not output.exists()
  assert len(list((partial / "done").iterdir())) == 2
  # What a killed process leaves behind.
  (partial / "data" / "faulty-train.array_record-00003-of-00005.99").touch()

  read = []
  with monkeypatch.context() as patch:
    patch.setattr(
      Faulty, "reader", lambda self: lambda key: read.append(key) or _read(key)
    )
    prepare_faulty(output)
  assert len(read) == 3 * 70 + 10  # two of five shards were there
  assert contents(output) == contents(whole)
  assert not partial.exists()


def test_unfinished_other_data_set_is_not_continued(tmp_path):
  with pytest.raises(RuntimeError, match="361 recordings"):
    prepare_faulty(tmp_path / "data", lost=1)
  with pytest.raises(ValueError, match=r"partial holds .*lost=1.*lost=0"):
    prepare_faulty(tmp_path / "data")


@pytest.mark.parametrize("count", [0, 1, 63, 128, 1000, 5000, 100_000])
def test_shards_cover_all_keys_in_order(count):
  parts = writing.cut(range(count))
  assert [key for part in parts for key in part] == list(range(count))
  assert max(map(len, parts)) <= 1024
  assert len(parts) == 1 or min(map(len, parts)) >= 64


def test_command_line(tmp_path, capsys):
  output = str(tmp_path / "data")
  arguments = ["simulated", "--output", output, "--workers", "1"]
  assert main([*arguments, "--limit", "33", "--recordings", "4"]) == 0
  assert "36 read = 36 written" in capsys.readouterr().out
  assert main(["describe", output]) == 0
  printed = capsys.readouterr().out
  assert "train               28         7" in printed
  assert "Sinus rhythm" in printed
  picture = pathlib.Path(output, "describe.png").read_bytes()
  assert picture.startswith(b"\x89PNG") and len(picture) > 20_000
  assert main([*arguments, "--patients", "0"]) == 1
  assert main(["describe", str(tmp_path / "nowhere")]) == 1
  errors = capsys.readouterr().err.splitlines()
  assert errors[0] == "error: patients=0 must be at least 1"
  assert errors[1].startswith("error: ") and "simulated --output" in errors[1]
  assert len(errors) == 2


def test_help_names_the_commands():
  command = [sys.executable, "-m", "data_prep", "--help"]
  text = subprocess.run(command, capture_output=True, text=True, check=True)
  for name in ("simulated", "encode", "describe"):
    assert name in text.stdout
