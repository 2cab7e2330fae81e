"""Condition: does a generated ECG look like the report it was asked for?

CLIP score, its ratio to that of real ECGs, and how often CLIP finds the right
report among a hundred.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float, Shaped

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.judges.clip import ClipSpace
from ecgtwin_jax.evaluation.metric import (
  Metric,
  bootstrap_interval,
  mean_metric,
  missing,
)
from ecgtwin_jax.evaluation.resampling import mean_of_others

CANDIDATES = 100  # reports
TOPS = (1, 5)
_LEVEL = "condition"
_SHUFFLED = "floor: the twin given another row's report"
_STRANGERS = "floor: these ECGs against the reports of other patients"


def measure(
  examples: Examples,
  space: ClipSpace,
  *,
  seed: int = 0,
  published_protocol: bool = False,
) -> list[Metric]:
  """CLIP score, rCLIP and retrieval of the report; every sample counts.

  A generator that ignores the report scores as its floor does, and
  `clip_score_gain` contains 0.

  Args:
    examples: what is judged.
    space: of the ECGs and reports.
    seed: of the candidates and the bootstrap.
    published_protocol: the real ECGs are those after the autoencoder.

  Raises:
    ValueError: the published protocol has no decoded ECGs to compare with.
  """
  if published_protocol and examples.decoded is None:
    raise ValueError("published_protocol needs examples.decoded, not None")
  patients = examples.patients
  texts = space.texts(examples.conditions)
  real = examples.decoded if published_protocol else examples.real
  real = space.ecgs(real)[:, None]
  twins = space.samples(examples.twins)
  shuffled = examples.generated.get("shuffled_text")
  if shuffled is not None:
    shuffled = space.samples(shuffled)
  alone = len(np.unique(patients)) < 2
  scores = cosines(twins, texts)
  real_scores = cosines(real, texts)
  floor, note = np.full(len(texts), np.nan), ""
  if shuffled is not None:
    floor, note = cosines(shuffled, texts), _SHUFFLED
  elif not alone:
    floor, note = stranger_cosines(twins, texts, patients), _STRANGERS
  real_floor = np.full(len(texts), np.nan)
  if not alone:
    real_floor = stranger_cosines(real, texts, patients)
  what = "decoded real ECGs" if published_protocol else "real ECGs"
  metrics = [
    mean_metric(
      "clip_score",
      scores,
      patients,
      _LEVEL,
      floor=float(floor.mean()),
      note=note,
      seed=seed,
    ),
    mean_metric(
      "clip_score_real",
      real_scores,
      patients,
      _LEVEL,
      floor=float(real_floor.mean()),
      note=f"{what}; {_STRANGERS}",
      seed=seed,
    ),
    _ratio(scores, real_scores, floor, patients, f"{note}; over {what}", seed),
  ]
  if note:
    gain = mean_metric(
      "clip_score_gain",
      scores - floor,
      patients,
      _LEVEL,
      floor=0.0,
      note=f"clip_score less its floor, row by row; {note}",
      seed=seed,
    )
    metrics.append(gain)
  arms = {"": (twins, shuffled), "_real": (real, None)}
  return metrics + _retrieval_metrics(arms, texts, examples, seed)


def cosines(
  samples: Float[np.ndarray, "n k p"], texts: Float[np.ndarray, "n p"]
) -> Float[np.ndarray, " n"]:
  """s_i = mean over the samples of cos(sample, text) of each row."""
  return _mean_products(samples, _normalized(texts))


def stranger_cosines(
  samples: Float[np.ndarray, "n k p"],
  texts: Float[np.ndarray, "n p"],
  patients: Shaped[np.ndarray, " n"],
) -> Float[np.ndarray, " n"]:
  """Mean cosine of a row's samples and the texts of all other patients."""
  return _mean_products(samples, mean_of_others(_normalized(texts), patients))


def _mean_products(samples, vectors):
  each = _normalized(samples) * vectors[:, None]
  return each.sum(axis=2).mean(axis=1)


