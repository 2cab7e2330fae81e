"""What statements mean, in every reading of the one table.

data/phrases.csv holds a statement a row: in the wordings of MIMIC-IV-ECG's
machine reports, of PTB-XL's descriptions of its 71 SCP codes (Wagner et al.,
PTB-XL 1.0.3, scp_statements.csv, CC BY 4.0), and in common abbreviations. Its
columns say whether the statement alone makes an ECG abnormal; the findings that
it states (in doubt: with a question mark); the criteria that it asks for
(neither asked nor free: with a question mark); whether it means a slow or a
fast heart rate; whether it names a rhythm, sinus or other; and the simulator's
statements that say the same (=), or the nearest (~).
"""

import csv
import json
import pathlib

import numpy as np
import pytest

from ecgtwin_jax.simulator.findings import CONDITIONS
from ecgtwin_jax.text import findings
from ecgtwin_jax.text.wording import reword

PATH = pathlib.Path(__file__).parent / "data" / "phrases.csv"
PHRASES = list(csv.DictReader(PATH.read_text().splitlines()))
HOW = {"=": ("spelling", "meaning"), "~": ("nearest",), "": ("none",)}


def marked(values):
  """Names of what holds, with a question mark where that is not sure."""
  marks = {1: "", -1: "?", None: "?"}  # 1 is True, too
  return {name + marks[v] for name, v in values.items() if v in marks}


@pytest.mark.parametrize("row", PHRASES, ids=lambda row: row["statement"])
def test_a_phrase_in_every_reading(row):
  report = [row["statement"]]
  stated = {name: findings.finding(name, report) for name in findings.FINDINGS}
  assert marked(stated) == set(row["findings"].split())
  labels = {name: label(report) for name, label in findings.LABELS.items()}
  assert labels.pop("abnormal") == int(row["abnormal"])
  assert labels.items() <= stated.items()
  asked = {name: findings.asks_for(report, name) for name in findings.CRITERIA}
  assert marked(asked) == set(row["asks"].split())
  contradicted = {"slow": (61, 100), "fast": (60, 61), "": ()}[row["rate"]]
  for rate in (60, 61, 100):
    found = findings.find_contradictions(report, rate)
    assert bool(found) == (rate in contradicted)
  statement = row["statement"]
  assert findings.names_rhythm(statement) == (row["rhythm"] != "")
  assert findings.names_sinus_rhythm(statement) == (row["rhythm"] == "sinus")
  wording = reword(statement, CONDITIONS)
  assert wording.how in HOW[row["simulator"][:1]]
  assert "|".join(wording.statements) == row["simulator"][1:]


CODES = {row["scp_code"]: row["statement"] for row in PHRASES}
del CODES[""]


def test_all_scp_codes_are_there():
  assert len(CODES) == 71


@pytest.mark.parametrize("code", CODES)
def test_an_scp_code_reads_as_its_description(code):
  if code == "AMI":  # elsewhere any acute infarct: in doubt
    assert set(findings.read_statement(code).values()) == {-1}
    return
  for text in (code, code.lower()):
    read = findings.read_statement(text)
    assert read and read == findings.read_statement(CODES[code])


def test_what_one_statement_denies_another_may_state():
  name = "left_bundle_branch_block"
  for report, value in (
    (["No LBBB"], 0),
    (["No LBBB", "Possible LBBB"], -1),
    (["No LBBB", "LBBB", "Possible LBBB"], 1),
    (["Possible LBBB, LBBB"], 1),
  ):
    assert findings.finding(name, report) == value
    assert (
      findings.asks_for(report, "lbbb") is {0: False, -1: None, 1: True}[value]
    )


def test_unknown_names_are_refused():
  with pytest.raises(KeyError, match="mumps"):
    findings.finding("mumps", ["Normal ECG"])
  with pytest.raises(ValueError, match="criterion='mumps' must be one of lvh,"):
    findings.asks_for(["Normal ECG"], "mumps")
  with pytest.raises(ValueError, match=r"\['mumps'\] must be of abnormal,"):
    findings.label_reports(["mumps"], [["Normal ECG"]])


def test_every_look_alike_and_criterion_is_a_finding():
  for row in findings.FINDINGS.values():
    assert set(row.look_alikes) <= set(findings.FINDINGS)
  assert set(findings.CRITERIA.values()) <= set(findings.FINDINGS)


