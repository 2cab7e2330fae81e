"""Leads by name, units, and the rules a lead must keep."""

import re

import numpy as np
from jaxtyping import Float

from ecgtwin_jax.constants import FROM_INDEPENDENT, LEADS
from ecgtwin_jax.data.errors import RecordingError

MAX_NAN_SHARE = 0.05  # of one lead; what is missing becomes 0, as published
MIN_RANGE = 0.01  # mV from lowest to highest: less is a flat line
MAX_RANGE = 30.0  # mV: more is not an ECG
# Share of the limb leads that I and II leave unexplained. Of 600 PTB-XL
# recordings: at most 0.006; with the leads in any other order 0.33 to 0.99,
# below 0.4 in 1 of 600.
MAX_RESIDUAL = 0.4
_MILLIVOLTS = {"v": 1e3, "mv": 1.0, "uv": 1e-3}
_POSITION = {lead.upper(): i for i, lead in enumerate(LEADS)}
# Each limb lead in terms of leads I and II.
_LIMB = FROM_INDEPENDENT[:6, :2].astype(np.float64)


def lead_position(name: str) -> int | None:
  """Place of a lead in LEADS, found in any case; None for other signals."""
  return _POSITION.get(name.strip().upper())


# What is not finite is counted at the end.
@np.errstate(over="ignore", invalid="ignore")
def order_leads(
  signal: Float[np.ndarray, "t signals"],
  names: list[str] | tuple[str, ...],
  units: str | list[str] | tuple[str, ...] = "mV",
) -> Float[np.ndarray, "t 12"]:
  """The twelve leads, found by name, in clinical order and millivolt.

  Names match in any case; other signals are ignored. A missing limb lead is
  derived from two others: III = II - I, aVR = -(I + II) / 2,
  aVL = I - II / 2, aVF = II - I / 2, and so on for any two of the six. NaN up
  to 5 % of a lead becomes 0.

  Args:
    signal: (s, n) samples by signals.
    names: n names.
    units: One unit for all, or n of them: V, mV or uV in any spelling.

  Returns:
    (s, 12) float32 in mV.

  Raises:
    RecordingError: A ValueError: a lead is missing or twice there (rule
      `lead`), in an unknown unit (`unit`), NaN in more than 5 % (`nan`), flat,
      its range below 0.01 mV (`flat`), or ranges over 30 mV (`amplitude`).

  Source: NaN to 0 as in the release of Lai et al., arXiv 2508.02720.
  """
  if isinstance(units, str):
    units = [units] * len(names)
  if not len(names) == len(units) == signal.shape[1]:
    raise ValueError(
      f"{len(names)=} and {len(units)=} must equal {signal.shape[1]=} signals"
    )
  leads = np.full((len(signal), len(LEADS)), np.nan)
  found = np.zeros(len(LEADS), bool)
  for column, (name, unit) in enumerate(zip(names, units)):
    position = lead_position(name)
    if position is None:
      continue
    if found[position]:
      raise RecordingError(
        "lead", f"lead {LEADS[position]} is there twice in {list(names)}"
      )
    leads[:, position] = signal[:, column] * _to_millivolt(name, unit)
    found[position] = True
  limb = np.flatnonzero(found[:6])
  if len(limb) >= 2:
    frontal = leads[:, limb[:2]] @ np.linalg.inv(_LIMB[limb[:2]]).T
    absent = np.flatnonzero(~found[:6])
    leads[:, absent] = frontal @ _LIMB[absent].T
    found[absent] = True
  missing = [lead for lead, there in zip(LEADS, found) if not there]
  if missing:
    raise RecordingError(
      "lead",
      f"lead {', '.join(missing)} is missing among {list(names)}: all of V1..V6"
      " and any two limb leads are needed",
    )
  return _check_leads(leads)


