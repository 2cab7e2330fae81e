"""Does a generated ECG look like the report it was asked for?

CLIP score, its ratio to that of real ECGs, and how often CLIP finds the right
report among a hundred.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.evaluation.evaluators.clip import ClipSpace
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import (
  NAN,
  Metric,
  bootstrap_interval,
  mean_metric,
  missing,
)
from ecgtwin_jax.evaluation.resampling import mean_of_others
from ecgtwin_jax.text.findings import names_conclusion

CANDIDATES = 100  # reports
TOPS = (1, 5)
_LEVEL = "condition"
_SHUFFLED = "baseline: the twin given another row's report"
_STRANGERS = "baseline: these ECGs against the reports of other patients"


class Projections(NamedTuple):
  """ECGs and reports as points of one space.

  Attributes:
    texts: projections of the reports.
    keys: equal for equal reports.
    real: those of the real ECGs.
    twins: those of the generated ECGs.
    shuffled: those of ECGs given another row's report; None: not generated.
    patients: dense number of each row's patient.
    what: what the real ECGs are.
  """

  texts: Float[np.ndarray, "n d"]
  keys: list[tuple[str, ...]]
  real: Float[np.ndarray, "n 1 d"]
  twins: Float[np.ndarray, "n k d"]
  shuffled: Float[np.ndarray, "n _ d"] | None
  patients: Shaped[np.ndarray, " n"]
  what: str


def compute(
  examples: Examples, space: ClipSpace, *, published_protocol: bool = False
) -> Projections:
  """Projects ECGs and reports; every sample counts.

  Args:
    examples: what is evaluated.
    space: the space of ECGs and reports.
    published_protocol: the real ECGs are those after the autoencoder.

  Raises:
    ValueError: the published protocol has no decoded ECGs to compare with.
  """
  if published_protocol and examples.decoded is None:
    raise ValueError("published_protocol needs examples.decoded, not None")
  real = examples.decoded if published_protocol else examples.real
  shuffled = examples.generated.get("shuffled_text")
  return Projections(
    space.texts(examples.conditions),
    report_keys(examples.conditions),
    space.ecgs(real)[:, None],
    space.samples(examples.twins),
    None if shuffled is None else space.samples(shuffled),
    examples.patients,
    "decoded real ECGs" if published_protocol else "real ECGs",
  )


def metrics(projections: Projections, *, seed: int = 0) -> list[Metric]:
  """CLIP score, rCLIP and retrieval of the report.

  A generator that ignores the report scores as its baseline does, and
  `clip_score_gain` contains 0.

  Args:
    projections: what `compute` returns.
    seed: seed that draws the candidates, and of the bootstrap.
  """
  texts, _, real, twins, shuffled, patients, what = projections
  alone = len(np.unique(patients)) < 2
  scores, real_scores = cosines(twins, texts), cosines(real, texts)
  ignorant, note = np.full(len(texts), np.nan), ""
  if shuffled is not None:
    ignorant, note = cosines(shuffled, texts), _SHUFFLED
  elif not alone:
    ignorant, note = stranger_cosines(twins, texts, patients), _STRANGERS
  real_ignorant = np.full(len(texts), np.nan)
  if not alone:
    real_ignorant = stranger_cosines(real, texts, patients)
  against = f"{note}; reference: {what}".removeprefix("; ")

  def mean(name, values, baseline, reference, note):
    return mean_metric(
      name,
      values,
      patients,
      _LEVEL,
      better="higher",
      baseline=baseline,
      reference=reference,
      note=note,
      seed=seed,
    )

  rows = [
    mean(
      "clip_score",
      scores,
      float(ignorant.mean()),
      float(real_scores.mean()),
      against,
    ),
    mean(
      "clip_score_real",
      real_scores,
      float(real_ignorant.mean()),
      NAN,
      f"{what}; {_STRANGERS}",
    ),
    _ratio(
      scores, real_scores, ignorant, patients, f"{note}; over {what}", seed
    ),
  ]
  if note:
    rows.append(
      mean(
        "clip_score_gain",
        scores - ignorant,
        0.0,
        float((real_scores - real_ignorant).mean()),
        f"clip_score less its baseline, row by row; {note}; reference: {what}, "
        "less those against the reports of other patients",
      )
    )
  return rows + _retrieval_metrics(projections, seed)


def cosines(
  samples: Float[np.ndarray, "n k d"], texts: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " n"]:
  """s_i = mean over the samples of cos(sample, text) of each row."""
  return _mean_products(samples, _normalized(texts))


def stranger_cosines(
  samples: Float[np.ndarray, "n k d"],
  texts: Float[np.ndarray, "n d"],
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


def _ratio(scores, real_scores, ignorant, patients, note, seed):
  real = real_scores.mean()
  if real <= 0:
    why = f"CLIP does not know the real ECGs' reports: their score is {real:.3}"
    return missing("rclip", _LEVEL, why, len(scores), better="higher")
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
    float(ignorant.mean() / real),
    1.0,
    "higher",
    len(scores),
    _LEVEL,
    f"{note}; reference: real ECGs, by definition",
  )


def _retrieval_metrics(projections, seed):
  texts, keys, real, twins, shuffled, patients, _ = projections
  candidates = min(CANDIDATES, len(set(keys)))
  if candidates <= max(TOPS):
    why = f"{candidates} different reports are too few to choose among"
    return [
      missing(f"report_top{top}{kind}", _LEVEL, why, len(keys), better="higher")
      for kind in ("", "_real")
      for top in TOPS
    ]
  chances = {top: top / candidates for top in TOPS}
  shares = {
    "": retrieve(twins, texts, keys, seed=seed),
    "_real": retrieve(real, texts, keys, seed=seed),
  }
  references = {
    top: float(share.mean()) for top, share in shares["_real"].items()
  }
  baselines, note = chances, "baseline: chance"
  if shuffled is not None:
    missed = retrieve(shuffled, texts, keys, seed=seed)
    baselines = {top: float(share.mean()) for top, share in missed.items()}
    note = f"{_SHUFFLED}; chance {1 / candidates:.3f} for the first"
  among = f"among {candidates} different reports"

  def mean(name, share, baseline, reference, note):
    return mean_metric(
      name,
      share,
      patients,
      _LEVEL,
      better="higher",
      baseline=baseline,
      reference=reference,
      note=f"{among}; {note}",
      seed=seed,
    )

  return [
    *(
      mean(
        f"report_top{top}",
        shares[""][top],
        baselines[top],
        references[top],
        f"{note}; reference: real ECGs",
      )
      for top in TOPS
    ),
    *(
      mean(
        f"report_top{top}_real",
        shares["_real"][top],
        chances[top],
        NAN,
        "baseline: chance",
      )
      for top in TOPS
    ),
  ]


def report_keys(conditions: Sequence[Condition]) -> list[tuple[str, ...]]:
  """Equal for reports of the same statements, whatever their order.

  A conclusion ("Abnormal ECG") follows from the statements before it: with it
  and without it a report is the same.
  """
  return [
    tuple(sorted(s for s in c.statements if not names_conclusion(s)))
    for c in conditions
  ]


def retrieve(
  samples: Float[np.ndarray, "n k d"],
  texts: Float[np.ndarray, "n d"],
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
    seed: seed that draws the candidates.

  Returns:
    {top: share of each row's samples that found its report}.
  """
  place = {key: row for row, key in reversed(list(enumerate(keys)))}
  order = {key: number for number, key in enumerate(place)}
  places = np.array([order[key] for key in keys])
  different = _normalized(texts[list(place.values())])
  count = min(candidates, len(different))
  rng = np.random.default_rng([seed, 3])
  shares = {top: np.zeros(len(keys)) for top in tops}
  for row, queries in enumerate(_normalized(samples)):
    # Of the others: all but its own, which is skipped over.
    others = rng.permutation(len(different) - 1)[: count - 1]
    others += others >= places[row]
    nearness = queries @ different[np.append(others, places[row])].T
    mine = nearness[:, -1:]
    better = (nearness[:, :-1] > mine + 1e-9).sum(axis=1)
    tied = 1 + (np.abs(nearness[:, :-1] - mine) <= 1e-9).sum(axis=1)
    for top in tops:
      shares[top][row] = np.clip((top - better) / tied, 0, 1).mean()
  return shares
