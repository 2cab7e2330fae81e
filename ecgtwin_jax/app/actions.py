"""What the page's buttons do, as functions of plain values into a folder."""

import contextlib
import dataclasses
import pathlib
import re
import shutil
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ecgtwin_jax.app.uploads import MAINS, read_upload_apart
from ecgtwin_jax.data.array_files import Given
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import ECG, example_ecg
from ecgtwin_jax.data.heart_rate import detect_heart_rate
from ecgtwin_jax.inference.sampling import Settings
from ecgtwin_jax.inference.twin import ECGTwin
from ecgtwin_jax.inference.twin_directory import shipped
from ecgtwin_jax.jobs.edit import write_edit
from ecgtwin_jax.jobs.generate import write_results
from ecgtwin_jax.jobs.inputs import fill_condition, plain_number
from ecgtwin_jax.plotting import SPEED, plot_ecg

MAX_SAMPLES = 16
MAX_STEPS = 200  # calls of the network: others wait for their turn
EDITS = ("add", "swap", "reweight")


class Form(NamedTuple):
  """What the controls say, as they say it: numbers that may be empty are text.

  Attributes:
    files: paths of the uploaded reference; none: the one the page opened with.
    start: seconds to skip in it; empty: 0.
    now_statements: what it shows.
    now_heart_rate: its heart rate in bpm.
    now_age: age then, in years; empty: not known.
    now_sex: "F", "M" or "" for not known.
    statements: what the twins shall show.
    heart_rate: heart rate in bpm.
    age: age in years; empty: the reference's.
    num_samples: how many twins.
    seed: what their noise is drawn from.
    steps: calls of the network.
    statement_guidance: scale of classifier-free guidance by the statements; 1
      samples as trained.
    person_guidance: scale of classifier-free guidance by the base vector; 1
      samples as trained.
    consistent_leads: whether the limb leads shall add up exactly.
    beats: when they fall, as text; empty: a rhythm is drawn for each twin.
    sampling_rate: of an upload that does not say it (.csv, .npy, .mat), Hz.
    leads: names of its columns, with commas or spaces between.
    unit: "mV", "uV" or "V"; empty, as the two before, where the file says it.
  """

  files: list[str] | None
  start: str
  now_statements: list[str]
  now_heart_rate: str
  now_age: str
  now_sex: str
  statements: list[str]
  heart_rate: str
  age: str
  num_samples: int
  seed: int
  steps: int
  statement_guidance: float
  person_guidance: float
  consistent_leads: bool
  beats: str = ""
  sampling_rate: str = ""
  leads: str = ""
  unit: str = ""


class Change(NamedTuple):
  """What the controls of an edit say.

  Attributes:
    kind: "add", "swap" or "reweight".
    statements: statements to add, to have instead, or to re-weight.
    weight: weight of the added or re-weighted statement's attention.
    threshold: share of the schedule that is edited.
    attention: "own" or "source": whose attention the edit's is made of.
  """

  kind: str
  statements: list[str]
  weight: float
  threshold: float
  attention: str = "own"


class ReferenceInfo(NamedTuple):
  """A reference, and what could be found out about it; None: not known."""

  picture: str
  text: str
  statements: list[str]
  heart_rate: float | None
  age: float | None
  sex: str | None


class Response(NamedTuple):
  """What an action gives back.

  Attributes:
    text: what came out, a sentence per line.
    archive: path of a zip file; None: nothing to download.
    picture: path of the picture of all; None: there is none.
    sheets: (path of a picture, its caption), one by one.
    script: Python that makes the same; None: there is none.
  """

  text: str
  archive: str | None = None
  picture: str | None = None
  sheets: tuple[tuple[str, str], ...] | list[tuple[str, str]] = ()
  script: str | None = None


