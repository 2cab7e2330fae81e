"""The generate job: a recording and a target condition in, ECG files out."""

import json
import pathlib

import numpy as np

from ecgtwin_jax.beats.asked import write_beats
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import ECG
from ecgtwin_jax.data.heart_rate import detect_heart_rate
from ecgtwin_jax.inference.results import Generated
from ecgtwin_jax.inference.twin import ECGTwin, load_twin
from ecgtwin_jax.jobs.inputs import read_reference, read_target
from ecgtwin_jax.jobs.outputs import suffix_of, versions, write_ecgs
from ecgtwin_jax.plotting import plot_ecg, plot_overview

# Exit code of a request file of which some rows could not be done.
SOME_FAILED = 3


def write_results(
  folder,
  reference: ECG,
  now: Condition,
  target: Condition,
  out: Generated,
  request: dict,
  file_format: str,
) -> str:
  """Writes the ECGs, a picture of each, an overview and a JSON record.

  Returns:
    Path of the overview picture, the reference above its twins.
  """
  folder = pathlib.Path(folder)
  write_ecgs(folder, out.ecgs, file_format)
  for ecg in out.ecgs:
    plot_ecg(ecg, folder / f"{ecg.record}.png", title=target.describe())
  overview = str(folder / "overview.png")
  plot_overview(
    reference,
    out.ecgs,
    overview,
    titles=[
      f"reference {reference.record}: {now.describe()}",
      *(f"{ecg.record}: {target.describe()}" for ecg in out.ecgs),
    ],
  )
  rates = [detect_heart_rate(ecg) for ecg in out.ecgs]
  record = {
    "reference": reference.record,
    "now": now.as_json(),
    "target": target.as_json(),
    **request,
    "detected_heart_rate": [
      round(r, 1) if np.isfinite(r) else None for r in rates
    ],
    "lead_residual_mv": round(out.lead_residual, 4),
    "beats": out.beats and [write_beats(rhythm) for rhythm in out.beats],
    "versions": versions(),
  }
  (folder / "generated.json").write_text(json.dumps(record, indent=1))
  return overview


def generate(twin: ECGTwin, config, target, folder, reference, now) -> str:
  """Generates for one target condition and writes the results."""
  sampling = config.sampling.to_dict()
  base = twin.extract_base(reference, now)
  out = twin.generate(
    base,
    target,
    num_samples=config.num_samples,
    seed=config.seed,
    beats=config.beats,
    **sampling,
  )
  request = {
    "twin": twin.digest,
    "seed": config.seed,
    "num_samples": config.num_samples,
    **sampling,
  }
  return write_results(
    folder, reference, now, target, out, request, config.format
  )


def run(config) -> None:
  """Does configs/generate.py, for one recording or for a file of requests.

  Raises:
    SystemExit: with SOME_FAILED, where rows of the file could not be done.
  """
  suffix_of(config.format)
  if config.requests is not None:
    from ecgtwin_jax.jobs import requests

    if requests.run(config).failures:
      raise SystemExit(SOME_FAILED)
    return
  reference, now = read_reference(config)
  target = read_target(config.target, now)
  twin = load_twin(config.twin, config.encoder)
  overview = generate(twin, config, target, config.workdir, reference, now)
  print(f"{config.num_samples} ECGs in {config.workdir}; picture: {overview}")
