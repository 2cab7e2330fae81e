"""The generate job: a recording and a target condition in, ECG files out."""

import json
import pathlib
import re

import jax
import numpy as np

from ecgtwin_jax import __version__
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import ECG, example_ecg, read_ecg
from ecgtwin_jax.data.heart_rate import detect_heart_rate
from ecgtwin_jax.plotting import plot_ecg, plot_overview
from ecgtwin_jax.twin import ECGTwin, Generated

# What the bundled recording shows, by its header and its annotation.
_EXAMPLE = Condition(
  ("Sinus rhythm", "Inferior infarct, possibly acute"), 82, 81, "F"
)


def read_reference(config) -> tuple[ECG, Condition]:
  """Reads config.record and what it shows, config.now.

  Without a record it is the bundled example. Age and sex that config.now leaves
  open are taken from the record's header comments where they stand there
  ("age: 81", "sex: F"), the heart rate is detected.

  Raises:
    ValueError: the statements are missing, or no heart rate is given or found.
  """
  now = config.now
  if config.record is None:
    return example_ecg(), _EXAMPLE
  reference = read_ecg(config.record, start=config.start)
  if not now.statements:
    raise ValueError(
      f"config.record={config.record!r} needs config.now.statements, what it "
      "shows, such as 'Sinus rhythm|Right bundle branch block'"
    )
  rate = now.heart_rate
  if rate is None:
    rate = detect_heart_rate(reference.signal, reference.sampling_rate)
    if not np.isfinite(rate):
      raise ValueError(
        f"no heart beat was found in config.record={config.record!r}: give "
        "config.now.heart_rate"
      )
  comments = "\n".join(reference.comments)
  age, sex = now.age, now.sex
  if age is None:
    found = re.search(r"age\W+(\d+)", comments, re.IGNORECASE)
    age = float(found[1]) if found else None
  if sex is None:
    found = re.search(r"sex\W+([FM])", comments, re.IGNORECASE)
    sex = found[1].upper() if found else None
  return reference, Condition(_split(now.statements), rate, age, sex)


def read_target(target, now: Condition) -> Condition:
  """Reads config.target; age and sex stay the patient's unless given.

  Raises:
    ValueError: statements or heart rate are missing or out of range.
  """
  for key in ("statements", "heart_rate"):
    if not target[key]:
      raise ValueError(f"config.target.{key}={target[key]!r} must be given")
  age = now.age if target.age is None else target.age
  sex = now.sex if target.sex is None else target.sex
  return Condition(_split(target.statements), target.heart_rate, age, sex)


def _split(statements: str) -> list[str]:
  return [s.strip() for s in statements.split("|") if s.strip()]


def describe(condition: Condition) -> str:
  """One line for titles: statements, rate, age, sex."""
  age = "?" if condition.age is None else f"{condition.age:g}"
  return (
    f"{', '.join(condition.statements)}; {condition.heart_rate:g} bpm, "
    f"{age} years, {condition.sex or '?'}"
  )


def write_results(
  folder,
  reference: ECG,
  now: Condition,
  target: Condition,
  out: Generated,
  request: dict,
) -> str:
  """Writes WFDB records, a picture of each, an overview and a JSON record.

  Returns:
    Path of the overview picture, the reference above its twins.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  for ecg in out.ecgs:
    ecg.write(folder / f"{ecg.record}.hea")
    plot_ecg(ecg, folder / f"{ecg.record}.png", title=describe(target))
  overview = str(folder / "overview.png")
  plot_overview(
    reference,
    out.ecgs,
    overview,
    titles=[
      f"reference {reference.record}: {describe(now)}",
      *(f"{ecg.record}: {describe(target)}" for ecg in out.ecgs),
    ],
  )
  rates = [detect_heart_rate(e.signal, e.sampling_rate) for e in out.ecgs]
  record = {
    "reference": reference.record,
    "now": _as_json(now),
    "target": _as_json(target),
    **request,
    "detected_heart_rate": [
      round(r, 1) if np.isfinite(r) else None for r in rates
    ],
    "lead_residual_mv": round(out.lead_residual, 4),
    "versions": {"ecgtwin_jax": __version__, "jax": jax.__version__},
  }
  (folder / "generated.json").write_text(json.dumps(record, indent=1))
  return overview


def _as_json(condition: Condition) -> dict:
  return {
    "statements": list(condition.statements),
    "heart_rate": condition.heart_rate,
    "age": condition.age,
    "sex": condition.sex,
  }


def generate(twin: ECGTwin, config, target, folder, reference, now) -> str:
  """Generates for one target condition and writes the results."""
  sampling = config.sampling.to_dict()
  base = twin.extract_base(reference, now)
  out = twin.generate(
    base,
    target,
    num_samples=config.num_samples,
    seed=config.seed,
    **sampling,
  )
  request = {
    "twin": twin.digest,
    "seed": config.seed,
    "num_samples": config.num_samples,
    **sampling,
  }
  return write_results(folder, reference, now, target, out, request)


def run(config) -> str:
  """Does configs/generate.py; returns the path of the overview picture."""
  reference, now = read_reference(config)
  target = read_target(config.target, now)
  twin = ECGTwin.from_checkpoint(config.twin)
  overview = generate(twin, config, target, config.workdir, reference, now)
  print(f"{config.num_samples} ECGs in {config.workdir}; picture: {overview}")
  return overview
