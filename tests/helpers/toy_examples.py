"""Examples for tests of the evaluation: rows whose figures are known."""

import numpy as np

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.evaluation.evaluators.clip import ClipSpace
from ecgtwin_jax.evaluation.examples import Examples


def make_examples(
  real,
  generated,
  *,
  patients=None,
  conditions=None,
  references=None,
  reference_conditions=None,
  **more,
):
  """Examples of the given signals; by default a patient has two rows."""
  n = len(real)
  if patients is None:
    patients = np.arange(n) // 2
  if conditions is None:
    conditions = tuple(Condition(["Sinus rhythm"], 70.0) for _ in range(n))
  names = tuple(str(i) for i in range(n))
  return Examples(
    patients=patients,
    references=real if references is None else references,
    reference_conditions=reference_conditions or conditions,
    real=real,
    conditions=conditions,
    generated=generated,
    reference_ids=names,
    real_ids=names,
    **more,
  )


def signals_of(points):
  """(..., 1024, 12) signals that hold a point in their first samples."""
  points = np.asarray(points, np.float32)
  signals = np.zeros((*points.shape[:-1], 1024, 12), np.float32)
  signals[..., : points.shape[-1], 0] = points
  return signals


class PlantedSpace(ClipSpace):
  """Reads the points of `signals_of`; a report's point is looked up."""

  def __init__(self, width, reports=None):
    self.width, self.reports = width, reports or {}

  def ecgs(self, signals):
    return np.asarray(signals[:, : self.width, 0])

  def texts(self, conditions):
    return np.stack([self.reports[c.text()] for c in conditions])
