"""Muon for the kernels, AdamW with Nesterov's momentum for all else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs.common import training
from ecgtwin_jax.training.optimizer import make_optimizer


def test_muon_updates_kernels_as_matrices_and_the_rest_as_nadam():
  settings = training("vae", "vae", "base").optimizer
  settings.update(learning_rate=0.01, weight_decay=0.0)
  rng = np.random.default_rng(0)
  params = {
    "conv": {"kernel": rng.normal(size=(3, 5, 7)), "bias": rng.normal(size=7)},
    "table": rng.normal(size=(11, 5)),
  }
  params = jax.tree.map(jnp.float32, params)
  grads = jax.tree.map(lambda x: x**3, params)

  def first_update(tx):
    return jax.jit(tx.update)(grads, tx.init(params), params)[0]

  settings.muon = True
  ours = first_update(make_optimizer(settings, 10))
  nadam = first_update(optax.nadamw(0.01, b2=settings.b2, weight_decay=0.0))
  matrix = ours["conv"]["kernel"].reshape(15, 7)
  # Alike in all directions, and as large as AdamW's updates become.
  singular = np.linalg.svd(matrix, compute_uv=False)
  assert singular.max() < 2 * singular.min()
  expected = 0.2 * 0.01 * np.sqrt(15)
  np.testing.assert_allclose(singular.mean(), expected, rtol=0.2)
  # And not those of three matrices, one for each of the convolution's taps.
  taps = np.linalg.svd(ours["conv"]["kernel"], compute_uv=False)
  assert taps.max() > 3 * taps.min()
  for ours_leaf, leaf in (
    (ours["conv"]["bias"], nadam["conv"]["bias"]),
    (ours["table"], nadam["table"]),
  ):
    np.testing.assert_allclose(ours_leaf, leaf, rtol=1e-4)