def _normalized(x):
  x = np.asarray(x, np.float64)
  return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _ratio(scores, real_scores, floor, patients, note, seed):
  real = real_scores.mean()
  if real <= 0:
    why = f"CLIP does not know the real ECGs' reports: their score is {real:.3}"
    return missing("rclip", _LEVEL, why, len(scores))
  low, high = bootstrap_interval(
    lambda rows: scores[rows].mean() / real_scores[rows].mean(),
    patients,
    seed=seed,
  )
  return Metric(
    "rclip",
    float(scores.mean() / real),
    low,
    high,
    float(floor.mean() / real),
    len(scores),
    _LEVEL,
    note,
  )


def _retrieval_metrics(arms, texts, examples, seed):
  keys = report_keys(examples.conditions)
  candidates = min(CANDIDATES, len(set(keys)))
  names = [f"report_top{top}{arm}" for arm in arms for top in TOPS]
  if candidates <= max(TOPS):
    why = f"{candidates} different reports are too few to choose among"
    return [missing(name, _LEVEL, why, len(keys)) for name in names]
  metrics = []
  for arm, (samples, shuffled) in arms.items():
    found = retrieve(samples, texts, keys, seed=seed)
    chances = {top: top / candidates for top in TOPS}
    floors, note = chances, "floor: chance"
    if shuffled is not None:
      missed = retrieve(shuffled, texts, keys, seed=seed)
      floors = {top: float(share.mean()) for top, share in missed.items()}
      note = f"{_SHUFFLED}; chance {1 / candidates:.3f} for the first"
    for top, share in found.items():
      metrics.append(
        mean_metric(
          f"report_top{top}{arm}",
          share,
          examples.patients,
          _LEVEL,
          floor=floors[top],
          note=f"among {candidates} different reports; {note}",
          seed=seed,
        )
      )
  return metrics


def report_keys(conditions: Sequence[Condition]) -> list[tuple[str, ...]]:
  """Equal for reports of the same statements, whatever their order."""
  return [tuple(sorted(c.statements)) for c in conditions]


def retrieve(
  samples: Float[np.ndarray, "n k p"],
  texts: Float[np.ndarray, "n p"],
  keys: Sequence[Hashable],
  *,
  candidates: int = CANDIDATES,
  tops: tuple[int, ...] = TOPS,
  seed: int = 0,
) -> dict[int, Float[np.ndarray, " n"]]:
  """How often a row's own report is among the nearest ones, by cosine.

  Each row has candidates of its own: its report, and others drawn from the
  different reports. Reports that are equally near share the places, so that
  a CLIP that tells nothing apart finds by chance.

  Args:
    samples: projections of ECGs, k for each row.
    texts: projections of the rows' reports.
    keys: equal for equal reports.
    candidates: how many, at most as many as there are different reports.
    tops: first places that count as found.
    seed: of the candidates.

  Returns:
    {top: share of each row's samples that found its report}.
  """
  place = {key: row for row, key in reversed(list(enumerate(keys)))}
  order = {key: number for number, key in enumerate(place)}
  own = np.array([order[key] for key in keys])
  different = _normalized(texts[list(place.values())])
  count = min(candidates, len(different))
  rng = np.random.default_rng([seed, 3])
  found = {top: np.zeros(len(keys)) for top in tops}
  for row, queries in enumerate(_normalized(samples)):
    # Of the others: all but its own, which is skipped over.
    others = rng.permutation(len(different) - 1)[: count - 1]
    others += others >= own[row]
    nearness = queries @ different[np.append(others, own[row])].T
    mine = nearness[:, -1:]
    better = (nearness[:, :-1] > mine + 1e-9).sum(axis=1)
    tied = 1 + (np.abs(nearness[:, :-1] - mine) <= 1e-9).sum(axis=1)
    for top in tops:
      found[top][row] = np.clip((top - better) / tied, 0, 1).mean()
  return found
