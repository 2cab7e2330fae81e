"""What a twin gives back: generated, edited and explained ECGs."""

import dataclasses
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ecgtwin_jax.beats.median_beat import RATE as MEDIAN_RATE
from ecgtwin_jax.beats.median_beat import find_median_beat
from ecgtwin_jax.beats.notation import write_beats
from ecgtwin_jax.beats.rhythm import Rhythm
from ecgtwin_jax.beats.self_check import SelfCheck, check_ecgs
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import ECG, MODEL_RATE, SYNTHETIC
from ecgtwin_jax.data.twin_file import write_twins

if TYPE_CHECKING:
  import matplotlib.figure


class Rows(NamedTuple):
  """n generated ECGs as arrays, each of its own person and condition.

  Attributes:
    signals: ECGs in mV, leads in clinical order.
    latents: scaled.
    residuals: per ECG the largest |limb lead - what I and II imply| in mV,
      before any projection.
    beats: the rhythm that each ECG was given; None of a twin that is told of no
      beats.
  """

  signals: Float[np.ndarray, "n 1024 12"]
  latents: Float[np.ndarray, "n 128 c"]
  residuals: Float[np.ndarray, " n"]
  beats: list[Rhythm] | None = None


@dataclasses.dataclass(frozen=True)
class Generated:
  """ECGs made by a twin.

  Attributes:
    ecgs: n ECGs of 10 s, 1024 samples at 102.4 Hz unless asked otherwise.
    latents: (n, 128, 4) float32, scaled.
    residuals: (n,) per ECG the largest |limb lead - what I and II imply| in
      mV, before any projection.
    beats: the rhythm that each ECG was given; None of a twin that is told of no
      beats.
    condition: what they shall show; None: not known.
  """

  ecgs: list[ECG]
  latents: Float[np.ndarray, "n 128 c"]
  residuals: Float[np.ndarray, " n"]
  beats: list[Rhythm] | None = None
  condition: Condition | None = None

  def __repr__(self) -> str:
    return f"Generated({len(self.ecgs)} ECGs)"

  @property
  def signals(self) -> Float[np.ndarray, "n t 12"]:
    """The ECGs as one array in mV, leads in clinical order."""
    return np.stack([ecg.signal for ecg in self.ecgs])

  @property
  def lead_residual(self) -> float:
    """The largest of the residuals in mV."""
    return float(self.residuals.max())

  def check(self) -> SelfCheck:
    """Measures the ECGs against their condition; printed, it is in words.

    Raises:
      ValueError: the condition is not known.
    """
    if self.condition is None:
      raise ValueError("the condition of these ECGs must be known, and is None")
    return check_ecgs(self.ecgs, self.condition)

  def plot_median_beats(
    self, reference: ECG, path: str | os.PathLike | None = None
  ) -> "matplotlib.figure.Figure":
    """Draws the median beats over the reference's: is it the same heart?

    The title says how well they correlate, over all leads; ECGs without a
    median beat are left out and counted there.

    Args:
      reference: the recording that the base vector is of.
      path: file to write, by its suffix: .png, .pdf or .svg. None: none.

    Returns:
      The matplotlib figure.

    Raises:
      ValueError: the reference has no median beat, or none of the ECGs has.
    """
    from ecgtwin_jax import plotting

    first, *others = (
      find_median_beat(ecg.signal, ecg.sampling_rate)
      for ecg in (reference, *self.ecgs)
    )
    beats = [found.median for found in others if found is not None]
    if first is None or not beats:
      whose = "reference" if first is None else "generated ECGs"
      raise ValueError(f"no median beat is found in the {whose}")
    true = first.median.ravel()
    alike = [float(np.corrcoef(true, beat.ravel())[0, 1]) for beat in beats]
    title = (
      f"median beats: {len(beats)} of {len(others)} twins over "
      f"{reference.record or 'the reference'}, correlation "
      f"{np.median(alike):.2f} ({min(alike):.2f} to {max(alike):.2f})"
    )
    return plotting.plot_median_beats(
      first.median, beats, MEDIAN_RATE, path, title
    )

  def write(self, path: str | os.PathLike, patient: str = "0") -> None:
    """Writes all ECGs with their labels into one .parquet or .npz file.

    For the twins of many patients there is `ecgtwin_jax.write_twins`.

    Args:
      path: of the file.
      patient: whose twins they are.

    Raises:
      ValueError: as write_twins, or the condition is not known.
    """
    if self.condition is None:
      raise ValueError("the condition of these ECGs is not known: write_twins")
    count = len(self.ecgs)
    write_twins(path, self.ecgs, [self.condition] * count, [patient] * count)


