"""Makes ECGs with an exported twin: needs jax alone, and what jax brings.

  PYTHONPATH=FOLDER python
  >>> from ecgtwin_loader import Twin
  >>> twin = Twin()
  >>> base = twin.extract(signal, ["Sinus rhythm"], heart_rate=70)
  >>> ecgs = twin.generate(base, ["Sinus tachycardia"], heart_rate=110, count=8)

`signal` is 10 s in mV, samples by the leads I, II, III, aVR, aVL, aVF, V1..V6;
`ecgs` is (count, 1024, 12) in mV at 102.4 Hz. What is not known of age and sex
("F" or "M") stays None. ECGs that it makes are synthetic: say so with them.
"""

import hashlib
import importlib
import json
import math
import pathlib
import warnings
from typing import Any

import jax
import numpy as np
import scipy.signal


class Twin:
  """An exported twin.

  Raises:
    ValueError: a file is not the one that was exported.
  """

  def __init__(self, folder: pathlib.Path | str | None = None):
    folder = pathlib.Path(folder or pathlib.Path(__file__).parent)
    self.card = json.loads((folder / "export.json").read_text())
    for name, expected in self.card["sha256"].items():
      data = (folder / name).read_bytes()
      if hashlib.sha256(data).hexdigest() != expected:
        raise ValueError(f"{folder / name} is not as exported: copy it anew")
      if name.endswith(".jax_export"):
        program = jax.export.deserialize(bytearray(data))
        setattr(self, "_" + name.split(".")[0], jax.jit(program.call))
    self.statements = self.card["statements"]
    self._table = np.load(folder / "statements.npy")

  def condition(
    self, statements: Any, heart_rate: float, age: Any = None, sex: Any = None
  ) -> tuple[np.ndarray, ...]:
    """Embedded statements, which rows they are, and the patient vector."""
    numbers = self._numbers(statements)
    rows = np.zeros((18, self._table.shape[1]), np.float32)
    rows[: len(numbers)] = self._table[numbers]
    known = (heart_rate, age, None if sex is None else "FM".index(sex))
    patient = [math.nan if value is None else value for value in known]
    mean, std = self.card["patient"]
    patient = (np.array(patient) - mean) / std
    return rows, np.arange(18) < len(numbers), patient.astype(np.float32)

  def state_rhythm(self, statements: Any, heart_rate: float) -> list[str]:
    """The statements, and in front the sinus node's where none says a rhythm.

    Nothing is added where none fits the heart rate, or the report is full.
    """
    rhythm, numbers = self.card["rhythm"], self._numbers(statements)
    fits = [s for s, low, high in rhythm["sinus"] if low <= heart_rate <= high]
    said = any(rhythm["said"][number] for number in numbers)
    if said or not fits or len(numbers) == 18:
      return list(statements)
    return [fits[0], *statements]

  def _numbers(self, statements: Any) -> list[int]:
    unknown = [s for s in statements if s not in self.statements]
    if unknown or not 0 < len(statements) <= 18:
      raise ValueError(f"{unknown or statements} must be 1..18 of .statements")
    return [self.statements.index(s) for s in statements]

  def extract(
    self, signal: np.ndarray, statements: Any, heart_rate: float, **who: Any
  ) -> np.ndarray:
    """The base vector, (d,), of a recording that shows the statements."""
    signal = scipy.signal.resample(np.asarray(signal, np.float64), 1024)
    signal = signal.astype(np.float32)
    beat, found = np.zeros((80, 12), np.float16), 0
    if self.card["median_beat"]:
      detector = importlib.import_module("ecgtwin_beats.rhythm")
      _, beat, found = detector.detect_rhythm_and_beat(signal, 102.4)
    condition = self.condition(statements, heart_rate, **who)
    row = (signal, beat, np.int8(found), *condition)
    return np.asarray(self._extract(*(np.asarray(x)[None] for x in row)))[0]

  def generate(
    self,
    base: np.ndarray,
    statements: Any,
    heart_rate: float,
    count: int = 8,
    seed: int = 0,
    noise: np.ndarray | None = None,
    **who: Any,
  ) -> np.ndarray:
    """(count, 1024, 12) mV of the person `base`; one per (seed, number).

    A report that says no rhythm is given the sinus node's, with a warning.
    """
    stated = self.state_rhythm(statements, heart_rate)
    if len(stated) > len(statements):
      text = (
        f"no statement says which rhythm the ECGs shall have: {stated[0]!r}"
      )
      warnings.warn(
        f"{text} is taken; add another if it is not that", stacklevel=2
      )
    statements = stated
    row = self.condition(statements, heart_rate, **who)
    condition = [np.broadcast_to(x, (count, *x.shape)) for x in row]
    keys = np.full(count, seed, np.uint32), np.arange(count, dtype=np.uint32)
    beats = ()
    if self.card["beats"]:
      numbers = self._numbers(statements)
      premature = np.array(self.card["premature"])[numbers].any(axis=0)
      usual, rate = np.float32(60 / heart_rate), np.float32(heart_rate)
      full = (
        -(-count // 64) * 64
      )  # what rounding, and with it a draw, depends on
      rows = (*keys, *condition)
      rows += tuple(np.resize(x, (count, *x.shape)) for x in (usual, rate))
      rows += (np.resize(premature, (count, 2)),)
      rows = (np.resize(x, (full, *x.shape[1:])) for x in rows)
      beats = [np.asarray(x)[:count] for x in self._rhythm(*rows)]
    noise = self._noise(*keys, *beats) if noise is None else noise
    base = np.broadcast_to(base, (count, len(base)))
    latents = self._sample(noise, *keys, base, *condition, *beats)
    return np.asarray(self._decode(latents))
