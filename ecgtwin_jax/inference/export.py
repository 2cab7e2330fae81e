"""A twin as programs that run without this package, and a loader for them.

The folder holds a serialized program of `jax.export` for each of extraction,
rhythm, noise, sampling and decoding, weights within, for any batch on CPU, CUDA
and TPU; the statements' vectors; and, where the base extractor sees the median
beat, the detector of beats as plain NumPy and SciPy. export.json has the sha256
of every file, which the loader checks.
"""

import hashlib
import inspect
import json
import os
import pathlib
import re
import shutil
import types
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import flatbuffers
import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from jaxtyping import Array

from ecgtwin_jax import constants
from ecgtwin_jax.beats import delineation, median_beat, rhythm
from ecgtwin_jax.beats.notation import COUPLING
from ecgtwin_jax.beats.rhythm import KINDS, MAX_BEATS
from ecgtwin_jax.constants import (
  FROM_INDEPENDENT,
  LATENT_LENGTH,
  LEADS,
  MEDIAN_SAMPLES,
  MODEL_SAMPLES,
  PATIENT_MEAN,
  PATIENT_STD,
  TEXT_WIDTH,
)
from ecgtwin_jax.data import heart_rate
from ecgtwin_jax.data.conditions import (
  MAX_STATEMENTS,
  Condition,
)
from ecgtwin_jax.inference import ecgtwin_loader, sampling
from ecgtwin_jax.inference.rhythms import PREMATURE
from ecgtwin_jax.models.denoiser import DenoiserInputs
from ecgtwin_jax.text.findings import (
  find_contradictions,
  finding,
  names_sinus_rhythm,
)

if TYPE_CHECKING:
  from ecgtwin_jax.inference.twin import ECGTwin

INDEX = "export.json"
PLATFORMS = ("cpu", "cuda", "tpu")
_RATES = range(20, 301)  # bpm
_FIT = np.linalg.pinv(FROM_INDEPENDENT)
_PREMATURE = tuple(KINDS.index(kind) for kind in PREMATURE.values())


def write(
  twin: "ECGTwin",
  path: str | os.PathLike,
  statements: Sequence[str],
  settings: sampling.Settings,
) -> None:
  """Writes an exported twin; see ECGTwin.export.

  Raises:
    ValueError: as ECGTwin.export.
  """
  folder, known = pathlib.Path(path), find_statements(twin, statements)
  check_replaced(folder, INDEX)
  vectors = embed(twin, known)
  made = {
    name: _serialize(*program)
    for name, program in programs(twin, settings).items()
  }
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  for name, data in made.items():
    (folder / f"{name}.jax_export").write_bytes(data)
  np.save(folder / "statements.npy", vectors)
  # jax reads programs with it, but does not bring it.
  shutil.copytree(
    pathlib.Path(flatbuffers.__file__).parent,
    folder / "flatbuffers",
    ignore=shutil.ignore_patterns("__pycache__"),
  )
  loader = folder / "ecgtwin_loader.py"
  loader.write_text(inspect.getsource(ecgtwin_loader))
  sees_beat = twin.networks.modules["base_extractor"].median_beat
  if sees_beat:
    _write_detector(folder / "ecgtwin_beats")
  files = sorted(x for x in folder.rglob("*") if x.is_file())
  card = describe(twin, known, settings) | {"sha256": digests(folder, files)}
  (folder / INDEX).write_text(json.dumps(card, indent=1))


def digests(
  folder: pathlib.Path, files: Iterable[pathlib.Path]
) -> dict[str, str]:
  """The sha256 of files, by their paths in the folder."""
  return {
    x.relative_to(folder).as_posix(): hashlib.sha256(x.read_bytes()).hexdigest()
    for x in files
  }


def find_statements(twin: "ECGTwin", more: Sequence[str]) -> tuple[str, ...]:
  """The statements of an exported twin.

  Raises:
    ValueError: there are none.
  """
  known = tuple(dict.fromkeys((*twin.statements, *more)))
  if not known:
    raise ValueError(
      "this twin has no table of statements: name those to export, statements="
    )
  return known


