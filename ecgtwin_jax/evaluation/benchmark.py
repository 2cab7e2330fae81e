"""A public benchmark of ECG twins: simulated patients, any system's twins.

  ecgtwin-benchmark make FOLDER       references, conditions and seeds
  ecgtwin-benchmark score FOLDER TWINS    the report's table on TWINS
  ecgtwin-benchmark table FOLDER [NAME=TWINS ...]    the verdicts on a second
                       recording, every planted cheater, and TWINS, as Markdown

The task is a file of requests: the reference recording of a patient and a
condition that the patient is to have. What is asked for is simulated, so the
true twin is known. All of it follows from the seed in benchmark.json.
"""

import argparse
import csv
import itertools
import json
import pathlib
import sys
import types
import zipfile
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from ecgtwin_jax.constants import MODEL_SAMPLES
from ecgtwin_jax.data.ecg import ECG, read_ecg
from ecgtwin_jax.data.leads import order_leads
from ecgtwin_jax.data.wfdb_record import first_line
from ecgtwin_jax.evaluation import cheaters, report
from ecgtwin_jax.evaluation.evaluate import EVALUATORS, find_evaluator
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.levels import (
  LEVELS,
  EvaluationContext,
  Measured,
  Recordings,
)
from ecgtwin_jax.evaluation.metric import Metric
from ecgtwin_jax.evaluation.privacy import risk
from ecgtwin_jax.evaluation.verdict import give_verdicts
from ecgtwin_jax.simulator import simulate

VERSION = 1
HONEST = "second recording"  # of the same patient: what no twin surpasses
_LEVELS = (
  "fidelity",
  "condition",
  "physiology",
  "person",
  "truth",
  "privacy",
)
_REQUESTS = "requests.csv"
# Of what benchmark.json or the command says; 2 patients tell one from another.
_LEAST = {"seed": 0, "patients": 2, "targets": 1, "samples": 1, "training": 2}
_MOST = 10_000
_MAX_BYTES = 1 << 32  # of twins in one file


class Task(NamedTuple):
  """What benchmark.json says, and all that follows from it.

  Attributes:
    seed: of the patients who are asked for; patients of seed + 1 may be trained
      on, those of seed + 2 are unseen ones to compare with.
    patients: who are asked for.
    targets: conditions of each.
    samples: ECGs of each request.
    training: patients of seed + 1 whose recordings a replay is looked for in.
  """

  seed: int = 2026
  patients: int = 100
  targets: int = 2
  samples: int = 2
  training: int = 200


def make(folder: pathlib.Path, task: Task) -> None:
  """Writes benchmark.json, requests.csv and the reference recordings.

  Args:
    folder: to be made; its files are replaced.
    task: what to write.
  """
  (folder / "references").mkdir(parents=True, exist_ok=True)
  rows = []
  for number in range(task.patients):
    first, *later = _recordings(task.seed, number, task.targets)
    record = f"references/{first.record_id}"
    first.ecg.write(folder / f"{record}.hea")
    for k, shown in enumerate(later):
      rows.append(
        {
          "record": record,
          "now_statements": first.condition.text(),
          "now_heart_rate": first.condition.heart_rate,
          "now_age": first.condition.age,
          "now_sex": first.condition.sex,
          "target_statements": shown.condition.text(),
          "target_heart_rate": shown.condition.heart_rate,
          "target_age": shown.condition.age,
          "target_sex": shown.condition.sex,
          "n": task.samples,
          "seed": number * task.targets + k,
        }
      )
  with (folder / _REQUESTS).open("w", newline="", encoding="utf-8") as file:
    table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
  entry = {"version": VERSION, **task._asdict()}
  (folder / "benchmark.json").write_text(json.dumps(entry, indent=1) + "\n")


