"""How much of a patient's beat does the base vector hold?

A ridge regression gives the patient's mean median beat from the base vector of
the reference, with age and sex, fitted on other patients than it is scored on.
Beside it: the same from age and sex alone, and from the reference's own median
beat, which is what a base vector could hold.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from ecgtwin_jax.beats.median_beat import RATE
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import (
  Metric,
  bootstrap_interval,
  missing,
)
from ecgtwin_jax.evaluation.readings import Readings
from ecgtwin_jax.text.findings import asks_for

if TYPE_CHECKING:
  import matplotlib.figure

LEAST = 30  # patients, below which nothing is fitted
_LEVEL = "person"
_BEFORE, _AFTER = 0.26, 0.44  # s of a beat around the middle of QRS
_STEP = 5  # of its samples one in so many: 100 Hz
_FASTEST = 100  # bpm, above which the neighbours reach into that window
# What changes the shape of the usual beat, whoever the patient is.
_CHANGES = ("lvh", "st_elevation", "lbbb", "rbbb")
_FOLDS = 5
_STRENGTHS = np.logspace(-1, 5, 13)  # of the ridge's penalty


class Prediction(NamedTuple):
  """Squared errors of each patient's beat, summed over time and leads, mV^2.

  Attributes:
    spread: errors of the mean beat of the patients that were fitted on.
    base: errors of predictions from the base vector, age and sex.
    demographics: errors of predictions from age and sex alone.
    beat: errors of predictions from the reference's median beat, age and sex.
    patients: dense number of each row's patient.
  """

  spread: Float[np.ndarray, " p"]
  base: Float[np.ndarray, " p"]
  demographics: Float[np.ndarray, " p"]
  beat: Float[np.ndarray, " p"]
  patients: Shaped[np.ndarray, " p"]


def compute(
  examples: Examples,
  bases: Float[np.ndarray, "n d"],
  readings: Readings | None = None,
) -> Prediction:
  """Predicts each patient's beat by regressions fitted on other patients.

  A patient's beat is the mean of the median beats of the real targets that no
  report of `_CHANGES` alters and that are not too fast.

  Args:
    examples: real ECGs and references.
    bases: base vector of each row's reference.
    readings: readings of the examples' beats; None: they are made here.
  """
  readings = readings or Readings(examples)
  targets = _cut(readings.of("real"))
  references = _cut(readings.of("references"))
  usual = [
    c.heart_rate <= _FASTEST
    and all(asks_for(c.statements, change) is False for change in _CHANGES)
    for c in examples.conditions
  ]
  good = np.isfinite(targets).all(axis=1) & np.array(usual)
  good &= np.isfinite(references).all(axis=1)
  patients, first, place = np.unique(
    examples.patients[good], return_index=True, return_inverse=True
  )
  count = np.bincount(place, minlength=len(patients))
  beats = np.zeros((len(patients), targets.shape[1]))
  np.add.at(beats, place, targets[good])
  beats /= np.maximum(count, 1)[:, None]
  rows = np.flatnonzero(good)[first]
  told = np.array([_demographics(examples.conditions[i]) for i in rows])
  if len(patients) < LEAST:
    none = np.full(len(patients), np.nan)
    return Prediction(none, none, none, none, patients)
  told, bases = _by_column(told), _by_column(bases[rows])
  # Where a beat is flat there is noise, which must not be blown up: one scale.
  shapes = references[rows] / references[rows].std(axis=0).mean()
  inputs = {
    "base": np.concatenate([bases, told], axis=1),
    "demographics": told,
    "beat": np.concatenate([shapes, told], axis=1),
  }
  spread, errors = predict(inputs, beats)
  return Prediction(spread, **errors, patients=patients)


def _cut(rows):
  """(n, t * 12) mV around QRS of each row's first ECG; nan if unreadable."""
  first = round(-_BEFORE * RATE), round(_AFTER * RATE)
  steps = np.arange(*first, _STEP)
  pieces = np.full((len(rows), len(steps) * 12), np.nan)
  for i, (reading, *_) in enumerate(rows):
    if reading is not None:
      beats = reading.beats
      pieces[i] = beats.median[beats.middle + steps].ravel()
  return pieces


def _demographics(condition):
  sex = {"F": -1.0, "M": 1.0, None: 0.0}[condition.sex]
  known = condition.age is not None
  return (condition.age if known else 0.0), float(known), sex


def _by_column(x):
  """Columns of size 1; one in which all are alike says nothing: 0."""
  scale = x.std(axis=0)
  return (x - x.mean(axis=0)) / np.where(scale > 1e-9, scale, np.inf)


def predict(
  inputs: dict[str, np.ndarray], beats: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """Sums of squares of each patient, left out of what is fitted."""
  from sklearn.linear_model import RidgeCV
  from sklearn.model_selection import KFold
  from threadpoolctl import threadpool_limits

  spread = np.zeros(len(beats))
  errors = {name: np.zeros(len(beats)) for name in inputs}
  folds = KFold(_FOLDS, shuffle=True, random_state=0)
  with threadpool_limits(limits=1):
    for fitted, scored in folds.split(beats):
      mean = beats[fitted].mean(axis=0)
      spread[scored] = ((beats[scored] - mean) ** 2).sum(axis=1)
      for name, x in inputs.items():
        model = RidgeCV(_STRENGTHS).fit(x[fitted], beats[fitted])
        apart = model.predict(x[scored]) - beats[scored]
        errors[name][scored] = (apart**2).sum(axis=1)
  return spread, errors


def metrics(prediction: Prediction, *, seed: int = 0) -> list[Metric]:
  """R2 = 1 - (squared error) / (squared distance from the mean beat).

  Args:
    prediction: what `compute` returns.
    seed: seed of the bootstrap over patients.
  """
  name, n = "base_beat_r2", len(prediction.patients)
  if n < LEAST:
    why = f"{n} patients with a usual beat: fewer than {LEAST}"
    return [missing(name, _LEVEL, why, n, better="higher")]

  def r2(errors, rows):
    return float(1 - errors[rows].sum() / prediction.spread[rows].sum())

  every = np.arange(n)
  low, high = bootstrap_interval(
    lambda rows: r2(prediction.base, rows), prediction.patients, seed=seed
  )
  return [
    Metric(
      name,
      r2(prediction.base, every),
      low,
      high,
      r2(prediction.demographics, every),
      r2(prediction.beat, every),
      "higher",
      n,
      _LEVEL,
      "of the patient's mean beat from the reference's base vector, age and "
      f"sex; ridge, {_FOLDS} folds of patients; baseline: age and sex; "
      "reference: the reference's own median beat, age and sex",
    )
  ]


def draw(prediction: Prediction) -> "matplotlib.figure.Figure":
  """Share of each patient's beat that each predictor leaves open.

  Args:
    prediction: what `compute` returns.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6.4, 3.2), layout="constrained")
  axes = figure.add_subplot()
  predictors = {
    "age, sex": prediction.demographics,
    "base vector": prediction.base,
    "reference's beat": prediction.beat,
  }
  shares = [errors / prediction.spread for errors in predictors.values()]
  known = [share[np.isfinite(share)] for share in shares]
  if all(map(len, known)):
    axes.boxplot(known, orientation="horizontal", showfliers=False)
    axes.set_yticks(range(1, len(known) + 1), list(predictors))
  axes.axvline(1.0, color="0.6", ls=":")
  axes.set_xlabel("squared error over squared distance from the mean beat")
  return figure
