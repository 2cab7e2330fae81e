"""Is it this patient? Generated ECGs looked up in a gallery of real ones.

The evaluator is an identity encoder that was trained apart from the generator,
on other patients, so that it cannot agree with the generator by construction.
The gallery holds one real reference of each unseen patient; a probe is an ECG
under another condition. Real second recordings are the ceiling of any twin,
decoded ones that of a twin with this autoencoder.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import (
  NAN,
  Metric,
  bootstrap_interval,
  mean_metric,
  mean_of,
  missing,
)
from ecgtwin_jax.inference import sampling, twin_directory
from ecgtwin_jax.models.identity import IdentityEncoder
from ecgtwin_jax.ranking import crossing, equal_error_rate, found_within
from ecgtwin_jax.training import checkpoint

SHIPPED = twin_directory.shipped("simulated-evaluators")
GALLERY = 100  # patients; retrieval among more is harder
CEILING = "real_second"
DECODED = "real_second_decoded"  # the same after the autoencoder
MEAN = "mean_of_samples"  # of the embeddings of a request's samples
_AGAINST_SHUFFLED = ("twin", MEAN, "shuffled_text", CEILING, DECODED)
_FALSE = {"far1": 0.01, "far01": 0.001}  # shares of strangers that are accepted
_FEW = 10  # probes of a kind of change
_CHUNK = 64
_LEVELS = 301  # of similarity, where error rates are counted
_LEVEL = "person"


@functools.partial(jax.jit, static_argnums=0)
def _apply(module, variables, signal):
  return module.apply(variables, signal)


class Identity:
  """An identity encoder with its weights.

  Args:
    path: a run, a checkpoint or a bundle that holds one; None: the shipped
      one, trained on simulated patients.

  Attributes:
    digest: identifies the weights.
  """

  def __init__(self, path: str | os.PathLike | None = None):
    hyper, weights = checkpoint.load_weights(path or SHIPPED, "identity")
    self._module = IdentityEncoder(**hyper["model"])
    self._variables = {"params": weights["params"], **weights["model_state"]}
    self.digest = twin_directory.digest(weights)

  def embed(
    self, signals: Float[np.ndarray, "n 1024 12"]
  ) -> Float[np.ndarray, "n d"]:
    """Embeds ECGs in mV as vectors of unit length."""
    parts = [np.zeros((0, self._module.width), np.float32)]
    for rows in sampling.chunks(len(signals), _CHUNK, fill=True):
      signal = jnp.asarray(signals[rows], jnp.float32)
      parts.append(np.asarray(_apply(self._module, self._variables, signal)))
    return np.concatenate(parts)[: len(signals)]


class Lookup(NamedTuple):
  """The probes of one set against the gallery.

  Attributes:
    similarity: cosine of each probe to each patient's reference.
    target: column of the patient that a probe is to be.
  """

  similarity: Float[np.ndarray, "probes p"]
  target: Int[np.ndarray, " probes"]


def compute(
  examples: Examples, embed: Callable[[Any], Any]
) -> dict[str, Lookup]:
  """Compares the probes of every set with the gallery.

  The gallery holds each patient's first reference. Real second recordings that
  happen to be in the gallery are no probes.

  Args:
    examples: ECGs of unseen patients.
    embed: method of an identity encoder, such as Identity().embed: maps
      (n, 1024, 12) mV to (n, d).

  Returns:
    {arm, "mean_of_samples", "real_second" or "real_second_decoded": Lookup};
    the mean where there are several samples, the last where the real ECGs went
    through the autoencoder, too.
  """
  _, first, target = np.unique(
    examples.patients, return_index=True, return_inverse=True
  )
  gallery = _unit(embed(examples.references[first]))
  second = _second(examples)
  lookups = {}
  for variant, signals in examples.generated.items():
    n, k = signals.shape[:2]
    probes = _unit(embed(signals.reshape(n * k, *signals.shape[2:])))
    lookups[variant] = Lookup(probes @ gallery.T, np.repeat(target, k))
    if variant == "twin" and k > 1:
      mean = _unit(probes.reshape(n, k, -1).mean(axis=1))
      lookups[MEAN] = Lookup(mean @ gallery.T, target)
  real = {CEILING: examples.real}
  if examples.decoded is not None:
    real[DECODED] = examples.decoded
  for name, signals in real.items():
    probes = _unit(embed(signals[second]))
    lookups[name] = Lookup(probes @ gallery.T, target[second])
  return lookups


def _second(examples):
  """Rows whose real recording is not in the gallery."""
  _, first = np.unique(examples.patients, return_index=True)
  listed = {examples.reference_ids[i] for i in first}
  return [i for i, name in enumerate(examples.real_ids) if name not in listed]


def by_change(
  examples: Examples, lookups: dict[str, Lookup], *, seed: int = 0
) -> list[Metric]:
  """Top-1 retrieval by what the condition changes: rate, statements, or both.

  A rate changes where it is more than 10 bpm away. Real second recordings of
  the same rows are the reference.

  Args:
    examples: of `compute`.
    lookups: of `compute`.
    seed: of the bootstrap.
  """
  kinds = []
  for before, now in zip(
    examples.reference_conditions, examples.conditions, strict=True
  ):
    statements = set(before.statements) != set(now.statements)
    rate = abs(before.heart_rate - now.heart_rate) > 10
    kinds.append(("none", "rate", "statements", "both")[2 * statements + rate])
  kinds = np.array(kinds)
  samples = len(lookups["twin"].target) // len(kinds)
  sets = {
    "twin": np.repeat(kinds, samples),
    CEILING: kinds[_second(examples)],
  }
  hits = {name: found_within(*lookups[name], 1) for name in sets}
  rows = []
  for kind in ("rate", "statements", "both"):
    ours, real = (sets[name] == kind for name in sets)
    name, n = f"identity_top1_share_change_{kind}", int(ours.sum())
    if n < _FEW:
      why = f"{n} probes: fewer than {_FEW}"
      rows.append(missing(name, _LEVEL, why, n, better="higher"))
      continue
    real = hits[CEILING][real]
    rows.append(
      mean_metric(
        name,
        hits["twin"][ours],
        lookups["twin"].target[ours],
        _LEVEL,
        better="higher",
        baseline=1 / lookups["twin"].similarity.shape[1],
        reference=mean_of(real),
        note="gallery of all patients; baseline: chance; reference: real "
        "second recordings",
        seed=seed,
      )
    )
  return rows


def _unit(z):
  z = np.asarray(z, np.float64)
  return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)


def metrics(
  lookups: dict[str, Lookup], *, gallery: int = GALLERY, seed: int = 0
) -> list[Metric]:
  """Top-1 and top-5 retrieval and equal error rate of every set of probes.

  The baseline is the twin given another patient's reference, or where that was
  not generated chance; the reference is real second recordings.

  Args:
    lookups: what `compute` returns.
    gallery: patients in it, drawn at random; the expected share is exact, and
      error rates take every pair of probe and patient.
    seed: seed of the bootstrap over patients; the gallery stays.
  """
  patients = lookups["twin"].similarity.shape[1]
  if patients < 2:
    why, n = "a gallery needs two patients", len(lookups["twin"].target)
    return [missing("identity_top1_share", _LEVEL, why, n, better="higher")]
  gallery = min(gallery, patients)
  sets = {
    name: _measure_set(name, lookup, gallery, patients, seed)
    for name, lookup in lookups.items()
  }
  shuffled, real = sets.get("shuffled_reference"), sets[CEILING]
  for name, rows in sets.items():
    if shuffled is not None and name in _AGAINST_SHUFFLED:
      rows = [
        row._replace(
          baseline=other.value,
          note=f"{row.note}; baseline: reference of another patient",
        )
        for row, other in zip(rows, shuffled, strict=True)
      ]
    if name != CEILING:
      rows = [
        row._replace(
          reference=other.value,
          note=f"{row.note}; reference: real second recordings",
        )
        if np.isfinite(row.value)
        else row
        for row, other in zip(rows, real, strict=True)
      ]
    sets[name] = rows
  return [row for rows in sets.values() for row in rows]


def _measure_set(name, lookup, gallery, patients, seed):
  """Metrics of one set of probes; the baseline is chance."""
  suffix = "" if name == "twin" else f"_{name}"
  count = len(lookup.target)
  if not count:
    why = "no probes"
    return [
      missing(f"identity_top1_share{suffix}", _LEVEL, why, better="higher"),
      missing(f"identity_top5_share{suffix}", _LEVEL, why, better="higher"),
      missing(f"identity_equal_error_rate{suffix}", _LEVEL, why),
      *(
        missing(
          f"identity_tar_{far}_share{suffix}", _LEVEL, why, better="higher"
        )
        for far in _FALSE
      ),
    ]
  metrics = []
  for k in (1, 5):
    title = f"identity_top{k}_share{suffix}"
    if gallery <= k:
      why = f"a gallery of {gallery} patients"
      metrics.append(missing(title, _LEVEL, why, count, better="higher"))
      continue
    hits = found_within(lookup.similarity, lookup.target, k, gallery)
    low, high = bootstrap_interval(
      lambda rows, hits=hits: hits[rows].mean(), lookup.target, seed=seed
    )
    note = f"gallery of {gallery} of {patients} patients"
    note += f", chance {k / gallery:.3g}"
    metrics.append(
      Metric(
        title,
        float(hits.mean()),
        low,
        high,
        k / gallery,
        NAN,
        "higher",
        count,
        _LEVEL,
        note,
      )
    )
  value, (low, high) = error_rate(lookup, seed)
  title = f"identity_equal_error_rate{suffix}"
  note = f"{count} probes, each to {patients} patients, chance 0.5"
  metrics.append(
    Metric(title, value, low, high, 0.5, NAN, "lower", count, _LEVEL, note)
  )
  return [
    *metrics,
    *(
      measure_acceptance(
        f"identity_tar_{far}_share{suffix}", lookup, rate, seed
      )
      for far, rate in _FALSE.items()
    ),
  ]


def measure_acceptance(name: Any, lookup: Any, rate: Any, seed: Any) -> Any:
  """Share of own patients accepted where this share of strangers is."""
  similarity, own = lookup
  itself = np.arange(similarity.shape[1]) == own[:, None]
  impostor = similarity[~itself]
  if len(impostor) * rate < 1:
    why = f"{len(impostor)} pairs of strangers"
    return missing(name, _LEVEL, why, len(own), better="higher")
  accepted = similarity[itself] > np.quantile(impostor, 1 - rate)
  return mean_metric(
    name,
    accepted.astype(float),
    own,
    _LEVEL,
    better="higher",
    baseline=rate,
    note=f"own patient accepted where {rate:.1%} of strangers are",
    seed=seed,
  )


def error_rate(lookup: Lookup, seed: int) -> tuple[float, tuple[float, float]]:
  """The equal error rate, and its interval from counts per level."""
  similarity, target = lookup
  itself = np.arange(similarity.shape[1]) == target[:, None]
  genuine, impostor = similarity[itself], similarity[~itself]
  levels = np.linspace(0, 1, _LEVELS)
  edges = np.unique(
    np.concatenate([np.quantile(s, levels) for s in (genuine, impostor)])
  )
  place = np.searchsorted(edges, similarity, side="right") - 1
  place = np.clip(place, 0, len(edges) - 1)

  def count_levels(chosen):
    """Of each probe, how many of its scores lie in each level."""
    counts = np.zeros((len(target), len(edges) + 1))
    rows, columns = np.nonzero(chosen)
    np.add.at(counts, (rows, place[rows, columns] + 1), 1)
    return counts.cumsum(axis=1)

  below = count_levels(itself), count_levels(~itself)

  def statistic(rows):
    refused, declined = (counts[rows].sum(axis=0) for counts in below)
    accepted = 1 - declined / declined[-1]
    return crossing(refused / refused[-1], accepted)

  interval = bootstrap_interval(statistic, target, seed=seed)
  return equal_error_rate(genuine, impostor), interval


def draw(lookups: dict[str, Lookup]) -> Any:
  """Draws the share of probes found among the k most similar, for every set.

  Args:
    lookups: what `compute` returns.

  Returns:
    A matplotlib Figure.
  """
  from matplotlib.figure import Figure

  patients = lookups["twin"].similarity.shape[1]
  ranks = np.arange(1, min(20, patients) + 1)
  figure = Figure(figsize=(6.4, 4.2), layout="constrained")
  axes = figure.add_subplot()
  for name, lookup in lookups.items():
    if not len(lookup.target) or name == MEAN:
      continue
    shares = [found_within(*lookup, int(k)).mean() for k in ranks]
    axes.plot(ranks, shares, marker=".", label=name.replace("_", " "))
  axes.plot(ranks, ranks / patients, color="0.6", ls=":", label="chance")
  axes.set_xticks(ranks[::2] if len(ranks) > 10 else ranks)
  axes.set_ylim(0, 1.02)
  axes.set_xlabel(f"among the k most similar of {patients} patients")
  axes.set_ylabel("share of ECGs found")
  axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
  return figure
