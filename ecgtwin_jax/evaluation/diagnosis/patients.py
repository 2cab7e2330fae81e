"""Patients on whom a diagnosis is tried: a first recording and later ones."""

import zlib
from typing import NamedTuple

import numpy as np

from ecgtwin_jax.data.dataset import Dataset
from ecgtwin_jax.text.findings import label_rows


class Person(NamedTuple):
  """A patient on whom a diagnosis is tried.

  Attributes:
    patient: name.
    reference: row of the first recording: the twins' source.
    tests: rows of the later ones that their reports call normal or abnormal.
    labels: labels of those, 0 or 1.
  """

  patient: str
  reference: int
  tests: np.ndarray
  labels: np.ndarray


def find_people(data: Dataset, limit: int, seed: int) -> tuple[list, int]:
  """Draws patients with a first recording and later, clearly labelled ones.

  Args:
    data: a split; recordings in the order of time, ties by record id.
    limit: largest number of patients.
    seed: seed of the drawing.

  Returns:
    The people, and how many later recordings were left out because their
    reports call them neither normal nor abnormal.
  """
  statements = data.table.statements
  (labels,) = label_rows(("abnormal",), statements, data.statement_ids).T
  order = np.lexsort((data.record_id, data.time, data.patient_number))
  groups = np.split(
    order, np.flatnonzero(np.diff(data.patient_number[order])) + 1
  )
  people, unclear = [], []
  for first, *later in groups:
    tests = np.array([row for row in later if labels[row] >= 0], np.int64)
    if len(tests):
      name = str(data.patient_id[first])
      people.append(Person(name, int(first), tests, labels[tests]))
      unclear.append(len(later) - len(tests))
  drawn = np.random.default_rng(seed).permutation(len(people))[:limit]
  drawn = np.sort(drawn)
  return [people[i] for i in drawn], sum(unclear[i] for i in drawn)


def number_of(seed: int, *names: str | int) -> int:
  """A seed of its own for what has these names."""
  return zlib.crc32(f"{seed}/{'/'.join(map(str, names))}".encode())
