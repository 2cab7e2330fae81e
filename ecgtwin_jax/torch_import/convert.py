"""Turns released PyTorch weights into our parameters."""

import argparse
import dataclasses
import hashlib
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors import numpy as safetensors

from ecgtwin_jax.constants import LATENT_LENGTH, MODEL_SAMPLES, TEXT_WIDTH
from ecgtwin_jax.data.leads import LEADS
from ecgtwin_jax.diffusion.schedule import Schedule
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.models.base_extractor import BaseExtractor
from ecgtwin_jax.models.clip import CLIP
from ecgtwin_jax.models.denoiser import Denoiser
from ecgtwin_jax.models.vae import Decoder, Encoder
from ecgtwin_jax.torch_import import names as names_module

# Our module with the published sizes, and its arguments' shapes and types.
_LATENT, _SIGNAL = ((1, LATENT_LENGTH, 4), "f4"), ((1, MODEL_SAMPLES, 12), "f4")
_REPORT = (((1, 1, TEXT_WIDTH), "f4"), ((1, 1), "bool"), ((1, 3), "f4"))
_DENOISER = (_LATENT, ((1,), "i4"), *_REPORT, ((1, 256), "f4"))
_MODULES = {
  "denoiser_adax": (Denoiser(injector="adax"), _DENOISER),
  "denoiser_adaln": (Denoiser(injector="adaln"), _DENOISER),
  "denoiser_attn": (Denoiser(injector="cross_attention"), _DENOISER),
  "base_extractor": (BaseExtractor(), (_LATENT, *_REPORT)),
  "vae_encoder": (Encoder(), (_SIGNAL,)),
  "vae_decoder": (Decoder(), (_LATENT,)),
  "clip": (CLIP(), (_SIGNAL, ((1, TEXT_WIDTH), "f4"))),
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
  wanted = _wanted(module)
  names = {p: names_module.published_name(module, p) for p in wanted}
  arrays = {
    name: np.asarray(a, np.float32)
    for name, a in state_dict.items()
    if not names_module.is_unused(module, name)
  }
  _check(module, {names[p]: _shape(p, a) for p, a in wanted.items()}, arrays)
  leads = names_module.LEAD_AXES.get(module, {})
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


def _wanted(module):
  """Returns our parameters' shapes by their path."""
  model, arguments = _entry(module)
  arguments = [jax.ShapeDtypeStruct(*a) for a in arguments]
  shapes = jax.eval_shape(model.init, jax.random.key(0), *arguments)
  return traverse_util.flatten_dict(shapes, sep="/")


def _shape(path, array):
  """Returns the published shape of one of our arrays."""
  if path.endswith("condition/positions"):
    return 1, *array.shape
  return array.shape[::-1] if path.endswith("kernel") else array.shape


def _check(module, shapes, arrays):
  missing = sorted(shapes.keys() - arrays.keys())
  extra = sorted(arrays.keys() - shapes.keys())
  wrong = sorted(
    f"{name} {arrays[name].shape} must be {shape}"
    for name, shape in shapes.items()
    if name in arrays and arrays[name].shape != shape
  )
  found = {"missing": missing, "unexpected": extra, "wrong shape": wrong}
  faults = [f"{key}: {', '.join(v)}" for key, v in found.items() if v]
  if faults:
    raise ValueError(f"not the weights of {module}: {'; '.join(faults)}")


# The language model whose vectors released weights were trained on.
STATEMENT_ENCODER = "nomic-embed-text-v1.5"
_CARD = """# ECG twin from released PyTorch weights

Networks and training: Lai et al., arXiv 2508.02720. Converted; computes the
same function. Statements are embedded by nomic-embed-text-v1.5.

| part | file | sha256 |
|---|---|---|
{files}

Not a medical device: generated ECGs are synthetic and must not be used for
diagnosis or treatment.
"""
_DENOISERS = ("denoiser_adax", "denoiser_adaln", "denoiser_attn")
# What the release samples and scales with, whatever the weights.
_LATENT_SCALE, _LATENT_CLIP = 0.18215, 1.0


def read_weights(path: str | os.PathLike) -> dict[str, Any]:
  """Reads tensors by name from .safetensors, or .pth where torch is installed.

  Nested dictionaries, as in the released VAE file, get dotted names.

  Raises:
    FileNotFoundError: no such file.
    ValueError: another kind of file, torch is missing, or the file holds
      anything but tensors (it is never unpickled).
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"no weights file {str(path)!r}")
  if path.suffix == ".safetensors":
    try:
      return safetensors.load_file(path)
    except Exception as error:
      raise ValueError(f"{str(path)!r} is damaged: {error}") from None
  if path.suffix not in (".pth", ".pt"):
    raise ValueError(f"{str(path)!r} must end in .safetensors, .pth or .pt")
  try:
    import torch
  except ImportError:
    raise ValueError(
      f"reading {str(path)!r} needs PyTorch: pip install 'ecgtwin_jax[torch]', "
      "or give the weights as .safetensors"
    ) from None
  try:
    tree = torch.load(path, map_location="cpu", weights_only=True)
  except Exception as error:
    reason = str(error).splitlines()[0]
    raise ValueError(
      f"{str(path)!r} holds more than tensors, or is damaged ({reason}); "
      "nothing else is ever unpickled"
    ) from None
  if not isinstance(tree, Mapping):
    raise ValueError(f"{str(path)!r} must hold a dictionary of tensors")
  flat = traverse_util.flatten_dict(dict(tree), sep=".")
  wrong = [k for k, v in flat.items() if not isinstance(v, torch.Tensor)]
  if wrong:
    raise ValueError(f"{str(path)!r}: {wrong[:8]} must be tensors")
  return {name: tensor.float().numpy() for name, tensor in flat.items()}


def sizes(module: nn.Module) -> dict:
  """Constructor arguments that a twin stores, with their values."""
  skipped = {"parent", "name", "dtype", "remat", "scale"}
  return {
    field.name: getattr(module, field.name)
    for field in dataclasses.fields(module)
    if field.name not in skipped
  }


def _import_vae(weights):
  params = {}
  for part in ("encoder", "decoder"):
    mine = {
      name.removeprefix(f"{part}."): array
      for name, array in weights.items()
      if name.startswith(f"{part}.")
    }
    params[part] = convert(f"vae_{part}", mine)["params"]
  strange = [n for n in weights if not n.startswith(("encoder.", "decoder."))]
  if strange:
    raise ValueError(
      f"not the weights of a VAE: {strange[:8]} must start with encoder. or "
      "decoder."
    )
  model = {part: sizes(published(f"vae_{part}")) for part in params}
  return {"part": "vae", "model": model}, {"params": params}


def _import_base_extractor(weights):
  hyper = {
    "part": "base_extractor",
    "model": sizes(published("base_extractor")),
    "latent_scale": _LATENT_SCALE,
  }
  return hyper, convert("base_extractor", weights)


def _import_denoiser(weights):
  def distance(module):
    names = {names_module.published_name(module, p) for p in _wanted(module)}
    return len(names ^ set(weights))

  module = min(_DENOISERS, key=distance)
  hyper = {
    "part": "denoiser",
    "model": sizes(published(module)),
    "schedule": dataclasses.asdict(Schedule()),
    # The release samples these, though it trained 1..998 alone.
    "timesteps": [0, 999],
    "dropout": {"statements": 0.0, "patient": 0.0, "base": 0.0},
    "latent_scale": _LATENT_SCALE,
    "latent_clip": _LATENT_CLIP,
  }
  return hyper, convert(module, weights)


def _import_clip(weights):
  variables = convert("clip", weights)
  params = variables.pop("params")
  hyper = {"part": "clip", "model": sizes(published("clip"))}
  return hyper, {"params": params, "model_state": variables}


def import_torch(
  *,
  vae: str | os.PathLike | None = None,
  base_extractor: str | os.PathLike | None = None,
  denoiser: str | os.PathLike | None = None,
  clip: str | os.PathLike | None = None,
  output: str | os.PathLike,
) -> None:
  """Turns released weight files into a twin directory.

  ECGTwin.from_checkpoint loads it where vae, base_extractor and denoiser are
  all there; trainings accept any part as a frozen stage or as init_from. The
  model card records the sha256 of every file.

  Args:
    vae: file with encoder.* and decoder.* (.safetensors), or a dictionary of
      the two (.pth).
    base_extractor: file of stage 1.
    denoiser: file of stage 2; which injector it has is seen from its names.
    clip: file of the evaluation's ECG-text model.
    output: the folder to make.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a file cannot be read, or its names or shapes do not fit (all
      of them listed); or no file is given.
  """
  files = dict(
    vae=vae, base_extractor=base_extractor, denoiser=denoiser, clip=clip
  )
  files = {part: path for part, path in files.items() if path is not None}
  if not files:
    raise ValueError(
      "at least one of vae, base_extractor, denoiser, clip must be given"
    )
  importers = dict(
    vae=_import_vae,
    base_extractor=_import_base_extractor,
    denoiser=_import_denoiser,
    clip=_import_clip,
  )
  weights, sources, lines = {}, {}, []
  for part, path in files.items():
    try:
      weights[part] = importers[part](read_weights(path))
    except ValueError as error:
      raise ValueError(f"{part}={os.fspath(path)!r}: {error}") from None
    sha256 = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    sources[part] = f"{pathlib.Path(path).name} sha256 {sha256}"
    lines.append(f"| {part} | {pathlib.Path(path).name} | `{sha256}` |")
  if "vae" in weights:
    digest = twin_directory.digest(weights["vae"][1]["params"]["encoder"])
    for part in ("base_extractor", "denoiser"):
      if part in weights:
        weights[part][0]["vae"] = digest
  for part, (hyper, _) in weights.items():
    if part != "vae":
      hyper["statement_encoder"] = STATEMENT_ENCODER
  card = _CARD.format(files="\n".join(lines))
  twin_directory.write_twin(output, weights, sources=sources, card=card)


def main(argv: list[str] | None = None) -> int:
  """The command line: python -m ecgtwin_jax.torch_import --vae FILE ..."""
  parser = argparse.ArgumentParser(
    prog="python -m ecgtwin_jax.torch_import",
    description="Turns released PyTorch weights into a twin directory.",
  )
  parser.add_argument("--vae", help="autoencoder")
  parser.add_argument("--base_extractor", help="stage 1")
  parser.add_argument("--denoiser", help="stage 2, any of its injectors")
  parser.add_argument("--clip", help="the evaluation's ECG-text model")
  parser.add_argument("--output", required=True, help="folder to make")
  arguments = parser.parse_args(argv)
  try:
    import_torch(**vars(arguments))
  except (ValueError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  print(f"twin directory: {arguments.output}")
  return 0
