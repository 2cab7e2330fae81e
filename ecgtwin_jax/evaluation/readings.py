"""The beats of an evaluation's ECGs: each set is read once, when asked for."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from ecgtwin_jax.beats.delineation import Reading, read_ecg_beats
from ecgtwin_jax.beats.variation import beat_spread, half_beats
from ecgtwin_jax.evaluation.examples import Examples


class Readings:
  """Beats and marks of real, decoded and generated ECGs.

  Single beats are dropped once their spread is known: they take ten times the
  room of all the rest.

  Args:
    examples: real and generated ECGs.
  """

  def __init__(self, examples: Examples):
    self._examples = examples
    self._sets: dict[str, list[list[Reading | None]]] = {}
    self._spreads: dict[str, Float[np.ndarray, "n k"]] = {}
    self._halves: dict[str, list[list[tuple[Reading, Reading] | None]]] = {}

  def of(self, name: str) -> list[list[Reading | None]]:
    """A list per row with a reading per ECG; None where one cannot be read.

    Args:
      name: "real", "references", "decoded" or a key of examples.generated.
    """
    if name not in self._sets:
      self._read(name)
    return self._sets[name]

  def spreads(self, name: str) -> Float[np.ndarray, "n k"]:
    """beat_spread (microvolt) of each ECG of a set; nan where it has none."""
    self.of(name)
    return self._spreads[name]

  def halves(self, name: str) -> list[list[tuple[Reading, Reading] | None]]:
    """Readings of every other beat and of the rest; None of too few beats."""
    self.of(name)
    return self._halves[name]

  def _read(self, name):
    examples = self._examples
    if name in examples.generated:
      signals = examples.generated[name]
    else:
      signals = getattr(examples, name)[:, None]
    # A patient's reference stands in the row of each of the patient's targets.
    place = np.arange(len(signals))
    if name == "references":
      _, first, place = np.unique(
        examples.reference_ids, return_index=True, return_inverse=True
      )
      signals = signals[first]
    n, k = signals.shape[:2]
    flat = signals.reshape(n * k, *signals.shape[2:])
    readings, spreads, halves = [], [], []
    for signal in tqdm(flat, desc=f"Beats: {name}", unit=" ECG", disable=None):
      reading = read_ecg_beats(signal)
      spread, half = math.nan, None
      if reading is not None:
        spread = beat_spread(reading.beats)
        two = half_beats(reading.beats)
        reading = without_segments(reading)
        if two is not None:
          half = tuple(
            dataclasses.replace(
              reading, beats=dataclasses.replace(reading.beats, median=median)
            )
            for median in two
          )
      readings.append(reading)
      spreads.append(spread)
      halves.append(half)

    def by_row(values):
      rows = [values[i * k : (i + 1) * k] for i in range(n)]
      return [rows[i] for i in place]

    self._sets[name], self._halves[name] = by_row(readings), by_row(halves)
    self._spreads[name] = np.array(spreads).reshape(n, k)[place]


def without_segments(reading: Reading) -> Reading:
  """The same reading without its single beats."""
  beats = reading.beats
  beats = dataclasses.replace(beats, segments=beats.segments[:0].copy())
  return dataclasses.replace(reading, beats=beats)
