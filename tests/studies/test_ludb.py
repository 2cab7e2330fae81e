"""Comparing marks with cardiologists': pairs, spans, intervals, by hand."""

import numpy as np
import pytest

from ecgtwin_jax.data.ecg import quiet_wfdb
from studies import ludb


def test_marks_of_a_lead_are_read_with_what_is_missing(tmp_path):
  symbols = ["(", "p", ")", "(", "N", ")", "t", ")"]
  with quiet_wfdb() as wfdb:
    wfdb.wrann(
      "1",
      "ii",
      np.array([50, 60, 70, 90, 100, 115, 200, 240]),
      symbols,
      write_dir=str(tmp_path),
      fs=500,
    )
  marks = ludb.read_marks(str(tmp_path / "1"), "II", 500.0)
  assert {name: times.tolist() for name, times in marks.items()} == {
    "P onset": [0.1],
    "P peak": [0.12],
    "P offset": [0.14],
    "QRS onset": [0.18],
    "QRS peak": [0.2],
    "QRS offset": [0.23],
    "T onset": [],
    "T peak": [0.4],
    "T offset": [0.48],
  }


def test_each_mark_has_one_partner_within_150_ms():
  marked = np.array([1.0, 2.0, 3.0])
  # 1.02 takes 1.0, so 0.97 has none; 2.2 is too far; 9 is outside of the span.
  found = np.array([0.97, 1.02, 2.2, 3.1, 9.0])
  sums = ludb.compare(marked, found, (1.0, 3.0))
  assert sums == pytest.approx([3, 4, 2, 120.0, 20**2 + 100**2])
  assert ludb.compare(np.zeros(0), found[:1], (0.0, 2.0)) == [0, 1, 0, 0, 0]
  row = ludb.summarise(np.array([sums, sums]))
  assert row["sensitivity"][0] == pytest.approx(2 / 3)
  assert row["predictivity"][0] == pytest.approx(2 / 4)
  assert row["f1"][0] == pytest.approx(4 / 7)
  assert row["mean"][0] == pytest.approx(60) and row["sd"][0] == pytest.approx(
    40
  )


def test_beats_that_six_leads_show():
  peaks = [np.array([1.0, 2.0]) + 0.01 * k for k in range(6)]
  peaks += [np.array([1.0, 3.0]) for _ in range(5)]
  assert ludb.common_beats(peaks) == pytest.approx([1.0, 2.025])


def test_intervals_are_medians_over_beats_and_leads():
  def lead(pr, missing=False):
    onset = np.array([1.0, 2.0, 3.0])
    return {
      # A P wave without a beat, and a beat without a T wave.
      "P onset": np.append(onset - pr, 5.0),
      "QRS onset": onset,
      "QRS offset": np.zeros(0) if missing else onset + [0.08, 0.09, 0.2],
      "T offset": onset[:2] + 0.4,
    }

  found = ludb.intervals([lead(0.16), lead(0.18, missing=True)])
  assert found == pytest.approx({"PR": 170, "QRS": 90, "QT": 400})
  assert np.isnan(ludb.intervals([lead(0.5)])["PR"])
