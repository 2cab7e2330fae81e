"""What the page's buttons do, without a browser."""

import dataclasses
import json
import pathlib
import zipfile

import matplotlib.image
import numpy as np
import pytest

import ecgtwin_jax
from ecgtwin_jax import ECGTwin, read_ecg
from ecgtwin_jax.app.actions import MAX_SAMPLES, Change, Form, Session
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import EXAMPLE_RECORD, LEADS, example_ecg
from ecgtwin_jax.inference.results import Generated

NOW = Condition(("Sinus rhythm", "Right bundle branch block"), 82, 81, "F")
FORM = Form(
  files=None,
  start="0",
  now_statements=["Sinus rhythm", "Right bundle branch block"],
  now_heart_rate="82",
  now_age="81",
  now_sex="F",
  statements=["Sinus rhythm", "Ventricular premature complex"],
  heart_rate="80",
  age="",
  num_samples=2,
  seed=3,
  steps=2,
  statement_guidance=1.0,
  person_guidance=1.0,
  consistent_leads=False,
)


@pytest.fixture(scope="module")
def session(chain):
  twin = ECGTwin.from_checkpoint(chain / "stage2" / "twin")
  return Session(twin, example_ecg(), NOW)


@pytest.fixture
def folder(tmp_path):
  return str(tmp_path / "response")


def is_picture(path):
  return min(matplotlib.image.imread(path).shape[:2]) > 500


def unpack(response, folder):
  with zipfile.ZipFile(response.archive) as archive:
    assert archive.testzip() is None
    archive.extractall(folder)
  return pathlib.Path(folder)


def run_script(script, session, monkeypatch):
  """What a script defines that shall make the same, with the session's twin."""
  assert f'from_checkpoint("DIR")  # {session.twin.digest}' in script
  monkeypatch.setattr(ECGTwin, "from_checkpoint", lambda path: session.twin)
  names = {}
  exec(compile(script, "reproduce.py", "exec"), names)
  return names


def test_twins_are_what_the_twin_generates(
  session, folder, tmp_path, monkeypatch
):
  response = session.generate(FORM, folder)
  target = Condition(FORM.statements, 80, 81, "F")
  made = run_script(response.script, session, monkeypatch)
  same, base = made["out"], made["base"]
  assert (made["now"], made["then"]) == (NOW, target)
  np.testing.assert_allclose(
    base, session.twin.extract_base(example_ecg(), NOW)
  )
  inside = unpack(response, tmp_path / "unpacked")
  for i in range(2):
    ecg = read_ecg(inside / f"twin_{i}.hea")
    np.testing.assert_allclose(ecg.signal, same.signals[i], atol=6e-4)
    assert ecg.comments[0].startswith("synthetic")
    assert f"twin: {session.twin.digest}" in ecg.comments[3]
  record = json.loads((inside / "generated.json").read_text())
  assert (inside / "reproduce.py").read_text() == response.script
  assert record["reference"] == "s0010_re_10s"
  assert record["seed"] == 3
  assert record["target"]["age"] == 81
  assert is_picture(response.picture)
  names = [name for _, name in response.sheets]
  # Of twins in which no usual beat is found there are no median beats.
  assert [n for n in names if n != "median beats"] == [
    "reference",
    "twin_0",
    "twin_1",
  ]
  assert all(is_picture(path) for path, _ in response.sheets)
  assert "80 bpm asked for" in response.text
  assert "ventricular premature" in response.text
  assert record["synthetic"] is True
  failed = sum(not np.isfinite(rate) for rate in same.check().rates)
  assert record["self_check"]["rates_failed"] == failed


def test_an_upload_takes_the_place_of_the_reference(session, folder, tmp_path):
  path = tmp_path / "flipped.csv"
  ecg = example_ecg()
  type(ecg)(-ecg.signal, 1000, "flipped").write(path)
  form = FORM._replace(files=[str(path)], num_samples=1)
  response = session.generate(form, folder)
  assert "et.read_ecg('flipped.csv', start=0)" in response.script
  record = unpack(response, tmp_path / "unpacked") / "generated.json"
  assert json.loads(record.read_text())["reference"] == "flipped"
  other = session.generate(FORM._replace(num_samples=1), folder + "_other")
  pair = [
    unpack(x, tmp_path / f"{i}") / "twin_0.dat"
    for i, x in enumerate((response, other))
  ]
  assert pair[0].read_bytes() != pair[1].read_bytes()


