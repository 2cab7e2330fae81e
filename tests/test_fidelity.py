"""Fidelity on sets of points whose figures are known."""

import numpy as np
import pytest
from toy_examples import PlantedSpace, make_examples, signals_of

from ecgtwin_jax.evaluation import fidelity, precision_recall

PEOPLE = np.repeat(np.arange(60), 5)
N, WIDTH = len(PEOPLE), 5


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape)


def figures(real, sets, **kwargs):
  rows = fidelity.plan(PEOPLE)
  metrics = fidelity.compare(real, sets, PEOPLE, rows, repeats=20, **kwargs)
  assert all(m.level == "fidelity" for m in metrics)
  return {m.name: m for m in metrics}


def test_a_generator_as_good_as_reality_has_its_floor():
  real = normal(0, N, WIDTH)
  found = figures(
    real, {"twin": normal(1, N, 3, WIDTH), "decoded": real[:, None]}
  )
  assert found["rfid"].low < 1 < found["rfid"].high
  for name in ("fid", "precision", "recall", "f1"):
    metric = found[name]
    assert metric.low <= metric.value <= metric.high
    assert abs(metric.value - metric.floor) < 0.3 * metric.floor
    # The same ECGs score exactly as reality does.
    same = found[f"{name}_decoded"]
    assert same.value == pytest.approx(same.floor, rel=1e-9)
  assert found["fid"].floor == found["fid_real"].value
  assert found["fid"].n == N // 2


def test_a_shifted_generator_is_as_far_as_its_shift():
  shift = np.array([3.0, 0.0, 0.0, 0.0, 0.0])
  found = figures(
    normal(0, N, WIDTH), {"twin": normal(1, N, 2, WIDTH) + 5 * shift}
  )
  assert found["fid"].value == pytest.approx(225, rel=0.1)
  assert found["rfid"].low > 10
  assert found["precision"].value == found["recall"].value == 0
  assert found["f1"].value == 0


def two_modes(seed, share):
  second = np.random.default_rng(seed).random(N) < share
  return normal(seed, N, WIDTH) + 20.0 * second[:, None]


def test_a_dropped_mode_costs_recall_and_not_precision():
  real = two_modes(0, 0.5)
  found = figures(real, {"twin": two_modes(1, 0.0)[:, None]})
  assert found["recall"].value < 0.55 < 0.8 < found["recall"].floor
  assert found["precision"].value > found["precision"].floor - 0.1
  assert found["f1"].value < found["f1"].floor - 0.2


def test_an_invented_mode_costs_precision_and_not_recall():
  found = figures(two_modes(0, 0.0), {"twin": two_modes(1, 0.5)[:, None]})
  assert found["precision"].value < 0.55 < 0.8 < found["precision"].floor
  assert found["recall"].value > found["recall"].floor - 0.1


def test_copies_in_a_resample_change_no_neighbourhood():
  real = normal(0, N, WIDTH)
  rows = fidelity.plan(PEOPLE)
  hits = precision_recall.find_hits(real, normal(1, N, 1, WIDTH), rows.real)
  twice = precision_recall.figures(hits, np.repeat(np.arange(N), 2))
  assert twice == pytest.approx(precision_recall.figures(hits))


def test_sets_have_one_size_however_many_samples_there_are():
  real, made = normal(0, N, WIDTH), normal(1, N, 4, WIDTH)
  many, one = (
    figures(real, {"twin": made}),
    figures(real, {"twin": made[:, :1]}),
  )
  assert many["fid"].n == one["fid"].n
  # 4 N points in one set would be nearer by far.
  assert many["fid"].value == pytest.approx(one["fid"].value, rel=0.3)


def test_too_few_rows_are_said_to_be_too_few():
  people = np.arange(8)
  rows = fidelity.plan(people)
  metrics = fidelity.compare(
    normal(0, 8, WIDTH), {"twin": normal(1, 8, 1, WIDTH)}, people, rows
  )
  found = {m.name: m for m in metrics}
  assert np.isnan(found["fid"].value) and np.isnan(found["rfid"].value)
  assert found["fid"].note == "needs more than 5 rows in each set, here 4"
  assert np.isfinite(found["precision"].value)
  few = fidelity.compare(
    normal(0, 6, WIDTH),
    {"twin": normal(1, 6, 1, WIDTH)},
    people[:6],
    fidelity.plan(people[:6]),
  )
  assert all(np.isnan(m.value) for m in few)
  assert {m.name for m in few} == set(found)


def example_points(seed, n=40):
  return normal(seed, n, WIDTH), normal(seed + 1, n, 2, WIDTH)


def measured(points, made, **kwargs):
  published = kwargs.pop("published_protocol", False)
  examples = make_examples(
    signals_of(points), {"twin": signals_of(made)}, **kwargs
  )
  metrics = fidelity.measure(
    examples, PlantedSpace(WIDTH), published_protocol=published
  )
  return {m.name: m for m in metrics}


def test_the_autoencoders_own_loss_stands_apart():
  points, made = example_points(0)
  found = measured(points, made, decoded=signals_of(points + 2.0))
  assert found["fid_decoded"].value > 10 > found["fid"].value
  assert "fid_decoded" not in measured(points, made)


def test_published_protocol_compares_with_the_decoded_and_the_first_sample():
  points, made = example_points(0)
  made[:, 1] += 50.0
  decoded = signals_of(made[:, 0])
  found = measured(points, made, decoded=decoded, published_protocol=True)
  assert found["fid"].value < 1e-6  # the first sample is what was decoded
  assert found["precision"].value == found["recall"].value == 1
  assert found["fid_real"].value > 0.1
  assert measured(points, made, decoded=decoded)["fid"].value > 100
  with pytest.raises(ValueError, match=r"needs examples\.decoded"):
    measured(points, made, published_protocol=True)


def test_published_halves_are_in_file_order():
  points, made = example_points(0)
  points[20:] += 4.0
  found = measured(
    points, made, decoded=signals_of(points), published_protocol=True
  )
  assert found["fid_real"].value > 50  # the drift between the halves
  assert found["rfid"].value < 1
  mixed = measured(points, made, decoded=signals_of(points))
  assert mixed["fid_real"].value < 40


def test_one_patient_alone_has_no_figure():
  points, made = example_points(0)
  found = measured(points, made, patients=np.zeros(40, int))
  assert list(found) == ["fid"] and np.isnan(found["fid"].value)
