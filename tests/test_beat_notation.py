"""Beats as a user asks for them: what is read, refused, put in, taken out."""

import numpy as np
import pytest

from ecgtwin_jax.beats import notation
from ecgtwin_jax.beats.rhythm import KINDS, MAX_BEATS

SINUS = ("Sinus rhythm",)
STEADY = notation.read_beats([0.5 + 0.8 * k for k in range(12)], SINUS)


def beats_of(rhythm):
  count = int((rhythm.kind >= 0).sum())
  kinds = [KINDS[kind] for kind in rhythm.kind[:count]]
  return list(
    zip(np.round(rhythm.time[:count].astype("f8"), 3).tolist(), kinds)
  )


def test_times_pairs_and_texts_are_the_same_beats():
  text = notation.read_beats("0.4 1.2, PVC@2.0s 4.25", SINUS)
  pairs = notation.read_beats([(0.4, "usual"), 1.2, (2, "pvc"), 4.25], SINUS)
  assert beats_of(text) == beats_of(pairs)
  assert beats_of(text)[2] == (2.0, "pvc")
  assert text.p_wave[:5].tolist() == [1, 1, 0, 1, -1]
  assert text.time.shape == (MAX_BEATS,) and np.isnan(text.time[4:]).all()
  again = notation.read_beats(notation.write_beats(text), SINUS)
  for one, other in zip(text, again):
    np.testing.assert_array_equal(one, other)
  assert notation.read_beats(text) is text


@pytest.mark.parametrize(
  ("report", "kind", "p_wave"),
  [
    ("Atrial fibrillation", "usual", 0),
    ("Ventricular pacing", "paced", 0),
    ("Sinus rhythm", "usual", 1),
  ],
)
def test_what_a_usual_beat_is_depends_on_the_report(report, kind, p_wave):
  rhythm = notation.read_beats([1.0, 2.0], (report,))
  assert [kind for _, kind in beats_of(rhythm)] == [kind, kind]
  assert rhythm.p_wave[:2].tolist() == [p_wave, p_wave]


@pytest.mark.parametrize(
  ("beats", "rule"),
  [
    ([0.4, 10.0], "10 s must be in 0..10 s"),
    ([-0.1], "-0.1 s must be in 0..10 s"),
    ([0.4, 0.4], "0.4 s and 0.4 s: times must ascend"),
    ([], "0 beats must be 1..48"),
    (np.linspace(0, 9.9, 49).tolist(), "49 beats must be 1..48"),
    ([(1.0, "vpc")], "one of usual, pvc, pac, paced"),
    ([float("nan")], "must be in 0..10 s"),
    ("0.4 pvc:2.0", "'pvc:2.0' is no beat"),
    ("." * 10**6, f"beats='{'.' * 60}': '{'.' * 60}' is no beat"),
    (STEADY._replace(time=STEADY.time[::-1].copy()), "must be finite"),
    (STEADY._replace(kind=STEADY.kind[:40]), "must be (48,)"),
    (STEADY._replace(kind=np.full(48, 9, np.int8)), "must be 0..3"),
  ],
)
def test_other_beats_are_refused_with_the_value_and_the_rule(beats, rule):
  with pytest.raises(ValueError) as error:
    notation.read_beats(beats)
  assert rule in str(error.value)


def test_a_pvc_stands_at_its_time_in_the_place_of_a_beat():
  premature = notation.read_beats("pvc@4.2", SINUS)
  assert notation.only_premature(premature) and not notation.only_premature(
    STEADY
  )
  beats = beats_of(notation.put_into(STEADY, premature))
  place = beats.index((4.2, "pvc"))
  before, after = beats[place - 1][0], beats[place + 1][0]
  assert 4.2 - before == pytest.approx(0.62 * 0.8, abs=0.01)
  assert after - before == pytest.approx(1.6, abs=0.01)  # the pause makes up
  assert [kind for _, kind in beats].count("pvc") == 1
  times = [time for time, _ in beats]
  assert times[0] < 0.8 and times[-1] > 9.2  # no gap at the ends


def test_a_premature_beat_is_added_and_taken_out_and_others_stay():
  with_pvc = notation.add_premature(STEADY, "pvc", 0.5)
  changed = np.flatnonzero(with_pvc.kind == KINDS.index("pvc"))
  assert len(changed) == 1 and 1 <= changed[0] <= 10
  others = np.arange(MAX_BEATS) != changed[0]
  np.testing.assert_array_equal(with_pvc.time[others], STEADY.time[others])
  assert with_pvc.time[changed[0]] < STEADY.time[changed[0]] - 0.2
  assert with_pvc.p_wave[changed[0]] == 0
  without = notation.take_out(with_pvc, "pvc")
  np.testing.assert_allclose(without.time, STEADY.time, atol=1e-6)
  np.testing.assert_array_equal(without.kind, STEADY.kind)
  np.testing.assert_array_equal(without.p_wave, STEADY.p_wave)
