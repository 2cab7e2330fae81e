"""Do beats, intervals, samples and patients differ as much as in real ECGs?

A generator that repeats one beat is as wrong as one whose waves change size
from beat to beat; other figures see neither, as they look at median beats. The
samples of one request must differ by more than the two halves of a recording,
and two patients' twins by as much as these patients' recordings.
"""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from ecgtwin_jax.beats.variation import rr_spread
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import (
  NAN,
  Metric,
  direction,
  mean_metric,
  mean_of,
  missing,
)
from ecgtwin_jax.evaluation.readings import Readings
from ecgtwin_jax.evaluation.resampling import (
  rows_of_others,
  wasserstein_metric,
)
from ecgtwin_jax.evaluation.truth import beat_distance
from ecgtwin_jax.text.findings import asks_for

if TYPE_CHECKING:
  import matplotlib.figure

LEVEL = "physiology"
_ASKS = {
  "fibrillation": ("fibrillation",),
  "ectopic": ("pvc", "pac"),
}  # what a report asks for whose rhythm is of that group; sinus: none of it
GROUPS = ("sinus", *_ASKS)
LEAST = 10  # targets of a group
_STRANGERS = 2  # other patients that each row is compared with


class Variation(NamedTuple):
  """Spreads of each ECG; nan where one has too few beats or is unreadable.

  Attributes:
    beats: {"real", "twin", "references" or "decoded": beat_spread in
      microvolt, (n, k)}.
    rr: {the same sets: rr_spread in ms, (n, k)}.
    groups: {of GROUPS: rows of that rhythm}.
    patients: of each row.
    samples: mean distance of the median beats of neighbouring samples of a
      request, microvolt.
    halves: distance of the median beats of the two halves of the real ECG.
    strangers: {"real" or "twin": distance of the row's median beat from that of
      another patient's row, the same rows for both, (n, strangers)}.
  """

  beats: dict[str, Float[np.ndarray, "n _"]]
  rr: dict[str, Float[np.ndarray, "n _"]]
  groups: dict[str, Bool[np.ndarray, " n"]]
  patients: Shaped[np.ndarray, " n"]
  samples: Float[np.ndarray, " n"]
  halves: Float[np.ndarray, " n"]
  strangers: dict[str, Float[np.ndarray, "n _"]]


def compute(
  examples: Examples, readings: Readings | None = None, *, seed: int = 0
) -> Variation:
  """Measures the spreads of real, generated and decoded ECGs.

  Args:
    examples: what is compared; every generated ECG counts.
    readings: of its beats, where they are at hand.
    seed: of the other patients that each row is compared with.
  """
  readings = readings or Readings(examples)
  sets = ["real", "twin", "references"]
  sets += [] if examples.decoded is None else ["decoded"]
  return Variation(
    {name: readings.spreads(name) for name in sets},
    {name: _rr_spreads(readings.of(name)) for name in sets},
    find_groups(examples.conditions),
    examples.patients,
    np.array([_between_samples(row) for row in readings.of("twin")]),
    np.array(
      [_apart(*(two or (None, None))) for (two,) in readings.halves("real")]
    ),
    {
      name: _between_patients(readings.of(name), examples.patients, seed)
      for name in ("real", "twin")
    },
  )


def _apart(one, other):
  """Distance of two median beats over time and leads, microvolt."""
  leads, _ = beat_distance(one, other)
  return 1000 * float(np.sqrt((leads**2).mean()))


def _between_samples(row):
  return mean_of(np.array([_apart(*two) for two in itertools.pairwise(row)]))


def _between_patients(rows, patients, seed):
  first = [row[0] for row in rows]
  if len(np.unique(patients)) < 2:
    return np.full((len(rows), 1), NAN)
  return np.stack(
    [
      [_apart(one, first[k]) for one, k in zip(first, others, strict=True)]
      for others in (
        rows_of_others(patients, _STRANGERS * seed + draw)
        for draw in range(_STRANGERS)
      )
    ],
    axis=1,
  )


def _rr_spreads(rows):
  return np.array(
    [[NAN if r is None else rr_spread(r.beats) for r in row] for row in rows]
  )


def find_groups(
  conditions: Sequence[Condition],
) -> dict[str, Bool[np.ndarray, " n"]]:
  """Rows of each rhythm, by what is asked for; of some reports, of none."""
  wants = {
    name: [
      [asks_for(c.statements, criterion) for criterion in criteria]
      for c in conditions
    ]
    for name, criteria in _ASKS.items()
  }
  groups = {
    name: np.array([any(row) for row in rows]) for name, rows in wants.items()
  }
  free = [
    all(want is False for rows in wants.values() for want in rows[i])
    for i in range(len(conditions))
  ]
  groups["ectopic"] &= ~groups["fibrillation"]
  return {"sinus": np.array(free), **groups}


