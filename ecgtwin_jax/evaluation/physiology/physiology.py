"""Do generated ECGs have the intervals, waves and spectra of real ones?"""

import math
from typing import NamedTuple

import numpy as np
import scipy.signal
import scipy.stats
from jaxtyping import Float

from ecgtwin_jax.beats.intervals import MEASURES, difference, measure_ecgs
from ecgtwin_jax.data.ecg import LEADS, MODEL_RATE
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import Metric, mean_metric, missing
from ecgtwin_jax.evaluation.physiology.measuring_error import check_chain
from ecgtwin_jax.evaluation.resampling import compare_halves

LEVEL = "physiology"
_I, _II = map(LEADS.index, ("I", "II"))
_LIMB_ROWS = ("III", "aVR", "aVL", "aVF")
_BAND = 0.5, 40.0  # Hz of the spectra that are compared
_BANDWIDTH = 1.0  # Hz in which power is gathered


def limb_lead_error(
  signals: Float[np.ndarray, "n s 12"],
) -> Float[np.ndarray, " n"]:
  """How far III, aVR, aVL and aVF are from what I and II say, in microvolt.

  Root mean square over time of the worst of the four: an error of x microvolt
  in any one limb lead is x.
  """
  one, two = signals[..., _I], signals[..., _II]
  said = (two - one, -(one + two) / 2, one - two / 2, two - one / 2)
  wrong = np.stack(
    [
      signals[..., LEADS.index(lead)] - value
      for lead, value in zip(_LIMB_ROWS, said, strict=True)
    ]
  ).astype(np.float64)
  return 1000 * np.sqrt((wrong**2).mean(axis=-1)).max(axis=0)


def power_spectra(
  signals: Float[np.ndarray, "n s 12"],
) -> Float[np.ndarray, "n f 12"]:
  """Power (mV^2/Hz) of each lead in bands of 1 Hz from 0.5 to 40 Hz."""
  frequency, power = scipy.signal.periodogram(
    signals, MODEL_RATE, "hann", axis=1
  )
  edges = np.arange(*_BAND, _BANDWIDTH)
  band = np.searchsorted(edges, frequency, side="right") - 1
  inside = (frequency >= _BAND[0]) & (frequency < edges[-1] + _BANDWIDTH)
  return np.stack(
    [
      power[:, inside & (band == k)].mean(axis=1, dtype=np.float64)
      for k in range(len(edges))
    ],
    axis=1,
  )


def spectrum_distance(
  one: Float[np.ndarray, "n f 12"], other: Float[np.ndarray, "m f 12"]
) -> float:
  """D = sqrt(mean over leads and bands of (10 log10(S1 / S2))^2), in dB.

  S is the mean power of a set of ECGs in a band of a lead.
  """
  ratio = (one.mean(axis=0) + 1e-12) / (other.mean(axis=0) + 1e-12)
  return float(np.sqrt(np.mean((10 * np.log10(ratio)) ** 2)))


class Beats(NamedTuple):
  """MEASURES of every ECG, nan where one failed.

  Attributes:
    real: of the target recordings.
    references: of the recordings that stand for the patients.
    twins: of every generated ECG of a row.
  """

  real: Float[np.ndarray, "n m"]
  references: Float[np.ndarray, "n m"]
  twins: Float[np.ndarray, "n k m"]


def measure_beats(examples: Examples) -> Beats:
  """Measures the beats of all ECGs, which takes most of this level's time."""
  n, k = examples.twins.shape[:2]
  flat = examples.twins.reshape(n * k, *examples.twins.shape[2:])
  return Beats(
    measure_ecgs(examples.real, "Beats of real ECGs"),
    measure_ecgs(examples.references, "Beats of references"),
    measure_ecgs(flat, "Beats of generated ECGs").reshape(n, k, -1),
  )


def measure(
  examples: Examples, *, seed: int = 0, beats: Beats | None = None
) -> list[Metric]:
  """Intervals, waves, spectrum and limb leads of the generated ECGs.

  Args:
    examples: what is compared; every generated ECG of a row is measured.
    seed: of halves, resampling and the simulated check of the measuring.
    beats: of `measure_beats`, where they are at hand.
  """
  real, reference, twins = measure_beats(examples) if beats is None else beats
  check = check_chain(seed=seed)
  metrics = []
  for column, name in enumerate(MEASURES):
    metrics += _compare(
      name,
      twins[..., column],
      real[:, column],
      _mean(np.abs(difference(twins, real[:, None])), axis=1)[:, column],
      np.abs(difference(reference, real))[:, column],
      examples.patients,
      check[name],
      seed,
    )
  flat = examples.twins.reshape(-1, *examples.twins.shape[2:])
  metrics.append(_spectrum(examples, flat, seed))
  return metrics + _limb_leads(examples, flat, seed)


