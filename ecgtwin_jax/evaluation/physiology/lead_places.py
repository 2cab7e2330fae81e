"""Is each lead where it belongs? Exchanged or inverted leads show here.

Every lead of a generated ECG's median beat is multiplied with every lead of the
mean real one of other patients. The assignment of leads to places that fits
best as a whole says which of them are in place: in real ECGs all twelve.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.optimize
from jaxtyping import Float, Shaped

from ecgtwin_jax.beats.delineation import Reading
from ecgtwin_jax.beats.median_beat import RATE
from ecgtwin_jax.data.ecg import LEADS
from ecgtwin_jax.evaluation.metric import (
  NAN,
  Metric,
  bootstrap_interval,
  missing,
)
from ecgtwin_jax.evaluation.resampling import mean_of_others

LEVEL = "physiology"
_NAME = "leads_in_place_share"
_WINDOW = 0.15, 0.35  # s around the middle of QRS: QRS and most of T
_STEP = 5  # samples of 500 Hz
_CLEARLY = 0.05  # of the largest product: by less, no lead is out of its place


class LeadPlaces(NamedTuple):
  """Product of each lead with each lead of others' mean real beat.

  Attributes:
    twins: [i, a, b] of lead a of row i's generated ECGs, their mean, with lead
      b.
    real: of the real ECG.
    patients: of each of these rows, which could be read.
  """

  twins: Float[np.ndarray, "n 12 12"]
  real: Float[np.ndarray, "n 12 12"]
  patients: Shaped[np.ndarray, " n"]


def compute(
  twins: Sequence[Sequence[Reading | None]],
  real: Sequence[Sequence[Reading | None]],
  patients: Shaped[np.ndarray, " n"],
) -> LeadPlaces:
  """Multiplies the leads of rows whose real and generated ECG can be read.

  Args:
    twins: readings of each row's generated ECGs.
    real: of its real ECG.
    patients: of each row.
  """
  good = [
    i
    for i, (twin, own) in enumerate(zip(twins, real, strict=True))
    if any(each is not None for each in twin) and own[0] is not None
  ]
  patients = patients[good]
  if len(np.unique(patients)) < 2:
    none = np.zeros((0, len(LEADS), len(LEADS)))
    return LeadPlaces(none, none, patients[:0])
  ours, theirs = (
    np.stack([_mean_beat(rows[i]) for i in good]) for rows in (twins, real)
  )
  n, samples, leads = theirs.shape
  mean = mean_of_others(theirs.reshape(n, -1), patients)
  mean = mean.reshape(n, samples, leads)
  return LeadPlaces(
    *(np.einsum("nsa,nsb->nab", beats, mean) for beats in (ours, theirs)),
    patients,
  )


def _mean_beat(readings):
  """Of the ECGs of a row, as one of several can be upside down."""
  return np.mean([_beat(each) for each in readings if each is not None], axis=0)


def _beat(reading):
  """A median beat of norm 1."""
  beats = reading.beats
  before, after = (round(t * RATE) for t in _WINDOW)
  piece = beats.median[beats.middle - before : beats.middle + after : _STEP]
  return piece / max(np.linalg.norm(piece), 1e-9)


def share_in_place(products: Float[np.ndarray, "n 12 12"]) -> float:
  """Share of leads that the best assignment leaves where they are, upright."""
  mean = products.mean(axis=0)
  # The largest products are the least squared differences of leads.
  gain = np.abs(mean)
  gain = gain + _CLEARLY * gain.max() * np.eye(len(gain))
  ours, place = scipy.optimize.linear_sum_assignment(-gain)
  return float(((ours == place) & (mean[ours, place] > 0)).mean())


def metrics(places: LeadPlaces, *, seed: int = 0) -> list[Metric]:
  """The share of leads in place; chance is 1 of 12.

  Args:
    places: of `compute`.
    seed: of the bootstrap.
  """
  n = len(places.patients)
  if not n:
    return [missing(_NAME, LEVEL, "no ECG of two patients", better="higher")]
  low, high = bootstrap_interval(
    lambda rows: share_in_place(places.twins[rows]),
    places.patients,
    repeats=300,
    seed=seed,
  )
  note = "upright and more like the same lead of real ECGs than like another"
  note += (
    f", all assigned at once; chance {1 / len(LEADS):.2f}; reference: real"
  )
  return [
    Metric(
      _NAME,
      share_in_place(places.twins),
      low,
      high,
      NAN,
      share_in_place(places.real),
      "higher",
      n,
      LEVEL,
      note,
    )
  ]