def check_replaced(folder: pathlib.Path, index: str) -> None:
  """Refuses a folder that holds something else than what has the index."""
  if (
    folder.exists() and any(folder.iterdir()) and not (folder / index).exists()
  ):
    raise ValueError(f"{os.fspath(folder)!r} is not empty and no exported twin")


def embed(twin: "ECGTwin", known: Sequence[str]) -> np.ndarray:
  """The statements' vectors, in rows."""
  vectors = [
    twin.arrays(Condition([text], 60, 60, "F"), "denoiser").statements[0]
    for text in known
  ]
  return np.stack(vectors).astype(np.float32)


def describe(
  twin: "ECGTwin", known: Sequence[str], settings: sampling.Settings
) -> dict:
  """What a loader has to know besides programs and vectors."""
  return {
    "twin": twin.digest,
    "settings": vars(settings),
    "statements": known,
    "premature": [
      [finding(name, [text]) == 1 for name in PREMATURE] for text in known
    ],
    "patient": [PATIENT_MEAN, PATIENT_STD],
    "rhythm": describe_rhythms(twin, known),
    "median_beat": twin.networks.modules["base_extractor"].median_beat,
    "beats": twin.networks.reads_beats,
  }


def describe_rhythms(twin: "ECGTwin", known: Sequence[str]) -> dict:
  """What a loader needs to state a rhythm as `twin.state_rhythm` does.

  Returns:
    "said": whether each statement leaves none to be stated; "sinus": those of
    the sinus node with the heart rates that they fit, the one to take first.
  """
  said, sinus = [], []
  for text in known:
    alone = Condition([text], 60)
    said.append(twin.remarks(alone, target=True) == twin.remarks(alone))
  for text in filter(names_sinus_rhythm, twin.statements):
    fits = [x for x in _RATES if not find_contradictions([text], x)]
    sinus.append((text, fits[0], fits[-1]))
  return {"said": said, "sinus": sorted(sinus, key=lambda one: len(one[0]))}


def programs(
  twin: "ECGTwin", settings: sampling.Settings
) -> dict[str, tuple[Callable, tuple]]:
  """The functions of a twin, each with the shapes of one row of its arguments.

  Raises:
    ValueError: as Settings.plan, or the twin lacks a rhythm model.
  """
  networks = twin.networks
  modules, variables = networks.modules, networks.variables
  plan = settings.plan(twin.hyper["denoiser"])
  denoiser, strengths = modules["denoiser"], jnp.asarray(settings.strengths)
  size = (LATENT_LENGTH, denoiser.latent_channels)
  sees_beat = modules["base_extractor"].median_beat
  kinds = denoiser.beat_track == "kinds"

  def extract(signal, beat, found, *condition):
    beats = {"median_beat": beat, "median_beat_found": found}
    return sampling.extract(
      modules["encoder"],
      modules["base_extractor"],
      variables,
      networks.scale,
      signal,
      condition,
      beats if sees_beat else {},
    )

  def draw_noise(seed, number, *rhythm):
    track = sampling.make_tracks(kinds, *rhythm)
    return sampling.draw_noise(sampling.fold(seed, number), plan, size, track)

  def draw_rhythm(seed, number, *rest):
    *condition, usual, rate, premature = rest
    columns = sampling.sample_rhythms(
      modules["rhythm"],
      variables["rhythm"],
      sampling.fold(seed, number),
      *condition,
      usual,
    )
    return all_as_stated(columns, premature, rate)

  def sample(noise, seed, number, base, *rest):
    condition, rhythm = rest[:3], rest[3:]
    track = sampling.make_tracks(kinds, *rhythm)
    inputs = DenoiserInputs(*condition, base=base, track=track)
    return sampling.sample(
      denoiser,
      plan,
      None,
      variables["denoiser"],
      noise,
      sampling.fold(seed, number),
      inputs,
      strengths,
    )

  def decode(latents):
    ecg = sampling.decode(modules["decoder"], variables["decoder"], latents)
    if settings.consistent_leads:
      ecg = (ecg @ _FIT.T) @ FROM_INDEPENDENT.T
    return ecg

  keys = (((), np.uint32),) * 2
  condition = (
    ((MAX_STATEMENTS, TEXT_WIDTH), np.float32),
    ((MAX_STATEMENTS,), bool),
    ((3,), np.float32),
  )
  signal = ((MODEL_SAMPLES, len(LEADS)), np.float32)
  beat = ((MEDIAN_SAMPLES, len(LEADS)), np.float16)
  latent, base = (size, np.float32), ((denoiser.base_width,), np.float32)
  times = ()
  found = {}
  if networks.reads_beats:
    times = (((MAX_BEATS,), np.float32), *(((MAX_BEATS,), np.int32),) * 2)
    rate, premature = ((), np.float32), ((len(_PREMATURE),), bool)
    if "rhythm" not in modules:
      raise ValueError("this twin has no rhythm model, which an export needs")
    found["rhythm"] = draw_rhythm, (*keys, *condition, rate, rate, premature)
  return found | {
    "extract": (extract, (signal, beat, ((), np.int8), *condition)),
    "noise": (draw_noise, (*keys, *times)),
    "sample": (sample, (latent, *keys, base, *condition, *times)),
    "decode": (decode, (latent,)),
  }


