"""Files of requests: batches, provenance, bad rows, an interrupted run."""

import csv
import json
import pathlib

import numpy as np
import pytest

import ecgtwin_jax as et
from ecgtwin_jax import main
from ecgtwin_jax.beats.criteria_checks import find_mismatches
from ecgtwin_jax.beats.notation import write_beats
from ecgtwin_jax.data.ecg import EXAMPLE_RECORD, LEADS, example_ecg
from ecgtwin_jax.data.leads import lead_residual
from ecgtwin_jax.data.wfdb_record import quiet_wfdb
from ecgtwin_jax.flags import load_config
from ecgtwin_jax.jobs import requests as requests_module
from ecgtwin_jax.jobs.outputs import SUFFIXES

ROOT = pathlib.Path(__file__).parent.parent
COLUMNS = (
  "record start now_statements now_heart_rate now_age now_sex"
  " target_statements target_heart_rate target_age target_sex n seed beats"
).split()
GOOD = dict(
  record=EXAMPLE_RECORD,
  now_statements="Sinus rhythm",
  now_heart_rate=82,
  target_statements="Sinus rhythm|Ventricular premature complex",
  target_heart_rate=80,
)
STEPS = 2


def write_requests(folder, rows):
  path = folder / "requests.csv"
  with path.open("w", newline="") as file:
    table = csv.DictWriter(file, COLUMNS)
    table.writeheader()
    table.writerows(rows)
  return path


def make_config(chain, requests, workdir, **changes):
  config = load_config(f"{ROOT}/configs/generate.py")
  config.twin = str(chain / "stage2" / "twin")
  config.requests = str(requests)
  config.workdir = str(workdir)
  config.batch_size = 16
  config.sampling.steps = STEPS
  config.update_from_flattened_dict(changes)
  return config


def contents(folder):
  """{path: bytes} of all results; where the requests stood does not count."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file() and path.name != requests_module.SUMMARY
  }


# Ten of fifty, each bad in its own way or in one of these.
BAD = [
  dict(record="nowhere"),
  dict(target_heart_rate="fast"),
  dict(target_heart_rate=500),
  dict(now_statements=""),
  dict(target_statements="|"),
  dict(n=0),
  dict(seed=-3),
  dict(now_age=150),
  dict(now_sex="X"),
  dict(start=5),
]


def test_ten_bad_rows_of_fifty(chain, tmp_path, capsys):
  rows = [dict(GOOD, n=1, seed=i) for i in range(50)]
  for k, bad in enumerate(BAD):
    rows[7 + 4 * k] |= bad
  path = write_requests(tmp_path, rows)
  workdir = tmp_path / "out"
  with pytest.raises(SystemExit) as exit_:
    main.main(
      [
        f"--config={ROOT}/configs/generate.py",
        f"--config.twin={chain}/stage2/twin",
        f"--config.requests={path}",
        f"--config.sampling.steps={STEPS}",
        "--config.batch_size=16",
        f"--workdir={workdir}",
      ]
    )
  assert exit_.value.code == 3
  printed = capsys.readouterr()
  assert f"40 of 50 rows are done in {workdir}, 10 failed" in printed.out
  assert "40/40" in printed.err  # the progress bar
  assert len(list(workdir.glob("row_*/row.json"))) == 40
  assert len(list(workdir.glob("row_*/*.hea"))) == 40
  with (workdir / "failed.csv").open(newline="") as file:
    failed = list(csv.DictReader(file))
  assert [int(row["row"]) for row in failed] == [8 + 4 * k for k in range(10)]
  assert [int(row["line"]) for row in failed] == [9 + 4 * k for k in range(10)]
  for row, reason in zip(
    failed,
    [
      "nowhere",
      "target_heart_rate='fast'",
      "500.0 must be a number in 20..300",
      "now_statements must be given",
      "statements=0 must be in 1..18",
      "n='0'",
      "seed='-3'",
      "age=150.0",
      "sex='X'",
      "too short",
    ],
  ):
    assert reason in row["reason"]
  summary = json.loads((workdir / "requests.json").read_text())
  assert (summary["rows"], summary["done"], summary["failed"]) == (50, 40, 10)


def other_person():
  """Half as large, and upside down."""
  ecg = example_ecg().resample()
  return et.ECG(-0.5 * ecg.signal, ecg.sampling_rate)


def mixed_rows(folder):
  """Two people's rows of several lengths, two of them bad; 39 ECGs."""
  other_person().write(folder / "other.npz")
  rows = [dict(GOOD, n=n, seed=n) for n in (3, 1, 9, 2, 17, 5, 4)]
  for row in rows[::2]:
    row |= dict(record="other.npz", now_age=50, now_sex="M")
  rows[0]["beats"] = "0.4 1.2 2.0 pvc@2.6 4.2"
  rows[1]["target_statements"] = "Sinus bradycardia"
  rows[3]["record"] = "nowhere"
  rows.insert(5, dict(GOOD, seed="x"))
  rows[6]["now_statements"] = "Sinus rythm"
  rows[7]["target_statements"] = "Sinus rhythm|A made up thing"
  return rows


