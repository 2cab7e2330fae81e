"""The trainings: what each stage learns, and from what.

A stage is a module with the functions of `Stage`; training/train.py is the one
loop for all of them.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from jaxtyping import Array
from ml_collections import ConfigDict

Config = ConfigDict  # of configs/, frozen
Batch = dict[str, Any]  # arrays of b rows; each stage's docstring lists them
Tree = Any  # of arrays


class Stage(Protocol):
  """What the loop calls of a stage's module.

  `check` may be missing: then nothing but the loss can stop the training; and
  `start`: then every weight begins as `init` draws it.
  """

  def load_data(self, config: Config) -> Any:
    """Reads the splits; the result has `fingerprint` and `names(rows)`."""

  def load_frozen(self, config: Config, data: Any) -> Tree:
    """What training reads and never changes."""

  def hyper(self, config: Config, data: Any) -> dict[str, Any]:
    """What is needed to rebuild the model, as JSON."""

  def batches(
    self,
    config: Config,
    data: Any,
    start: int,
    process_index: int,
    process_count: int,
  ) -> Iterator[Batch]:
    """This process's rows of the global batches from step `start` on."""

  def init(self, rng: Array, config: Config) -> tuple[Tree, Tree]:
    """Parameters, and what else of the model changes (batch statistics)."""

  def start(self, config: Config, data: Any) -> dict[str, Tree]:
    """Weights that begin as the data or an earlier stage say.

    Whatever init_from says of them. A stage's FIXED names those that stay so.
    """

  def loss(
    self,
    config: Config,
    params: Tree,
    model_state: Tree,
    frozen: Tree,
    batch: Batch,
    rng: Array,
  ) -> tuple[Array, tuple[Tree, dict[str, Array]]]:
    """The loss of the global batch; the model's new state, and metrics."""

  def evaluate(
    self, config: Config, data: Any, frozen: Tree, weights: Tree, put: Callable
  ) -> dict[str, float]:
    """Metrics of held-out data; the smallest "score" is the best checkpoint."""

  def check(
    self, config: Config, step: int, evaluation: dict[str, float]
  ) -> None:
    """Raises ValueError if the training should not go on."""
