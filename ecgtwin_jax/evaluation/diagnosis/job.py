"""Personalised auto-diagnosis: does a twin help to diagnose its patient?

A classifier of the population (normal or abnormal) is fine-tuned on twins that
were made from a patient's first recording, and tested on the later ones. Beside
it stand what shows whose doing a gain is: no fine-tuning, the twins of a random
other patient, and as many twins of a crowd of others.

Twins of test patients are made from their first recording alone; how long to
fine-tune is chosen on validation patients; strangers and crowd are validation
patients.
"""

import dataclasses
import pathlib
import time
import warnings

import jax
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict
from tqdm import tqdm

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.dataset import load_split
from ecgtwin_jax.data.ecg import ECG, MODEL_RATE
from ecgtwin_jax.data.whole_files import appear_whole, hold
from ecgtwin_jax.evaluation.diagnosis import prompts, report, synthetic_training
from ecgtwin_jax.evaluation.diagnosis.patients import find_people, number_of
from ecgtwin_jax.evaluation.diagnosis.twins import (
  DiagnosisContext,
  classify_after_tuning,
  load_binary,
  make_twins,
)
from ecgtwin_jax.evaluation.generate_examples import (
  claim,
  read_condition,
  signals_mv,
)
from ecgtwin_jax.evaluation.metric import Metric
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.inference.twin import load_twin
from ecgtwin_jax.training.json_lines import append_line, read_lines

LINES = "patients.jsonl"


