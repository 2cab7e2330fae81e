"""CLIP: published outputs, parameter count, import of its weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgtwin_jax.models.base_extractor import contrastive_logits
from ecgtwin_jax.models.clip import CLIP
from ecgtwin_jax.torch_import import convert
from helpers import golden, weights

SMALL = CLIP(
  stages=(32, 48),
  blocks=(1, 2),
  kernel=5,
  projection=7,
  text_hidden=11,
  text_width=13,
)
FIRST = "resnet.first_conv.conv.weight"


@functools.cache
def imported():
  return convert.convert("clip", golden.seeded_weights("clip"))


@functools.cache
def small():
  return weights.draw(SMALL.init, jnp.zeros((1, 53, 12)), jnp.zeros((1, 13)))


def apply_small(*inputs, method=None):
  apply = functools.partial(SMALL.apply, method=method)
  return jax.jit(apply)(small(), *inputs)


@pytest.mark.parametrize(
  "method, output",
  [
    ("hidden", "hidden"),
    ("encode_signal", "signal_features"),
    ("encode_text", "text_features"),
  ],
)
def test_published_outputs(method, output):
  arrays = golden.load("clip")
  given = arrays["signal"][:, :, golden.SWAP_LEADS]
  if method == "encode_text":
    given = arrays["text"]
  model = convert.published("clip")
  apply = jax.jit(functools.partial(model.apply, method=method))
  error = golden.relative_error(apply(imported(), given), arrays[output])
  assert error < golden.TOLERANCE


def test_number_of_parameters_is_the_published_one():
  shapes = jax.eval_shape(
    CLIP().init,
    jax.random.key(0),
    jnp.zeros((1, 1024, 12)),
    jnp.zeros((1, 768)),
  )
  assert sum(a.size for a in jax.tree.leaves(shapes["params"])) == 20_432_513


def test_import_reads_leads_by_name_and_drops_what_is_unused():
  weights = golden.seeded_weights("clip")
  kernel = imported()["params"]["resnet"]["conv_in"]["kernel"]
  np.testing.assert_array_equal(kernel[:, 4], weights[FIRST][:, 5].T)  # aVL
  np.testing.assert_array_equal(kernel[:, 5], weights[FIRST][:, 4].T)  # aVF
  first = imported()["params"]["resnet"]["stage_0_block_0"]
  assert "norm_1" not in first and "norm_2" in first
  counters = {
    f"{name.rpartition('.')[0]}.num_batches_tracked": np.array(3)
    for name in weights
    if name.endswith("running_mean")
  }
  assert len(counters) == 61
  again = convert.convert("clip", weights | counters)
  jax.tree.map(np.testing.assert_array_equal, imported(), again)


def test_import_names_every_fault():
  weights = golden.seeded_weights("clip")
  del weights["ecg_projector.bias"]
  weights["logit_scale"] = np.zeros(2, np.float32)
  weights["resnet.bn9.weight"] = np.zeros(2, np.float32)
  with pytest.raises(ValueError) as error:
    convert.convert("clip", weights)
  for name in ("ecg_projector.bias", "logit_scale (2,)", "resnet.bn9.weight"):
    assert name in str(error.value)


def test_shapes_and_methods_agree():
  signal = jax.random.normal(jax.random.key(1), (3, 53, 12))
  text = jax.random.normal(jax.random.key(2), (3, 13))
  features, words = apply_small(signal, text)
  assert features.shape == (3, 7) and words.shape == (3, 7)
  np.testing.assert_array_equal(
    features, apply_small(signal, method="encode_signal")
  )
  np.testing.assert_array_equal(words, apply_small(text, method="encode_text"))
  assert apply_small(signal, method="hidden").shape == (3, 48)


def test_starts_with_the_published_temperature():
  given = jnp.zeros((1, 53, 12)), jnp.zeros((1, 13))
  scale = jax.jit(lambda key: SMALL.init(key, *given)["params"]["logit_scale"])(
    jax.random.key(0)
  )
  e = jnp.eye(2, 7)
  logits = contrastive_logits(e, e, scale)
  np.testing.assert_allclose(logits, np.eye(2) / 0.07, rtol=1e-5)


def test_training_moves_the_statistics_and_drops_out():
  signal = jax.random.normal(jax.random.key(1), (5, 53, 12))
  text = jnp.ones((5, 13))

  @jax.jit
  def train(variables, seed):
    return SMALL.apply(
      variables,
      signal,
      text,
      train=True,
      rngs={"dropout": jax.random.key(seed)},
      mutable=["batch_stats"],
    )

  (features, words), state = train(small(), 0)
  (others, again), _ = train(small(), 1)
  assert np.abs(features - others).max() > 0
  np.testing.assert_array_equal(words, again)
  assert jax.tree.structure(dict(state)) == jax.tree.structure(
    {"batch_stats": small()["batch_stats"]}
  )
  moved = jax.tree.map(
    lambda a, b: float(jnp.abs(a - b).max()),
    dict(state["batch_stats"]),
    small()["batch_stats"],
  )
  assert min(jax.tree.leaves(moved)) > 0


def test_text_of_another_width_is_refused():
  with pytest.raises(ValueError, match="width=12 must be 13"):
    SMALL.apply(small(), jnp.zeros((1, 12)), method="encode_text")
