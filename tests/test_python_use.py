"""What a user of Python meets: types, names in print, hub, files of twins."""

import dataclasses
import inspect
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import grain
import jaxtyping
import numpy as np
import pytest

import ecgtwin_jax as et
from configs import common
from ecgtwin_jax.data import errors
from ecgtwin_jax.data.ecg import SYNTHETIC
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.inference.results import Generated, Rows
from ecgtwin_jax.inference.sampling import Settings
from ecgtwin_jax.jobs import outputs
from helpers.user_script import SCRIPT, planted_lines

NOW = et.Condition(["Sinus rhythm"], 60, 81, "F")
SMALL = twin_directory.shipped("simulated-small")


@pytest.fixture(scope="module")
def twin():
  return et.ECGTwin.from_pretrained("simulated-small")


def test_python_and_commands_sample_alike():
  """Three places name the defaults: a call, the settings, the commands."""
  call = inspect.signature(et.ECGTwin.generate).parameters
  config = common.generation().sampling.to_dict()
  for field in dataclasses.fields(Settings):
    assert call[field.name].default == field.default == config[field.name]


def made(count=3, rate=100):
  """As a twin gives them, without a twin."""
  rng = np.random.default_rng(0)
  lines = [SYNTHETIC, f"statements: {NOW.text()}"]
  ecgs = [
    et.ECG(rng.normal(size=(10 * rate, 12)), rate, f"twin_{i}", lines)
    for i in range(count)
  ]
  zeros = np.zeros((count, 128, 8))
  return Generated(ecgs, zeros, np.zeros(count), condition=NOW)


# What the package imports is not looked at, which takes seconds.
MYPY = """\
[mypy]
ignore_missing_imports = True
follow_imports = silent
[mypy-jax.*,flax.*,optax.*,scipy.*,matplotlib.*,wfdb.*,transformers.*]
follow_imports = skip
"""


def test_mypy_finds_the_five_mistakes_of_a_script_and_no_others(tmp_path):
  (tmp_path / "mypy.ini").write_text(MYPY)
  (tmp_path / "mine.py").write_text(SCRIPT)
  out = subprocess.run(
    [sys.executable, "-m", "mypy", "--config-file=mypy.ini", "mine.py"],
    capture_output=True,
    text=True,
    cwd=tmp_path,
    env={**os.environ, "MYPYPATH": str(pathlib.Path(et.__file__).parents[1])},
  )
  found = re.findall(r"^mine\.py:(\d+): error", out.stdout, flags=re.M)
  assert list(map(int, found)) == planted_lines(), out.stdout + out.stderr


def test_pyright_finds_the_five_mistakes_of_a_script_and_no_others(tmp_path):
  pyright = pathlib.Path(sys.executable).with_name("pyright")
  if not pyright.exists():
    pytest.skip("pyright is not installed")
  script = tmp_path / "mine.py"
  script.write_text(SCRIPT)
  out = subprocess.run(
    [pyright, "--outputjson", "--pythonpath", sys.executable, script],
    capture_output=True,
    text=True,
    cwd=pathlib.Path(et.__file__).parent.parent,
  )
  if not out.stdout.startswith("{"):  # it needs Node.js, which it would fetch
    pytest.skip(f"pyright does not run: {out.stderr[-200:]}")
  found = json.loads(out.stdout)["generalDiagnostics"]
  lines = [x["range"]["start"]["line"] + 1 for x in found]
  assert sorted(lines) == planted_lines(), [x["message"] for x in found]


def test_what_is_printed_of_conditions_and_twins_is_short(twin):
  assert repr(NOW) == "Condition(Sinus rhythm; 60 bpm, 81 years, F)"
  assert re.fullmatch(r"ECGTwin\(simulated-small, \d+ statements\)", repr(twin))


@pytest.mark.parametrize("sex", ["female", "Female", "f", "F"])
def test_sexes_may_be_words(sex):
  condition = et.Condition(["Sinus rhythm"], 60, sex=sex)
  assert condition.sex == "F" and condition == et.Condition(
    ["Sinus rhythm"], 60, sex="F"
  )
  assert et.Condition(["Sinus rhythm"], 60, sex="male").sex == "M"


