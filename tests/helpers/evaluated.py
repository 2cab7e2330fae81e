"""Simulated examples whose evaluation has a known answer."""

import functools

import numpy as np

from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.simulator import simulate

SEED = 3


@functools.cache
def recordings(patients=14, each=3):
  """Recordings of a small cohort, patient after patient."""
  return tuple(
    shown
    for number in range(patients)
    for shown in simulate.cohort_recordings(SEED, number, each)
  )


def signal(patient, condition, seed, noise=True):
  rng = np.random.default_rng([SEED, seed])
  shown = simulate.simulate(patient, condition, rng, noise)
  return shown.ecg.resample(1024).signal


def make_examples(twins, patients=14, each=3, **arms):
  """Examples whose rows are the cohort's recordings.

  Args:
    twins: (n, 1024, 12) that stand for what was generated.
    patients: of the cohort.
    each: recordings of a patient, the first of which is the reference.
    **arms: likewise.
  """
  shown = recordings(patients, each)
  first = [i // each * each for i in range(len(shown))]
  real = real_signals(patients, each)
  conditions = tuple(s.condition for s in shown)
  generated = {"twin": twins} | arms
  names = tuple(s.record_id for s in shown)
  return Examples(
    np.array([s.patient_id for s in shown]),
    real[first],
    tuple(conditions[i] for i in first),
    real,
    conditions,
    {arm: signals[:, None] for arm, signals in generated.items()},
    tuple(names[i] for i in first),
    names,
  )


@functools.cache
def real_signals(patients=14, each=3):
  shown = recordings(patients, each)
  return np.stack([s.ecg.resample(1024).signal for s in shown])
