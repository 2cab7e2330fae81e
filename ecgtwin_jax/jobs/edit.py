"""The edit job: ECGs, and the same ECGs with one statement changed."""

import dataclasses
import json
import os
import pathlib

from ml_collections import ConfigDict

from ecgtwin_jax.beats.notation import write_beats
from ecgtwin_jax.inference.results import Edited
from ecgtwin_jax.inference.twin import load_twin
from ecgtwin_jax.jobs.inputs import (
  read_reference,
  read_target,
  split_statements,
)
from ecgtwin_jax.jobs.outputs import (
  find_earlier,
  replace_earlier,
  suffix_of,
  versions,
  write_ecgs,
)

# What is added where no edit is given.
SHOWN = "Right bundle branch block"
# What a run writes.
FILES = ("source_*.*", "edited_*.*", "edited.png", "edited.json")


def run(config: ConfigDict) -> str:
  """Does configs/edit.py; returns the path of the picture.

  Raises:
    ValueError: a value of the configuration is out of range, or the twin has no
      attention over statements.
  """
  suffix_of(config.format)
  earlier = find_earlier(config.workdir, "edited.json", FILES)
  reference, now = read_reference(config)
  target = read_target(config.target, now)
  twin = load_twin(config.twin, config.encoder)
  add = config.add
  if add is None and config.swap is None and config.reweight is None:
    add = SHOWN
    print(f"no edit is given (--add, --swap or --reweight): adds {add!r}")
  change = {
    "add": add,
    "swap": config.swap and split_statements(config.swap),
    "reweight": config.reweight,
    "weight": config.weight,
    "threshold": config.threshold,
    "attention": config.attention,
  }
  sampling = dataclasses.asdict(twin.settings(**config.sampling))
  out = twin.edit(
    twin.extract_base(reference, now),
    target,
    num_samples=config.num_samples,
    seed=config.seed,
    beats=config.beats,
    **change,
    **sampling,
  )
  title = next(
    f"{name} {value}" for name, value in change.items() if value is not None
  )
  title += f", weight {config.weight:g}, threshold {config.threshold:g}"
  title += f", attention {config.attention}"
  about = {
    "reference": reference.record,
    "now": now.as_json(),
    "source": target.as_json(),
    "edit": change,
    "twin": twin.digest,
    "seed": config.seed,
    "num_samples": config.num_samples,
    **sampling,
  }
  replace_earlier(earlier)
  titles = (target.describe(), title)
  picture = write_edit(config.workdir, out, titles, about, config.format)
  print(f"{config.num_samples} edits in {config.workdir}; picture: {picture}")
  return picture


def write_edit(
  folder: str | os.PathLike,
  out: Edited,
  titles: tuple[str, str],
  about: dict,
  file_format: str,
) -> str:
  """Writes both sides' ECGs, edited.png and edited.json into a folder.

  Args:
    folder: where to write; made where it is not there.
    out: what was edited.
    titles: what stands above each side of the picture.
    about: origin of the ECGs, for edited.json.
    file_format: "wfdb", "npz" or "csv".

  Returns:
    The path of the picture.
  """
  folder = pathlib.Path(folder)
  write_ecgs(folder, [*out.source.ecgs, *out.edited.ecgs], file_format)
  picture = str(folder / "edited.png")
  out.plot(picture, titles=titles)
  moved = [round(float(x), 4) for x in out.largest_change_mv()]
  sides = {"source": out.source.beats, "edited": out.edited.beats}
  beats = {
    f"{side}_beats": rhythms and [write_beats(rhythm) for rhythm in rhythms]
    for side, rhythms in sides.items()
  }
  record = {
    "synthetic": True,
    **about,
    "largest_change_mv": moved,
    **beats,
    "versions": versions(),
  }
  (folder / "edited.json").write_text(json.dumps(record, indent=1))
  return picture