BASE = np.zeros(256, np.float32)


@pytest.mark.parametrize(
  "call,message",
  [
    (
      lambda twin: twin.generate(BASE, "Sinus rhythm"),
      "condition='Sinus rhythm' is of type str, must be Condition",
    ),
    (
      lambda twin: twin.generate("me", NOW),
      "base is of type str, must be an array",
    ),
    (
      lambda twin: twin.generate(BASE, NOW, num_samples="8"),
      "num_samples='8' is of type str, must be int",
    ),
    (
      lambda twin: twin.generate(BASE, NOW, seed=None),
      "seed=None is of type NoneType, must be int",
    ),
    (
      lambda twin: twin.generate(BASE, NOW, sampling_rate="500"),
      "sampling_rate='500' is of type str, must be float",
    ),
    (
      lambda twin: twin.edit(BASE, [NOW], add="a"),
      "condition=list is of type list, must be Condition",
    ),
    (
      lambda twin: twin.explain(BASE, None),
      "condition=None is of type NoneType, must be Condition",
    ),
    (
      lambda twin: twin.extract_base(np.zeros((9, 12)), NOW),
      "reference=ndarray is of type ndarray, must be ECG",
    ),
    (
      lambda twin: twin.extract_base(et.example_ecg(), "a"),
      "condition='a' is of type str, must be Condition",
    ),
    (
      lambda twin: et.Condition("Sinus rhythm", 60),
      "statements='Sinus rhythm' must be a list of statements",
    ),
    (lambda twin: et.Condition(5, 60), "statements=5 must be a list"),
    (
      lambda twin: et.Condition(["a"], "60"),
      "heart_rate='60' must be a number in 20..300",
    ),
    (lambda twin: et.Condition(["a"], 60, sex=1), "sex=1 must be 'F', 'M'"),
    (lambda twin: et.ECGTwin.from_pretrained(5), "name=5 must be the name"),
  ],
)
def test_a_wrong_type_names_the_argument_and_what_is_meant(
  monkeypatch, twin, call, message
):
  # As a user runs it, without the checks of the tests.
  monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
  with pytest.raises(TypeError, match=re.escape(message)) as caught:
    call(twin)
  assert isinstance(caught.value, ValueError)  # one line for command lines


def test_twins_come_at_the_rate_that_is_asked_for(twin, monkeypatch):
  signals = et.example_ecg().resample().signal[None]
  rows = Rows(signals, np.zeros((1, 128, 8), np.float32), np.zeros(1), None)
  monkeypatch.setattr(twin, "generate_rows", lambda *args, **options: rows)
  out = twin.generate(BASE, NOW, num_samples=1, sampling_rate=500)
  assert out.signals.shape == (1, 5000, 12) and out.condition == NOW
  np.testing.assert_array_equal(
    out.signals[0], et.ECG(signals[0], 102.4).at_rate(500).signal
  )
  plain = twin.generate(BASE, NOW, num_samples=1)
  np.testing.assert_array_equal(plain.signals, signals)
  assert repr(out.ecgs[0]) == "ECG(twin_0, 10 s, 500 Hz)"
  assert SYNTHETIC in out.ecgs[0].comments
  with pytest.raises(ValueError, match=r"sampling_rate=5 must be in 50\.\."):
    twin.generate(BASE, NOW, sampling_rate=5)


def test_another_rate_keeps_a_wave_and_does_not_ring_at_the_ends():
  time = np.arange(1024) / 102.4
  wave = np.sin(2 * np.pi * 3 * time) + time  # rises by 10 mV
  ecg = et.ECG(wave[:, None] * np.ones(12), 102.4).at_rate(500)
  assert ecg.sampling_rate == 500 and ecg.signal.shape == (5000, 12)
  seconds = np.arange(5000) / 500
  expected = np.sin(2 * np.pi * 3 * seconds) + seconds
  error = np.abs(ecg.signal[:, 4] - expected)
  assert error[50:-50].max() < 0.02 and error.max() < 0.3


