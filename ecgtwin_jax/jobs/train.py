"""The train job: one stage, after whatever it needs from earlier stages.

On the simulated cohort, the default data, what is missing is made first:
cohort, autoencoder, latents, base extractor, rhythm model. On other data, and
where several processes train, an error names the command that makes it.
"""

import functools
import os
import pathlib
from typing import Any

import jax
from ml_collections import ConfigDict

from ecgtwin_jax.data.bucket import refuse_remote
from ecgtwin_jax.data.mixture import (
  describe_parts,
  folders,
  load_mixture,
)
from ecgtwin_jax.flags import beside, load_config
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.text.statements import StatementTable
from ecgtwin_jax.training import checkpoint, train
from ecgtwin_jax.training.metric_writer import say

SIMULATED_NOTE = (
  "Trained on simulated patients: a test bench with a known truth, no claim "
  "about hearts. A small training, to see every stage run."
)

# Earlier stages: the key of a configuration that says where each lies, which is
# the name of its part, too.
_KEYS = {"vae": "vae", "stage1": "base_extractor", "rhythm": "rhythm"}


def _command(source: str, name: str, variant: str) -> str:
  other = beside(source, name, variant)
  program = "python -m ecgtwin_jax.main" if ".py" in other else "ecgtwin"
  return f"{program} --config={other}"


def _earlier(config, source: str, name: str):
  """Configuration of an earlier stage, of the same size and data."""
  earlier = load_config(beside(source, name, config.variant))
  for key in ("data", "seed", "cohort", "vae", "latents"):
    if key in config and key in earlier:
      earlier[key] = config[key]
  earlier.workdir = config[_KEYS[name]]
  return earlier


def _finished(workdir: str, steps: int) -> bool:
  """True where a run in `workdir` got to its last step."""
  try:
    where = checkpoint.find_checkpoint(workdir)
  except FileNotFoundError:
    return False
  newest = max(int(p.name) for p in where.parent.iterdir() if p.name.isdigit())
  return newest >= steps


def prepare(config: ConfigDict, source: str) -> None:
  """Makes what a training lacks: data, earlier stages, latents.

  Raises:
    FileNotFoundError: something is missing, and config.data is not the
      simulated cohort or several processes wait for it; the message holds the
      command that makes it.
    ValueError: config.latents names more or fewer data sets than config.data.
  """
  simulated = config.data == config.cohort.path
  several = jax.process_count() > 1

  def needed(path, exists, what, command, make):
    if exists:
      return
    if several or not simulated:
      how = "with one process first" if several else "with"
      raise FileNotFoundError(
        f"{what} is missing in {path!r}; make it {how}: {command}"
      )
    say(f"\n== {what} is missing in {path}: making it ({command})")
    make()

  def earlier(name):
    # A finished or foreign set of weights is taken as it is; an unfinished
    # own run is continued.
    path = config[_KEYS[name]]
    if twin_directory.is_twin(path):
      return True
    if simulated:
      return _finished(path, _earlier(config, source, name).steps)
    return checkpoint.has_weights(path, _KEYS[name])

  def need_earlier(name, what):
    path = config[_KEYS[name]]
    needed(
      path,
      earlier(name),
      what,
      _command(source, name, config.variant)
      + f" --config.data={config.data} --workdir={path}",
      lambda: train_stage(_earlier(config, source, name), source),
    )

  cohort = config.cohort
  stages = {"vae": 0, "base_extractor": 1, "rhythm": 1, "denoiser": 2}
  depth = stages.get(config.stage, 0)
  encoded = folders(config.latents) if depth else ()
  if depth == 0 or simulated or not all(map(_is_data_set, encoded)):
    for data in folders(config.data):
      needed(
        data,
        _is_data_set(data),
        "the data set",
        f"python -m data_prep simulated --output {data} --patients "
        f"{cohort.patients} --recordings {cohort.recordings} --seed "
        f"{cohort.seed}",
        lambda: _simulate(cohort),
      )
  if depth >= 1:
    need_earlier("vae", "the autoencoder")
  for latents, data in _sources(config, encoded):
    needed(
      latents,
      _is_data_set(latents),
      "the data set of latents",
      f"python -m data_prep encode --data {data} --vae {config.vae} "
      f"--output {latents}",
      functools.partial(_encode, data, config.vae, latents),
    )
  if depth >= 2:
    need_earlier("stage1", "the base extractor")
  if depth >= 2 and _reads_beats(config):
    need_earlier("rhythm", "the rhythm model")


