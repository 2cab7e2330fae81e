"""nomic-embed-text as a statement encoder: statements -> unit vectors."""

import collections
import functools
import hashlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32
from tqdm import tqdm

from ecgtwin_jax.models.text_encoder import NomicBERT, pool_tokens
from ecgtwin_jax.text import hub_folder

# Every call has this many rows, so there is one compilation per length, and a
# vector does not depend on its company: a product's rounding follows its shape.
_ROWS = 16
_SHORTEST = 8  # tokens; longer statements are padded to the next power of two


@functools.partial(jax.jit, static_argnums=0)
def embed_tokens(
  model: NomicBERT,
  params: dict[str, Any],
  ids: Int[Array, "b l"],
  lengths: Int[Array, " b"],
) -> Float[Array, "b d"]:
  """Embeds rows of token ids, of which the first `lengths` are valid."""
  mask = jnp.arange(ids.shape[1])[None] < lengths[:, None]
  return pool_tokens(model.apply({"params": params}, ids, mask), mask)


class TextEncoder:
  """Statements -> unit vectors, by a language model of the NomicBERT kind.

  Attributes:
    name: name of the model, as in `get_encoder`; stored with every table.
    revision: first 16 hexadecimal digits of the sha256 of model.safetensors.
    width: length of a vector.
  """

  def __init__(
    self,
    name: str,
    revision: str,
    model: NomicBERT,
    params: dict[str, Any],
    tokenizer: Any,
    longest: int,
  ):
    self.name = name
    self.revision = revision
    self.width = model.width
    self._model = model
    self._params = params
    self._tokenizer = tokenizer
    self._longest = longest

  def embed(self, statements: list[str]) -> Float32[np.ndarray, "n d"]:
    """Returns one unit vector per statement; equal statements cost one.

    No task prefix is added. A progress bar is shown when there is more than one
    batch.

    Raises:
      ValueError: If a statement is blank, longer than the model was trained on,
        or mostly made of words that the vocabulary cannot spell.
    """
    place = {text: i for i, text in enumerate(dict.fromkeys(statements))}
    vectors = np.zeros((len(place), self.width), np.float32)
    tokens = self._tokenize(list(place))
    with tqdm(
      desc=self.name,
      total=len(place),
      unit=" statements",
      disable=len(place) <= _ROWS,
    ) as progress:
      for rows, ids, lengths in _batches(tokens):
        batch = embed_tokens(self._model, self._params, ids, lengths)
        vectors[rows] = np.asarray(batch)[: len(rows)]
        progress.update(len(rows))
    return vectors[np.array([place[text] for text in statements], int)]

  def _tokenize(self, statements: list[str]) -> list[list[int]]:
    tokens = self._tokenizer(statements)["input_ids"] if statements else []
    for statement, ids in zip(statements, tokens):
      words = len(ids) - 2  # without [CLS] and [SEP]
      unknown = ids.count(self._tokenizer.unk_token_id)
      if words < 1 or 2 * unknown > words:
        raise ValueError(
          f"{statement=} must hold words that {self.name} can spell: "
          f"{unknown} of its {words} tokens are unknown"
        )
      if len(ids) > self._longest:
        raise ValueError(
          f"statement {statement[:40]!r}... has {len(ids)} tokens, must have "
          f"at most {self._longest}"
        )
    return tokens


def _batches(
  tokens: list[list[int]],
) -> Iterator[tuple[list[int], Int32[Array, "b l"], Int32[Array, " b"]]]:
  """Yields (places, ids, lengths) of like length, padded to few shapes."""
  groups = collections.defaultdict(list)
  for i, ids in enumerate(tokens):
    groups[max(_SHORTEST, 1 << (len(ids) - 1).bit_length())].append(i)
  for length, group in sorted(groups.items()):
    for start in range(0, len(group), _ROWS):
      rows = group[start : start + _ROWS]
      ids = np.zeros((_ROWS, length), np.int32)
      lengths = np.zeros(_ROWS, np.int32)
      for row, i in enumerate(rows):
        lengths[row] = len(tokens[i])
        ids[row, : lengths[row]] = tokens[i]
      yield rows, jnp.asarray(ids), jnp.asarray(lengths)


def load_text_encoder(name: str) -> TextEncoder:
  """Loads nomic-embed-text, or a model of its kind, from this machine.

  Args:
    name: A folder with config.json, model.safetensors and tokenizer.json, named
      like the model; or a hub name that is in the Hugging Face cache.

  Raises:
    ValueError: If a file is missing or broken, or describes another kind of
      model.
  """
  folder = hub_folder.find_folder(name)
  model, longest = hub_folder.read_model(folder)
  tokenizer = hub_folder.read_tokenizer(folder, model.vocabulary)
  weights = folder / "model.safetensors"
  params = hub_folder.read_parameters(weights, model)
  with weights.open("rb") as file:
    revision = hashlib.file_digest(file, "sha256").hexdigest()[:16]
  return TextEncoder(
    hub_folder.model_name(folder), revision, model, params, tokenizer, longest
  )
