"""What is in a data set: counts in words, and a page of histograms."""

import os
import pathlib

import numpy as np

from data_prep.writing import describe_card
from ecgtwin_jax.data.dataset import SPLITS, Dataset, load_card, load_split

_MOST = 30  # statements in the picture
_COLORS = ("#1f5f8b", "#e0a458", "#8b1e3f")


def describe(directory: str | os.PathLike) -> pathlib.Path:
  """Prints what a data set holds and draws describe.png into it.

  Args:
    directory: folder of the data set.

  Returns:
    Path of the picture.

  Raises:
    ValueError: there is no data set, or it is damaged.
  """
  directory = pathlib.Path(directory)
  card = load_card(directory)
  splits = {
    split: load_split(directory, split, with_arrays=False) for split in SPLITS
  }
  counts = _count_statements(splits)
  print(_summary(directory, card, splits, counts))
  path = directory / "describe.png"
  _draw(path, splits, counts)
  print(f"picture: {path}")
  return path


def _count_statements(splits: dict[str, Dataset]) -> dict[str, np.ndarray]:
  """Returns how often each statement occurs in each split."""
  size = len(splits["train"].table)
  return {
    name: np.bincount(
      split.statement_ids[split.statement_ids >= 0], minlength=size
    )
    for name, split in splits.items()
  }


def _unreported(split: Dataset) -> int:
  return int((split.statement_ids < 0).all(axis=1).sum())


def _numbers(scale: float | list[float]) -> str:
  return " ".join(f"{x:.5g}" for x in np.ravel(scale))


def _summary(directory, card, splits, counts) -> str:
  table = splits["train"].table
  rejected = ", ".join(f"{n} {rule}" for rule, n in card["rejected"].items())
  lines = [
    f"{directory}: {card['kind']} records of {describe_card(card)}",
    f"10 s, leads {' '.join(card['leads'])}, {card['unit']},"
    f" {card['samples']} samples at {card['sampling_rate']} Hz",
    f"{card['read']} read = {card['written']} written"
    f" + {card['read'] - card['written']} rejected"
    + f" ({rejected})"
    * bool(rejected),
  ]
  if card["kind"] == "latent":
    lines += [
      f"latents: scale {_numbers(card['latent_scale'])}, clip"
      f" {card['latent_clip']:.4g}, autoencoder {card['vae'][:12]}"
    ]
  lines += ["", f"{'split':<12}{'ECGs':>10}{'patients':>10}{'pairs':>12}"]
  lines += [
    f"{name:<12}{len(split):>10,}{len(np.unique(split.patient_id)):>10,}"
    f"{len(split.pairs):>12,}"
    for name, split in splits.items()
  ]
  rates = np.concatenate([split.heart_rate for split in splits.values()])
  ages = np.concatenate([split.age for split in splits.values()])
  sexes = np.concatenate([split.sex for split in splits.values()])
  total = sum(counts.values())
  lines += [
    "",
    f"heart rate: {_spread(rates)} bpm",
    f"age: {_spread(ages[ages >= 0])} years, {(ages < 0).sum():,} missing",
    f"sex: {(sexes == 0).sum():,} female, {(sexes == 1).sum():,} male,"
    f" {(sexes < 0).sum():,} missing",
    f"reports: {sum(map(_unreported, splits.values())):,} missing",
    f"statements: {(total > 0).sum():,} of {len(table):,} occur,"
    f" {total.sum() / max(1, len(rates)):.1f} per ECG, vectors by"
    f" {table.encoder}",
  ]
  lines += [
    f"{total[i]:>10,}  {table.statements[i]}"
    for i in np.argsort(-total, kind="stable")[:_MOST]
    if total[i]
  ]
  return "\n".join(lines)


def _spread(values: np.ndarray) -> str:
  if not values.size:
    return "no"
  low, middle, high = np.percentile(values, [5, 50, 95])
  return f"median {middle:.0f}, 5-95 % {low:.0f}-{high:.0f}"


def _draw(path, splits, counts) -> None:
  from matplotlib.figure import Figure

  total = sum(counts.values())
  order = np.argsort(-total, kind="stable")[:_MOST]
  order = order[total[order] > 0][::-1]
  figure = Figure(figsize=(12, 7), layout="constrained")
  grid = figure.add_gridspec(2, 2, width_ratios=(1, 1.3))
  rate, age = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[1, 0])
  bars = figure.add_subplot(grid[:, 1])
  labels = [f"{name} ({len(split):,})" for name, split in splits.items()]
  for axes, key, title, width in (
    (rate, "heart_rate", "heart rate, bpm", 5),
    (age, "age", "age, years", 5),
  ):
    values = [getattr(split, key) for split in splits.values()]
    values = [value[value >= 0] for value in values]
    everything = np.concatenate(values)
    if everything.size:
      low, high = everything.min() // width, everything.max() // width
      bins = np.arange(low, high + 2) * width
      axes.hist(values, bins, stacked=True, color=_COLORS, label=labels)
    axes.set(xlabel=title, ylabel="ECGs")
  rate.legend(frameon=False)
  names = splits["train"].table.statements
  left = np.zeros(len(order))
  for color, count in zip(_COLORS, counts.values()):
    bars.barh(range(len(order)), count[order], left=left, color=color)
    left += count[order]
  bars.set_yticks(range(len(order)), [_shorten(names[i]) for i in order])
  bars.set(xlabel="ECGs", title="statements")
  bars.margins(y=0.01)
  for axes in (rate, age, bars):
    axes.spines[["top", "right"]].set_visible(False)
  figure.suptitle(str(path.parent))
  figure.savefig(path, dpi=110)


def _shorten(text: str, length: int = 45) -> str:
  return text if len(text) <= length else text[: length - 1] + "…"
