"""Whether the arrays of a twin are those that its hyper-parameters ask for."""

import contextlib
import functools
import hashlib
import os
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from ecgtwin_jax.constants import LATENT_LENGTH
from ecgtwin_jax.data.ecg import MODEL_SAMPLES
from ecgtwin_jax.data.leads import LEADS
from ecgtwin_jax.data.wfdb_record import first_line
from ecgtwin_jax.inference.kept_programs import code_digest, kept_folder
from ecgtwin_jax.models import denoiser

MAX_SIZE = 1 << 16  # of any number of a model
_REPEATS = (
  *("depth", "levels", "level_blocks", "blocks", "middle", "resampler_depth"),
  "beat_gates",
)


def check_sizes(part: str, model: dict[str, Any], count: int) -> None:
  """Refuses a model that would take for ever to build.

  Args:
    part: name of the part.
    model: its sizes.
    count: how many arrays the part has: each block has one at least.

  Raises:
    ValueError: a size is not in 0..65536, or there are more blocks than arrays.
  """
  blocks = 1
  for key, size in model.items():
    if isinstance(size, dict):
      check_sizes(part, size, count)
      continue
    several = isinstance(size, tuple)
    for number in size if several else (size,):
      if isinstance(number, (int, float)) and not 0 <= number <= MAX_SIZE:
        raise ValueError(f"{part}: {key}={size!r} must be in 0..{MAX_SIZE}")
    if several:
      blocks *= max(1, len(size))
    elif key in _REPEATS:
      blocks *= max(1, size)
  if blocks > max(count, 1):
    raise ValueError(f"{part}: {model} has more blocks than {count} arrays")


def check_parameters(name: str, module: nn.Module, params: dict) -> None:
  """Compares a network's parameters with those that it is built of.

  Args:
    name: encoder, decoder, base_extractor, denoiser or rhythm.
    module: the network.
    params: its parameters.

  Raises:
    ValueError: the network cannot be built, or names are missing, not known or
      of another shape.
  """
  found = {
    key: tuple(value.shape)
    for key, value in traverse_util.flatten_dict(params, sep="/").items()
  }
  accepted = _accepted_before(name, module, found)
  if accepted is not None and os.path.exists(accepted):
    return
  try:
    wanted = wanted_shapes(name, module)
  # A module has its own words for each number that it cannot use.
  except Exception as error:
    raise ValueError(
      f"the {name} cannot be built of its hyper-parameters "
      f"({first_line(error)})"
    ) from None
  faults = [f"{key} is missing" for key in wanted.keys() - found.keys()]
  faults += [f"{key} is not known" for key in found.keys() - wanted.keys()]
  faults += [
    f"{key} {found[key]} must be {shape}"
    for key, shape in wanted.items()
    if found.get(key, shape) != shape
  ]
  if faults:
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    raise ValueError(
      f"the {name}'s arrays are not those of its hyper-parameters: "
      f"{min(faults)}{more}"
    )
  if accepted is not None:
    with contextlib.suppress(OSError):  # then the next process traces, too
      accepted.parent.mkdir(parents=True, exist_ok=True)
      accepted.touch()


def _accepted_before(
  name: str, module: nn.Module, found: dict[str, tuple[int, ...]]
) -> pathlib.Path | None:
  """An empty file beside the compiled programs: such arrays were accepted.

  Tracing the networks anew takes a tenth of the second command's time.
  """
  folder = kept_folder()
  if folder is None:
    return None
  text = repr((code_digest(), name, module, sorted(found.items())))
  return folder / f"parameters-{hashlib.sha256(text.encode()).hexdigest()}"


@functools.lru_cache(maxsize=64)
def wanted_shapes(name: str, module: nn.Module) -> dict[str, tuple[int, ...]]:
  """Shapes of the parameters that training starts from."""

  def zeros(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)

  one = zeros(1, dtype=jnp.int32)
  text = zeros(1, 1, getattr(module, "text_width", 1))
  condition = text, zeros(1, 1, dtype=bool), zeros(1, 3)
  method, options = None, {}
  match name:
    case "encoder":
      inputs = (zeros(1, MODEL_SAMPLES, len(LEADS)),)
    case "rhythm":
      beats = zeros(1, 2), zeros(1, 2, dtype=jnp.int32)
      inputs = (*beats, beats[1], zeros(1), *condition)
    case _:
      inputs = (zeros(1, LATENT_LENGTH, module.latent_channels),)
  if name == "base_extractor":
    inputs, method = (*inputs, *condition), _all_of_base_extractor
  if name == "denoiser":
    channels = denoiser.BEAT_TRACKS[module.beat_track]
    track = zeros(1, LATENT_LENGTH, channels) if channels else None
    base = zeros(1, module.base_width)
    inputs = (*inputs, one, *condition, base, track)
    if module.null_condition:
      options["drop_statements"] = zeros(1, dtype=bool)
  init = functools.partial(module.init, method=method)
  variables = jax.eval_shape(init, jax.random.key(0), *inputs, **options)
  flat = traverse_util.flatten_dict(variables["params"], sep="/")
  return {key: tuple(value.shape) for key, value in flat.items()}


def _all_of_base_extractor(module, latent, *condition):
  base = module(latent, *condition)
  if module.median_beat:
    module.predict_beat(base, *condition)
