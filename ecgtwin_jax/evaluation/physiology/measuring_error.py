"""How well intervals are measured, on simulated ECGs whose truth is known."""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ecgtwin_jax.beats.delineation import Marks
from ecgtwin_jax.beats.intervals import (
  MEASURES,
  difference,
  measure_ecgs,
  measure_marks,
)
from ecgtwin_jax.data.ecg import MODEL_SAMPLES
from ecgtwin_jax.simulator import simulate


class Check(NamedTuple):
  """Error of the measuring itself, on ECGs whose truth is known.

  Attributes:
    bias: mean of measured minus true.
    spread: its standard deviation.
    n: ECGs that were measured and have a truth.
    failed: ECGs that have a truth and could not be measured.
  """

  bias: float
  spread: float
  n: int
  failed: int


@functools.cache
def check_chain(
  patients: int = 60, recordings: int = 2, *, noise: bool = True, seed: int = 0
) -> dict[str, Check]:
  """Error of MEASURES on simulated ECGs at 102.4 Hz, whose truth is known.

  Intervals are held against the simulator's marks; amplitudes and axis, which
  it does not list, against the same beat without noise between its true marks.
  """
  errors = []
  for number in range(patients):
    noisy = simulate.cohort_recordings(seed, number, recordings, noise)
    clean = simulate.cohort_recordings(seed, number, recordings, False)
    for shown, plain in zip(noisy, clean, strict=True):
      ecg = shown.ecg.resample(MODEL_SAMPLES)
      measured = measure_ecgs(ecg.signal[None])[0]
      errors.append((measured, measure_truth(plain)))
  measured, true = np.stack(errors, axis=1)
  error = difference(measured, true)
  good = np.isfinite(error)
  return {
    name: Check(
      float(error[good[:, k], k].mean()),
      float(error[good[:, k], k].std()),
      int(good[:, k].sum()),
      int((np.isfinite(true[:, k]) & ~good[:, k]).sum()),
    )
    for k, name in enumerate(MEASURES)
  }


def measure_truth(shown: simulate.Recording) -> Float[np.ndarray, " 8"]:
  """MEASURES of a simulated recording without noise, from its true marks."""
  fiducials = shown.fiducials
  usual = np.flatnonzero(np.isin(fiducials.kind, ("normal", "paced")))
  inside = usual[
    (fiducials.qrs_onset[usual] > 0.4) & (fiducials.t_end[usual] < 9.9)
  ]
  beat = inside[0] if len(inside) else usual[0]
  names = Marks.__dataclass_fields__
  marks = Marks(
    **{name: float(getattr(fiducials, name)[beat]) for name in names}
  )
  signal = shown.ecg.signal.astype(np.float64)
  return measure_marks(signal, marks, 60 / shown.condition.heart_rate)