def test_the_labels_are_those_of_the_shipped_classifier():
  package = pathlib.Path(findings.__file__).parents[1]
  path = package / "assets/simulated-evaluators/twin.json"
  parts = json.loads(path.read_text())["parts"]
  assert parts["classifier"]["hyper"]["labels"] == list(findings.LABELS)


def test_each_statement_of_the_simulator_has_its_label():
  without = {
    *("Sinus rhythm", "Sinus arrhythmia", "Left atrial enlargement"),
    "Incomplete right bundle branch block",
    *("Nonspecific intraventricular conduction delay", "ST depression"),
    "Nonspecific ST-T changes",
    "Lateral ST-T changes may be due to myocardial ischemia",
  }
  names = [name for name in findings.LABELS if name != "abnormal"]
  for statement in CONDITIONS:
    found = [n for n in names if findings.finding(n, [statement])]
    summary = statement.endswith("ECG") or "ECG except" in statement
    assert bool(found) != (summary or statement in without), statement
    assert all(findings.finding(n, [statement]) == 1 for n in found)


def test_contradictions_name_statement_rate_and_rule():
  report = ["Sinus rhythm", "Sinus bradycardia"]
  (text,) = findings.find_contradictions(report, 95)
  assert text == (
    "'Sinus bradycardia' contradicts heart_rate=95: it means at most 60 bpm"
  )
  report = ["SVT", "Atrial fibrillation", "AF with RVR"]
  texts = findings.find_contradictions(report, 99.5)
  assert [text.partition(" ")[0] for text in texts] == ["'SVT'", "'AF"]
  assert all("heart_rate=99.5: it means at least 100 bpm" in t for t in texts)
  both = ["Sinus bradycardia with runs of tachycardia"]
  assert findings.find_contradictions(both, 80) == []


@pytest.mark.parametrize(
  ("report", "wanted"),
  [
    (["Sinus rhythm", "Normal ECG"], 0),
    (["sinus rhythm", "normal ECG."], 0),
    (["Sinus bradycardia", "Normal ECG except for rate"], 1),
    (["Sinus rhythm", "Otherwise normal ECG"], 1),
    (["Atrial fibrillation", "Abnormal ECG"], 1),
    (["1st degree A-V block", "Borderline ECG"], -1),
    (["Normal ECG", "Abnormal ECG"], -1),
    (["Possibly abnormal", "Possible normal ECG"], -1),
    (["Sinus rhythm"], -1),
    (["sinus rhythm", "complete right bundle branch block"], 1),
    (["sinus rhythm", "normal ECG"], 0),  # PTB-XL's NORM
    (["Possible inferior infarct"], -1),
    (["sinus rhythm", "Wolf-Parkinson-White syndrome"], 1),
    (["sinus rhythm", "inverted T-waves"], 1),
    (["Sinus rhythm", "Inferior infarct, possibly acute"], 1),
  ],
)
def test_normality_by_rule(report, wanted):
  assert findings.normality(report) == wanted


def test_rows_get_the_labels_of_their_statements():
  table = ("Normal ECG", "Atrial flutter", "Abnormal ECG")
  ids = np.array([[0, -1], [1, 2], [-1, -1], [1, 2]])
  found = findings.label_rows(("abnormal", "atrial_flutter"), table, ids)
  np.testing.assert_array_equal(found, [[0, 0], [1, 1], [-1, 0], [1, 1]])


def test_auroc_by_hand_and_by_sklearn():
  assert (
    findings.auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    == 0.75
  )
  assert findings.auroc(np.ones(4), np.array([0, 1, 0, 1])) == 0.5
  assert np.isnan(findings.auroc(np.ones(2), np.array([1, -1])))
  metrics = pytest.importorskip("sklearn.metrics")
  rng = np.random.default_rng(0)
  scores, answers = rng.integers(0, 9, 53) / 9, rng.integers(0, 2, 53)
  want = metrics.roc_auc_score(answers, scores)
  np.testing.assert_allclose(findings.auroc(scores, answers), want)
  scores = np.append(scores, 100.0)
  answers = np.append(answers, -1)
  np.testing.assert_allclose(findings.auroc(scores, answers), want)


@pytest.mark.parametrize(
  ("statement", "expected"),
  [
    ("Abnormal ECG", True),
    ("Normal ECG except for rate", True),
    ("Borderline ECG", True),
    ("Sinus rhythm", False),
    ("Abnormal ECG: right bundle branch block", False),
    ("mumps", False),
  ],
)
def test_what_is_a_conclusion(statement, expected):
  assert findings.names_conclusion(statement) is expected
