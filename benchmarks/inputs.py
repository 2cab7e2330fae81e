"""Input of the networks, timed: data preparation and batches of pairs."""

import contextlib
import io
import pathlib
import tempfile
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks import published
from benchmarks.data_prep_speed import write_tree
from data_prep import builder, mimic_iv_ecg
from ecgtwin_jax.data import pipeline
from ecgtwin_jax.data.dataset import Dataset
from ecgtwin_jax.text.statements import StatementTable, get_encoder

BATCH = 512
BATCHES = 40  # drawn in one call


@contextlib.contextmanager
def preparation(recordings: int) -> Iterator[Callable[[], object]]:
  """A call that prepares so many recordings, of a tree as MIMIC-IV-ECG's."""
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    write_tree(folder, recordings)
    config = mimic_iv_ecg.MimicIvEcgConfig(input=str(folder))
    outputs = (folder / f"prepared_{i}" for i in range(1000))

    def call():
      with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
      ):
        builder.prepare(mimic_iv_ecg.MimicIvEcg, config, next(outputs))

    yield call


def random_latents(patients: int, recordings: int) -> Dataset:
  """Random latents and conditions in memory."""
  rng = np.random.default_rng(0)
  n = patients * recordings
  texts = [f"Finding number {i}" for i in range(500)]
  mean = rng.standard_normal((n, 128, 4), np.float32).astype(np.float16)
  return Dataset(
    directory=pathlib.Path("in memory"),
    split="train",
    card={"kind": "latent"},
    table=StatementTable.from_encoder(texts, get_encoder("hashed-v1")),
    arrays={"mean": mean, "std": mean},
    record_id=np.arange(n).astype(str),
    patient_id=np.repeat(np.arange(patients), recordings).astype(str),
    time=np.arange(n),
    heart_rate=rng.uniform(40, 140, n).astype(np.float32),
    age=rng.uniform(20, 90, n).astype(np.float32),
    sex=rng.integers(0, 2, n).astype(np.int8),
    statement_ids=published.reports(rng, n, 500),
  )


@contextlib.contextmanager
def pair_batches(patients: int) -> Iterator[Callable[[], object]]:
  """A call that draws BATCHES batches of BATCH pairs of latents."""
  dataset = random_latents(patients, 10)
  with contextlib.closing(
    pipeline.pair_batches(dataset, BATCH, 0, uniform_over="patients")
  ) as batches:
    yield lambda: [next(batches) for _ in range(BATCHES)]
