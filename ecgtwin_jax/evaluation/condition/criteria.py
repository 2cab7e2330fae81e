"""Do generated ECGs meet the criteria of what their reports ask for?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from ecgtwin_jax.beats.criteria_checks import check_criteria
from ecgtwin_jax.beats.delineation import read_ecgs
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import (
  Metric,
  bootstrap_interval,
  mean_metric,
  missing,
)
from ecgtwin_jax.text.asked import CRITERIA, asks_for

LEVEL = "condition"
_FEW = 10  # ECGs asked for a criterion, below which it is left out of the index
_WEAK = 0.2  # gap between real ECGs asked and not asked, below which likewise


class Shares(NamedTuple):
  """Who meets a criterion, row by row, and which rows are asked for it.

  Attributes:
    asked: rows whose report asks for it.
    free: rows whose report neither asks for it nor shows its likeness.
    real: 1 where the real ECG meets it, else 0.
    twins: share of the row's generated ECGs that meet it.
    shuffled: the same with another row's text; None without that arm.
  """

  asked: Bool[np.ndarray, " n"]
  free: Bool[np.ndarray, " n"]
  real: Float[np.ndarray, " n"]
  twins: Float[np.ndarray, " n"]
  shuffled: Float[np.ndarray, " n"] | None


# Of each criterion its shares; of each set of ECGs how many are unreadable.
Checked = tuple[dict[str, Shares], dict[str, int]]


def check_all(examples: Examples) -> Checked:
  """Shares of every criterion, and how many ECGs of each set are unreadable."""
  sets = {"real": examples.real[:, None], "twin": examples.twins}
  if "shuffled_text" in examples.generated:
    sets["shuffled_text"] = examples.generated["shuffled_text"]
  met, unread = {}, {}
  for name, signals in sets.items():
    met[name], unread[name] = _check_set(signals, examples.conditions, name)
  shares = {}
  for column, criterion in enumerate(CRITERIA):
    wants = [
      asks_for(condition, criterion) for condition in examples.conditions
    ]
    shares[criterion] = Shares(
      np.array([want is True for want in wants]),
      np.array([want is False for want in wants]),
      *(
        met[name][:, column] if name in met else None
        for name in ("real", "twin", "shuffled_text")
      ),
    )
  return shares, unread


def _check_set(signals, conditions: Sequence[Condition], name):
  """(n, criteria) share of a row's k ECGs that meet each; ECGs unread."""
  n, k = signals.shape[:2]
  flat = signals.reshape(n * k, *signals.shape[2:])
  readings = read_ecgs(flat, label=f"Criteria of {name} ECGs")
  met = np.array(
    [
      list(check_criteria(reading, conditions[i // k]).values())
      for i, reading in enumerate(readings)
    ],
    np.float64,
  )
  unread = sum(reading is None for reading in readings)
  return met.reshape(n, k, -1).mean(axis=1), unread


def measure(
  examples: Examples, *, seed: int = 0, checked: Checked | None = None
) -> list[Metric]:
  """Shares of generated ECGs that meet each criterion where it is asked for.

  An ECG that cannot be read meets nothing. Per criterion: the share where it
  is asked for, with the share among real ECGs not asked for it as floor, and
  the share where it is not asked for. criteria_index sums them up: 0 as if the
  text were ignored, 1 as the real ECGs.

  Args:
    examples: what is judged.
    seed: of the bootstrap.
    checked: of `check_all`, where it is at hand.
  """
  shares, unread = check_all(examples) if checked is None else checked
  counted = ", ".join(f"{n} {name}" for name, n in unread.items())
  note = f"unreadable ECGs, which meet nothing: {counted}"
  patients = examples.patients
  metrics = []
  for criterion, share in shares.items():
    metrics += _criterion(criterion, share, patients, note, seed)
  return [*metrics, _summarise(shares, patients, seed)]


def _criterion(criterion, share, patients, note, seed):
  asked, free = share.asked, share.free
  name = f"criterion_{criterion}"
  floor = float(share.real[free].mean()) if free.any() else float("nan")
  if not asked.any():
    why = "no report asks for it"
    return [missing(f"{name}_share", LEVEL, why)]
  said = f"real of the same report: {share.real[asked].mean():.3f}"
  if share.shuffled is not None:
    said += f"; with another's text: {share.shuffled[asked].mean():.3f}"
  metrics = [
    mean_metric(
      f"{name}_share",
      share.twins[asked],
      patients[asked],
      LEVEL,
      floor=floor,
      note=f"{said}; floor: real ECGs not asked for it; {note}",
      seed=seed,
    )
  ]
  if free.any():
    metrics.append(
      mean_metric(
        f"{name}_unasked_share",
        share.twins[free],
        patients[free],
        LEVEL,
        floor=floor,
        note="meet it without being asked; floor: real ECGs not asked for it",
        seed=seed,
      )
    )
  return metrics


def index(
  shares: dict[str, Shares], rows: Shaped[np.ndarray, " r"], made: str = "twins"
) -> float:
  """Mean over criteria of (made asked - made not asked) / (real's gap).

  0: being asked for a criterion changes nothing; 1: as much as in real ECGs.
  Criteria that few reports ask for, or that real ECGs hardly show, are left
  out; nan if all are.
  """
  ratios = []
  for share in shares.values():
    values = getattr(share, made)
    asked, free = rows[share.asked[rows]], rows[share.free[rows]]
    if not _is_clear(share) or not (len(asked) and len(free)):
      continue
    real = share.real[share.asked].mean() - share.real[share.free].mean()
    ratios.append((values[asked].mean() - values[free].mean()) / real)
  return float(np.mean(ratios)) if ratios else float("nan")


def _is_clear(share):
  if share.asked.sum() < _FEW or not share.free.any():
    return False
  gap = share.real[share.asked].mean() - share.real[share.free].mean()
  return gap >= _WEAK


def _summarise(shares, patients, seed):
  every = np.arange(len(patients))
  value = index(shares, every)
  clear = [name for name, share in shares.items() if _is_clear(share)]
  if not clear:
    why = f"no criterion is asked for by {_FEW} reports and shown by real ECGs"
    return missing("criteria_index", LEVEL, why)
  shuffled = next(iter(shares.values())).shuffled is not None
  floor = index(shares, every, "shuffled") if shuffled else 0.0
  low, high = bootstrap_interval(
    lambda rows: index(shares, rows), patients, repeats=300, seed=seed
  )
  said = "with another's text" if shuffled else "by definition"
  note = f"0: text ignored, 1: as real; of {', '.join(clear)}; floor: {said}"
  return Metric(
    "criteria_index", value, low, high, floor, len(every), LEVEL, note
  )


def draw(checked: Checked):
  """Bars: share that meets each criterion, asked for it and not.

  Args:
    checked: of `check_all`.
  """
  from matplotlib.figure import Figure

  shares, _ = checked
  shares = {k: v for k, v in shares.items() if v.asked.any()}
  figure = Figure(figsize=(10, 4), layout="constrained")
  axes = figure.subplots()
  place = np.arange(len(shares))
  bars = {
    "real, asked": [s.real[s.asked] for s in shares.values()],
    "generated, asked": [s.twins[s.asked] for s in shares.values()],
  }
  if all(s.shuffled is not None for s in shares.values()):
    bars["another's text"] = [s.shuffled[s.asked] for s in shares.values()]
  bars["generated, not asked"] = [s.twins[s.free] for s in shares.values()]
  bars["real, not asked"] = [s.real[s.free] for s in shares.values()]
  width = 0.8 / len(bars)
  for k, (label, values) in enumerate(bars.items()):
    height = [v.mean() if len(v) else 0.0 for v in values]
    axes.bar(
      place + (k - len(bars) / 2 + 0.5) * width, height, width, label=label
    )
  axes.set_xticks(
    place, [f"{k}\n({v.asked.sum()} asked)" for k, v in shares.items()]
  )
  axes.tick_params(axis="x", labelsize=8)
  axes.set_ylabel("share that meets the criterion")
  figure.legend(fontsize=8, loc="outside lower center", ncols=len(bars))
  return figure
