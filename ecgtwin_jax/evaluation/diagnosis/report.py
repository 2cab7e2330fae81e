"""The figures of personalised diagnosis: controls, tables, a picture."""

import csv
import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ecgtwin_jax.evaluation.metric import (
  NAN,
  Metric,
  bootstrap_interval,
  mean_metric,
  missing,
)
from ecgtwin_jax.evaluation.report import FIELDS, to_json
from ecgtwin_jax.text.findings import auroc

if TYPE_CHECKING:
  import matplotlib.figure

LEVEL = "diagnosis"
# What the classifier of a patient's later recordings was fine-tuned on.
VARIANTS = {
  "population": "no fine-tuning",
  "own": "twins of the patient",
  "own_whole_pass": "twins of the patient, a whole pass as published",
  "stranger": "twins of a random other patient",
  "crowd": "twins of many others",
}
_CONTROLS = ("population", "stranger", "crowd")


class Predictions(NamedTuple):
  """Later recordings and what was said of them, a row each.

  Attributes:
    patients: names.
    records: names.
    labels: 0 normal, 1 abnormal.
    scores: {one of VARIANTS: probability of abnormal before fine-tuning and
      after each of its steps, (n, steps + 1)}.
  """

  patients: np.ndarray
  records: np.ndarray
  labels: np.ndarray
  scores: dict[str, np.ndarray]


def accuracy(
  scores: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"]
) -> float:
  """Share of recordings on the right side of 0.5."""
  return float(((scores > 0.5) == (labels == 1)).mean())


def macro_f1(
  scores: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"]
) -> float:
  """Mean over both classes of 2 TP / (2 TP + FP + FN).

  A class that neither occurs nor is predicted is left out of the mean.
  """
  abnormal, true = scores > 0.5, labels == 1
  parts = []
  for a, b in ((abnormal, true), (~abnormal, ~true)):
    size = int(a.sum() + b.sum())
    if size:
      parts.append(2 * int((a & b).sum()) / size)
  return float(np.mean(parts))


MEASURES = {"accuracy": accuracy, "macro_f1": macro_f1, "auroc": auroc}


def choose_step(
  scores: Float[np.ndarray, "n k"], labels: Int[np.ndarray, " n"]
) -> int:
  """The step, of 1..k - 1, with the least cross-entropy."""
  right = np.where(labels[:, None] == 1, scores, 1 - scores)
  loss = -np.log(np.clip(right, 1e-6, 1)).mean(axis=0)
  return 1 + int(np.argmin(loss[1:]))


