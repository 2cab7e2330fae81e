"""Does the generator replay recordings, and what does that mean for a person?

Everything is measured against what unseen real recordings do: a generator that
has learned a distribution comes as close to its training recordings as a new
patient's recording does, and no closer.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from ecgtwin_jax.constants import MODEL_RATE
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import (
  NAN,
  Metric,
  bootstrap_interval,
  mean_metric,
  missing,
)
from ecgtwin_jax.evaluation.privacy import replay
from ecgtwin_jax.evaluation.privacy.membership import Losses, auc_metric, joined
from ecgtwin_jax.evaluation.privacy.risk import describe

__all__ = ["LIMIT", "Nearness", "compute", "describe", "draw", "metrics"]

LIMIT = 800  # recordings of each kind that are looked up
_LEVEL = "privacy"
_TAIL = 0.05  # of unseen recordings lie above the threshold


class Nearness(NamedTuple):
  """Best correlations, see replay.nearest, and denoising losses.

  Attributes:
    patients: patients of the generated ECGs.
    generated: distance of each to the nearest training recording.
    unseen: distances of validation recordings to the nearest training one.
    unseen_patients: the patients of the validation recordings.
    to_reference: distances of generated ECGs to their own reference.
    real_to_reference: distances of the real targets to it.
    real_patients: patients of the real targets.
    members: distances of training recordings to the nearest generated ECG.
    others: distances of validation recordings to the nearest generated ECG.
    member_patients: patients of the training recordings.
    pair: lead II of the generated ECG nearest to a training recording, and of
      that recording, shifted.
    training: how many training recordings were searched.
    losses: losses of trained-on and of unseen recordings; None: not measured.
  """

  patients: Shaped[np.ndarray, " q"]
  generated: Float[np.ndarray, " q"]
  unseen: Float[np.ndarray, " v"]
  unseen_patients: Shaped[np.ndarray, " v"]
  to_reference: Float[np.ndarray, " q"]
  real_to_reference: Float[np.ndarray, " n"]
  real_patients: Shaped[np.ndarray, " n"]
  members: Float[np.ndarray, " w"]
  others: Float[np.ndarray, " v"]
  member_patients: Shaped[np.ndarray, " w"]
  pair: Float[np.ndarray, "2 1024"]
  training: int
  losses: tuple[Losses, Losses] | None = None


def compute(
  examples: Examples,
  train: Float[np.ndarray, "m 1024 12"],
  validation: Float[np.ndarray, "v 1024 12"],
  *,
  train_patients: Shaped[np.ndarray, " m"] | None = None,
  validation_patients: Shaped[np.ndarray, " v"] | None = None,
  losses: tuple[Losses, Losses] | None = None,
  limit: int = LIMIT,
  seed: int = 0,
) -> Nearness:
  """Looks generated ECGs and unseen recordings up among those trained on.

  Args:
    examples: ECGs of unseen patients; the first of each target counts.
    train: recordings that the generator was trained on, in mV.
    validation: recordings of patients that it was not trained on. A generator
      that leaves out noise comes closer to everything; recordings that went
      through its autoencoder make a stricter comparison.
    train_patients: their patients; None: each has one of its own.
    validation_patients: patients of the unseen recordings.
    losses: membership.denoising_losses of trained-on and of unseen recordings.
    limit: recordings of each kind, drawn at random; all of `train` is searched.
    seed: seed of the drawing.

  Raises:
    ValueError: there are no training or no validation recordings.
  """
  if not len(train) or not len(validation):
    raise ValueError(
      f"{len(train)} training and {len(validation)} validation recordings must "
      "both be some"
    )
  rng = np.random.default_rng(seed)

  def draw(n):
    return np.sort(rng.permutation(n)[:limit])

  def owners(patients, rows):
    return rows if patients is None else patients[rows]

  targets, seen, new = (
    draw(len(each)) for each in (examples.twins, train, validation)
  )
  twins = examples.twins[targets, 0]
  generated, where = replay.nearest(twins, train)
  closest = int(generated.argmax())
  original = train[where[closest]]
  _, shift = replay.paired(twins[closest][None], original[None])
  lead = 1  # II
  return Nearness(
    patients=examples.patients[targets],
    generated=generated,
    unseen=replay.nearest(validation[new], train)[0],
    unseen_patients=owners(validation_patients, new),
    to_reference=replay.paired(twins, examples.references[targets])[0],
    real_to_reference=replay.paired(
      examples.real[targets], examples.references[targets]
    )[0],
    real_patients=examples.patients[targets],
    members=replay.nearest(train[seen], twins)[0],
    others=replay.nearest(validation[new], twins)[0],
    member_patients=owners(train_patients, seen),
    pair=np.stack(
      [twins[closest][:, lead], np.roll(original[:, lead], int(shift[0]))]
    ).astype(np.float32),
    training=len(train),
    losses=losses,
  )


def metrics(nearness: Nearness, *, seed: int = 0) -> list[Metric]:
  """Shares of replays, correlations behind them, membership inference.

  The reference is what unseen real recordings do; the baseline of an attack is
  a guess.

  Args:
    nearness: what `compute` returns.
    seed: seed of the bootstrap over patients.
  """
  near = f"among {nearness.training} training recordings"
  unseen = f"{len(nearness.unseen)} unseen recordings"
  rows = [
    _replay_share(
      "privacy_replay_share",
      nearness.generated,
      nearness.unseen,
      joined(nearness.patients, nearness.unseen_patients),
      f"nearer than 95% of {unseen}, {near}; reference: unseen recordings",
      seed,
    ),
    mean_metric(
      "privacy_nearest_training_correlation",
      nearness.generated,
      nearness.patients,
      _LEVEL,
      better="lower",
      reference=float(nearness.unseen.mean()),
      note=f"{near}; reference: unseen recordings",
      seed=seed,
    ),
    Metric(
      "privacy_largest_training_correlation",
      float(nearness.generated.max()),
      NAN,
      NAN,
      NAN,
      float(nearness.unseen.max()),
      "lower",
      len(nearness.generated),
      _LEVEL,
      f"of any generated ECG, {near}; reference: of any of {unseen}",
    ),
    _replay_share(
      "privacy_reference_replay_share",
      nearness.to_reference,
      nearness.real_to_reference,
      np.concatenate([nearness.patients, nearness.real_patients]),
      "nearer to the patient's reference recording than 95% of the patients' "
      "real recordings under the target condition; reference: those",
      seed,
    ),
    mean_metric(
      "privacy_reference_correlation",
      nearness.to_reference,
      nearness.patients,
      _LEVEL,
      better="lower",
      reference=float(nearness.real_to_reference.mean()),
      note="to the patient's reference recording; reference: the patients' "
      "real recordings under the target condition",
      seed=seed,
    ),
    auc_metric(
      "privacy_membership_distance_auc",
      nearness.members,
      nearness.others,
      nearness.member_patients,
      nearness.unseen_patients,
      note="by correlation to the nearest of "
      f"{len(nearness.generated)} generated",
      seed=seed,
    ),
  ]
  name = "privacy_membership_loss_auc"
  if nearness.losses is None:
    why = "needs the twin and its training data"
    return [*rows, missing(name, _LEVEL, why)]
  members, others = nearness.losses
  return [
    *rows,
    auc_metric(
      name,
      -members.losses,
      -others.losses,
      members.patients,
      others.patients,
      note="by the denoising loss at fixed steps and noise",
      seed=seed,
    ),
  ]


def _replay_share(name, values, real_values, patients, note, seed):
  """Share of values above the 95th percentile of the real ones.

  The interval holds the uncertainty of that percentile, too.
  """
  both = np.concatenate([values, real_values])
  is_ours = np.arange(len(both)) < len(values)

  def statistic(rows):
    ours, real = both[rows[is_ours[rows]]], both[rows[~is_ours[rows]]]
    if not len(ours) or not len(real):
      return NAN
    return float((ours > np.quantile(real, 1 - _TAIL)).mean())

  value = statistic(np.arange(len(both)))
  low, high = bootstrap_interval(statistic, patients, seed=seed)
  if low == high == value and value in (0.0, 1.0):
    # None or all of n patients: the bootstrap sees no spread, the exact
    # binomial interval does.
    edge = 0.025 ** (1 / len(np.unique(patients[is_ours])))
    low, high = (0.0, 1 - edge) if value == 0 else (edge, 1.0)
  n = len(values)
  return Metric(name, value, low, high, NAN, _TAIL, "lower", n, _LEVEL, note)


def draw(nearness: Nearness) -> Any:
  """Draws correlations against those of real ones, and the nearest pair.

  Args:
    nearness: what `compute` returns.

  Returns:
    A matplotlib Figure.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(9, 5.6), layout="constrained")
  top, bottom = figure.subfigures(2, 1, height_ratios=(3, 2))
  left, right = top.subplots(1, 2)
  for axes, values, real, title, whose in (
    (
      left,
      nearness.generated,
      nearness.unseen,
      f"to the nearest of {nearness.training} training recordings",
      "unseen patients",
    ),
    (
      right,
      nearness.to_reference,
      nearness.real_to_reference,
      "to the own reference",
      "the same patients",
    ),
  ):
    edges = np.linspace(min(values.min(), real.min()) - 0.01, 1.0, 41)
    axes.hist(real, edges, density=True, color="0.7", label="real")
    axes.hist(
      values,
      edges,
      density=True,
      histtype="step",
      color="C3",
      lw=1.6,
      label="generated",
    )
    axes.axvline(
      np.quantile(real, 1 - _TAIL),
      color="0.3",
      ls=":",
      label="95th percentile",
    )
    axes.set_xlabel("correlation at the best shift")
    axes.set_yticks([])
    axes.set_title(f"{title}\nreal: {whose}", fontsize=10)
  top.legend(
    *left.get_legend_handles_labels(),
    frameon=False,
    fontsize=9,
    ncols=3,
    loc="outside lower center",
  )
  axes = bottom.subplots()
  seconds = np.arange(nearness.pair.shape[1]) / MODEL_RATE
  axes.plot(seconds, nearness.pair[1], color="0.6", lw=1.4, label="training")
  axes.plot(seconds, nearness.pair[0], color="C3", lw=0.8, label="generated")
  axes.set_title(
    f"the nearest pair, lead II (correlation {nearness.generated.max():.3f})",
    fontsize=10,
  )
  axes.set_xlabel("s")
  axes.set_ylabel("mV")
  axes.set_xlim(0, 10)
  axes.legend(frameon=False, fontsize=8, loc="upper right")
  return figure
