"""A twin as a folder of static files: a page that makes ECGs in the browser.

The programs of `export.programs` for one ECG at a time, as ONNX, which
onnxruntime runs too; the statements' vectors; the page's own files, of
assets/page; and those of onnxruntime-web, which the user has installed.
"""

import json
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np
import scipy

from ecgtwin_jax.beats.rhythm import MAX_BEATS
from ecgtwin_jax.constants import LEADS
from ecgtwin_jax.data import heart_rate
from ecgtwin_jax.data.ecg import MODEL_RATE
from ecgtwin_jax.diffusion import samplers
from ecgtwin_jax.inference import export, onnx_graph, sampling
from ecgtwin_jax.models import rhythm

if TYPE_CHECKING:
  from ecgtwin_jax.inference.twin import ECGTwin

INDEX = "page.json"
RUNTIME_FILES = (
  "ort.wasm.min.mjs",
  "ort-wasm-simd-threaded.mjs",
  "ort-wasm-simd-threaded.wasm",
)
_PAGE = pathlib.Path(__file__).parent.parent / "assets" / "page"


def write(
  twin: "ECGTwin",
  path: str | os.PathLike,
  runtime: str | os.PathLike,
  statements: Sequence[str],
  settings: sampling.Settings,
) -> None:
  """Writes the page of a twin; see ECGTwin.export_page.

  Raises:
    ValueError: as ECGTwin.export_page.
  """
  folder, source = pathlib.Path(path), pathlib.Path(runtime) / "dist"
  known = export.find_statements(twin, statements)
  export.check_replaced(folder, INDEX)
  missing = [name for name in RUNTIME_FILES if not (source / name).is_file()]
  if missing:
    raise ValueError(
      f"{os.fspath(source / missing[0])!r} must be there: npm install "
      "onnxruntime-web, and give runtime='node_modules/onnxruntime-web'"
    )
  vectors = export.embed(twin, known)
  made = {
    name: onnx_graph.convert(*program)
    for name, program in programs(twin, settings).items()
  }
  shutil.rmtree(folder, ignore_errors=True)
  shutil.copytree(_PAGE, folder)
  for name in RUNTIME_FILES:
    shutil.copy(source / name, folder)
  for name, data in made.items():
    (folder / f"{name}.onnx").write_bytes(data)
  vectors.tofile(folder / "statements.f32")
  checked = [*(f"{name}.onnx" for name in made), "statements.f32"]
  band = heart_rate.energy_filter()
  card = export.describe(twin, known, settings) | {
    "leads": LEADS,
    "channels": twin.networks.modules["denoiser"].latent_channels,
    "rate": MODEL_RATE,
    "max_beats": MAX_BEATS,
    "filter": [band.tolist(), scipy.signal.sosfilt_zi(band).tolist()],
    "sha256": export.digests(folder, [folder / name for name in checked]),
  }
  (folder / INDEX).write_text(json.dumps(card, indent=1))


def programs(
  twin: "ECGTwin", settings: sampling.Settings
) -> dict[str, tuple[Callable, dict[str, jax.ShapeDtypeStruct], list[str]]]:
  """The functions of a twin for one row, without JAX's random numbers.

  Each with its arguments and the names of its results. Noise and uniform
  numbers are arguments.

  Raises:
    ValueError: as Settings.plan, the twin lacks a rhythm model, or the sampler
      draws noise at its steps.
  """
  found = export.programs(twin, settings)
  plan = settings.plan(twin.hyper["denoiser"])
  table = samplers.coefficients(
    plan.schedule, plan.timesteps, plan.sampler, plan.eta
  )
  if table[:, 3].any():
    raise ValueError(
      f"sampler={settings.sampler!r} with eta={settings.eta} draws noise at its"
      " steps, which a page cannot: take dpm++, or ddim with eta=0"
    )
  modules, variables = twin.networks.modules, twin.networks.variables
  kinds = modules["denoiser"].beat_track == "kinds"
  no_key = np.zeros(1, np.uint32)
  extract, inputs = found["extract"]
  sample, (noise, _, _, base, *rest) = found["sample"]
  _, (_, _, *rhythm_of) = found["noise"]
  decode, latents = found["decode"]

  def draw_rhythm(uniforms, statements, mask, patient, usual, rate, premature):
    columns = rhythm.sample_with(
      modules["rhythm"],
      variables["rhythm"],
      rhythm.from_uniforms(uniforms),
      *(statements, mask, patient, usual, MAX_BEATS),
    )
    return export.all_as_stated(columns, premature, rate)

  def temper(noise, *rhythm_of):
    track = sampling.make_tracks(kinds, *rhythm_of)
    return sampling.temper(noise, plan, track)

  def from_noise(noise, base, *rest):
    return sample(noise, no_key, no_key, base, *rest)

  def extract_whole(signal, beat, *rest):
    # Not every browser has halves.
    return extract(signal, beat.astype(np.float16), *rest)

  said, times = ["statements", "mask", "patient"], ["time", "kind", "p_wave"]
  signal, (beat, _), *seen = inputs
  inputs = [signal, (beat, np.float32), *seen]
  made = {
    "extract": (
      extract_whole,
      _rows(["signal", "beat", "found", *said], inputs),
      ["base"],
    ),
    "sample": (
      from_noise,
      _rows(["noise", "base", *said, *times], [noise, base, *rest]),
      ["latents"],
    ),
    "noise": (
      temper,
      _rows(["normals", *times], [noise, *rhythm_of]),
      ["noise"],
    ),
    "decode": (decode, _rows(["latents"], latents), ["ecg"]),
  }
  if "rhythm" in found:
    _, (_, _, *shapes) = found["rhythm"]
    uniforms = ((MAX_BEATS + 1, 4), np.float32)
    names = ["uniforms", *said, "usual", "rate", "premature"]
    made["rhythm"] = draw_rhythm, _rows(names, [uniforms, *shapes]), times
  return made


def _rows(names, shapes):
  """Arguments of one row; names behind the last shape are not needed."""
  return {
    name: jax.ShapeDtypeStruct((1, *shape), dtype)
    for name, (shape, dtype) in zip(names, shapes, strict=False)
  }
