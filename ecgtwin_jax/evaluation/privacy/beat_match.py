"""How much an ECG's beats repeat the beats of other recordings.

A recording that is stretched in time, or put together from pieces of several,
escapes a comparison of whole recordings; its beats do not. Each beat is held
against the median beats of other recordings at several stretches and shifts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.signal
from jaxtyping import Float, Int, Shaped

from ecgtwin_jax.constants import INDEPENDENT, MODEL_RATE
from ecgtwin_jax.data.heart_rate import detect_beats_by_energy

# Of time: a copy that was stretched by up to 7% is met within 1%.
STRETCHES = (0.94, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06)
_SHIFTS = (-0.005, 0.0, 0.005)  # s; beats are aligned already
_BEATS = 4  # of an ECG that are looked up, those most like its median
_UP = 4  # times MODEL_RATE, so that beats are cut between samples
_BEFORE, _AFTER, _STEP = 0.25, 0.42, 0.01  # s around the middle of QRS
_QRS = 0.08  # s on both sides of it, in which its middle lies


class Matches(NamedTuple):
  """What each query's beats are most like.

  Attributes:
    best: mean over its beats of the correlation with the most similar beat of
      the pool; nan where no beat was found.
    candidates: recordings of the pool with the most similar beats, best first.
  """

  best: Float[np.ndarray, " n"]
  candidates: Int[np.ndarray, "n k"]


def median_beats(
  signals: Float[np.ndarray, "m 1024 12"],
) -> Float[np.ndarray, "m d"]:
  """Each recording's median beat as a vector of length 1; 0 of none."""
  width = len(_grid()) * len(INDEPENDENT)
  vectors = np.zeros((len(signals), width), np.float32)
  for i, signal in enumerate(signals):
    x, middles = _find(signal)
    if len(middles):
      pieces = _cut(x, middles, _grid())
      vectors[i] = _unit(np.median(pieces, axis=0)[None])[0]
  return vectors


def match(
  queries: Sequence[Float[np.ndarray, "_ _ d"]],
  pool: Float[np.ndarray, "m d"],
  *,
  keep: int = 4,
  query_owners: Shaped[np.ndarray, " n"] | None = None,
  pool_owners: Shaped[np.ndarray, " m"] | None = None,
) -> Matches:
  """Looks each ECG's beats up in a pool, at every stretch and shift.

  Args:
    queries: of `beats_at_stretches`.
    pool: of `median_beats`.
    keep: candidates of each query.
    query_owners: whose the queries are; None: of nobody in the pool.
    pool_owners: whose the beats of the pool are: one's own are passed over.
  """
  keep = min(keep, len(pool))
  best = np.full(len(queries), np.nan)
  candidates = np.zeros((len(queries), keep), np.int64)
  for i, vectors in enumerate(queries):
    if not len(vectors):
      continue
    transforms, beats, width = vectors.shape
    alike = vectors.reshape(-1, width) @ pool.T
    alike = alike.reshape(transforms, beats, -1).max(axis=0)
    if query_owners is not None:
      alike[:, pool_owners == query_owners[i]] = -np.inf
    value = alike.max(axis=1).mean()
    best[i] = value if np.isfinite(value) else np.nan
    nearest = alike.max(axis=0)
    candidates[i] = np.argsort(-nearest, kind="stable")[:keep]
  return Matches(best, candidates)


def beats_at_stretches(
  signals: Float[np.ndarray, "n 1024 12"],
) -> list[Float[np.ndarray, "_ _ _"]]:
  """Of each ECG up to four usual beats at every stretch and shift.

  Returns:
    (transforms, beats, d) vectors of length 1 per ECG; empty where no beat is
    found.
  """
  transforms = np.array(
    [stretch * _grid() + shift for stretch in STRETCHES for shift in _SHIFTS]
  )
  found = []
  for signal in signals:
    x, middles = _find(signal)
    middles = _most_typical(x, middles)
    pieces = _cut(x, middles, transforms.ravel())
    pieces = pieces.reshape(len(middles), *transforms.shape, x.shape[1])
    vectors = _unit(pieces.swapaxes(0, 1).reshape(-1, *pieces.shape[2:]))
    transformed = len(transforms) if len(middles) else 0
    found.append(vectors.reshape(transformed, len(middles), vectors.shape[1]))
  return found


def _grid():
  return np.arange(-_BEFORE, _AFTER, _STEP)


def _find(signal):
  """The signal at 4 times its rate without drift, and its QRS middles in s."""
  beats = detect_beats_by_energy(signal, MODEL_RATE) / MODEL_RATE
  rate = _UP * MODEL_RATE
  x = np.asarray(signal, np.float64)[:, INDEPENDENT]
  x = scipy.signal.resample(x, _UP * len(x))
  slopes = (np.gradient(x, axis=0) ** 2).sum(axis=1)
  around = np.arange(-_QRS, _QRS, 1 / rate)
  for _ in range(3):
    inside = np.rint((beats[:, None] + around) * rate).astype(int)
    power = slopes[np.clip(inside, 0, len(x) - 1)]
    beats = beats + (power * around).sum(1) / (power.sum(1) + 1e-12)
  reach = max(STRETCHES)
  seconds = len(x) / rate
  whole = (beats > reach * _BEFORE + 0.01) & (
    beats < seconds - reach * _AFTER - 0.01
  )
  return x, beats[whole]


def _cut(x, middles, grid):
  """(b, g, leads) of x around the middles, between samples."""
  place = (middles[:, None] + grid) * _UP * MODEL_RATE
  left = np.floor(place).astype(int)
  part = (place - left)[..., None]
  return (1 - part) * x[left] + part * x[left + 1]


def _most_typical(x, middles):
  if len(middles) <= _BEATS:
    return middles
  pieces = _cut(x, middles, _grid())
  vectors, median = _unit(pieces), _unit(np.median(pieces, axis=0)[None])
  order = np.argsort(-(vectors @ median[0]), kind="stable")
  return middles[np.sort(order[:_BEATS])]


def _unit(pieces):
  """(b, g, leads) as (b, d) vectors, each lead about its mean."""
  flat = pieces - pieces.mean(axis=1, keepdims=True)
  flat = flat.reshape(len(flat), flat.shape[1] * flat.shape[2])
  flat = flat.astype(np.float32)
  norm = np.linalg.norm(flat, axis=1, keepdims=True)
  return flat / np.maximum(norm, 1e-9)
