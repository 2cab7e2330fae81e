"""Figures of sampled rhythms: measures by hand, distances, groups."""

import numpy as np
import pytest

from ecgtwin_jax.beats import notation
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.evaluation.condition import rhythm
from helpers.toy_examples import make_examples

SINUS = Condition(["Sinus rhythm"], 75)
PVC = Condition(["Sinus rhythm", "Ventricular premature complex"], 75)
AF = Condition(["Atrial fibrillation"], 75)


def regular(interval, first=0.1):
  times = first + interval * np.arange(int((9.9 - first) / interval) + 1)
  return notation.read_beats(times.tolist(), SINUS.statements)


WITH_PVC = notation.read_beats("1 2 pvc@2.6 4 5 6 7 8 9")


def value(name, beats):
  return rhythm.of_rhythms(rhythm.FIGURES[name][0], [beats])[0]


def test_measures_by_hand():
  assert value("rate_bpm", regular(0.8)) == pytest.approx(75, rel=1e-5)
  assert value("rmssd_ms_sinus", regular(0.8)) == pytest.approx(0, abs=1e-3)
  uneven = notation.read_beats([0.5, 1.5, 2.7, 3.7, 4.9])
  assert value("rmssd_ms_sinus", uneven) == pytest.approx(200, rel=1e-4)
  assert value("irregularity_flutter", uneven) == pytest.approx(0.1 / 1.1)
  assert value("longest_rr", WITH_PVC) == pytest.approx(1.4)
  assert value("pvc_share_stated", WITH_PVC) == pytest.approx(1 / 9)
  assert value("pvc_coupling", WITH_PVC) == pytest.approx(0.6)
  assert value("pvc_pause", WITH_PVC) == pytest.approx(1.0)
  assert value("pac_share_stated", WITH_PVC) == 0
  assert value("p_wave_share_sinus", WITH_PVC) == pytest.approx(8 / 9)
  assert np.isnan(value("pvc_coupling", regular(0.8)))
  assert np.isnan(value("rate_bpm", notation.read_beats("1 2 3")))


def test_groups_are_what_reports_state():
  conditions = [SINUS, PVC, AF]
  for group, rows in {
    "": [1, 1, 1],
    "sinus": [1, 0, 0],
    "atrial_fibrillation": [0, 0, 1],
    "-ventricular_premature": [1, 0, 1],
  }.items():
    found = rhythm.rows_that_state(group, conditions)
    np.testing.assert_array_equal(found, np.array(rows, bool))


def test_a_distance_is_in_the_measures_unit_beside_halves_and_others():
  n = 20
  half = [regular(0.8)] * (n // 2)
  compared = rhythm.Compared(
    [SINUS] * (n // 2) + [PVC] * (n // 2),
    half + [WITH_PVC] * (n // 2),
    [[regular(0.75)] * 2] * (n // 2) + [[WITH_PVC] * 2] * (n // 2),
    np.arange(n),
  )
  figures = {m.name: m for m in rhythm.metrics(compared)}
  rate = figures["rhythm_rate_bpm_distance"]
  assert rate.value == pytest.approx(5 / 2, rel=1e-4)  # half of the rows
  assert rate.low < rate.value < rate.high
  pvc = figures["rhythm_pvc_share_stated_distance"]
  assert pvc.value == 0 and pvc.n == n // 2
  assert pvc.baseline > 0.02  # of other rows, about half have none
  assert pvc.reference == 0 or np.isnan(pvc.reference)
  flutter = figures["rhythm_irregularity_flutter_distance"]
  assert np.isnan(flutter.value) and "fewer than 8" in flutter.note
  figure = rhythm.draw(compared, each=2)
  assert len(figure.axes) == 12


def test_real_rhythms_are_detected_and_sampled_ones_asked_of_the_twin():
  calls = []

  def draw_rhythms(conditions, seeds, numbers):
    calls.append((conditions, seeds, numbers))
    return [regular(0.5 + 0.1 * number) for number in numbers]

  real = np.zeros((2, 1024, 12), np.float32)
  examples = make_examples(real, {}, conditions=(SINUS, AF))
  compared = rhythm.compute(examples, draw_rhythms, count=2, seed=3)
  assert calls == [([SINUS, SINUS, AF, AF], [3, 3, 4, 4], [0, 1, 0, 1])]
  assert all((found.kind == -1).all() for found in compared.real)
  rates = rhythm.of_rhythms(rhythm.rate_bpm, compared.sampled[1])
  np.testing.assert_allclose(rates, [120, 100], rtol=1e-5)
