"""The space of the evaluation: a trained CLIP's projections."""

import functools
import hashlib
import os
import warnings
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Float

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.inference import sampling, twin_directory
from ecgtwin_jax.inference.conditioning import Conditioner
from ecgtwin_jax.models.clip import CLIP
from ecgtwin_jax.text.statements import StatementEncoder, StatementTable
from ecgtwin_jax.training import checkpoint

BATCH_SIZE = 64


class ClipSpace:
  """Projects ECGs and reports with one CLIP.

  Args:
    hyper: "model", the CLIP's sizes, and "statement_encoder", the name of what
      made the vectors that its text tower was trained on.
    variables: {"params", "model_state"}, as checkpoint.load_weights gives them.
    table: statements with their vectors; None: the encoder makes all.
    encoder: an encoder in place of the one that `hyper` names.
    batch_size: ECGs per call of the jitted network.

  Raises:
    ValueError: the table or the encoder is another one than the CLIP's.
  """

  def __init__(
    self,
    hyper: dict,
    variables: dict,
    *,
    table: StatementTable | None = None,
    encoder: StatementEncoder | str | None = None,
    batch_size: int = BATCH_SIZE,
  ):
    name = hyper["statement_encoder"]
    if table is not None and encoder is None:
      table.require(name)
    self._conditioner = Conditioner(table, name, encoder)
    self._module = CLIP(**hyper["model"])
    self._variables = jax.tree.map(
      jnp.asarray, {"params": variables["params"], **variables["model_state"]}
    )
    self._batch_size = batch_size
    self._projected = {}

  @classmethod
  def load(
    cls,
    path: str | os.PathLike,
    *,
    table: StatementTable | None = None,
    encoder: StatementEncoder | str | None = None,
  ) -> "ClipSpace":
    """Reads a CLIP.

    Args:
      path: a run, a checkpoint, or a twin directory that holds a CLIP.
      table: statements with their vectors, such as the data set's;
        None: the table of the twin directory, where there is one.
      encoder: encoder of other statements; None: the one that the CLIP names.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: there is no CLIP there, or the table is of another encoder.
    """
    hyper, variables = checkpoint.load_weights(path, "clip")
    if table is None and twin_directory.is_twin(epath.Path(path)):
      table = twin_directory.read_table(path)
    return cls(hyper, variables, table=table, encoder=encoder)

  def ecgs(
    self, signals: Float[np.ndarray, "n t 12"]
  ) -> Float[np.ndarray, "n d"]:
    """Projections of ECGs in mV, not normalised; the same ones only once.

    Raises:
      ValueError: a signal is not finite.
    """
    signals = np.ascontiguousarray(signals, np.float32)
    key = hashlib.blake2b(signals.data).digest()
    if key not in self._projected:
      self._projected[key] = self._in_batches("encode_signal", signals)
    return self._projected[key]

  def samples(
    self, signals: Float[np.ndarray, "n k t 12"]
  ) -> Float[np.ndarray, "n k d"]:
    """Projections of k ECGs per row."""
    flat = signals.reshape(-1, *signals.shape[2:])
    return self.ecgs(flat).reshape(*signals.shape[:2], -1)

  def texts(self, conditions: Sequence[Condition]) -> Float[np.ndarray, "n d"]:
    """Projections of reports: of the mean of their statements' vectors."""
    vectors = {}
    for condition in conditions:
      key = _key(condition)
      if key not in vectors:
        vectors[key] = self._mean_vector(condition)
    unique = self._in_batches("encode_text", np.stack(list(vectors.values())))
    place = {key: row for row, key in enumerate(vectors)}
    return unique[[place[_key(condition)] for condition in conditions]]

  def _mean_vector(self, condition: Condition) -> Float[np.ndarray, " e"]:
    # What a request would be warned of is no news of recorded conditions.
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      arrays = self._conditioner.arrays(condition, missing_allowed=True)
    return arrays.statements[arrays.mask].mean(axis=0)

  def _in_batches(
    self, method: str, rows: Float[np.ndarray, "n ..."]
  ) -> Float[np.ndarray, "n d"]:
    bad = np.flatnonzero(~np.isfinite(rows).reshape(len(rows), -1).all(axis=1))
    if len(bad):
      raise ValueError(
        f"{len(bad)} of {len(rows)} inputs of {method} must be finite; the "
        f"first is row {bad[0]}"
      )
    pieces = [
      np.asarray(_project(self._module, method, self._variables, rows[chunk]))
      for chunk in sampling.chunks(len(rows), self._batch_size, fill=True)
    ]
    return np.concatenate(pieces)[: len(rows)]


def _key(condition: Condition):
  """Equal for conditions whose text is embedded alike."""
  vectors = condition.embeddings
  return condition.statements, None if vectors is None else vectors.tobytes()


@functools.partial(jax.jit, static_argnums=(0, 1))
def _project(module, method, variables, rows):
  return module.apply(variables, rows, method=method)
