"""Conditions into arrays: the table, the encoder, who may be missing."""

import numpy as np
import pytest

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.inference import conditioning
from ecgtwin_jax.inference.conditioning import Conditioner
from ecgtwin_jax.text.statements import HashedEncoder, StatementTable

HASHED = HashedEncoder()
TABLE = StatementTable.from_encoder(["Sinus rhythm", "Pacing"], HASHED)


def test_rows_mask_and_patient():
  condition = Condition(["Pacing", "Sinus rhythm"], 77.95, 64.25, "M")
  arrays = Conditioner(TABLE, "hashed-v1").arrays(condition, False)
  assert arrays.statements.shape == (18, 768)
  np.testing.assert_array_equal(arrays.statements[:2], TABLE.embeddings[::-1])
  assert not arrays.statements[2:].any()
  np.testing.assert_array_equal(arrays.mask, np.arange(18) < 2)
  np.testing.assert_allclose(arrays.patient, [0, 0, 1], atol=1e-6)


def test_a_missing_age_is_nan_or_refused():
  conditioner = Conditioner(TABLE, "hashed-v1")
  condition = Condition(["Pacing"], 70, None, "F")
  assert np.isnan(conditioner.arrays(condition, True).patient[1])
  with pytest.raises(ValueError, match="age=None and sex=F must both be given"):
    conditioner.arrays(condition, False)


def test_the_encoder_is_made_once_and_only_if_needed(monkeypatch):
  made = []

  def get_encoder(name):
    made.append(name)
    return HASHED

  monkeypatch.setattr(conditioning, "get_encoder", get_encoder)
  conditioner = Conditioner(TABLE, "hashed-v1", "some/folder")
  conditioner.arrays(Condition(["Pacing"], 70), True)
  assert made == []
  for statement in ("Infarct", "Flutter", "Infarct"):
    arrays = conditioner.arrays(Condition([statement], 70), True)
    (remark,) = conditioner.remarks(Condition([statement], 70))
    assert "is not among the statements" in remark
    (expected,) = HASHED.embed([statement])
    np.testing.assert_array_equal(arrays.statements[0], expected)
  assert made == ["some/folder"]


def test_what_says_the_same_is_taken_as_the_tables_statement(monkeypatch):
  monkeypatch.setattr(conditioning, "get_encoder", None)  # none is needed
  conditioner = Conditioner(TABLE, "hashed-v1")
  plain = conditioner.arrays(Condition(["Pacing", "Sinus rhythm"], 70), True)
  # Case and a full stop do not matter, without a word.
  odd = Condition(["PACING.", "sinus rhythm"], 70)
  other = Condition(["Pacemaker", "NSR"], 70)
  for one in (odd, other):
    arrays = conditioner.arrays(one, True)
    np.testing.assert_array_equal(arrays.statements, plain.statements)
  assert conditioner.remarks(odd) == []
  assert conditioner.remarks(other) == [
    "'Pacemaker' is read as 'Pacing', which says the same",
    "'NSR' is read as 'Sinus rhythm', which says the same",
  ]


def test_a_statement_that_looks_like_several_is_questioned():
  conditioner = Conditioner(TABLE, "hashed-v1")
  first, second = conditioner.remarks(Condition(["NSR;Pacing"], 70))
  assert "'NSR;Pacing' holds ';': are these several statements?" in first
  assert second.endswith("the same is said by 'Sinus rhythm' with 'Pacing'")


@pytest.mark.parametrize(
  ("statements", "lacks"),
  [
    (["Right bundle branch block"], True),
    (["Right bundle branch block", "Pacemaker"], False),
    (["sinus rythm"], False),  # a slip of the pen is warned of as such
    (["Normal ECG"], False),
    (["Abnormal ECG"], True),
  ],
)
def test_a_target_without_a_rhythm_is_remarked_on(statements, lacks):
  condition = Condition(statements, 70)
  texts = Conditioner(TABLE, "hashed-v1").remarks_on_rhythm(condition)
  assert ["'Sinus rhythm' is taken" in text for text in texts] == [True] * lacks
  stated = Conditioner(TABLE, "hashed-v1").state_rhythm(condition).statements
  assert stated == (("Sinus rhythm",) * lacks + tuple(statements))
  pacing = StatementTable.from_encoder(["Pacing"], HASHED)
  paced = Conditioner(pacing, "hashed-v1")
  if lacks:  # nothing is taken that might be wrong
    assert paced.state_rhythm(condition) is condition
    (text,) = paced.remarks_on_rhythm(condition)
    assert text.endswith("add one, such as 'Pacing'")
  rates = ["Sinus bradycardia", "Sinus tachycardia"]
  sinus = Conditioner(StatementTable.from_encoder(rates, HASHED), "hashed-v1")
  if lacks:
    fast = sinus.state_rhythm(Condition(statements, 120))
    assert fast.statements[0] == "Sinus tachycardia"
    assert sinus.state_rhythm(condition) is condition  # neither fits 70 bpm
  findings = StatementTable.from_encoder(["Infarct"], HASHED)
  assert not Conditioner(findings, "hashed-v1").remarks_on_rhythm(condition)


def test_what_two_of_the_table_say_together_is_not_taken_apart():
  conditioner = Conditioner(TABLE, "hashed-v1")
  condition = Condition(["NSR with pacing"], 70)
  (remark,) = conditioner.remarks(condition)
  assert remark.endswith("the same is said by 'Sinus rhythm' with 'Pacing'")
  (expected,) = HASHED.embed(["NSR with pacing"])
  arrays = conditioner.arrays(condition, True)
  np.testing.assert_array_equal(arrays.statements[0], expected)


def test_without_a_table_every_statement_is_embedded_and_none_is_unknown():
  conditioner = Conditioner(None, "hashed-v1")
  arrays = conditioner.arrays(Condition(["Pacemaker"], 70), True)
  (expected,) = HASHED.embed(["Pacemaker"])
  np.testing.assert_array_equal(arrays.statements[0], expected)
  with pytest.raises(ValueError, match=r"text-v1\.5', not 'hashed"):
    Conditioner(None, "nomic-embed-text-v1.5", HASHED)


def test_the_same_weights_under_another_name_are_the_same_encoder():
  model = HashedEncoder(name="nomic", revision="abc")
  table = StatementTable.from_encoder(["Pacing"], model)
  Conditioner(table, "nomic", HashedEncoder("folder-of-mine", "abc"))
  with pytest.raises(ValueError, match="revision"):
    Conditioner(table, "nomic", HashedEncoder("nomic", "def"))
  with pytest.raises(ValueError, match="do not mix"):
    Conditioner(TABLE, "hashed-v1", HashedEncoder("folder-of-mine"))
