"""Can it be told who was trained on? Membership inference against a twin.

Two attacks: by loss, for who holds the weights and a recording with its
condition; by distance, for who holds generated ECGs alone. 0.5 is a guess.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from ecgtwin_jax.beats.rhythm import detect_rhythm
from ecgtwin_jax.data.dataset import Dataset
from ecgtwin_jax.diffusion.schedule import Schedule
from ecgtwin_jax.evaluation.generate_examples import (
  Choice,
  as_ecgs,
  read_condition,
  signals_mv,
)
from ecgtwin_jax.evaluation.metric import (
  NAN,
  Metric,
  bootstrap_interval,
  missing,
)
from ecgtwin_jax.inference.sampling import Settings
from ecgtwin_jax.inference.twin import ECGTwin
from ecgtwin_jax.models.denoiser import DenoiserInputs
from ecgtwin_jax.text.findings import auroc

# Steps of 1000 at which the noise is to be found, late ones least clean.
TIMESTEPS = (50, 150, 300, 500)
DRAWS = 2  # of noise at each of them


class Losses(NamedTuple):
  """The denoising loss of recordings, and whose they are."""

  losses: Float[np.ndarray, " n"]
  patients: Shaped[np.ndarray, " n"]


def denoising_losses(
  twin: ECGTwin,
  data: Dataset,
  choice: Choice,
  *,
  timesteps: tuple[int, ...] = TIMESTEPS,
  draws: int = DRAWS,
  seed: int = 0,
) -> Losses:
  """Mean squared error of the noise that stage 2 sees in target recordings.

  Each target's latent mean is noised to the same steps with the same noise as
  all others, and denoised under its own condition and beats and its reference's
  base vector, as in training: what differs between recordings is the recording
  alone.

  Args:
    twin: the twin whose denoiser is measured.
    data: a split with ECGs: the training's, or a held-out one.
    choice: pairs of it, such as make_examples.choose gives.
    timesteps: steps of the schedule.
    draws: draws of noise at each step.
    seed: seed of the noise.

  Raises:
    ValueError: a timestep is not in the schedule, or there are no pairs.
  """
  schedule = Schedule(**twin.hyper["denoiser"]["schedule"])
  if not all(0 <= t < schedule.steps for t in timesteps) or not timesteps:
    raise ValueError(f"{timesteps=} must be some in 0..{schedule.steps - 1}")
  if not len(choice.targets):
    raise ValueError("there must be at least one pair of recordings")
  before = as_ecgs(signals_mv(data, choice.references))
  now = [read_condition(data, int(row)) for row in choice.references]
  then = [read_condition(data, int(row)) for row in choice.targets]
  bases = twin.extract_bases(before, now)
  targets = as_ecgs(signals_mv(data, choice.targets))
  latents = np.stack([twin.networks.encode(ecg) for ecg in targets])
  arrays = [twin.arrays(condition, "denoiser") for condition in then]
  plan = Settings(steps=1).plan(twin.hyper["denoiser"])
  inputs = DenoiserInputs(*(np.stack(rows) for rows in zip(*arrays)), bases)
  if twin.networks.reads_beats:
    rhythms = [detect_rhythm(ecg.signal, ecg.sampling_rate) for ecg in targets]
    inputs = inputs._replace(track=twin.networks.track(rhythms))
  rng = np.random.default_rng(seed)
  total = np.zeros(len(latents))
  for t in timesteps:
    for _ in range(draws):
      eps = rng.normal(size=latents.shape[1:]).astype(np.float32)
      noisy = (
        schedule.signal_rate[t] * latents + schedule.noise_rate[t] * eps
      ).astype(np.float32)
      seen = twin.networks.predict_noise(
        plan, noisy, np.full(len(noisy), t, np.int32), inputs
      )
      total += np.square(seen - eps).mean(axis=(1, 2))
  return Losses(
    total / (len(timesteps) * draws), data.patient_number[choice.targets]
  )


def auc_metric(
  name: str,
  members: Float[np.ndarray, " n"],
  others: Float[np.ndarray, " m"],
  member_patients: Shaped[np.ndarray, " n"],
  other_patients: Shaped[np.ndarray, " m"],
  *,
  note: str = "",
  seed: int = 0,
) -> Metric:
  """The area under the ROC curve of an attack; a guess, the baseline, has 0.5.

  Args:
    name: name of the metric.
    members: the attack's scores of recordings that were trained on; higher
      means "a member".
    others: scores of those that were not.
    member_patients: patients of the training recordings.
    other_patients: patients of the others; no patient is in both.
    note: note of the metric.
    seed: seed of the bootstrap over patients of both kinds.
  """
  if not len(members) or not len(others):
    return missing(name, "privacy", "no members or no others to compare")
  scores = np.concatenate([members, others])
  inside = (np.arange(len(scores)) < len(members)).astype(np.int8)
  low, high = bootstrap_interval(
    lambda rows: auroc(scores[rows], inside[rows]),
    joined(member_patients, other_patients),
    seed=seed,
  )
  value = auroc(scores, inside)
  count = f"{len(members)} members, {len(others)} others"
  note = f"{note}; {count}; baseline: a guess".lstrip("; ")
  n = len(scores)
  return Metric(name, value, low, high, 0.5, NAN, "lower", n, "privacy", note)


def joined(
  one: Shaped[np.ndarray, " n"], other: Shaped[np.ndarray, " m"]
) -> Shaped[np.ndarray, " _"]:
  """Numbers patients of two sets without a patient in common."""
  _, first = np.unique(one, return_inverse=True)
  _, second = np.unique(other, return_inverse=True)
  return np.concatenate([first, second + first.max(initial=-1) + 1])
