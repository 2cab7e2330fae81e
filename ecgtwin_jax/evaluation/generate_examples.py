"""Chooses targets of held-out patients and generates what is compared."""

import json
import pathlib
from typing import NamedTuple, Unpack

import numpy as np
from jaxtyping import Float, Float32, Int
from tqdm import tqdm

from ecgtwin_jax.data.conditions import SEXES, Condition
from ecgtwin_jax.data.dataset import Dataset
from ecgtwin_jax.data.ecg import ECG, MODEL_RATE
from ecgtwin_jax.data.whole_files import appear_whole, is_sealed, seal
from ecgtwin_jax.evaluation.examples import ABLATIONS, Examples
from ecgtwin_jax.inference.sampling import SamplingOptions, Settings
from ecgtwin_jax.inference.twin import ECGTwin

ROWS = 128  # generated between two saves


class Choice(NamedTuple):
  """Rows of a data set: n targets and the reference of each."""

  references: Int[np.ndarray, " n"]
  targets: Int[np.ndarray, " n"]


def choose(data: Dataset, patients: int, conditions: int, seed: int) -> Choice:
  """Draws patients, and up to `conditions` later recordings of each.

  The reference of all targets of a patient is the earliest of their
  references, as a clinic would have it.

  Args:
    data: a split of a data set.
    patients: largest number of patients, of those with a pair of recordings.
    conditions: targets per patient, at most.
    seed: seed of the drawing.

  Raises:
    ValueError: no patient has two recordings that make a pair.
  """
  first, count = data.pairs.patients()
  if not len(first):
    raise ValueError(
      f"{data.directory} ({data.split}) has no patient with two recordings of "
      "different conditions: there is nothing to compare a twin with"
    )
  rng = np.random.default_rng(seed)
  drawn = np.sort(rng.permutation(len(first))[:patients])
  references, targets = [], []
  for start, pairs in zip(first[drawn], count[drawn], strict=True):
    reference, target = data.pairs.pair(np.arange(start, start + pairs))
    reference = reference[0]
    possible = np.unique(target[_later(data, reference, target)])
    chosen = np.sort(rng.permutation(possible)[:conditions])
    targets.extend(chosen)
    references.extend([reference] * len(chosen))
  return Choice(np.array(references), np.array(targets))


def _later(data, reference, targets):
  """Targets of the pairs whose reference is this one."""
  different = (data.heart_rate[targets] != data.heart_rate[reference]) | (
    data.statement_ids[targets] != data.statement_ids[reference]
  ).any(axis=1)
  return different & (targets != reference)


def read_condition(data: Dataset, row: int | np.integer) -> Condition:
  """The condition that a row of a data set shows."""
  ids = data.statement_ids[row]
  age, sex = float(data.age[row]), int(data.sex[row])
  return Condition(
    [data.table.statements[i] for i in ids[ids >= 0]],
    float(np.clip(data.heart_rate[row], 20, 300)),
    None if age < 0 else age,
    None if sex < 0 else SEXES[sex],
  )


def signals_mv(
  data: Dataset, rows: Int[np.ndarray, " n"]
) -> Float32[np.ndarray, "n 1024 12"]:
  """The ECGs of these rows in mV."""
  return data.arrays["ecg"][rows].astype(np.float32) * np.float32(
    data.card["scale"]
  )


def as_ecgs(signals: Float32[np.ndarray, "n 1024 12"]) -> list[ECG]:
  return [ECG(signal, MODEL_RATE) for signal in signals]


def other_rows(
  patients: Int[np.ndarray, " n"], rng: np.random.Generator
) -> Int[np.ndarray, " n"]:
  """For each row a random row of another patient.

  Raises:
    ValueError: there is one patient only.
  """
  if len(np.unique(patients)) < 2:
    raise ValueError(
      "an evaluation needs at least two patients, and the splits it takes have "
      "one: raise --patients, or prepare more, such as with "
      "python -m data_prep simulated --patients=200 --output=DIR"
    )
  return np.array(
    [rng.choice(np.flatnonzero(patients != patient)) for patient in patients]
  )


def matched_rows(
  patients: Int[np.ndarray, " n"],
  reference_conditions: tuple[Condition, ...],
) -> Int[np.ndarray, " n"]:
  """For each row the row of its matched control, the most similar stranger.

  Same sex first, then the same statements of the reference, then the nearest
  age; what is not known counts as different.
  """
  sex = np.array([c.sex or "" for c in reference_conditions])
  age = np.array(
    [np.nan if c.age is None else c.age for c in reference_conditions]
  )
  text = np.array([c.text() for c in reference_conditions])
  chosen = []
  for i, patient in enumerate(patients):
    cost = np.nan_to_num(np.abs(age - age[i]), nan=60.0)
    cost += 1000.0 * (sex != sex[i]) + 200.0 * (text != text[i])
    cost[patients == patient] = np.inf
    chosen.append(int(np.argmin(cost)))
  return np.array(chosen)


