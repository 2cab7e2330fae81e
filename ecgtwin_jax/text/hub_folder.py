"""A NomicBERT folder of the Hugging Face hub: config, weights, tokenizer.

Reads the files as published, runs none of the code that comes with them and
never downloads: a missing model is an error that names the command to fetch it.
"""

import json
import os
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from flax import traverse_util

from ecgtwin_jax.models.text_encoder import NomicBERT

_OWNER = "nomic-ai"
FETCH = (
  f"`hf download {_OWNER}/nomic-embed-text-v1.5 config.json model.safetensors "
  "tokenizer.json tokenizer_config.json` fetches the published one"
)

# Without tokenizer.json transformers makes up a vocabulary of five tokens.
_FILES = ("config.json", "model.safetensors", "tokenizer.json")

# Our field: its name in the published config.json, and in transformers' own.
_SIZES = {
  "vocabulary": ("vocab_size", "vocab_size"),
  "token_types": ("type_vocab_size", "type_vocab_size"),
  "width": ("n_embd", "hidden_size"),
  "layers": ("n_layer", "num_hidden_layers"),
  "heads": ("n_head", "num_attention_heads"),
  "inner": ("n_inner", "intermediate_size"),
  "eps": ("layer_norm_epsilon", "layer_norm_eps"),
}
# What the network computes; a config that says otherwise is another model.
_FIXED = {
  "model_type": "nomic_bert",
  "activation_function": "swiglu",
  "hidden_act": "silu",
  "prenorm": False,
  "causal": False,
  "parallel_block": False,
  "use_rms_norm": False,
  "qkv_proj_bias": False,
  "mlp_fc1_bias": False,
  "mlp_fc2_bias": False,
  "rotary_emb_fraction": 1.0,
  "rotary_emb_interleaved": False,
  "rotary_emb_scale_base": None,
  "num_experts": 0,
}
_WEIGHTS = {
  "word": "embeddings.word_embeddings",
  "token_type": "embeddings.token_type_embeddings",
  "norm": "emb_ln",
  "qkv": "attn.Wqkv",
  "out": "attn.out_proj",
  "up": "mlp.fc11",
  "gate": "mlp.fc12",
  "down": "mlp.fc2",
  "norm1": "norm1",
  "norm2": "norm2",
}
_UNUSED = re.compile(r"pooler\.|cls\.|.*(inv_freq|position_ids)$")


def find_folder(name: str) -> pathlib.Path:
  """Finds a text model's files: a folder, or a hub name in the local cache.

  Args:
    name: A folder, `owner/model` of the hub, or `model` of nomic-ai.

  Raises:
    ValueError: If there is no such model, or files of it are missing, with the
      command that fetches the model.
  """
  folder = pathlib.Path(name).expanduser()
  if folder.is_dir():
    return _require_files(folder)
  hub_name = name if "/" in name else f"{_OWNER}/{name}"
  if re.fullmatch(r"[\w.-]+/[\w.-]+", hub_name):
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(hub_name, "config.json")
    if isinstance(config, str):
      return _require_files(pathlib.Path(config).parent)
  raise ValueError(
    f"text model {name!r} is neither a folder nor in the Hugging Face cache; "
    f"{FETCH}; encoder 'hashed-v1' works without files"
  )


def _require_files(folder: pathlib.Path) -> pathlib.Path:
  missing = [name for name in _FILES if not (folder / name).exists()]
  if missing:
    raise ValueError(f"{folder} must hold {', '.join(missing)}; {FETCH}")
  return folder


def model_name(folder: pathlib.Path) -> str:
  """The name stored with the vectors: of the model, not of this machine."""
  folder = folder.resolve()
  cached = folder.parent.parent.name  # models--owner--model/snapshots/commit
  if folder.parent.name == "snapshots" and cached.startswith("models--"):
    name = cached.removeprefix("models--").replace("--", "/", 1)
    return name.removeprefix(f"{_OWNER}/")
  return folder.name