def _serialize(function, shapes) -> bytes:
  (batch,) = jax_export.symbolic_shape("batch")
  arguments = [
    jax.ShapeDtypeStruct((batch, *shape), dtype) for shape, dtype in shapes
  ]
  made = jax_export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
  return bytes(made.serialize())


def all_as_stated(
  columns: tuple[Array, ...], premature: Array, rate: Array
) -> tuple[Array, ...]:
  """`as_stated` for each kind of premature beat: (n, kinds) are stated."""
  for place, kind in enumerate(_PREMATURE):
    columns = as_stated(columns, kind, premature[:, place], rate)
  return columns


def as_stated(
  columns: tuple[Array, ...], kind: int, stated: Array, rate: Array
) -> tuple[Array, ...]:
  """inference.rhythms.as_stated of rows, for one kind of premature beat."""
  time, kinds, p_wave = columns
  count = (kinds >= 0).sum(axis=1)
  share = jnp.minimum(time[:, 0] * rate / 60, 1)
  before = jnp.minimum((share * (count - 2)).astype(jnp.int32), count - 3)
  missing = stated & ~(kinds == kind).any(axis=1) & (count >= 3)
  here = jnp.maximum(before, 0)[:, None]
  first = jnp.take_along_axis(time, here, axis=1)
  interval = jnp.take_along_axis(time, here + 1, axis=1) - first
  place = (jnp.arange(time.shape[1])[None] == here + 1) & missing[:, None]
  has_p = int(KINDS[kind] == "pac")
  return (
    jnp.where(place, first + COUPLING[kind] * interval, time),
    jnp.where(place, kind, kinds),
    jnp.where(place, has_p, p_wave),
  )


def _write_detector(folder: pathlib.Path) -> None:
  """Copies what finds the median beat, without what it does not need."""
  folder.mkdir()
  modules: tuple[types.ModuleType, ...] = (
    *(constants, heart_rate, median_beat, delineation, rhythm),
  )
  for module in modules:
    text = inspect.getsource(module)
    text = re.sub(r"^from (jaxtyping|tqdm) import .*\n", "", text, flags=re.M)
    text = re.sub(
      r"^from ecgtwin_jax\.(?:\w+\.)*(\w+) import",
      r"from .\1 import",
      text,
      flags=re.M,
    )
    text = re.sub(
      r"^(import|from) ",
      r"from __future__ import annotations\n\n\1 ",
      text,
      count=1,
      flags=re.M,
    )
    name = module.__name__.rpartition(".")[2]
    (folder / f"{name}.py").write_text(text)
  # Of data.ecg what the others name.
  ecg = "from .constants import MODEL_RATE\n\nECG = quiet_wfdb = None\n"
  (folder / "ecg.py").write_text(ecg)
  (folder / "__init__.py").write_text("")
