"""The rules that decide which recordings enter a data set."""

import dataclasses

import numpy as np

from data_prep.records import Rejection
from ecgtwin_jax.constants import SECONDS
from ecgtwin_jax.data.conditions import MAX_STATEMENTS
from ecgtwin_jax.data.ecg import ECG
from ecgtwin_jax.data.errors import MIN_RATE, RecordingError
from ecgtwin_jax.data.leads import LEADS, MAX_NAN_SHARE, MAX_RANGE, MIN_RANGE

HEART_RATES = (20.0, 300.0)  # bpm
AGES = (0.0, 120.0)  # years
MAX_SATURATED = 0.05  # of a lead; at most 0.3 % in 1,454 PTB-XL recordings


@dataclasses.dataclass(frozen=True)
class Rule:
  """A rule: its name, its threshold, and what breaking it means."""

  name: str
  threshold: str
  meaning: str


RULES = (
  Rule("record", "", "the row of the table names no record"),
  Rule("duplicate", "", "a row above has the same record"),
  Rule("excluded", "", "the exclusion list names the record"),
  Rule("patient", "", "no patient id"),
  Rule("time", "", "no date or time, or none that can be understood"),
  Rule(
    "demographics",
    f"{AGES[0]:g}..{AGES[1]:g} years",
    "an age or sex that is neither missing nor possible",
  ),
  Rule(
    "statements",
    f"1..{MAX_STATEMENTS}",
    "no statement (any folder of WFDB records: a blank is no report), too many,"
    " or one that cannot be understood",
  ),
  Rule("split", "", "no fold, or another than the patient's other recordings"),
  Rule("missing_file", "", "a file of the record is not there"),
  Rule("unreadable", "", "a file of the record cannot be understood"),
  Rule("truncated", "", "the file ends before the samples that are promised"),
  Rule("checksum", "16 bit", "samples do not add up to the header's checksum"),
  Rule("lead", "12", "a lead is missing and cannot be derived, or comes twice"),
  Rule("unit", "V, mV, uV", "a lead is in another unit"),
  Rule(
    "duration",
    f"{SECONDS:g} s, {MIN_RATE:g} Hz",
    "not 10 s long (any folder of WFDB records: shorter), or too few samples",
  ),
  Rule("nan", f"{MAX_NAN_SHARE:.0%}", "more of a lead's samples are missing"),
  Rule("flat", f"{MIN_RANGE:g} mV", "a lead's range is below"),
  Rule(
    "amplitude",
    f"{MAX_RANGE:g} mV",
    "a lead's range is above, or a sample beyond what int16 can hold in uV",
  ),
  Rule(
    "saturation",
    f"{MAX_SATURATED:.0%}",
    "more of a lead's samples are at its highest or at its lowest value",
  ),
  Rule(
    "heart_rate",
    f"{HEART_RATES[0]:g}..{HEART_RATES[1]:g} bpm",
    "no heart rate is given and no beats are found, or it is out of range",
  ),
)
_NAMES = frozenset(rule.name for rule in RULES)


def reject(error: RecordingError) -> Rejection:
  """Returns the rejection of a recording that broke a rule."""
  assert error.rule in _NAMES, error.rule
  return Rejection(error.rule, str(error))


def markdown() -> str:
  """Returns the rules as a table of the README."""
  rows = [(f"`{x.name}`", x.threshold, x.meaning) for x in RULES]
  lines = [("rule", "threshold", "a recording is left out where"), ("---",) * 3]
  return "\n".join(f"| {' | '.join(row)} |" for row in [*lines, *rows])


def check_duration(ecg: ECG) -> None:
  """Refuses an ECG that is not 10 s long, to half a sample.

  Raises:
    RecordingError: `duration`.
  """
  if abs(len(ecg.signal) - SECONDS * ecg.sampling_rate) > 0.5:
    raise RecordingError(
      "duration", f"{ecg.duration:.4g} s long, must be {SECONDS:g} s"
    )


def check_saturation(ecg: ECG) -> None:
  """Refuses an ECG with a lead that stays at one of its extremes.

  Raises:
    RecordingError: `saturation`.
  """
  signal = ecg.signal
  for extreme in (signal.max(0), signal.min(0)):
    share = np.count_nonzero(signal == extreme, axis=0) / len(signal)
    if share.max() > MAX_SATURATED:
      lead = int(share.argmax())
      raise RecordingError(
        "saturation",
        f"lead {LEADS[lead]} is at {extreme[lead]:.4g} mV, its extreme, in"
        f" {share[lead]:.1%} of its samples",
      )


def check_heart_rate(heart_rate: float) -> None:
  """Refuses a heart rate that is not found or out of range.

  Raises:
    RecordingError: `heart_rate`.
  """
  if np.isnan(heart_rate):
    raise RecordingError("heart_rate", "fewer than two beats are found")
  low, high = HEART_RATES
  if not low <= heart_rate <= high:
    raise RecordingError(
      "heart_rate", f"{heart_rate=:.4g} must be in {low:g}..{high:g} bpm"
    )