def test_a_twin_is_saved_as_it_was_and_found_by_its_folder(twin, tmp_path):
  twin.save_pretrained(tmp_path / "mine")
  assert et.ECGTwin.from_pretrained(tmp_path / "mine").digest == twin.digest
  for file in (tmp_path / "mine").iterdir():
    assert file.read_bytes() == (SMALL / file.name).read_bytes()
  assert (tmp_path / "mine" / "README.md").exists()
  (tmp_path / "notes").mkdir()
  (tmp_path / "notes" / "a.txt").write_text("mine")
  with pytest.raises(ValueError, match="is not empty and holds no twin"):
    twin.save_pretrained(tmp_path / "notes")


@pytest.fixture
def offline(tmp_path, monkeypatch):
  """A cache of the hub without a network; returns put(name, folder)."""
  from huggingface_hub import constants

  cache = tmp_path / "hub"
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
  monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))

  def put(name, folder):
    place = cache / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("a" * 40)
    shutil.copytree(folder, place / "snapshots" / ("a" * 40))
    return place / "snapshots" / ("a" * 40)

  return put


def test_a_twin_of_the_hub_is_read_from_its_cache_without_a_network(
  twin, offline
):
  folder = offline("ward/heart", SMALL)
  found = et.ECGTwin.from_pretrained("ward/heart")
  assert found.digest == twin.digest
  weights = folder / "denoiser.safetensors"
  weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
  with pytest.raises(ValueError, match="does not match the sha256"):
    et.ECGTwin.from_pretrained("ward/heart")


def test_a_twin_that_cannot_be_had_is_one_line(offline, tmp_path):
  with pytest.raises(ValueError, match="'ward/none' cannot be had") as caught:
    et.ECGTwin.from_pretrained("ward/none")
  assert "\n" not in str(caught.value)
  (tmp_path / "other").mkdir()
  (tmp_path / "other" / "README.md").write_text("")
  offline("ward/other", tmp_path / "other")
  with pytest.raises(ValueError, match=r"is no twin: it has no twin\.json"):
    et.ECGTwin.from_pretrained("ward/other")
  known = "must be one of real-small, simulated-small, 'own"
  with pytest.raises(ValueError, match=known):
    et.ECGTwin.from_pretrained("simulated-smal")


class FakeHub:
  """A hub that remembers what it is sent, or refuses it."""

  def __init__(self, token=None):
    self.sent = None if token == "bad" else {}

  def create_repo(self, name, private, exist_ok):
    if self.sent is None:
      raise OSError("401 Client Error\nand more")
    assert private and exist_ok
    return f"hub/{name}"

  def upload_folder(self, repo_id, folder_path, allow_patterns, commit_message):
    FakeHub.last = {
      file.name: file.read_bytes()
      for file in pathlib.Path(folder_path).iterdir()
    }
    assert repo_id == "ward/heart" and commit_message and allow_patterns


