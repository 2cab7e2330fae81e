"""Do generated ECGs have the intervals, waves and spectra of real ones?"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy.signal
from jaxtyping import Float, Shaped

from ecgtwin_jax.beats.intervals import MEASURES, difference, measure_beat
from ecgtwin_jax.data.ecg import LEADS, MODEL_RATE
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import (
  NAN,
  Metric,
  mean_metric,
  mean_of,
  missing,
)
from ecgtwin_jax.evaluation.physiology.measuring_error import check_chain
from ecgtwin_jax.evaluation.readings import Readings
from ecgtwin_jax.evaluation.resampling import (
  UNCHANGED,
  compare_halves,
  mean_over_halves,
  wasserstein_metric,
)

if TYPE_CHECKING:
  import matplotlib.figure

LEVEL = "physiology"
_I, _II = map(LEADS.index, ("I", "II"))
_LIMB_ROWS = ("III", "aVR", "aVL", "aVF")
_BAND = 0.5, 40.0  # Hz of the spectra that are compared
_BANDWIDTH = 1.0  # Hz in which power is gathered


def limb_lead_error(
  signals: Float[np.ndarray, "n t 12"],
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
  signals: Float[np.ndarray, "n t 12"],
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


class Physiology(NamedTuple):
  """What `compute` gives; of MEASURES nan where one failed.

  Attributes:
    real: MEASURES of the target recordings.
    references: readings of the recordings that stand for the patients.
    twins: readings of every generated ECG of a row.
    decoded: those of the real ones after the autoencoder; None: not measured.
    spectra: {"real", "references": (n, f, 12), "twin": (n, k, f, 12)} power,
      mV^2/Hz.
    limb_leads: {set: limb_lead_error of its ECGs, (n, k)}; "decoded" where
      they are there.
    patients: dense number of each row's patient.
  """

  real: Float[np.ndarray, "n measures"]
  references: Float[np.ndarray, "n measures"]
  twins: Float[np.ndarray, "n k measures"]
  decoded: Float[np.ndarray, "n measures"] | None
  spectra: dict[str, np.ndarray]
  limb_leads: dict[str, Float[np.ndarray, "n _"]]
  patients: Shaped[np.ndarray, " n"]


def compute(examples: Examples, readings: Readings | None = None) -> Physiology:
  """Measures the beats, spectra and limb leads of all ECGs.

  Args:
    examples: what is compared; every generated ECG of a row is measured.
    readings: readings of the examples' beats; None: they are made here.
  """
  readings = readings or Readings(examples)
  decoded = examples.decoded

  def measures(name):
    rows = readings.of(name)
    return np.stack([[measure_beat(r) for r in row] for row in rows])

  n, k = examples.twins.shape[:2]
  flat = examples.twins.reshape(n * k, *examples.twins.shape[2:])
  spectra = power_spectra(flat)
  limb_leads = {
    "twin": limb_lead_error(flat).reshape(n, k),
    "real": limb_lead_error(examples.real)[:, None],
  }
  if decoded is not None:
    limb_leads["decoded"] = limb_lead_error(decoded)[:, None]
  return Physiology(
    measures("real")[:, 0],
    measures("references")[:, 0],
    measures("twin"),
    None if decoded is None else measures("decoded")[:, 0],
    {
      "real": power_spectra(examples.real),
      "references": power_spectra(examples.references),
      "twin": spectra.reshape(n, k, *spectra.shape[1:]),
    },
    limb_leads,
    examples.patients,
  )


def metrics(physiology: Physiology, *, seed: int = 0) -> list[Metric]:
  """Intervals, waves, spectrum and limb leads of the generated ECGs.

  Args:
    physiology: what `compute` returns.
    seed: seed of the halves, of resampling and of the simulated check.
  """
  check = check_chain(seed=seed)
  rows = []
  for column, name in enumerate(MEASURES):
    rows += _compare(physiology, column, check[name], seed)
  rows += [_spectrum(physiology, seed), *_limb_leads(physiology, seed)]
  return [*rows, _failures(physiology, seed)]


def _mean(values, axis):
  """Mean of those that are numbers; nan where none is."""
  good = np.isfinite(values)
  count = good.sum(axis=axis)
  total = np.where(good, values, 0.0).sum(axis=axis)
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _compare(physiology, column, check, seed):
  """Paired error, bias, distance of distributions and failures of a measure."""
  name = MEASURES[column]
  unit = name.rpartition("_")[2]
  own = (
    f"the measuring itself: {check.bias:+.2g} +- {check.spread:.2g} on "
    f"{check.n} simulated ECGs, {check.failed} failed"
  )
  twins, real = physiology.twins[..., column], physiology.real[:, column]
  known = np.isfinite(real)
  lost = int((known[:, None] & ~np.isfinite(twins)).sum())
  failed = (
    f"not measurable: {int((~np.isfinite(twins)).sum())} of {twins.size} "
    f"generated, {int((~known).sum())} of {known.size} real, {lost} where the "
    "real one is"
  )
  title = f"{name[: -len(unit) - 1]}_error_{unit}"

  def errors(measured):
    apart = np.abs(difference(measured, physiology.real[:, None]))
    return _mean(apart, axis=1)[known, column]

  if known.any():
    decoded = NAN
    if physiology.decoded is not None:
      decoded = mean_of(errors(physiology.decoded[:, None]))
    error = mean_metric(
      title,
      errors(physiology.twins),
      physiology.patients[known],
      LEVEL,
      better="lower",
      baseline=mean_of(errors(physiology.references[:, None])),
      reference=decoded,
      note=f"mean absolute error against the same row's real ECG; {UNCHANGED}"
      + ("" if np.isnan(decoded) else "; reference: decoded real ECGs")
      + f"; {own}; {failed}",
      seed=seed,
    )
  else:
    error = missing(title, LEVEL, failed)
  # The axis is compared where the circle is cut, at 180 degrees: few are there.
  distribution = wasserstein_metric(
    f"{name[: -len(unit) - 1]}_wasserstein_{unit}",
    twins,
    real,
    physiology.patients,
    LEVEL,
    f"{own}; {failed}",
    seed,
    physiology.references[:, column],
  )
  return [error, distribution]


def _spectrum(physiology, seed):
  real, twins = physiology.spectra["real"], physiology.spectra["twin"]
  value, low, high, reference = compare_halves(
    lambda rows: twins[rows].reshape(-1, *real.shape[1:]),
    lambda rows: real[rows],
    spectrum_distance,
    physiology.patients,
    seed,
  )
  references = physiology.spectra["references"]
  baseline = mean_over_halves(
    lambda rows: references[rows],
    lambda rows: real[rows],
    spectrum_distance,
    physiology.patients,
    seed,
  )
  return Metric(
    "power_spectrum_distance_db",
    value,
    low,
    high,
    baseline,
    reference,
    "lower",
    twins.shape[0] * twins.shape[1],
    LEVEL,
    "root mean square over leads and bands of 1 Hz, 0.5 to 40 Hz, of the "
    f"difference of mean power; {UNCHANGED}; reference: real against real, "
    "halves of the patients",
  )


def _limb_leads(physiology, seed):
  """Errors of the limb leads of generated, decoded and real ECGs."""
  reference = float(physiology.limb_leads["real"].mean())
  note = "III, aVR, aVL, aVF against I and II, the worst"
  names = {
    "twin": "limb_lead_error_uv",
    "decoded": "limb_lead_error_decoded_uv",
    "real": "limb_lead_error_real_uv",
  }
  rows = []
  for which, name in names.items():
    errors = physiology.limb_leads.get(which)
    if errors is None:
      why = "no real ECGs were passed through the autoencoder"
      rows.append(missing(name, LEVEL, why))
      continue
    itself = which == "real"
    rows.append(
      mean_metric(
        name,
        errors.ravel(),
        np.repeat(physiology.patients, errors.shape[1]),
        LEVEL,
        better="lower",
        reference=NAN if itself else reference,
        note=note if itself else f"{note}; reference: real ECGs",
        seed=seed,
      )
    )
  return rows


def _failures(physiology, seed):
  """Share of measurements that fail where the real ECG's does not."""
  known = np.isfinite(physiology.real)
  rows = known.any(axis=1)

  def share(measured):
    lost = known[:, None] & ~np.isfinite(measured)
    return lost.mean(axis=1).sum(axis=1)[rows] / known.sum(axis=1)[rows]

  name = "measurements_failed_share"
  if not rows.any():
    return missing(name, LEVEL, "no real ECG could be measured")
  decoded = NAN
  if physiology.decoded is not None:
    decoded = float(share(physiology.decoded[:, None]).mean())
  return mean_metric(
    name,
    share(physiology.twins),
    physiology.patients[rows],
    LEVEL,
    better="lower",
    reference=decoded,
    note=f"of {', '.join(MEASURES)} of generated ECGs, where the real ECG "
    "can be measured"
    + ("" if np.isnan(decoded) else "; reference: decoded real ECGs"),
    seed=seed,
  )


def draw(physiology: Physiology) -> "matplotlib.figure.Figure":
  """Small multiples: distributions of MEASURES, real against generated.

  Args:
    physiology: what `compute` returns.
  """
  from matplotlib.figure import Figure

  real = physiology.real
  twins = physiology.twins.reshape(-1, len(MEASURES))
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
