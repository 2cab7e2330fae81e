"""Our modules with the converted seeded weights, beside golden outputs."""

import functools

import jax
import numpy as np

from ecgtwin_jax.torch_import.convert import convert, published
from helpers import golden

weights = functools.cache(golden.seeded_weights)


@functools.cache
def variables(module):
  """Returns the converted seeded weights of a module."""
  return convert(module, weights(module))


def channels_last(x):
  return x.transpose(0, 2, 1)


def assert_close(actual, expected):
  assert golden.relative_error(actual, expected) < golden.TOLERANCE


@functools.cache
def _jitted(module, jit):  # test_optimized.py has one of its own
  # AdaX with its maps, so that one compilation serves all of its tests.
  options = {"return_attention": "heads"} if module == "denoiser_adax" else {}
  return jit(functools.partial(published(module).apply, **options))


def denoise(module, given):
  """Returns the noise and, of AdaX, the attention maps per head."""
  out = _jitted(module, jax.jit)(variables(module), *given)
  return out if module == "denoiser_adax" else (out, None)


def arguments(case, x="x", text="text", masked=False):
  text = case[text]
  mask = np.ones(text.shape[:2], bool)
  mask = case["mask"] > 0 if masked else mask
  latent = channels_last(case[x])
  return latent, case["t"], text, mask, case["patient"], case["base"]