def _sources(config, encoded: tuple[str, ...]) -> list[tuple[str, str]]:
  """Each data set of latents that is missing, and the ECGs it is made of."""
  missing = [path for path in encoded if not _is_data_set(path)]
  if not missing:
    return []
  data = folders(config.data)
  if len(data) != len(encoded):
    raise ValueError(
      f"config.latents={config.latents!r} lacks {missing[0]!r} and must name as"
      f" many data sets as config.data={config.data!r}, in the same order"
    )
  return list(zip(encoded, data))


def _reads_beats(config) -> bool:
  return config.model.beat_track != "none"


def _is_data_set(path: str) -> bool:
  refuse_remote(path, "the data set")
  return (pathlib.Path(path) / "card.json").exists()


def _simulate(cohort) -> None:
  from data_prep.simulated import prepare as prepare_simulated

  prepare_simulated(
    cohort.path,
    patients=cohort.patients,
    recordings=cohort.recordings,
    seed=cohort.seed,
    workers=os.cpu_count(),
  )


def _encode(data: str, vae: str, output: str) -> None:
  from data_prep.encode import encode_with

  encode_with(data, vae, output, workers=os.cpu_count())


def train_stage(config: ConfigDict, source: str) -> None:
  """Prepares what is missing, trains, and bundles a twin after stage 2."""
  prepare(config, source)
  say(f"\n== training {config.stage} in {config.workdir}")
  train.train(config, config.workdir)
  if config.stage == "denoiser" and jax.process_index() == 0:
    output = os.path.join(config.workdir, "twin")
    simulated = config.data == config.cohort.path
    note = SIMULATED_NOTE if simulated else describe_data(config.latents)
    assemble(
      output,
      vae=config.vae,
      base_extractor=config.base_extractor,
      denoiser=config.workdir,
      rhythm=config.rhythm if _reads_beats(config) else None,
      table=load_mixture(config.latents, "train").table,
      note=note,
    )
    say(f"twin: {output}")


def describe_data(given: str) -> str:
  """What a model card says of the data sets that it was trained on.

  Args:
    given: as `data.mixture.parse_parts` has it.
  """
  lines = [
    "Trained on:",
    "",
    "| data set | folder | share of the batches | licence |",
    "|---|---|---|---|",
  ]
  for part in describe_parts(given):
    share = "as it is large" if part["share"] is None else f"{part['share']:g}"
    lines.append(
      f"| {part['name']} | {part['directory']} | {share} | {part['licence']} |"
    )
  return "\n".join(lines)


def assemble(
  output: str | os.PathLike,
  *,
  vae: str,
  base_extractor: str,
  denoiser: str,
  table: StatementTable,
  note: str,
  rhythm: str | None = None,
) -> None:
  """Bundles trained stages into a twin directory.

  Args:
    output: the folder to make.
    vae: run, checkpoint or twin that holds the autoencoder.
    base_extractor: run, checkpoint or twin that holds the base extractor.
    denoiser: run, checkpoint or twin that holds the denoiser.
    table: statements of the training data.
    note: what the model card says of data and intended use.
    rhythm: run, checkpoint or twin that holds the rhythm model, which a
      denoiser with a beat track needs; None: there is none.
  """
  sources = dict(vae=vae, base_extractor=base_extractor, denoiser=denoiser)
  if rhythm is not None:
    sources["rhythm"] = rhythm
  weights = {
    part: checkpoint.load_weights(path, part) for part, path in sources.items()
  }
  twin_directory.write_twin(
    output, weights, sources=sources, card=_card(weights, note), table=table
  )


def _card(weights: dict[str, Any], note: str) -> str:
  lines = ["# ECG twin", "", note, "", "| part | parameters |", "|---|---|"]
  for part, (_, variables) in weights.items():
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    lines.append(f"| {part} | {count:,} |")
  lines += [
    "",
    "Hyper-parameters, file hashes and sources are in twin.json.",
    "",
    "Not a medical device: generated ECGs are synthetic and must not be used "
    "for diagnosis or treatment.",
    "",
  ]
  return "\n".join(lines)
