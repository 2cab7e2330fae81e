"""The edit job: ECGs, and the same ECGs with one statement changed."""

import json
import pathlib

import numpy as np

from ecgtwin_jax.records import (
  as_json,
  describe,
  read_reference,
  read_target,
  split_statements,
  suffix_of,
  versions,
  write_ecgs,
)
from ecgtwin_jax.twin import load_twin


def run(config) -> str:
  """Does configs/edit.py; returns the path of the picture.

  Raises:
    ValueError: a value of the configuration is out of range, or the twin has no
      attention over statements.
  """
  suffix_of(config.format)
  reference, now = read_reference(config)
  target = read_target(config.target, now)
  twin = load_twin(config.twin, config.encoder)
  change = {
    "add": config.add,
    "swap": config.swap and split_statements(config.swap),
    "reweight": config.reweight,
    "weight": config.weight,
    "threshold": config.threshold,
  }
  out = twin.edit(
    twin.extract_base(reference, now),
    target,
    num_samples=config.num_samples,
    seed=config.seed,
    **change,
    **config.sampling.to_dict(),
  )
  folder = pathlib.Path(config.workdir)
  write_ecgs(folder, [*out.source.ecgs, *out.edited.ecgs], config.format)
  picture = str(folder / "edited.png")
  made = next(
    f"{name} {value}" for name, value in change.items() if value is not None
  )
  made += f", weight {config.weight:g}, threshold {config.threshold:g}"
  out.plot(picture, titles=(describe(target), made))
  moved = np.abs(out.edited.signals - out.source.signals)
  record = {
    "reference": reference.record,
    "now": as_json(now),
    "source": as_json(target),
    "edit": change,
    "twin": twin.digest,
    "seed": config.seed,
    "num_samples": config.num_samples,
    **config.sampling.to_dict(),
    "largest_change_mv": [round(float(x.max()), 4) for x in moved],
    "versions": versions(),
  }
  (folder / "edited.json").write_text(json.dumps(record, indent=1))
  print(f"{config.num_samples} edits in {folder}; picture: {picture}")
  return picture
