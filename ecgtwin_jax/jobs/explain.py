"""The explain job: which statement each part of an ECG attends to."""

import dataclasses
import json
import pathlib

import numpy as np
from ml_collections import ConfigDict

from ecgtwin_jax.constants import SECONDS
from ecgtwin_jax.inference.twin import load_twin
from ecgtwin_jax.jobs.inputs import read_reference, read_target
from ecgtwin_jax.jobs.outputs import (
  find_earlier,
  replace_earlier,
  suffix_of,
  versions,
  write_ecgs,
)

# What a run writes.
FILES = ("twin_*.*", "attention_*.png", "attention.npz", "explained.json")


def run(config: ConfigDict) -> list[str]:
  """Does configs/explain.py; returns the paths of the pictures.

  Raises:
    ValueError: a value of the configuration is out of range, or the twin has no
      attention over statements.
  """
  suffix_of(config.format)
  earlier = find_earlier(config.workdir, "explained.json", FILES)
  reference, now = read_reference(config)
  target = now if config.of_record else read_target(config.target, now)
  twin = load_twin(config.twin, config.encoder)
  sampling = dataclasses.asdict(twin.settings(**config.sampling))
  out = twin.explain(
    twin.extract_base(reference, now),
    target,
    num_samples=config.num_samples,
    seed=config.seed,
    beats=config.beats,
    ecg=reference if config.of_record else None,
    between=config.between,
    **sampling,
  )
  blocks = config.blocks or None
  shares = out.over_time(blocks)
  replace_earlier(earlier)
  folder = pathlib.Path(config.workdir)
  folder.mkdir(parents=True, exist_ok=True)
  pictures = []
  for i, ecg in enumerate(out.ecgs):
    name = f"attention_{i}.png"
    title = f"{ecg.record}: {target.describe()}"
    out.plot(folder / name, i, blocks, title=title)
    pictures.append(str(folder / name))
  if not config.of_record:
    write_ecgs(folder, out.ecgs, config.format)
  count = out.attention.shape[2]
  np.savez_compressed(
    folder / "attention.npz",
    attention=out.attention,
    seconds=(np.arange(count) + 0.5) * SECONDS / count,
    statements=np.array(out.statements, np.str_),
  )
  record = {
    "synthetic": not config.of_record,
    "reference": reference.record,
    "now": now.as_json(),
    "explained": "the reference" if config.of_record else target.as_json(),
    "twin": twin.digest,
    "seed": config.seed,
    "between": list(config.between),
    "blocks": list(config.blocks) or "all",
    **sampling,
    "mean_share": {
      statement: [round(float(x), 4) for x in shares[..., i].mean(axis=1)]
      for i, statement in enumerate(out.statements)
    },
    "versions": versions(),
  }
  (folder / "explained.json").write_text(json.dumps(record, indent=1))
  print(f"{len(pictures)} explained in {folder}; picture: {pictures[0]}")
  return pictures