class DiagnosisRun:
  """One run over validation and test patients, resumable per patient."""

  def __init__(self, config: ConfigDict):
    if jax.process_count() > 1:
      raise ValueError(
        f"process_count={jax.process_count()} must be 1: run without "
        "--multihost"
      )
    self.config = config
    self.folder = pathlib.Path(config.workdir)
    twin = load_twin(config.twin)
    scaled = prompts.scale_counts(prompts.PROMPTS, config.twins_factor)
    translated, self.replaced = prompts.translate(scaled, twin.statements)
    sampling = dataclasses.asdict(twin.settings(**config.sampling))
    tuning = FrozenConfigDict(config.fine_tuning)
    self.context = DiagnosisContext(
      twin, load_binary(config), translated, sampling, tuning, config.seed
    )
    self.labels = np.array(prompts.labels_of(translated))
    self.data, self.people, self.notes = {}, {}, []
    for split, limit in (
      ("validation", config.validation_patients),
      ("test", config.patients),
    ):
      self._open(split, limit)
    self._assign_strangers()

  def _open(self, split, limit):
    data = load_split(self.config.data, split, kind="ecg")
    data, dropped = data.with_reports()
    if dropped:
      self.notes.append(f"{split}: {dropped} recordings have no report")
    if not self.context.twin.networks.modules["denoiser"].null_condition:
      data, dropped = data.without_missing()
      if dropped:
        self.notes.append(f"{split}: {dropped} recordings lack age or sex")
    people, unclear = find_people(data, limit, self.config.seed)
    if len(people) < 2:
      raise ValueError(
        f"{self.config.data!r} ({split}) holds {len(people)} patients with a "
        "later recording that its report calls normal or abnormal; 2 are needed"
      )
    if unclear:
      self.notes.append(
        f"{split}: {unclear} later recordings are neither normal nor abnormal "
        "by their report and are left out"
      )
    self.data[split], self.people[split] = data, people

  def _assign_strangers(self):
    """Whose twins stand in for a person's own: {place: [(split, person)]}."""
    others = self.people["validation"]
    rng = np.random.default_rng([self.config.seed, 2])
    self.guests = {place: [] for place in range(len(others))}
    for i, person in enumerate(others):
      self.guests[(i + 1) % len(others)].append(("validation", person))
    for person in self.people["test"]:
      place = int(rng.integers(len(others)))
      self.guests[place].append(("test", person))

  def _what(self) -> dict:
    """What the result depends on."""
    config = self.config.to_dict()
    for key in ("workdir", "job", "data", "twin", "classifier"):
      config.pop(key)
    weights = self.context.classifier.variables
    return {
      **config,
      "twin": self.context.twin.digest,
      "classifier": twin_directory.digest(weights),
      "data": self.data["test"].card["fingerprint"],
    }

  def run(self) -> list[Metric]:
    with hold(self.folder):
      claim(self.folder, self._what())
      return self._run()

  def _run(self):
    began = time.monotonic()
    self._announce()
    self.lines = {
      (line["split"], line["patient"]): line
      for line in read_lines(self.folder / LINES)
    }
    total = sum(map(len, self.people.values()))
    with tqdm(total=total, unit="patient", disable=None) as self.progress:
      for split in ("validation", "test"):
        self._run_split(split)
    shares = synthetic_training.run(
      self.config,
      self.context.twin,
      self.context.classifier,
      self.data,
      self.people,
    )
    metrics = report.write(
      self.folder,
      self._predictions(),
      shares,
      self.config.seed,
      self.notes,
    )
    print(f"{time.monotonic() - began:.0f} s; {self.folder}", flush=True)
    return metrics

  def _announce(self):
    for statement, words in self.replaced.items():
      self.notes.append(
        f"the twin does not know {statement!r}: {'|'.join(words)!r} instead"
      )
    if self.replaced:
      warnings.warn(
        f"{len(self.replaced)} prompted statements are not known to the twin "
        "and replaced; see notes.txt",
        stacklevel=2,
      )
    (self.folder / "notes.txt").write_text("\n".join([*self.notes, ""]))

  def _run_split(self, split):
    """Groups of people share the calls that make their twins.

    A group is made whole even where one line of it is there already, so that
    what is repeated comes out as before.
    """
    people = self.people[split]
    size = max(1, self.config.twins_at_once // len(self.labels))
    for start in range(0, len(people), size):
      group = list(enumerate(people))[start : start + size]
      if not all(self._is_done(split, person) for _, person in group):
        twins_of_group = make_twins(
          self.context, self.data[split], [person for _, person in group]
        )
        for (place, person), twins in zip(group, twins_of_group, strict=True):
          if not self._is_done(split, person):
            self._diagnose(split, place, person, twins)
      self.progress.update(len(group))

  def _is_done(self, split, person):
    there = (split, person.patient) in self.lines
    pooled = split == "test" or self._pool(person).exists()
    return there and pooled

  def _pool(self, person):
    return self.folder / "crowd" / f"{person.patient}.npz"

  def _diagnose(self, split, place, person, twins):
    tests = {"own": signals_mv(self.data[split], person.tests)}
    guests = self.guests[place] if split == "validation" else []
    for where, guest in guests:
      tests[f"{where}/{guest.patient}"] = signals_mv(
        self.data[where], guest.tests
      )
    seed = number_of(self.config.seed, person.patient, "tuning")
    scores, digest = classify_after_tuning(
      self.context, twins, self.labels, seed, tests
    )
    if split == "validation":
      self._save_for_crowd(person, twins, seed)
    if split == "test" and place == 0:
      self._draw_example(person, twins)
    data = self.data[split]
    line = {
      "split": split,
      "patient": person.patient,
      "reference": data.record_names(np.array([person.reference]))[0],
      "records": data.record_names(person.tests),
      "labels": person.labels.tolist(),
      "weights": digest,
      "scores": scores,
    }
    append_line(self.folder / LINES, line)
    self.lines[split, person.patient] = line

  def _save_for_crowd(self, person, twins, seed):
    """Saves a share of the twins: all shares together are as many as one's."""
    share = -(-len(twins) // len(self.people["validation"]))
    rows = np.random.default_rng(seed).permutation(len(twins))[:share]
    path = self._pool(person)
    path.parent.mkdir(exist_ok=True)
    with appear_whole(path) as draft:
      np.savez(
        draft, signals=twins[rows].astype(np.float16), labels=self.labels[rows]
      )

  def _draw_example(self, person, twins):
    from ecgtwin_jax import plotting

    reference = read_condition(self.data["test"], person.reference)
    signal = signals_mv(self.data["test"], np.array([person.reference]))[0]
    firsts = np.cumsum([0] + [p.count for p in self.context.prompts])
    shown = [i for i in (2, 6, 7, 8, 12) if i < len(self.context.prompts)]
    plotting.plot_overview(
      ECG(signal, MODEL_RATE),
      [ECG(twins[firsts[i]], MODEL_RATE) for i in shown],
      self.folder / "example.png",
      [
        f"Patient {person.patient}, first recording: {_words(reference)}",
        *(
          f"Twin: {', '.join(self.context.prompts[i].statements)}, about "
          f"{self.context.prompts[i].heart_rate:.0f} bpm"
          for i in shown
        ),
      ],
    )

  def _predictions(self) -> dict[str, report.Predictions]:
    """{split: scores of each variant, a row per later recording}."""
    pools = [np.load(self._pool(p)) for p in self.people["validation"]]
    order = number_of(self.config.seed, "crowd")
    rows = np.random.default_rng(order).permutation(
      sum(len(pool["labels"]) for pool in pools)
    )[: len(self.labels)]
    crowd_scores, _ = classify_after_tuning(
      self.context,
      np.concatenate([pool["signals"] for pool in pools])[rows],
      np.concatenate([pool["labels"] for pool in pools])[rows],
      order,
      {
        split: signals_mv(
          self.data[split], np.concatenate([p.tests for p in people])
        )
        for split, people in self.people.items()
      },
    )
    stranger_scores = {}
    for place, person in enumerate(self.people["validation"]):
      scores = self.lines["validation", person.patient]["scores"]
      for split, guest in self.guests[place]:
        name = f"{split}/{guest.patient}"
        stranger_scores[split, guest.patient] = scores[name]
    return {
      split: self._predictions_of(split, crowd_scores[split], stranger_scores)
      for split in self.people
    }

  def _predictions_of(self, split, crowd_scores, stranger_scores):
    lines = [self.lines[split, p.patient] for p in self.people[split]]

    def join(parts):
      return np.concatenate([np.asarray(part) for part in parts])

    return report.Predictions(
      patients=join([[x["patient"]] * len(x["labels"]) for x in lines]),
      records=join([x["records"] for x in lines]),
      labels=join([x["labels"] for x in lines]),
      scores={
        "own": join([x["scores"]["own"] for x in lines]),
        "stranger": join([stranger_scores[split, x["patient"]] for x in lines]),
        "crowd": np.asarray(crowd_scores),
      },
    )


def _words(condition: Condition) -> str:
  return f"{', '.join(condition.statements)}, {condition.heart_rate:.0f} bpm"


def run(config: ConfigDict, config_file: str = "") -> list[Metric]:
  """Does configs/diagnose.py; returns all metrics.

  Raises:
    ValueError: the classifier is missing or tells something else, the data
      hold too few patients, the workdir holds another diagnosis or another run
      writes into it, or there are several processes.
  """
  del config_file
  return DiagnosisRun(config).run()
