"""Pairs of recordings of one patient: numbered, never stored.

A pair is an earlier recording (the reference) and a later one (the target) of
the same patient, unless the two share both heart rate and text. Patients with n
recordings have up to n (n - 1) / 2 pairs; this index needs memory for n. Where
it is asked for, a recording whose patient has no pair stands for its own
reference; these pairs come last.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int, Shaped


@dataclasses.dataclass(frozen=True, eq=False)
class PairIndex:
  """Numbers the pairs 0..N-1 and finds the two recordings of a number.

  Recordings stand in the order of patient, time and record. The pairs with one
  target have consecutive numbers, in the order of their references; so have the
  pairs of one patient.

  Build it with `PairIndex.from_columns`. Its arrays follow that order: `rows`
  (the caller's row), `starts` (position of the patient's first recording),
  `ends` (number of pairs up to and with this target), `condition` (number of
  the patient's heart rate and text); `skip` is sorted and tells how many
  recordings of the target's own condition to pass over; `own` holds the rows
  that are their own reference.
  """

  rows: Int[np.ndarray, " n"]
  starts: Int[np.ndarray, " n"]
  ends: Int[np.ndarray, " n"]
  condition: Int[np.ndarray, " n"]
  skip: Int[np.ndarray, " n"]
  condition_starts: Int[np.ndarray, " conditions"]
  patient_ends: Int[np.ndarray, " p"]
  own: Int[np.ndarray, " alone"]

  @classmethod
  def from_columns(
    cls,
    *,
    patient_id: Shaped[np.ndarray, " n"],
    time: Int[np.ndarray, " n"],
    record_id: Shaped[np.ndarray, " n"],
    heart_rate: Float[np.ndarray, " n"],
    statement_ids: Int[np.ndarray, "n s"],
    own: bool = False,
  ) -> "PairIndex":
    """Indexes the recordings whose columns are given.

    Args:
      patient_id: numbers or strings; equal means the same patient.
      time: time of the recording; the earlier of a pair is its reference.
      record_id: numbers or strings; decides where times are equal.
      heart_rate: bpm, compared after rounding to 0.1 bpm.
      statement_ids: numbers of the report's statements in order, padded with
        -1.
      own: whether recordings of patients without a pair are their own
        reference.

    Raises:
      ValueError: a heart rate is not finite.
    """
    if not np.isfinite(heart_rate).all():
      raise ValueError("every recording of a pair must have a heart rate")
    n = len(patient_id)
    _, patient = np.unique(patient_id, return_inverse=True)
    rows = np.lexsort((record_id, time, patient))
    patient = patient[rows]
    position = np.arange(n)
    starts = np.searchsorted(patient, patient)

    tenths = np.rint(heart_rate[rows].astype(np.float64) * 10).astype(np.int64)
    text = _number_rows(statement_ids[rows])
    # Recordings of one condition of one patient side by side, in time order.
    together = np.lexsort((position, text, tenths, patient))
    new = np.ones(n, bool)
    new[1:] = False
    for key in (patient, tenths, text):
      new[1:] |= np.diff(key[together]) != 0
    condition_starts = np.flatnonzero(new)
    number = np.cumsum(new) - 1
    place = position - condition_starts[number] if n else position
    condition, different = np.empty_like(position), np.empty_like(position)
    condition[together] = number
    different[together] = together - starts[together] - place
    ends = np.cumsum(different)
    # Of one condition, the recordings that stand before the r-th recording of
    # another are those with at most r different ones before them. Condition
    # and that number in one key: one sorted array serves all conditions.
    skip = number * (n + 1) + different[together]
    last = np.flatnonzero(np.diff(patient, append=-1)) if n else position
    alone = np.diff(ends[last], prepend=0) == 0
    without = (
      np.isin(patient, patient[last[alone]]) if own else np.zeros(n, bool)
    )
    return cls(
      rows=rows,
      starts=starts,
      ends=ends,
      condition=condition,
      skip=skip,
      condition_starts=condition_starts,
      patient_ends=ends[last],
      own=rows[without],
    )

  @property
  def _of_two(self) -> int:
    """Number of pairs of two recordings."""
    return int(self.ends[-1]) if len(self.ends) else 0

  def __len__(self) -> int:
    return self._of_two + len(self.own)

  def pair(
    self, k: Int[np.ndarray, " b"]
  ) -> tuple[Int[np.ndarray, " b"], Int[np.ndarray, " b"]]:
    """Returns the rows of the reference and of the target of pairs k.

    Args:
      k: numbers of pairs, each in 0..len(self)-1.

    Raises:
      ValueError: a number is out of range.
    """
    k = np.asarray(k, np.int64)
    if k.size and not (k.min() >= 0 and k.max() < len(self)):
      raise ValueError(
        f"numbers of pairs {k.min()}..{k.max()} must be in 0..{len(self) - 1}"
      )
    if len(self.own):
      alone = k >= self._of_two
      own = self.own[np.where(alone, k - self._of_two, 0)]
      if alone.all():
        return own, own
      reference, target = self._pair_of_two(np.where(alone, 0, k))
      return np.where(alone, own, reference), np.where(alone, own, target)
    return self._pair_of_two(k)

  def _pair_of_two(self, k):
    target = np.searchsorted(self.ends, k, side="right")
    before = np.where(target > 0, self.ends[target - 1], 0)
    # The wanted reference is number `nth` among those that differ from the
    # target; add how many of the target's own condition stand before it.
    nth = k - before
    condition = self.condition[target]
    key = condition * (len(self.rows) + 1) + nth
    same = np.searchsorted(self.skip, key, side="right")
    same -= self.condition_starts[condition]
    reference = self.starts[target] + nth + same
    return self.rows[reference], self.rows[target]

  def patients(
    self,
  ) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """Returns, of each patient with pairs, the first pair and their count."""
    counts = np.diff(self.patient_ends, prepend=0)
    some = counts > 0
    alone = self._of_two + np.arange(len(self.own))
    return (
      np.concatenate([(self.patient_ends - counts)[some], alone]),
      np.concatenate([counts[some], np.ones_like(alone)]),
    )


def _number_rows(table: Int[np.ndarray, "n s"]) -> Int[np.ndarray, " n"]:
  """Returns numbers that are equal exactly where rows are equal."""
  rows = np.ascontiguousarray(table)
  seen: dict[bytes, int] = {}
  return np.array(
    [seen.setdefault(row.tobytes(), len(seen)) for row in rows], np.int64
  )
