"""Does the generator replay recordings, and what does that mean for a person?

Everything is measured against what unseen real recordings do. An ECG's lead is
how many times nearer it lies to the nearest recording that was trained on than
to the nearest that was not: a generator that has learned a distribution has the
lead of a new patient's recording, and one whose ECGs are smooth or periodic
comes nearer to both.
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
from ecgtwin_jax.evaluation.privacy import beat_match, replay
from ecgtwin_jax.evaluation.privacy.membership import Losses, auc_metric, joined
from ecgtwin_jax.evaluation.privacy.risk import describe

__all__ = ["LIMIT", "Nearness", "compute", "describe", "draw", "metrics"]

LIMIT = 800  # recordings of each kind that are looked up
_LEVEL = "privacy"
_TAIL = 0.05  # of unseen recordings lie above the threshold
# A pool of few people is nearer to some by chance; copies lead by 2 and more.
_TWICE = float(np.log(2))


class Leads(NamedTuple):
  """log((1 - c') / (1 - c)) with c the correlation to the nearest training
  recording, c' to the nearest of other unseen patients; nan without either.

  Attributes:
    generated: of the generated ECGs.
    unseen: of validation recordings.
  """

  generated: Float[np.ndarray, " generated"]
  unseen: Float[np.ndarray, " unseen"]


class Nearness(NamedTuple):
  """Best correlations, see replay.nearest, and denoising losses.

  Attributes:
    patients: of the generated ECGs.
    generated: of each to the nearest training recording.
    unseen: of validation recordings to the nearest training recording.
    leads: of whole recordings.
    beat_leads: of single beats, see beat_match.
    leaks: of each generated ECG, share of shifts at which it fits its target
      no worse than as it stands, see replay.fit_as_it_stands.
    unseen_patients: whose they are.
    to_reference: of generated ECGs to their own reference.
    real_to_reference: of the real targets to it.
    real_patients: of the real targets.
    members: of training recordings to the nearest generated ECG.
    others: of validation recordings to it.
    member_patients: whose they are.
    pair: lead II of the generated ECG nearest to a training recording, and of
      that recording, shifted.
    training: how many training recordings were searched.
    losses: losses of trained-on and of unseen recordings; None: not measured.
  """

  patients: Shaped[np.ndarray, " generated"]
  generated: Float[np.ndarray, " generated"]
  unseen: Float[np.ndarray, " unseen"]
  leads: Leads
  beat_leads: Leads
  leaks: Float[np.ndarray, " generated"]
  unseen_patients: Shaped[np.ndarray, " unseen"]
  to_reference: Float[np.ndarray, " generated"]
  real_to_reference: Float[np.ndarray, " n"]
  real_patients: Shaped[np.ndarray, " n"]
  members: Float[np.ndarray, " members"]
  others: Float[np.ndarray, " unseen"]
  member_patients: Shaped[np.ndarray, " members"]
  pair: Float[np.ndarray, "2 1024"]
  training: int
  losses: tuple[Losses, Losses] | None = None


def compute(
  examples: Examples,
  train: Float[np.ndarray, "m 1024 12"],
  validation: Float[np.ndarray, "unseen 1024 12"],
  *,
  train_patients: Shaped[np.ndarray, " m"] | None = None,
  validation_patients: Shaped[np.ndarray, " unseen"] | None = None,
  losses: tuple[Losses, Losses] | None = None,
  limit: int = LIMIT,
  seed: int = 0,
) -> Nearness:
  """Looks generated ECGs and unseen recordings up among those trained on.

  Args:
    examples: ECGs of unseen patients; one of each target, drawn at random,
      counts.
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
  # Not the first of each: a replay could stand behind it.
  samples = rng.integers(examples.twins.shape[1], size=len(targets))
  twins = examples.twins[targets, samples]
  others, owner = validation[new], owners(validation_patients, new)
  beats = [beat_match.median_beats(pool) for pool in (train, others)]
  (generated, where), generated_lead, generated_beats = _look_up(
    twins, train, others, beats
  )
  (unseen, _), unseen_lead, unseen_beats = _look_up(
    others, train, others, beats, owner
  )
  closest = int(generated.argmax())
  original = train[where[closest]]
  _, shift = replay.paired(twins[closest][None], original[None])
  lead = 1  # II
  return Nearness(
    patients=examples.patients[targets],
    generated=generated,
    unseen=unseen,
    leads=Leads(generated_lead, unseen_lead),
    beat_leads=Leads(generated_beats, unseen_beats),
    leaks=replay.fit_as_it_stands(twins, examples.real[targets]),
    unseen_patients=owner,
    to_reference=replay.paired(twins, examples.references[targets])[0],
    real_to_reference=replay.paired(
      examples.real[targets], examples.references[targets]
    )[0],
    real_patients=examples.patients[targets],
    members=replay.nearest(train[seen], twins)[0],
    others=replay.nearest(others, twins)[0],
    member_patients=owners(train_patients, seen),
    pair=np.stack(
      [twins[closest][:, lead], np.roll(original[:, lead], int(shift[0]))]
    ).astype(np.float32),
    training=len(train),
    losses=losses,
  )


def _look_up(queries, train, others, beats, owner=None):
  """The nearest training recording, and the leads of recordings and beats.

  Args:
    queries: ECGs.
    train: pool of what was trained on.
    others: pool of unseen patients' recordings.
    beats: median beats of both pools.
    owner: of the queries, where they are the unseen recordings themselves.
  """
  found, best, matched = [], [], []
  own = beat_match.beats_at_stretches(queries)
  for pool, vectors, who in zip(
    (train, others), beats, (None, owner), strict=True
  ):
    owned = dict(query_owners=who, pool_owners=who)
    match = beat_match.match(own, vectors, **owned)
    value, where = replay.nearest(queries, pool, **owned)
    again, place = replay.nearest_stretched(queries, pool, match.candidates)
    if who is not None:
      again = np.where(who[place] == who, -np.inf, again)
    found.append((value, where))
    best.append(np.maximum(value, again))
    matched.append(match.best)
  return found[0], _lead(*best), _lead(*matched)


def _lead(train, unseen):
  known = np.isfinite(train) & np.isfinite(unseen)
  far, near = (1 - np.where(known, x, NAN) + 1e-4 for x in (unseen, train))
  return np.log(far / near)


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
    *(
      _replay_share(
        name,
        *leads,
        joined(nearness.patients, nearness.unseen_patients),
        f"{what} more than twice as near to the nearest training recording as "
        f"to the nearest unseen one, and by more than 95% of {unseen} are, "
        f"{near}, at the best stretch and shift; reference: unseen recordings, "
        "at most",
        seed,
        _TWICE,
      )
      for name, leads, what in (
        ("privacy_replay_share", nearness.leads, "recordings"),
        ("privacy_beat_replay_share", nearness.beat_leads, "beats"),
      )
    ),
    _leak_share(nearness, seed),
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


def _leak_share(nearness, seed):
  row = mean_metric(
    "privacy_leak_share",
    (nearness.leaks <= _TAIL).astype(float),
    nearness.patients,
    _LEVEL,
    better="lower",
    reference=_TAIL,
    note="fit their target recording better as they stand than at 95% of "
    "shifts; reference: by chance, as nobody can know when its beats fall",
    seed=seed,
  )
  return _with_exact_ends(row, nearness.patients)


def _with_exact_ends(row, patients):
  """Where none or all of n patients do: the exact binomial interval.

  The bootstrap sees no spread there.
  """
  if not (row.low == row.high == row.value and row.value in (0.0, 1.0)):
    return row
  edge = 0.025 ** (1 / len(np.unique(patients)))
  if row.value == 0:
    return row._replace(low=0.0, high=1 - edge)
  return row._replace(low=edge, high=1.0)


def _replay_share(
  name, values, real_values, patients, note, seed, least=-np.inf
):
  """Share of values above the 95th percentile of the real ones, and `least`.

  The interval holds the uncertainty of that percentile, too.
  """
  good = np.isfinite(np.concatenate([values, real_values]))
  failed = int((~good).sum())
  if failed:
    note = f"{note}; {failed} of {len(good)} failed"
  ours, patients = good[: len(values)], patients[good]
  if 2 * ours.sum() < len(ours) or 2 * good[len(values) :].sum() < len(
    good
  ) - len(ours):
    return missing(name, _LEVEL, note, int(ours.sum()))
  values, real_values = values[ours], real_values[good[len(ours) :]]
  both = np.concatenate([values, real_values])
  is_ours = np.arange(len(both)) < len(values)

  def statistic(rows):
    ours, real = both[rows[is_ours[rows]]], both[rows[~is_ours[rows]]]
    if not len(ours) or not len(real):
      return NAN
    return float((ours > max(np.quantile(real, 1 - _TAIL), least)).mean())

  value = statistic(np.arange(len(both)))
  low, high = bootstrap_interval(statistic, patients, seed=seed)
  n = len(values)
  row = Metric(name, value, low, high, NAN, _TAIL, "lower", n, _LEVEL, note)
  return _with_exact_ends(row, patients[is_ours])


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