def read_task(folder: pathlib.Path) -> Task:
  """Reads benchmark.json.

  Raises:
    ValueError: there is none, or it is another version's.
  """
  try:
    entry = json.loads((folder / "benchmark.json").read_text())
    version = entry.pop("version")
    task = Task(**entry)
    _check(task)
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      f"{str(folder)!r} is no benchmark ({error}): ecgtwin-benchmark make "
      f"{folder}"
    ) from None
  if version != VERSION:
    raise ValueError(f"{str(folder)!r}: {version=} must be {VERSION}")
  return task


def _check(task):
  for name, value in task._asdict().items():
    most = 1 << 32 if name == "seed" else _MOST
    if type(value) is not int or not _LEAST[name] <= value <= most:
      raise ValueError(
        f"--{name}={str(value)[:60]} must be in {_LEAST[name]}..{most}"
      )


def _recordings(seed, number, targets):
  return simulate.cohort_recordings(seed, number, targets + 1)


def _signal(shown):
  return shown.ecg.resample(MODEL_SAMPLES).signal.astype(np.float32)


class Exam(NamedTuple):
  """The rows of a task with their answers.

  Attributes:
    rows: (reference, target) of each request.
    references: in mV at 102.4 Hz.
    real: the true recordings under the target conditions.
    numbers: of the patients.
    recordings: that may be trained on, and unseen ones.
  """

  rows: list[tuple[simulate.Recording, simulate.Recording]]
  references: Float32[np.ndarray, "n 1024 12"]
  real: Float32[np.ndarray, "n 1024 12"]
  numbers: np.ndarray
  recordings: Recordings

  def examples(self, twins: Float32[np.ndarray, "n k 1024 12"]) -> Examples:
    """These rows with somebody's twins."""
    return Examples(
      patients=self.numbers,
      references=self.references,
      reference_conditions=tuple(first.condition for first, _ in self.rows),
      real=self.real,
      conditions=tuple(shown.condition for _, shown in self.rows),
      generated={"twin": twins},
      reference_ids=tuple(first.record_id for first, _ in self.rows),
      real_ids=tuple(shown.record_id for _, shown in self.rows),
    )


