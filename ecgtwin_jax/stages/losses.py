"""What stages share: losses per example, and means of what batches sum up."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

_EXCLUDED = -1e9


def contrastive_losses(
  logits: Float[Array, "b b"], same: Bool[Array, "b b"] | None = None
) -> Float[Array, " b"]:
  """Symmetric InfoNCE: (-log softmax_row - log softmax_column of [i, i]) / 2.

  Args:
    logits: temperature times similarity.
    same: pairs that are no negatives of each other; the diagonal is ignored.

  Source: Radford et al. 2021 (CLIP), figure 3.
  """
  diagonal = jnp.arange(logits.shape[0])
  if same is not None:
    same = same & (diagonal[:, None] != diagonal[None, :])
    logits = jnp.where(same, _EXCLUDED, logits)
  cross_entropy = optax.softmax_cross_entropy_with_integer_labels
  both = cross_entropy(logits, diagonal) + cross_entropy(logits.T, diagonal)
  return both / 2


def supervised_contrastive_losses(
  z: Float[Array, "n d"], patients: Int[Array, " n"], temperature: float
) -> Float[Array, " n"]:
  """-mean over positives p of log softmax(z z' / T without the diagonal)[p].

  Args:
    z: embeddings of unit length.
    patients: equal numbers are positives of each other; a row without any
      costs nothing.
    temperature: T.

  Source: Khosla et al. 2020 (SupCon), equation 2.
  """
  itself = jnp.eye(len(z), dtype=bool)
  logits = jnp.where(itself, _EXCLUDED, z @ z.T / temperature)
  positive = (patients[:, None] == patients[None, :]) & ~itself
  total = jnp.where(positive, jax.nn.log_softmax(logits), 0).sum(axis=1)
  return -total / jnp.maximum(positive.sum(axis=1), 1)


def correlation(
  a: Float[Array, "b n k"], b: Float[Array, "b n k"]
) -> Float[Array, "b k"]:
  """Pearson's r over time, per example and lead; 0 for a flat lead."""
  a = a - a.mean(axis=1, keepdims=True)
  b = b - b.mean(axis=1, keepdims=True)
  norm = jnp.sqrt(jnp.sum(a * a, axis=1) * jnp.sum(b * b, axis=1))
  return jnp.sum(a * b, axis=1) / jnp.maximum(norm, 1e-12)


def mean_of_sums(totals: list[dict], count: str) -> dict:
  """Turns sums per batch into means; `score` is the mean loss.

  Without a single example there is only the count: nothing can be estimated.
  """
  if not totals:
    return {count: 0}
  totals = jax.tree.map(lambda *x: float(np.sum(x)), *jax.device_get(totals))
  n = totals.pop(count)
  means = {name: value / n for name, value in totals.items()}
  return {**means, count: n, "score": means["loss"]}
