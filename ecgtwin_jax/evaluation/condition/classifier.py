"""A classifier trained on real ECGs, asked about generated ones.

Does a generated ECG show what was asked for? For each finding the classifier's
score tells targets that were to show it from those that were not: the area
under the ROC curve on generated ECGs, beside that on the real ones, and beside
that where the generator was given another target's text.
"""

import functools
import os
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import Metric, bootstrap_interval, missing
from ecgtwin_jax.models.classifier import Classifier
from ecgtwin_jax.stages.classifier import scores
from ecgtwin_jax.text.findings import auroc, label_reports
from ecgtwin_jax.training import checkpoint

LEVEL = "condition"
LEAST = 5  # targets with a finding, and without it, for an area to be given
_CHUNK = 64
_REPEATS = 300  # of the bootstrap


class ECGClassifier:
  """A trained classifier: ECGs in, probabilities of its labels out.

  Attributes:
    labels: names, of data.labels.LABELS.
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
    given = signals[start : start + _CHUNK]
    size = 1 << (len(given) - 1).bit_length()
    part = np.zeros((size, *signals.shape[1:]), np.float32)
    part[: len(given)] = given
    found = _predict(module, mode, variables, jnp.asarray(part))
    parts.append(np.asarray(found)[: len(given)])
  return np.concatenate(parts)


def measure(
  examples: Examples,
  classify: Callable[[np.ndarray], np.ndarray],
  *,
  labels: Sequence[str] | None = None,
  seed: int = 0,
) -> list[Metric]:
  """Areas under the ROC curve: asked for a finding against not asked for it.

  Per finding `auroc_generated_X`, whose floor is that of ECGs made from another
  target's text and still asked about their own, and `auroc_real_X`, of the real
  recordings under the same conditions; then the means over findings, and
  `auroc_lost_mean`, how much the generated ones lose. A finding that too few
  targets show is marked as missing.

  Args:
    examples: real and generated ECGs.
    classify: (n, 1024, 12) in mV -> (n, l), higher where a label is likelier.
    labels: its columns, of data.labels.LABELS; None: classify.labels.
    seed: of the bootstrap over patients.
  """
  names = tuple(classify.labels if labels is None else labels)
  asked = label_reports(names, [c.statements for c in examples.conditions])
  real = classify(examples.real)[:, None]
  twins = _classify_samples(classify, examples.twins)
  shuffled = examples.generated.get("shuffled_text")
  floors = None if shuffled is None else _classify_samples(classify, shuffled)
  metrics, kept = [], []
  for column, name in enumerate(names):
    ones, zeros = ((asked[:, column] == value).sum() for value in (1, 0))
    if min(ones, zeros) < LEAST:
      why = f"{ones} targets with and {zeros} without: fewer than {LEAST}"
      metrics += [
        missing(f"auroc_{kind}_{name}", LEVEL, why, int(ones))
        for kind in ("generated", "real")
      ]
      continue
    kept.append(column)
    metrics += _metrics(
      [column], name, examples, asked, twins, real, floors, seed
    )
  metrics += _means(kept, examples, asked, twins, real, floors, seed)
  return metrics


def _classify_samples(classify, samples):
  n, k = samples.shape[:2]
  flat = classify(samples.reshape(n * k, *samples.shape[2:]))
  return flat.reshape(n, k, -1)


def _mean_area(found, asked, columns, rows):
  """Mean over columns of the area of these rows; each sample counts."""
  areas = []
  for column in columns:
    scored = found[rows, :, column]
    answers = np.repeat(asked[rows, column], scored.shape[1])
    areas.append(auroc(scored.reshape(-1).astype(np.float64), answers))
  return float(np.mean(areas))


def _metrics(columns, name, examples, asked, twins, real, floors, seed):
  everything = np.arange(len(asked))
  floor, note = 0.5, "floor: chance"
  if floors is not None:
    floor = _mean_area(floors, asked, columns, everything)
    note = "floor: the text of another target was given"
  made = []
  for kind, found in (("generated", twins), ("real", real)):
    value = functools.partial(_mean_area, found, asked, columns)
    low, high = bootstrap_interval(
      value, examples.patients, repeats=_REPEATS, seed=seed
    )
    ones = int((asked[:, columns] == 1).sum())
    unclear = int((asked[:, columns] < 0).sum())
    text = f"{ones} targets with it; " if len(columns) == 1 else ""
    text += f"{unclear} unclear ones left out; " if unclear else ""
    text += note if kind == "generated" else "floor: chance"
    made.append(
      Metric(
        f"auroc_{kind}_{name}",
        value(everything),
        low,
        high,
        floor if kind == "generated" else 0.5,
        len(asked) * found.shape[1],
        LEVEL,
        text,
      )
    )
  return made


def _means(kept, examples, asked, twins, real, floors, seed):
  names = ("auroc_generated_mean", "auroc_real_mean", "auroc_lost_mean")
  if not kept:
    return [missing(name, LEVEL, "no finding is frequent") for name in names]
  args = (kept, "mean", examples, asked, twins, real, floors, seed)
  generated, recorded = _metrics(*args)
  text = f"over {len(kept)} findings; "

  def lost(rows):
    return _mean_area(real, asked, kept, rows) - _mean_area(
      twins, asked, kept, rows
    )

  low, high = bootstrap_interval(
    lost, examples.patients, repeats=_REPEATS, seed=seed
  )
  difference = Metric(
    "auroc_lost_mean",
    lost(np.arange(len(asked))),
    low,
    high,
    recorded.value - generated.floor,
    generated.n,
    LEVEL,
    text + "real minus generated: 0 shows what real ones show; floor: "
    "nothing shown",
  )
  return [
    generated._replace(note=text + generated.note),
    recorded._replace(note=text + recorded.note),
    difference,
  ]


def draw(metrics: Sequence[Metric]):
  """Draws the areas of each finding: generated, real and floor.

  Args:
    metrics: from `measure`; missing ones are left out.

  Returns:
    A matplotlib Figure.
  """
  from matplotlib.figure import Figure

  known = {m.name: m for m in metrics if np.isfinite(m.value)}
  start = "auroc_generated_"
  names = [n.removeprefix(start) for n in known if n.startswith(start)]
  figure = Figure(figsize=(8, 1 + 0.32 * len(names)), layout="constrained")
  axes = figure.subplots()
  for place, name in enumerate(names):
    for kind, color, up in (
      ("real", "#7f7f7f", -0.15),
      ("generated", "#0072b2", 0.15),
    ):
      metric = known[f"auroc_{kind}_{name}"]
      axes.plot([metric.low, metric.high], [place + up] * 2, color=color)
      axes.plot(
        metric.value,
        place + up,
        "o",
        color=color,
        label=kind if not place else None,
      )
    axes.plot(
      known[start + name].floor,
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
