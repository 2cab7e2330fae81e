"""What is asked of generated ECGs against what is found in them."""

import dataclasses

import numpy as np
import pytest

from ecgtwin_jax.beats import self_check
from ecgtwin_jax.beats.self_check import check_ecgs
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import ECG, example_ecg
from ecgtwin_jax.inference.results import Generated

SHOWN = Condition(
  ["Sinus rhythm", "Right bundle branch block", "Sinus tachycardia"], 101
)


def make_ecgs():
  """A real one, a flat lead, one in microvolts by mistake, and noise."""
  ecg = example_ecg()
  signal = ecg.signal
  flat = signal.copy()
  flat[:, 8] = 0.5
  noise = np.random.default_rng(0).normal(size=signal.shape)
  return [
    dataclasses.replace(ecg, signal=x, record=f"twin_{i}")
    for i, x in enumerate((signal, flat, 1000 * signal, noise))
  ]


def test_rate_criteria_and_what_is_no_ecg():
  ecgs = make_ecgs()
  check = check_ecgs(ecgs, SHOWN)
  assert check.rates[0] == pytest.approx(82, abs=2)
  # The bundled recording has the block, and is a fifth slower than asked.
  assert list(check.criteria) == ["rbbb", "tachycardia"]
  assert check_ecgs(ecgs[:1], SHOWN).criteria == {"rbbb": 1, "tachycardia": 0}
  assert check_ecgs(ecgs[:1], SHOWN).missed_rates == 1
  assert check.broken["twin_1"] == "lead V3 is flat"
  assert check.broken["twin_2"].endswith("mV")
  assert "twin_0" not in check.broken
  text = str(check)
  assert "heart rate: 101 bpm asked for" in text
  assert f"broken: {len(check.broken)} of 4 (twin_1: lead V3 is flat" in text
  found = check.as_json()
  assert found["rates_failed"] == sum(map(np.isnan, check.rates))
  assert found["rates_missed"] == check.missed_rates == 4


def test_what_has_no_beats_fails_and_is_broken():
  slope = np.linspace(0, 1, 1024)[:, None] * np.arange(1, 13)
  ecg = ECG(slope, 102.4, "twin_0")
  check = check_ecgs([ecg], Condition(["Sinus rhythm"], 80))
  assert np.isnan(check.rates).all()
  assert check.as_json()["detected_heart_rate"] == [None]
  assert (check.missed_rates, check.unreadable) == (1, 1)
  assert check.broken == {"twin_0": "no heart rate can be measured"}
  assert "80 bpm asked for, none found, 1 failed" in str(check)
  assert "criteria met: none is asked for; beats of 1 cannot be" in str(check)
  # Its leads are no sums of I and II.
  assert check.limb_lead_error > 1


def test_the_rate_is_of_all_beats_and_xqrs_is_asked_where_there_are_none(
  monkeypatch,
):
  # XQRS misses wide beats: beside premature ones it finds 70 for 80 bpm.
  monkeypatch.setattr(self_check, "detect_heart_rate", lambda ecg: 70.0)
  assert check_ecgs([example_ecg()], SHOWN).rates[0] == pytest.approx(82, abs=2)
  slope = np.linspace(0, 1, 1024)[:, None] * np.arange(1, 13)
  assert check_ecgs([ECG(slope, 102.4)], SHOWN).rates == (70,)


def test_generated_ecgs_check_themselves_and_draw_their_beats(tmp_path):
  ecg = example_ecg()
  still = ECG(np.zeros((1024, 12)), 102.4)
  blank = np.zeros((2, 128, 4), np.float32), np.zeros(2, np.float32)
  made = Generated([ecg, still], *blank, condition=SHOWN)
  assert made.check().rates[0] == pytest.approx(82, abs=2)
  with pytest.raises(ValueError, match="must be known, and is None"):
    dataclasses.replace(made, condition=None).check()
  figure = made.plot_median_beats(ecg, tmp_path / "beats.png")
  texts = [text.get_text() for text in figure.axes[0].texts]
  assert any(
    "1 of 2 twins over s0010_re_10s, correlation 1.00" in text for text in texts
  )
  assert len(figure.axes[0].lines) == 2 * 12
  with pytest.raises(ValueError, match="no median beat is found in the ref"):
    made.plot_median_beats(still)
