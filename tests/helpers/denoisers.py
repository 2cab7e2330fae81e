"""A small denoiser with prime sizes, its arguments, and a call of it."""

import functools

import jax
import numpy as np

from ecgtwin_jax.models.denoiser import Denoiser
from helpers import EMITTERS_ON, weights

SIZES = dict(
  width=34,
  heads=2,
  depth=2,
  mlp_ratio=2,
  latent_channels=3,
  text_width=11,
  base_width=7,
  positions=19,
)
B, L, S = 2, 13, 5
MASK = np.array([[True] * 5, [True, True, True, False, False]])


def inputs(length=L, seed=0):
  """Returns latent, t, statements, mask, patient and base of two examples."""
  rng = np.random.default_rng(seed)

  def draw(*shape):
    return rng.standard_normal(shape).astype(np.float32)

  t = rng.integers(0, 1000, B)
  return [
    draw(B, length, 3),
    t,
    draw(B, S, 11),
    MASK,
    draw(B, 3),
    draw(B, 7),
  ]


def build(injector="adax", backbone="dit", **changes):
  """Returns a denoiser of one block, its variables and its arguments."""
  sizes = {**SIZES, "depth": 1, "level_blocks": 1, "levels": 2, **changes}
  model = Denoiser(injector=injector, backbone=backbone, **sizes)
  factor = 1 if backbone == "dit" else 2 ** (sizes["levels"] - 1)
  return model, _variables(model, factor * L), inputs(factor * L)


@functools.cache
def _variables(model, length):
  """Returns variables in which nothing is zero, not even the modulations."""
  return weights.draw(model.init, *inputs(length))


@functools.cache
def start(model, length):
  """Returns variables that training starts from; slow to compile."""
  return jax.jit(model.init)(jax.random.key(0), *inputs(length))


@functools.cache
def _jitted(model, **static):
  return jax.jit(
    lambda variables, args, options: model.apply(
      variables, *args, **options, **static
    ),
    # As users have them: without, two programs round further apart.
    compiler_options=EMITTERS_ON,
  )


def call(model, variables, args, return_attention=False, **options):
  """Returns the output of the jitted model."""
  static = {"return_attention": return_attention}
  if callable(options.get("attention")):
    static["attention"] = options.pop("attention")
  return _jitted(model, **static)(variables, args, options)
