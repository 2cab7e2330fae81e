"""Editing: published outputs of swap and add, and the rules of the pair."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgtwin_jax.diffusion import editing
from ecgtwin_jax.diffusion.samplers import draw_noise, sample
from ecgtwin_jax.diffusion.schedule import Schedule
from ecgtwin_jax.models.denoiser import Denoiser
from ecgtwin_jax.torch_import import convert
from helpers import golden, weights

SHORT = Schedule(steps=11, start=0.02, end=0.4)
SMALL = Denoiser(
  width=8,
  depth=1,
  heads=2,
  latent_channels=3,
  text_width=5,
  base_width=7,
  positions=6,
)
RNGS = jax.random.split(jax.random.key(3), 2)


@functools.cache
def published():
  variables = convert.convert(
    "denoiser_adax", golden.seeded_weights("denoiser_adax")
  )
  return convert.published("denoiser_adax"), variables


def published_pair(edit_text, edit_mask, rule):
  """Noise of (source, edit) at a step below the threshold."""
  model, variables = published()
  given = golden.load("denoiser_adax")
  text = np.zeros_like(edit_text)
  text[:, :5] = given["text"]
  common = {"patient": given["patient"], "base": given["base"]}
  source = {
    "statements": text,
    "mask": np.broadcast_to(np.arange(text.shape[1]) < 5, text.shape[:2]),
  }
  edit = {"statements": edit_text, "mask": edit_mask}

  @jax.jit
  def run(variables, x, t):
    def network(x, t, condition, attention):
      return model.apply(variables, x, t, **condition, attention=attention)

    denoise = editing.paired(
      network, source | common, edit | common, rule, threshold=1000
    )
    return denoise(x, t)

  x = np.concatenate([given["x"], given["x_edit"]]).swapaxes(1, 2)
  noise = run(variables, x, np.tile(given["t"], 2)).swapaxes(1, 2)
  return noise[:2], noise[2:]


def test_swap_is_the_published_one():
  given = golden.load("denoiser_adax")
  source, edit = published_pair(
    given["text_swap"], np.ones((2, 5), bool), editing.swap
  )
  for got, name in ((source, "swap_src"), (edit, "swap_edit")):
    assert golden.relative_error(got, given[name]) < golden.TOLERANCE


@pytest.mark.parametrize("padding", [0, 12])
def test_add_is_the_published_one_in_reports_with_and_without_padding(padding):
  given = golden.load("denoiser_adax")
  text = np.zeros((2, 6 + padding, 768), np.float32)
  text[:, :5], text[:, 5:6] = given["text"], given["text_add"]
  weight = float(given["add_weight"])
  source, edit = published_pair(
    text,
    np.broadcast_to(np.arange(6 + padding) < 6, text.shape[:2]),
    functools.partial(editing.add, row=jnp.array([5, 5]), weight=weight),
  )
  for got, name in ((source, "add_src"), (edit, "add_edit")):
    assert golden.relative_error(got, given[name]) < golden.TOLERANCE


def maps(seed):
  raw = jax.random.uniform(jax.random.key(seed), (2, 3, 5, 4))
  return raw / raw.sum(axis=-1, keepdims=True)


def test_rules_by_hand():
  source, own = maps(0), maps(1)
  row = jnp.array([3, 1])
  assert editing.swap(source, own) is source
  added = editing.add(source, own, row=row, weight=0.5)
  scaled = editing.reweight(source, own, row=row, weight=jnp.array([2.0, 0.0]))
  for i, column in enumerate((3, 1)):
    others = np.arange(4) != column
    for out in (added, scaled):
      np.testing.assert_array_equal(out[i][..., others], source[i][..., others])
    np.testing.assert_array_equal(
      added[i][..., column], own[i][..., column] / 2
    )
    factor = (2, 0)[i]
    np.testing.assert_array_equal(
      scaled[i][..., column], factor * source[i][..., column]
    )


@functools.cache
def small():
  """A denoiser whose modulations are not zero, with its two conditions."""
  rng = np.random.default_rng(7)

  def normal(*shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)

  source = {
    "statements": normal(2, 4, 5),
    "mask": jnp.array([[True, True, True, False], [True, True, False, False]]),
    "patient": normal(2, 3),
    "base": normal(2, 7),
  }
  edit = source | {"statements": normal(2, 4, 5)}
  variables = weights.draw(
    SMALL.init, normal(2, 6, 3), jnp.zeros(2, int), **source
  )

  def network(x, t, condition, attention=None):
    return SMALL.apply(variables, x, t, **condition, attention=attention)

  return network, source, edit


def run_pair(rule, edit=None, **options):
  network, source, other = small()
  noise = draw_noise(RNGS, (6, 3), SHORT.steps)
  draw = jax.jit(
    lambda noise: editing.sample_edited(
      network, source, edit or other, rule, noise, RNGS, SHORT, **options
    )
  )
  return draw(noise)


# A step that looks back and has noise of its own is all that could differ.
@pytest.mark.parametrize("sampler", ["ddpm", "sde-dpm++"])
def test_source_is_the_plain_sample_and_the_edit_differs(sampler):
  network, condition, _ = small()
  options = {"sampler": sampler, "steps": 5, "clip": 2.0}
  source, edit = run_pair(editing.swap, threshold=7, **options)
  noise = draw_noise(RNGS, (6, 3), SHORT.steps)
  plain = jax.jit(
    lambda noise: sample(
      lambda x, t: network(x, t, condition), noise, RNGS, SHORT, **options
    )
  )(noise)
  np.testing.assert_allclose(source, plain, atol=1e-4)
  assert np.abs(source - edit).max() > 1e-3


def test_threshold_zero_gives_the_source_twice():
  source, edit = run_pair(editing.swap, threshold=0)
  np.testing.assert_array_equal(source, edit)


def test_the_edit_moves_away_below_the_threshold_only():
  network, source, edit = small()
  denoise = jax.jit(
    editing.paired(network, source, edit, editing.swap, threshold=4)
  )
  x = draw_noise(RNGS, (6, 3), 0)
  both = jnp.concatenate([x, x])
  above, below = denoise(both, jnp.full(4, 4)), denoise(both, jnp.full(4, 3))
  np.testing.assert_array_equal(above[:2], above[2:])
  assert np.abs(below[:2] - below[2:]).max() > 1e-3


def test_weight_one_reweights_nothing_and_zero_silences():
  source = small()[1]
  row = jnp.array([2, 1])

  def rule(weight):
    return functools.partial(editing.reweight, row=row, weight=weight)

  same, again = run_pair(rule(1.0), source, threshold=11)
  np.testing.assert_allclose(same, again, atol=1e-5)
  _, silent = run_pair(rule(0.0), source, threshold=11)
  assert np.abs(silent - same).max() > 1e-3


def test_an_added_statement_of_weight_zero_changes_nothing():
  _, source, other = small()
  row = jnp.array([3, 2])
  at_row = jnp.arange(4)[None] == row[:, None]
  edit = source | {
    "statements": jnp.where(
      at_row[..., None], other["statements"], source["statements"]
    ),
    "mask": source["mask"] | at_row,
  }
  rule = functools.partial(editing.add, row=row, weight=0.0)
  first, second = run_pair(rule, edit, threshold=11)
  np.testing.assert_allclose(first, second, atol=1e-5)
  rule = functools.partial(editing.add, row=row, weight=1.0)
  _, third = run_pair(rule, edit, threshold=11)
  assert np.abs(first - third).max() > 1e-3


@pytest.mark.parametrize("threshold", [-1, 12])
def test_threshold_outside_the_schedule_is_refused(threshold):
  with pytest.raises(ValueError, match=f"{threshold=} must be in 0..11"):
    run_pair(editing.swap, threshold=threshold)
