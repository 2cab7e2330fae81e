import json

import numpy as np
import pytest

import ecgtwin_jax as et
from ecgtwin_jax.data.dataset import load_split
from ecgtwin_jax.evaluation import make_examples


@pytest.fixture(scope="module")
def data(chain):
  return load_split(chain / "simulated", "train", kind="ecg")


@pytest.fixture(scope="module")
def twin(chain):
  return et.ECGTwin.from_checkpoint(chain / "stage2" / "twin")


def test_a_choice_pairs_first_recordings_with_later_ones(data):
  choice = make_examples.choose(data, patients=7, conditions=2, seed=3)
  patients = data.patient_number[choice.targets]
  assert 7 < len(choice.targets) <= 14 and len(np.unique(patients)) == 7
  assert np.unique(patients, return_counts=True)[1].max() == 2
  np.testing.assert_array_equal(
    data.patient_number[choice.references], patients
  )
  assert (data.time[choice.references] < data.time[choice.targets]).all()
  for row in choice.references:
    same = data.patient_number == data.patient_number[row]
    assert data.time[row] == data.time[same].min()
  other = make_examples.choose(data, patients=7, conditions=2, seed=4)
  assert set(other.targets) != set(choice.targets)


def test_without_pairs_there_is_nothing_to_choose(chain):
  import dataclasses

  data = load_split(chain / "simulated", "test", kind="ecg")
  alone = np.array([str(i) for i in range(len(data))])
  data = dataclasses.replace(data, patient_id=alone)
  with pytest.raises(ValueError, match="no patient with two recordings"):
    make_examples.choose(data, patients=2, conditions=1, seed=0)


def test_a_row_is_read_as_condition_and_signal(data):
  condition = make_examples.read_condition(data, 5)
  ids = data.statement_ids[5]
  names = tuple(data.table.statements[i] for i in ids[ids >= 0])
  assert condition.statements == names
  assert condition.heart_rate == data.heart_rate[5]
  assert (condition.sex == "M") == (data.sex[5] == 1)
  signal = make_examples.signals_mv(data, np.array([5]))[0]
  np.testing.assert_allclose(signal, data.arrays["ecg"][5] / 1000, atol=1e-6)


def test_strangers_are_strangers_and_matched_ones_alike():
  patients = np.array([0, 0, 1, 2, 3])
  rows = make_examples.other_rows(patients, np.random.default_rng(0))
  assert (patients[rows] != patients).all()
  with pytest.raises(ValueError, match="at least two patients"):
    make_examples.other_rows(np.zeros(3, int), np.random.default_rng(0))

  def shown(text, age, sex):
    return et.Condition([text], 70, age, sex)

  now = (
    shown("a", 50, "F"),
    shown("a", 50, "F"),
    shown("a", 51, "M"),  # other sex
    shown("b", 50, "F"),  # other text
    shown("a", 80, "F"),  # other age: the best there is
  )
  matched = make_examples.matched_rows(patients, now)
  assert matched[0] == 4 and now[matched[2]].sex == "F"


def test_arms_differ_in_what_the_twin_was_given(data, twin, tmp_path):
  choice = make_examples.choose(data, patients=3, conditions=1, seed=0)
  made = make_examples.make(
    twin, data, choice, tmp_path, num_samples=2, steps=2, seed=1
  )
  assert made.twins.shape == (3, 2, 1024, 12)
  assert np.isfinite(made.twins).all() and made.decoded.shape == (3, 1024, 12)
  for arm in make_examples.ARMS[1:]:
    assert made.generated[arm].shape == (3, 1, 1024, 12)
    assert np.abs(made.generated[arm][:, 0] - made.twins[:, 0]).max() > 1e-6
  one = twin.generate(
    made.bases[1], made.conditions[1], num_samples=2, steps=2, seed=2
  )
  np.testing.assert_allclose(made.twins[1], one.signals, atol=1e-4)


def test_what_was_generated_is_read_again(data, twin, tmp_path, monkeypatch):
  choice = make_examples.choose(data, patients=3, conditions=1, seed=0)
  monkeypatch.setattr(make_examples, "_ROWS", 2)
  arguments = dict(arms=("twin",), steps=2)
  first = make_examples.make(twin, data, choice, tmp_path, **arguments)
  pieces = sorted((tmp_path / "twin").iterdir())
  assert [p.name for p in pieces] == ["000000.npy", "000002.npy"]
  pieces[1].unlink()
  calls = []
  generate = make_examples.crowd.generate_signals
  monkeypatch.setattr(
    make_examples.crowd,
    "generate_signals",
    lambda *a, **k: calls.append(len(a[1])) or generate(*a, **k),
  )
  again = make_examples.make(twin, data, choice, tmp_path, **arguments)
  assert calls == [1]  # the one row of the missing piece
  np.testing.assert_array_equal(first.twins, again.twins)


def test_unknown_arms_and_another_folder_are_refused(data, twin, tmp_path):
  choice = make_examples.choose(data, patients=2, conditions=1, seed=0)
  with pytest.raises(ValueError, match=r"arms=.*must be 'twin' and others of"):
    make_examples.make(twin, data, choice, tmp_path, arms=("twin", "nobody"))
  make_examples.claim(tmp_path, {"seed": 1, "arms": ("twin",)})
  make_examples.claim(tmp_path, {"seed": 1, "arms": ("twin",)})
  with pytest.raises(ValueError, match="with seed=1, not 2: name another"):
    make_examples.claim(tmp_path, {"seed": 2, "arms": ("twin",)})
  assert json.loads((tmp_path / "evaluated.json").read_text())["seed"] == 1