@dataclasses.dataclass(frozen=True)
class Edited:
  """ECGs, and what an edit made of them from the same noise.

  Attributes:
    source: what is generated without the edit.
    edited: sample i belongs to sample i of the source.
  """

  source: Generated
  edited: Generated

  def __repr__(self) -> str:
    return f"Edited({len(self.source.ecgs)} ECGs)"

  def largest_change_mv(self) -> Float[np.ndarray, " n"]:
    """Largest absolute change of each ECG over its leads, mV."""
    moved = np.abs(self.edited.signals - self.source.signals)
    return moved.max(axis=(1, 2))

  def plot(
    self, path: str | os.PathLike | None = None, **options: Any
  ) -> "matplotlib.figure.Figure":
    """Draws each source above its edit; see `plotting.plot_edits`."""
    from ecgtwin_jax import plotting

    return plotting.plot_edits(
      self.source.ecgs, self.edited.ecgs, path, **options
    )


@dataclasses.dataclass(frozen=True)
class Explained:
  """ECGs, and what drove which part of them.

  Attributes:
    attention: (n, blocks, 128, s) share of the attention that a position gives
      to each statement, mean over heads and over the chosen steps; over the
      statements it sums to 1. Position i is 10 s / 128 long.
    ecgs: the n ECGs that were explained.
    statements: what the attention is over.
  """

  attention: Float[np.ndarray, "n blocks 128 s"]
  ecgs: list[ECG]
  statements: tuple[str, ...]

  def __repr__(self) -> str:
    return f"Explained({len(self.ecgs)} ECGs, {list(self.statements)})"

  def over_time(
    self, blocks: tuple[int, ...] | list[int] | None = None
  ) -> Float[np.ndarray, "n 128 s"]:
    """Mean over the chosen blocks; None: over all.

    Raises:
      ValueError: no block, or one that is not there.
    """
    count = self.attention.shape[1]
    chosen = range(count) if blocks is None else blocks
    if not set(chosen) or not set(chosen) <= set(range(count)):
      raise ValueError(f"{blocks=} must be some of 0..{count - 1}")
    return self.attention[:, list(chosen)].mean(axis=1)

  def plot(
    self,
    path: str | os.PathLike | None = None,
    number: int = 0,
    blocks: tuple[int, ...] | list[int] | None = None,
    **options: Any,
  ) -> "matplotlib.figure.Figure":
    """Draws one ECG's attention; see `plotting.plot_attention`."""
    from ecgtwin_jax import plotting

    shares = self.over_time(blocks)[number]
    return plotting.plot_attention(
      self.ecgs[number], shares, self.statements, path, **options
    )


def as_generated(
  rows: Rows, name: str, condition: Condition, facts: dict
) -> Generated:
  """Rows of one condition as ECGs that say where they come from.

  Args:
    rows: the ECGs as arrays.
    name: of the ECGs, before their numbers.
    condition: what they were asked to show.
    facts: what else they depend on, by name.
  """
  lines = describe_origin(condition, facts)
  ecgs = [
    ECG(signal, MODEL_RATE, f"{name}_{i}", (*lines, *describe_sample(rows, i)))
    for i, signal in enumerate(rows.signals)
  ]
  return Generated(ecgs, rows.latents, rows.residuals, rows.beats, condition)


def describe_origin(condition: Condition, facts: dict) -> tuple[str, ...]:
  """Header lines of a generated ECG: that it is synthetic, and how it was made.

  Args:
    condition: what it was asked to show.
    facts: what else it depends on, by name, such as the twin and the seed.
  """
  age = "unknown" if condition.age is None else f"{condition.age:g}"
  return (
    SYNTHETIC,
    f"statements: {condition.text()}",
    f"heart_rate: {condition.heart_rate:g}, age: {age}, "
    f"sex: {condition.sex or 'unknown'}",
    ", ".join(f"{name}: {value}" for name, value in facts.items()),
  )


def describe_sample(rows: Rows, number: int) -> tuple[str, ...]:
  """Header lines of one of the rows: its number, and the beats it was given."""
  lines = (f"sample: {number}",)
  if rows.beats is None:
    return lines
  return (*lines, f"beats: {write_beats(rows.beats[number])}")
