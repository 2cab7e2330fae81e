"""Leads by name, units, and the rules a lead must keep."""

import re

import numpy as np
from jaxtyping import Float

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", *(f"V{i}" for i in range(1, 7)))
MAX_NAN_SHARE = 0.05  # of one lead; what is missing becomes 0, as published
MIN_RANGE = 0.01  # mV from lowest to highest: less is a flat line
MAX_DEVIATION = 20.0  # mV from the lead's median: more is not an ECG
_MILLIVOLTS = {"v": 1e3, "mv": 1.0, "uv": 1e-3}
_POSITION = {lead.upper(): i for i, lead in enumerate(LEADS)}
# Each limb lead in terms of leads I and II (Einthoven, Goldberger).
_LIMB = np.array(
  [[1, 0], [0, 1], [-1, 1], [-0.5, -0.5], [1, -0.5], [-0.5, 1]], np.float64
)


def lead_position(name: str) -> int | None:
  """Place of a lead in LEADS, found in any case; None for other signals."""
  return _POSITION.get(name.strip().upper())


def order_leads(
  signal: Float[np.ndarray, "s n"],
  names: list[str] | tuple[str, ...],
  units: str | list[str] | tuple[str, ...] = "mV",
) -> Float[np.ndarray, "s 12"]:
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
    ValueError: A lead is missing, twice there, in an unknown unit, flat (range
      below 0.01 mV), beyond 20 mV from its median, or NaN in more than 5 %.

  Source: SPEC section 1 (leads by name, NaN to 0).
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
      raise ValueError(f"lead {LEADS[position]} is there twice in {names}")
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
    raise ValueError(
      f"lead {', '.join(missing)} is missing among {list(names)}: all of V1..V6"
      " and any two limb leads are needed"
    )
  return _check_leads(leads)


def _to_millivolt(name, unit):
  # The micro sign and the Greek mu look alike; so do their spellings.
  key = unit.strip().lower().replace("\u00b5", "u").replace("\u03bc", "u")
  key = re.sub("volts?$", "v", key)
  key = key.replace("milli", "m").replace("micro", "u")
  if key not in _MILLIVOLTS:
    raise ValueError(f"lead {name}: unit {unit!r} must be V, mV or uV")
  return _MILLIVOLTS[key]


def _check_leads(leads):
  nan = np.isnan(leads)
  share = nan.mean(0)
  if (share > MAX_NAN_SHARE).any():
    i = int(share.argmax())
    raise ValueError(
      f"lead {LEADS[i]} is NaN in {share[i]:.1%} of its samples, at most "
      f"{MAX_NAN_SHARE:.0%} is allowed"
    )
  span = np.nanmax(leads, 0) - np.nanmin(leads, 0)
  if span.min() < MIN_RANGE:
    i = int(span.argmin())
    raise ValueError(
      f"lead {LEADS[i]} is a flat line: its range {span[i]:.4g} mV is below "
      f"{MIN_RANGE} mV"
    )
  away = np.nanmax(np.abs(leads - np.nanmedian(leads, 0)), 0)
  if away.max() > MAX_DEVIATION:
    i = int(away.argmax())
    raise ValueError(
      f"lead {LEADS[i]} reaches {away[i]:.4g} mV from its median, above "
      f"{MAX_DEVIATION:g} mV: is its unit right?"
    )
  return np.where(nan, 0, leads).astype(np.float32)


def _limb_matrix() -> np.ndarray:
  """(12, 8): all leads from the independent I, II, V1..V6."""
  matrix = np.zeros((12, 8))
  matrix[:6, :2] = [
    [1, 0],
    [0, 1],
    [-1, 1],
    [-0.5, -0.5],
    [1, -0.5],
    [-0.5, 1],
  ]
  matrix[6:, 2:] = np.eye(6)
  return matrix


def lead_residual(signal: Float[np.ndarray, "*b 12"]) -> np.ndarray:
  """Distance of each lead from the nearest consistent ECG, in mV.

  Consistent: III = II - I, aVR = -(I + II) / 2, aVL = I - II / 2 and
  aVF = II - I / 2. Nearest: least squares over the six limb leads.
  """
  return signal - make_leads_consistent(signal)


def make_leads_consistent(signal: Float[np.ndarray, "*b 12"]) -> np.ndarray:
  """Projects on the nearest ECG whose limb leads add up, by least squares.

  I and II are fitted to all six limb leads, the other four follow from them
  in float32 arithmetic, so that the identities hold to its rounding.
  """
  matrix = _limb_matrix()
  independent = signal @ np.linalg.pinv(matrix).T.astype(np.float32)
  return (independent @ matrix.T.astype(np.float32)).astype(np.float32)
