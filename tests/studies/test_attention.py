"""Share of attention in spans of time, on attention made by hand."""

import numpy as np
import pytest

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.simulator import simulate
from studies.attention_spans import attention_share, beat_spans


def test_by_hand():
  # Four moments of 2.5 s; the span covers half of the second, all of the third.
  attention = np.array([[0.4, 1.0], [0.2, 1.0], [0.3, 1.0], [0.1, 1.0]])
  share = attention_share(attention, np.array([[3.75, 7.5]]))
  assert share.time == pytest.approx(0.375)
  np.testing.assert_allclose(share.inside, [0.1 + 0.3, 0.375])
  ratio = (0.4 / 0.375) / (0.6 / 0.625)
  np.testing.assert_allclose(share.ratio, [ratio, 1.0])


def test_overlapping_spans_count_once_and_what_lies_outside_not_at_all():
  rng = np.random.default_rng(0)
  attention = rng.uniform(size=(128, 3))
  one = attention_share(attention, np.array([[0.0, 2.0], [6.0, 9.0]]))
  several = np.array(
    [[8.0, 9.0], [-3.0, 1.0], [0.5, 2.0], [6.0, 8.5], [11, 12]]
  )
  again = attention_share(attention, several)
  assert one.time == pytest.approx(0.5)
  np.testing.assert_allclose(again.inside, one.inside)
  np.testing.assert_allclose(again.ratio, one.ratio)


def test_attention_on_ectopic_beats_of_a_simulated_patient_is_found():
  rng = np.random.default_rng(3)
  patient = simulate.sample_patient(rng)
  condition = Condition(["Sinus rhythm", "Ventricular premature complex"], 75)
  marks = simulate.simulate(patient, condition, rng).fiducials
  spans = beat_spans(marks)
  assert len(spans) == (marks.kind == "pvc").sum() > 0
  assert (np.diff(spans) > 0.2).all()
  time = (np.arange(128) + 0.5) * 10 / 128
  near = ((time >= spans[:, :1]) & (time < spans[:, 1:])).any(axis=0)
  looks = np.where(near, 0.8, 0.2)
  share = attention_share(np.stack([1 - looks, looks], axis=1), spans)
  assert share.ratio[1] > 3 > 1 > 0.35 > share.ratio[0]
  assert share.inside[1] > share.time > share.inside[0]


@pytest.mark.parametrize(
  ("attention", "spans", "message"),
  [
    (np.ones((8, 2)), np.zeros((0, 2)), "not 0%"),
    (np.ones((8, 2)), np.array([[-1.0, 11.0]]), "not 100%"),
    (np.ones((8, 2)), np.array([[3.0, 2.0]]), "end after they begin"),
    (np.zeros((8, 2)), np.array([[3.0, 4.0]]), "must be > 0"),
  ],
)
def test_what_is_refused(attention, spans, message):
  with pytest.raises(ValueError, match=message):
    attention_share(attention, spans)
