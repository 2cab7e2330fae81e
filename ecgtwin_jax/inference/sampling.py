"""The jitted functions behind a twin: arrays in, latents and signals out.

A row depends on its own inputs and key alone, so rows of several people may
share a call, and where they lie on several devices, so does the result.
"""

import dataclasses
import functools
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ecgtwin_jax.beats.rhythm import MAX_BEATS
from ecgtwin_jax.diffusion import editing, samplers
from ecgtwin_jax.diffusion.guidance import check_strengths, guided
from ecgtwin_jax.diffusion.schedule import (
  PREDICTIONS,
  Schedule,
  add_noise,
  predicted_noise,
)
from ecgtwin_jax.inference import kept_programs
from ecgtwin_jax.models import rhythm
from ecgtwin_jax.models.beat_track import beat_track, common_to_beats
from ecgtwin_jax.models.denoiser import DenoiserInputs

MAX_SEED = 2**32 - 1
_RHYTHM = MAX_SEED  # of a row's key: noise is numbered by steps, from 0 up
X0_LIMITS = ("clip", "dynamic", "none")
# What a twin may have of its own: numbers, 1 unless it says so.
OWN = (
  *("statement_guidance", "person_guidance"),
  *("temperature", "shape_temperature"),
)
# Source: Saharia et al. 2022 (Imagen), dynamic thresholding.
DYNAMIC_QUANTILE = 0.995
RULES = {
  "add": editing.add,
  "reweight": editing.reweight,
  "swap": lambda source, edited, row, weight: editing.swap(source, edited),
}
# Whose attention over the statements an edit's is made of.
EDIT_ATTENTION = ("own", "source")


class SamplingPlan(NamedTuple):
  """What a jitted sampling function is compiled for.

  Attributes:
    schedule: the noise schedule.
    sampler: its name.
    timesteps: the steps to call, descending.
    eta: noise of the sampler; None: its own.
    clip: half width of the latents' range for thresholding; None: none.
    quantile: quantile of dynamic thresholding; None: static thresholding.
    prediction: what the network's output stands for, "noise" or "v".
    temperature: factor of the noise to start from.
    shape_temperature: factor of what of it is common to all beats.
    statements: whether statement_guidance is other than 1.
    person: whether person_guidance is other than 1.
  """

  schedule: Schedule
  sampler: str
  timesteps: tuple[int, ...]
  eta: float | None
  clip: float | None
  quantile: float | None
  prediction: str
  temperature: float | int
  shape_temperature: float | int
  statements: bool
  person: bool

  @property
  def options(self) -> dict[str, Any]:
    """Arguments of samplers.sample."""
    names = ("sampler", "timesteps", "eta", "clip", "quantile")
    return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class Settings:
  """How to sample, in the user's words.

  Where guidance or temperatures are None, the twin's own count, which were
  chosen after its training (hyper-parameter "sampling"), or else 1.

  Attributes:
    sampler: "dpm++", "sde-dpm++", "ddim" or "ddpm" (as published, with
      steps=None).
    steps: calls of the network; None calls every trained step.
    eta: noise of ddim, 0..1 (None: 0), or of sde-dpm++, 0..2 (None: 1).
    statement_guidance: scale of classifier-free guidance by the statements; 1
      samples as trained, more follows the statements more closely.
    person_guidance: scale of classifier-free guidance by the base vector; 1
      samples as trained, more follows the person more closely.
    temperature: factor of the noise that is drawn to start from; 1 samples as
      trained, less varies less from sample to sample. Noise that a sampler
      adds later is not scaled.
    shape_temperature: factor, beside `temperature`, of what this noise has in
      common at the same place of all beats, of which the shape of the beats is
      made: less draws less of what the reference leaves open of them, but for
      premature ventricular beats, and at 0 a fifth less of muscle noise and
      of how beats differ. Of a twin that is told of beats.
    x0_limit: thresholding of predicted clean latents beyond the range measured
      in training: "clip" is static; "dynamic" scales each latent so that 99.5%
      of it lies within; or "none".
    consistent_leads: whether to project on ECGs whose limb leads add up
      exactly.
  """

  sampler: str = "dpm++"
  steps: int | None = 5
  eta: float | int | None = None
  statement_guidance: float | int | None = None
  person_guidance: float | int | None = None
  temperature: float | int | None = None
  shape_temperature: float | int | None = None
  x0_limit: str = "clip"
  consistent_leads: bool = False

  @property
  def strengths(self) -> tuple[float | int, float | int]:
    """Guidance of statements and of the person, of settings for a twin."""
    assert self.statement_guidance is not None, "see for_twin"
    assert self.person_guidance is not None, "see for_twin"
    return self.statement_guidance, self.person_guidance

  def for_twin(self, hyper: dict) -> "Settings":
    """The same, with the twin's own where nothing was asked for.

    Args:
      hyper: hyper-parameters of the twin's denoiser.
    """
    own = hyper.get("sampling", {})
    filled = {
      name: own.get(name, 1.0) for name in OWN if getattr(self, name) is None
    }
    return dataclasses.replace(self, **filled)

  def plan(self, hyper: dict) -> SamplingPlan:
    """Makes the plan for a denoiser with these hyper-parameters.

    Raises:
      ValueError: a number is out of range, or the training dropped nothing
        that guidance could compare with.
    """
    chosen = self.for_twin(hyper)
    strengths = chosen.strengths
    check_strengths(*strengths, hyper.get("dropout", {}))
    for name in ("temperature", "shape_temperature"):
      factor = getattr(chosen, name)
      if not isinstance(factor, numbers.Real) or not 0 <= factor <= 2:
        raise ValueError(f"{name}={factor!r} must be in 0..2")
    drawn_apart = chosen.shape_temperature != 1
    if drawn_apart and hyper["model"].get("beat_track", "none") == "none":
      raise ValueError(
        f"shape_temperature={chosen.shape_temperature!r} must be 1: this twin "
        "is told of no beats (config.model.beat_track='none')"
      )
    if self.sampler not in samplers.SAMPLERS:
      raise ValueError(
        f"sampler={self.sampler!r} must be one of "
        f"{', '.join(samplers.SAMPLERS)}"
      )
    if self.x0_limit not in X0_LIMITS:
      raise ValueError(
        f"x0_limit={self.x0_limit!r} must be one of {', '.join(X0_LIMITS)}"
      )
    clip = None if self.x0_limit == "none" else hyper["latent_clip"]
    if clip is not None and not (
      isinstance(clip, numbers.Real) and 0 < clip <= 1e6
    ):
      raise ValueError(f"latent_clip={clip!r:.60} must be above 0, at most 1e6")
    prediction = hyper.get("prediction", "noise")
    if prediction not in PREDICTIONS:
      raise ValueError(f"{prediction=} must be one of {', '.join(PREDICTIONS)}")
    schedule = Schedule(**hyper["schedule"])
    first, last = hyper["timesteps"]
    timesteps = samplers.choose_timesteps(
      schedule,
      last - first + 1 if self.steps is None else self.steps,
      first=first,
      last=last,
      spacing=samplers.SAMPLERS[self.sampler].spacing,
    )
    return SamplingPlan(
      schedule=schedule,
      sampler=self.sampler,
      timesteps=tuple(timesteps),
      eta=self.eta,
      clip=clip,
      quantile=DYNAMIC_QUANTILE if self.x0_limit == "dynamic" else None,
      prediction=prediction,
      temperature=chosen.temperature,
      shape_temperature=chosen.shape_temperature,
      statements=strengths[0] != 1,
      person=strengths[1] != 1,
    )


