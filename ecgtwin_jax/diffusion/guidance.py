"""Classifier-free guidance, by the statements and by the person."""

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def check_strengths(
  statements: Any, person: Any, dropout: Mapping[str, float]
) -> None:
  """Refuses strengths of guidance that a denoiser cannot be sampled with.

  Args:
    statements: statement_guidance, a number.
    person: person_guidance, likewise.
    dropout: share of training examples that lost "statements" and "base".

  Raises:
    ValueError: a strength is no finite number, or is not 1 where training
      dropped nothing that guidance could compare with.
  """
  for name, dropped, value in (
    ("statement_guidance", "statements", statements),
    ("person_guidance", "base", person),
  ):
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
      raise ValueError(f"{name}={value!r} must be finite, a number")
    if value != 1 and not dropout.get(dropped):
      raise ValueError(
        f"{name}={value} must be 1: this twin was trained without dropping "
        f"{dropped} (config.dropout.{dropped}=0), so there is no prediction "
        "without them to compare with"
      )


def guided(
  network: Callable,
  condition: Any,
  *,
  without_statements: Any = None,
  without_person: Any = None,
  statement_guidance: float | Float[Array, "..."] = 1.0,
  person_guidance: float | Float[Array, "..."] = 1.0,
) -> Callable:
  """eps = full + (w_s - 1)(full - no statements) + (w_p - 1)(full - no person).

  The two or three predictions of a step come from one call of the network on
  stacked rows. A strength that is the number 1.0 adds no rows, so with both at
  1.0 this is plain sampling, bit for bit.

  Source: Ho & Salimans 2022 (classifier-free guidance), here for two conditions
  that training drops at rates of their own.

  Args:
    network: (x (n, l, c), t (n,), condition) -> noise (n, l, c), or
      (noise, tree of arrays with n in front), of which the full rows are kept.
    condition: Tree of arrays with n in front.
    without_statements: The same tree with the statements' null form.
    without_person: The same tree with the person's null form.
    statement_guidance: w_s, a number or an array, () or one per example.
    person_guidance: w_p, a number or an array, () or one per example.

  Returns:
    denoise(x, t) for `samplers.sample`.

  Raises:
    ValueError: If a strength other than 1.0 has no null form to compare with.
  """
  terms = []
  for name, weight, other in (
    ("statement_guidance", statement_guidance, without_statements),
    ("person_guidance", person_guidance, without_person),
  ):
    if isinstance(weight, (int, float)) and weight == 1.0:
      continue
    if other is None:
      raise ValueError(f"{name}={weight} needs the condition without it")
    terms.append((weight, other))
  if not terms:
    return lambda x, t: network(x, t, condition)
  rows = [condition, *(other for _, other in terms)]
  stacked = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *rows)

  def denoise(x, t):
    n = x.shape[0]
    out = network(
      jnp.concatenate([x] * len(rows)), jnp.tile(t, len(rows)), stacked
    )
    eps, *aux = out if isinstance(out, tuple) else (out,)
    full, *others = jnp.split(eps, len(rows))
    result = full
    for (weight, _), other in zip(terms, others, strict=True):
      weight = jnp.broadcast_to(jnp.asarray(weight), (n,))[:, None, None]
      result = result + (weight - 1) * (full - other)
    if not aux:
      return result
    return result, jax.tree.map(lambda a: a[:n], aux[0])

  return denoise
