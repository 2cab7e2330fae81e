"""Random variables of a module, drawn by NumPy: nothing is compiled."""

import jax
import numpy as np


def draw(init, *args, **options):
  """Returns variables of init's shapes in which nothing is zero.

  Args:
    init: (key, *args, **options) -> variables, as a module has it.
  """
  shapes = jax.eval_shape(
    lambda key: init(key, *args, **options), jax.random.key(0)
  )
  rng = np.random.default_rng(0)

  def one(path, leaf):
    z = rng.standard_normal(leaf.shape)
    name = path[-1].key
    if name in ("scale", "var"):  # a norm's; a variance is above 0
      z = 1 + 0.2 * np.abs(z)
    elif len(leaf.shape) >= 2:
      z /= np.sqrt(np.prod(leaf.shape[:-1]))
    else:
      z *= 0.1
    return z.astype(leaf.dtype)

  return jax.tree_util.tree_map_with_path(one, shapes)
