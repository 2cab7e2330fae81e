import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgtwin_jax.models.text_encoder import (
  NomicBERT,
  pool_tokens,
  rotate_by_position,
)
from ecgtwin_jax.text import hub_folder

FOLDER = pathlib.Path(__file__).parent / "data" / "text_encoder"


@pytest.fixture(scope="module")
def small():
  model, _ = hub_folder.read_model(FOLDER)
  params = hub_folder.read_parameters(FOLDER / "model.safetensors", model)
  apply = jax.jit(lambda ids, mask: model.apply({"params": params}, ids, mask))
  with np.load(FOLDER / "expected.npz") as expected:
    return apply, dict(expected)


def test_hidden_states_equal_pytorch(small):
  apply, expected = small
  ids = jnp.asarray(expected["ids"])
  valid = np.arange(ids.shape[1])[None] < expected["lengths"][:, None]
  hidden = apply(ids, jnp.asarray(valid))
  assert hidden.dtype == jnp.float32
  difference = np.abs(np.asarray(hidden) - expected["hidden"])[valid]
  assert difference.max() < 2e-5


def test_padding_is_not_seen(small):
  apply, expected = small
  ids = jnp.asarray(expected["ids"][:1])
  mask = jnp.arange(ids.shape[1])[None] < 4
  other = jnp.where(mask, ids, ids + 7)
  np.testing.assert_array_equal(
    apply(ids, mask)[:, :4], apply(other, mask)[:, :4]
  )


def test_order_of_words_matters(small):
  apply, expected = small
  ids = jnp.asarray(expected["ids"][1:2, :8])
  mask = jnp.ones_like(ids, bool)
  swapped = ids.at[0, 2].set(ids[0, 4]).at[0, 4].set(ids[0, 2])
  same = pool_tokens(apply(ids, mask), mask)
  assert jnp.abs(same - pool_tokens(apply(swapped, mask), mask)).max() > 1e-2


def test_rotation_depends_on_distance_alone():
  q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 3, 14))
  q, k = (jnp.broadcast_to(x, (1, 11, 3, 14)) for x in (q, k))
  q, k = rotate_by_position(q, 1000.0), rotate_by_position(k, 1000.0)
  logits = np.einsum("blhc,bshc->hls", q, k)
  for distance in (-7, 0, 3):
    diagonal = np.diagonal(logits, distance, axis1=1, axis2=2)
    np.testing.assert_allclose(
      diagonal, diagonal[:, :1] + 0 * diagonal, atol=1e-5
    )
  assert np.abs(logits[:, 0, 0] - logits[:, 0, 3]).min() > 1e-3


def test_rotation_by_hand():
  x = jnp.zeros((1, 3, 1, 4)).at[:, :, :, 1].set(1.0)
  angle = 2 * 1000**-0.5  # position 2, second of two frequencies
  expected = [0, np.cos(angle), 0, np.sin(angle)]
  got = rotate_by_position(x, 1000.0)[0, 2, 0]
  np.testing.assert_allclose(got, expected, atol=1e-6)


def test_pooling_by_hand():
  hidden = np.random.default_rng(0).normal(size=(2, 5, 7)).astype(np.float32)
  mask = np.arange(5)[None] < np.array([[3], [5]])
  mean = hidden[0, :3].mean(0)
  normed = (mean - mean.mean()) / np.sqrt(mean.var() + 1e-5)
  hidden[0, 3:] = np.nan
  got = np.asarray(pool_tokens(jnp.asarray(hidden), jnp.asarray(mask)))
  np.testing.assert_allclose(got[0], normed / np.linalg.norm(normed), atol=1e-6)
  np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1.0, atol=1e-6)


def test_pooling_a_row_without_tokens_gives_zeros():
  mask = jnp.zeros((1, 5), bool)
  assert not pool_tokens(jnp.ones((1, 5, 7)), mask).any()


def test_published_size():
  model = NomicBERT()
  ids = jnp.zeros((1, 3), jnp.int32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), ids, ids == 0)
  count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  # Two tables and a norm; per layer 4 d^2 + 3 d inner and two norms.
  layer = 4 * 768**2 + 3 * 768 * 3072 + 2 * 2 * 768
  assert count == (30528 + 2 + 2) * 768 + 12 * layer == 136_731_648


def test_products_may_be_bfloat16_but_results_stay_float32():
  exact, _ = hub_folder.read_model(FOLDER)
  params = hub_folder.read_parameters(FOLDER / "model.safetensors", exact)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("f4")}
  ids = jnp.arange(10).reshape(2, 5)
  mask = jnp.ones((2, 5), bool)
  rough = exact.clone(dtype=jnp.bfloat16)
  exact, rough = (
    jax.jit(m.apply)({"params": params}, ids, mask) for m in (exact, rough)
  )
  assert rough.dtype == exact.dtype == jnp.float32
  assert 1e-3 < jnp.abs(rough - exact).max() < 0.2
