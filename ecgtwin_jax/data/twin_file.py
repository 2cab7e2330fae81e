"""One file with many generated ECGs and their labels, to train on."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ecgtwin_jax.data.clinical_files import need
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import ECG, SYNTHETIC
from ecgtwin_jax.data.leads import LEADS
from ecgtwin_jax.data.whole_files import appear_whole

ORIGIN = "synthetic"
# Of each ECG, beside its signal.
_LABELS = (
  *("record", "patient", "statements", "heart_rate", "age", "sex", "origin"),
)


def write_twins(
  path: str | os.PathLike,
  ecgs: Sequence[ECG],
  conditions: Sequence[Condition],
  patients: Sequence[str],
) -> None:
  """Writes generated ECGs with their labels into one .parquet or .npz file.

  A row per ECG: each lead in mV (Parquet) or `signal` (n, s, 12) in mV (NPZ),
  sampling_rate, record, patient, statements (NPZ: joined by '|'), heart_rate,
  age, sex, and origin, which always is "synthetic". What is not known is NaN or
  empty. Values keep float32 exactly.

  Args:
    path: of the file, which appears whole or not at all.
    ecgs: made by a twin, all of one rate and length.
    conditions: what each of them was asked to show.
    patients: whose twin each of them is, so that splits can be by patient.

  Raises:
    ValueError: the lengths differ, an ECG was not made by a twin, or Parquet's
      library is missing.
  """
  path = pathlib.Path(path)
  if path.suffix not in (".parquet", ".npz"):
    raise ValueError(f"{str(path)!r} must end in .parquet or .npz")
  if not len(ecgs) == len(conditions) == len(patients) or not ecgs:
    raise ValueError(
      f"{len(ecgs)} ECGs must be at least one, with a condition and a patient"
      f" each: {len(conditions)} and {len(patients)} given"
    )
  for ecg in ecgs:
    if SYNTHETIC not in ecg.comments:
      raise ValueError(
        f"{ecg.record!r} was not made by a twin: recordings belong into a data"
        " set of data_prep"
      )
  shapes = {(ecg.signal.shape, ecg.sampling_rate) for ecg in ecgs}
  if len(shapes) > 1:
    raise ValueError(f"ECGs of several lengths or rates: {sorted(shapes)}")
  labels = {
    "record": [ecg.record for ecg in ecgs],
    "patient": [str(patient) for patient in patients],
    "statements": [list(shown.statements) for shown in conditions],
    "heart_rate": [shown.heart_rate for shown in conditions],
    "age": [np.nan if x.age is None else x.age for x in conditions],
    "sex": [shown.sex or "" for shown in conditions],
    "origin": [ORIGIN] * len(ecgs),
  }
  signal = np.stack([ecg.signal for ecg in ecgs])
  path.parent.mkdir(parents=True, exist_ok=True)
  write = _write_parquet if path.suffix == ".parquet" else _write_npz
  with appear_whole(path) as draft:
    write(draft, signal, ecgs[0].sampling_rate, labels)


class TwinFile:
  """The rows of a file of `write_twins`, as a source of Grain.

  `grain.MapDataset.source(TwinFile(path)).shuffle(seed=0).batch(32)` trains on
  it. A row is a dict: signal (s, 12) float32 in mV, sampling_rate, record,
  patient, statements (a tuple), heart_rate, age, sex and origin.

  Args:
    path: .parquet or .npz.

  Raises:
    FileNotFoundError: it is not there.
    ValueError: it is no file of write_twins, or Parquet's library is missing.
  """

  def __init__(self, path: str | os.PathLike):
    self.path = pathlib.Path(path)
    if not self.path.is_file():
      raise FileNotFoundError(
        f"{self.path} is not there: write_twins makes one"
      )
    read = _read_parquet if self.path.suffix == ".parquet" else _read_npz
    try:
      self._signal, self._rate, self._labels = read(self.path)
    except (KeyError, OSError) as error:
      raise ValueError(
        f"{self.path} is no file of write_twins: {error}"
      ) from None

  def __len__(self) -> int:
    return len(self._signal)

  def __getitem__(self, number: int) -> dict[str, Any]:
    row = {name: values[number] for name, values in self._labels.items()}
    return {
      "signal": self._signal[number],
      "sampling_rate": self._rate,
      **row,
      "statements": tuple(row["statements"]),
    }

  def __repr__(self) -> str:
    return f"TwinFile({self.path.name}, {len(self)} ECGs)"

  def __reduce__(self):
    return TwinFile, (self.path,)  # workers read the file themselves


def _write_npz(path, signal, rate, labels):
  arrays = {
    name: np.array(values)
    for name, values in labels.items()
    if name != "statements"
  }
  with path.open("wb") as file:
    np.savez_compressed(
      file,
      signal=signal,
      sampling_rate=rate,
      leads=LEADS,
      units="mV",
      statements=np.array(["|".join(x) for x in labels["statements"]]),
      **arrays,
    )


def _read_npz(path):
  with np.load(path, allow_pickle=False) as file:
    labels = {name: file[name].tolist() for name in _LABELS}
    labels["statements"] = [x.split("|") for x in labels["statements"]]
    return file["signal"], float(file["sampling_rate"]), labels


def _write_parquet(path, signal, rate, labels):
  pyarrow = need("pyarrow", "Parquet")
  parquet = need("pyarrow.parquet", "Parquet")
  columns = {
    **labels,
    "sampling_rate": [rate] * len(signal),
    **{
      lead: pyarrow.FixedSizeListArray.from_arrays(
        pyarrow.array(signal[:, :, i].ravel()), signal.shape[1]
      )
      for i, lead in enumerate(LEADS)
    },
  }
  table = pyarrow.table(columns).replace_schema_metadata({"units": "mV"})
  parquet.write_table(table, path, compression="zstd")


def _read_parquet(path):
  parquet = need("pyarrow.parquet", "Parquet")
  table = parquet.read_table(path, memory_map=False)
  labels = {name: table[name].to_pylist() for name in _LABELS}
  leads = [
    table[lead].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    for lead in LEADS
  ]
  return np.stack(leads, axis=2), table["sampling_rate"][0].as_py(), labels