def test_a_file_of_plain_numbers_needs_what_it_does_not_say(
  session, folder, tmp_path
):
  path, ecg = tmp_path / "plain.npy", example_ecg()
  np.save(path, ecg.signal * 1e3)
  said = ("1000", ", ".join(LEADS), "uV")
  info = session.show_reference([str(path)], "0", folder, *said)
  assert is_picture(info.picture)
  form = FORM._replace(files=[str(path)], num_samples=1)
  with pytest.raises(ValueError, match="say beside the upload"):
    session.generate(form, folder)
  with pytest.raises(ValueError, match="sampling rate 'fast' must be a number"):
    session.generate(form._replace(sampling_rate="fast"), folder)
  form = form._replace(sampling_rate="1000", leads=" ".join(LEADS), unit="uV")
  script = session.generate(form, folder).script
  (line,) = [x for x in script.splitlines() if "read_ecg" in x]
  call = line.partition("= ")[2].replace("'plain.npy'", repr(str(path)))
  read = eval(call, {"et": ecgtwin_jax})
  np.testing.assert_allclose(read.signal, ecg.signal, atol=1e-6)


def test_twins_with_beats_have_a_sheet_of_their_median_beats(
  session, folder, monkeypatch
):
  ecgs = [
    dataclasses.replace(example_ecg().resample(), record=f"twin_{i}")
    for i in range(2)
  ]
  blank = np.zeros((2, 128, 4), np.float32), np.zeros(2, np.float32)
  made = Generated(ecgs, *blank, condition=NOW)
  monkeypatch.setattr(session.twin, "generate", lambda *args, **options: made)
  response = session.generate(FORM, folder)
  names = [name for _, name in response.sheets]
  assert names == ["reference", "median beats", "twin_0", "twin_1"]
  assert all(is_picture(path) for path, _ in response.sheets)


def test_guidance_and_consistent_leads_arrive(session, folder, tmp_path):
  form = FORM._replace(
    num_samples=1,
    statement_guidance=2.0,
    person_guidance=1.5,
    consistent_leads=True,
  )
  response = session.generate(form, folder)
  inside = unpack(response, tmp_path / "unpacked")
  ecg = read_ecg(inside / "twin_0.hea")
  i, ii, iii = ecg.signal[:, :3].T
  np.testing.assert_allclose(iii, ii - i, atol=2e-3)
  facts = "\n".join(ecg.comments)
  assert "statement_guidance: 2.0" in facts
  assert "person_guidance: 1.5" in facts
  assert "before they were made to agree" in response.text


def test_warnings_are_sentences_of_the_answer(session, folder):
  statements = ["Sinus bradycardia", "Right bundle branch blok"]
  response = session.generate(
    FORM._replace(statements=statements, heart_rate="95", num_samples=1),
    folder,
  )
  assert "'Sinus bradycardia' contradicts heart_rate=95" in response.text
  assert "the nearest is 'Right bundle branch block'" in response.text


def test_an_explanation_is_a_sheet_per_twin(session, folder, tmp_path):
  tmp_path.joinpath("response").mkdir()
  response = session.explain(FORM, folder)
  assert [name for _, name in response.sheets] == ["twin_0", "twin_1"]
  assert all(is_picture(path) for path, _ in response.sheets)
  shares = [line.split("%")[0] for line in response.text.splitlines()[1:]]
  assert sum(map(int, shares)) == pytest.approx(100, abs=1)
  assert response.archive is None


@pytest.mark.parametrize(
  ("change", "statements"),
  [
    (
      Change("add", ["Right bundle branch block"], 2.0, 0.9, "source"),
      [*FORM.statements, "Right bundle branch block"],
    ),
    (
      Change(
        "swap", ["Atrial fibrillation", "Low QRS voltages"], 1.0, 0.9, "source"
      ),
      ["Atrial fibrillation", "Low QRS voltages"],
    ),
    (
      Change(
        "reweight", ["Ventricular premature complex"], -2.0, 0.9, "source"
      ),
      FORM.statements,
    ),
  ],
  ids=lambda x: x.kind if isinstance(x, Change) else "",
)
def test_each_edit_is_made_and_packed(
  session, folder, tmp_path, change, statements
):
  response = session.edit(FORM, change, folder)
  inside = unpack(response, tmp_path / "unpacked")
  record = json.loads((inside / "edited.json").read_text())
  assert record["edit"]["threshold"] == 0.9
  assert record["edit"]["attention"] == "source"
  assert change.kind in record["edit"]
  assert is_picture(response.picture)
  for i in range(2):
    source = read_ecg(inside / f"source_{i}.hea")
    edited = read_ecg(inside / f"edited_{i}.hea")
    # A hardly trained twin's swap changes a sample by one step of the file.
    least = 5e-4 if change.kind == "swap" else 1.5e-3
    assert np.abs(source.signal - edited.signal).max() > least
    assert edited.comments[1] == f"statements: {'|'.join(statements)}"
  assert response.text.startswith("Largest change: ")