def set_exam(task: Task) -> Exam:
  """Simulates the requests' answers, and recordings to look for replays in."""
  rows = []
  for number in range(task.patients):
    first, *later = _recordings(task.seed, number, task.targets)
    rows += [(first, shown) for shown in later]
  pools = [
    [
      shown
      for number in range(patients)
      for shown in simulate.cohort_recordings(task.seed + step, number, 2)
    ]
    for step, patients in ((1, task.training), (2, max(task.training // 2, 2)))
  ]
  return Exam(
    rows,
    np.stack([_signal(first) for first, _ in rows]),
    np.stack([_signal(shown) for _, shown in rows]),
    np.array([shown.patient_id for _, shown in rows]),
    Recordings(
      *(np.stack([_signal(shown) for shown in pool]) for pool in pools),
      *(np.array([shown.patient_id for shown in pool]) for pool in pools),
    ),
  )


def set_scene(task: Task, exam: Exam) -> cheaters.Scene:
  """What cheaters are made from; its honest twins are second recordings."""
  return cheaters.set_scene(
    exam.references,
    exam.real,
    [shown.condition for _, shown in exam.rows],
    [shown.patient for _, shown in exam.rows],
    exam.numbers,
    exam.recordings.train,
    samples=task.samples,
    seed=task.seed,
  )


def read_twins(
  path: pathlib.Path, rows: int, samples: int
) -> Float32[np.ndarray, "n k 1024 12"]:
  """Reads any system's twins.

  Args:
    path: an .npz with `signals` (rows, samples, s, 12) in mV over 10 s, leads
      in clinical order or named in `leads`; or a folder with a WFDB, .npz or
      .csv file row00001_0 for the first sample of the first request, and so on,
      in folders row_00001 or not, as `ecgtwin --config=generate` writes them.
    rows: requests.
    samples: of each.

  Raises:
    ValueError: something is missing, or not of this shape.
  """
  if path.suffix == ".npz":
    return _read_array(path, rows, samples)
  twins = np.empty((rows, samples, MODEL_SAMPLES, 12), np.float32)
  for row, sample in itertools.product(range(rows), range(samples)):
    name = f"row{row + 1:05d}_{sample}"
    places = [
      place / f"{name}{suffix}"
      for place in (path, path / f"row_{row + 1:05d}")
      for suffix in (".hea", ".npz", ".csv")
    ]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
      raise ValueError(
        f"{str(path)!r} must hold {name}.hea, .npz or .csv: {rows} requests "
        f"with {samples} samples each"
      )
    twins[row, sample] = read_ecg(found).resample(MODEL_SAMPLES).signal
  return twins


def _read_array(path, rows, samples):
  signals, leads = _open_array(path)
  if len(signals.shape) != 4 or signals.shape[::3] != (rows, 12):
    raise ValueError(
      f"{str(path)!r}: signals {signals.shape} must be ({rows}, k, s, 12)"
    )
  if signals.shape[1] < samples or not np.isfinite(signals).all():
    raise ValueError(
      f"{str(path)!r}: signals {signals.shape} must be finite, with {samples} "
      "samples"
    )
  shape = signals.shape
  signals = signals[:, :samples].astype(np.float64)
  flat = signals.reshape(-1, *shape[2:])
  if leads is not None:
    flat = np.stack([order_leads(signal, leads) for signal in flat])
  ecgs = [ECG(signal, shape[2] / 10) for signal in flat]
  flat = np.stack([ecg.resample(MODEL_SAMPLES).signal for ecg in ecgs])
  return flat.reshape(rows, samples, MODEL_SAMPLES, 12).astype(np.float32)


def _open_array(path):
  """The signals and names of leads in an archive, whose size is looked at."""
  try:
    with zipfile.ZipFile(path) as archive:
      size = sum(member.file_size for member in archive.infolist())
      if size > _MAX_BYTES:
        raise ValueError(f"{size} bytes must be at most {_MAX_BYTES}")
    with np.load(path, allow_pickle=False) as arrays:
      leads = arrays["leads"].tolist() if "leads" in arrays else None
      signals = arrays["signals"]
    if signals.dtype.kind not in "iuf":
      raise ValueError(f"numbers are needed, not {signals.dtype}")
  except OSError:
    raise
  except Exception as error:  # an archive may say anything
    raise ValueError(
      f"{str(path)!r} must be an .npz file with signals: {first_line(error)}"
    ) from None
  return signals, leads


def measure(
  task: Task,
  exam: Exam,
  twins: Float32[np.ndarray, "n k 1024 12"],
  *,
  levels: Sequence[str] = _LEVELS,
) -> dict[str, Measured]:
  """The report's figures and pictures of somebody's twins, level by level.

  Figures that need a twin's weights are dashes. The evaluators are the shipped
  ones, which know patients of other seeds.

  Args:
    task: whose twins.
    exam: of it.
    twins: of each request.
    levels: of LEVELS.
  """
  paths = {part: find_evaluator(part, None) for part in EVALUATORS}
  context = EvaluationContext(
    None,
    exam.examples(twins),
    {part: path for part, path in paths.items() if path is not None},
    types.SimpleNamespace(seed=0, published_protocol=False),
    cohort_seed=task.seed,
    recordings=exam.recordings,
  )
  return {level: LEVELS[level].measure(context) for level in levels}


def score(
  folder: pathlib.Path, twins: str, output: pathlib.Path
) -> list[Metric]:
  """Scores twins; writes metrics.json, tables as CSV and report.html.

  Args:
    folder: of `make`.
    twins: see `read_twins`; or the name of a baseline: HONEST or one of
      cheaters.CHEATERS.
    output: where to write.
  """
  task = read_task(folder)
  exam = set_exam(task)
  if twins in (HONEST, *cheaters.CHEATERS):
    signals = _baseline(twins, set_scene(task, exam))
  else:
    signals = read_twins(pathlib.Path(twins), len(exam.rows), task.samples)
  measured = measure(task, exam, signals)
  metrics = [metric for part in measured.values() for metric in part.metrics]
  output.mkdir(parents=True, exist_ok=True)
  report.write_metrics(output, metrics)
  pictures = {}
  for level, part in measured.items():
    pictures[level] = []
    for name, draw in part.pictures.items():
      path = output / f"{level}_{name}.png"
      draw().savefig(path, dpi=110, bbox_inches="tight")
      pictures[level].append(path)
  about = {
    "benchmark": f"version {VERSION}, " + str(task._asdict()),
    "twins": twins,
    "data": "simulated ECGs, no claim about hearts",
  }
  words = {"privacy": risk.describe(metrics)}
  report.write_html(output, about, metrics, pictures, words)
  for answer in give_verdicts(metrics):
    print(f"{answer.question} {answer.word}. {answer.sentence}", flush=True)
  return metrics


def _baseline(name, scene):
  planted = cheaters.CHEATERS.get(name)
  twins = scene.honest if planted is None else planted.make(scene)
  return twins.astype(np.float32)


def tabulate(folder: pathlib.Path, twins: Sequence[str]) -> str:
  """The verdicts on all baselines and on twins, a row each, as Markdown.

  Args:
    folder: of `make`.
    twins: NAME=PATH of each, see `read_twins`.

  Raises:
    ValueError: one of them has no name, or cannot be read.
  """
  task = read_task(folder)
  exam = set_exam(task)
  scene = set_scene(task, exam)
  signals = {}
  for given in twins:
    name, equals, path = given.partition("=")
    if not name or not equals:
      raise ValueError(f"{given!r} must be NAME=PATH")
    signals[name] = read_twins(pathlib.Path(path), len(exam.rows), task.samples)
  lines = []
  for name in (*signals, HONEST, *cheaters.CHEATERS):
    chosen = signals[name] if name in signals else _baseline(name, scene)
    parts = measure(task, exam, chosen).values()
    found = give_verdicts([metric for part in parts for metric in part.metrics])
    if not lines:
      lines = [["twins", *(answer.question for answer in found)]]
      lines += [["---"] * len(lines[0])]
    lines += [[name, *(answer.word for answer in found)]]
    print(f"{name}: {', '.join(lines[-1][1:])}", file=sys.stderr, flush=True)
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: list[str] | None = None) -> int:
  """The command ecgtwin-benchmark."""
  parser = argparse.ArgumentParser("ecgtwin-benchmark", description=__doc__)
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  commands = parser.add_subparsers(dest="command", required=True)
  making = commands.add_parser("make", help="writes the task")
  making.add_argument("folder", type=pathlib.Path)
  for name, default in Task._field_defaults.items():
    making.add_argument(f"--{name}", type=int, default=default)
  scoring = commands.add_parser("score", help="scores twins")
  scoring.add_argument("folder", type=pathlib.Path)
  names = ", ".join(map(repr, (HONEST, *cheaters.CHEATERS)))
  scoring.add_argument(
    "twins", help=f"a folder or .npz, or the name of a baseline: {names}"
  )
  scoring.add_argument("--output", type=pathlib.Path, default="scored")
  tabling = commands.add_parser("table", help="scores baselines and twins")
  tabling.add_argument("folder", type=pathlib.Path)
  tabling.add_argument("twins", nargs="*", metavar="NAME=TWINS")
  given = vars(parser.parse_args(arguments))
  try:
    command = given.pop("command")
    if command == "make":
      folder = given.pop("folder")
      task = Task(**given)
      _check(task)
      make(folder, task)
      print(f"{folder}: {given['patients'] * given['targets']} requests")
    elif command == "score":
      score(**given)
    else:
      print(tabulate(**given))
  except (ValueError, OSError) as error:
    print(f"ecgtwin-benchmark: {error}", file=sys.stderr)
    return 1
  return 0


if __name__ == "__main__":
  sys.exit(main())
