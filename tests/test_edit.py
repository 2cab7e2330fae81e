"""Edits from the same noise, from the user's object and from the job."""

import json
import pathlib

import numpy as np
import pytest

import ecgtwin_jax as et
from ecgtwin_jax import main, plotting
from ecgtwin_jax.data.ecg import example_ecg

ROOT = pathlib.Path(__file__).parent.parent
THEN = et.Condition(["Sinus rhythm", "Low QRS voltages"], 75, 81, "F")
RBBB = "Right bundle branch block"
# Two of the steps lie below the threshold of 0.2.
OPTIONS = dict(num_samples=2, steps=4, seed=3)
PUBLISHED = dict(OPTIONS, threshold=0.2, attention="source")


@pytest.fixture(scope="module")
def twin(chain):
  return et.ECGTwin.from_checkpoint(chain / "stage2" / "twin")


@pytest.fixture(scope="module")
def base(twin):
  return twin.extract_base(example_ecg(), THEN)


@pytest.fixture(scope="module")
def plain(twin, base):
  return twin.generate(base, THEN, **OPTIONS)


def distance(one, other):
  return np.abs(one.latents - other.latents).max()


def test_an_added_statement_changes_the_edit_and_not_the_source(
  twin, base, plain
):
  out = twin.edit(base, THEN, add=RBBB, **PUBLISHED)
  assert distance(out.source, plain) < 1e-4
  assert distance(out.edited, out.source) > 1e-4
  assert out.source.ecgs[0].comments == plain.ecgs[0].comments
  comments = out.edited.ecgs[1].comments
  assert f"statements: {THEN.text()}|{RBBB}" in comments
  facts = "weight: 1.0, threshold: 0.2, attention: source"
  assert any(facts in line for line in comments)
  stronger = twin.edit(base, THEN, add=RBBB, weight=4.0, **PUBLISHED)
  assert distance(stronger.edited, out.edited) > 1e-4
  none = twin.edit(base, THEN, add=RBBB, weight=0.0, **PUBLISHED)
  assert distance(none.edited, none.source) < 1e-4


def test_an_edit_is_what_the_changed_condition_gives_with_the_same_seed(
  twin, base
):
  beats = [0.4, 1.3, 2.1, 3.0, 3.9, 4.8, 5.6, 6.5, 7.4, 8.2, 9.1]
  changed = et.Condition([*THEN.statements, RBBB], 75, 81, "F")
  alone = twin.generate(base, changed, beats=beats, **OPTIONS)
  edits = {
    name: twin.edit(base, THEN, beats=beats, **change, **OPTIONS)
    for name, change in {
      "add": dict(add=RBBB),
      "swap": dict(swap=["Sinus rhythm", RBBB]),
      "weighed": dict(add=RBBB, weight=3.0),
      "as published": dict(add=RBBB, attention="source"),
    }.items()
  }
  assert distance(edits["add"].edited, alone) < 1e-4
  for name in ("swap", "weighed", "as published"):
    assert distance(edits[name].edited, alone) > 1e-4, name
    np.testing.assert_array_equal(
      edits[name].source.latents, edits["add"].source.latents
    )


def test_an_edit_of_a_guided_twin_starts_from_what_generate_gives(twin, base):
  own = dict(
    statement_guidance=2.0, person_guidance=3.0, temperature=0.7, **OPTIONS
  )
  guided = twin.generate(base, THEN, **own)
  out = twin.edit(base, THEN, add=RBBB, **own)
  assert distance(out.source, guided) < 1e-4
  assert distance(out.edited, out.source) > 1e-4


def test_reweighting_by_one_changes_nothing(twin, base):
  options = dict(reweight="Low  QRS voltages", **PUBLISHED)
  same = twin.edit(base, THEN, weight=1.0, **options)
  assert distance(same.edited, same.source) < 1e-4
  less = twin.edit(base, THEN, weight=0.0, **options)
  assert distance(less.edited, less.source) > 1e-4
  other = twin.edit(
    base, THEN, reweight="Sinus rhythm", weight=0.0, **PUBLISHED
  )
  assert distance(less.edited, other.edited) > 1e-4


def test_swap_of_statements_or_of_a_whole_condition(twin, base, plain):
  swapped = ["Sinus rhythm", RBBB]
  out = twin.edit(base, THEN, swap=swapped, **OPTIONS)
  assert distance(out.source, plain) < 1e-4
  assert distance(out.edited, out.source) > 1e-4
  whole = et.Condition(swapped, THEN.heart_rate, THEN.age, THEN.sex)
  again = twin.edit(base, THEN, swap=whole, **OPTIONS)
  np.testing.assert_array_equal(again.edited.latents, out.edited.latents)
  faster = et.Condition(swapped, 140, THEN.age, THEN.sex)
  moved = twin.edit(base, THEN, swap=faster, **OPTIONS)
  assert distance(moved.edited, out.edited) > 1e-4
  same = twin.edit(base, THEN, swap=THEN, **OPTIONS)
  assert distance(same.edited, same.source) < 1e-4