@dataclasses.dataclass(frozen=True)
class Session:
  """A twin, and the reference that is used where nothing is uploaded.

  Attributes:
    twin: makes the ECGs.
    reference: the recording that the page opens with.
    now: what it shows.
    max_upload_mb: limit of an upload.
    sampler: name of the sampler, as ECGTwin.generate has it.
    eta: noise of the sampler, as ECGTwin.generate has it.
    file_format: format of downloads: wfdb, csv or npz.
    layout: of each ECG's picture: 3x4, 6x2 or 12x1.
    speed: of the paper, mm/s.
  """

  twin: ECGTwin
  reference: ECG
  now: Condition
  max_upload_mb: float | int = 20
  sampler: str = "dpm++"
  eta: float | int | None = None
  file_format: str = "wfdb"
  layout: str = "3x4"
  speed: float | int = SPEED

  def reason_against(self, guidance: str) -> str | None:
    """Why this twin cannot be guided; None: it can.

    Args:
      guidance: "statement_guidance" or "person_guidance".
    """
    try:
      Settings(**{guidance: 2.0}).plan(self.twin.hyper["denoiser"])
    except ValueError as error:
      return str(error).partition(": ")[2]
    return None

  def show_reference(
    self,
    files: list[str] | None,
    start: str,
    folder: str,
    sampling_rate: str = "",
    leads: str = "",
    unit: str = "",
  ) -> ReferenceInfo:
    """Draws the reference, and finds what its file says of it.

    Args:
      files: as in Form, as are start, sampling_rate, leads and unit.
      start: seconds to skip.
      folder: where the picture goes.
      sampling_rate: of an upload that does not say it.
      leads: names of its columns.
      unit: of its numbers.

    Raises:
      ValueError: the upload cannot be used.
    """
    given = _read_given(sampling_rate, leads, unit)
    reference = self._reference(files, start, given)
    picture = str(pathlib.Path(folder) / "reference.png")
    plot_ecg(reference, picture)
    rate = detect_heart_rate(reference.signal, reference.sampling_rate)
    beats = f"{rate:.0f} bpm" if np.isfinite(rate) else "no heart beats found"
    text = (
      f"{reference.record}: {reference.duration:g} s at "
      f"{reference.sampling_rate:g} Hz, {beats}"
    )
    if not files:
      now = self.now
      condition = list(now.statements), now.heart_rate, now.age, now.sex
      return ReferenceInfo(picture, text, *condition)
    # The statements are for the user to say; the rest may stand in the header.
    header = fill_condition(reference, "not said", 60.0)
    heart_rate = round(rate, 1) if np.isfinite(rate) else None
    return ReferenceInfo(picture, text, [], heart_rate, header.age, header.sex)

  def generate(self, form: Form, folder: str) -> Response:
    """Makes twins: the reference above them, each in full, and a zip file.

    Raises:
      ValueError: a value is missing or out of range.
    """
    reference, now, target, sampling = self._read(form)
    settings = {**sampling, **_guidance(form)}
    with _notes() as notes:
      base = self.twin.extract_base(reference, now)
      out = self.twin.generate(base, target, beats=_beats(form), **settings)
    inside = pathlib.Path(folder) / "twins"
    request = {"twin": self.twin.digest, **settings}
    with _notes() as more:
      written = write_results(
        inside,
        reference,
        now,
        target,
        out,
        request,
        self.file_format,
        self.layout,
        self.speed,
      )
    picture = str(pathlib.Path(folder) / "reference.png")
    plot_ecg(reference, picture, title=f"reference: {now.describe()}")
    sheets = [(picture, "reference")]
    sheets += [(f"{inside}/{e.record}.png", e.record) for e in out.ecgs]
    if written.beats is not None:
      sheets.insert(1, (written.beats, "median beats"))
    lines = [str(written.check), *notes, *more]
    if form.consistent_leads:
      lines.insert(
        1,
        f"limb leads: up to {out.lead_residual:.2f} mV away before they were "
        "made to agree",
      )
    script = self._write_script(form, now, target, settings)
    (inside / "reproduce.py").write_text(script)
    return Response(
      "\n".join(lines), _pack(inside), written.overview, sheets, script
    )

  def explain(self, form: Form, folder: str) -> Response:
    """Draws which statement each part of the same twins attends to.

    Raises:
      ValueError: as generate, or the twin has no attention over statements.
    """
    reference, now, target, sampling = self._read(form)
    with _notes() as notes:
      base = self.twin.extract_base(reference, now)
      settings = {**sampling, **_guidance(form)}
      out = self.twin.explain(base, target, beats=_beats(form), **settings)
    sheets = []
    for i, ecg in enumerate(out.ecgs):
      picture = f"{folder}/attention_{i}.png"
      out.plot(picture, i, title=f"{ecg.record}: {target.describe()}")
      sheets.append((picture, ecg.record))
    shares = out.over_time().mean(axis=(0, 1))
    lines = [
      "Mean share of the attention:",
      *(f"{x:.0%}  {name}" for x, name in zip(shares, out.statements)),
      *notes,
    ]
    return Response("\n".join(lines), sheets=sheets)

  def edit(self, form: Form, change: Change, folder: str) -> Response:
    """Makes twins and edits of them from the same noise, and a zip file.

    Raises:
      ValueError: as generate, or the edit cannot be made.
    """
    if change.kind not in EDITS:
      raise ValueError(f"kind={change.kind!r} must be one of {EDITS}")
    names, swap = change.statements, change.kind == "swap"
    if not names or (len(names) > 1 and not swap):
      number = "the statements" if swap else "one statement"
      raise ValueError(f"choose {number} to {change.kind}, not {len(names)}")
    reference, now, target, sampling = self._read(form)
    edit = {
      change.kind: names if swap else names[0],
      "weight": change.weight,
      "threshold": change.threshold,
      "attention": change.attention,
    }
    with _notes() as notes:
      base = self.twin.extract_base(reference, now)
      settings = {**sampling, **_guidance(form)}
      out = self.twin.edit(base, target, beats=_beats(form), **edit, **settings)
    inside = pathlib.Path(folder) / "edits"
    about = {
      "reference": reference.record,
      "now": now.as_json(),
      "source": target.as_json(),
      "edit": edit,
      "twin": self.twin.digest,
      **settings,
    }
    titles = (target.describe(), f"{change.kind} {', '.join(names)}")
    picture = write_edit(inside, out, titles, about, self.file_format)
    moved = out.largest_change_mv()
    lines = [
      f"Largest change: {', '.join(f'{x:.2f}' for x in moved)} mV.",
      *notes,
    ]
    return Response("\n".join(lines), _pack(inside), picture)

  def _reference(self, files, start, given):
    if not files:
      return self.reference
    seconds = _number(start or "0", "seconds to skip")
    return read_upload_apart(files, seconds, self.max_upload_mb, given)

  def _write_script(self, form, now, target, settings):
    """Python that makes the same twins; what was typed stands in quotes."""
    reference = "et.example_ecg()"
    if form.files:
      name = next(
        pathlib.Path(file).name
        for file in form.files
        if pathlib.Path(file).suffix.lower() in MAINS or len(form.files) == 1
      )
      start = _number(form.start or "0", "seconds to skip")
      given = _read_given(form.sampling_rate, form.leads, form.unit)
      said = "".join(
        f", {key}={value!r}"
        for key, value in given._asdict().items()
        if value is not None
      )
      reference = f"et.read_ecg({name!r}, start={start:g}{said})"
    elif self.reference.record != example_ecg().record:
      reference = f"et.read_ecg({self.reference.record!r})"
    path = pathlib.Path(self.twin.path or "DIR").resolve()
    twin = f'et.ECGTwin.from_checkpoint("DIR")  # {self.twin.digest}'
    if path == pathlib.Path(shipped(path.name)):
      twin = f"et.ECGTwin.from_pretrained({path.name!r})"
    options = "".join(
      f"\n  {key}={value!r}," for key, value in settings.items()
    )
    return f"""import ecgtwin_jax as et

reference = {reference}
now = {_as_call(now)}
then = {_as_call(target)}
twin = {twin}
base = twin.extract_base(reference, now)
out = twin.generate(
  base,
  then,
  beats={_beats(form)!r},{options}
)
"""

  def _read(self, form: Form) -> tuple[ECG, Condition, Condition, dict]:
    """Reference, what it shows, what the twins shall show, the sampling."""
    given = _read_given(form.sampling_rate, form.leads, form.unit)
    reference = self._reference(form.files, form.start, given)
    for name, statements in (
      ("the reference shows", form.now_statements),
      ("the twins shall show", form.statements),
    ):
      if not statements:
        raise ValueError(f"choose at least one statement of what {name}")
    now = Condition(
      form.now_statements,
      _number(form.now_heart_rate, "heart rate of the reference"),
      _number(form.now_age, "age") if form.now_age.strip() else None,
      form.now_sex or None,
    )
    target = Condition(
      form.statements,
      _number(form.heart_rate, "heart rate of the twins"),
      _number(form.age, "age") if form.age.strip() else now.age,
      now.sex,
    )
    count = form.num_samples
    if not isinstance(count, int) or not 1 <= count <= MAX_SAMPLES:
      raise ValueError(f"twins={count} must be a number in 1..{MAX_SAMPLES}")
    for name in ("seed", "steps"):
      if not isinstance(getattr(form, name), int):
        raise ValueError(f"{name}={getattr(form, name)} must be a number")
    if form.steps > MAX_STEPS:
      raise ValueError(f"steps={form.steps} must be at most {MAX_STEPS}")
    sampling = {
      "num_samples": count,
      "seed": form.seed,
      "sampler": self.sampler,
      "steps": form.steps,
      "eta": self.eta,
      "consistent_leads": form.consistent_leads,
    }
    return reference, now, target, sampling


