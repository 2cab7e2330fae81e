import json

import numpy as np
import pytest

import ecgtwin_jax as et
from ecgtwin_jax.data.dataset import load_split
from ecgtwin_jax.data.leads import lead_residual, make_leads_consistent
from ecgtwin_jax.evaluation import generate_examples
from ecgtwin_jax.inference.results import Rows


@pytest.fixture(scope="module")
def data(chain):
  return load_split(chain / "simulated", "train", kind="ecg")


@pytest.fixture(scope="module")
def twin(chain):
  return et.ECGTwin.from_checkpoint(chain / "stage2" / "twin")


def test_a_choice_pairs_first_recordings_with_later_ones(data):
  choice = generate_examples.choose(data, patients=7, conditions=2, seed=3)
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
  other = generate_examples.choose(data, patients=7, conditions=2, seed=4)
  assert set(other.targets) != set(choice.targets)


def test_without_pairs_there_is_nothing_to_choose(chain):
  import dataclasses

  data = load_split(chain / "simulated", "test", kind="ecg")
  alone = np.array([str(i) for i in range(len(data))])
  data = dataclasses.replace(data, patient_id=alone)
  with pytest.raises(ValueError, match="no patient with two recordings"):
    generate_examples.choose(data, patients=2, conditions=1, seed=0)


def test_a_target_differs_from_the_reference_that_is_kept(data):
  import dataclasses

  # All at one rate; the last recording of each repeats the first's report.
  text = np.full_like(data.statement_ids, -1)
  patient = data.patient_number
  for number in np.unique(patient):
    rows = np.flatnonzero(patient == number)
    rows = rows[np.argsort(data.time[rows])]
    text[rows, 0] = np.arange(len(rows))
    text[rows[-1]] = text[rows[0]]
  rate = np.full_like(data.heart_rate, 70)
  data = dataclasses.replace(data, heart_rate=rate, statement_ids=text)
  choice = generate_examples.choose(data, patients=99, conditions=99, seed=0)
  assert len(choice.targets) > 9
  assert (text[choice.targets, 0] != text[choice.references, 0]).all()


def test_a_row_is_read_as_condition_and_signal(data):
  condition = generate_examples.read_condition(data, 5)
  ids = data.statement_ids[5]
  names = tuple(data.table.statements[i] for i in ids[ids >= 0])
  assert condition.statements == names
  assert condition.heart_rate == data.heart_rate[5]
  assert (condition.sex == "M") == (data.sex[5] == 1)
  signal = generate_examples.signals_mv(data, np.array([5]))[0]
  np.testing.assert_allclose(signal, data.arrays["ecg"][5] / 1000, atol=1e-6)


def test_strangers_are_strangers_and_matched_ones_alike():
  patients = np.array([0, 0, 1, 2, 3])
  rows = generate_examples.other_rows(patients, np.random.default_rng(0))
  assert (patients[rows] != patients).all()
  with pytest.raises(ValueError, match="at least two patients"):
    generate_examples.other_rows(np.zeros(3, int), np.random.default_rng(0))

  def shown(text, age, sex):
    return et.Condition([text], 70, age, sex)

  now = (
    shown("a", 50, "F"),
    shown("a", 50, "F"),
    shown("a", 51, "M"),  # other sex
    shown("b", 50, "F"),  # other text
    shown("a", 80, "F"),  # other age: the best there is
  )
  matched = generate_examples.matched_rows(patients, now)
  assert matched[0] == 4 and now[matched[2]].sex == "F"
  now = (shown("a", 50, "F"), shown("a", 50, "M"), shown("b", 50, "F"))
  assert generate_examples.matched_rows(np.arange(3), now)[0] == 2


def test_ablations_differ_in_what_the_twin_was_given(data, twin, tmp_path):
  choice = generate_examples.choose(data, patients=3, conditions=1, seed=0)
  made = generate_examples.make(
    twin, data, choice, tmp_path, num_samples=2, steps=2, seed=1
  )
  assert made.twins.shape == (3, 2, 1024, 12)
  assert np.isfinite(made.twins).all() and made.decoded.shape == (3, 1024, 12)
  for name in generate_examples.ABLATIONS:
    assert made.generated[name].shape == (3, 1, 1024, 12)
    assert np.abs(made.generated[name][:, 0] - made.twins[:, 0]).max() > 1e-6
  one = twin.generate(
    made.bases[1], made.conditions[1], num_samples=2, steps=2, seed=2
  )
  np.testing.assert_allclose(made.twins[1], one.signals, atol=1e-4)


