"""How much one recording repeats another: correlation at the best shift.

The correlation of two recordings is that of all their leads together between
0.5 and 25.5 Hz, at the circular shift in time that makes it largest. A copy
has 1, whatever its gain, start, drift and offset. Two regular rhythms of one
rate come close, too, and a periodic ECG close to everything of its rate, so it
means something only beside the nearest recording that was not trained on.
"""

import numpy as np
import scipy.fft
from jaxtyping import Complex, Float, Int, Shaped

# Bins of 0.1 Hz: slower is drift, faster is little of an ECG's energy.
_BAND = (5, 256)
# Of time: a copy stretched by up to 6% is met within 0.25%, 25 ms in 10 s.
STRETCHES = tuple(np.arange(0.94, 1.0601, 0.005))
ROWS, COLUMNS = 16, 64  # of a block of pairs: 4 MB, which caches hold


def spectra(
  signals: Float[np.ndarray, "n t leads"],
) -> Complex[np.ndarray, "f n leads"]:
  """The band's Fourier coefficients, scaled so that a copy correlates by 1."""
  x = np.asarray(signals, np.float32)
  f = scipy.fft.rfft(x, axis=1)[:, _BAND[0] : _BAND[1]]
  power = (np.abs(f) ** 2).sum(axis=(1, 2), keepdims=True)
  return np.moveaxis(f / np.sqrt(np.maximum(power, 1e-12)), 1, 0)


def _over_shifts(cross, length):
  """Correlation at every circular shift, from the cross spectrum (..., f)."""
  padded = np.zeros((*cross.shape[:-1], length // 2 + 1), np.complex64)
  padded[..., slice(*_BAND)] = cross
  return scipy.fft.irfft(padded, length, overwrite_x=True) * (length / 2)


def _blocks(n, size):
  return [np.arange(s, min(s + size, n)) for s in range(0, n, size)]


def nearest(
  queries: Float[np.ndarray, "n t leads"],
  pool: Float[np.ndarray, "m t leads"],
  *,
  rows: int = ROWS,
  columns: int = COLUMNS,
  query_owners: Shaped[np.ndarray, " n"] | None = None,
  pool_owners: Shaped[np.ndarray, " m"] | None = None,
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
  """Finds the most similar recording of a pool for every query.

  Args:
    queries: recordings of 10 s, in any unit.
    pool: recordings to search, any number; they are read in blocks.
    rows: queries in a block of pairs.
    columns: recordings of the pool in it.
    query_owners: whose the queries are; None: of nobody in the pool.
    pool_owners: whose the pool's recordings are: one's own are passed over.

  Returns:
    The correlations, and the recordings' numbers in the pool; -inf where the
    pool holds nothing but one's own.

  Raises:
    ValueError: the pool is empty.
  """
  if not len(pool):
    raise ValueError("the pool of recordings must not be empty")
  length = queries.shape[1]
  best = np.full(len(queries), -np.inf)
  where = np.zeros(len(queries), np.int64)
  pieces = [
    (place, spectra(queries[place])) for place in _blocks(len(queries), rows)
  ]
  for number in _blocks(len(pool), columns):
    recordings = np.conj(spectra(pool[number])).transpose(0, 2, 1)
    for place, asked in pieces:
      cross = (asked @ recordings).transpose(1, 2, 0)
      values = _over_shifts(cross, length).max(axis=-1)
      if query_owners is not None:
        own = query_owners[place][:, None] == pool_owners[number]
        values = np.where(own, -np.inf, values)
      nearest_one = values.argmax(axis=1)
      values = values[np.arange(len(values)), nearest_one]
      better = values > best[place]
      best[place[better]] = values[better]
      where[place[better]] = number[nearest_one[better]]
  return best, where


def paired(
  a: Float[np.ndarray, "n t leads"], b: Float[np.ndarray, "n t leads"]
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
  """Correlations of a[i] and b[i], and the samples to roll b[i] by for them."""
  values, shifts = [], []
  for place in _blocks(len(a), ROWS):
    fits = _paired(a[place], b[place])
    values.append(fits.max(axis=-1).astype(np.float64))
    shifts.append(fits.argmax(axis=-1))
  return np.concatenate(values), np.concatenate(shifts)


def _paired(a, b):
  """(n, t) correlation of each pair at every shift."""
  cross = np.einsum("fnl,fnl->nf", spectra(a), np.conj(spectra(b)))
  return _over_shifts(cross, a.shape[1])


def nearest_stretched(
  queries: Float[np.ndarray, "n t leads"],
  pool: Float[np.ndarray, "m t leads"],
  candidates: Int[np.ndarray, "n k"],
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
  """As `nearest`, of each query's candidates alone, at the best stretch of it.

  Args:
    queries: are stretched; what lies beyond their end repeats it.
    pool: where the candidates lie.
    candidates: numbers in the pool.
  """
  best = np.full(len(queries), -np.inf)
  where = candidates[:, 0].copy()
  for place in _blocks(len(queries), ROWS):
    asked = [spectra(stretch_time(queries[place], s)) for s in STRETCHES]
    for column in candidates[place].T:
      found = np.conj(spectra(pool[column]))
      for stretched in asked:
        cross = np.einsum("fnl,fnl->nf", stretched, found)
        values = _over_shifts(cross, queries.shape[1]).max(axis=-1)
        better = values > best[place]
        best[place[better]] = values[better]
        where[place[better]] = column[better]
  return best, where


def stretch_time(
  signals: Float[np.ndarray, "n t leads"], factor: float
) -> Float[np.ndarray, "n t leads"]:
  """y(t) = x(factor t), linear between samples; the end repeats the last."""
  length = signals.shape[1]
  place = np.minimum(np.arange(length) * factor, length - 1)
  left = np.minimum(place.astype(int), length - 2)
  part = (place - left).astype(np.float32)[:, None]
  return (1 - part) * signals[:, left] + part * signals[:, left + 1]


def fit_as_it_stands(
  a: Float[np.ndarray, "n t leads"], b: Float[np.ndarray, "n t leads"]
) -> Float[np.ndarray, " n"]:
  """Share of circular shifts at which a[i] fits b[i] no worse than unshifted.

  Of recordings whose beats fall independently it is uniform on 0..1; of a copy
  it is 1/t.
  """
  shares = []
  for place in _blocks(len(a), ROWS):
    fits = _paired(a[place], b[place])
    shares.append((fits >= fits[:, :1]).mean(axis=1))
  return np.concatenate(shares)