def test_a_sample_is_that_of_generate_whatever_batch_it_lands_in(
  chain, tmp_path, capsys
):
  path = write_requests(tmp_path, mixed_rows(tmp_path))
  outcome = requests_module.run(make_config(chain, path, tmp_path / "out"))
  assert (outcome.rows, outcome.done) == (8, 6)
  assert [failure.number for failure in outcome.failures] == [4, 6]
  assert {2, 7, 8} <= set(outcome.warnings) <= {1, 2, 3, 5, 7, 8}
  printed = capsys.readouterr().out
  count = len(outcome.warnings)
  assert f"6 of 8 rows are done in {tmp_path}/out, 2 failed, {count}" in printed
  assert "warning of 1 rows (8): 'A made up thing' is not among" in printed
  twin = et.ECGTwin.from_checkpoint(chain / "stage2" / "twin")
  now = et.Condition(["Sinus rhythm"], 82, 50, "M")
  base = twin.extract_base(other_person(), now)
  then = et.Condition(GOOD["target_statements"].split("|"), 80, 50, "M")
  plain = twin.generate(base, then, num_samples=17, seed=17, steps=STEPS)
  folder = tmp_path / "out" / "row_00005"
  for i in (0, 4, 16):  # in the first, the second and the third batch
    with quiet_wfdb() as wfdb:
      record = wfdb.rdrecord(str(folder / f"row00005_{i}"))
    assert record.sig_name == list(LEADS)
    assert (record.fs, set(record.units)) == (102.4, {"mV"})
    signal = plain.signals[i]
    np.testing.assert_allclose(record.p_signal, signal, atol=6e-4)
    text = "\n".join(record.comments)
    for fact in (
      "synthetic",
      f"twin: {twin.digest}, seed: 17",
      f"statements: {then.text()}",
      "heart_rate: 80, age: 50, sex: M",
      "reference: other from 0 s",
      f"sample: {i}",
      f"beats: {write_beats(plain.beats[i])}",
    ):
      assert fact in text
  row = json.loads((folder / "row.json").read_text())
  assert row["beats"] == [write_beats(rhythm) for rhythm in plain.beats]
  first = json.loads((tmp_path / "out/row_00001/row.json").read_text())
  assert first["beats"] == ["0.400 1.200 2.000 pvc@2.600 4.200"] * 3
  np.testing.assert_allclose(
    row["lead_residual_mv"], plain.residuals, atol=2e-4
  )
  shows = "what the record shows: "
  seen = find_mismatches(other_person(), now)
  assert row["warnings"] == [shows + text for text in seen]
  for number, message in (
    (2, "'Sinus bradycardia' contradicts heart_rate=80"),
    (7, "the nearest is 'Sinus rhythm'"),
  ):
    row = json.loads((tmp_path / f"out/row_{number:05d}/row.json").read_text())
    (warning,) = [x for x in row["warnings"] if not x.startswith(shows)]
    assert message in warning
  # Its age and sex are from the record's comments.
  slow = et.Condition(["Sinus bradycardia"], 80, 81, "F")
  now = et.Condition(["Sinus rhythm"], 82, 81, "F")
  base = twin.extract_base(example_ecg(), now)
  with pytest.warns(UserWarning, match="contradicts"):
    plain = twin.generate(base, slow, num_samples=1, seed=1, steps=STEPS)
  ecg = et.read_ecg(tmp_path / "out" / "row_00002" / "row00002_0")
  np.testing.assert_allclose(ecg.signal, plain.signals[0], atol=6e-4)


@pytest.mark.parametrize("file_format", ["wfdb", "npz", "csv"])
def test_interrupted_and_resumed_gives_the_same_files(
  chain, tmp_path, monkeypatch, file_format
):
  path = write_requests(tmp_path, mixed_rows(tmp_path))
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  options = {"format": file_format, "sampling.consistent_leads": True}
  requests_module.run(make_config(chain, path, whole, **options))
  made = list(whole.glob(f"row_*/*{SUFFIXES[file_format]}"))
  assert len(made) == 39
  signal = et.read_ecg(made[0]).signal
  third = signal[:, 1] - signal[:, 0]
  np.testing.assert_allclose(signal[:, 2], third, atol=2e-3)

  calls = []
  generate = et.ECGTwin.generate_rows

  def interrupted(*args, **kwargs):
    calls.append(1)
    if len(calls) == 3:
      raise KeyboardInterrupt
    return generate(*args, **kwargs)

  monkeypatch.setattr(et.ECGTwin, "generate_rows", interrupted)
  config = make_config(chain, path, parts, **options)
  with pytest.raises(KeyboardInterrupt):
    requests_module.run(config)
  there = contents(parts)
  assert 0 < len(there) < len(contents(whole))
  # What a killed process leaves: a folder that is not whole, a lost file.
  (parts / ".row_00007").mkdir()
  (parts / ".row_00007" / "row00007_0.hea").write_text("half")
  lost = next(parts.glob("row_00003/row00003_8.*"))
  lost.unlink()
  requests_module.run(config)
  assert contents(parts) == contents(whole)
  assert len(calls) == 3 + 2  # 18 of the 39 ECGs were missing
  # A third run makes nothing, and writes nothing but the report.
  ages = {p: p.stat().st_mtime_ns for p in parts.rglob("row*.*")}
  requests_module.run(config)
  assert len(calls) == 3 + 2
  assert ages == {p: p.stat().st_mtime_ns for p in parts.rglob("row*.*")}
  # A file that lost its content is no result.
  next(parts.glob("row_00001/row00001_0.*")).write_bytes(b"")
  requests_module.run(config)
  assert contents(parts) == contents(whole)