def _mean(values, axis):
  """Mean of those that are numbers; nan where none is."""
  good = np.isfinite(values)
  count = good.sum(axis=axis)
  total = np.where(good, values, 0.0).sum(axis=axis)
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _compare(name, twins, real, errors, copied, patients, check, seed):
  """Paired error, bias, distance of distributions and failures of a measure."""
  unit = name.rpartition("_")[2]
  own = (
    f"the measuring itself: {check.bias:+.2g} +- {check.spread:.2g} on "
    f"{check.n} simulated ECGs, {check.failed} failed"
  )
  known = np.isfinite(real)
  lost = int((known[:, None] & ~np.isfinite(twins)).sum())
  failed = (
    f"not measurable: {int((~np.isfinite(twins)).sum())} of {twins.size} "
    f"generated, {int((~known).sum())} of {known.size} real, {lost} where the "
    "real one is"
  )
  both = known & np.isfinite(errors)
  metrics = []
  if both.any():
    floor = copied[both & np.isfinite(copied)]
    metrics.append(
      mean_metric(
        f"{name[: -len(unit) - 1]}_error_{unit}",
        errors[both],
        patients[both],
        LEVEL,
        floor=float(floor.mean()) if len(floor) else math.nan,
        note="mean absolute error against the same row's real ECG; floor: the "
        f"reference left as it was; {own}; {failed}",
        seed=seed,
      )
    )
  else:
    metrics.append(
      missing(f"{name[: -len(unit) - 1]}_error_{unit}", LEVEL, failed)
    )
  metrics.append(
    _distribution(name, twins, real, patients, f"{own}; {failed}", seed)
  )
  return metrics


def _distribution(name, twins, real, patients, note, seed):
  """Wasserstein distance of generated from real, with real against real."""
  unit = name.rpartition("_")[2]
  title = f"{name[: -len(unit) - 1]}_wasserstein_{unit}"

  def distance(one, other):
    one, other = one[np.isfinite(one)], other[np.isfinite(other)]
    if not (len(one) and len(other)):
      return math.nan
    return float(scipy.stats.wasserstein_distance(one, other))

  # The axis is compared where the circle is cut, at 180 degrees: few are there.
  value, low, high, floor = compare_halves(
    lambda rows: twins[rows].ravel(),
    lambda rows: real[rows],
    distance,
    patients,
    seed,
  )
  if not math.isfinite(value):
    return missing(title, LEVEL, note)
  return Metric(
    title,
    value,
    low,
    high,
    floor,
    int(np.isfinite(twins).sum()),
    LEVEL,
    f"floor: real against real, halves of the patients; {note}",
  )


def _spectrum(examples, flat, seed):
  n, k = examples.twins.shape[:2]
  real = power_spectra(examples.real)
  twins = power_spectra(flat).reshape(n, k, *real.shape[1:])
  value, low, high, floor = compare_halves(
    lambda rows: twins[rows].reshape(-1, *real.shape[1:]),
    lambda rows: real[rows],
    spectrum_distance,
    examples.patients,
    seed,
  )
  return Metric(
    "power_spectrum_distance_db",
    value,
    low,
    high,
    floor,
    n * k,
    LEVEL,
    "root mean square over leads and bands of 1 Hz, 0.5 to 40 Hz, of the "
    "difference of mean power; floor: real against real, halves of the "
    "patients",
  )


def _limb_leads(examples, flat, seed):
  """Errors of the limb leads of generated, decoded and real ECGs."""
  k = examples.twins.shape[1]
  floor = float(limb_lead_error(examples.real).mean())
  note = "III, aVR, aVL, aVF against I and II, the worst; floor: real ECGs"
  sets = [
    ("limb_lead_error_uv", flat, np.repeat(examples.patients, k)),
    ("limb_lead_error_decoded_uv", examples.decoded, examples.patients),
    ("limb_lead_error_real_uv", examples.real, examples.patients),
  ]
  metrics = []
  for name, signals, patients in sets:
    if signals is None:
      why = "no real ECGs were passed through the autoencoder"
      metrics.append(missing(name, LEVEL, why))
      continue
    errors = limb_lead_error(signals)
    metrics.append(
      mean_metric(
        name, errors, patients, LEVEL, floor=floor, note=note, seed=seed
      )
    )
  return metrics


def draw(beats: Beats):
  """Small multiples: distributions of MEASURES, real against generated.

  Args:
    beats: of `measure_beats`.
  """
  from matplotlib.figure import Figure

  real, twins = beats.real, beats.twins.reshape(-1, beats.twins.shape[-1])
  figure = Figure(figsize=(11, 5), layout="constrained")
  for column, axes in enumerate(figure.subplots(2, 4).flat):
    sets = [x[np.isfinite(x[:, column]), column] for x in (real, twins)]
    title, _, unit = MEASURES[column].rpartition("_")
    axes.set_title(
      f"{title.replace('_', ' ')} ({unit.replace('mv', 'mV')})", fontsize=9
    )
    axes.set_yticks([])
    pooled = np.concatenate(sets)
    if not len(pooled):
      continue
    bins = np.linspace(*np.percentile(pooled, [0.5, 99.5]) + [-1e-3, 1e-3], 31)
    for values, label in zip(sets, ("real", "generated"), strict=True):
      if len(values):
        weights = np.full(len(values), 1 / len(values))
        axes.hist(values, bins, weights=weights, alpha=0.55, label=label)
  handles, labels = figure.axes[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc="outside lower center", ncols=2)
  return figure
