"""How much one recording repeats another: correlation at the best shift.

The correlation of two recordings is that of all their leads together between
0.5 and 25.5 Hz, at the circular shift in time that makes it largest. A copy
has 1, whatever its gain, start, drift and offset. Two regular rhythms of one
rate come close, too, so it means something only beside what unseen recordings
of other people have.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from ecgtwin_jax.inference.sampling import chunks

# Bins of 0.1 Hz: slower is drift, faster is little of an ECG's energy.
_BAND = (5, 256)
ROWS, COLUMNS = 16, 64  # of a block of pairs: 4 MB, which caches hold


@jax.jit
def spectra(
  signals: Float[Array, "n t leads"],
) -> Complex[Array, "f n leads"]:
  """The band's Fourier coefficients, scaled so that a copy correlates by 1."""
  f = jnp.fft.rfft(signals, axis=1)[:, _BAND[0] : _BAND[1]]
  power = jnp.sum(jnp.square(jnp.abs(f)), axis=(1, 2), keepdims=True)
  return jnp.moveaxis(f * jax.lax.rsqrt(jnp.maximum(power, 1e-12)), 1, 0)


def _over_shifts(cross, length):
  """Correlation at every circular shift, from the cross spectrum (..., f)."""
  low, high = _BAND
  edges = [(0, 0)] * (cross.ndim - 1) + [(low, length // 2 + 1 - high)]
  return jnp.fft.irfft(jnp.pad(cross, edges), n=length) * (length / 2)


@functools.partial(jax.jit, static_argnums=2)
def _block(queries, pool, length):
  """Best correlation of every query to every recording, and its shift."""
  cross = jnp.einsum("fnl,fml->nmf", queries, jnp.conj(pool))
  return _over_shifts(cross, length).max(axis=-1)


def nearest(
  queries: Float[np.ndarray, "n t leads"],
  pool: Float[np.ndarray, "m t leads"],
  *,
  rows: int = ROWS,
  columns: int = COLUMNS,
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
  """Finds the most similar recording of a pool for every query.

  Args:
    queries: recordings of 10 s, in any unit.
    pool: recordings to search, any number; they are read in blocks.
    rows: queries in a block of pairs.
    columns: recordings of the pool in it.

  Returns:
    The correlations, and the recordings' numbers in the pool.

  Raises:
    ValueError: the pool is empty.
  """
  if not len(pool):
    raise ValueError("the pool of recordings must not be empty")
  length = queries.shape[1]
  best = np.full(len(queries), -np.inf)
  where = np.zeros(len(queries), np.int64)
  pieces = [
    (place, spectra(jnp.asarray(queries[place], jnp.float32)))
    for place in chunks(len(queries), rows, fill=True)
  ]
  for number in chunks(len(pool), columns, fill=True):
    recordings = spectra(jnp.asarray(pool[number], jnp.float32))
    for place, queries in pieces:
      values = np.asarray(_block(queries, recordings, length))
      nearest_one = values.argmax(axis=1)
      values = values[np.arange(len(values)), nearest_one]
      better = values > best[place]
      best[place[better]] = values[better]
      where[place[better]] = number[nearest_one[better]]
  return best, where


@jax.jit
def _paired(a, b):
  cross = jnp.einsum("fnl,fnl->nf", spectra(a), jnp.conj(spectra(b)))
  shifted = _over_shifts(cross, a.shape[1])
  return shifted.max(axis=-1), shifted.argmax(axis=-1)


def paired(
  a: Float[np.ndarray, "n t leads"], b: Float[np.ndarray, "n t leads"]
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
  """Correlations of a[i] and b[i], and the samples to roll b[i] by for them."""
  values, shifts = [], []
  for place in chunks(len(a), ROWS, fill=True):
    value, shift = _paired(
      jnp.asarray(a[place], jnp.float32), jnp.asarray(b[place], jnp.float32)
    )
    values.append(np.asarray(value, np.float64))
    shifts.append(np.asarray(shift))
  return (
    np.concatenate(values)[: len(a)],
    np.concatenate(shifts)[: len(a)],
  )
