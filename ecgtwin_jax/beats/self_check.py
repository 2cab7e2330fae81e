"""Are generated ECGs what was asked for? Rate, criteria, limb leads, broken."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ecgtwin_jax.beats.criteria_checks import check_criteria
from ecgtwin_jax.beats.delineation import read_ecg_beats
from ecgtwin_jax.beats.rhythm import detect_rhythm
from ecgtwin_jax.constants import SECONDS
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import ECG
from ecgtwin_jax.data.heart_rate import detect_heart_rate
from ecgtwin_jax.data.leads import LEADS, MAX_RANGE, MIN_RANGE, lead_residual
from ecgtwin_jax.text.findings import CRITERIA, asks_for

RATE_OFF = 0.1  # of the rate that was asked for: more is counted as missed


@dataclasses.dataclass(frozen=True)
class SelfCheck:
  """What was found in ECGs against what was asked of them.

  Attributes:
    names: of the ECGs.
    asked_rate: bpm.
    rates: found in each, bpm; nan where none can be measured.
    criteria: {criterion that the statements ask for: how many ECGs meet it}.
    unreadable: number of ECGs whose beats cannot be told apart; they meet no
      criterion.
    limb_lead_error: largest |limb lead - what I and II imply|, mV.
    broken: {name of an ECG that is none: why}, as no heart rate can be
      measured, or a lead is flat or out of range by the rules for recordings.
  """

  names: tuple[str, ...]
  asked_rate: float
  rates: tuple[float, ...]
  criteria: dict[str, int]
  unreadable: int
  limb_lead_error: float
  broken: dict[str, str]

  @property
  def missed_rates(self) -> int:
    """Number of ECGs whose rate is more than a tenth away, or not found."""
    ratios = np.array(self.rates) / self.asked_rate
    return int((~(np.abs(ratios - 1) <= RATE_OFF)).sum())

  def __str__(self) -> str:
    """Lines for the console."""
    count = len(self.rates)
    found = [rate for rate in self.rates if math.isfinite(rate)]
    text = "none found"
    if found:
      low, middle, high = np.percentile(found, [0, 50, 100])
      text = f"{middle:.1f} found ({low:.1f} to {high:.1f})"
    failed = count - len(found)
    lines = [
      f"self-check of {count} ECGs",
      f"heart rate: {self.asked_rate:g} bpm asked for, {text}, {failed} "
      f"failed, {self.missed_rates} of {count} off by more than {RATE_OFF:.0%}",
    ]
    met = [
      f"{CRITERIA[name].replace('_', ' ')} {number} of {count}"
      for name, number in self.criteria.items()
    ]
    beats = f"; beats of {self.unreadable} cannot be read" * bool(
      self.unreadable
    )
    lines += [
      f"criteria met: {', '.join(met) or 'none is asked for'}{beats}",
      f"limb leads: up to {self.limb_lead_error:.3f} mV from what I and II "
      "imply",
    ]
    reasons = ", ".join(f"{name}: {why}" for name, why in self.broken.items())
    tail = f" ({reasons})" if reasons else ""
    lines.append(f"broken: {len(self.broken)} of {count}{tail}")
    return "\n  ".join(lines)

  def as_json(self) -> dict[str, Any]:
    """The fields; a rate that cannot be measured is None."""
    return {
      "asked_heart_rate": self.asked_rate,
      "detected_heart_rate": [
        round(rate, 1) if math.isfinite(rate) else None for rate in self.rates
      ],
      "rates_failed": sum(not math.isfinite(rate) for rate in self.rates),
      "rates_missed": self.missed_rates,
      "criteria_met": self.criteria,
      "beats_unreadable": self.unreadable,
      "limb_lead_error_mv": round(self.limb_lead_error, 4),
      "broken": self.broken,
    }


def check_ecgs(ecgs: Sequence[ECG], condition: Condition) -> SelfCheck:
  """Measures ECGs against the condition that they were generated for.

  A heart rate is that of all beats, premature ones among them, as
  `detect_rhythm` finds them; XQRS, which misses wide beats, is asked where
  beats cannot be told apart. Criteria are those of `check_criteria`. What the
  statements do not ask for is not counted.

  Args:
    ecgs: one or more.
    condition: what they shall show.
  """
  readings = [read_ecg_beats(ecg.signal, ecg.sampling_rate) for ecg in ecgs]
  shown = [check_criteria(reading, condition) for reading in readings]
  asked = [name for name in CRITERIA if asks_for(condition.statements, name)]
  rates = tuple(map(_find_rate, ecgs, readings))
  reasons = [_find_fault(ecg, rate) for ecg, rate in zip(ecgs, rates)]
  names = tuple(ecg.record for ecg in ecgs)
  errors = [float(np.abs(lead_residual(ecg.signal)).max()) for ecg in ecgs]
  return SelfCheck(
    names,
    float(condition.heart_rate),
    rates,
    {name: sum(bool(one[name]) for one in shown) for name in asked},
    sum(reading is None for reading in readings),
    max(errors),
    {name: reason for name, reason in zip(names, reasons) if reason},
  )


def _find_rate(ecg, reading):
  """Beats per minute over all beats; nan where none can be told."""
  if reading is not None and round(ecg.duration) == SECONDS:
    time = detect_rhythm(ecg.signal, ecg.sampling_rate).time
    time = time[np.isfinite(time)]
    if len(time) >= 2:
      return 60 * (len(time) - 1) / float(np.ptp(time))
  return float(detect_heart_rate(ecg))


def _find_fault(ecg, rate):
  """Why an ECG is none; None where it may be one."""
  span = np.ptp(ecg.signal, axis=0)
  flat, wide = int(span.argmin()), int(span.argmax())
  if span[flat] < MIN_RANGE:
    return f"lead {LEADS[flat]} is flat"
  if span[wide] > MAX_RANGE:
    return f"lead {LEADS[wide]} spans {span[wide]:.3g} mV"
  if not math.isfinite(rate):
    return "no heart rate can be measured"
  return None
