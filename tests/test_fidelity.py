"""Fidelity on sets of points whose figures are known."""

import numpy as np
import pytest

from ecgtwin_jax.evaluation.fidelity import fidelity, precision_recall
from helpers.toy_examples import PlantedSpace, make_examples, signals_of

PEOPLE = np.repeat(np.arange(60), 5)
N, WIDTH = len(PEOPLE), 5


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape)


def figures(real, sets, **kwargs):
  points = fidelity.Points(real, sets, PEOPLE, fidelity.plan(PEOPLE))
  metrics = fidelity.metrics(points, repeats=20, **kwargs)
  assert all(m.level == "fidelity" for m in metrics)
  return {m.name: m for m in metrics}


def test_a_generator_as_good_as_reality_has_its_reference():
  real = normal(0, N, WIDTH)
  found = figures(
    real, {"twin": normal(1, N, 3, WIDTH), "decoded": real[:, None]}
  )
  assert found["rfid"].low < 1 < found["rfid"].high
  for name in ("fid", "precision", "recall", "f1"):
    metric = found[name]
    assert metric.low <= metric.value <= metric.high
    assert abs(metric.value - metric.reference) < 0.3 * metric.reference
    # The same ECGs score exactly as reality does.
    same = found[f"{name}_decoded"]
    assert same.value == pytest.approx(same.reference, rel=1e-9)
  assert found["fid"].reference == found["fid_real"].value
  assert found["fid"].n == N // 2
  # A standard normal in five dimensions is 5 from its mean.
  assert found["fid"].baseline == pytest.approx(WIDTH, rel=0.1)
  assert found["rfid"].baseline > 10 and found["rfid"].reference == 1


@pytest.mark.parametrize("count", [2, 3, 8])
def test_few_patients_with_many_rows_have_a_distance(count):
  people = np.repeat(np.arange(count), 40)
  real = normal(0, len(people), WIDTH)
  points = fidelity.Points(
    real,
    {"twin": normal(1, len(people), 1, WIDTH)},
    people,
    fidelity.plan(people),
  )
  metrics = fidelity.metrics(points, repeats=40)
  found = {m.name: m for m in metrics}["fid"]
  assert 0 < found.value < 5
  # Of so few, most resamples leave a half without patients: no interval.
  if count < 8:
    assert np.isnan(found.low) and np.isnan(found.high)
  else:
    assert found.low <= found.value <= found.high


def test_a_shifted_generator_is_as_far_as_its_shift():
  shift = np.array([3.0, 0.0, 0.0, 0.0, 0.0])
  found = figures(
    normal(0, N, WIDTH), {"twin": normal(1, N, 2, WIDTH) + 5 * shift}
  )
  assert found["fid"].value == pytest.approx(225, rel=0.1)
  assert found["rfid"].low > 10
  assert found["precision"].value == found["recall"].value == 0
  assert found["f1"].value == 0
  # |m|^2 moves by 2 |m| times the error of the difference of the means.
  spread = 2 * 15 * np.sqrt(1 / N + 1 / (2 * N))
  width = found["fid"].high - found["fid"].low
  assert width == pytest.approx(2 * 1.96 * spread, rel=0.4)


def test_a_narrow_generator_is_precise_and_a_wide_one_is_not():
  real = normal(0, N, WIDTH)
  narrow = figures(real, {"twin": 0.01 * normal(1, N, 1, WIDTH)})
  assert narrow["precision"].value == 1
  assert narrow["recall"].value < 0.05
  wide = figures(real, {"twin": 10 * normal(1, N, 1, WIDTH)})
  assert wide["precision"].value < 0.05
  assert wide["recall"].value > 0.95


def test_intervals_of_precision_resample_patients():
  far = 100.0 * (PEOPLE % 2)[:, None, None]
  found = figures(normal(0, N, WIDTH), {"twin": normal(1, N, 1, WIDTH) + far})
  metric = found["precision"]
  # Of 60 patients a half is far off: of 300 rows it would be half as wide.
  share = metric.reference / 2
  width = 2 * 1.96 * metric.reference * np.sqrt(0.25 / 60)
  assert metric.value == pytest.approx(share, abs=0.1)
  assert metric.high - metric.low == pytest.approx(width, rel=0.2)


def test_halves_differ_are_used_both_ways_round_and_have_a_limit():
  rows = fidelity.plan(PEOPLE, splits=2, limit=20)
  assert rows.size == 20 and len(rows.real) == len(rows.generated) == 4
  one, other = rows.real[0]
  assert not set(PEOPLE[one]) & set(PEOPLE[other])
  assert rows.real[1][0] is other and rows.real[1][1] is one
  assert set(rows.real[2][0]) not in (set(one), set(other))


def two_modes(seed, share):
  second = np.random.default_rng(seed).random(N) < share
  return normal(seed, N, WIDTH) + 20.0 * second[:, None]


def test_a_dropped_mode_costs_recall_and_not_precision():
  real = two_modes(0, 0.5)
  found = figures(real, {"twin": two_modes(1, 0.0)[:, None]})
  assert found["recall"].value < 0.55 < 0.8 < found["recall"].reference
  assert found["precision"].value > found["precision"].reference - 0.1
  assert found["f1"].value < found["f1"].reference - 0.2


def test_an_invented_mode_costs_precision_and_not_recall():
  found = figures(two_modes(0, 0.0), {"twin": two_modes(1, 0.5)[:, None]})
  assert found["precision"].value < 0.55 < 0.8 < found["precision"].reference
  assert found["recall"].value > found["recall"].reference - 0.1


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
  people = np.arange(10)
  rows = fidelity.plan(people)
  metrics = fidelity.metrics(
    fidelity.Points(
      normal(0, 10, WIDTH), {"twin": normal(1, 10, 1, WIDTH)}, people, rows
    )
  )
  found = {m.name: m for m in metrics}
  assert np.isnan(found["fid"].value) and np.isnan(found["rfid"].value)
  assert found["fid"].note == "needs more than 5 rows in each set, here 5"
  assert np.isfinite(found["precision"].value)
  few = fidelity.metrics(
    fidelity.Points(
      normal(0, 6, WIDTH),
      {"twin": normal(1, 6, 1, WIDTH)},
      people[:6],
      fidelity.plan(people[:6]),
    )
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
  points = fidelity.compute(
    examples, PlantedSpace(WIDTH), published_protocol=published
  )
  metrics = fidelity.metrics(points)
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
