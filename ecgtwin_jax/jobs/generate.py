"""The generate job: a recording and a target condition in, ECG files out."""

import dataclasses
import json
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from ecgtwin_jax.beats.notation import write_beats
from ecgtwin_jax.beats.self_check import SelfCheck
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import ECG
from ecgtwin_jax.inference.results import Generated
from ecgtwin_jax.inference.twin import ECGTwin, load_twin
from ecgtwin_jax.jobs.inputs import read_reference, read_target
from ecgtwin_jax.jobs.outputs import (
  find_earlier,
  replace_earlier,
  suffix_of,
  versions,
  write_ecgs,
)
from ecgtwin_jax.plotting import (
  SPEED,
  check_layout,
  plot_ecg,
  plot_overview,
)

# Exit code of a request file of which some rows could not be done.
SOME_FAILED = 3
# What a run writes.
FILES = ("twin_*.*", "overview.png", "beats.png", "generated.json")


class Written(NamedTuple):
  """What `write_results` leaves beside the ECGs.

  Attributes:
    overview: path of the picture of the reference above its twins.
    beats: path of the picture of their median beats; None: there is none.
    check: of the ECGs against what was asked.
  """

  overview: str
  beats: str | None
  check: SelfCheck


def write_results(
  folder: str | os.PathLike,
  reference: ECG,
  now: Condition,
  target: Condition,
  out: Generated,
  request: dict,
  file_format: str,
  layout: str = "3x4",
  speed: float | int = SPEED,
) -> Written:
  """Writes the ECGs, their pictures, an overview, beats and a JSON record.

  Args:
    folder: made where it is not there.
    reference: the recording that the ECGs are twins of.
    now: what it shows.
    target: what the ECGs shall show.
    out: the ECGs.
    request: what else they depend on, for the record.
    file_format: "wfdb", "npz" or "csv".
    layout: of each ECG's picture, as plot_ecg has it.
    speed: of the paper, likewise.
  """
  folder = pathlib.Path(folder)
  write_ecgs(folder, out.ecgs, file_format)
  for ecg in out.ecgs:
    path = folder / f"{ecg.record}.png"
    plot_ecg(ecg, path, layout, target.describe(), speed)
  overview = str(folder / "overview.png")
  plot_overview(
    reference,
    out.ecgs,
    overview,
    titles=[
      f"reference {reference.record}: {now.describe()}",
      *(f"{ecg.record}: {target.describe()}" for ecg in out.ecgs),
    ],
    speed=speed,
  )
  beats = folder / "beats.png"
  try:
    out.plot_median_beats(reference, beats)
  except ValueError as error:
    warnings.warn(f"no picture of median beats: {error}", stacklevel=2)
    beats = None
  check = out.check()
  record = {
    "synthetic": True,
    "reference": reference.record,
    "now": now.as_json(),
    "target": target.as_json(),
    **request,
    "self_check": check.as_json(),
    "lead_residual_mv": round(out.lead_residual, 4),
    "beats": out.beats and [write_beats(rhythm) for rhythm in out.beats],
    "versions": versions(),
  }
  (folder / "generated.json").write_text(json.dumps(record, indent=1))
  return Written(overview, beats and str(beats), check)


def generate(
  twin: ECGTwin,
  config: ConfigDict,
  target: Condition,
  folder: str | os.PathLike,
  reference: ECG,
  now: Condition,
  earlier: Sequence[pathlib.Path] = (),
) -> Written:
  """Generates for one target condition and writes the results.

  In place of the files `earlier`, if any.
  """
  sampling = dataclasses.asdict(twin.settings(**config.sampling))
  base = twin.extract_base(reference, now)
  out = twin.generate(
    base,
    target,
    num_samples=config.num_samples,
    seed=config.seed,
    beats=config.beats,
    **sampling,
  )
  replace_earlier(earlier)
  request = {
    "twin": twin.digest,
    "seed": config.seed,
    "num_samples": config.num_samples,
    **sampling,
  }
  return write_results(
    folder,
    reference,
    now,
    target,
    out,
    request,
    config.format,
    **config.picture,
  )


def run(config: ConfigDict) -> None:
  """Does configs/generate.py, for one recording or for a file of requests.

  Raises:
    SystemExit: with SOME_FAILED, where rows of the file could not be done.
    ValueError: a value is out of range, or the workdir holds something else.
  """
  suffix_of(config.format)
  check_layout(**config.picture)
  if config.requests is not None:
    from ecgtwin_jax.jobs import requests

    if requests.run(config).failures:
      raise SystemExit(SOME_FAILED)
    return
  earlier = find_earlier(config.workdir, "generated.json", FILES)
  reference, now = read_reference(config)
  target = read_target(config.target, now)
  twin = load_twin(config.twin, config.encoder)
  written = generate(
    twin, config, target, config.workdir, reference, now, earlier
  )
  print(
    f"{config.num_samples} ECGs in {config.workdir}; picture: "
    f"{written.overview}\n{written.check}"
  )
