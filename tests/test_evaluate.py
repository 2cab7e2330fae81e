import hashlib
import json
import pathlib
import shutil

import numpy as np
import pytest

from ecgtwin_jax.evaluation import evaluate
from ecgtwin_jax.evaluation.levels import Measured
from ecgtwin_jax.flags import load_config
from ecgtwin_jax.inference.twin import ECGTwin

CONFIG = pathlib.Path(__file__).parent.parent / "configs" / "evaluate.py"


def make_config(chain, workdir, **changes):
  config = load_config(str(CONFIG))
  config.twin = str(chain / "stage2" / "twin")
  config.data = str(chain / "simulated")
  config.workdir = str(workdir)
  config.patients, config.conditions = 4, 1
  config.training_recordings = 20
  config.sampling.steps = 2
  config.update(changes)
  return config


@pytest.fixture(scope="module")
def evaluated(chain, tmp_path_factory):
  config = make_config(chain, tmp_path_factory.mktemp("evaluated"))
  return config, evaluate.run(config)


def test_every_level_is_in_the_report(evaluated):
  config, metrics = evaluated
  folder = pathlib.Path(config.workdir)
  entries = json.loads((folder / "metrics.json").read_text())["metrics"]
  assert len(entries) == len(metrics) > 50
  assert {m["level"] for m in entries} == set(config.levels)
  leaks = {"finding_leakage", "base_heart_rate_leakage"}
  assert leaks <= {m["name"] for m in entries}
  fields = "name value low high baseline reference better n level note"
  assert all(list(m) == fields.split() for m in entries)
  assert {m["better"] for m in entries} == {"lower", "higher"}
  page = (folder / "report.html").read_text()
  pictures = list(folder.glob("levels/*/*.png"))
  assert len(pictures) >= 6 and page.count("data:image/png") == len(pictures)
  assert "no claim about hearts" in page and "Re-identification" in page
  assert all((folder / f"{level}.csv").exists() for level in config.levels)


def test_a_second_run_reads_what_is_there(evaluated, monkeypatch):
  config, metrics = evaluated

  def fail(*arguments, **more):
    raise AssertionError("measured or generated again")

  for name, level in evaluate.LEVELS.items():
    monkeypatch.setitem(evaluate.LEVELS, name, level._replace(measure=fail))
  monkeypatch.setattr(ECGTwin, "generate_rows", fail)
  again = evaluate.run(config)
  assert [m.name for m in again] == [m.name for m in metrics]


def test_a_kept_file_that_was_changed_is_made_again(
  evaluated, tmp_path, monkeypatch, capsys
):
  config, metrics = evaluated
  config = config.copy_and_resolve_references()
  config.workdir = str(shutil.copytree(config.workdir, tmp_path / "copy"))
  config.levels = ("fidelity", "truth")
  measured = []
  for name, level in evaluate.LEVELS.items():
    rows = [m for m in metrics if m.level == name]

    def measure(_, name=name, rows=rows):
      measured.append(name)
      return Measured(rows, {})

    monkeypatch.setitem(evaluate.LEVELS, name, level._replace(measure=measure))
  arm = tmp_path / "copy/generated/twin/000000.npy"
  honest = np.load(arm)
  # The seal comes with the file, as one would copy them from elsewhere.
  for end in ("", ".sha256"):
    source = tmp_path / f"copy/generated/zero_base/000000.npy{end}"
    shutil.copy(source, f"{arm}{end}")
  evaluate.run(config)
  np.testing.assert_array_equal(np.load(arm), honest)
  out = capsys.readouterr().out
  assert f"{arm} is not as it was written: generated again" in out
  assert not measured  # what was generated again is what was measured
  picture = next((tmp_path / "copy/levels/truth").glob("*.png"))
  picture.write_bytes(b"")
  evaluate.run(config)
  assert measured == ["truth"]
  kept = tmp_path / "copy/levels/fidelity/metrics.json"
  kept.write_text(kept.read_text().replace('"fid', '"fido'))
  evaluate.run(config)
  assert measured == ["truth", "fidelity"]
  assert "fidelity is not as it was written: measured again" in (
    capsys.readouterr().out
  )