def test_the_threshold_is_a_share_of_the_schedule(twin, base, plain):
  swapped = et.Condition(["Sinus rhythm", RBBB], 75, 81, "F")
  never = twin.edit(base, THEN, swap=swapped, **PUBLISHED | {"threshold": 0})
  np.testing.assert_array_equal(never.edited.latents, never.source.latents)
  assert distance(never.source, plain) < 1e-4
  late = twin.edit(base, THEN, swap=swapped, **PUBLISHED)
  early = twin.edit(base, THEN, swap=swapped, **PUBLISHED | {"threshold": 1.0})
  moved = distance(late.edited, plain)
  assert 0 < moved < distance(early.edited, plain)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({}, "one of add, swap, reweight must be given"),
    (dict(add=RBBB, reweight="Sinus rhythm"), "must be given, not"),
    (dict(swap=["Sinus rhythm"]), "it has 1, the condition 2"),
    (dict(swap=["Sinus rhythm", RBBB, "Abnormal ECG"]), "it has 3"),
    (dict(reweight="Pacing"), "reweight='Pacing' must be one of"),
    (dict(add=RBBB, threshold=1.2), "threshold=1.2 must be in 0..1"),
    (dict(add=RBBB, attention="none"), "attention='none' must be one of"),
    (dict(add=RBBB, weight=np.inf), "weight=inf must be finite"),
    (dict(swap=["A", "B"], weight=2.0), "and 1 in a swap"),
    (dict(add="  "), "not blank"),
    (dict(add=RBBB, statement_guidance=np.inf), "must be finite"),
    (dict(add=RBBB, num_samples=0), "num_samples=0"),
  ],
)
def test_what_is_refused(twin, base, change, message):
  with pytest.raises(ValueError, match=message):
    twin.edit(base, THEN, **change)


def test_given_embeddings_are_kept_when_a_statement_is_added(twin, base):
  rows = np.random.default_rng(0).normal(size=(2, 768)).astype(np.float32)
  given = et.Condition(THEN.statements, 75, 81, "F", embeddings=rows)
  out = twin.edit(base, given, add=RBBB, **PUBLISHED)
  plain = twin.edit(base, THEN, add=RBBB, **PUBLISHED)
  assert distance(out.source, plain.source) > 1e-4
  assert distance(out.edited, out.source) > 1e-4


def test_the_job_writes_sources_edits_and_their_picture(
  chain, twin, tmp_path, monkeypatch
):
  drawn = []
  plot = plotting.plot_edits
  monkeypatch.setattr(
    plotting,
    "plot_edits",
    lambda *a, **k: drawn.append(k["titles"]) or plot(*a, **k),
  )
  arguments = [
    f"--config={ROOT}/configs/edit.py",
    f"--config.twin={chain}/stage2/twin",
    "--config.num_samples=2",
    "--config.sampling.steps=4",
    f"--config.add={RBBB}",
    "--config.weight=1.5",
    "--config.threshold=0.5",
    "--config.seed=3",
    "--config.target.statements=Sinus bradycardia",
    "--config.target.heart_rate=50",
    f"--workdir={tmp_path}",
  ]
  assert main.main(arguments) == 0
  record = json.loads((tmp_path / "edited.json").read_text())
  assert record["edit"]["add"] == RBBB
  assert record["edit"]["weight"] == 1.5
  assert record["edit"]["threshold"] == 0.5
  assert min(record["largest_change_mv"]) > 0
  assert (tmp_path / "edited.png").stat().st_size > 10_000
  then = et.Condition(["Sinus bradycardia"], 50, 81, "F")
  ((source_title, edit_title),) = drawn
  assert source_title == then.describe()
  assert edit_title == f"add {RBBB}, weight 1.5, threshold 0.5, attention own"
  shown = ["Sinus rhythm", RBBB, "Inferior infarct, age undetermined"]
  now = et.Condition(shown, 82, 81, "F")
  options = dict(add=RBBB, weight=1.5, threshold=0.5, **OPTIONS)
  out = twin.edit(twin.extract_base(example_ecg(), now), then, **options)
  sides = {"source": out.source.signals, "edited": out.edited.signals}
  for name, signals in sides.items():
    for i, signal in enumerate(signals):
      ecg = et.read_ecg(tmp_path / f"{name}_{i}.hea")
      assert "synthetic" in ecg.comments[0]
      np.testing.assert_allclose(ecg.signal, signal, atol=6e-4)
  moved = [np.abs(a - b).max() for a, b in zip(*sides.values())]
  np.testing.assert_allclose(record["largest_change_mv"], moved, atol=1e-3)
  assert moved[0] != moved[1]


def test_an_unequal_swap_is_one_line_in_words(chain, tmp_path, capsys):
  arguments = [
    f"--config={ROOT}/configs/edit.py",
    f"--config.twin={chain}/stage2/twin",
    "--config.swap=Sinus rhythm|Low QRS voltages",
    f"--workdir={tmp_path}",
  ]
  assert main.main(arguments) == 1
  (line,) = capsys.readouterr().err.strip().splitlines()
  assert "it has 2, the condition 1" in line
