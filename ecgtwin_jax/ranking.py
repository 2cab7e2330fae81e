"""Finding a person by similarity: ranks in a gallery, equal error rate."""

import numpy as np
from jaxtyping import Float, Int
from scipy import stats


def found_within(
  similarity: Float[np.ndarray, "n p"],
  target: Int[np.ndarray, " n"],
  k: int,
  gallery: int | None = None,
) -> Float[np.ndarray, " n"]:
  """Probability of each probe that its own patient is among the k most similar.

  The gallery holds the own patient and others drawn at random from the p - 1,
  which is hypergeometric; so sets of different size can be compared. Equal
  similarities are in random order: an encoder to which all are alike finds a
  patient by chance.

  Args:
    similarity: similarity of each probe to each patient.
    target: column of each probe's patient.
    k: 1 for the most similar alone.
    gallery: patients in it; None: all p.

  Raises:
    ValueError: the gallery holds fewer than k or more than p patients.
  """
  patients = similarity.shape[1]
  gallery = patients if gallery is None else gallery
  if not k <= gallery <= patients:
    raise ValueError(f"{gallery=} must be in {k=}..{patients=}")
  mine = np.take_along_axis(similarity, target[:, None], axis=1)
  better = (similarity > mine).sum(axis=1)
  equal = (similarity == mine).sum(axis=1) - 1
  # chance[g]: fewer than k of g better ones are among gallery - 1 of p - 1.
  chance = stats.hypergeom.cdf(
    k - 1, patients - 1, np.arange(patients), gallery - 1
  )
  total = np.concatenate([[0.0], np.cumsum(chance)])
  return (total[better + equal + 1] - total[better]) / (equal + 1)


def equal_error_rate(
  genuine: Float[np.ndarray, " n"], impostor: Float[np.ndarray, " m"]
) -> float:
  """The rate at which as many patients are refused as strangers are accepted.

  A pair is accepted at a threshold t where its similarity is >= t; between
  thresholds both rates are interpolated.

  Args:
    genuine: similarities of pairs of one patient.
    impostor: similarities of pairs of two patients.

  Raises:
    ValueError: there are none, or some are not finite.
  """
  from sklearn.metrics import roc_curve

  for name, scores in (("genuine", genuine), ("impostor", impostor)):
    if not len(scores) or not np.isfinite(scores).all():
      raise ValueError(f"{len(scores)} {name} scores must be some, and finite")
  same = np.repeat([1, 0], [len(genuine), len(impostor)])
  similarity = np.concatenate([genuine, impostor])
  accepted, recalled, _ = roc_curve(same, similarity, drop_intermediate=False)
  # From the lowest threshold, at which everyone is accepted, to the highest.
  return crossing(1 - recalled[::-1], accepted[::-1])


def crossing(
  refused: Float[np.ndarray, " levels"], accepted: Float[np.ndarray, " levels"]
) -> float:
  """Where a rising and a falling curve meet, from (0, 1) to (1, 0)."""
  gap = refused - accepted
  after = int(np.argmax(gap >= 0))
  if after == 0:
    return float(refused[0] + accepted[0]) / 2
  before = after - 1
  share = -gap[before] / (gap[after] - gap[before])
  return float(refused[before] + share * (refused[after] - refused[before]))