def make(
  twin: ECGTwin,
  data: Dataset,
  choice: Choice,
  folder: pathlib.Path,
  *,
  ablations: tuple[str, ...] = ABLATIONS,
  num_samples: int = 1,
  seed: int = 0,
  made_from: str = "",
  **settings: Unpack[SamplingOptions],
) -> Examples:
  """Generates twins and ablations; what an earlier run has generated is read.

  A kept file that is not as it was written, or was made from something else,
  is made again.

  Args:
    twin: the twin that is evaluated.
    data: the split that was chosen from, with ECGs.
    choice: what `choose` returns.
    folder: folder of what is generated.
    ablations: some of ABLATIONS, beside the twin as it should be.
    num_samples: ECGs per target of the twin; one of each ablation.
    seed: of sampling and of the shuffles.
    made_from: all that the ECGs depend on, as text; seals the kept files.
    **settings: of sampling, as ECGTwin.generate has them.

  Raises:
    ValueError: an unknown ablation, or the folder holds an evaluation of
      something else.
  """
  if set(ablations) - set(ABLATIONS):
    raise ValueError(f"{ablations=} must be of {', '.join(ABLATIONS)}")
  folder.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng([seed, 1])
  patients = data.patient_number[choice.targets]
  now = tuple(read_condition(data, row) for row in choice.references)
  then = tuple(read_condition(data, row) for row in choice.targets)
  references = signals_mv(data, choice.references)
  real = signals_mv(data, choice.targets)

  one, place = np.unique(choice.references, return_index=True)
  bases = twin.extract_bases(
    as_ecgs(references[place]), [now[i] for i in place]
  )
  bases = bases[np.searchsorted(one, choice.references)]
  shuffled = other_rows(patients, rng)
  inputs = {
    "twin": (bases, then),
    "shuffled_text": (bases, _swap_texts(then, other_rows(patients, rng))),
    "shuffled_reference": (bases[shuffled], then),
    "zero_base": (np.zeros_like(bases), then),
    "matched_stranger": (bases[matched_rows(patients, now)], then),
  }
  generated = {}
  for variant in ("twin", *ablations):
    count = num_samples if variant == "twin" else 1
    generated[variant] = _generate(
      twin,
      *inputs[variant],
      count,
      seed,
      folder / variant,
      Settings(**settings),
      made_from,
    )
  encoded = np.stack([twin.networks.encode(ecg) for ecg in as_ecgs(real)])
  return Examples(
    patients=patients,
    references=references,
    reference_conditions=now,
    real=real,
    conditions=then,
    generated=generated,
    reference_ids=tuple(data.record_names(choice.references)),
    real_ids=tuple(data.record_names(choice.targets)),
    decoded=twin.networks.decode(encoded),
    bases=bases,
  )


def _swap_texts(conditions, rows) -> tuple[Condition, ...]:
  """Statements and heart rate of other rows; age and sex stay."""
  return tuple(
    Condition(
      conditions[row].statements,
      conditions[row].heart_rate,
      condition.age,
      condition.sex,
    )
    for condition, row in zip(conditions, rows, strict=True)
  )


def _generate(
  twin, bases, conditions, count, seed, folder, settings: Settings, made_from
) -> Float[np.ndarray, "n k 1024 12"]:
  """ECGs of the twin or an ablation, in pieces so that a stop loses little."""
  folder.mkdir(exist_ok=True)
  pieces = []
  starts = range(0, len(bases), ROWS)
  for start in tqdm(starts, desc=f"generating: {folder.name}", disable=None):
    rows = slice(start, start + ROWS)
    path = folder / f"{start:06d}.npy"
    origin = f"{made_from}\n{folder.name}/{path.name}"
    if not is_sealed(path, origin):
      if path.exists():
        print(f"{path} is not as it was written: generated again", flush=True)
      signals = twin.generate_rows(
        np.repeat(bases[rows], count, axis=0),
        [c for c in conditions[rows] for _ in range(count)],
        [seed + start + i // count for i in range(len(bases[rows]) * count)],
        [i % count for i in range(len(bases[rows]) * count)],
        settings,
      ).signals
      signals = signals.reshape(-1, count, *signals.shape[1:])
      with appear_whole(path) as draft:
        np.save(draft, signals.astype(np.float32))
      seal(path, origin)
    pieces.append(np.load(path))
  return np.concatenate(pieces)


def claim(folder: pathlib.Path, what: dict) -> None:
  """Notes what the folder's evaluation is of, or compares with its note.

  Raises:
    ValueError: the folder holds the evaluation of something else; the message
      names the first difference.
  """
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / "evaluated.json"
  what = json.loads(json.dumps(what))
  if not path.exists():
    path.write_text(json.dumps(what, indent=1))
    return
  earlier = json.loads(path.read_text())
  for key in sorted({*what, *earlier}):
    if what.get(key) != earlier.get(key):
      raise ValueError(
        f"{folder} holds an evaluation with {key}={earlier.get(key)!r}, not "
        f"{what.get(key)!r}: name another workdir"
      )
