"""Where attention lies: inside given spans of time, against outside."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ecgtwin_jax.simulator.simulate import Fiducials


class AttentionShare(NamedTuple):
  """How much of each statement's attention lies inside spans of time.

  Attributes:
    inside: (s,) share of a statement's attention that lies inside; that of
      attention which does not look at time is `time`.
    time: share of the time that lies inside.
    ratio: (s,) mean attention inside over mean attention outside; 1 is the
      same.
  """

  inside: Float[np.ndarray, " s"]
  time: float
  ratio: Float[np.ndarray, " s"]


def attention_share(
  attention: Float[np.ndarray, "l s"],
  spans: Float[np.ndarray, "k 2"],
  duration: float | int = 10.0,
) -> AttentionShare:
  """inside_s = sum_l c_l a_ls / sum_l a_ls, c_l the covered share of moment l.

  Args:
    attention: shares that l equally long moments give to s statements.
    spans: first and last second of each span, such as those of ectopic beats;
      they may overlap and reach beyond the recording.
    duration: seconds that the l moments take together.

  Raises:
    ValueError: a span ends before it begins, the spans cover nothing or
      everything of the recording, or a statement has no attention.
  """
  if (spans[:, 1] < spans[:, 0]).any():
    raise ValueError(f"spans={spans.tolist()} must each end after they begin")
  edges = np.linspace(0.0, duration, len(attention) + 1)
  covered = np.diff(_covered_until(edges, spans)) / np.diff(edges)
  time = float(covered.mean())
  # Rounding aside, where nothing or everything is covered.
  if not 1e-9 < time < 1 - 1e-9:
    raise ValueError(
      f"spans={spans.tolist()} must cover some of 0..{duration} s, not "
      f"{time:.0%}"
    )
  total = attention.sum(axis=0, dtype=np.float64)
  if not (total > 0).all():
    raise ValueError(f"attention to each statement must be > 0, not {total}")
  inside = covered @ attention / total
  return AttentionShare(
    inside, time, (inside / time) / ((1 - inside) / (1 - time))
  )


def _covered_until(x, spans):
  """Seconds before each x that lie in any of the spans."""
  merged = []
  for start, end in sorted(spans.tolist()):
    if merged and start <= merged[-1][1]:
      merged[-1][1] = max(merged[-1][1], end)
    else:
      merged.append([start, end])
  total = np.zeros(len(x))
  for start, end in merged:
    total += np.clip(x, start, end) - start
  return total


def beat_spans(
  fiducials: Fiducials, kind: str = "pvc"
) -> Float[np.ndarray, "k 2"]:
  """Seconds from the onset of the QRS to the end of the T wave of some beats.

  Args:
    fiducials: fiducials of a simulated recording, where they are known.
    kind: "normal", "pvc", "pac" or "paced".
  """
  chosen = fiducials.kind == kind
  return np.stack([fiducials.qrs_onset, fiducials.t_end], axis=1)[chosen]
