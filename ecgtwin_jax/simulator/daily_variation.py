"""How a patient's heart differs today from its habit."""

import dataclasses

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True, eq=False)
class Day:
  """Small changes: factors on sizes, seconds on intervals, mV on directions.

  `severity` (0 mild .. 1 marked) is that of what comes and goes, such as ST
  elevation.
  """

  p_size: float
  qrs_size: float
  t_size: float
  t_bend: Float[np.ndarray, " 3"]
  pr_change: float
  qtc_change: float
  severity: float


def draw_day(rng: np.random.Generator) -> Day:
  """Draws the small changes from one day to another."""
  p_size, qrs_size, t_size, pr_change, qtc_change = np.clip(
    rng.standard_normal(5), -2.5, 2.5
  ).tolist()
  return Day(
    p_size=1 + 0.06 * p_size,
    qrs_size=1 + 0.03 * qrs_size,
    t_size=1 + 0.08 * t_size,
    t_bend=rng.normal(0.0, 0.015, 3),
    pr_change=0.004 * pr_change,
    qtc_change=0.005 * qtc_change,
    severity=float(rng.random()),
  )
