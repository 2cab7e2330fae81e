"""A trained CLIP's projections, in batches and as it was trained."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.evaluation.evaluators.clip import ClipSpace
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.models.clip import CLIP
from ecgtwin_jax.text.statements import HashedEncoder, StatementTable
from helpers import weights

SIZES = dict(stages=(32, 48), blocks=(1, 2), text_hidden=11, projection=7)
HYPER = {"part": "clip", "model": SIZES, "statement_encoder": "hashed-v1"}
RHYTHM, BLOCK = "Sinus rhythm", "Right bundle branch block"


@pytest.fixture(scope="module")
def variables():
  init = CLIP(**SIZES).init
  trees = dict(weights.draw(init, jnp.zeros((1, 64, 12)), jnp.zeros((1, 768))))
  # Statistics other than those at the start, which must be used.
  stats = jax.tree.map(lambda x: x + 0.5, trees.pop("batch_stats"))
  return {"params": trees["params"], "model_state": {"batch_stats": stats}}


@functools.cache
def _jitted(method):
  return jax.jit(functools.partial(CLIP(**SIZES).apply, method=method))


def apply(variables, x, method):
  trees = {"params": variables["params"], **variables["model_state"]}
  return np.asarray(_jitted(method)(trees, x))


def signals(n):
  return np.random.default_rng(0).normal(size=(n, 64, 12)).astype(np.float32)


def test_batches_change_nothing(variables):
  space = ClipSpace(HYPER, variables, batch_size=4)
  x = signals(11)
  expected = apply(variables, x, "encode_signal")
  np.testing.assert_allclose(space.ecgs(x), expected, atol=1e-5)
  assert space.ecgs(x) is space.ecgs(x.copy())
  samples = space.samples(x[:10].reshape(5, 2, 64, 12))
  np.testing.assert_allclose(samples, expected[:10].reshape(5, 2, 7), atol=1e-5)


def test_a_report_is_the_mean_of_its_statements(variables):
  space = ClipSpace(HYPER, variables)
  both = Condition([RHYTHM, BLOCK], 70)
  one = Condition([RHYTHM], 300)
  given = Condition([RHYTHM], 70, embeddings=np.ones((1, 768), np.float32))
  found = space.texts([both, one, both, given])
  rows = HashedEncoder().embed([RHYTHM, BLOCK])
  vectors = np.stack([rows.mean(axis=0), rows[0], np.ones(768, np.float32)])
  expected = apply(variables, vectors, "encode_text")
  np.testing.assert_allclose(found, expected[[0, 1, 0, 2]], atol=1e-5)


def test_statements_of_the_table_are_looked_up(variables):
  table = StatementTable((RHYTHM,), np.ones((1, 768), np.float32), "hashed-v1")
  found = ClipSpace(HYPER, variables, table=table).texts(
    [Condition([RHYTHM], 70)]
  )
  expected = apply(variables, np.ones((1, 768)), "encode_text")
  np.testing.assert_allclose(found, expected, atol=1e-5)
  other = StatementTable((RHYTHM,), np.ones((1, 768), np.float32), "other")
  with pytest.raises(ValueError, match="do not mix"):
    ClipSpace(HYPER, variables, table=other)


def test_is_read_from_a_twin_directory(variables, tmp_path):
  table = StatementTable((RHYTHM,), np.ones((1, 768), np.float32), "hashed-v1")
  twin_directory.write_twin(
    tmp_path, {"clip": (HYPER, variables)}, sources={}, card="", table=table
  )
  space = ClipSpace.load(tmp_path)
  x = signals(3)
  np.testing.assert_allclose(
    space.ecgs(x), apply(variables, x, "encode_signal"), atol=1e-5
  )
  np.testing.assert_allclose(
    space.texts([Condition([RHYTHM], 70)]),
    apply(variables, np.ones((1, 768)), "encode_text"),
    atol=1e-5,
  )


def test_a_signal_that_is_not_finite_is_named(variables):
  x = signals(5)
  x[3, 7, 2] = np.nan
  with pytest.raises(ValueError, match="the first is row 3"):
    ClipSpace(HYPER, variables).ecgs(x)
