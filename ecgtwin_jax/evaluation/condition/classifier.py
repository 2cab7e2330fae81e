"""A classifier trained on real ECGs, asked about generated ones.

Does a generated ECG show what was asked for? For each finding the classifier's
score tells targets that were to show it from those that were not: the area
under the ROC curve on generated ECGs, beside that on the real ones, and beside
that where the generator was given another target's text.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import (
  NAN,
  Metric,
  bootstrap_interval,
  missing,
)
from ecgtwin_jax.models.classifier import Classifier
from ecgtwin_jax.stages.classifier import scores
from ecgtwin_jax.text.findings import auroc, label_reports
from ecgtwin_jax.training import checkpoint

if TYPE_CHECKING:
  import matplotlib.figure

LEVEL = "condition"
LEAST = 5  # targets with a finding, and without it, for an area to be given
_CHUNK = 64
_REPEATS = 300  # of the bootstrap


class ECGClassifier:
  """A trained classifier: ECGs in, probabilities of its labels out.

  Attributes:
    labels: names, of text.findings.LABELS.
    mode: "binary" or "multilabel".
    module: the network.
    variables: its weights, {"params", "batch_stats"}.
  """

  def __init__(self, hyper: dict, variables: dict):
    self.labels = tuple(hyper["labels"])
    self.mode = hyper["mode"]
    self.module = Classifier(**hyper["model"])
    self.variables = {
      "params": variables["params"],
      **variables.get("model_state", {}),
    }

  @classmethod
  def load(cls, path: str | os.PathLike) -> "ECGClassifier":
    """Reads a run of configs/classifier.py, a checkpoint or a bundle.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: something else is there.
    """
    return cls(*checkpoint.load_weights(os.fspath(path), "classifier"))

  def __call__(
    self, signals: Float[np.ndarray, "n 1024 12"]
  ) -> Float[np.ndarray, "n l"]:
    """Probabilities of ECGs in mV, a column per label."""
    return predict(self.module, self.mode, self.variables, signals)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _predict(module, mode, variables, signals):
  return scores(mode, module.apply(variables, signals))


def predict(
  module: Classifier,
  mode: str,
  variables: dict,
  signals: Float[np.ndarray, "n 1024 12"],
) -> Float[np.ndarray, "n l"]:
  """Probabilities of label 1, in calls of few sizes, since each is compiled."""
  parts = []
  for start in range(0, len(signals), _CHUNK):
    chunk = signals[start : start + _CHUNK]
    size = 1 << (len(chunk) - 1).bit_length()
    padded = np.zeros((size, *signals.shape[1:]), np.float32)
    padded[: len(chunk)] = chunk
    outputs = _predict(module, mode, variables, jnp.asarray(padded))
    parts.append(np.asarray(outputs)[: len(chunk)])
  return np.concatenate(parts)


class Area(NamedTuple):
  """A mean area under the ROC curve, over one finding or several.

  Attributes:
    value: nan where it cannot be given.
    low: lower end of its 95% interval.
    high: upper end.
    with_it: targets that show it.
    unclear: targets left out, as their report does not say.
    n: ECGs.
  """

  value: float
  low: float
  high: float
  with_it: int
  unclear: int
  n: int


class Areas(NamedTuple):
  """What `compute` gives, by finding; "mean" is over those that are frequent.

  Attributes:
    generated: areas of generated ECGs.
    real: areas of the real ECGs under the same conditions.
    shuffled: areas of ECGs given another target's text; None without them.
    lost: real minus generated, over all that are frequent; None of none.
    rare: {finding: (targets with it, targets without it)}, too few of either.
    names: all findings, in order.
  """

  generated: dict[str, Area]
  real: dict[str, Area]
  shuffled: dict[str, float] | None
  lost: Area | None
  rare: dict[str, tuple[int, int]]
  names: tuple[str, ...]


def compute(
  examples: Examples,
  classify: Callable[[np.ndarray], np.ndarray],
  *,
  labels: Sequence[str] | None = None,
  seed: int = 0,
) -> Areas:
  """Areas under the ROC curve: asked for a finding against not asked for it.

  Args:
    examples: real and generated ECGs.
    classify: (n, 1024, 12) in mV -> (n, l), higher where a label is likelier.
    labels: its columns, of text.findings.LABELS; None: classify.labels.
    seed: seed of the bootstrap over patients.
  """
  names = tuple(classify.labels if labels is None else labels)
  stated = label_reports(names, [c.statements for c in examples.conditions])
  real = classify(examples.real)[:, None]
  twins = _classify_samples(classify, examples.twins)
  shuffled = examples.generated.get("shuffled_text")
  ignorant = None if shuffled is None else _classify_samples(classify, shuffled)
  every = np.arange(len(stated))
  columns, rare = {}, {}
  for column, name in enumerate(names):
    ones, zeros = (int((stated[:, column] == v).sum()) for v in (1, 0))
    if min(ones, zeros) < LEAST:
      rare[name] = ones, zeros
    else:
      columns[name] = [column]
  frequent = [column for (column,) in columns.values()]
  if frequent:
    columns["mean"] = frequent

  def area(value, chosen, samples):
    low, high = bootstrap_interval(
      value, examples.patients, repeats=_REPEATS, seed=seed
    )
    with_it = int((stated[:, chosen] == 1).sum())
    unclear = int((stated[:, chosen] < 0).sum())
    n = len(stated) * samples.shape[1]
    return Area(value(every), low, high, with_it, unclear, n)

  def areas(samples):
    return {
      name: area(
        functools.partial(_mean_area, samples, stated, chosen), chosen, samples
      )
      for name, chosen in columns.items()
    }

  def lost(rows):
    real_area = _mean_area(real, stated, frequent, rows)
    return real_area - _mean_area(twins, stated, frequent, rows)

  return Areas(
    areas(twins),
    areas(real),
    None
    if ignorant is None
    else {
      name: _mean_area(ignorant, stated, chosen, every)
      for name, chosen in columns.items()
    },
    area(lost, frequent, twins) if frequent else None,
    rare,
    names,
  )


def _classify_samples(classify, samples):
  n, k = samples.shape[:2]
  flat = classify(samples.reshape(n * k, *samples.shape[2:]))
  return flat.reshape(n, k, -1)


def _mean_area(probabilities, stated, columns, rows):
  """Mean over columns of the area of these rows; each sample counts."""
  areas = []
  for column in columns:
    scored = probabilities[rows, :, column]
    answers = np.repeat(stated[rows, column], scored.shape[1])
    areas.append(auroc(scored.reshape(-1).astype(np.float64), answers))
  return float(np.mean(areas))


def metrics(areas: Areas) -> list[Metric]:
  """The areas, and `auroc_lost_mean`, how much the generated ones lose.

  The baseline is ECGs made from another target's text and still asked about
  their own, or where there are none chance; the reference is the real
  recordings under the same conditions. A finding that too few targets show is
  marked as missing.

  Args:
    areas: what `compute` returns.
  """
  rows = []
  for name in areas.names:
    if name not in areas.rare:
      rows += [_metric(areas, kind, name) for kind in ("generated", "real")]
      continue
    ones, zeros = areas.rare[name]
    why = f"{ones} targets with and {zeros} without: fewer than {LEAST}"
    rows += [
      missing(f"auroc_{kind}_{name}", LEVEL, why, ones, better="higher")
      for kind in ("generated", "real")
    ]
  if areas.lost is None:
    why = "no finding is frequent"
    return rows + [
      missing("auroc_generated_mean", LEVEL, why, better="higher"),
      missing("auroc_real_mean", LEVEL, why, better="higher"),
      missing("auroc_lost_mean", LEVEL, why),
    ]
  generated, real = (_metric(areas, k, "mean") for k in ("generated", "real"))
  lost = Metric(
    "auroc_lost_mean",
    *areas.lost[:3],
    real.value - generated.baseline,
    0.0,
    "lower",
    areas.lost.n,
    LEVEL,
    f"over {len(areas.names) - len(areas.rare)} findings; real minus "
    "generated; baseline: nothing shown; reference: what real ones show",
  )
  return [*rows, generated, real, lost]


def _metric(areas, kind, name):
  area = getattr(areas, kind)[name]
  if name == "mean":
    text = f"over {len(areas.names) - len(areas.rare)} findings; "
  else:
    text = f"{area.with_it} targets with it; "
  text += f"{area.unclear} unclear ones left out; " if area.unclear else ""
  baseline, reference, note = 0.5, NAN, "baseline: chance"
  if kind == "generated":
    reference = areas.real[name].value
    if areas.shuffled is not None:
      baseline = areas.shuffled[name]
      note = "baseline: the text of another target was given"
    note += "; reference: real ECGs"
  return Metric(
    f"auroc_{kind}_{name}",
    area.value,
    area.low,
    area.high,
    baseline,
    reference,
    "higher",
    area.n,
    LEVEL,
    text + note,
  )


def draw(areas: Areas) -> "matplotlib.figure.Figure":
  """Draws the areas of each finding: generated, real and another's text.

  Args:
    areas: what `compute` returns.

  Returns:
    A matplotlib Figure.
  """
  from matplotlib.figure import Figure

  names = list(areas.generated)
  figure = Figure(figsize=(8, 1 + 0.32 * len(names)), layout="constrained")
  axes = figure.subplots()
  for place, name in enumerate(names):
    for kind, color, up in (
      ("real", "#7f7f7f", -0.15),
      ("generated", "#0072b2", 0.15),
    ):
      area = getattr(areas, kind)[name]
      axes.plot([area.low, area.high], [place + up] * 2, color=color)
      axes.plot(
        area.value,
        place + up,
        "o",
        color=color,
        label=kind if not place else None,
      )
    if areas.shuffled is not None:
      axes.plot(
        areas.shuffled[name],
        place + 0.15,
        "x",
        color="#d55e00",
        label="text of another" if not place else None,
      )
  axes.axvline(0.5, color="#cccccc", zorder=0)
  axes.set_yticks(range(len(names)), [n.replace("_", " ") for n in names])
  axes.invert_yaxis()
  axes.set_xlabel("area under the ROC curve, 95% interval over patients")
  if names:
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    axes.set_ylim(len(names) - 0.5, -1.3)
  return figure