def test_a_twin_is_sent_to_the_hub(twin, monkeypatch):
  monkeypatch.setattr("huggingface_hub.HfApi", FakeHub)
  assert twin.push_to_hub("ward/heart") == "hub/ward/heart"
  assert {"twin.json", "README.md", "vae.safetensors"} <= set(FakeHub.last)
  assert FakeHub.last["twin.json"] == (SMALL / "twin.json").read_bytes()
  with pytest.raises(ValueError, match=r"cannot be sent .*401 Client Error\)"):
    twin.push_to_hub("ward/heart", token="bad")
  with pytest.raises(ValueError, match="must be 'owner/name'"):
    twin.push_to_hub("heart")


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_twins_of_many_patients_are_one_file_to_train_on(tmp_path, suffix):
  path = tmp_path / "new" / f"twins{suffix}"
  out = made()
  other = et.Condition(["Atrial fibrillation", "Pacing"], 90)
  et.write_twins(
    path,
    [*out.ecgs, out.ecgs[0]],
    [NOW, NOW, NOW, other],
    ["p1", "p1", "p2", "p3"],
  )
  file = et.TwinFile(path)
  assert repr(file) == f"TwinFile(twins{suffix}, 4 ECGs)"
  rows = grain.MapDataset.source(file).shuffle(seed=0)
  rows = sorted((rows[i] for i in range(4)), key=lambda x: x["patient"])
  np.testing.assert_array_equal(rows[2]["signal"], out.ecgs[2].signal)
  assert rows[3]["statements"] == ("Atrial fibrillation", "Pacing")
  assert (rows[0]["heart_rate"], rows[0]["age"], rows[0]["sex"]) == (
    60,
    81,
    "F",
  )
  assert np.isnan(rows[3]["age"]) and rows[3]["sex"] == ""
  assert {x["origin"] for x in rows} == {"synthetic"}
  assert {x["sampling_rate"] for x in rows} == {100}
  batch = next(iter(grain.MapDataset.source(file).map(drop_words).batch(4)))
  assert batch["signal"].shape == (4, 1000, 12)
  if suffix == ".parquet":
    import pandas

    frame = pandas.read_parquet(path)
    np.testing.assert_array_equal(frame["V2"][1], out.ecgs[1].signal[:, 7])


def drop_words(row):
  return {name: row[name] for name in ("signal", "heart_rate")}


def test_files_of_twins_hold_nothing_else(tmp_path):
  out = made()
  out.write(tmp_path / "a.npz", patient="p1")
  assert [x["patient"] for x in et.TwinFile(tmp_path / "a.npz")] == ["p1"] * 3
  for ecgs, message in (
    ([et.example_ecg()], "was not made by a twin"),
    (out.ecgs[:2], "with a condition and a patient each: 1 and 1 given"),
    ([], "must be at least one"),
  ):
    with pytest.raises(ValueError, match=message):
      et.write_twins(tmp_path / "b.npz", ecgs, [NOW], ["p1"])
  with pytest.raises(ValueError, match="several lengths or rates"):
    et.write_twins(
      tmp_path / "b.npz",
      [out.ecgs[0], made(1, 200).ecgs[0]],
      [NOW] * 2,
      ["p1"] * 2,
    )
  with pytest.raises(ValueError, match=r"must end in \.parquet or \.npz"):
    out.write(tmp_path / "b.csv")
  assert not list(tmp_path.glob("*b.*"))
  np.savez(tmp_path / "b.npz", a=1)
  with pytest.raises(ValueError, match=r"b\.npz is no file of write_twins"):
    et.TwinFile(tmp_path / "b.npz")
  with pytest.raises(FileNotFoundError, match="write_twins makes one"):
    et.TwinFile(tmp_path / "c.npz")


def test_an_earlier_run_is_replaced_and_other_files_are_not(tmp_path, capsys):
  names = ("twin_*.*", "generated.json")
  assert outputs.find_earlier(tmp_path / "no", "generated.json", names) == []
  assert outputs.find_earlier(tmp_path, "generated.json", names) == []
  (tmp_path / "notes.txt").write_text("mine")
  with pytest.raises(ValueError, match=r"holds other files \(notes\.txt\)"):
    outputs.find_earlier(tmp_path, "generated.json", names)
  for name in ("twin_0.hea", "twin_8.dat", "generated.json"):
    (tmp_path / name).write_text("")
  earlier = outputs.find_earlier(tmp_path, "generated.json", names)
  outputs.replace_earlier(earlier)
  assert [x.name for x in tmp_path.iterdir()] == ["notes.txt"]
  assert capsys.readouterr().out == "3 files of an earlier run are replaced\n"


def test_the_error_of_a_type_is_a_value_error_too():
  with pytest.raises(errors.ArgumentError, match="x=True is of type bool"):
    errors.require_type(True, "x", float, "a number")
  errors.require_type(np.float32(1), "x", float, "a number")
  errors.require_type(np.int64(1), "x", int, "a number")
