"""Benchmarks of guidance, editing and attention: small runs, known answers."""

import json
import sys

import numpy as np
import pytest

from ecgtwin_jax.beats.delineation import Marks, Reading
from ecgtwin_jax.beats.median_beat import RATE, Beats
from ecgtwin_jax.data.dataset import load_split
from ecgtwin_jax.inference.twin import load_twin
from studies import (
  asked_findings,
  attention_share,
  edit_effect,
  guidance_effect,
  held_out,
  p_waves,
)
from studies.edit_kinds import KINDS, distances, part_of


def arguments(chain, folder, *more):
  parser = held_out.make_parser("", str(folder), 2)
  parser.add_argument("--thresholds", type=float, nargs="+")
  parser.add_argument("--generated", type=int)
  paths = [
    f"--twin={chain / 'stage2' / 'twin'}",
    f"--data={chain / 'simulated'}",
  ]
  return parser.parse_args([*paths, *more])


def run_twice(run, given, folder, name, one, monkeypatch, context):
  """Runs, resumes with one cell missing, and compares the tables."""
  run(given)
  table, cells = folder / f"{name}.csv", folder / "cells"
  first = table.read_bytes()
  before = {path: path.stat().st_mtime_ns for path in cells.glob("*.json")}
  missing = cells / one
  assert before.pop(missing) and len(before) > 1
  missing.unlink()
  for path in (table, folder / f"{name}.json", folder / f"{name}.png"):
    path.unlink()
  run(given)
  assert table.read_bytes() == first
  assert (folder / f"{name}.png").stat().st_size > 10_000
  assert {path: path.stat().st_mtime_ns for path in before} == before
  # With every cell there, nothing is measured.
  for method in ("measure", "recorded", "generated"):
    if hasattr(context, method):
      monkeypatch.delattr(context, method)
  run(given)
  assert table.read_bytes() == first
  rows = json.loads((folder / f"{name}.json").read_text())["rows"]
  with pytest.raises(ValueError, match="patients=2"):
    given.patients = 3
    run(given)
  return rows


def test_guidance(chain, tmp_path, monkeypatch):
  strengths = {"statement_guidance": (1.0, 2.0), "person_guidance": (1.0,)}
  monkeypatch.setattr(guidance_effect, "STRENGTHS", strengths)
  asked = {k: guidance_effect.ASKED[k] for k in ("pvc", "tachycardia")}
  monkeypatch.setattr(guidance_effect, "ASKED", asked)
  rows = run_twice(
    guidance_effect.run,
    arguments(chain, tmp_path),
    tmp_path,
    "guidance_effect",
    "2-1.json",
    monkeypatch,
    guidance_effect.Context,
  )
  plain, strong, real = rows
  assert (plain["statement_guidance"], strong["statement_guidance"]) == (1, 2)
  assert plain["gain"] == [0, 0, 0] and plain["ecgs"] == 2 * 2 * 2
  for name in ("diversity", "size", "truth"):
    assert real[name] == pytest.approx([1, 1, 1])
  assert real["tachycardia"][0] == 1 and real["rate_error"][0] < 15
  assert plain["similarity"] != strong["similarity"]


def test_edit(chain, tmp_path, monkeypatch):
  kept = {"add RBBB": KINDS["add RBBB"]._replace(weights=(1.0,))}
  monkeypatch.setattr(edit_effect, "KINDS", kept)
  asked, edit = [], edit_effect.Context.edit
  monkeypatch.setattr(
    edit_effect.Context,
    "edit",
    lambda self, kind, *how: asked.append(how) or edit(self, kind, *how),
  )
  rows = run_twice(
    edit_effect.run,
    arguments(chain, tmp_path, "--thresholds", "0.0", "0.5"),
    tmp_path,
    "edit_effect",
    "add-RBBB-edit-0.5-1.json",
    monkeypatch,
    edit_effect.Context,
  )
  assert asked[:3] == [(0.0, 1.0, False), (0.5, 1.0, False), (1.0, 1.0, True)]
  untouched = rows[0]
  assert untouched["edit"] == untouched["source"]
  assert [row["made"] for row in rows] == [
    *("edit", "edit", "own", "direct", "consistent", "seed")
  ]
  assert untouched["outside"] == [0, 0, 0] and 0 < rows[1]["outside"][0]


