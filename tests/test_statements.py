"""Statement encoders and the table that carries their vectors."""

import json

import numpy as np
import pytest

from ecgtwin_jax.text.statements import (
  HashedEncoder,
  StatementEncoder,
  StatementTable,
  get_encoder,
)

STATEMENTS = [
  "Sinus rhythm",
  "Sinus bradycardia",
  "Atrial fibrillation",
  "Inferior infarct, possibly acute",
  "Right bundle branch block",
  "Left ventricular hypertrophy",
]


def test_hashed_vectors_have_unit_norm_and_the_texts_width():
  vectors = get_encoder("hashed-v1").embed(STATEMENTS)
  assert vectors.shape == (6, 768) and vectors.dtype == np.float32
  np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
  assert isinstance(get_encoder("hashed-v1"), StatementEncoder)


def test_hashed_vectors_are_the_same_everywhere():
  # A change of these numbers is a change of every stored table: it needs a new
  # encoder name.
  (vector,) = HashedEncoder().embed(["Sinus rhythm"])
  top = np.argsort(-np.abs(vector), kind="stable")[:3]
  assert top.tolist() == [279, 738, 222]
  values = [-0.47471266984939575, 0.47471266984939575, 0.23735633492469788]
  np.testing.assert_allclose(vector[top], values, rtol=1e-6)


def test_statement_is_embedded_alone():
  encoder = HashedEncoder()
  together = encoder.embed(STATEMENTS)
  for statement, vector in zip(STATEMENTS, together):
    np.testing.assert_array_equal(encoder.embed([statement])[0], vector)


@pytest.mark.parametrize(
  "spelling",
  [
    "right bundle branch block",
    "Right bundle-branch block",
    "Right bundel branch block",
  ],
)
def test_similar_spellings_are_near_each_other(spelling):
  encoder = HashedEncoder()
  vectors = encoder.embed(STATEMENTS)
  similarity = vectors @ encoder.embed([spelling])[0]
  assert np.argmax(similarity) == 4
  assert similarity[4] > 0.7
  assert np.delete(similarity, 4).max() < 0.35


def test_blank_statement_is_refused():
  with pytest.raises(ValueError, match="at least one letter"):
    HashedEncoder().embed(["Sinus rhythm", " . "])


def test_unknown_encoder_is_refused_by_name():
  with pytest.raises(ValueError, match=r"hashed-v9.*hashed-v1"):
    get_encoder("hashed-v9")


def test_table_survives_saving(tmp_path):
  table = StatementTable.from_encoder(
    [*STATEMENTS, STATEMENTS[0], "Überleitung gestört"], HashedEncoder()
  )
  assert len(table) == 7
  table.save(tmp_path)
  loaded = StatementTable.load(tmp_path)
  assert loaded.statements == table.statements
  assert (loaded.encoder, loaded.revision) == ("hashed-v1", "")
  np.testing.assert_array_equal(loaded.embeddings, table.embeddings)


def test_table_ids_and_neighbours():
  table = StatementTable.from_encoder(STATEMENTS, HashedEncoder())
  ids = table.ids(["Atrial fibrillation", "Sinus rhythm"])
  assert ids.dtype == np.int32 and ids.tolist() == [2, 0]
  assert "Sinus rhythm" in table and "sinus rhythm" not in table
  with pytest.raises(ValueError, match=r"Atrial fibrilation.*Atrial fibrillat"):
    table.ids(["Sinus rhythm", "Atrial fibrilation"])


def test_table_of_another_encoder_is_refused():
  vectors = np.zeros((6, 768), np.float32)
  table = StatementTable(tuple(STATEMENTS), vectors, "nomic", "abc")
  table.require("nomic")
  table.require("nomic", "abc")
  with pytest.raises(ValueError, match=r"'nomic'.*'hashed-v1'"):
    table.require("hashed-v1")
  with pytest.raises(ValueError, match=r"'abc'.*'def'"):
    table.require("nomic", "def")


def test_broken_tables_are_refused(tmp_path):
  with pytest.raises(ValueError, match="must be unique"):
    StatementTable(("a", "a"), np.zeros((2, 768), np.float32), "hashed-v1")
  with pytest.raises(ValueError, match="must equal"):
    StatementTable(("a",), np.zeros((2, 768), np.float32), "hashed-v1")
  with pytest.raises(ValueError, match="must hold statements"):
    StatementTable.load(tmp_path)
  StatementTable.from_encoder(STATEMENTS, HashedEncoder()).save(tmp_path)
  record = json.loads((tmp_path / "statements.json").read_text())
  record["statements"].pop()
  (tmp_path / "statements.json").write_text(json.dumps(record))
  with pytest.raises(ValueError, match="names 5 statements"):
    StatementTable.load(tmp_path)