def choose_scores(
  validation: Predictions, test: Predictions
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
  """One probability per test recording and control, steps from validation.

  Returns:
    {variant: scores}, "own_whole_pass" (as published) among them, and
    {variant: step}.
  """
  steps = {
    variant: choose_step(validation.scores[variant], validation.labels)
    for variant in ("own", "stranger", "crowd")
  }
  chosen = {"population": test.scores["own"][:, 0]}
  chosen |= {
    variant: test.scores[variant][:, step] for variant, step in steps.items()
  }
  chosen["own_whole_pass"] = test.scores["own"][:, -1]
  return chosen, steps


def _baseline(measure, labels):
  """What always naming the commoner class gives; of the AUROC chance."""
  if measure == "auroc":
    return 0.5
  common = np.full(len(labels), float(labels.mean() > 0.5))
  return MEASURES[measure](common, labels)


def _pooled(name, value, predictions, baseline, note, seed):
  low, high = bootstrap_interval(value, predictions.patients, seed=seed)
  every = np.arange(len(predictions.labels))
  return Metric(
    name,
    value(every),
    low,
    high,
    baseline,
    NAN,
    "higher",
    len(every),
    LEVEL,
    note,
  )


def measure(
  validation: Predictions, test: Predictions, *, seed: int = 0
) -> list[Metric]:
  """Accuracy, macro F1 and AUROC of each control, and what the own twins add.

  Pooled over recordings, and as means over patients (AUROC where a patient has
  both classes); intervals by bootstrap over patients.

  Args:
    validation: predictions that the steps are chosen by.
    test: predictions that are measured.
    seed: what the bootstrap draws from.
  """
  chosen, steps = choose_scores(validation, test)
  labels, metrics = test.labels, []
  for variant, scores in chosen.items():
    note = VARIANTS[variant]
    if variant in steps:
      note += f"; step {steps[variant]}, chosen on validation patients"
    note += "; baseline: always the commoner class"
    for name, function in MEASURES.items():

      def value(rows, scores=scores, function=function):
        return function(scores[rows], labels[rows])

      full = f"diagnosis_{variant}_{name}"
      baseline = _baseline(name, labels)
      metrics += [
        _pooled(full, value, test, baseline, note, seed),
        _per_patient(f"{full}_per_patient", name, scores, test, note, seed),
      ]
  for variant in _CONTROLS:
    for name, function in MEASURES.items():

      def gain(rows, variant=variant, function=function):
        return function(chosen["own"][rows], labels[rows]) - function(
          chosen[variant][rows], labels[rows]
        )

      metrics.append(
        _pooled(
          f"diagnosis_own_minus_{variant}_{name}",
          gain,
          test,
          0.0,
          f"own twins against {VARIANTS[variant]}; baseline: no difference",
          seed,
        )
      )
  return metrics


def _per_patient(name, measure, scores, predictions, note, seed):
  names, place = np.unique(predictions.patients, return_inverse=True)
  rows = [np.flatnonzero(place == i) for i in range(len(names))]
  labels = predictions.labels

  def each(scores):
    function = MEASURES[measure]
    return np.array([function(scores[r], labels[r]) for r in rows])

  common = np.full(len(labels), float(labels.mean() > 0.5))
  baseline = 0.5 if measure == "auroc" else float(each(common).mean())
  values = each(scores)
  # Not a failure of measuring: a patient of one class has no such figure.
  defined = np.isfinite(values)
  if not defined.all():
    note += f"; {(~defined).sum()} of {len(values)} failed: one class alone"
  return mean_metric(
    name,
    values[defined],
    names[defined],
    LEVEL,
    better="higher",
    baseline=baseline,
    note=note,
    seed=seed,
  )


def measure_shares(
  shares: Sequence, test: Predictions, *, seed: int = 0
) -> list[Metric]:
  """AUROC, accuracy and macro F1 by the share of synthetic training ECGs.

  Args:
    shares: the synthetic_training.Share of each training.
    test: predictions whose recordings they classified.
    seed: what the bootstrap draws from.
  """
  metrics = []
  for share in shares:
    percent = round(100 * share.share)
    for kind, scores in (("real", share.real), ("synthetic", share.synthetic)):
      for name, function in MEASURES.items():

        def value(rows, scores=scores, function=function):
          return function(scores[rows], test.labels[rows])

        metrics.append(
          _pooled(
            f"diagnosis_trained_{percent}_percent_synthetic_on_{kind}_{name}",
            value,
            test,
            _baseline(name, test.labels),
            f"trained from scratch, {percent}% of its ECGs synthetic; tested "
            f"on {kind} ones",
            seed,
          )
        )
  return metrics


def write(
  folder: pathlib.Path,
  predictions: dict[str, Predictions],
  shares: Sequence,
  seed: int,
  notes: Sequence[str],
) -> list[Metric]:
  """Writes metrics.json, diagnosis.csv, recordings.csv and diagnosis.png.

  Args:
    folder: where to write; it must exist.
    predictions: {"validation" or "test": predictions}.
    shares: what synthetic_training.run gives.
    seed: what the bootstrap draws from.
    notes: what was left out or replaced; joins the metrics in the file.
  """
  test = predictions["test"]
  metrics = measure(predictions["validation"], test, seed=seed)
  metrics += measure_shares(shares, test, seed=seed)
  if not shares:
    why = "config.synthetic.shares is empty"
    metrics.append(
      missing("diagnosis_trained_synthetic", LEVEL, why, better="higher")
    )
  entries = [to_json(metric) for metric in metrics]
  about = {"metrics": entries, "notes": list(notes), "seed": seed}
  (folder / "metrics.json").write_text(json.dumps(about, indent=1))
  with (folder / "diagnosis.csv").open("w", newline="") as file:
    table = csv.DictWriter(file, FIELDS)
    table.writeheader()
    table.writerows(entries)
  chosen, _ = choose_scores(predictions["validation"], test)
  with (folder / "recordings.csv").open("w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["patient", "record", "abnormal", *chosen])
    table.writerows(
      zip(test.patients, test.records, test.labels, *chosen.values())
    )
  figure = draw(metrics)
  figure.savefig(folder / "diagnosis.png", dpi=110)
  return metrics


def draw(metrics: Sequence[Metric]) -> "matplotlib.figure.Figure":
  """Draws controls with intervals and baselines, and shares if there are.

  Args:
    metrics: what `measure` and `measure_shares` return.

  Returns:
    A matplotlib Figure.
  """
  from matplotlib.figure import Figure

  known = {metric.name: metric for metric in metrics}
  figure = Figure(figsize=(12, 6.5), layout="constrained")
  top, bottom = figure.subplots(2, 3)
  for axes, name in zip(top, MEASURES):
    for place, variant in enumerate(VARIANTS):
      for suffix, up, color in (
        ("", -0.12, "#0072b2"),
        ("_per_patient", 0.12, "#e69f00"),
      ):
        metric = known[f"diagnosis_{variant}_{name}{suffix}"]
        label = "per patient" if suffix else "pooled"
        _point(axes, metric, place + up, color, None if place else label)
    baseline = known[f"diagnosis_own_{name}"].baseline
    axes.axvline(baseline, color="#d55e00", ls=":", label="baseline")
    axes.set_yticks(
      range(len(VARIANTS)),
      [words.replace(", a", ",\na") for words in VARIANTS.values()]
      if name == "accuracy"
      else [],
    )
    axes.set_xlim(-0.03, 1.03)
    axes.invert_yaxis()
    axes.set_title(name.replace("_", " "))
  figure.legend(
    *top[0].get_legend_handles_labels(), loc="outside upper left", ncols=3
  )
  _draw_gains(bottom[0], known)
  for axes, kind in zip(bottom[1:], ("real", "synthetic")):
    _draw_shares(axes, known, kind)
  return figure


def _point(axes, metric, place, color, label):
  axes.plot([metric.low, metric.high], [place, place], color=color)
  axes.plot(metric.value, place, "o", color=color, label=label)


def _draw_gains(axes, known):
  names = [(variant, name) for variant in _CONTROLS for name in MEASURES]
  for place, (variant, name) in enumerate(names):
    metric = known[f"diagnosis_own_minus_{variant}_{name}"]
    _point(axes, metric, place, "#0072b2", None)
  axes.axvline(0, color="#d55e00", ls=":")
  axes.set_yticks(
    range(len(names)),
    [f"{n.replace('_', ' ')} against {a}" for a, n in names],
    fontsize=8,
  )
  axes.invert_yaxis()
  axes.set_title("what the own twins add (pooled)")


def _draw_shares(axes, known, kind):
  start, end = "diagnosis_trained_", f"_percent_synthetic_on_{kind}_auroc"
  rows = sorted(
    (int(name.removeprefix(start).removesuffix(end)), metric)
    for name, metric in known.items()
    if name.startswith(start) and name.endswith(end)
  )
  axes.set_title(f"tested on {kind} ECGs")
  if not rows:
    axes.text(0.5, 0.5, "no trainings", ha="center", transform=axes.transAxes)
    axes.set_axis_off()
    return
  x = [share for share, _ in rows]
  axes.fill_between(
    x,
    [m.low for _, m in rows],
    [m.high for _, m in rows],
    color="#0072b2",
    alpha=0.2,
  )
  axes.plot(x, [m.value for _, m in rows], "o-", color="#0072b2")
  axes.axhline(0.5, color="#d55e00", ls=":")
  axes.set_xlabel("% of the training ECGs that are synthetic")
  axes.set_ylabel("AUROC")
  axes.set_ylim(0, 1.03)