def _number(text, name):
  try:
    return plain_number(text)
  except ValueError:
    raise ValueError(f"{name} {text[:60]!r} must be a number") from None


def _read_given(sampling_rate: str, leads: str, unit: str) -> Given:
  """What the user says of an upload; None where nothing is said."""
  rate = _number(sampling_rate, "sampling rate") if sampling_rate else None
  names = tuple(filter(None, re.split(r"[,\s]+", leads)))
  return Given(rate, names or None, unit or None)


def _as_call(condition: Condition) -> str:
  """A condition as Python writes it."""
  return (
    f"et.Condition(\n  {list(condition.statements)!r},\n  heart_rate="
    f"{condition.heart_rate!r},\n  age={condition.age!r},\n"
    f"  sex={condition.sex!r},\n)"
  )


def _beats(form: Form) -> str | None:
  return form.beats.strip() or None


def _guidance(form: Form) -> dict[str, Any]:
  return {
    "statement_guidance": form.statement_guidance,
    "person_guidance": form.person_guidance,
  }


@contextlib.contextmanager
def _notes() -> Iterator[list[str]]:
  """Collects what is warned of meanwhile, each warning once."""
  notes = []
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    yield notes
  texts = [str(w.message) for w in caught if w.category is UserWarning]
  notes += [f"Note: {text}." for text in dict.fromkeys(texts)]


def _pack(folder: pathlib.Path) -> str:
  """Path of a zip file of a folder, beside it."""
  return shutil.make_archive(str(folder), "zip", folder)
