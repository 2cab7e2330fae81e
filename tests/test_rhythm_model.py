"""The rhythm model: its likelihood by hand, and what it may draw."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgtwin_jax.models import rhythm
from helpers import weights

MODULE = rhythm.RhythmModel(width=7, components=3, text_width=5)
ROWS, LONGEST = 3, 11
sample = jax.jit(functools.partial(rhythm.sample, MODULE), static_argnums=6)
predict = jax.jit(MODULE.apply)
likelihoods = jax.jit(rhythm.log_likelihoods)


@pytest.fixture(scope="module")
def condition():
  rng = np.random.default_rng(0)
  statements = rng.normal(size=(ROWS, 2, 5)).astype(np.float32)
  mask = np.array([[True, True], [True, False], [True, True]])
  patient = rng.normal(size=(ROWS, 3)).astype(np.float32)
  patient[1, 1] = np.nan
  return statements, mask, patient


@pytest.fixture(scope="module")
def beats():
  """Rhythms of 9, 4 and no beats, and the usual interval of each."""
  rng = np.random.default_rng(1)
  time = np.full((ROWS, LONGEST), np.nan, np.float32)
  kind = np.full((ROWS, LONGEST), -1, np.int32)
  p_wave = kind.copy()
  for row, (first, count, usual) in enumerate([(0.3, 9, 1.1), (1.9, 4, 2.2)]):
    ratio = rng.uniform(0.8, 1.2, count)
    time[row, :count] = first + usual * np.cumsum(ratio) - usual * ratio[0]
    kind[row, :count] = rng.integers(rhythm.KINDS, size=count)
    p_wave[row, :count] = rng.integers(2, size=count)
  return time, kind, p_wave, np.array([1.1, 2.2, 0.8], np.float32)


@pytest.fixture(scope="module")
def variables(beats, condition):
  made = weights.draw(MODULE.init, *beats, *condition)
  # Weights larger than at the start, so that everything has an effect.
  return jax.tree.map(lambda x: 2 * x + 0.05, made)


def test_the_density_of_an_interval_and_its_survival_are_one(
  beats, condition, variables
):
  predicted = predict(variables, *beats, *condition)
  one = rhythm.Prediction(*(x[:1, :2] for x in predicted))
  y = np.linspace(-1.59, 1.59, 2001)
  last = 1.0 + np.exp(y)  # of two beats, the usual interval is 1 s
  rows = len(y)
  many = rhythm.Prediction(*(jnp.repeat(x, rows, axis=0) for x in one))
  time = np.stack([np.ones(rows), last], axis=1).astype(np.float32)
  kind = np.full((rows, 2), 2)
  parts = likelihoods(many, time, kind, kind, np.ones(rows, "f4"))
  share = np.trapezoid(np.exp(parts["interval"]), y)
  ends = [
    jax.nn.sigmoid((end - one.center[0, 1, 2]) / one.scale[0, 1, 2])
    for end in (y[0], y[-1])
  ]
  weight = np.exp(one.weight[0, 1, 2])
  np.testing.assert_allclose(share, weight @ (ends[1] - ends[0]), rtol=1e-3)
  # A beat 1 s before the end: its next interval is longer than that.
  alone = likelihoods(
    one,
    np.array([[9.0, np.nan]], "f4"),
    np.array([[0, -1]]),
    -np.ones((1, 2), int),
    np.ones(1, "f4"),
  )
  longer = np.exp(one.weight[0, 1]) * jax.nn.sigmoid(
    one.center[0, 1] / one.scale[0, 1]
  )
  by_hand = np.exp(one.kind[0, 1]) @ longer.sum(axis=1)
  np.testing.assert_allclose(alone["end"][0], np.log(by_hand), rtol=1e-4)


def test_what_stands_behind_the_last_beat_has_no_effect(
  beats, condition, variables
):
  time, kind, p_wave, usual = beats
  other = np.where(kind < 0, 7.0, time), kind, np.where(kind < 0, 1, p_wave)
  for rows in ((time, kind, p_wave), other):
    predicted = predict(variables, *rows, usual, *condition)
    parts = likelihoods(predicted, *rows, usual)
    total = np.asarray(sum(parts.values()))
    assert np.isfinite(total).all()
    assert total[2] == 0  # no beats
    if rows is not other:
      first = total
  np.testing.assert_array_equal(first, total)


def test_padded_statements_have_no_effect_and_order_none(
  beats, condition, variables
):
  statements, mask, patient = condition
  plain = predict(variables, *beats, statements, mask, patient)
  padded = np.where(mask[..., None], statements, np.nan)
  again = predict(variables, *beats, padded, mask, patient)
  jax.tree.map(np.testing.assert_array_equal, plain, again)
  turned = predict(
    variables, *beats, statements[:, ::-1], mask[:, ::-1], patient
  )
  np.testing.assert_allclose(plain.kind, turned.kind, atol=1e-5)
  single = predict(variables, *beats, statements[:, :1], mask[:, :1], patient)
  assert not np.allclose(plain.kind[0], single.kind[0], atol=1e-3)


def test_step_by_step_is_all_at_once(beats, condition, variables):
  whole = predict(variables, *beats, *condition)
  past = rhythm.features(*beats)
  encode = jax.jit(functools.partial(MODULE.apply, method="condition"))
  context = encode(variables, *condition)
  state = jnp.zeros((ROWS, MODULE.width))
  step = jax.jit(lambda *inputs: MODULE.apply(*inputs, method="step"))
  for k in range(LONGEST):
    state, one = step(variables, state, past[:, k], context)
    for single, every in zip(one, whole):
      np.testing.assert_allclose(single, every[:, k], atol=1e-5)


def test_drawn_rhythms_have_exactly_the_rate_that_was_asked_for(
  condition, variables
):
  usual = np.array([60 / 41, 60 / 173, 60 / 300], np.float32)
  rngs = jax.random.split(jax.random.key(5), ROWS)
  time, kind, p_wave = sample(variables, rngs, *condition, usual, 48)
  for row, interval in enumerate(usual):
    times = np.asarray(time[row])
    count = int(np.isfinite(times).sum())
    assert (np.diff(times[:count]) > 0).all()
    assert 0 <= times[0] < interval and times[count - 1] < 10
    np.testing.assert_allclose(
      np.diff(times[:count]).mean(), interval, rtol=1e-5
    )
    # Full to the end, unless there are as many as can be.
    assert count == 48 or times[count - 1] + interval > 9.97
    assert set(np.unique(kind[row, :count])) <= set(range(rhythm.KINDS))
    assert (kind[row, count:] == -1).all() and (p_wave[row, count:] == -1).all()


def test_a_row_depends_on_its_own_key_alone(condition, variables):
  usual = np.array([0.8, 0.9, 1.0], np.float32)
  rngs = jax.random.split(jax.random.key(6), ROWS)
  first = sample(variables, rngs, *condition, usual, 48)
  other = rngs.at[0].set(jax.random.key(99))
  second = sample(variables, other, *condition, usual, 48)
  for a, b in zip(first, second):
    np.testing.assert_array_equal(a[1:], b[1:])
  assert not np.array_equal(first[0][0], second[0][0])