class SamplingOptions(TypedDict, total=False):
  """The fields of Settings, for what takes them as keywords."""

  sampler: str
  steps: int | None
  eta: float | int | None
  statement_guidance: float | int | None
  person_guidance: float | int | None
  temperature: float | int | None
  shape_temperature: float | int | None
  x0_limit: str
  consistent_leads: bool


def steps_between(
  plan: SamplingPlan, between: tuple[float | int, float | int]
) -> tuple[bool, ...]:
  """Which of the plan's steps lie between two shares of the schedule.

  Args:
    plan: the plan whose steps are meant.
    between: lowest and highest share, from 0 (clean) to 1 (noise).

  Raises:
    ValueError: none of them does.
  """
  low, high = between
  shares = [t / plan.schedule.steps for t in plan.timesteps]
  chosen = tuple(low <= share <= high for share in shares)
  if not any(chosen):
    raise ValueError(
      f"{between=} holds none of the {len(shares)} steps, which lie at "
      f"{shares[-1]:g}..{shares[0]:g} of the schedule"
    )
  return chosen


def make_keys(
  seeds: Sequence[int], numbers: Sequence[int] | range
) -> Key[Array, " n"]:
  """One key per sample, from its seed and its number under that seed.

  Raises:
    ValueError: a seed is not in 0..2^32 - 1.
  """
  for seed in seeds:
    if not 0 <= seed <= MAX_SEED:
      raise ValueError(f"{seed=} must be in 0..{MAX_SEED}")
  return fold(np.asarray(seeds, np.uint32), np.asarray(numbers, np.uint32))


