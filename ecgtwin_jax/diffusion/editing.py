"""Editing: one latent sampled twice, with the source's attention in the edit.

Source and edit start from the same noise and get the same noise at each step.
While t >= threshold both follow the source; below it the edit runs with its own
condition, and in every block and head its attention over the statements is made
by one of three rules (swap, add, reweight) from the source's maps, or from its
own ones.

Source: prompt-to-prompt (Hertz et al. 2022) as in Lai et al. 2025 (ECGTwin);
re-weighting and own maps are not in the latter.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from ecgtwin_jax.diffusion.samplers import sample
from ecgtwin_jax.diffusion.schedule import Schedule

Maps = Float[Array, "n h l s"]
Strength = float | Float[Array, " n"]


def swap(source: Maps, own: Maps) -> Maps:
  """The source's maps: what it attends to now holds the edit's statements.

  Each statement takes the place of the source's in the same row, so both
  reports need as many.
  """
  del own
  return source


def add(
  source: Maps, own: Maps, *, row: Int[Array, " n"], weight: Strength = 1.0
) -> Maps:
  """The source's maps, and weight times the own one for the added statement.

  Args:
    source: The source's maps; nothing in `row`, where its report is padded.
    own: The edit's own maps.
    row: Row of the added statement in the edit's report, the one after the
      source's last.
    weight: Factor of its attention.

  Returns:
    Maps whose rows sum to more than one.
  """
  return jnp.where(_row(own, row), _strength(weight) * own, source)


def reweight(
  source: Maps, own: Maps, *, row: Int[Array, " n"], weight: Strength
) -> Maps:
  """The source's maps with those of one statement times weight.

  Args:
    source: The source's maps.
    own: The edit's own maps, not used.
    row: Row of the statement in the report.
    weight: Factor; 1 changes nothing, 0 silences the statement.

  Returns:
    Maps, not renormalised.
  """
  del own
  factor = jnp.where(_row(source, row), _strength(weight), 1.0)
  return source * factor


def _row(maps: Maps, row: Int[Array, " n"]) -> Bool[Array, "n 1 1 s"]:
  return (
    jnp.arange(maps.shape[-1])[None, None, None] == row[:, None, None, None]
  )


def _strength(weight: Strength) -> Float[Array, "n 1 1 1"]:
  return jnp.reshape(jnp.asarray(weight, jnp.float32), (-1, 1, 1, 1))


def paired(
  network: Callable,
  source: Any,
  edit: Any,
  rule: Callable,
  threshold: int | Int[Array, ""],
  own_maps: bool = False,
) -> Callable:
  """The denoiser of source and edit, stacked in one batch.

  Args:
    network: (x, t, condition, attention) -> noise, where attention is None or
      a function (block, own maps) -> maps to use, as models.Denoiser takes it.
    source: Condition of the source, a tree of arrays with n in front.
    edit: The same tree for the edit.
    rule: (source's maps, edit's own maps) -> maps for the edit.
    threshold: Steps from this one up follow the source.
    own_maps: The rule is given the edit's own maps as the source's, too.

  Returns:
    denoise(x (2n, l, c), t (2n,)) for `samplers.sample`: the source's rows,
    then the edit's.
  """
  both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), source, edit)

  def with_source_maps(block, own):
    del block
    original, edited = jnp.split(own, 2)
    kept = edited if own_maps else original
    return jnp.concatenate([original, rule(kept, edited)])

  def denoise(x, t):
    def follow():
      first, _ = jnp.split(x, 2)
      eps = network(first, t[: first.shape[0]], source, None)
      return jnp.concatenate([eps, eps])

    def part():
      return network(x, t, both, with_source_maps)

    return jax.lax.cond(t[0] >= threshold, follow, part)

  return denoise


def sample_edited(
  network: Callable,
  source: Any,
  edit: Any,
  rule: Callable,
  noise: Float[Array, "n l c"],
  rngs: Key[Array, " n"],
  schedule: Schedule,
  *,
  threshold: int | Int[Array, ""] = 200,
  own_maps: bool = False,
  **options: Any,
) -> tuple[Float[Array, "n l c"], Float[Array, "n l c"]]:
  """Samples source and edit together.

  Args:
    network: See `paired`.
    source: Condition of the source.
    edit: Condition of the edit.
    rule: `swap`, `add` or `reweight`, with its arguments bound.
    noise: The latent that both start from.
    rngs: One key per example, for the noise of both.
    schedule: The denoiser's noise schedule.
    threshold: Steps from this one up follow the source: 0 gives the source
      twice; above the highest step the edit goes its own way from the start.
    own_maps: See `paired`.
    **options: Those of `samplers.sample`.

  Returns:
    The latents of the source and of the edit.

  Raises:
    ValueError: For a threshold outside 0..steps whose value is known when this
      is traced, and as `samplers.sample`.
  """
  known = isinstance(threshold, int)
  if known and not 0 <= threshold <= schedule.steps:
    raise ValueError(f"{threshold=} must be in 0..{schedule.steps}")
  denoise = paired(network, source, edit, rule, threshold, own_maps)
  both = sample(
    denoise,
    jnp.concatenate([noise, noise]),
    jnp.concatenate([rngs, rngs]),
    schedule,
    **options,
  )
  first, second = jnp.split(both, 2)
  return first, second