def test_rows_are_what_the_twin_edits(chain):
  twin = load_twin(str(chain / "stage2" / "twin"))
  data = load_split(str(chain / "simulated"), "test", kind="ecg")
  context = edit_effect.Context(twin, data, 2)
  kind = KINDS["add PVC"]
  source, edit = context.edit(kind, 0.5, 3.0, False)
  made = twin.edit(
    context.people.bases[1],
    context.ask(kind.source)[1],
    add=kind.edit[-1],
    weight=3.0,
    threshold=0.5,
    attention="source",
    num_samples=1,
    seed=1,
  )
  np.testing.assert_allclose(source[1], made.source.signals[0], atol=1e-4)
  np.testing.assert_allclose(edit[1], made.edited.signals[0], atol=1e-4)
  assert np.abs(edit[1] - source[1]).max() > 1e-3
  np.testing.assert_allclose(context.generate(kind.source), source, atol=1e-4)
  for other in KINDS.values():
    if other.rule == "swap":
      assert len(other.source) == len(other.edit)
    else:
      assert other.row == len(other.edit) - 1 or other.rule == "reweight"


def test_attention(chain, tmp_path, monkeypatch):
  monkeypatch.setattr(attention_share, "INTERVALS", ((0.0, 0.5),))
  monkeypatch.setattr(attention_share, "STEPS", 2)
  rows = run_twice(
    attention_share.run,
    arguments(chain, tmp_path, "--generated", "1"),
    tmp_path,
    "attention_share",
    "recorded-0-0.5.json",
    monkeypatch,
    attention_share.Context,
  )
  assert [row["ecgs"] for row in rows] == ["recorded"] * 2 + ["generated"] * 2
  assert [row["patients"] for row in rows] == [2, 2, 1, 1]
  whole = rows[0]
  assert whole["with_beats"] == 2
  assert 0.2 < whole["pvc"][0] < 5
  blocks = [v[0] for name, v in whole.items() if name.startswith("block")]
  assert min(blocks) <= whole["pvc"][0] <= max(blocks)


def reading(times, usual):
  marks = Marks(qrs_onset=0.36, qrs_offset=0.45, t_end=0.76)
  beats = Beats(
    np.zeros((520, 12)),
    round(0.4 * RATE),
    np.array(times),
    np.array(usual),
    np.zeros((2, 520, 12)),
    np.zeros((5000, 12)),
  )
  return Reading(beats, marks)


def test_part_of():
  # An odd early beat at 2.6 s; one that is odd, but late, at 5 s.
  shown = reading(
    [1.0, 2.0, 2.6, 4.0, 5.0, 6.0], [True, True, False, True, False, True]
  )
  time = np.arange(1000) / 100
  ectopic = part_of(KINDS["add PVC"], shown, 1000)
  np.testing.assert_array_equal(ectopic, (time >= 2.48) & (time < 3.08))
  (span,) = attention_share.to_spans(ectopic)
  np.testing.assert_allclose(span, [2.48, 3.08], atol=0.011)
  beats = part_of(KINDS["add RBBB"], shown, 1000)
  assert beats.sum() == pytest.approx(6 * 40, abs=6)
  assert beats[97:135].all() and not beats[137:195].any()
  assert part_of(KINDS["swap sinus for AF"], None, 7).all()
  assert not part_of(KINDS["add RBBB"], None, 7).any()


def test_distances():
  source, edit = np.zeros((10, 3)), np.zeros((10, 3))
  edit[:4], edit[4:] = 0.3, 0.1
  inside = np.arange(10) < 4
  assert distances(edit, source, inside) == pytest.approx((0.3, 0.1))
  nothing = distances(edit, source, np.zeros(10, bool))
  assert np.isnan(nothing[0]) and nothing[1] == pytest.approx(0.2049, abs=1e-4)


def test_scores():
  made = np.array([0.2, 0.3, np.nan])
  real, stranger = np.array([0.1, 0.1, 0.1]), np.array([0.5, 0.5, 0.1])
  score = guidance_effect.truth_score
  assert score(made, real, stranger) == pytest.approx((0.5 - 0.25) / 0.4)
  assert (
    score(real, real, stranger) == 1 and score(stranger, real, stranger) == 0
  )
  assert guidance_effect.ratio(made, real) == pytest.approx(2.5)
  assert np.isnan(score(made[2:], real[2:], stranger[2:]))


def test_ratios():
  attention = np.array([[0.8, 0.5], [0.2, 0.5], [0.2, 0.5], [0.2, 0.5]])
  found = attention_share.ratios(attention, np.array([[0.0, 2.5]]))
  np.testing.assert_allclose(found, [4, 1])
  for spans in (np.zeros((0, 2)), np.array([[-2.0, -1.0]])):
    assert np.isnan(attention_share.ratios(attention, spans)).all()


