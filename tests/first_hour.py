"""The first hour of a stranger: what must hold in it, each line tried.

  python tests/first_hour.py               prints a table; exit code 1: a line
                                           does not hold
  python tests/first_hour.py --quick       what takes seconds, as the tests do
  python tests/first_hour.py --point=4     the lines of one point
  python tests/first_hour.py --files=DIR   reads real recordings, too

Nothing that is right may be refused, and nothing that is wrong accepted. A line
is held where its function returns; it returns what was found, in words. What a
machine lacks (a browser, an index of packages) makes a line "not tried".
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["MPLBACKEND"] = "Agg"
os.environ["XLA_FLAGS"] = os.environ.get(
  "XLA_FLAGS", "--xla_force_host_platform_device_count=2"
)

import jaxtyping
import numpy as np

import ecgtwin_jax as et
from data_prep.__main__ import main as prepare_data
from ecgtwin_jax import flags, main, plotting
from ecgtwin_jax.app import actions, uploads
from ecgtwin_jax.beats.criteria_checks import find_mismatches
from ecgtwin_jax.beats.self_check import check_ecgs
from ecgtwin_jax.data import wfdb_record
from ecgtwin_jax.data.array_files import Given
from ecgtwin_jax.data.ecg import EXAMPLE_RECORD, SYNTHETIC
from ecgtwin_jax.data.leads import make_leads_consistent
from ecgtwin_jax.jobs import inputs

ROOT = pathlib.Path(__file__).parent.parent
RBBB, SINUS = "Right bundle branch block", "Sinus rhythm"
SHOWN = inputs.EXAMPLE_CONDITION
TARGET = et.Condition([SINUS, RBBB], 80, 81, "F")
SPREAD = 16  # ECGs of a count
STATES = ("held", "not held", "not tried")


class NotTriedError(Exception):
  """This machine lacks what a line needs."""


class Line(NamedTuple):
  """One thing that must hold.

  Attributes:
    point: its number.
    what: what must hold.
    attempt: function of an empty folder, which raises where it does not.
    slow: whether it makes ECGs, or takes minutes.
  """

  point: int
  what: str
  attempt: Callable[[pathlib.Path], str | None]
  slow: bool = False


def said(call, *arguments, **options) -> str:
  """What a call warns of, in one text."""
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    call(*arguments, **options)
  return " | ".join(str(one.message) for one in caught)


def refused(call, *words: str, kind: type[Exception] = ValueError) -> str:
  """The line that a call is refused with; it must hold all words."""
  try:
    call()
  except kind as error:
    text = str(error)
    lacking = [word for word in words if word not in text]
    assert not lacking and "\n" not in text, (lacking, text)
    return text
  raise AssertionError(f"not refused; {' '.join(words)} was expected")


def run(arguments, folder, **options) -> subprocess.CompletedProcess:
  """A program, away from the clone."""
  return subprocess.run(
    list(map(str, arguments)),
    capture_output=True,
    text=True,
    cwd=folder,
    **options,
  )


def command(folder, *arguments) -> str:
  """What `ecgtwin` prints, on both streams, with its exit code."""
  out = run(
    [sys.executable, "-m", "ecgtwin_jax.main", *arguments],
    folder,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
  )
  return f"exit code {out.returncode}\n{out.stdout}{out.stderr}"


def shipped() -> et.ECGTwin:
  return et.ECGTwin.from_pretrained("simulated-small")


_MADE = {}


def made(*statements: str):
  """(twins of the bundled recording, what was warned of), once each."""
  if statements not in _MADE:
    if "base" not in _MADE:
      _MADE["twin"] = shipped()
      _MADE["base"] = _MADE["twin"].extract_base(et.example_ecg(), SHOWN)
    target = et.Condition(statements, 80, 81, "F")
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter("always")
      out = _MADE["twin"].generate(_MADE["base"], target, num_samples=SPREAD)
    _MADE[statements] = out, " ".join(str(one.message) for one in caught)
  return _MADE[statements]


# 1: the flagship example


def block_is_stated(folder):
  del folder
  assert RBBB in SHOWN.statements
  assert "Inferior infarct, age undetermined" in SHOWN.statements
  found = et.check_criteria(et.example_ecg(), SHOWN)
  assert found["rbbb"] and not found["st_elevation"], found
  return "rbbb met, st_elevation not"


def everywhere_the_same(folder):
  del folder
  for name in ("README.md", "docs/generating.md", "launch/colab.ipynb"):
    text = (ROOT / name).read_text()
    assert all(one in text for one in SHOWN.statements), name
  shown = [*ROOT.glob("configs/*.py"), ROOT / "docs" / "tutorial.md"]
  shown += [ROOT / "launch" / "colab.ipynb"]
  for path in shown:
    assert "possibly acute" not in path.read_text(), path.name
  for name in ("generate", "explain", "edit", "app"):
    _, now = inputs.read_reference(flags.load_config(name))
    assert now == SHOWN, name
  return "README, docs, notebook, page and commands"


def false_reference_is_warned_of(folder):
  del folder
  wrong = et.Condition([SINUS], 82)
  texts = find_mismatches(et.example_ecg(), wrong)
  assert any("right bundle branch block" in text for text in texts), texts
  assert not find_mismatches(et.example_ecg(), SHOWN)
  return texts[0]


def headline_is_held_out(folder):
  del folder
  readme = (ROOT / "README.md").read_text()
  first, second = "docs/headline.png", "docs/first.png"
  assert 0 < readme.find(first) < readme.find(second)
  assert (ROOT / first).stat().st_size > 100_000
  return "true twin beside the generated ones, then the real recording"


def block_is_drawn(folder):
  del folder
  out, _ = made(SINUS, RBBB)
  met = out.check().criteria["rbbb"]
  assert met == SPREAD, met
  return f"rbbb in {met} of {SPREAD}"


# 2: a rhythm


def rhythm_is_asked_for(folder):
  del folder
  twin = shipped()
  alone = et.Condition([RBBB], 80)
  text = " ".join(twin.remarks(alone, target=True))
  assert "no statement says which rhythm" in text, text
  assert twin.state_rhythm(alone).statements == (SINUS, RBBB)
  assert {SINUS, "Atrial fibrillation"} <= set(twin.rhythms)
  assert RBBB not in twin.rhythms
  assert not twin.remarks(TARGET, target=True)
  for stage in ("stage2", "stage2:small"):
    assert flags.load_config(stage).dropout.rhythm > 0
  return text


def wrong_rate_is_said(folder):
  del folder
  slow = et.Condition(SHOWN.statements, 2 * SHOWN.heart_rate)
  text = str(check_ecgs([et.example_ecg()], slow))
  assert "1 of 1 off by more than 10%" in text, text
  return text.splitlines()[1].strip()


def twins_without_a_rhythm(folder):
  del folder
  out, warned = made(RBBB)
  check = out.check()
  met = check.criteria["rbbb"]
  assert "rhythm" in warned, warned
  assert met == SPREAD and not check.missed_rates, str(check)
  return f"rbbb in {met} of {SPREAD}; {warned}"


# 3: arrays


def wrong_arrays_are_warned_of(folder):
  del folder
  ecg = et.example_ecg()
  frame = ecg.to_frame().iloc[:, ::-1]
  for signal, word in (
    (frame, "the limb leads do not add up"),
    (ecg.signal * 1e3, "it looks like uV"),
    (ecg.signal * 1e-3, "it looks like V"),
    (ecg.signal * 0, "all leads are flat lines"),
  ):
    text = said(et.ECG, signal, 1000)
    assert word in text, (word, text)
  assert not said(et.ECG, ecg.signal, 1000)
  broken = ecg.signal.copy()
  broken[7, 3] = np.nan
  refused(lambda: et.ECG(broken, 1000), "finite")
  refused(lambda: et.ECG(ecg.signal.T, 1000), "(samples, 12)")
  return "V6..I by position, uV, V, zeros; NaN and (12, s) are refused"


def named_arrays_are_put_right(folder):
  del folder
  ecg = et.example_ecg()
  frame = ecg.to_frame().iloc[:, ::-1]
  array = frame.to_numpy() * 1e3
  with wfdb_record.quiet_wfdb() as wfdb:
    record = wfdb.rdrecord(EXAMPLE_RECORD)
  for other in (
    et.ECG.from_array(array, 1000, leads=list(frame.columns), unit="uV"),
    et.ECG.from_frame(frame * 1e-3, 1000, unit="V"),
    et.ECG.from_wfdb(record),
    et.ECG.from_wfdb(ecg.to_wfdb()),
    et.ECG.from_frame(ecg.to_frame(), 1000),
  ):
    np.testing.assert_allclose(other.signal, ecg.signal, atol=1e-5)
  assert 80 < et.detect_heart_rate(ecg) < 84
  return "from_array, from_frame, from_wfdb, and back; detectors take an ECG"


# 4: formats


def example_at_500():
  from helpers import clinical_samples

  ecg = et.example_ecg().resample(5000)
  signal = np.rint(ecg.signal[:, [0, 1, *range(6, 12)]] * 100) / 100
  whole = et.ECG.from_array(signal, 500, clinical_samples.EIGHT)
  return whole.signal.astype(np.float64)


def files_are_read_or_refused(folder):
  from helpers import format_files

  signal, read, words = example_at_500(), 0, []
  for name, (write, given) in format_files.READ.items():
    path = folder / name
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      # A file without a suffix takes the place of the one that had it.
      source = path if path.suffix else path.with_suffix(".dcm")
      write(source, signal)
      source.rename(path)
    ecg = et.read_ecg(path, **given)
    np.testing.assert_allclose(ecg.signal, signal, rtol=0, atol=1e-6)
    read += 1
  for name, (write, given, _) in format_files.REFUSED.items():
    path = folder / "refused" / name
    path.parent.mkdir(exist_ok=True)
    write(path, signal)
    text = refused(lambda p=path, g=given: et.read_ecg(p, **g), name)
    assert ".hea" not in text, text
    words.append(text)
  from pydicom.data import get_testdata_file

  device = et.read_ecg(get_testdata_file("waveform_ecg.dcm"))
  assert 55 < et.detect_heart_rate(device) < 65
  assert read + 1 + len(words) >= 30
  return f"{read + 1} read as they are, {len(words)} refused in words"


def missing_library_is_named(folder):
  for name, module, form in (
    ("a.edf", "edfio", "EDF"),
    ("a.dcm", "pydicom", "DICOM"),
    ("a.xml", "ecgdatakit", "XML and SCP-ECG"),
  ):
    path = folder / name
    if path.suffix == ".xml":
      path.write_text("<AnnotatedECG/>")
    else:
      et.example_ecg().write(path)
    usual = sys.modules.get(module)
    sys.modules[module] = None
    try:
      needs = f"{form} needs pip install 'ecgtwin-jax[formats]'"
      refused(lambda p=path: et.read_ecg(p), needs)
    finally:
      sys.modules.pop(module)
      if usual is not None:
        sys.modules[module] = usual
  return "EDF, DICOM, XML"


def files_go_there_and_back(folder):
  from helpers import clinical_samples

  clinical_samples.write_pyedflib(folder / "named.edf", example_at_500())
  ecg = et.read_ecg(folder / "named.edf")
  rng = np.random.default_rng(0)
  noisy = et.ECG(ecg.signal + rng.normal(0, 0.01, ecg.signal.shape), 500)
  for suffix in (".hea", ".edf", ".dcm", ".csv", ".npz"):
    ecg.write(folder / f"copy{suffix}")
    noisy.write(folder / f"noisy{suffix}")
    back = et.read_ecg(folder / f"noisy{suffix}")
    quantum = 0 if suffix in (".csv", ".npz") else 1e-3
    np.testing.assert_allclose(back.signal, noisy.signal, rtol=0, atol=quantum)
    content = (folder / f"copy{suffix}").read_bytes()
    named = [one for one in clinical_samples.SECRETS if one.encode() in content]
    assert not named, (suffix, named)
  return "WFDB, EDF, DICOM within 1 uV, CSV and npz exactly; nobody is named"


def sets_of_twins(folder):
  line = f"statements: {TARGET.text()}"
  ecgs = [
    et.ECG(et.example_ecg().signal, 1000, f"twin_{i}", [SYNTHETIC, line])
    for i in range(2)
  ]
  for suffix in (".parquet", ".npz"):
    path = folder / f"twins{suffix}"
    et.write_twins(path, ecgs, [TARGET] * 2, ["p1", "p2"])
    source = et.TwinFile(path)  # as grain asks for it: a length, and items
    assert len(source) == 2
    row = source[1]
    text = " ".join(f"{key}={value}" for key, value in row.items())
    assert RBBB in text and "p2" in text and "synthetic" in text.lower(), text
  return "parquet and npz with labels and origin, as a grain source"


def real_files(folder, place: pathlib.Path | None = None):
  """Reads all that lies in a folder; the rest must be refused in words."""
  del folder
  if place is None:
    raise NotTriedError("--files=DIR gives real recordings")
  read, words = 0, {}
  for path in sorted(place.iterdir()):
    try:
      et.read_ecg(path)
      read += 1
    except ValueError as error:
      words[path.name] = str(error)
  assert read, words
  return f"{read} read, {len(words)} refused: {words}"


# 5: synthetic


def pictures_say_it(folder):
  import matplotlib.image  # noqa: F401 (its Pillow reads metadata)
  from PIL import Image

  twin = et.ECG(et.example_ecg().signal, 1000, "twin_0", [SYNTHETIC])
  overview = folder / "overview.png"
  for draw in (
    lambda path: twin.plot(path),
    lambda path: et.plot_overview(et.example_ecg(), [twin], path),
  ):
    figure = draw(overview)
    texts = [one.get_text() for one in figure.axes[0].texts]
    assert any("Synthetic" in text for text in texts), texts
    with Image.open(overview) as image:
      assert "synthetic" in image.info["Source"], image.info
  plain = et.example_ecg().plot(folder / "real.png")
  texts = [one.get_text() for one in plain.axes[0].texts]
  assert not any("Synthetic" in text for text in texts), texts
  return "a line on the print, and in the metadata of the PNG"


# 6: words


def statements_are_listed(folder):
  del folder
  twin = shipped()
  card = ROOT / "ecgtwin_jax" / "assets" / "simulated-small" / "README.md"
  for path in (card, ROOT / "README.md"):
    text = " ".join(path.read_text().split())
    lacking = [one for one in twin.statements if one not in text]
    assert not lacking, (path.name, lacking)
  return f"{len(twin.statements)} in card and README"


def words_are_understood(folder):
  del folder
  twin = shipped()
  for word, meant in {
    "AFIB": "Atrial fibrillation",
    "RBBB": RBBB,
    "rbbb": RBBB,
    "CRBBB": RBBB,
    "PVC": "Ventricular premature complex",
    "LVH": "Left ventricular hypertrophy",
    "CLBBB": "Left bundle branch block",
    "LAFB": "Left anterior fascicular block",
    "1AVB": "1st degree A-V block",
    "SBRAD": "Sinus bradycardia",
    "AFLT": "Atrial flutter",
    "QTIE": "Prolonged QT interval",
    "LVQRSAL": "Low QRS voltages",
    "MIFW": "Anterior infarct, age undetermined",
    "sinus rhythm with 1st degree a-v block": "1st degree A-V block",
  }.items():
    texts = twin.remarks(et.Condition([word], 80))
    assert any(f"'{meant}'" in text for text in texts), (word, texts)
  same = et.Condition(["RIGHT BUNDLE branch block.", SINUS], 80)
  assert not twin.remarks(same), twin.remarks(same)
  (text,) = twin.remarks(et.Condition([f"{SINUS}; {RBBB}"], 80))[:1]
  assert "several statements" in text, text
  strange = twin.remarks(et.Condition(["A made up thing"], 80))
  assert "none of them is near" in strange[0], strange
  return strange[0]


# 7: Python


def names_are_there(folder):
  del folder
  for name in (
    *("example_ecg", "LEADS", "detect_heart_rate", "check_criteria"),
    *("plot_overview", "describe", "ECG", "Condition", "ECGTwin", "read_ecg"),
  ):
    assert name in dir(et) and getattr(et, name) is not None, name
  assert (ROOT / "ecgtwin_jax" / "py.typed").exists()
  assert repr(et.example_ecg()) == "ECG(s0010_re_10s, 10 s, 1000 Hz)"
  assert len(repr(shipped())) < 80 and len(repr(SHOWN)) < 120
  assert et.Condition([SINUS], 80, sex="female").sex == "F"
  return repr(et.example_ecg())


def wrong_types_are_named(folder):
  del folder
  twin, base = shipped(), np.zeros(256, np.float32)
  usual = jaxtyping.config.jaxtyping_disable
  jaxtyping.config.update("jaxtyping_disable", True)  # as users run it
  try:
    for call, word in (
      (lambda: twin.generate(base, SINUS), "condition='Sinus rhythm'"),
      (lambda: twin.generate(base, TARGET, num_samples="8"), "num_samples='8'"),
      (lambda: twin.extract_base("a.hea", TARGET), "reference"),
      (lambda: et.Condition(SINUS, 80), "statements='Sinus rhythm'"),
      (lambda: et.Condition([SINUS], "80"), "heart_rate='80'"),
      (lambda: et.read_ecg(5), "path=int"),
      (lambda: et.ECG("a", 500), "signal=str"),
    ):
      refused(call, word, "must be", kind=TypeError)
  finally:
    jaxtyping.config.update("jaxtyping_disable", usual)
  return "7 calls; each names the argument and what is expected"


def twins_are_saved_and_found(folder):
  from huggingface_hub import constants

  twin = shipped()
  twin.save_pretrained(folder / "mine")
  assert et.ECGTwin.from_pretrained(folder / "mine").digest == twin.digest
  place = folder / "hub" / "models--ward--heart"
  (place / "refs").mkdir(parents=True)
  (place / "refs" / "main").write_text("a" * 40)
  snapshot = place / "snapshots" / ("a" * 40)
  snapshot.parent.mkdir()
  (folder / "mine").rename(snapshot)
  usual = constants.HF_HUB_OFFLINE, constants.HF_HUB_CACHE
  constants.HF_HUB_OFFLINE, constants.HF_HUB_CACHE = True, str(folder / "hub")
  try:
    found = et.ECGTwin.from_pretrained("ward/heart")
    assert found.digest == twin.digest
    text = refused(
      lambda: et.ECGTwin.from_pretrained("ward/none"), "cannot be had"
    )
    weights = snapshot / "denoiser.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    refused(
      lambda: et.ECGTwin.from_pretrained("ward/heart"),
      "does not match the sha256",
    )
  finally:
    constants.HF_HUB_OFFLINE, constants.HF_HUB_CACHE = usual
  assert callable(twin.push_to_hub)
  return text


def checker_finds_five_mistakes(folder):
  """With `pip install pyright` (and Node.js) by pyright, else not tried."""
  from helpers.user_script import SCRIPT, planted_lines

  (folder / "mine.py").write_text(SCRIPT)
  pyright = pathlib.Path(sys.executable).with_name("pyright")
  if not pyright.exists():
    raise NotTriedError("pip install pyright")
  settings = {"include": ["mine.py"], "extraPaths": [str(ROOT)]}
  (folder / "pyrightconfig.json").write_text(json.dumps(settings))
  out = run(
    [pyright, "--outputjson", "--pythonpath", sys.executable, "-p", folder],
    folder,
  )
  if not out.stdout.startswith("{"):
    raise NotTriedError(f"pyright does not run: {out.stderr[-200:]}")
  result = json.loads(out.stdout)
  found = sorted(
    one["range"]["start"]["line"] + 1 for one in result["generalDiagnostics"]
  )
  assert found == planted_lines() and len(found) == 5, result[
    "generalDiagnostics"
  ]
  return f"pyright {result['version']}: lines {found}"


def rate_and_earlier_runs(folder):
  out, _ = made(SINUS, RBBB)
  again = _MADE["twin"].generate(
    _MADE["base"], TARGET, num_samples=1, sampling_rate=500
  )
  assert again.signals.shape == (1, 5000, 12)
  out.write(folder / "twins.npz")
  home = folder / "cache"
  environment = {**os.environ, "XDG_CACHE_HOME": str(home)}
  environment.pop("JAX_COMPILATION_CACHE_DIR", None)
  environment["PYTHONPATH"] = str(ROOT)
  arguments = "generate --num_samples=1 --steps=2 --workdir=out".split()
  for text in ("self-check of 1 ECGs", "files of an earlier run are replaced"):
    printed = run(
      [sys.executable, "-m", "ecgtwin_jax.main", *arguments],
      folder,
      env=environment,
    )
    assert text in printed.stdout, printed.stdout + printed.stderr
  assert (home / "ecgtwin_jax" / "jax").is_dir()
  assert not (folder / "runs").exists()
  record = json.loads((folder / "out" / "generated.json").read_text())
  assert record["synthetic"] is True and record["self_check"]
  return "500 Hz; programs in the user's cache; the earlier run is named"


# 8: the command line


def commands_are_short(folder):
  del folder
  line = ["generate", "REC", "--target", f"{SINUS}|{RBBB}", "--rate", "80"]
  config = flags.parse(line).config
  assert (config.record, config.target.heart_rate) == ("REC", 80)
  assert config.target.statements == f"{SINUS}|{RBBB}"
  same = flags.parse(["--config=generate", "--config.target.heart_rate=80"])
  assert same.config.target.heart_rate == 80
  assert flags.load_config("edit").attention == "own"  # so that it is seen
  return " ".join(line)


def help_has_meanings(folder):
  import io

  del folder
  for name in ("generate", "edit", "evaluate", "stage2"):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
      flags.parse([name, "--help"])
    lines = printed.getvalue().splitlines()
    keys = [i for i, one in enumerate(lines) if one.startswith("  --")]
    bare = [lines[i] for i in keys if not lines[i + 1].startswith("      ")]
    assert len(keys) > 5 and not bare, (name, bare)
  return "each key of 4 commands has a meaning"


def errors_name_the_command(folder):
  import io

  prepare = "simulated --output=data --patients=12 --workers=1".split()
  with contextlib.redirect_stdout(io.StringIO()), contextlib.chdir(folder):
    prepare_data(prepare)
  twin = ROOT / "ecgtwin_jax" / "assets" / "simulated-small"
  texts = []
  for arguments, word in (
    (["evaluate", "simulated-small", "--data=nothing"], "data_prep"),
    (
      ["train", "stage2", "--data=data", f"--vae={twin}", "--latents=no"],
      "encode",
    ),
    (["generate", "nothing"], "nothing.hea"),
    (["generate", "--tagret=a"], "--target"),
  ):
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), contextlib.chdir(folder):
      code = main.main(arguments)
    text = printed.getvalue()
    assert code == 1 and text.count("\n") == 1 and word in text, text
    texts.append(text.strip())
  return texts[1]


def requests_are_warned_of(folder):
  (folder / "requests.csv").write_text(
    "record,now_statements,target_statements,target_heart_rate,n\n"
    f"{EXAMPLE_RECORD},{SINUS}|{RBBB},{SINUS}|A made up thing,70,1\n"
    f"{EXAMPLE_RECORD},{SINUS},{SINUS}|{RBBB},70,1\n"
  )
  printed = command(
    folder, "generate", "--requests=requests.csv", "--steps=2", "--workdir=out"
  )
  assert "2 have warnings" in printed, printed
  assert "'A made up thing' is not among" in printed, printed
  assert "shows a right bundle branch block" in printed, printed
  return next(x for x in printed.splitlines() if "have warnings" in x)


# 9: pictures


def layouts_have_names(folder):
  del folder
  rows = {"3x4": 13, "6x2": 12, "12x1": 12}
  for layout, count in rows.items():
    for speed in (25, 50):
      figure = plotting.plot_ecg(et.example_ecg(), None, layout, None, speed)
      lines = [one for one in figure.axes[0].lines if len(one.get_xdata()) > 4]
      assert len(lines) == count
      texts = [one.get_text() for one in figure.axes[0].texts]
      assert any(f"{speed} mm/s" in text for text in texts), texts
  refused(lambda: plotting.check_layout("4x3", 25), "3x4, 6x2, 12x1")
  return "3x4, 6x2, 12x1 at 25 and 50 mm/s"


def twins_lie_over_the_reference(folder):
  out, _ = made(SINUS, RBBB)
  figure = out.plot_median_beats(et.example_ecg(), folder / "beats.png")
  (title,) = [
    text.get_text()
    for text in figure.axes[0].texts
    if "correlation" in text.get_text()
  ]
  return title


def limb_leads_add_up(folder):
  """The autoencoder gives eight leads, and I and II imply the other four."""
  del folder
  for stage in ("vae", "vae:small"):
    model = flags.load_config(stage).model
    assert model.decoder.independent_leads, stage
  out, _ = made(SINUS, RBBB)
  moved = np.abs(make_leads_consistent(out.signals) - out.signals).max()
  assert moved < 1e-6, moved
  return f"projecting moves no sample by more than {moved:.1e} mV"


# 10: the page


def page_takes_all_files(folder):
  from helpers import clinical_samples, format_files

  signal = example_at_500()
  format_files.write_wfdb(folder / "frank.hea", signal)
  frank = [folder / f"frank{x}" for x in (".hea", ".dat", ".xyz")]
  np.save(folder / "a.npy", signal * 1e3)
  given = Given(500.0, et.LEADS, "uV")
  sent = [frank, frank[:2], [folder / "a.npy"]]
  for name, write in {
    "a.edf": clinical_samples.write_pyedflib,
    "a.dcm": format_files.write_general_dicom,
    "hl7.xml": clinical_samples.write_aecg,
    "muse.xml": clinical_samples.write_muse,
    "philips.xml": clinical_samples.write_philips,
    "a.scp": clinical_samples.write_scp,
    "a.csv": lambda p, x: et.ECG(x, 500).write(p),
    "a.npz": lambda p, x: et.ECG(x, 500).write(p),
  }.items():
    write(folder / name, signal)
    sent.append([folder / name])
  import scipy.io

  scipy.io.savemat(folder / "a.mat", {"val": signal.T * 1e3})
  sent.append([folder / "a.mat"])
  for files in sent:
    plain = files[0].suffix in (".npy", ".mat")
    options = {"given": given} if plain else {}
    ecg = uploads.read_upload(list(map(str, files)), **options)
    np.testing.assert_allclose(ecg.signal, signal, rtol=0, atol=1e-6)
    for file in files:
      allowed = (*uploads.MAINS, *uploads.DATA)
      assert file.suffix in allowed, file.suffix
  return f"{len(sent)} uploads"


def page_gives_a_script(folder):
  made(SINUS, RBBB)
  twin = _MADE["twin"]
  session = actions.Session(twin, et.example_ecg(), SHOWN)
  own = twin.settings()
  form = actions.Form(
    files=None,
    start="0",
    now_statements=list(SHOWN.statements),
    now_heart_rate="82",
    now_age="81",
    now_sex="F",
    statements=[SINUS, RBBB],
    heart_rate="80",
    age="",
    num_samples=2,
    seed=3,
    steps=5,
    statement_guidance=own.statement_guidance,
    person_guidance=own.person_guidance,
    consistent_leads=False,
  )
  response = session.generate(form, str(folder))
  assert "self-check of 2 ECGs" in response.text
  names = {}
  exec(compile(response.script, "reproduce.py", "exec"), names)
  written = et.read_ecg(folder / "twins" / "twin_1.hea")
  np.testing.assert_allclose(written.signal, names["out"].signals[1], atol=6e-4)
  return "its script makes the same twins"


def page_in_a_browser(folder):
  out = run(
    [
      sys.executable,
      "-m",
      "pytest",
      "-q",
      "-n",
      "0",
      "-rs",
      "-p",
      "no:cacheprovider",
    ]
    + [str(ROOT / "tests" / "test_app.py")],
    ROOT,
  )
  del folder
  last = out.stdout.strip().splitlines()[-1]
  if "skipped" in last and "failed" not in last:
    raise NotTriedError(f"{last}: pip install -e '.[app]' playwright")
  assert out.returncode == 0, out.stdout[-2000:]
  return last


# The wheel


def wheel_does_what_readme_shows(folder, python: str | None = None):
  """In an environment of its own, outside the clone."""
  if python is None:
    python = install_wheel(folder)
  programs = pathlib.Path(python).parent
  away = folder / "away"
  away.mkdir()
  environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  environment["PATH"] = f"{programs}:{environment['PATH']}"
  et.example_ecg().write(away / "DIR" / "record")

  def does(*words):
    out = run(words, away, env=environment)
    assert out.returncode == 0, (words, out.stdout[-500:], out.stderr[-1500:])
    return out.stdout

  place = does(python, "-c", "import ecgtwin_jax; print(ecgtwin_jax.__file__)")
  assert not pathlib.Path(place).is_relative_to(ROOT), place
  done = []
  for words in read_readme():
    if words[0] != "ecgtwin":
      assert words[0] in ("pip", "pytest", "python"), words
      continue
    name = words[1]
    if name in ("generate", "--help"):
      assert does(*words)
    elif name == "train":
      assert "Keys:" in does(*words, "--help")
    elif name == "evaluate":
      does(*"ecgtwin-data simulated --output=sim --patients=23".split())
      shipped_twin = pathlib.Path(place.strip()).parent / "assets"
      twin = shipped_twin / "simulated-small"
      options = "--patients=3 --conditions=1 --levels=condition".split()
      does("ecgtwin", "evaluate", twin, "--data=sim", *options, *words[4:])
      assert (away / "runs" / "evaluated" / "report.html").exists()
    else:
      assert does("ecgtwin", name, "--help")
    done.append(name)
  snippets = re.findall(
    r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S
  )
  (away / "mine.py").write_text("\n".join(snippets))
  does(python, "mine.py")
  assert (away / "twin.png").exists() and (away / "twin.hea").exists()
  return f"{len(done)} commands ({', '.join(done)}) and the snippet"


def install_wheel(folder):
  """The Python of a new environment that holds the wheel alone."""
  source = folder / "source"
  source.mkdir()
  files = run(["git", "ls-files", "-z"], ROOT).stdout.split("\0")
  for name in filter(None, files):
    if (ROOT / name).is_file():
      (source / name).parent.mkdir(parents=True, exist_ok=True)
      (source / name).write_bytes((ROOT / name).read_bytes())
  pip = [sys.executable, "-m", "pip", "-q"]
  out = run([*pip, "wheel", "--no-deps", "-w", folder, source], folder)
  (wheel,) = folder.glob("*.whl")
  run([sys.executable, "-m", "venv", folder / "venv"], folder)
  python = str(folder / "venv" / "bin" / "python")
  out = run([python, "-m", "pip", "-q", "install", f"{wheel}[formats]"], folder)
  if out.returncode:
    raise NotTriedError(f"pip install: {out.stderr[-200:]}")
  return python


def read_readme():
  from helpers import commands

  return list(commands.read_commands(ROOT / "README.md"))


LINES = (
  Line(1, "the bundled recording meets what is said of it", block_is_stated),
  Line(1, "the same is said everywhere", everywhere_the_same),
  Line(1, "a false reference is warned of", false_reference_is_warned_of),
  Line(1, "the headline shows a truth", headline_is_held_out),
  Line(1, "twins with the block stated have it", block_is_drawn, slow=True),
  Line(2, "a target without a rhythm is warned of", rhythm_is_asked_for),
  Line(2, "39 bpm for 80 are said", wrong_rate_is_said),
  Line(2, "the block alone is drawn", twins_without_a_rhythm, slow=True),
  Line(3, "other leads and units are warned of", wrong_arrays_are_warned_of),
  Line(3, "named leads and units are put right", named_arrays_are_put_right),
  Line(4, "files are read or refused in words", files_are_read_or_refused),
  Line(4, "a library that is missing is named", missing_library_is_named),
  Line(4, "files go there and back", files_go_there_and_back),
  Line(4, "data sets of twins", sets_of_twins),
  Line(4, "real recordings", real_files, slow=True),
  Line(5, "pictures say that they are synthetic", pictures_say_it),
  Line(6, "statements are listed", statements_are_listed),
  Line(6, "other words are understood", words_are_understood),
  Line(6, "requests are warned of", requests_are_warned_of, slow=True),
  Line(7, "names, types and reprs", names_are_there),
  Line(7, "wrong types are named", wrong_types_are_named),
  Line(7, "twins are saved and found", twins_are_saved_and_found),
  Line(7, "five mistakes, no others", checker_finds_five_mistakes, slow=True),
  Line(7, "rate, cache, earlier runs", rate_and_earlier_runs, slow=True),
  Line(8, "short commands", commands_are_short),
  Line(8, "--help has meanings", help_has_meanings),
  Line(8, "errors name what mends them", errors_name_the_command),
  Line(8, "the wheel alone", wheel_does_what_readme_shows, slow=True),
  Line(9, "layouts by name", layouts_have_names),
  Line(9, "median beats overlaid", twins_lie_over_the_reference, slow=True),
  Line(9, "limb leads add up", limb_leads_add_up, slow=True),
  Line(10, "uploads", page_takes_all_files),
  Line(10, "self-check and script", page_gives_a_script, slow=True),
  Line(10, "names of controls, phone, limits", page_in_a_browser, slow=True),
)


def attempt(line: Line, **options) -> tuple[str, str]:
  """One of STATES, and what was found."""
  with tempfile.TemporaryDirectory() as folder:
    try:
      return STATES[0], line.attempt(pathlib.Path(folder), **options) or ""
    except NotTriedError as error:
      return STATES[2], str(error)
    except Exception as error:
      return STATES[1], f"{type(error).__name__}: {error}"


def main_of_script(argv: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--quick", action="store_true", help="seconds alone")
  parser.add_argument("--point", type=int, help="of one point alone")
  parser.add_argument("--files", type=pathlib.Path, help="real recordings")
  parser.add_argument("--python", help="of an environment with the wheel alone")
  given = parser.parse_args(argv)
  warnings.filterwarnings("ignore")
  options = {
    real_files: {"place": given.files},
    wheel_does_what_readme_shows: {"python": given.python},
  }
  counts = dict.fromkeys(STATES, 0)
  for line in LINES:
    if (given.quick and line.slow) or given.point not in (None, line.point):
      continue
    start = time.monotonic()
    state, found = attempt(line, **options.get(line.attempt, {}))
    counts[state] += 1
    seconds = time.monotonic() - start
    text = " ".join(found.split())[:300]
    print(f"{line.point:2} {state:9} {line.what} ({seconds:.0f} s): {text}")
    sys.stdout.flush()
  print(", ".join(f"{count} {state}" for state, count in counts.items()))
  return 1 if counts[STATES[1]] else 0


if __name__ == "__main__":
  sys.exit(main_of_script())
