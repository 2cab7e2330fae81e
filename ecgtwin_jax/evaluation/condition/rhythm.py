"""Do sampled rhythms beat as real ones do under the same report?

Each measure is one number per rhythm. A figure is the Wasserstein distance, in
the measure's unit, between its distribution over sampled rhythms and over those
detected in the real ECGs whose report they were sampled for.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from ecgtwin_jax.beats.rhythm import KINDS, Rhythm, detect_rhythm
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import MODEL_RATE
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import (
  NAN,
  Metric,
  bootstrap_interval,
  missing,
)
from ecgtwin_jax.text.findings import label_reports

if TYPE_CHECKING:
  import matplotlib.figure

_LEVEL = "condition"
_PVC, _PAC = KINDS.index("pvc"), KINDS.index("pac")
_FEWEST = 8  # rhythms on each side of a distance
_ARRHYTHMIAS = (
  "atrial_fibrillation",
  "atrial_flutter",
  "pacing",
  "ventricular_premature",
  "atrial_premature",
)


def rate_bpm(rr: np.ndarray, kind: np.ndarray, p_wave: np.ndarray) -> float:
  """Beats per minute of RR intervals in s."""
  return 60 / rr.mean()


def _rmssd_ms(rr, kind, p_wave):
  return 1000 * np.sqrt(np.square(np.diff(rr)).mean())


def _irregularity(rr, kind, p_wave):
  return rr.std() / rr.mean()


def _longest_rr(rr, kind, p_wave):
  return rr.max() / np.median(rr)


def _pvc_share(rr, kind, p_wave):
  return (kind == _PVC).mean()


def _pac_share(rr, kind, p_wave):
  return (kind == _PAC).mean()


def _p_wave_share(rr, kind, p_wave):
  return (p_wave == 1).mean()


def _pvc_coupling(rr, kind, p_wave):
  early = kind[1:] == _PVC
  return rr[early].mean() / np.median(rr) if early.any() else np.nan


def _pvc_pause(rr, kind, p_wave):
  """Interval after a PVC and the one before it, over two usual ones: 1 is full
  compensation."""
  early = kind[1:-1] == _PVC
  both = (rr[:-1] + rr[1:])[early]
  return both.mean() / (2 * np.median(rr)) if early.any() else np.nan


# Name of a figure: measure, finding that the report must state, or must not
# (with a "-"), "sinus" for none of the arrhythmias, or "" for all.
FIGURES: dict[str, tuple[Callable, str]] = {
  "rate_bpm": (rate_bpm, ""),
  "rmssd_ms_sinus": (_rmssd_ms, "sinus"),
  "irregularity_fibrillation": (_irregularity, "atrial_fibrillation"),
  "irregularity_flutter": (_irregularity, "atrial_flutter"),
  "longest_rr": (_longest_rr, ""),
  "pvc_share_stated": (_pvc_share, "ventricular_premature"),
  "pvc_share_not_stated": (_pvc_share, "-ventricular_premature"),
  "pvc_coupling": (_pvc_coupling, "ventricular_premature"),
  "pvc_pause": (_pvc_pause, "ventricular_premature"),
  "pac_share_stated": (_pac_share, "atrial_premature"),
  "pac_share_not_stated": (_pac_share, "-atrial_premature"),
  "p_wave_share_sinus": (_p_wave_share, "sinus"),
  "p_wave_share_fibrillation": (_p_wave_share, "atrial_fibrillation"),
  "p_wave_share_paced": (_p_wave_share, "pacing"),
}


class Compared(NamedTuple):
  """Rhythms to compare, a row per target.

  Attributes:
    conditions: what was asked for.
    real: detected in the real ECGs.
    sampled: k for each target.
    patients: dense number of each target's patient.
  """

  conditions: Sequence[Condition]
  real: Sequence[Rhythm]
  sampled: Sequence[Sequence[Rhythm]]
  patients: Shaped[np.ndarray, " n"]


def compute(
  examples: Examples,
  draw_rhythms: Callable[..., list[Rhythm]],
  *,
  count: int = 4,
  seed: int = 0,
) -> Compared:
  """Detects the rhythms of the real ECGs, and samples others for their reports.

  Args:
    examples: what holds the real ECGs.
    draw_rhythms: method of a twin with a rhythm model.
    count: rhythms for each target.
    seed: seed of the samples.
  """
  n = len(examples.conditions)
  drawn = draw_rhythms(
    [c for c in examples.conditions for _ in range(count)],
    [seed + i for i in range(n) for _ in range(count)],
    list(range(count)) * n,
  )
  return Compared(
    examples.conditions,
    [detect_rhythm(signal, MODEL_RATE) for signal in examples.real],
    [drawn[i * count : (i + 1) * count] for i in range(n)],
    examples.patients,
  )


def of_rhythms(
  measure: Callable, rhythms: Sequence[Rhythm]
) -> Float[np.ndarray, " n"]:
  """The measure of each rhythm; nan where there are fewer than four beats."""
  values = np.full(len(rhythms), np.nan)
  for i, rhythm in enumerate(rhythms):
    beats = rhythm.kind >= 0
    if beats.sum() >= 4:
      rr = np.diff(rhythm.time[beats].astype(np.float64))
      values[i] = measure(rr, rhythm.kind[beats], rhythm.p_wave[beats])
  return values


def rows_that_state(
  group: str, conditions: Sequence[Condition]
) -> Shaped[np.ndarray, " n"]:
  """Which reports belong to a group of FIGURES; in doubt they do not."""
  reports = [condition.statements for condition in conditions]
  if not group:
    return np.ones(len(reports), bool)
  if group == "sinus":
    return (label_reports(_ARRHYTHMIAS, reports) == 0).all(axis=1)
  labels = label_reports([group.removeprefix("-")], reports)[:, 0]
  return labels == (0 if group.startswith("-") else 1)


def metrics(compared: Compared, *, seed: int = 0) -> list[Metric]:
  """Distances between sampled and real rhythms; see FIGURES.

  The baseline is the rhythm of another row, whatever its report. The reference
  is the distance between the real rhythms of two halves of the patients.

  Args:
    compared: what `compute` returns.
    seed: seed of the shuffle, of the halves and of the bootstrap.
  """
  from scipy.stats import wasserstein_distance

  patients = compared.patients
  rng = np.random.default_rng([seed, 7])
  n, count = len(patients), len(compared.sampled[0])
  other = rng.permutation(n)
  names = np.unique(patients)
  half = np.isin(patients, rng.permutation(names)[: len(names) // 2])
  flat = [rhythm for rhythms in compared.sampled for rhythm in rhythms]
  figures = []
  for name, (function, group) in FIGURES.items():
    title = f"rhythm_{name}_distance"
    rows = np.flatnonzero(rows_that_state(group, compared.conditions))
    real = of_rhythms(function, compared.real)
    drawn = of_rhythms(function, flat).reshape(n, count)

    def distance(a, b):
      a, b = a[np.isfinite(a)], b[np.isfinite(b)]
      if min(len(a), len(b)) < _FEWEST:
        return NAN
      return float(wasserstein_distance(a, b))

    value = distance(drawn[rows].ravel(), real[rows])
    if np.isnan(value):
      why = f"fewer than {_FEWEST} rhythms have it"
      figures.append(missing(title, _LEVEL, why, len(rows)))
      continue

    def statistic(chosen, rows=rows, real=real, drawn=drawn, gap=distance):
      return gap(drawn[rows[chosen]].ravel(), real[rows[chosen]])

    low, high = bootstrap_interval(
      statistic, patients[rows], repeats=200, seed=seed
    )
    figures.append(
      Metric(
        title,
        value,
        low,
        high,
        baseline=distance(real[other[rows]], real[rows]),
        reference=distance(real[rows[half[rows]]], real[rows[~half[rows]]]),
        better="lower",
        n=len(rows),
        level=_LEVEL,
        note=f"mean {np.nanmean(drawn[rows]):.3g}, real "
        f"{np.nanmean(real[rows]):.3g}; baseline: another row's rhythm; "
        "reference: real halves",
      )
    )
  return figures


def draw(compared: Compared, each: int = 4) -> "matplotlib.figure.Figure":
  """Rhythms as beats over time, real and sampled, by what the report states.

  Args:
    compared: the rhythms.
    each: rhythms of a group and kind.

  Returns:
    A matplotlib Figure.
  """
  from matplotlib.figure import Figure

  colors = ("0.2", "#d55e00", "#0072b2", "#009e73")
  groups = ("sinus", *_ARRHYTHMIAS)
  figure = Figure(figsize=(11, 1.5 * len(groups)), layout="constrained")
  axes = figure.subplots(len(groups), 2, sharex=True)
  for pair, group in zip(axes, groups, strict=True):
    rows = np.flatnonzero(rows_that_state(group, compared.conditions))[:each]
    sides = (
      [compared.real[row] for row in rows],
      [compared.sampled[row][0] for row in rows],
    )
    for axis, rhythms in zip(pair, sides, strict=True):
      axis.set(xlim=(0, 10), ylim=(-0.6, each - 0.4), yticks=[])
      for line, rhythm in enumerate(rhythms):
        for number, color in enumerate(colors):
          times = rhythm.time[rhythm.kind == number]
          axis.vlines(times, line - 0.35, line + 0.3, colors=color)
        waves = rhythm.time[rhythm.p_wave == 1] - 0.16
        axis.plot(waves, np.full(len(waves), line - 0.3), ".", color="0.6")
    pair[0].set_ylabel(group.replace("_", "\n"), fontsize=8)
  axes[0, 0].set_title("detected in real ECGs")
  axes[0, 1].set_title("sampled for the same reports")
  for color, kind in zip(colors, KINDS, strict=True):
    axes[0, 1].plot([], [], color=color, label=kind)
  figure.legend(loc="outside lower center", ncols=len(KINDS), fontsize=8)
  for axis in axes[-1]:
    axis.set_xlabel("seconds; dots: P waves")
  return figure
