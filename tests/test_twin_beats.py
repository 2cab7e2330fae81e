"""Which beats a twin's ECGs have, on the smoke chain's twin (untrained)."""

import numpy as np
import pytest

import ecgtwin_jax as et
from ecgtwin_jax.beats import notation
from ecgtwin_jax.beats.rhythm import KINDS
from ecgtwin_jax.inference import networks, twin_directory
from ecgtwin_jax.inference.rhythms import as_stated, edit_rhythms
from ecgtwin_jax.inference.sampling import Settings, make_tracks

SINUS = et.Condition(["Sinus rhythm"], 73, 60, "F")
PVC = et.Condition(["Sinus rhythm", "Ventricular premature complex"], 73)
AF = et.Condition(["Atrial fibrillation"], 73)
STEADY = notation.read_beats([0.5 + 0.8 * k for k in range(12)])
OTHER = notation.read_beats([0.3 + 0.7 * k for k in range(12)])


@pytest.fixture(scope="module")
def parts(chain):
  folder = chain / "stage2" / "twin"
  return {p: twin_directory.read_part(folder, p) for p in networks.PARTS}


@pytest.fixture(scope="module")
def twin(chain):
  return et.ECGTwin.from_checkpoint(chain / "stage2" / "twin")


@pytest.fixture(scope="module")
def base(twin):
  return np.zeros(twin.networks.modules["denoiser"].base_width, np.float32)


def same(one, other):
  return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other))


def test_each_sample_has_a_rhythm_of_its_own_at_the_asked_rate(twin, base):
  out = twin.generate(base, SINUS, num_samples=3, steps=2, seed=5)
  alone = twin.draw_rhythms([SINUS], [5], [1])
  assert len(out.beats) == 3 and same(out.beats[1], alone[0])
  assert not same(out.beats[0], out.beats[1])
  for rhythm in out.beats:
    times = rhythm.time[rhythm.kind >= 0].astype(np.float64)
    assert 60 / np.diff(times).mean() == pytest.approx(73, abs=1e-3)


def test_beats_of_the_user_are_those_of_the_ecg(twin, base):
  def make(beats):
    return twin.generate(base, PVC, num_samples=2, steps=2, beats=beats)

  text = make("0.4 1.2 2.0 pvc@2.6 4.2")
  assert all(same(rhythm, text.beats[0]) for rhythm in text.beats)
  assert notation.write_beats(text.beats[0]) == (
    "0.400 1.200 2.000 pvc@2.600 4.200"
  )
  again = make(text.beats[0])
  np.testing.assert_array_equal(again.latents, text.latents)
  moved = make("0.4 1.2 2.0 pvc@2.6 5.2")
  assert np.abs(moved.latents - text.latents).max() > 1e-4
  placed = make("pvc@4.2").beats[0]
  assert (placed.kind >= 0).sum() > 8
  pvcs = placed.time[placed.kind == KINDS.index("pvc")]
  np.testing.assert_allclose(pvcs, [4.2], atol=1e-6)


def test_rows_have_beats_of_their_own(twin, base):
  rows = twin.generate_rows(
    [base] * 3,
    [SINUS] * 3,
    [0, 0, 0],
    [0, 1, 2],
    Settings(steps=2),
    beats=[None, "1 2 3", None],
  )
  plain = twin.draw_rhythms([SINUS] * 3, [0, 0, 0], [0, 1, 2])
  assert same(rows.beats[0], plain[0]) and same(rows.beats[2], plain[2])
  assert notation.write_beats(rows.beats[1]) == "1.000 2.000 3.000"


def test_without_a_rhythm_model_beats_must_be_given(twin, parts, base):
  rest = {name: parts[name] for name in networks.REQUIRED}
  lacking = et.ECGTwin(rest, None, "", "hashed-v1")
  with pytest.raises(ValueError, match=r"no rhythm model .* give beats="):
    lacking.generate(base, SINUS, num_samples=1, steps=2)
  out = lacking.generate(base, SINUS, num_samples=1, steps=2, beats="1 2 3")
  assert len(out.beats) == 1
  hyper, variables = parts["rhythm"]
  other = {**parts, "rhythm": ({**hyper, "statement_encoder": "x"}, variables)}
  with pytest.raises(ValueError, match=r"rhythm model .* encoder 'x'"):
    et.ECGTwin(other, None, "", "hashed-v1")


def test_the_shipped_twin_of_before_is_told_of_no_beats(
  monkeypatch, twin, base
):
  monkeypatch.setattr(networks.Networks, "reads_beats", False)
  with pytest.raises(ValueError, match=r"must be None: .* told of none"):
    twin.generate(base, SINUS, num_samples=1, steps=2, beats="1 2 3")
  hyper = dict(twin.hyper["denoiser"], model={"beat_track": "none"})
  told = r"shape_temperature=0.5 must be 1: this twin is told of no beats"
  with pytest.raises(ValueError, match=told):
    twin.settings(shape_temperature=0.5).plan(hyper)
  assert twin.settings(shape_temperature=1).plan(hyper).shape_temperature == 1


def test_of_no_rhythms_there_is_no_track():
  times, none = np.float32([[0.5, 1.3]]), np.zeros((1, 2), np.int8)
  assert make_tracks(True, times, none, none).any()
  assert make_tracks(True) is None


def test_an_edit_has_the_beats_of_its_source_as_far_as_it_can(twin, base):
  added = twin.edit(
    base, SINUS, add="Right bundle branch block", num_samples=2, steps=2
  )
  assert all(map(same, added.source.beats, added.edited.beats))
  plain = twin.generate(base, SINUS, num_samples=2, steps=2)
  assert all(map(same, added.source.beats, plain.beats))


def refuse():
  raise AssertionError("no rhythm may be sampled")


def test_an_edit_that_adds_a_pvc_makes_one_beat_a_pvc():
  edited = edit_rhythms([STEADY, OTHER], SINUS, PVC, refuse, seed=3)
  for before, after in zip((STEADY, OTHER), edited):
    assert (before.kind != after.kind).sum() == 1
    assert (after.kind == KINDS.index("pvc")).sum() == 1
    kept = before.kind == after.kind
    np.testing.assert_array_equal(before.time[kept], after.time[kept])
  back = edit_rhythms(edited, PVC, SINUS, refuse, seed=3)
  for before, after in zip((STEADY, OTHER), back):
    np.testing.assert_allclose(before.time, after.time, atol=1e-6)
    np.testing.assert_array_equal(before.kind, after.kind)


def test_a_stated_premature_beat_is_there():
  stated = as_stated(STEADY, PVC)
  assert (stated.kind == KINDS.index("pvc")).sum() == 1
  times = stated.time[stated.kind >= 0].astype(np.float64)
  assert np.diff(times).mean() == pytest.approx(0.8)  # the rate stays
  assert as_stated(stated, PVC) is stated
  assert as_stated(STEADY, SINUS) is STEADY
  doubt = et.Condition(["Possible ventricular premature complex"], 73)
  assert as_stated(STEADY, doubt) is STEADY


def test_an_edit_of_rhythm_or_rate_samples_one_unless_beats_are_given():
  faster = et.Condition(SINUS.statements, 90)
  for after in (AF, faster):
    assert edit_rhythms([STEADY], SINUS, after, lambda: [OTHER], 0) == [OTHER]
    assert edit_rhythms([STEADY], SINUS, after, None, 0)[0] is STEADY
  same_words = et.Condition(["sinus rhythm.", "Low QRS voltages"], 73)
  assert edit_rhythms([STEADY], SINUS, same_words, refuse, 0)[0] is STEADY
