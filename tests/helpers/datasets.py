"""Data sets in memory whose every number tells the row it belongs to."""

import pathlib

import numpy as np

from ecgtwin_jax.data.dataset import Dataset
from ecgtwin_jax.text.statements import HashedEncoder, StatementTable

STATEMENTS = ["Sinus rhythm", "Sinus bradycardia", "Atrial fibrillation"]


def make_dataset(kind, recordings=61, patients=13, seed=0):
  """A data set in memory; every number tells the row it belongs to."""
  rng = np.random.default_rng(seed)
  rows = np.arange(recordings)
  ids = np.full((recordings, 18), -1, np.int32)
  ids[:, 0] = rng.integers(len(STATEMENTS), size=recordings)
  if kind == "ecg":
    ecg = np.zeros((recordings, 1024, 12), np.int16)
    arrays = {"ecg": ecg + rows[:, None, None].astype(np.int16)}
  else:
    mean = np.zeros((recordings, 128, 4), np.float16) + rows[:, None, None]
    mean = mean.astype(np.float16)
    arrays = {"mean": mean, "std": mean / 2}
  return Dataset(
    directory=pathlib.Path("nowhere"),
    split="train",
    card={"kind": kind, "scale": 0.001},
    table=StatementTable.from_encoder(STATEMENTS, HashedEncoder()),
    arrays=arrays,
    record_id=np.array([f"r{row}" for row in rows]),
    patient_id=rng.integers(patients, size=recordings).astype(str),
    time=rng.permutation(recordings),
    heart_rate=rng.uniform(50, 120, recordings).astype(np.float32),
    age=rng.choice([-1.0, 30.0, 64.25], recordings).astype(np.float32),
    sex=rng.choice([-1, 0, 1], recordings).astype(np.int8),
    statement_ids=ids,
  )
