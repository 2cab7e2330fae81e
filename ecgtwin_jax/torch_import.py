"""Turns released PyTorch weights into our parameters."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from ecgtwin_jax import published_names
from ecgtwin_jax.data.leads import LEADS
from ecgtwin_jax.models.base_extractor import BaseExtractor
from ecgtwin_jax.models.clip import CLIP
from ecgtwin_jax.models.denoiser import Denoiser
from ecgtwin_jax.models.vae import Decoder, Encoder

# Our module with the published sizes, and its arguments' shapes and types.
_LATENT, _SIGNAL = ((1, 128, 4), "f4"), ((1, 1024, 12), "f4")
_REPORT = (((1, 1, 768), "f4"), ((1, 1), "bool"), ((1, 3), "f4"))
_DENOISER = (_LATENT, ((1,), "i4"), *_REPORT, ((1, 256), "f4"))
_MODULES = {
  "denoiser_adax": (Denoiser(injector="adax"), _DENOISER),
  "denoiser_adaln": (Denoiser(injector="adaln"), _DENOISER),
  "denoiser_attn": (Denoiser(injector="cross_attention"), _DENOISER),
  "base_extractor": (BaseExtractor(), (_LATENT, *_REPORT)),
  "vae_encoder": (Encoder(), (_SIGNAL,)),
  "vae_decoder": (Decoder(), (_LATENT,)),
  "clip": (CLIP(), (_SIGNAL, ((1, 768), "f4"))),
}

# Released files follow MIMIC-IV-ECG, with aVF before aVL.
_RELEASED_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", *LEADS[6:])
_CLINICAL_ORDER = [_RELEASED_LEADS.index(lead) for lead in LEADS]


def _entry(module):
  if module not in _MODULES:
    raise ValueError(f"{module=} must be one of {', '.join(_MODULES)}")
  return _MODULES[module]


def published(module: str) -> nn.Module:
  """Returns our linen module with the published hyper-parameters.

  Raises:
    ValueError: No released module has that name.
  """
  return _entry(module)[0]


def convert(module: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the variables for `published(module).apply` from released weights.

  Linears and convolutions are transposed, the convolutions that touch leads
  are permuted to the clinical order, and names that the released code never
  uses are dropped.

  Args:
    module: One of denoiser_adax, denoiser_adaln, denoiser_attn,
      base_extractor, vae_encoder, vae_decoder, clip (whose variables hold
      batch statistics too).
    state_dict: Arrays by their published names.

  Raises:
    ValueError: An unknown module; or names that are missing, unexpected or of
      another shape, all of them listed.
  """
  model, arguments = _entry(module)
  arguments = [jax.ShapeDtypeStruct(*a) for a in arguments]
  wanted = traverse_util.flatten_dict(
    jax.eval_shape(model.init, jax.random.key(0), *arguments), sep="/"
  )
  names = {p: published_names.published_name(module, p) for p in wanted}
  arrays = {
    name: np.asarray(a, np.float32)
    for name, a in state_dict.items()
    if not published_names.is_unused(module, name)
  }
  _check(module, {names[p]: _shape(p, a) for p, a in wanted.items()}, arrays)
  leads = published_names.LEAD_AXES.get(module, {})
  variables = {}
  for path, name in names.items():
    array = arrays[name]
    if name in leads:
      array = np.take(array, _CLINICAL_ORDER, axis=leads[name])
    if module == "denoiser_adax" and name == "text_projector.weight":
      # Its columns are [patient, text]; ours are [text, patient] everywhere.
      array = np.roll(array, -3, axis=1)
    array = array.T if path.endswith("kernel") else array
    variables[path] = jnp.asarray(array).reshape(wanted[path].shape)
  return traverse_util.unflatten_dict(variables, sep="/")


def _shape(path, array):
  """Returns the published shape of one of our arrays."""
  if path.endswith("condition/positions"):
    return 1, *array.shape
  return array.shape[::-1] if path.endswith("kernel") else array.shape


def _check(module, shapes, arrays):
  missing = sorted(shapes.keys() - arrays.keys())
  extra = sorted(arrays.keys() - shapes.keys())
  wrong = [
    f"{name} {arrays[name].shape} must be {shape}"
    for name, shape in shapes.items()
    if name in arrays and arrays[name].shape != shape
  ]
  found = {"missing": missing, "unexpected": extra, "wrong shape": wrong}
  faults = [f"{key}: {', '.join(v)}" for key, v in found.items() if v]
  if faults:
    raise ValueError(f"not the weights of {module}: {'; '.join(faults)}")