def test_a_workdir_of_something_else_is_refused(chain, evaluated):
  config, _ = evaluated
  other = make_config(chain, config.workdir, seed=1)
  with pytest.raises(ValueError, match="with seed=0, not 1: name another"):
    evaluate.run(other)


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("splits", ("validation",)),
    ("half", "validation"),
    ("patients", 3),
    ("conditions", 2),
    ("num_samples", 2),
    ("ablations", ()),
    ("published_protocol", True),
    ("training_recordings", 21),
    ("sampling", {"steps": 3}),
  ],
)
def test_any_setting_of_something_else_is_refused(chain, evaluated, key, value):
  config, _ = evaluated
  other = make_config(chain, config.workdir, **{key: value})
  with pytest.raises(ValueError, match=f"with {key}=.*: name another"):
    evaluate.run(other)


def test_another_data_set_is_refused(chain, evaluated, monkeypatch):
  config, _ = evaluated
  load = evaluate.load_splits

  def load_other(*arguments):
    data = load(*arguments)
    data.card["fingerprint"] = "another"
    return data

  monkeypatch.setattr(evaluate, "load_splits", load_other)
  with pytest.raises(ValueError, match=r"with data=.*: name another"):
    evaluate.run(config)


def test_the_settings_of_generating_are_handed_on(chain, tmp_path, monkeypatch):
  class Stopped(Exception):
    pass

  def make(*arguments, **given):
    handed.update(given)
    raise Stopped

  handed = {}
  monkeypatch.setattr(evaluate.generate_examples, "make", make)
  ablations = ("zero_base",)
  changes = dict(seed=5, num_samples=3, ablations=ablations)
  with pytest.raises(Stopped):
    evaluate.run(make_config(chain, tmp_path, **changes))
  assert handed.items() >= {**changes, "steps": 2}.items()


def test_a_judge_is_the_given_one_or_the_shipped_one(monkeypatch):
  shipped = str(evaluate.twin_directory.shipped("simulated-evaluators"))
  assert evaluate.find_evaluator("clip", None) == shipped
  assert evaluate.find_evaluator("vae", None) is None
  monkeypatch.setattr(evaluate.checkpoint, "has_weights", lambda *a: True)
  assert evaluate.find_evaluator("clip", "mine") == "mine"


def test_what_does_not_apply_says_so(evaluated):
  config, before = evaluated
  config = config.copy_and_resolve_references()
  config.not_applicable = ("amplitude", "limb_lead")
  after = evaluate.run(config)
  assert [m.name for m in after] == [m.name for m in before]
  changed = [m for m in after if "not applicable" in m.note]
  assert all("amplitude" in m.name or "limb_lead" in m.name for m in changed)
  assert len(changed) > 6 and not any(m.value == m.value for m in changed)


def test_bad_settings_are_named(chain, tmp_path):
  with pytest.raises(ValueError, match=r"levels=\['taste'\] must be of"):
    evaluate.run(make_config(chain, tmp_path, levels=("taste",)))
  with pytest.raises(ValueError, match="must name at least one split"):
    evaluate.run(make_config(chain, tmp_path, splits=()))
  wrong = make_config(chain, tmp_path, clip=str(chain / "vae"))
  with pytest.raises(ValueError, match="holds no clip"):
    evaluate.run(wrong)


def test_splits_are_joined(chain):
  both = evaluate.load_splits(str(chain / "simulated"), ("validation", "test"))
  parts = [
    evaluate.load_splits(str(chain / "simulated"), (split,))
    for split in ("validation", "test")
  ]
  assert len(both) == sum(map(len, parts))
  assert both.split == "validation+test"
  assert both.record_id.tolist() == [
    *parts[0].record_id.tolist(),
    *parts[1].record_id.tolist(),
  ]
  assert len(both.arrays["ecg"]) == len(both)


def test_halves_of_the_patients_depend_on_their_names_alone(chain):
  data = evaluate.load_splits(str(chain / "simulated"), ("train", "test"))
  halves = [evaluate.take_half(data, half) for half in evaluate.HALVES]
  people = [set(half.patient_id.tolist()) for half in halves]
  assert people[0] and people[1] and not people[0] & people[1]
  assert sum(map(len, halves)) == len(data)
  assert halves[1].split == "train+test, test half"
  few = evaluate.take_half(data.select(np.arange(5)), "validation")
  assert set(few.patient_id.tolist()) <= people[0]
  # The rule that docs/evaluation.md states.
  first = hashlib.sha256(b"13243").digest()[0]
  assert evaluate.half_of("13243") == ("validation", "test")[first % 2]
  with pytest.raises(ValueError, match="half='third' must be one of"):
    evaluate.take_half(data, "third")
