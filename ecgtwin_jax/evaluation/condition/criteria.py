"""Do generated ECGs meet the criteria of what their reports ask for?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from ecgtwin_jax.beats.criteria_checks import check_criteria
from ecgtwin_jax.beats.delineation import Reading
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import (
  NAN,
  Metric,
  bootstrap_interval,
  mean_metric,
  mean_of,
  missing,
)
from ecgtwin_jax.evaluation.readings import Readings
from ecgtwin_jax.text.findings import CRITERIA, asks_for

if TYPE_CHECKING:
  import matplotlib.figure

LEVEL = "condition"
_FEW = 10  # ECGs asked for a criterion, below which it is left out of the index
_WEAK = 0.2  # gap of real ECGs asked and not asked, below which it is, too


class Shares(NamedTuple):
  """Who meets a criterion, row by row, and which rows are asked for it.

  Attributes:
    stated: rows whose report asks for it.
    free: rows whose report neither asks for it nor shows its likeness.
    real: 1 where the real ECG meets it, else 0.
    twins: share of the row's generated ECGs that meet it.
    shuffled: the same with another row's text; None without that ablation.
    decoded: that of the real ECG after the autoencoder; None: not measured.
  """

  stated: Bool[np.ndarray, " n"]
  free: Bool[np.ndarray, " n"]
  real: Float[np.ndarray, " n"]
  twins: Float[np.ndarray, " n"]
  shuffled: Float[np.ndarray, " n"] | None
  decoded: Float[np.ndarray, " n"] | None = None


class Checked(NamedTuple):
  """What `compute` gives.

  Attributes:
    shares: {criterion: its Shares}.
    unreadable: {set: how many of its ECGs cannot be read}.
    patients: dense number of each row's patient.
  """

  shares: dict[str, Shares]
  unreadable: dict[str, int]
  patients: Shaped[np.ndarray, " n"]


def compute(examples: Examples, readings: Readings | None = None) -> Checked:
  """Checks every criterion on real, generated and decoded ECGs.

  An ECG that cannot be read meets nothing.

  Args:
    examples: what is evaluated.
    readings: readings of the examples' beats; None: they are made here.
  """
  readings = readings or Readings(examples)
  sets = ["real", "twin"]
  sets += [name for name in ("shuffled_text",) if name in examples.generated]
  if examples.decoded is not None:
    sets.append("decoded")
  met, unreadable = {}, {}
  for name in sets:
    rows = readings.of(name)
    met[name] = share_that_meets(rows, examples.conditions)
    unreadable[name] = sum(reading is None for row in rows for reading in row)
  shares = {}
  for column, criterion in enumerate(CRITERIA):
    wants = [
      asks_for(condition.statements, criterion)
      for condition in examples.conditions
    ]
    shares[criterion] = Shares(
      np.array([want is True for want in wants]),
      np.array([want is False for want in wants]),
      *(
        met[name][:, column] if name in met else None
        for name in ("real", "twin", "shuffled_text", "decoded")
      ),
    )
  return Checked(shares, unreadable, examples.patients)


def share_that_meets(
  rows: Sequence[Sequence[Reading | None]], conditions: Sequence[Condition]
) -> Float[np.ndarray, "n criteria"]:
  """Share of a row's ECGs that meet each of CRITERIA.

  Args:
    rows: readings of each row's ECGs; None: nothing could be read.
    conditions: of each row, for age and sex.
  """
  return np.array(
    [
      np.mean(
        [list(check_criteria(r, condition).values()) for r in row],
        axis=0,
        dtype=np.float64,
      )
      for row, condition in zip(rows, conditions, strict=True)
    ]
  )


def metrics(checked: Checked, *, seed: int = 0) -> list[Metric]:
  """Shares of generated ECGs that meet each criterion, asked for it and not.

  The baseline is the share with another row's text, or where that was not
  generated that of real ECGs not asked for it; the reference is the share of
  real ECGs of the same reports. criteria_index sums them up: 0 as if the text
  were ignored, 1 as the real ECGs.

  Args:
    checked: what `compute` returns.
    seed: seed of the bootstrap.
  """
  counted = ", ".join(f"{n} {name}" for name, n in checked.unreadable.items())
  note = f"unreadable ECGs, which meet nothing: {counted}"
  rows = []
  for criterion, share in checked.shares.items():
    rows += _criterion(criterion, share, checked.patients, note, seed)
  rows.append(_summarise(checked, "twins", seed))
  if "decoded" in checked.unreadable:
    rows.append(_summarise(checked, "decoded", seed))
  return rows


def _criterion(criterion, share, patients, note, seed):
  stated, free = share.stated, share.free
  name = f"criterion_{criterion}"
  if not stated.any():
    why = "no report asks for it"
    return [missing(f"{name}_share", LEVEL, why, better="higher")]
  baseline, words = mean_of(share.real[free]), "real ECGs not asked for it"
  if share.shuffled is not None:
    baseline, words = mean_of(share.shuffled[stated]), "with another's text"
  said = f"baseline: {words}; reference: real ECGs of the same reports"
  if share.decoded is not None:
    said += f", after the autoencoder {share.decoded[stated].mean():.3f}"
  rows = [
    mean_metric(
      f"{name}_share",
      share.twins[stated],
      patients[stated],
      LEVEL,
      better="higher",
      baseline=baseline,
      reference=mean_of(share.real[stated]),
      note=f"{said}; {note}",
      seed=seed,
    )
  ]
  if free.any():
    note = "meet it without being asked; reference: real ECGs not asked for it"
    if share.shuffled is not None:
      note += "; baseline: with another's text"
    rows.append(
      mean_metric(
        f"{name}_unasked_share",
        share.twins[free],
        patients[free],
        LEVEL,
        better="lower",
        baseline=NAN
        if share.shuffled is None
        else mean_of(share.shuffled[free]),
        reference=mean_of(share.real[free]),
        note=note,
        seed=seed,
      )
    )
  return rows


def index(
  shares: dict[str, Shares],
  rows: Shaped[np.ndarray, " rows"],
  which: str = "twins",
) -> float:
  """Mean over criteria of (share asked - share not asked) / (real ECGs' gap).

  0: being asked for a criterion changes nothing; 1: as much as in real ECGs.
  Criteria that few reports ask for, or that real ECGs hardly show, are left
  out; nan if all are.

  Args:
    shares: {criterion: its Shares}.
    rows: numbers of the rows that count.
    which: set of ECGs, a field of `Shares`.
  """
  ratios = []
  for share in shares.values():
    values = getattr(share, which)
    stated, free = rows[share.stated[rows]], rows[share.free[rows]]
    if not _is_clear(share) or not (len(stated) and len(free)):
      continue
    real = share.real[share.stated].mean() - share.real[share.free].mean()
    ratios.append((values[stated].mean() - values[free].mean()) / real)
  return float(np.mean(ratios)) if ratios else NAN


def _is_clear(share):
  if share.stated.sum() < _FEW or not share.free.any():
    return False
  gap = share.real[share.stated].mean() - share.real[share.free].mean()
  return gap >= _WEAK


def _summarise(checked, which, seed):
  shares, _, patients = checked
  name = "criteria_index" if which == "twins" else f"criteria_index_{which}"
  every = np.arange(len(patients))
  value = index(shares, every, which)
  clear = [name for name, share in shares.items() if _is_clear(share)]
  if not clear:
    why = f"no criterion is asked for by {_FEW} reports and shown by real ECGs"
    return missing(name, LEVEL, why, better="higher")
  baseline, words = 0.0, "by definition"
  if next(iter(shares.values())).shuffled is not None:
    baseline, words = index(shares, every, "shuffled"), "with another's text"
  low, high = bootstrap_interval(
    lambda rows: index(shares, rows, which), patients, repeats=300, seed=seed
  )
  note = (
    f"0: text ignored, 1: as real; of {', '.join(clear)}; baseline: {words}; "
    "reference: real ECGs, by definition"
  )
  return Metric(
    name, value, low, high, baseline, 1.0, "higher", len(every), LEVEL, note
  )


def draw(checked: Checked) -> "matplotlib.figure.Figure":
  """Bars: share that meets each criterion, asked for it and not.

  Args:
    checked: what `compute` returns.
  """
  from matplotlib.figure import Figure

  shares = {k: v for k, v in checked.shares.items() if v.stated.any()}
  figure = Figure(figsize=(10, 4), layout="constrained")
  axes = figure.subplots()
  place = np.arange(len(shares))
  bars = {
    "real, asked": [s.real[s.stated] for s in shares.values()],
    "generated, asked": [s.twins[s.stated] for s in shares.values()],
  }
  if all(s.shuffled is not None for s in shares.values()):
    bars["another's text"] = [s.shuffled[s.stated] for s in shares.values()]
  bars["generated, not asked"] = [s.twins[s.free] for s in shares.values()]
  bars["real, not asked"] = [s.real[s.free] for s in shares.values()]
  width = 0.8 / len(bars)
  for k, (label, values) in enumerate(bars.items()):
    height = [v.mean() if len(v) else 0.0 for v in values]
    axes.bar(
      place + (k - len(bars) / 2 + 0.5) * width, height, width, label=label
    )
  axes.set_xticks(
    place, [f"{k}\n({v.stated.sum()} asked)" for k, v in shares.items()]
  )
  axes.tick_params(axis="x", labelsize=8)
  axes.set_ylabel("share that meets the criterion")
  figure.legend(fontsize=8, loc="outside lower center", ncols=len(bars))
  return figure
