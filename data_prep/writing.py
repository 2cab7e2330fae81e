"""Writes data sets: in parallel, restartable, with every recording accounted.

A data set is made of shards, and a shard is a function that yields its
examples. Which recordings a shard holds, and in which order, depends on the
data alone, never on who runs it; so any number of workers gives the same data
set. Work goes on in a folder beside the output, named *.partial. Finished
shards stay there when a run is interrupted, and the folder gets its final name
in one step at the end.
"""

import collections
import hashlib
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence

import tensorflow_datasets as tfds

from data_prep.jobs import Shards, make_jobs, run, write_json
from data_prep.records import features
from ecgtwin_jax.constants import MODEL_RATE, MODEL_SAMPLES
from ecgtwin_jax.data.bucket import refuse_remote
from ecgtwin_jax.data.dataset import FORMAT
from ecgtwin_jax.data.leads import LEADS
from ecgtwin_jax.data.whole_files import hold
from ecgtwin_jax.text.statements import StatementTable

_PER_SHARD = 1024  # recordings
_LEAST = 64  # recordings worth a shard of their own
_HASH = 64  # hexadecimal digits of a sha256
_FEW = 16  # shards, as long as they need not be more


def cut(keys: Sequence, recordings_per_key: float = 1) -> list[Sequence]:
  """Cuts the keys of a split into those of its shards, at least one.

  Small sets are cut as well, so that several workers have something to do.
  """
  recordings = round(len(keys) * recordings_per_key)
  few = min(_FEW, recordings // _LEAST)
  count = max(1, few, -(-recordings // _PER_SHARD))
  ends = [len(keys) * i // count for i in range(count + 1)]
  return [keys[start:end] for start, end in itertools.pairwise(ends)]


def fingerprint(content: dict) -> str:
  """Returns the sha256 of anything that JSON can hold."""
  text = json.dumps(content, sort_keys=True, ensure_ascii=False)
  return hashlib.sha256(text.encode()).hexdigest()


def write(
  output: str | os.PathLike,
  *,
  name: str,
  kind: str,
  options: dict,
  shards: Shards,
  make_table: Callable[[], StatementTable],
  total: int,
  workers: int = 1,
  beam_options: str | None = None,
  card: dict | None = None,
  measure: Callable[[pathlib.Path], dict] | None = None,
  latent_channels: int = 4,
) -> pathlib.Path:
  """Writes a data set, or finds it finished and does nothing.

  Args:
    output: directory of the data set.
    name: name of the data set, in the names of its files.
    kind: "ecg" or "latent".
    options: all that the content depends on; kept in card.json, compared with
      a data set that is there already.
    shards: shards of each split. With several workers they must be picklable.
    make_table: makes the table of the statements that the examples count;
      called once, when the shards are written.
    total: number of recordings that the shards read.
    workers: processes.
    beam_options: options of an Apache Beam pipeline that takes the workers'
      place; see `data_prep.beam.run`.
    card: more entries of card.json.
    measure: maps the written directory to more entries of card.json.
    latent_channels: number of channels of latents.

  Returns:
    The directory of the data set.

  Raises:
    ValueError: something else stands at the output, or in its *.partial.
    RuntimeError: recordings read are not those written and rejected, or a
      patient is in two splits.
  """
  refuse_remote(output, "output")
  output = pathlib.Path(os.path.abspath(output))
  card = {
    "format": FORMAT,
    "name": name,
    "kind": kind,
    "options": options,
    "fingerprint": fingerprint([FORMAT, name, kind, options]),
    "unit": "mV",
    "leads": list(LEADS),
    "sampling_rate": MODEL_RATE,
    "samples": MODEL_SAMPLES,
    **(card or {}),
  }
  if _is_finished(output, card):
    return output
  partial = output.with_name(output.name + ".partial")
  with hold(partial):
    return _write(
      output,
      partial,
      card,
      name=name,
      kind=kind,
      shards=shards,
      make_table=make_table,
      total=total,
      workers=workers,
      beam_options=beam_options,
      measure=measure,
      latent_channels=latent_channels,
    )


def _write(
  output,
  partial,
  card,
  *,
  name,
  kind,
  shards,
  make_table,
  total,
  workers,
  beam_options,
  measure,
  latent_channels,
) -> pathlib.Path:
  data, done = partial / "data", partial / "done"
  _open_partial(partial, card)
  jobs = make_jobs(shards, name, kind, data, done, latent_channels)
  for path in data.iterdir():
    if path not in {job.path for job in jobs}:
      path.unlink()  # half a shard, or metadata of a run that was cut short
  run(
    jobs,
    workers=workers,
    beam_options=beam_options,
    total=total,
    name=output.name,
  )
  summaries = [json.loads(job.summary.read_text()) for job in jobs]
  card.update(_account(jobs, summaries, total))
  _write_metadata(data, name, (kind, latent_channels), jobs, summaries)
  with (data / "quality.jsonl").open("w", encoding="utf-8") as file:
    for summary in summaries:
      for line in summary["rejected"]:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
  make_table().save(data)
  write_json(data / "card.json", card)
  if measure is not None:
    card.update(measure(data))
    write_json(data / "card.json", card)
  os.replace(data, output)
  shutil.rmtree(partial)
  rules = ", ".join(f"{n} {rule}" for rule, n in card["rejected"].items())
  print(
    f"{output}: {card['read']} read = {card['written']} written"
    f" + {card['read'] - card['written']} rejected"
    + f" ({rules})"
    * bool(rules)
  )
  return output


def _is_finished(output: pathlib.Path, card: dict) -> bool:
  if not output.exists() or (output.is_dir() and not any(output.iterdir())):
    return False
  if not (output / "card.json").exists():
    raise ValueError(
      f"{output} exists and is no data set: choose another output"
    )
  there = json.loads((output / "card.json").read_text(encoding="utf-8"))
  if there.get("fingerprint") != card["fingerprint"]:
    raise ValueError(
      f"{output} holds another data set: {describe_card(there)}; wanted is"
      f" {describe_card(card)}. Choose another output, or remove that one"
    )
  print(f"{output}: {there['written']} recordings are there: nothing to do")
  return True


def _open_partial(partial: pathlib.Path, card: dict) -> None:
  """Makes the working folder, or goes on with that of an interrupted run."""
  plan = partial / "plan.json"
  if plan.exists():
    there = json.loads(plan.read_text(encoding="utf-8"))
    if there["fingerprint"] != card["fingerprint"]:
      raise ValueError(
        f"{partial} holds the unfinished {describe_card(there)}; wanted is"
        f" {describe_card(card)}. Remove it, or choose another output"
      )
  (partial / "data").mkdir(parents=True, exist_ok=True)
  (partial / "done").mkdir(exist_ok=True)
  write_json(plan, card)


def describe_card(card: dict) -> str:
  """Returns the name of a data set and what its content depends on."""
  options = ", ".join(
    f"{key}={value[:12] if len(str(value)) == _HASH else value}"
    for key, value in card.get("options", {}).items()
  )
  return f"{card.get('name')} ({options})"


def _account(jobs, summaries, total: int) -> dict:
  """Counts what was read, written and rejected, and checks that it adds up."""
  rules = collections.Counter(
    line["rule"] for summary in summaries for line in summary["rejected"]
  )
  written = sum(summary["written"] for summary in summaries)
  tally = sum(
    (collections.Counter(x["tally"]) for x in summaries),
    start=collections.Counter(),
  )
  if total != written + rules.total():
    raise RuntimeError(
      f"{total} recordings were to be read, but {written} were written and"
      f" {rules.total()} rejected"
    )
  splits, owner = {}, {}
  for job, summary in zip(jobs, summaries):
    split = splits.setdefault(job.split, {"records": 0, "patients": 0})
    split["records"] += summary["written"]
    for patient in summary["patients"]:
      if owner.setdefault(patient, job.split) != job.split:
        raise RuntimeError(
          f"{patient=} is in the splits {owner[patient]} and {job.split}"
        )
  for split in owner.values():
    splits[split]["patients"] += 1
  return {
    "read": total,
    "written": written,
    "rejected": dict(rules.most_common()),
    "splits": splits,
    "tally": {name: tally[name] for name in sorted(tally)},
  }


def _write_metadata(data, name, form, jobs, summaries) -> None:
  """Writes what tensorflow-datasets needs to read the directory."""
  template = tfds.core.ShardedFileTemplate(
    data_dir=data, dataset_name=name, filetype_suffix="array_record"
  )
  lengths, sizes = collections.defaultdict(list), collections.Counter()
  for job, summary in zip(jobs, summaries):
    lengths[job.split].append(summary["written"])
    sizes[job.split] += summary["bytes"]
  tfds.folder_dataset.write_metadata(
    data_dir=data,
    features=features(*form),
    split_infos=[
      tfds.core.SplitInfo(
        name=split,
        shard_lengths=lengths[split],
        num_bytes=sizes[split],
        filename_template=template.replace(split=split),
      )
      for split in lengths
    ],
    check_data=False,
  )
