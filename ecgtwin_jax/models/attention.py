"""Attention over positions, on a CPU a few rows at a time.

The maps of a batch are far larger than a CPU's caches: whole, they are written
to memory and read again by each step of a softmax and of its gradient.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

Array = jax.Array | np.ndarray
# Bytes of maps that stay in the caches of a few cores.
_GROUP_BYTES = 2**21


def attend(
  query: Float[Array, "b l h d"],
  key: Float[Array, "b s h d"],
  value: Float[Array, "b s h d"],
  mask: Bool[Array, "b s"] | None = None,
) -> Float[jax.Array, "b l h d"]:
  """Computes softmax(q k / sqrt(d)) v as `jax.nn.dot_product_attention`.

  On a CPU float32 attention without a mask goes by groups of rows, if they are
  at least two, and computes a group's maps again for its gradient. Results are
  the same to rounding.

  Args:
    mask: True for keys that count; None: all do.
  """
  keys = None if mask is None else mask[:, None, None, :]

  def plain(query, key, value):
    return jax.nn.dot_product_attention(query, key, value, mask=keys)

  count = _count_groups(query, key)
  if mask is not None or count < 2:
    return plain(query, key, value)

  def grouped(query, key, value):
    return _by_groups(count, query, key, value)

  return jax.lax.platform_dependent(
    query, key, value, cpu=grouped, default=plain
  )


def _count_groups(query, key):
  """Number of groups of equal size; 1 for other types and unknown numbers."""
  b, l, h, _ = query.shape
  s = key.shape[1]
  known = all(isinstance(x, int) for x in (b, l, s))
  if not known or query.dtype != jnp.float32:
    return 1
  # Each device has a share of every group's rows.
  rows = max(1, _GROUP_BYTES // (4 * h * l * s)) * jax.device_count()
  return b // rows if b % rows == 0 else 1


def _by_groups(count, query, key, value):
  b, _, h, d = query.shape
  rows = b // count

  def split(a):  # (b, l, h, d) to (count, rows * h, l, d)
    # Rows of a group lie far apart: split over devices, a group is, too.
    a = a.reshape(rows, count, *a.shape[1:]).transpose(1, 0, 3, 2, 4)
    return a.reshape(count, rows * h, *a.shape[3:])

  def join(a, of=(1, 0, 3, 2, 4)):  # the way back
    a = a.reshape(count, rows, h, *a.shape[2:]).transpose(*of)
    return a.reshape(b, *a.shape[2:])

  def forward(given):
    query, key, value = given
    logits = jnp.einsum("nld,nsd->nls", query, key)
    top = logits.max(axis=-1, keepdims=True)
    weights = jnp.exp(logits - top)
    total = weights.sum(axis=-1, keepdims=True)
    out = jnp.einsum("nls,nsd->nld", weights, value) / total
    return out, (top + jnp.log(total))[..., 0]

  def backward(given):
    # Products whose first operand would lie transposed in memory are slow, so
    # maps are (s, l) and the query's gradient is made as (d, l).
    query, key, value, gradient, norm, inner = given
    maps = jnp.einsum("nsd,nld->nsl", key, query)
    maps = jnp.exp(maps - norm[:, None])
    of_value = jnp.einsum("nsl,nld->nsd", maps, gradient)
    change = jnp.einsum("nsd,nld->nsl", value, gradient)
    change = maps * (change - inner[:, None])
    of_query = jnp.einsum("nsd,nsl->ndl", key, change)
    return of_query, jnp.einsum("nsl,nld->nsd", change, query), of_value

  @jax.custom_vjp
  def run(query, key, value):
    return keep(query, key, value)[0]

  def keep(query, key, value):
    given = tuple(split(a) for a in (query * d**-0.5, key, value))
    out, norm = jax.lax.map(forward, given)
    out = join(out)
    return out, (given, out, norm)

  def pull(kept, gradient):
    given, out, norm = kept
    inner = split((gradient * out).sum(axis=-1, keepdims=True))[..., 0]
    of_query, of_key, of_value = jax.lax.map(
      backward, (*given, split(gradient), norm, inner)
    )
    of_query = join(of_query, (1, 0, 4, 2, 3)) * d**-0.5
    return of_query, join(of_key), join(of_value)

  run.defvjp(keep, pull)
  return run(query, key, value)