def metrics(variation: Variation, *, seed: int = 0) -> list[Metric]:
  """Mean spread and distance of the spreads' distribution, by rhythm.

  Args:
    variation: what `compute` returns.
    seed: seed of the halves and of resampling.
  """
  rows = []
  for name, spreads, unit, words in (
    ("beat_spread", variation.beats, "uv", _BEATS),
    ("rr_spread", variation.rr, "ms", _INTERVALS),
  ):
    for group, chosen in variation.groups.items():
      some = {which: values[chosen] for which, values in spreads.items()}
      people = variation.patients[chosen]
      rows += _compare(f"{name}_{group}", some, unit, people, words, seed)
  return [
    *rows,
    _between(
      "sample_spread_uv",
      variation.samples,
      variation.halves,
      variation.patients,
      "of the median beats of two samples of a request; reference: of the two "
      "halves of a real ECG, the least that two samples must differ by",
      seed,
    ),
    _between(
      "patient_spread_uv",
      np.array([mean_of(x) for x in variation.strangers["twin"]]),
      np.array([mean_of(x) for x in variation.strangers["real"]]),
      variation.patients,
      "of the median beats of two patients' twins; reference: of these "
      "patients' real ECGs under the same two conditions",
      seed,
    ),
  ]


def _between(name, values, real, patients, words, seed):
  """A distance of median beats; 0, the baseline, is one beat for all."""
  if not np.isfinite(values).any():
    why = "needs two samples of a request, --config.num_samples=2"
    why = why if name == "sample_spread_uv" else "needs two patients"
    return missing(name, LEVEL, why, better="higher")
  return mean_metric(
    name,
    values,
    patients,
    LEVEL,
    better="higher",
    baseline=0.0,
    reference=mean_of(real),
    note=words,
    seed=seed,
  )


_BEATS = "of usual beats about their median, over time and leads"
_INTERVALS = "standard deviation of intervals between usual beats"


def _compare(name, spreads, unit, patients, words, seed):
  titles = f"{name}_{unit}", f"{name}_wasserstein_{unit}"
  if len(patients) < LEAST:
    why = f"{len(patients)} targets of this rhythm: fewer than {LEAST}"
    return [missing(title, LEVEL, why, len(patients)) for title in titles]
  twin, real = spreads["twin"], spreads["real"][:, 0]
  note = f"{words}; best at the reference: real ECGs of the same reports"
  if "decoded" in spreads:
    note += f", after the autoencoder {mean_of(spreads['decoded'][:, 0]):.3g}"
  row = mean_metric(
    titles[0],
    twin.ravel(),
    np.repeat(patients, twin.shape[1]),
    LEVEL,
    better=direction(mean_of(twin.ravel()), mean_of(real)),
    reference=mean_of(real),
    note=note,
    seed=seed,
  )
  return [
    row,
    wasserstein_metric(
      titles[1],
      twin,
      real,
      patients,
      LEVEL,
      words,
      seed,
      spreads["references"][:, 0],
    ),
  ]


def draw(variation: Variation) -> "matplotlib.figure.Figure":
  """Distributions of both spreads, real against generated, by rhythm.

  Args:
    variation: what `compute` returns.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(11, 5), layout="constrained")
  panels = figure.subplots(2, len(GROUPS), squeeze=False)
  for line, (spreads, unit, title) in zip(
    panels,
    (
      (variation.beats, "µV", "spread of beats"),
      (variation.rr, "ms", "spread of RR"),
    ),
    strict=True,
  ):
    for axes, (group, chosen) in zip(
      line, variation.groups.items(), strict=True
    ):
      axes.set_title(f"{title}, {group} ({chosen.sum()})", fontsize=9)
      axes.set_xlabel(unit, fontsize=8)
      axes.set_yticks([])
      sets = {
        label: values[chosen][np.isfinite(values[chosen])]
        for label, values in (
          ("real", spreads["real"]),
          ("generated", spreads["twin"]),
        )
      }
      pooled = np.concatenate(list(sets.values()))
      if not len(pooled):
        continue
      edges = np.linspace(0, np.quantile(pooled, 0.98) + 1e-3, 31)
      for label, values in sets.items():
        weights = np.full(len(values), 1 / max(len(values), 1))
        axes.hist(values, edges, weights=weights, alpha=0.55, label=label)
  handles, labels = panels[0, 0].get_legend_handles_labels()
  figure.legend(handles, labels, loc="outside lower center", ncols=2)
  return figure
