"""Findings of the reference that come back, and its rate in the base vector."""

import dataclasses

import numpy as np
import pytest

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.evaluation.condition import leakage
from ecgtwin_jax.evaluation.condition.criteria import Checked, Shares
from ecgtwin_jax.text.findings import CRITERIA
from helpers.evaluated import make_examples, real_signals

BLOCK = "Left bundle branch block"


class NoBeats:
  """Readings of ECGs that cannot be read, which meet nothing."""

  def of(self, name):
    return [[None]] * 42


def carried_by(twins, real, examples):
  """Leakage of left bundle branch blocks, of which nobody is asked for."""
  n = len(examples.patients)
  none, never = np.zeros(n), np.zeros(n, bool)
  shares = {name: Shares(never, ~never, none, none, None) for name in CRITERIA}
  shares["lbbb"] = Shares(never, ~never, real, twins, None)
  checked = Checked(shares, {}, examples.patients)
  return leakage.compute(examples, checked, NoBeats())


@pytest.fixture(scope="module")
def examples():
  """Every other of 14 patients has a left bundle branch block before."""
  plain = make_examples(real_signals())
  before = tuple(
    Condition(["Sinus rhythm", BLOCK] if i // 3 % 2 else ["Sinus rhythm"], 70)
    for i in range(42)
  )
  return dataclasses.replace(plain, reference_conditions=before)


def test_a_finding_that_comes_back_is_counted_beyond_others_twins(examples):
  had = np.arange(42) // 3 % 2 == 1
  twins = np.where(had, 0.6, 0.1)
  found = carried_by(twins, np.zeros(42), examples)
  whole, block = leakage.metrics(found)
  assert whole.name == "finding_leakage"
  assert (whole.value, whole.n) == (pytest.approx(0.5), 21)
  assert whole.low == pytest.approx(0.5)
  assert (whole.reference, whole.baseline) == (0, 0)
  assert block.name == "leakage_lbbb_share"
  assert block.value == pytest.approx(0.6)
  assert "where it does not: 0.100" in block.note
  (none, *_) = leakage.metrics(carried_by(np.full(42, 0.3), twins, examples))
  assert none.value == pytest.approx(0)
  assert none.reference == pytest.approx(0.5)


def test_nothing_is_said_where_no_finding_is_left_out(examples):
  before = (Condition(["Sinus rhythm"], 70),) * 42
  plain = dataclasses.replace(examples, reference_conditions=before)
  (row,) = leakage.metrics(carried_by(np.zeros(42), np.zeros(42), plain))
  assert np.isnan(row.value) and row.note.startswith(
    "no finding of a reference"
  )


def test_the_rate_of_the_reference_is_found_in_base_vectors():
  n = 120
  rng = np.random.default_rng(0)
  rates = rng.uniform(50, 100, n)
  bases = rng.normal(size=(n, 6)).astype(np.float32)
  plain = make_examples(np.zeros((42, 1024, 12), np.float32))
  rows = np.arange(n) % 42
  many = dataclasses.replace(
    plain,
    patients=np.arange(n),
    conditions=tuple(plain.conditions[i] for i in rows),
    reference_conditions=tuple(Condition(["Sinus rhythm"], x) for x in rates),
    bases=bases,
  )
  nothing = leakage.rate_metric(many)
  assert nothing.value < 0.1 and nothing.n == n
  bases[:, 0] = rates
  assert leakage.rate_metric(many).value > 0.8
  assert np.isnan(leakage.rate_metric(plain).value)
  few = dataclasses.replace(plain, bases=bases[:42])
  assert leakage.rate_metric(few).note == "14 patients: fewer than 30"