def test_a_changed_row_or_setting_is_made_anew(chain, tmp_path, monkeypatch):
  rows = [dict(GOOD, n=1, seed=i) for i in range(3)]
  out = tmp_path / "out"
  requests_module.run(make_config(chain, write_requests(tmp_path, rows), out))
  before = contents(out)
  rows[1]["target_heart_rate"] = 60
  requests_module.run(make_config(chain, write_requests(tmp_path, rows), out))
  after = contents(out)
  changed = {name for name in before if before[name] != after[name]}
  assert {name.partition("/")[0] for name in changed} == {"row_00002"}
  path = write_requests(tmp_path, rows)
  requests_module.run(make_config(chain, path, out, format="npz"))
  assert not list(out.rglob("*.hea"))
  ecg = et.read_ecg(out / "row_00002" / "row00002_0.npz")
  assert "heart_rate: 60, age: 81, sex: F" in ecg.comments
  assert not any("consistent_leads: True" in line for line in ecg.comments)
  options = {"format": "npz", "sampling.consistent_leads": True}
  requests_module.run(make_config(chain, path, out, **options))
  ecg = et.read_ecg(out / "row_00002" / "row00002_0.npz")
  assert np.abs(lead_residual(ecg.signal[None])).max() < 1e-4
  assert any("consistent_leads: True" in line for line in ecg.comments)
  load = requests_module.load_twin

  def load_other(*arguments):
    twin = load(*arguments)
    twin.digest = "another"
    return twin

  monkeypatch.setattr(requests_module, "load_twin", load_other)
  requests_module.run(make_config(chain, path, out, **options))
  row = json.loads((out / "row_00002" / "row.json").read_text())
  assert row["twin"] == "another"


def test_a_target_may_have_an_age_and_a_sex_of_its_own(chain, tmp_path):
  rows = [dict(GOOD, n=1, target_age=30, target_sex="M")]
  # Whose rhythm, which it does not say, is the sinus node's.
  rows[0]["target_statements"] = "Ventricular premature complex"
  path = write_requests(tmp_path, rows)
  requests_module.run(make_config(chain, path, tmp_path / "out"))
  folder = tmp_path / "out" / "row_00001"
  comments = et.read_ecg(folder / "row00001_0").comments
  assert "heart_rate: 80, age: 30, sex: M" in comments
  assert f"statements: {GOOD['target_statements']}" in comments
  row = json.loads((folder / "row.json").read_text())
  assert (row["now"]["age"], row["now"]["sex"]) == (81, "F")


def test_a_row_that_cannot_be_written_is_reported(chain, tmp_path, monkeypatch):
  generate = et.ECGTwin.generate_rows

  def broken(*args, **kwargs):
    rows = generate(*args, **kwargs)
    signals = rows.signals.copy()
    signals[1, 3, 4] = np.nan
    return rows._replace(signals=signals)

  monkeypatch.setattr(et.ECGTwin, "generate_rows", broken)
  rows = [dict(GOOD, n=1, seed=i) for i in range(3)]
  path = write_requests(tmp_path, rows)
  outcome = requests_module.run(make_config(chain, path, tmp_path / "out"))
  (failure,) = outcome.failures
  assert (failure.number, outcome.done) == (2, 2)
  assert "must be finite" in failure.reason
  assert not (tmp_path / "out" / "row_00002").exists()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"batch_size": 12}, "batch_size=12 must be divisible"),
    ({"format": "pdf"}, "config.format='pdf' must be one of"),
    ({"sampling.sampler": "euler"}, "sampler='euler' must be one of"),
  ],
)
def test_what_is_refused_before_anything_is_made(
  chain, tmp_path, changes, message
):
  path = write_requests(tmp_path, [GOOD])
  config = make_config(chain, path, tmp_path / "out", **changes)
  with pytest.raises(ValueError, match=message):
    requests_module.run(config)
  assert not (tmp_path / "out").exists()
