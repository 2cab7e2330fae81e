"""Outputs of the published modules for seeded weights, and those weights.

The arrays of data/golden were computed in float64 and stored as float32;
parameters.json there holds every parameter's published name and shape.
"""

import functools
import json
import pathlib
import zlib

import numpy as np

FOLDER = pathlib.Path(__file__).parents[1] / "data" / "golden"
TOLERANCE = 2e-4  # of the output's largest magnitude
SEED = 20251
# Published lead order (aVF before aVL) <-> clinical order; its own inverse.
SWAP_LEADS = [0, 1, 2, 3, 5, 4, 6, 7, 8, 9, 10, 11]


def load(name):
  """Returns the arrays of one file by name."""
  with np.load(FOLDER / f"{name}.npz") as file:
    return dict(file)


def seeded_weights(module):
  """Returns {published name: array} of one module."""
  shapes = json.loads((FOLDER / "parameters.json").read_text())[module]
  return {
    name: _weight(module, name, tuple(shape)) for name, shape in shapes.items()
  }


@functools.cache
def _weight(module, name, shape):
  stream = zlib.crc32(f"{module}/{name}".encode())
  z = np.random.default_rng([SEED, stream]).standard_normal(shape)
  last = name.split(".")[-1]
  if last == "running_var":
    z = 1 + 0.2 * abs(z)
  elif last == "running_mean":
    z = 0.1 * z
  elif last == "logit_scale":
    z = np.log(1 / 0.07)
  elif last == "norm":
    z = 1 + 0.1 * z
  elif len(shape) >= 2:
    z = z / np.sqrt(np.prod(shape[1:]))
  elif last == "weight":
    z = 1 + 0.1 * z
  else:
    z = 0.1 * z
  return np.asarray(z, np.float32)


def relative_error(actual, expected):
  """Returns the largest error over the expected output's largest magnitude."""
  actual, expected = np.asarray(actual), np.asarray(expected)
  assert actual.shape == expected.shape
  return np.abs(actual - expected).max() / np.abs(expected).max()
