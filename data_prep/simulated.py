"""Simulated patients as a data set: nothing to download, the truth is known."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from data_prep import builder
from data_prep.records import Record
from ecgtwin_jax.simulator.simulate import CONDITIONS, cohort_recordings


@dataclasses.dataclass(kw_only=True)
class SimulatedConfig(tfds.core.BuilderConfig):
  """Size and seed of a cohort.

  Attributes:
    patients: number of patients.
    recordings: number of recordings of each patient.
    seed: seed of all that is drawn.
  """

  name: str = ""
  patients: int = 500
  recordings: int = 5
  seed: int = 0

  def __post_init__(self):
    for key, least in (("patients", 1), ("recordings", 1), ("seed", 0)):
      value = getattr(self, key)
      if value < least:
        raise ValueError(f"{key}={value} must be at least {least}")
    if not self.name:
      self.name = f"{self.patients}x{self.recordings}_seed{self.seed}"


class Simulated(builder.Builder):
  """A cohort of simulated patients, each with several recordings.

  Of ten patients, one is in the validation split and one in the test split.
  The patients of a seed stay where they are when the cohort grows.
  """

  VERSION = tfds.core.Version("2.2.0")
  licence = "simulated: of no person"
  builder_config: SimulatedConfig

  def options(self) -> dict:
    config = self.builder_config
    return {
      "patients": config.patients,
      "recordings": config.recordings,
      "seed": config.seed,
    }

  def keys(self) -> dict[str, list[int]]:
    splits = {"train": [], "validation": [], "test": []}
    for patient in range(self.builder_config.patients):
      split = {1: "validation", 2: "test"}.get(patient % 10, "train")
      splits[split].append(patient)
    return splits

  def statements(self) -> Sequence[str]:
    return list(CONDITIONS)

  def reader(self) -> Callable[[int], Iterator[tuple[str, Record]]]:
    config = self.builder_config
    return functools.partial(_read, config.seed, config.recordings)

  def total(self) -> int:
    return self.builder_config.patients * self.builder_config.recordings


def _read(seed, recordings, patient):
  for made in cohort_recordings(seed, patient, recordings):
    record = Record(
      record_id=made.record_id,
      patient_id=f"{made.patient_id:06d}",
      time=made.time,
      ecg=made.ecg,
      condition=made.condition,
    )
    yield made.record_id, record


def prepare(
  output: str | os.PathLike,
  *,
  patients: int = 500,
  recordings: int = 5,
  seed: int = 0,
  **options: Any,
) -> pathlib.Path:
  """Writes a simulated cohort.

  Args:
    output: directory of the data set.
    patients: number of patients.
    recordings: number of recordings of each patient.
    seed: seed of all that is drawn.
    **options: arguments of `data_prep.builder.prepare`.

  Raises:
    ValueError: a number is out of range, or something else is at the output.
  """
  config = SimulatedConfig(patients=patients, recordings=recordings, seed=seed)
  return builder.prepare(Simulated, config, output, **options)
