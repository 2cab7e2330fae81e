"""The limb leads' identities: how far an ECG is from them, and the way back.

III = II - I, aVR = -(I + II) / 2, aVL = I - II / 2, aVF = II - I / 2: of the
twelve leads eight are independent.
"""

import numpy as np
from jaxtyping import Float

# (12, 8): all leads, in clinical order, from I, II, V1..V6.
_FROM_INDEPENDENT = np.zeros((12, 8), np.float32)
_FROM_INDEPENDENT[:6, :2] = [
  [1, 0],
  [0, 1],
  [-1, 1],
  [-0.5, -0.5],
  [1, -0.5],
  [-0.5, 1],
]
_FROM_INDEPENDENT[6:, 2:] = np.eye(6)
_FIT = np.linalg.pinv(_FROM_INDEPENDENT)


def make_leads_consistent(
  signal: Float[np.ndarray, "*b 12"],
) -> Float[np.ndarray, "*b 12"]:
  """Projects on the nearest ECG whose limb leads add up, by least squares.

  I and II are fitted to all six limb leads and the others follow from them, so
  the identities hold to float32 rounding.
  """
  return (signal @ _FIT.T) @ _FROM_INDEPENDENT.T


def lead_residual(
  signal: Float[np.ndarray, "*b 12"],
) -> Float[np.ndarray, "*b 12"]:
  """Returns signal minus its projection, in the signal's unit."""
  return signal - make_leads_consistent(signal)
