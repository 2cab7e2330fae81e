"""Fidelity: how far generated ECGs are from real ones as a set, in CLIP space.

Frechet distance, precision, recall and F1, each between sets of the same size
whose patients differ, beside the same figure of real ECGs against real ones.

Intervals of the Frechet distance are 1.96 standard deviations of its bootstrap
over patients, to either side. That is about right where sets differ, and about
twice too wide where they do not (Gaussians in 8 dimensions, 300 rows of 75
patients: 0.50 where it is 0.53, and 0.10 where it is 0.04).
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from threadpoolctl import threadpool_limits

from ecgtwin_jax.evaluation.evaluators.clip import ClipSpace
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.fidelity import frechet, precision_recall
from ecgtwin_jax.evaluation.metric import (
  NAN,
  Metric,
  bootstrap_interval,
  missing,
)
from ecgtwin_jax.evaluation.resampling import draw_halves, file_halves

SPLITS = 3  # into halves, each used both ways round
REPEATS = 100  # of the bootstrap of the Frechet distance
LIMIT = 10_000  # rows of a set
_LEVEL = "fidelity"
_COLLAPSED = "baseline: one point, the mean of the real ECGs, over and over"


class ComparisonPlan(NamedTuple):
  """Which rows are compared with which.

  Attributes:
    generated: (rows of the real set, rows of the compared set), one or more;
      figures are means over them.
    real: the same for real ECGs against real ones.
    samples: how many of the samples of a row are used, each as a set of its
      own; None: all.
    words: what this is, for the notes.
  """

  generated: list[tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]]
  real: list[tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]]
  samples: int | None
  words: str

  @property
  def size(self) -> int:
    """Rows of the smallest set."""
    return min(len(a) for pair in self.generated + self.real for a in pair)


def plan(
  patients: Shaped[np.ndarray, " n"],
  *,
  seed: int = 0,
  splits: int = SPLITS,
  limit: int = LIMIT,
) -> ComparisonPlan:
  """Real ECGs of one half of the patients against those of the other half.

  Both are compared with the same real set, so that a generator that is as good
  as reality has an rFID of 1.

  Args:
    patients: dense number of each row's patient.
    seed: seed that draws the halves.
    splits: how often the patients are halved.
    limit: rows of a set, at most.

  Raises:
    ValueError: there are fewer than two patients.
  """
  pairs = []
  for split in range(splits):
    one, other = draw_halves(patients, seed + split, limit)
    pairs += [(one, other), (other, one)]
  return ComparisonPlan(
    pairs,
    pairs,
    None,
    f"sets of {min(len(a) for a, _ in pairs)} rows of different patients; mean"
    f" of {len(pairs)} comparisons and of every sample",
  )


def published_plan(patients: Shaped[np.ndarray, " n"]) -> ComparisonPlan:
  """All rows against their first sample; halves of the real in file order."""
  every = np.arange(len(patients))
  one, other = file_halves(patients)
  return ComparisonPlan(
    [(every, every)],
    [(one, other)],
    1,
    f"published protocol: {len(every)} decoded real rows against the first "
    f"sample of each; halves of {len(one)} rows in file order",
  )


class Points(NamedTuple):
  """Real and other ECGs as points of a space, and what is compared.

  Attributes:
    real: a point per row.
    sets: {"twin": (n, k, p), ...}, k points per row; of real ECGs after the
      autoencoder as "decoded".
    patients: dense number of each row's patient.
    plan: the rows that are compared; None for a single patient.
  """

  real: Float[np.ndarray, "n d"]
  sets: dict[str, Float[np.ndarray, "n _ d"]]
  patients: Shaped[np.ndarray, " n"]
  plan: ComparisonPlan | None


def compute(
  examples: Examples,
  space: ClipSpace,
  *,
  seed: int = 0,
  published_protocol: bool = False,
) -> Points:
  """Projects all ECGs, and halves the patients.

  Args:
    examples: what is compared.
    space: the space that ECGs are compared in.
    seed: seed that draws the halves.
    published_protocol: compares with real ECGs after the autoencoder, takes
      the first sample alone, and halves in file order.

  Raises:
    ValueError: the published protocol has no decoded ECGs to compare with.
  """
  if published_protocol and examples.decoded is None:
    raise ValueError("published_protocol needs examples.decoded, not None")
  patients = examples.patients
  real = space.ecgs(examples.decoded if published_protocol else examples.real)
  sets = {
    variant: space.samples(signals)
    for variant, signals in examples.generated.items()
  }
  if examples.decoded is not None and not published_protocol:
    sets["decoded"] = space.ecgs(examples.decoded)[:, None]
  if len(np.unique(patients)) < 2:
    return Points(real, sets, patients, None)
  if published_protocol:
    return Points(real, sets, patients, published_plan(patients))
  return Points(real, sets, patients, plan(patients, seed=seed))


def metrics(
  points: Points, *, seed: int = 0, repeats: int = REPEATS
) -> list[Metric]:
  """Frechet distance, precision, recall and F1 of every set.

  The reference is real ECGs against those of other patients.

  Args:
    points: what `compute` returns.
    seed: seed of the bootstrap.
    repeats: resamples of the Frechet distance.
  """
  real, sets, patients, rows = points
  if rows is None:
    why = "needs ECGs of at least 2 patients"
    return [missing("fid", _LEVEL, why, len(real))]
  return [
    *_frechet_metrics(real, sets, patients, rows, seed, repeats),
    *_neighbour_metrics(real, sets, patients, rows, seed),
  ]


def _frechet_metrics(real, sets, patients, rows, seed, repeats):
  width, size = real.shape[1], rows.size
  if size <= width:
    why = f"needs more than {width} rows in each set, here {size}"
    names = ["fid_real", *(_named("fid", name) for name in sets), "rfid"]
    return [missing(name, _LEVEL, why, size) for name in names]
  _, number = np.unique(patients, return_inverse=True)
  count = number.max() + 1
  values = _distances(real, sets, rows, np.ones(len(real)))
  rng = np.random.default_rng([seed, 2])
  parts = [part for pair in (*rows.generated, *rows.real) for part in pair]
  resampled = []
  for _ in range(repeats):
    drawn = np.bincount(rng.integers(0, count, count), minlength=count)
    weights = drawn[number] * 1.0
    # Of few patients, a resample can leave a half without any.
    if min(weights[part].sum() for part in parts) > 1:
      resampled.append(_distances(real, sets, rows, weights))
  known = 2 * len(resampled) >= repeats

  collapsed = _collapsed_distance(real, rows)

  def metric(name, figure, baseline, reference, note):
    value = figure(values)
    # A resample repeats rows, which widens every Frechet distance: its spread
    # is of use, its mean is not.
    spread = math.nan
    if known:
      spread = 1.96 * float(np.std([figure(r) for r in resampled], ddof=1))
    return Metric(
      name,
      value,
      np.maximum(value - spread, 0.0),
      value + spread,
      baseline,
      reference,
      "lower",
      size,
      _LEVEL,
      f"{note}; {_COLLAPSED}; {rows.words}",
    )

  against, near = "reference: real against real", values["real"]
  figures = [
    metric("fid_real", lambda v: v["real"], collapsed, NAN, "real against real")
  ]
  for name in sets:

    def figure(v, name=name):
      return v[name]

    figures.append(
      metric(_named("fid", name), figure, collapsed, near, against)
    )
  if "twin" in sets:
    figures.append(
      metric(
        "rfid",
        lambda v: v["twin"] / v["real"],
        collapsed / near if near else NAN,
        1.0,
        f"fid over fid_real; {against}",
      )
    )
  return figures


# Of matrices this small, threads take longer than one does alone.
@threadpool_limits.wrap(limits=1)
def _distances(real, sets, rows, weights) -> dict[str, float]:
  """Mean Frechet distance of every set, and of "real", to the real set."""
  fitted = {}

  def reference(chosen):
    if id(chosen) not in fitted:
      gaussian = frechet.fit(real[chosen], weights[chosen])
      fitted[id(chosen)] = gaussian, frechet.root(gaussian.covariance)
    return fitted[id(chosen)]

  def mean(points, pairs):
    distances = []
    for one, other in pairs:
      gaussian, gaussian_root = reference(one)
      for j in range(points.shape[1])[: rows.samples]:
        compared = frechet.fit(points[other, j], weights[other])
        distances.append(frechet.distance(gaussian, compared, gaussian_root))
    return float(np.mean(distances))

  distances = {"real": mean(real[:, None], rows.real)}
  for name, points in sets.items():
    distances[name] = mean(points, rows.generated)
  return distances


def _collapsed_distance(real, rows) -> float:
  """Frechet distance of a single point, the mean: the trace of a covariance."""
  covariances = [frechet.fit(real[one]).covariance for one, _ in rows.generated]
  return float(np.mean([np.trace(covariance) for covariance in covariances]))


def _neighbour_metrics(real, sets, patients, rows, seed):
  size = rows.size
  if size <= precision_recall.K:
    why = f"needs more than {precision_recall.K} rows in each set, here {size}"
    return [
      missing(_named(field, name), _LEVEL, why, size, better="higher")
      for name in sets
      for field in precision_recall.Figures._fields
    ]
  note = (
    f"k = {precision_recall.K}; reference: real against real; {rows.words}; "
    "interval: of the rows, the neighbourhoods held"
  )
  references = precision_recall.figures(
    precision_recall.find_hits(real, real[:, None], rows.real)
  )
  figures = []
  for name, points in sets.items():
    hits = precision_recall.find_hits(
      real, points, rows.generated, rows.samples
    )
    values = precision_recall.figures(hits)
    for field, value in values._asdict().items():

      def statistic(drawn, field=field, hits=hits):
        return getattr(precision_recall.figures(hits, drawn), field)

      low, high = bootstrap_interval(statistic, patients, seed=seed)
      figures.append(
        Metric(
          _named(field, name),
          value,
          low,
          high,
          NAN,
          getattr(references, field),
          "higher",
          size,
          _LEVEL,
          note,
        )
      )
  return figures


def _named(figure: str, name: str) -> str:
  return figure if name == "twin" else f"{figure}_{name}"