def test_estimate_and_tables(tmp_path):
  assert held_out.mean(np.array([1.0, np.nan, 3.0])) == 2
  value, low, high = held_out.estimate(
    held_out.mean_of(np.array([0.0, 1.0] * 50)), 100
  )
  assert value == 0.5 and 0.39 < low < 0.42 and 0.58 < high < 0.61
  made = []
  path = tmp_path / "cell.json"
  for _ in range(2):
    cell = held_out.read_or_make(
      path, lambda: made.append(0) or {"x": np.array([1.0, np.nan])}
    )
  assert len(made) == 1 and not list(tmp_path.glob("*.partial"))
  np.testing.assert_array_equal(held_out.column(cell, "x"), [1, np.nan])
  row = {"name": "a", "n": 3, "x": [1.23456, np.nan, 2.0]}
  held_out.write_table(tmp_path / "table", {"seed": 0}, [row])
  lines = (tmp_path / "table.csv").read_text().split()
  assert lines == ["name,n,x,x_low,x_high", "a,3,1.235,nan,2"]
  assert json.loads((tmp_path / "table.json").read_text()) == {
    "seed": 0,
    "rows": [{"name": "a", "n": 3, "x": [1.23456, None, 2.0]}],
  }


def test_without_a_name_it_is_the_twin_that_knows_simulated_ecgs(
  chain, tmp_path
):
  parser = held_out.make_parser("", str(tmp_path / "out"), 2)
  arguments = parser.parse_args([f"--data={chain / 'simulated'}"])
  twin, data, about = held_out.start(arguments)
  assert twin.path.name == "simulated-small" and about["patients"] == 2
  assert data.split == "test"


def test_other_data_are_refused(chain):
  data = load_split(str(chain / "simulated"), "test", kind="ecg")
  data.card["name"] = "ptbxl"
  with pytest.raises(ValueError, match="data_prep simulated"):
    held_out.find_people(load_twin(str(chain / "stage2" / "twin")), data, 2)


def test_each_finding_is_asked_for(chain, tmp_path, monkeypatch):
  asked = []
  criteria = asked_findings.check_criteria

  def check(reading, condition):
    asked.append(condition.statements)
    met = dict.fromkeys(criteria(reading, condition), False)
    return met | {"rbbb": "Right" in condition.statements[-1]}

  monkeypatch.setattr(asked_findings, "check_criteria", check)
  flags = [f"--twin={chain / 'stage2' / 'twin'}", f"--output={tmp_path}"]
  flags += [f"--data={chain / 'simulated'}"]
  monkeypatch.setattr(sys, "argv", ["asked_findings", *flags])
  asked_findings.main()
  table = (tmp_path / "asked_findings.md").read_text().splitlines()
  assert table[0] == "| pvc | fibrillation | lbbb | rbbb | av_block | lvh |"
  assert table[2] == "| 0.00 | 0.00 | 0.00 | 1.00 | 0.00 | 0.00 |"
  patients, rest = divmod(len(asked), 6)
  assert patients > 0 and not rest


def test_p_waves_are_counted_by_rhythm(chain, tmp_path, monkeypatch):
  flags = [f"--twin={chain / 'stage2' / 'twin'}", f"--output={tmp_path}"]
  flags += [f"--data={chain / 'simulated'}", "--most=4"]
  monkeypatch.setattr(sys, "argv", ["p_waves", *flags])
  p_waves.main()
  lines = (tmp_path / "p_waves.md").read_text().splitlines()
  cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
  assert cells[0][1:] == [
    *("recorded", "decoded", "twins"),
    "asked for fibrillation",
  ]
  assert cells[2][0] == "sinus rhythm"
  found, readable = map(int, cells[2][1].split(" of "))
  assert readable == 4 and found >= 3  # one P wave is below the noise
  assert cells[3][0] == "fibrillation" and cells[3][4] == ""
  found, readable = map(int, cells[3][1].split(" of "))
  assert found == 0 and readable > 0


def test_p_waves_need_both_rhythms(chain):
  data = load_split(str(chain / "simulated"), "test", kind="ecg")
  twin = load_twin(str(chain / "stage2" / "twin"))
  with pytest.raises(ValueError, match="no recording of sinus rhythm"):
    p_waves.measure(twin, data.select(np.array([], int)), 3)