def test_each_variant_is_given_what_its_name_says(
  data, twin, tmp_path, monkeypatch
):
  given = []

  def generate(bases, conditions, seeds, numbers, settings):
    assert settings.consistent_leads
    given.append((bases, tuple(conditions)))
    rng = np.random.default_rng(0)
    signals = rng.normal(size=(len(bases), 1024, 12)).astype(np.float32)
    return Rows(make_leads_consistent(signals), None, None)

  monkeypatch.setattr(twin, "generate_rows", generate)
  choice = generate_examples.choose(data, patients=4, conditions=2, seed=0)
  made = generate_examples.make(
    twin, data, choice, tmp_path, consistent_leads=True
  )
  bases, then = made.bases, made.conditions
  for i, ecg in enumerate(generate_examples.as_ecgs(made.references)):
    now = made.reference_conditions[i]
    assert now == generate_examples.read_condition(data, choice.references[i])
    assert then[i] == generate_examples.read_condition(data, choice.targets[i])
    own = twin.extract_base(ecg, now)
    np.testing.assert_allclose(bases[i], own, atol=1e-4)
  real = generate_examples.as_ecgs(made.real)
  decoded = twin.decode(np.stack([twin.networks.encode(ecg) for ecg in real]))
  np.testing.assert_allclose(made.decoded, decoded, atol=1e-4)
  assert np.abs(lead_residual(made.twins[:, 0])).max() < 1e-4
  names = ("twin", *generate_examples.ABLATIONS)
  variants = dict(zip(names, given, strict=True))
  strangers = made.patients[:, None] != made.patients
  for name, (used, shown) in variants.items():
    if name == "shuffled_text":
      continue
    assert shown == then
    if name == "zero_base":
      assert not used.any()
      continue
    same = (used[:, None] == bases).all(axis=-1)
    assert same.any(axis=1).all()
    assert not (same & (strangers == (name == "twin"))).any()
  used, shown = variants["shuffled_text"]
  np.testing.assert_array_equal(used, bases)
  for i, one in enumerate(shown):
    assert (one.age, one.sex) == (then[i].age, then[i].sex)
    assert (one.statements, one.heart_rate) in [
      (then[k].statements, then[k].heart_rate)
      for k in np.flatnonzero(strangers[i])
    ]


def test_what_was_generated_is_read_again(data, twin, tmp_path, monkeypatch):
  choice = generate_examples.choose(data, patients=3, conditions=1, seed=0)
  monkeypatch.setattr(generate_examples, "ROWS", 2)
  arguments = dict(ablations=(), steps=2)
  first = generate_examples.make(twin, data, choice, tmp_path, **arguments)
  pieces = sorted((tmp_path / "twin").glob("*.npy"))
  assert [p.name for p in pieces] == ["000000.npy", "000002.npy"]
  last = twin.generate(
    first.bases[2], first.conditions[2], num_samples=1, steps=2, seed=2
  )
  np.testing.assert_allclose(first.twins[2], last.signals, atol=1e-4)
  pieces[1].unlink()
  calls = []
  generate = twin.generate_rows
  monkeypatch.setattr(
    twin,
    "generate_rows",
    lambda *a, **k: calls.append(len(a[0])) or generate(*a, **k),
  )
  again = generate_examples.make(twin, data, choice, tmp_path, **arguments)
  assert calls == [1]  # the one row of the missing piece
  np.testing.assert_array_equal(first.twins, again.twins)


def test_unknown_ablations_and_another_folder_are_refused(data, twin, tmp_path):
  choice = generate_examples.choose(data, patients=2, conditions=1, seed=0)
  with pytest.raises(ValueError, match=r"ablations=.*nobody.*must be of"):
    generate_examples.make(twin, data, choice, tmp_path, ablations=("nobody",))
  generate_examples.claim(tmp_path, {"seed": 1, "ablations": ("x",)})
  generate_examples.claim(tmp_path, {"seed": 1, "ablations": ("x",)})
  with pytest.raises(ValueError, match="with seed=1, not 2: name another"):
    generate_examples.claim(tmp_path, {"seed": 2, "ablations": ("x",)})
  with pytest.raises(ValueError, match=r"with ablations=\['x'\], not None"):
    generate_examples.claim(tmp_path, {"seed": 1})
  assert json.loads((tmp_path / "evaluated.json").read_text())["seed"] == 1