def fold(
  seeds: Array | np.ndarray, numbers: Array | np.ndarray
) -> Key[Array, " n"]:
  """One key per sample; see make_keys, which checks the seeds."""
  each = jax.vmap(lambda s, i: jax.random.fold_in(jax.random.key(s), i))
  return each(seeds, numbers)


def chunks(n: int, size: int, fill: bool = False) -> list[np.ndarray]:
  """Row numbers in pieces of one size; the last is filled with row n - 1.

  Args:
    n: number of rows.
    size: number of rows of a piece.
    fill: whether a single piece is filled, too.
  """
  if n <= size and not fill:
    return [np.arange(n)]
  starts = range(0, n, size)
  return [np.minimum(np.arange(s, s + size), n - 1) for s in starts]


@kept_programs.jit(static_argnums=(0,))
def encode(
  encoder: nn.Module, variables: Any, signal: Array
) -> Float[Array, "n l c"]:
  """Means of the signals' latents, unscaled."""
  return encoder.apply(variables, signal)[0]


@kept_programs.jit(static_argnums=(0, 1))
def extract(
  encoder: nn.Module,
  extractor: nn.Module,
  variables: Any,
  scale: Any,
  signal: Array,
  condition: Any,
  beats: dict,
) -> Float[Array, "n d"]:
  """Base vectors, from the means of the signals' latents.

  `beats` are median_beat and median_beat_found, of an extractor that sees them.
  """
  mean, _ = encoder.apply(variables["encoder"], signal)
  return extractor.apply(
    variables["base_extractor"], mean * scale, *condition, **beats
  )


def _noise_of(
  denoiser, plan, variables, x, t, inputs: DenoiserInputs, **options
):
  """The noise, and maps (n, blocks, ...) where the options ask for them.

  `plan` has a schedule and a prediction.
  """
  out = denoiser.apply(variables, x, t, **inputs._asdict(), **options)
  out, *maps = out if isinstance(out, tuple) else (out,)
  noise = predicted_noise(plan.schedule, plan.prediction, out, x, t)
  return (noise, jnp.moveaxis(maps[0], 0, 1)) if maps else noise


@kept_programs.jit(static_argnums=(0,))
def sample_rhythms(
  module: nn.Module,
  variables: Any,
  rngs: Array,
  statements: Array,
  mask: Array,
  patient: Array,
  usual: Array,
) -> tuple[Array, Array, Array]:
  """Times, kinds and P waves of a rhythm per row, (n, 48) each."""
  rngs = jax.vmap(lambda rng: jax.random.fold_in(rng, _RHYTHM))(rngs)
  condition = (statements, mask, patient)
  return rhythm.sample(module, variables, rngs, *condition, usual, MAX_BEATS)


@kept_programs.jit(static_argnums=(0,))
def make_tracks(kinds: bool, *rhythms: Array) -> Float[Array, "n l c"] | None:
  """Beat tracks of times, kinds and P waves, (n, 48) each; None of none."""
  return beat_track(*rhythms, kinds=kinds) if rhythms else None


@kept_programs.jit(static_argnums=(0, 1))
def predict_noise(
  denoiser: nn.Module,
  plan: SamplingPlan,
  variables: Any,
  noisy: Array,
  timesteps: Array,
  inputs: DenoiserInputs,
) -> Float[Array, "n l c"]:
  """The noise that the denoiser sees in latents at integer steps.

  Any steps will do: of the plan its schedule and prediction count.
  """
  return _noise_of(denoiser, plan, variables, noisy, timesteps, inputs)


@kept_programs.jit(static_argnums=(0,))
def decode(
  decoder: nn.Module, variables: Any, latents: Array
) -> Float[Array, "n t 12"]:
  """Signals in mV of scaled latents."""
  return decoder.apply(variables, latents)


@kept_programs.jit(static_argnums=(1, 2))
def draw_noise(
  rngs: Key[Array, " n"],
  plan: SamplingPlan,
  shape: tuple[int, int],
  track: Float[Array, "n l f"] | None = None,
) -> Float[Array, "n l c"]:
  """The latents that sampling starts from, one per key and beat track."""
  noise = samplers.draw_noise(rngs, shape, plan.schedule.steps)
  return temper(noise, plan, track)


def temper(
  noise: Float[Array, "n l c"],
  plan: SamplingPlan,
  track: Float[Array, "n l f"] | None,
) -> Float[Array, "n l c"]:
  """Standard normal noise at the plan's temperatures.

  The denoiser makes a recording's beats of what noise has in common at the same
  place of all of them, and draws there what the reference leaves open of the
  person; of the rest it makes muscle noise, wander and how beats differ.
  """
  if track is not None and plan.shape_temperature != 1:
    common = common_to_beats(noise, track)
    noise = noise - (1 - plan.shape_temperature) * common
  return plan.temperature * noise