def test_looking_at_an_upload_finds_what_its_header_says(session, tmp_path):
  paths = [EXAMPLE_RECORD + suffix for suffix in (".hea", ".dat")]
  info = session.show_reference(paths, "0", str(tmp_path))
  assert is_picture(info.picture)
  assert info.statements == []  # for the user to say
  assert info.heart_rate == pytest.approx(82, abs=2)
  assert (info.age, info.sex) == (81, "F")
  assert "10 s at 1000 Hz" in info.text


def test_looking_at_nothing_shows_the_own_reference(session, tmp_path):
  info = session.show_reference(None, "", str(tmp_path))
  assert info.statements == list(NOW.statements)
  assert (info.heart_rate, info.age, info.sex) == (82, 81, "F")


def test_where_no_beats_are_found_the_rate_stays_open(
  session, tmp_path, monkeypatch
):
  find = "ecgtwin_jax.app.actions.detect_heart_rate"
  monkeypatch.setattr(find, lambda signal, rate: float("nan"))
  paths = [EXAMPLE_RECORD + suffix for suffix in (".hea", ".dat")]
  info = session.show_reference(paths, "", str(tmp_path))
  assert info.heart_rate is None
  assert info.age == 81
  assert "no heart beats found" in info.text


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(now_statements=[]), "one statement of what the reference shows"),
    (dict(statements=[]), "one statement of what the twins shall show"),
    (dict(now_heart_rate=""), "reference '' must be a num"),
    (dict(heart_rate="fast"), "twins 'fast' must be a num"),
    (dict(heart_rate="10"), r"heart_rate=10.0 must be a number in 20..300"),
    (dict(heart_rate="nan"), "heart_rate=nan must be a number in 20..300"),
    (dict(age="old"), "age 'old' must be a number"),
    (dict(age="1_0"), "age '1_0' must be a number"),
    (dict(now_age="-1"), "age=-1.0"),
    (dict(now_sex="X"), "sex='X'"),
    (dict(num_samples=0), f"twins=0 must be a number in 1..{MAX_SAMPLES}"),
    (dict(num_samples=MAX_SAMPLES + 1), "twins=17"),
    (dict(num_samples=None), "twins=None"),
    (dict(steps=0), "steps"),
    (dict(steps=10**9), "steps"),
    (dict(seed=-1), "seed=-1"),
    (dict(seed=None), "seed=None must be a number"),
    (dict(statement_guidance=float("inf")), "must be finite"),
    (dict(start="x", files=["a.csv"]), "seconds to skip 'x' must be"),
  ],
)
def test_what_is_out_of_range_is_said_in_words(
  session, folder, changes, message
):
  with pytest.raises(ValueError, match=message):
    session.generate(FORM._replace(**changes), folder)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (Change("add", [], 1.0, 0.2), "choose one statement to add, not 0"),
    (Change("add", ["a", "b"], 1.0, 0.2), "choose one statement to add, not 2"),
    (Change("swap", ["a"], 1.0, 0.2), "swap must have as many statements"),
    (Change("reweight", ["a"], 1.0, 0.2), "must be one of the condition's"),
    (Change("add", ["a"], 1.0, 2.0), "threshold=2.0 must be in 0..1"),
    (Change("erase", ["a"], 1.0, 0.2), "kind='erase' must be one of"),
  ],
)
def test_edits_that_cannot_be_made(session, folder, change, message):
  with pytest.raises(ValueError, match=message):
    session.edit(FORM, change, folder)


def test_a_twin_trained_without_dropout_says_why_it_cannot_be_guided(
  chain, session
):
  assert session.reason_against("statement_guidance") is None
  twin = ECGTwin.from_checkpoint(chain / "stage2" / "twin")
  twin.hyper["denoiser"] = {
    **twin.hyper["denoiser"],
    "dropout": {"statements": 0.0, "base": 0.1, "patient": 0.1},
  }
  plain = Session(twin, example_ecg(), NOW)
  reason = plain.reason_against("statement_guidance")
  assert reason.startswith("this twin was trained without dropping statements")
  assert plain.reason_against("person_guidance") is None