def read_model(folder: pathlib.Path) -> tuple[NomicBERT, int]:
  """Reads config.json: the network with its sizes, and the longest text.

  Returns:
    The module, and the number of tokens it was trained on (2048 as published).

  Raises:
    ValueError: If the file is missing or unreadable, lacks a size, or describes
      another network than NomicBERT with SwiGLU, rotary positions, no biases.
  """
  path = folder / "config.json"
  try:
    config = dict(json.loads(path.read_text()))
  except (OSError, ValueError, TypeError) as e:
    raise ValueError(f"{path} is not a readable config: {e}") from e
  for key, value in _FIXED.items():
    if config.get(key) not in (None, value):
      raise ValueError(f"{path}: {key} is {config[key]!r}, must be {value!r}")
  sizes = {}
  for field, names in _SIZES.items():
    found = [config[key] for key in names if config.get(key) is not None]
    if not found:
      raise ValueError(f"{path} must have {names[0]} or {names[1]}")
    sizes[field] = found[0]
  if sizes["width"] % (2 * sizes["heads"]):
    raise ValueError(
      f"{path}: width {sizes['width']} must be a multiple of twice the "
      f"{sizes['heads']} heads"
    )
  rotary = config.get("rope_parameters") or {}
  if rotary.get("rope_type", "default") != "default":
    raise ValueError(f"{path}: rope_type {rotary['rope_type']!r} is unknown")
  base = config.get("rotary_emb_base") or rotary.get("rope_theta") or 1000.0
  longest = config.get("max_trained_positions")
  longest = longest or config.get("max_position_embeddings") or 2048
  return NomicBERT(**sizes, rotary_base=float(base)), longest


def _refuse(path: pathlib.Path, verb: str, keys: list[str]) -> None:
  if keys:
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    raise ValueError(f"{path} {verb} weights {', '.join(keys[:5])}{more}")


def _file_key(path: tuple[str, ...]) -> str:
  """Name in the file: ("layer_3", "up", "kernel") -> ...3.mlp.fc11.weight."""
  layer = path[0].removeprefix("layer_")
  prefix = f"encoder.layers.{layer}." if len(path) == 3 else ""
  leaf = "bias" if path[-1] == "bias" else "weight"
  return f"{prefix}{_WEIGHTS[path[-2]]}.{leaf}"


def read_parameters(path: pathlib.Path, model: NomicBERT) -> dict[str, Any]:
  """Reads model.safetensors into the parameters of `model`, as float32.

  Raises:
    ValueError: If the file is unreadable, a weight is missing or unknown, or a
      shape contradicts the sizes in config.json.
  """
  tokens = jnp.zeros((1, 1), jnp.int32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), tokens, tokens > 0)
  wanted = {}  # Dense keeps the transpose of PyTorch's weight
  for leaf, array in traverse_util.flatten_dict(shapes["params"]).items():
    shape = array.shape[::-1] if leaf[-1] == "kernel" else array.shape
    wanted[_file_key(leaf)] = leaf, shape
  params = {}
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      keys = {key for key in file.keys() if not _UNUSED.match(key)}
      _refuse(path, "lacks", sorted(wanted.keys() - keys))
      _refuse(path, "has unknown", sorted(keys - wanted.keys()))
      for key, (leaf, shape) in wanted.items():
        weight = file.get_tensor(key).astype(np.float32)
        if weight.shape != shape:
          raise ValueError(
            f"{path}: {key} has shape {weight.shape}, must have {shape} by "
            "config.json"
          )
        weight = weight.T if leaf[-1] == "kernel" else weight
        params[leaf] = jnp.asarray(weight)
  except (OSError, safetensors.SafetensorError) as e:
    raise ValueError(f"{path} is not a readable safetensors file: {e}") from e
  return traverse_util.unflatten_dict(params)


def read_tokenizer(folder: pathlib.Path, vocabulary: int) -> Any:
  """Reads the folder's WordPiece tokenizer, a transformers.BertTokenizer.

  Raises:
    ValueError: If it is unreadable, or its vocabulary has another size than the
      network's, which is padded to a multiple of 64.
  """
  # Without PyTorch, transformers says at import that models are missing.
  os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
  from transformers import BertTokenizer

  try:
    tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
  except Exception as e:  # tokenizers raises plain Exception
    raise ValueError(f"{folder}: unreadable tokenizer: {e!r}") from e
  if not vocabulary - 64 < len(tokenizer) <= vocabulary:
    raise ValueError(
      f"{folder}: the tokenizer's vocabulary has {len(tokenizer)} tokens, must "
      f"have {vocabulary - 63}..{vocabulary} as in config.json"
    )
  return tokenizer
