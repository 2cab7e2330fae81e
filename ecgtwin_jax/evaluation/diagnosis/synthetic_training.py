"""Classifiers trained on real, synthetic and mixed ECGs, from scratch.

Of n training recordings a growing share is replaced by ECGs that a twin, made
from the patient's first recording, gives under the same condition. Tested on
real recordings of test patients (train on synthetic, test on real), and on
their synthetic counterparts (the reverse).
"""

import dataclasses
import pathlib
from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict, FrozenConfigDict
from tqdm import tqdm

from ecgtwin_jax.constants import MODEL_SAMPLES
from ecgtwin_jax.data.dataset import Dataset, load_split
from ecgtwin_jax.data.ecg import ECG, MODEL_RATE
from ecgtwin_jax.data.whole_files import appear_whole
from ecgtwin_jax.evaluation.condition.classifier import ECGClassifier, predict
from ecgtwin_jax.evaluation.diagnosis import fine_tuning
from ecgtwin_jax.evaluation.generate_examples import read_condition, signals_mv
from ecgtwin_jax.inference.sampling import SamplingOptions, Settings
from ecgtwin_jax.inference.twin import ECGTwin
from ecgtwin_jax.text.findings import label_rows
from ecgtwin_jax.training.json_lines import append_line, read_lines

LINES = "shares.jsonl"


class Share(NamedTuple):
  """What a classifier says that was trained on a share of synthetic ECGs.

  Attributes:
    share: share of the training recordings that is synthetic, 0..1.
    real: probabilities that the test patients' later recordings are abnormal.
    synthetic: probabilities that their synthetic counterparts are abnormal.
  """

  share: float
  real: np.ndarray
  synthetic: np.ndarray


def draw_training(
  data: Dataset, limit: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Draws recordings that are not their patient's first, clearly labelled.

  Returns:
    Their rows, the rows of their patients' first recordings, their labels.
  """
  statements = data.table.statements
  (labels,) = label_rows(("abnormal",), statements, data.statement_ids).T
  order = np.lexsort((data.record_id, data.time, data.patient_number))
  _, place = np.unique(data.patient_number[order], return_index=True)
  firsts = order[place][data.patient_number]
  rows = np.flatnonzero((firsts != np.arange(len(data))) & (labels >= 0))
  drawn = np.sort(np.random.default_rng(seed).permutation(rows)[:limit])
  return drawn, firsts[drawn], labels[drawn]


def make_counterparts(
  twin: ECGTwin,
  data: Dataset,
  rows: np.ndarray,
  firsts: np.ndarray,
  folder: pathlib.Path,
  size: int,
  seed: int,
  **sampling: Unpack[SamplingOptions],
) -> np.ndarray:
  """ECGs under the conditions of `rows`, of the people of `firsts`, in mV.

  Kept in pieces of `size` rows, so that a stop loses little.
  """
  folder.mkdir(parents=True, exist_ok=True)
  pieces = []
  for start in tqdm(range(0, len(rows), size), desc=folder.name, disable=None):
    path = folder / f"{start:07d}.npy"
    if not path.exists():
      part = slice(start, start + size)
      now = [read_condition(data, int(row)) for row in firsts[part]]
      signals = signals_mv(data, firsts[part])
      bases = twin.extract_bases([ECG(x, MODEL_RATE) for x in signals], now)
      generated = twin.generate_rows(
        bases,
        [read_condition(data, int(row)) for row in rows[part]],
        [seed] * len(bases),
        list(range(start, start + len(bases))),
        Settings(**sampling),
      )
      with appear_whole(path) as draft:
        np.save(draft, generated.signals.astype(np.float32))
    pieces.append(np.load(path))
  return np.concatenate(pieces)


def mix(
  real: Float[np.ndarray, "n *d"],
  synthetic: Float[np.ndarray, "n *d"],
  share: float,
  seed: int,
) -> np.ndarray:
  """Replaces a share of the real rows by their counterparts.

  The rows of a smaller share are among those of a larger one.
  """
  order = np.random.default_rng(seed).permutation(len(real))
  chosen = order[: round(share * len(real))]
  mixed = np.array(real)
  mixed[chosen] = synthetic[chosen]
  return mixed


def run(
  config: ConfigDict,
  twin: ECGTwin,
  classifier: ECGClassifier,
  data: dict[str, Dataset],
  people: dict[str, list],
) -> list[Share]:
  """Trains one classifier per share of config.synthetic.shares.

  Args:
    config: the configuration of configs/diagnose.py.
    twin: the twin that makes the synthetic ECGs.
    classifier: its sizes are used, not its weights.
    data: {split: recordings}; training recordings are read from config.data.
    people: {split: people}, of whom the test people count.
  """
  settings = FrozenConfigDict(config.synthetic)
  if not settings.shares:
    return []
  train, _ = load_split(config.data, "train", kind="ecg").with_reports()
  if not twin.networks.modules["denoiser"].null_condition:
    train, _ = train.without_missing()
  rows, firsts, labels = draw_training(train, settings.recordings, config.seed)
  sampling = dataclasses.asdict(twin.settings(**config.sampling))
  folder = pathlib.Path(config.workdir)

  def counterparts(split, *where, seed):
    return make_counterparts(
      twin,
      *where,
      folder / f"synthetic_{split}",
      config.twins_at_once,
      seed,
      **sampling,
    )

  synthetic = counterparts("train", train, rows, firsts, seed=config.seed)
  tests = np.concatenate([p.tests for p in people["test"]])
  sources = np.concatenate(
    [np.full(len(p.tests), p.reference) for p in people["test"]]
  )
  test = data["test"]
  recordings_mv = {
    "real": signals_mv(test, tests),
    "synthetic": counterparts(
      "test", test, tests, sources, seed=config.seed + 1
    ),
  }
  real = signals_mv(train, rows)
  known = {line["share"]: line for line in read_lines(folder / LINES)}
  shares = []
  for share in tqdm(settings.shares, desc="shares", disable=None):
    if share not in known:
      mixed = mix(real, synthetic, share, config.seed)
      known[share] = _train(
        classifier.module, mixed, labels, settings, config.seed, recordings_mv
      )
      append_line(folder / LINES, {"share": share, **known[share]})
    scores = known[share]
    shares.append(
      Share(share, np.array(scores["real"]), np.array(scores["synthetic"]))
    )
  return shares


def _train(module, signals, labels, settings, seed, recordings_mv) -> dict:
  start = module.init(jax.random.key(seed), jnp.zeros((1, MODEL_SAMPLES, 12)))
  *_, variables = fine_tuning.tune(
    module, dict(start), signals, labels, settings, seed
  )
  return {
    name: np.round(
      predict(module, "binary", variables, recordings)[:, 0].astype(float), 6
    ).tolist()
    for name, recordings in recordings_mv.items()
  }
