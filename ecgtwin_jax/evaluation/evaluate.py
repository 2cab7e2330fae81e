"""The evaluate job: one report on a twin, level by level, on unseen patients.

Each level is kept as soon as it is measured, so that a second run goes on
where the first was stopped.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import time

import jax
import numpy as np
from ml_collections import ConfigDict

from ecgtwin_jax.data.dataset import Dataset, load_split
from ecgtwin_jax.data.whole_files import (
  appear_whole,
  hold,
  is_sealed,
  seal,
  sha256_of,
)
from ecgtwin_jax.evaluation import generate_examples, report
from ecgtwin_jax.evaluation.levels import LEVELS, EvaluationContext
from ecgtwin_jax.evaluation.metric import Metric, missing
from ecgtwin_jax.evaluation.privacy import risk
from ecgtwin_jax.evaluation.verdict import give_verdicts
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.inference.twin import load_twin
from ecgtwin_jax.jobs.outputs import versions
from ecgtwin_jax.training import checkpoint

HALVES = ("validation", "test")
EVALUATORS = ("clip", "identity", "classifier")


def run(config: ConfigDict) -> list[Metric]:
  """Does configs/evaluate.py; returns all metrics.

  Raises:
    ValueError: a level or a split is unknown, the workdir holds the evaluation
      of something else, or another run writes into it.
  """
  unknown = [level for level in config.levels if level not in LEVELS]
  if unknown:
    raise ValueError(f"config.levels={unknown} must be of {', '.join(LEVELS)}")
  twin = load_twin(config.twin)
  data = load_splits(config.data, config.splits)
  if config.half is not None:
    data = take_half(data, config.half)
  with hold(config.workdir):
    return _evaluate(config, twin, data)


def _evaluate(config, twin, data) -> list[Metric]:
  began = time.monotonic()
  folder = pathlib.Path(config.workdir)
  evaluators = find_evaluators(config)
  what = _what(config, twin, data, evaluators)
  generate_examples.claim(folder, what)
  choice = generate_examples.choose(
    data, config.patients, config.conditions, config.seed
  )
  examples = generate_examples.make(
    twin,
    data,
    choice,
    folder / "generated",
    ablations=tuple(config.ablations),
    num_samples=config.num_samples,
    seed=config.seed,
    made_from=json.dumps(what),
    **config.sampling.to_dict(),
  )
  made_from = json.dumps([what, _hashes(folder / "generated")])
  simulated = data.card["name"] == "simulated"
  context = EvaluationContext(
    twin,
    examples,
    evaluators,
    config,
    table=data.table,
    cohort_seed=data.card["options"]["seed"] if simulated else None,
    data=data,
  )
  metrics, pictures = [], {}
  for level in LEVELS:
    if level not in config.levels:
      continue
    started = time.monotonic()
    rows, pictures[level] = _measure(
      level, context, folder, made_from + _more(level, config)
    )
    rows = [_applicable(metric, config.not_applicable) for metric in rows]
    metrics += rows
    seconds = time.monotonic() - started
    print(f"{level}: {len(rows)} figures, {seconds:.0f} s", flush=True)
    print("\n".join(map(report.to_line, rows)), flush=True)
  report.write_metrics(folder, metrics)
  for verdict in give_verdicts(metrics):
    print(f"{verdict.question} {verdict.word}. {verdict.sentence}", flush=True)
  words = {"privacy": risk.describe(metrics)}
  page = report.write_html(
    folder, _about(config, context, data, folder), metrics, pictures, words
  )
  print(f"{time.monotonic() - began:.0f} s; report: {page}")
  return metrics


def load_splits(directory: str, splits: tuple[str, ...]) -> Dataset:
  """Reads splits of a data set with ECGs, as one; those without a report not.

  How many are left out is printed.
  """
  parts = [load_split(directory, split, kind="ecg") for split in splits]
  if not parts:
    raise ValueError("config.splits must name at least one split")
  whole = parts[0] if len(parts) == 1 else _join(parts)
  kept, dropped = whole.with_reports()
  if dropped:
    print(f"{dropped} of {len(whole)} recordings have no report: left out")
  return kept


def _join(parts: list[Dataset]) -> Dataset:
  first = parts[0]
  columns = {
    field.name: np.concatenate([getattr(part, field.name) for part in parts])
    for field in dataclasses.fields(Dataset)
    if isinstance(getattr(first, field.name), np.ndarray)
  }
  arrays = {"ecg": np.concatenate([part.arrays["ecg"] for part in parts])}
  name = "+".join(part.split for part in parts)
  return dataclasses.replace(first, split=name, arrays=arrays, **columns)


def take_half(data: Dataset, half: str) -> Dataset:
  """The recordings of one half of the patients, whatever others there are.

  A patient is of "test" where the first byte of sha256 of the patient's name
  is odd, else of "validation".

  Raises:
    ValueError: the half is neither.
  """
  if half not in HALVES:
    raise ValueError(f"config.half={half!r} must be one of {', '.join(HALVES)}")
  chosen = [half_of(name) == half for name in data.patient_id.tolist()]
  chosen = data.select(np.array(chosen, bool))
  return dataclasses.replace(chosen, split=f"{data.split}, {half} half")


def half_of(patient_id: str) -> str:
  """Which of HALVES a patient of this name is in."""
  return HALVES[hashlib.sha256(patient_id.encode()).digest()[0] % 2]


def find_evaluator(part: str, path: str | None) -> str | None:
  """Where an evaluator lies: at `path`, or shipped; None: nowhere.

  Raises:
    ValueError: `path` holds no such network.
  """
  shipped = twin_directory.shipped("simulated-evaluators")
  if path is not None:
    if not checkpoint.has_weights(path, part):
      raise ValueError(f"config.{part}={path!r} holds no {part}")
    return path
  if twin_directory.is_twin(shipped) and part in twin_directory.parts(shipped):
    return os.fspath(shipped)
  return None


def find_evaluators(config: ConfigDict) -> dict[str, str]:
  """{part: where it lies}, without those that lie nowhere."""
  paths = {part: find_evaluator(part, config[part]) for part in EVALUATORS}
  return {part: path for part, path in paths.items() if path is not None}


def _what(config, twin, data, evaluators) -> dict:
  """What an evaluation depends on."""
  return {
    "twin": twin.digest,
    "data": data.card["fingerprint"],
    "data_options": data.card["options"],
    "splits": list(config.splits),
    "half": config.half,
    "patients": config.patients,
    "conditions": config.conditions,
    "num_samples": config.num_samples,
    "ablations": list(config.ablations),
    "published_protocol": config.published_protocol,
    "training_recordings": config.training_recordings,
    "seed": config.seed,
    "sampling": dataclasses.asdict(twin.settings(**config.sampling)),
    "evaluators": {
      part: twin_directory.digest(checkpoint.load_weights(path, part)[1])
      for part, path in evaluators.items()
    },
  }


def _about(
  config, context: EvaluationContext, data: Dataset, folder
) -> dict[str, str]:
  what = json.loads((folder / "evaluated.json").read_text())
  examples = context.examples
  patients = len(np.unique(examples.patients))
  return {
    "twin": f"{config.twin}, {what['twin']}",
    "data": f"{config.data}, split {data.split}"
    + (
      ""
      if context.cohort_seed is None
      else ": simulated ECGs, no claim about hearts"
    ),
    "targets": f"{len(examples.real)} of {patients} patients; "
    + ", ".join(
      f"{variant} x {g.shape[1]}" for variant, g in examples.generated.items()
    ),
    "sampling": ", ".join(f"{k}={v}" for k, v in what["sampling"].items()),
    "protocol": "as published" if config.published_protocol else "default",
    "seed": str(config.seed),
    "evaluators": "; ".join(
      f"{part} {config[part] or 'simulated-evaluators (shipped)'}, "
      f"sha256 {digest[:16]}"
      for part, digest in what["evaluators"].items()
    ),
    "hardware": f"{os.cpu_count()} x {jax.devices()[0].device_kind}",
    "versions": ", ".join(f"{k} {v}" for k, v in versions().items()),
  }


def _more(level: str, config) -> str:
  """What a level depends on, and no other."""
  return config.counterfactual.to_json() if level == "counterfactual" else ""


def _hashes(folder: pathlib.Path) -> dict[str, str]:
  """{file: sha256} of all arrays in a folder."""
  paths = sorted(folder.glob("*/*.npy"))
  return {os.fspath(p.relative_to(folder)): sha256_of(p) for p in paths}


def _measure(
  level: str, context: EvaluationContext, folder: pathlib.Path, origin: str
):
  """Measures a level, or reads what an earlier run has measured of the same."""
  kept = folder / "levels" / level
  done = kept / "metrics.json"
  if not _is_kept(done, origin):
    if done.exists():
      print(f"{kept} is not as it was written: measured again", flush=True)
    kept.mkdir(parents=True, exist_ok=True)
    for path in kept.glob("*.png"):
      path.unlink()
    measured = LEVELS[level].measure(context)
    assert {m.level for m in measured.metrics} == {level}, level
    for name, draw in measured.pictures.items():
      draw().savefig(kept / f"{name}.png", dpi=110, bbox_inches="tight")
    entry = {
      "metrics": [report.to_json(metric) for metric in measured.metrics],
      "pictures": {p.name: sha256_of(p) for p in sorted(kept.glob("*.png"))},
    }
    with appear_whole(done) as draft:
      draft.write_text(json.dumps(entry))
    seal(done, origin)
  entry = json.loads(done.read_text())
  metrics = [report.from_json(metric) for metric in entry["metrics"]]
  return metrics, [kept / name for name in entry["pictures"]]


def _is_kept(done: pathlib.Path, origin: str) -> bool:
  """True where a level's figures and pictures are as they were written."""
  if not is_sealed(done, origin):
    return False
  pictures = json.loads(done.read_text())["pictures"]
  return all(
    (done.parent / name).is_file() and sha256_of(done.parent / name) == digest
    for name, digest in pictures.items()
  )


def _applicable(metric: Metric, excluded: tuple[str, ...]) -> Metric:
  """The metric, or that it does not apply to these data."""
  parts = [part for part in excluded if part in metric.name]
  if not parts:
    return metric
  why = f"not applicable to these data: config.not_applicable has {parts[0]!r}"
  return missing(metric.name, metric.level, why, better=metric.better)
