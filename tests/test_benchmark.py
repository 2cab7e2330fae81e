"""The public benchmark: the same task everywhere, anybody's twins are read."""

import numpy as np
import pytest

from ecgtwin_jax.data.ecg import ECG, MODEL_RATE
from ecgtwin_jax.evaluation import benchmark, cheaters
from ecgtwin_jax.jobs.requests import read_requests

TASK = benchmark.Task(seed=11, patients=3, targets=2, samples=2, training=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp("benchmark") / "task"
  benchmark.make(path, TASK)
  return path


def test_the_task_is_the_same_every_time_and_a_file_of_requests(
  folder, tmp_path
):
  benchmark.make(tmp_path / "again", TASK)
  files = sorted(p.relative_to(folder) for p in folder.rglob("*.*"))
  assert len(files) == 2 + 2 * TASK.patients
  for name in files:
    again = tmp_path / "again" / name
    assert again.read_bytes() == (folder / name).read_bytes(), name
  assert benchmark.read_task(folder) == TASK
  requests, failures = read_requests(folder / "requests.csv", 1, 0)
  assert len(requests) == 6 and not failures
  exam = benchmark.set_exam(TASK)
  assert [r.target["heart_rate"] for r in requests] == [
    pytest.approx(shown.condition.heart_rate) for _, shown in exam.rows
  ]
  assert {r.n for r in requests} == {2}
  assert exam.numbers.tolist() == [0, 0, 1, 1, 2, 2]
  assert len(exam.recordings.train) == 2 * TASK.training


def test_twins_are_read_from_an_array_or_from_files(tmp_path):
  twins = np.random.default_rng(0).normal(size=(2, 3, 1024, 12))
  twins = twins.astype(np.float32)
  order = [*range(6, 12), *range(6)]
  leads = np.array(
    ["V1", "V2", "V3", "V4", "V5", "V6", "I", "II", "III", "aVR", "aVL", "aVF"]
  )
  array = tmp_path / "twins.npz"
  np.savez(array, signals=twins[..., order], leads=leads)
  got = benchmark.read_twins(array, 2, 2)
  np.testing.assert_allclose(got, twins[:, :2], atol=1e-6)
  for row in range(2):
    place = tmp_path if row else tmp_path / "row_00001"
    for k in range(2):
      ecg = ECG(twins[row, k], MODEL_RATE)
      ecg.write(place / f"row{row + 1:05d}_{k}.{'npz' if row else 'hea'}")
  got = benchmark.read_twins(tmp_path, 2, 2)
  np.testing.assert_allclose(got, twins[:, :2], atol=2e-3)
  with pytest.raises(ValueError, match=r"must hold row00001_2\.hea"):
    benchmark.read_twins(tmp_path, 2, 3)


@pytest.mark.parametrize(
  ("signals", "words"),
  [
    (np.zeros((2, 1, 100, 12)), "with 2 samples"),
    (np.zeros((3, 2, 100, 12)), r"must be \(2, k, s, 12\)"),
    (np.full((2, 2, 100, 12), np.nan), "must be finite"),
    (np.zeros((2, 2, 100, 12), complex), "numbers are needed"),
    (np.zeros((2, 2, 100, 12), object), "must be an .npz file with signals"),
  ],
)
def test_arrays_of_another_shape_are_refused(tmp_path, signals, words):
  np.savez(tmp_path / "twins.npz", signals=signals)
  with pytest.raises(ValueError, match=words):
    benchmark.read_twins(tmp_path / "twins.npz", 2, 2)


def test_files_that_are_no_archive_are_refused(tmp_path, monkeypatch):
  path = tmp_path / "twins.npz"
  np.savez(path, signals=np.zeros((2, 2, 100, 12)))
  whole = path.read_bytes()
  np.savez(path, leads=np.zeros(3))
  for data in (whole[:-100], b"", b"x" * 1000, path.read_bytes()):
    path.write_bytes(data)
    with pytest.raises(ValueError, match="file with signals"):
      benchmark.read_twins(path, 2, 2)
  path.write_bytes(whole)
  monkeypatch.setattr(benchmark, "_MAX_BYTES", 1000)
  with pytest.raises(ValueError, match="must be at most 1000"):
    benchmark.read_twins(path, 2, 2)


@pytest.mark.parametrize(
  "change", ['"patients": "3"', '"patients": 1e12', '"samples": 0', '"x": 1']
)
def test_a_task_that_says_anything_is_refused(folder, tmp_path, change):
  text = (folder / "benchmark.json").read_text()
  (tmp_path / "benchmark.json").write_text(text.replace("}", f",{change}}}"))
  with pytest.raises(ValueError, match="is no benchmark"):
    benchmark.read_task(tmp_path)


def test_a_second_recording_is_as_near_to_the_truth_as_can_be(folder):
  exam = benchmark.set_exam(TASK)
  honest = benchmark.set_scene(TASK, exam).honest
  measured = benchmark.measure(TASK, exam, honest, levels=("truth",))
  (score,) = (m for m in measured["truth"].metrics if m.name == "truth_score")
  assert score.value > 0.5
  names = {m.name for m in measured["truth"].metrics}
  assert "truth_score_reference" in names


def test_the_command_says_what_is_wrong(folder, tmp_path, capsys):
  assert benchmark.main(["make", str(tmp_path), "--patients=1"]) == 1
  assert "--patients=1 must be in 2..10000" in capsys.readouterr().err
  assert benchmark.main(["score", str(tmp_path), "parrot"]) == 1
  assert "is no benchmark" in capsys.readouterr().err
  assert benchmark.main(["score", str(folder), str(tmp_path)]) == 1
  assert "must hold row00001_0.hea" in capsys.readouterr().err


def test_the_table_has_a_row_for_baselines_and_for_named_twins(
  folder, tmp_path, monkeypatch, capsys
):
  seen = []

  def measure(task, exam, twins):
    seen.append(twins.shape)
    return {}

  monkeypatch.setattr(benchmark, "measure", measure)
  task = benchmark.read_task(folder)
  shape = (task.patients * task.targets, task.samples, 1024, 12)
  np.savez(tmp_path / "t.npz", signals=np.zeros(shape, np.float32))
  assert benchmark.main(["table", str(folder), f"ours={tmp_path}/t.npz"]) == 0
  head, _, *rows = capsys.readouterr().out.splitlines()
  assert "Does it replay recordings?" in head
  names = [row.split(" | ")[0].removeprefix("| ") for row in rows]
  assert names == ["ours", benchmark.HONEST, *cheaters.CHEATERS]
  assert seen == [shape] * len(rows)
  assert benchmark.main(["table", str(folder), f"{tmp_path}/t.npz"]) == 1
  assert "must be NAME=PATH" in capsys.readouterr().err
