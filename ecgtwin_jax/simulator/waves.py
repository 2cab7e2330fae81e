"""Waves of the heart's dipole: Gaussians in time with a direction in space."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ecgtwin_jax.data.ecg import LEADS


@dataclasses.dataclass(frozen=True, eq=False)
class Waves:
  """Asymmetric Gaussians: dipole * exp(-((t - center) / width)^2 / 2).

  Attributes:
    center: (w,) seconds.
    left, right: (w,) widths before and after the center, seconds.
    dipole: (w, 3) mV towards (left, down, back); of a whole beat (w, 9), the
      columns of anatomy.QRS, P and T.
  """

  center: Float[np.ndarray, " waves"]
  left: Float[np.ndarray, " waves"]
  right: Float[np.ndarray, " waves"]
  dipole: Float[np.ndarray, "waves axes"]

  def at(self, time: Float[np.ndarray, " t"]) -> Float[np.ndarray, "t axes"]:
    """The sum of the waves at each time, mV."""
    distance = time[:, None] - self.center
    width = np.where(distance < 0, self.left, self.right)
    return np.exp(-0.5 * (distance / width) ** 2) @ self.dipole


def join_waves(parts: list[Waves]) -> Waves:
  """All waves of all parts."""
  fields = [field.name for field in dataclasses.fields(Waves)]
  return Waves(
    *(
      np.concatenate([getattr(part, name) for part in parts]) for name in fields
    )
  )


def read_table(
  table: Sequence[tuple], duration: float | int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Center, width (s) and dipole of (center, width, dipole) rows.

  Centers and widths stand in the table in parts of `duration`.
  """
  center, width, dipole = zip(*table)
  return (
    np.array(center) * duration,
    np.array(width) * duration,
    np.array(dipole),
  )


def reach(
  dipole: Float[np.ndarray, " 3"],
  leads: Float[np.ndarray, "12 3"],
  limits: tuple[tuple[str, int, float], ...],
  present: Float[np.ndarray, " 12"] | None = None,
) -> Float[np.ndarray, " 3"]:
  """A dipole near the given one that every limit's lead agrees with.

  Where a statement promises something of a lead, every patient's dipole has to
  deliver it, wherever the patient's heart lies. Projects onto the half-spaces
  in turn.

  Args:
    dipole: mV.
    leads: Each lead's vector.
    limits: (lead, sign, level): sign * (lead's voltage) >= level in mV.
    present: What the leads show without this dipole, mV.
  """
  rows = np.array([sign * leads[LEADS.index(lead)] for lead, sign, _ in limits])
  least = np.array([level for *_, level in limits])
  if present is not None:
    least = least - [s * present[LEADS.index(lead)] for lead, s, _ in limits]
  dipole = np.array(dipole, float)
  for _ in range(40):
    missing = least - rows @ dipole
    if (missing <= 1e-6).all():
      break
    for row, level in zip(rows, least):
      missing = level - row @ dipole
      if missing > 0:
        dipole += row * (missing / (row @ row))
  return dipole
