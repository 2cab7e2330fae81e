"""A twin's networks with their weights: rows of arrays in, rows out, in chunks.

The rows of a chunk are split over the devices of a mesh; without one, over
those of this process, as many as there are rows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from ecgtwin_jax import sharding
from ecgtwin_jax.beats.rhythm import Rhythm, detect_rhythm_and_beat
from ecgtwin_jax.constants import LATENT_LENGTH, SECONDS
from ecgtwin_jax.data.ecg import ECG, MODEL_RATE
from ecgtwin_jax.data.wfdb_record import first_line
from ecgtwin_jax.inference import sampling
from ecgtwin_jax.inference.conditioning import ConditionArrays
from ecgtwin_jax.inference.parameters import check_parameters, check_sizes
from ecgtwin_jax.models.base_extractor import BaseExtractor
from ecgtwin_jax.models.denoiser import Denoiser, DenoiserInputs
from ecgtwin_jax.models.rhythm import RhythmModel
from ecgtwin_jax.models.vae import Decoder, Encoder

REQUIRED = ("vae", "base_extractor", "denoiser")
PARTS = (*REQUIRED, "rhythm")  # what a twin may have
# Rows per call of the jitted functions; more are made in several calls.
SAMPLE_CHUNK = 64
DECODE_CHUNK = 16  # per device


def build_modules(parts: dict) -> dict:
  """Makes the modules of a twin's parts from their hyper-parameters.

  Args:
    parts: {part: (hyper-parameters, variables)}.

  Returns:
    {"encoder", "decoder", "base_extractor", "denoiser"}, and "rhythm" where
    there is one.
  """

  def sizes(part):
    return parts[part][0]["model"]

  scale = parts["denoiser"][0]["latent_scale"]
  scale = tuple(scale) if isinstance(scale, list) else scale
  rhythm = {}
  if "rhythm" in parts:
    rhythm["rhythm"] = RhythmModel(**sizes("rhythm"))
  return {
    **rhythm,
    "encoder": Encoder(**sizes("vae")["encoder"]),
    "decoder": Decoder(**sizes("vae")["decoder"], scale=scale),
    "base_extractor": BaseExtractor(**sizes("base_extractor")),
    "denoiser": Denoiser(**sizes("denoiser")),
  }


def _build_checked(parts: dict) -> dict:
  """Makes the modules of hyper-parameters that may say anything.

  Raises:
    ValueError: they cannot be used.
  """
  try:
    for part, (hyper, variables) in parts.items():
      count = len(jax.tree.leaves(variables))
      check_sizes(part, hyper["model"], count)
    hyper = parts["denoiser"][0]
    sampling.Settings(steps=1).plan(hyper)
    for part in ("denoiser", "rhythm"):
      if part in parts and not isinstance(
        parts[part][0]["statement_encoder"], str
      ):
        raise ValueError("the name of the statement encoder must be text")
    scale = _scale_of(hyper)
    if not (np.isfinite(scale) & (scale > 0)).all():
      raise ValueError(f"latent_scale={scale.ravel()} must be above 0")
    return build_modules(parts)
  # A module has its own words for each number that it cannot use.
  except Exception as error:
    name = type(error).__name__
    raise ValueError(
      f"the twin's hyper-parameters cannot be used ({name}: "
      f"{first_line(error)})"
    ) from None


def _scale_of(hyper):
  """What latents are multiplied by: one number, or one per channel."""
  return np.asarray(hyper["latent_scale"], np.float32).reshape(1, 1, -1)


def _params_of(variables: dict, *names: str) -> dict:
  """The parameters of a part, or of a network in it; {} where it has none."""
  for name in ("params", *names):
    variables = variables.get(name)
    if not isinstance(variables, dict):
      return {}
  return variables


class Networks:
  """Encoder, decoder, base extractor and denoiser with their weights.

  A rhythm model is among them where the twin has one.

  Attributes:
    modules: {name: module}.
    variables: {name: {"params": tree}}, on the host.
    scale: (1, 1, 1 or c), what latents are multiplied by.

  Raises:
    ValueError: a part is missing, or the rhythm model was trained with another
      statement encoder, or the arrays are not those of the hyper-parameters.
  """

  def __init__(self, parts: dict):
    missing = [part for part in REQUIRED if part not in parts]
    if missing:
      raise ValueError(f"a twin needs {REQUIRED}; {missing=}")
    self.modules = _build_checked(parts)
    self.scale = _scale_of(parts["denoiser"][0])
    variables = {
      "encoder": _params_of(parts["vae"][1], "encoder"),
      "decoder": _params_of(parts["vae"][1], "decoder"),
      "base_extractor": _params_of(parts["base_extractor"][1]),
      "denoiser": _params_of(parts["denoiser"][1]),
    }
    if "rhythm" in parts:
      names = [
        parts[part][0]["statement_encoder"] for part in ("rhythm", "denoiser")
      ]
      if names[0] != names[1]:
        raise ValueError(
          f"the rhythm model was trained with statement encoder {names[0]!r}, "
          f"the denoiser with {names[1]!r}"
        )
      variables["rhythm"] = _params_of(parts["rhythm"][1])
    for name, tree in variables.items():
      check_parameters(name, self.modules[name], tree)
    self.variables = {
      name: {"params": tree} for name, tree in variables.items()
    }
    self._placed = {}

  def draw_noise(
    self,
    plan: sampling.SamplingPlan,
    rngs: Key[Array, " n"],
    track: Float[Array, "n 128 f"] | None,
  ) -> Float[np.ndarray, "n 128 c"]:
    """The latents that sampling starts from, one per key and beat track."""
    shape = (LATENT_LENGTH, self.modules["denoiser"].latent_channels)
    return np.asarray(sampling.draw_noise(rngs, plan, shape, track))

  @property
  def reads_beats(self) -> bool:
    """Whether the denoiser is told of the beats."""
    return self.modules["denoiser"].beat_track != "none"

  def draw_rhythms(
    self,
    rngs: Key[Array, " n"],
    arrays: ConditionArrays,
    heart_rates: Float[np.ndarray, " n"],
  ) -> list[Rhythm]:
    """A rhythm of each row's condition, which depends on nothing else.

    Calls are always of as many rows, so that rounding, and with it a draw, is
    the same whatever the other rows are.

    Args:
      rngs: one key per row.
      arrays: n conditions.
      heart_rates: their heart rates in bpm.

    Raises:
      ValueError: the twin has no rhythm model.
    """
    if "rhythm" not in self.modules:
      raise ValueError(
        "this twin has no rhythm model to say when its beats fall: give "
        "beats=, or train one (configs/rhythm.py) and add its part"
      )
    module, variables = self.modules["rhythm"], self._part("rhythm")
    usual = (60 / np.asarray(heart_rates, np.float64)).astype(np.float32)
    rhythms = []
    for rows in sampling.chunks(len(usual), SAMPLE_CHUNK, fill=True):
      pieces = jax.tree.map(lambda x, r=rows: x[r], (rngs, *arrays, usual))
      columns = sampling.sample_rhythms(module, variables, *pieces)
      rhythms += [as_rhythm(row) for row in zip(*map(np.asarray, columns))]
    return rhythms[: len(usual)]

  def track(self, rhythms: Sequence[Rhythm]) -> Float[np.ndarray, "n l c"]:
    """The denoiser's beat tracks of rhythms."""
    kinds = self.modules["denoiser"].beat_track == "kinds"
    columns = (np.stack(column) for column in zip(*rhythms))
    return np.asarray(sampling.make_tracks(kinds, *columns))

  def inputs(
    self, base: Array | np.ndarray, arrays: ConditionArrays, n: int
  ) -> DenoiserInputs:
    """What the denoiser is given for n samples of one person and condition.

    Raises:
      ValueError: the base vector has another width, or is not finite.
    """
    base = np.asarray(base, np.float32)
    width = self.modules["denoiser"].base_width
    if base.shape != (width,) or not np.isfinite(base).all():
      raise ValueError(
        f"base vector of shape {base.shape} must be finite, ({width},)"
      )
    return DenoiserInputs(**repeat(arrays, n)._asdict(), base=repeat(base, n))

  def encode(self, ecg: ECG) -> Float[np.ndarray, "l c"]:
    """Scaled mean of an ECG's latent.

    Raises:
      ValueError: it is not 10 s long.
    """
    encoder, variables = self.modules["encoder"], self._part("encoder")
    signal = jnp.asarray(_model_signal(ecg))[None]
    mean = sampling.encode(encoder, variables, signal)
    return (np.asarray(mean) * self.scale)[0]

  def extract(
    self,
    references: list[ECG],
    conditions: tuple[np.ndarray, ...],
    *,
    batch_size: int = DECODE_CHUNK,
    mesh: Mesh | None = None,
  ) -> Float[np.ndarray, "n d"]:
    """Base vectors of references under (statements, mask, patient) of each.

    An extractor that sees median beats gets those found in the ECGs.

    Raises:
      ValueError: a reference is not 10 s long.
    """
    names = ("encoder", "base_extractor")
    modules = [self.modules[name] for name in names]
    signals = np.stack([_model_signal(ecg) for ecg in references])
    beats = ()
    if self.modules["base_extractor"].median_beat:
      found = [detect_rhythm_and_beat(signal, MODEL_RATE) for signal in signals]
      beats = (
        np.stack([each.median_beat for each in found]),
        np.array([each.median_beat_found for each in found], np.int8),
      )

    def run(variables, signal, *rest):
      condition, beats = rest[: len(conditions)], rest[len(conditions) :]
      names = ("median_beat", "median_beat_found")
      return sampling.extract(
        *modules,
        variables,
        self.scale,
        signal,
        condition,
        dict(zip(names, beats)),
      )

    arrays = (signals, *conditions, *beats)
    return self._in_chunks(run, names, arrays, batch_size, mesh)

  def sample(
    self,
    plan: sampling.SamplingPlan,
    strengths: tuple[float | int, float | int],
    noise: Float[Array | np.ndarray, "n l c"],
    rngs: Key[Array, " n"],
    inputs: DenoiserInputs,
    *,
    weights: tuple[float, ...] | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
  ) -> Any:
    """Latents; with weights per step, (latents, mean attention)."""
    denoiser = self.modules["denoiser"]
    plan = plan._replace(temperature=1.0)  # of noise that is drawn already
    strengths = np.asarray(strengths, np.float32)

    def run(variables, noise, rngs, inputs):
      own = variables["denoiser"]
      return sampling.sample(
        denoiser, plan, weights, own, noise, rngs, inputs, strengths
      )

    size = SAMPLE_CHUNK if batch_size is None else batch_size
    arrays = (noise, rngs, inputs)
    return self._in_chunks(run, ("denoiser",), arrays, size, mesh)

  def attend(
    self,
    plan: sampling.SamplingPlan,
    latent: Float[np.ndarray, "l c"],
    rngs: Key[Array, " n"],
    inputs: DenoiserInputs,
  ) -> Float[np.ndarray, "n blocks l s"]:
    """Attention in one given latent, with other noise in each row."""
    denoiser = self.modules["denoiser"]
    latents = np.broadcast_to(latent, (len(rngs), *latent.shape))

    def run(variables, latent, rngs, inputs):
      own = variables["denoiser"]
      return sampling.attend(denoiser, plan, own, latent, rngs, inputs)

    arrays = (latents, rngs, inputs)
    return self._in_chunks(run, ("denoiser",), arrays, SAMPLE_CHUNK)

  def predict_noise(
    self,
    plan: sampling.SamplingPlan,
    noisy: Float[np.ndarray, "n l c"],
    timesteps: Int[np.ndarray, " n"],
    inputs: DenoiserInputs,
  ) -> Float[np.ndarray, "n l c"]:
    """The noise that the denoiser sees in latents noised to these steps.

    Any steps will do: of the plan its schedule and prediction count.
    """

    def run(variables, *rows):
      denoiser = self.modules["denoiser"]
      own = variables["denoiser"]
      return sampling.predict_noise(denoiser, plan, own, *rows)

    arrays = (noisy, timesteps, inputs)
    return self._in_chunks(run, ("denoiser",), arrays, SAMPLE_CHUNK)

  def sample_edit(
    self,
    plan: sampling.SamplingPlan,
    rule: str,
    threshold: int,
    own_maps: bool,
    noise: Float[Array | np.ndarray, "n l c"],
    rngs: Key[Array, " n"],
    source: DenoiserInputs,
    edit: DenoiserInputs,
    row: int,
    weight: float | int,
    strengths: tuple[float | int, float | int],
  ) -> tuple[Float[np.ndarray, "n l c"], Float[np.ndarray, "n l c"]]:
    """Latents of the sources and of their edits; see sampling.sample_edit."""
    denoiser = self.modules["denoiser"]
    plan = plan._replace(temperature=1.0)  # of noise that is drawn already

    def run(variables, noise, rngs, row, weight, source, edit):
      return sampling.sample_edit(
        denoiser,
        plan,
        rule,
        own_maps,
        variables["denoiser"],
        threshold,
        noise,
        rngs,
        source,
        edit,
        row,
        weight,
        np.asarray(strengths, np.float32),
      )

    rows = np.full(len(noise), row, np.int32)
    weights = np.full(len(noise), weight, np.float32)
    arrays = (noise, rngs, rows, weights, source, edit)
    return self._in_chunks(run, ("denoiser",), arrays, SAMPLE_CHUNK // 2)

  def decode(
    self, latents: Float[np.ndarray, "n l c"], mesh: Mesh | None = None
  ) -> Float[np.ndarray, "n t 12"]:
    """Signals in mV of scaled latents."""

    def run(variables, latents):
      decoder = self.modules["decoder"]
      return sampling.decode(decoder, variables["decoder"], latents)

    devices = mesh.size if mesh else jax.local_device_count()
    # What is filled up to a multiple of the devices, not beyond.
    size = devices * min(DECODE_CHUNK, -(-len(latents) // devices))
    return self._in_chunks(run, ("decoder",), (latents,), size, mesh)

  def _part(self, name: str, mesh: Mesh | None = None) -> dict:
    """Variables, on the mesh's devices."""
    if (name, mesh) not in self._placed:
      if mesh is None:
        placed = jax.device_put(self.variables[name])
      else:
        placed = jax.device_put(self.variables[name], sharding.replicated(mesh))
      self._placed[name, mesh] = placed
    return self._placed[name, mesh]

  def _in_chunks(
    self,
    function: Callable,
    names: tuple[str, ...],
    arrays: tuple,
    size: int,
    mesh: Mesh | None = None,
  ) -> Any:
    """Calls function(variables, *arrays) on `size` rows at a time.

    With a mesh calls are always full, so that a row's result does not depend on
    how many rows there are. Without one, fewer rows are one call, over as many
    of this process's devices as there are rows.

    Args:
      function: maps {name: variables} and rows of the arrays to rows.
      names: the networks that it needs.
      arrays: n rows each; the first is one array, others may be trees.
      size: rows per call.
      mesh: devices that share a call.

    Returns:
      NumPy arrays of n rows.
    """
    n, parts = len(arrays[0]), []
    devices = jax.local_devices()[:n]
    if mesh is not None:
      sharding.check_batch_size(size, 1, mesh)
    elif len(devices) > 1:
      mesh = sharding.make_mesh(devices=devices)
      size = mesh.size * -(-min(n, size) // mesh.size)
    variables = {name: self._part(name, mesh) for name in names}
    for rows in sampling.chunks(n, size, fill=mesh is not None):
      piece = jax.tree.map(lambda array, rows=rows: array[rows], arrays)
      if mesh is not None:
        piece = jax.device_put(piece, sharding.rows(mesh))
      parts.append(jax.tree.map(np.asarray, function(variables, *piece)))
    return jax.tree.map(lambda *pieces: np.concatenate(pieces)[:n], *parts)


def repeat(arrays: Any, n: int) -> Any:
  """n rows of each array of a tree, all the same; nothing is copied."""
  return jax.tree.map(lambda x: np.broadcast_to(x, (n, *x.shape)), arrays)


def as_rhythm(row: tuple[np.ndarray, ...]) -> Rhythm:
  """(time, kind, p_wave) as a Rhythm, in its types."""
  time, kind, p_wave = row
  return Rhythm(
    time.astype(np.float32), kind.astype(np.int8), p_wave.astype(np.int8)
  )


def _model_signal(ecg: ECG) -> Float[np.ndarray, "1024 12"]:
  if abs(ecg.duration - SECONDS) > 0.05:
    raise ValueError(
      f"{ecg.record}: duration={ecg.duration:.2f} s must be {SECONDS:g} s "
      "(read_ecg(path, start=...) cuts a piece)"
    )
  return ecg.resample().signal