def _to_millivolt(name, unit):
  # The micro sign and the Greek mu look alike; so do their spellings.
  key = unit.strip().lower().replace("\u00b5", "u").replace("\u03bc", "u")
  key = re.sub("volts?$", "v", key)
  key = key.replace("milli", "m").replace("micro", "u")
  if key not in _MILLIVOLTS:
    raise RecordingError(
      "unit", f"lead {name}: unit {unit!r} must be V, mV or uV"
    )
  return _MILLIVOLTS[key]


def _check_leads(leads):
  nan = ~np.isfinite(leads)
  share = nan.mean(0)
  if (share > MAX_NAN_SHARE).any():
    i = int(share.argmax())
    raise RecordingError(
      "nan",
      f"lead {LEADS[i]} is NaN in {share[i]:.1%} of its samples, at most "
      f"{MAX_NAN_SHARE:.0%} is allowed",
    )
  span = leads.max(0, where=~nan, initial=-np.inf)
  span -= leads.min(0, where=~nan, initial=np.inf)
  if span.min() < MIN_RANGE:
    i = int(span.argmin())
    raise RecordingError(
      "flat",
      f"lead {LEADS[i]} is a flat line: its range {span[i]:.4g} mV is below "
      f"{MIN_RANGE} mV{_guess_unit(span)}",
    )
  if span.max() > MAX_RANGE:
    i = int(span.argmax())
    raise RecordingError(
      "amplitude",
      f"lead {LEADS[i]} has a range of {span[i]:.4g} mV, above {MAX_RANGE:g}"
      " mV: is its unit right?",
    )
  return np.where(nan, 0, leads).astype(np.float32)


def _guess_unit(span: Float[np.ndarray, " 12"]) -> str:
  """Which unit would make ranges in mV those of an ECG, as half a sentence."""
  for unit, scale in (("V", 1e3), ("uV", 1e-3)):
    if (
      0.2 <= np.median(span) * scale <= 20 and not 0.2 <= np.median(span) <= 20
    ):
      return f" (it looks like {unit}: give unit={unit!r})"
  return ""


def find_odd_signal(signal: Float[np.ndarray, "t 12"]) -> str | None:
  """What makes a signal in mV unlike twelve leads, as a phrase; or None.

  The rules are those of data preparation: a range of 0.01 to 30 mV in each
  lead. And the limb leads must roughly add up, which they do not where columns
  are in another order than LEADS.
  """
  span = np.ptp(signal, axis=0)
  if not span.any():
    return "all leads are flat lines, as of zeros"
  if span.max() > MAX_RANGE:
    lead = LEADS[int(span.argmax())]
    return (
      f"lead {lead} has a range of {span.max():.4g} mV, above {MAX_RANGE:g} mV"
      f"{_guess_unit(span)}"
    )
  if span.min() < MIN_RANGE:
    lead = LEADS[int(span.argmin())]
    return (
      f"lead {lead} is a flat line: its range {span.min():.4g} mV is below"
      f" {MIN_RANGE} mV{_guess_unit(span)}"
    )
  limb = (signal - signal.mean(axis=0))[:, :6].astype(np.float64)
  fitted = limb @ _LIMB_FIT.T
  share = np.linalg.norm(limb - fitted) / np.linalg.norm(limb)
  if share > MAX_RESIDUAL:
    return (
      f"the limb leads do not add up, {share:.0%} of them is left over: are the"
      f" columns in the order {', '.join(LEADS)}?"
    )
  return None


_LIMB_FIT = _LIMB @ np.linalg.pinv(_LIMB)
_FIT = np.linalg.pinv(FROM_INDEPENDENT)


def make_leads_consistent(
  signal: Float[np.ndarray, "*b 12"],
) -> Float[np.ndarray, "*b 12"]:
  """Projects on the nearest ECG whose limb leads add up, by least squares.

  I and II are fitted to all six limb leads and the others follow from them, so
  the identities hold to float32 rounding.
  """
  return (signal @ _FIT.T) @ FROM_INDEPENDENT.T


def lead_residual(
  signal: Float[np.ndarray, "*b 12"],
) -> Float[np.ndarray, "*b 12"]:
  """Returns signal minus its projection, in the signal's unit."""
  return signal - make_leads_consistent(signal)