@kept_programs.jit(static_argnums=(0, 1, 2))
def sample(
  denoiser: nn.Module,
  plan: SamplingPlan,
  weights: tuple[float, ...] | None,
  variables: Any,
  noise: Array,
  rngs: Array,
  inputs: DenoiserInputs,
  strengths: Array,
) -> Array | tuple[Array, Array]:
  """Samples latents.

  Args:
    denoiser: the module.
    plan: how to sample.
    weights: one per step for the mean of the attention; None: no attention.
    variables: variables of the denoiser.
    noise: (n, l, c) to start from.
    rngs: one key per row.
    inputs: DenoiserInputs of n rows.
    strengths: (2,) guidance of statements and person.

  Returns:
    Latents (n, l, c); with weights, also attention (n, blocks, l, s).
  """

  def network(x, t, inputs_and_drop):
    inputs, drop = inputs_and_drop
    options = {"return_attention": weights is not None}
    if plan.statements:
      options["drop_statements"] = drop
    return _noise_of(denoiser, plan, variables, x, t, inputs, **options)

  n = noise.shape[0]
  no, yes = jnp.zeros(n, bool), jnp.ones(n, bool)
  nobody = inputs._replace(base=jnp.zeros_like(inputs.base))
  denoise = guided(
    network,
    (inputs, no),
    without_statements=(inputs, yes),
    without_person=(nobody, no),
    statement_guidance=strengths[0] if plan.statements else 1.0,
    person_guidance=strengths[1] if plan.person else 1.0,
  )
  return samplers.sample(
    denoise, noise, rngs, plan.schedule, aux_weights=weights, **plan.options
  )


@kept_programs.jit(static_argnums=(0, 1))
def attend(
  denoiser: nn.Module,
  plan: SamplingPlan,
  variables: Any,
  latent: Array,
  rngs: Array,
  inputs: DenoiserInputs,
) -> Float[Array, "n blocks l s"]:
  """Attention over the statements in a given latent, mean over plan.timesteps.

  The latent is noised to each step in turn, with noise of the row's key and the
  step.
  """

  def maps(step):
    t = jnp.full(latent.shape[:1], step)
    eps = samplers.draw_noise(rngs, latent.shape[1:], step)
    noisy = add_noise(plan.schedule, latent, eps, t)
    return _noise_of(
      denoiser, plan, variables, noisy, t, inputs, return_attention=True
    )[1]

  steps = jnp.asarray(plan.timesteps, jnp.int32)
  zeros = jnp.zeros(jax.eval_shape(maps, steps[0]).shape)
  total, _ = jax.lax.scan(
    lambda total, step: (total + maps(step), None), zeros, steps
  )
  return total / len(plan.timesteps)


@kept_programs.jit(static_argnums=(0, 1, 2, 3))
def sample_edit(
  denoiser: nn.Module,
  plan: SamplingPlan,
  rule: str,
  own_maps: bool,
  variables: Any,
  threshold: int | Int[Array, ""],
  noise: Float[Array, "n l c"],
  rngs: Key[Array, " n"],
  source: DenoiserInputs,
  edit: DenoiserInputs,
  row: Int[Array, " n"],
  weight: Float[Array, " n"],
  strengths: Float[Array, "2"],
) -> tuple[Float[Array, "n l c"], Float[Array, "n l c"]]:
  """Samples source and edit together; see `editing.sample_edited`.

  Args:
    denoiser: the module.
    plan: how to sample.
    rule: a key of RULES.
    own_maps: the rule is given the edit's own maps as the source's, too.
    variables: variables of the denoiser.
    threshold: steps from this one up follow the source.
    noise: latents to start from.
    rngs: one key per row.
    source: inputs of the source, n rows.
    edit: those of the edit.
    row: number of the statement that `rule` is about.
    weight: weight of that statement.
    strengths: guidance of statements and person.
  """

  def network(x, t, inputs, attention):
    noise_of = functools.partial(_noise_of, denoiser, plan, variables, x, t)
    full = noise_of(inputs, attention=attention)
    result = full
    if plan.statements:
      without = noise_of(inputs, drop_statements=jnp.ones(x.shape[0], bool))
      result += (strengths[0] - 1) * (full - without)
    if plan.person:
      nobody = inputs._replace(base=jnp.zeros_like(inputs.base))
      without = noise_of(nobody, attention=attention)
      result += (strengths[1] - 1) * (full - without)
    return result

  return editing.sample_edited(
    network,
    source,
    edit,
    functools.partial(RULES[rule], row=row, weight=weight),
    noise,
    rngs,
    plan.schedule,
    threshold=threshold,
    own_maps=own_maps,
    **plan.options,
  )
