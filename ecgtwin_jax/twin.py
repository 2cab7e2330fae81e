"""ECGTwin, the user's object: a reference ECG in, the person's ECGs out."""

import dataclasses
import functools
import os
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ecgtwin_jax import bundle, checkpoint
from ecgtwin_jax.data.conditions import MAX_STATEMENTS, TEXT_WIDTH, Condition
from ecgtwin_jax.data.ecg import ECG, MODEL_RATE
from ecgtwin_jax.data.limb_leads import lead_residual, make_leads_consistent
from ecgtwin_jax.diffusion import samplers
from ecgtwin_jax.diffusion.guidance import guided
from ecgtwin_jax.diffusion.schedule import Schedule
from ecgtwin_jax.models.base_extractor import BaseExtractor
from ecgtwin_jax.models.denoiser import Denoiser
from ecgtwin_jax.models.vae import Decoder, Encoder
from ecgtwin_jax.statements import StatementTable, get_encoder

REQUIRED = ("vae", "base_extractor", "denoiser")
# Rows per call of the jitted functions; more are made in several calls.
SAMPLE_CHUNK = 64
DECODE_CHUNK = 16


@dataclasses.dataclass(frozen=True)
class Generated:
  """ECGs made by a twin, all of one condition.

  Attributes:
    ecgs: n ECGs of 1024 samples at 102.4 Hz.
    latents: (n, 128, 4) float32, scaled.
    lead_residual: largest |limb lead - what I and II imply| in mV, before any
      projection.
  """

  ecgs: list[ECG]
  latents: Float[np.ndarray, "n 128 4"]
  lead_residual: float

  @property
  def signals(self) -> Float[np.ndarray, "n 1024 12"]:
    """The ECGs as one array in mV, leads in clinical order."""
    return np.stack([ecg.signal for ecg in self.ecgs])


class _Plan(NamedTuple):
  """What a jitted sampling function is compiled for."""

  schedule: Schedule
  sampler: str
  steps: int | None
  eta: float
  first: int
  last: int
  clip: float | None
  statements: bool  # is statement_guidance other than 1
  person: bool


def build_modules(parts: dict) -> dict:
  """Makes the modules of a twin's parts from their hyper-parameters.

  Args:
    parts: {part: (hyper-parameters, variables)}.

  Returns:
    {"encoder", "decoder", "base_extractor", "denoiser"}.
  """

  def sizes(part):
    return parts[part][0]["model"]

  scale = parts["denoiser"][0]["latent_scale"]
  return {
    "encoder": Encoder(**sizes("vae")["encoder"]),
    "decoder": Decoder(**sizes("vae")["decoder"], scale=scale),
    "base_extractor": BaseExtractor(**sizes("base_extractor")),
    "denoiser": Denoiser(**sizes("denoiser")),
  }


@functools.partial(jax.jit, static_argnums=(0, 1))
def _extract(encoder, extractor, variables, scale, signal, condition):
  mean, _ = encoder.apply(variables["encoder"], signal)
  return extractor.apply(variables["base_extractor"], mean * scale, *condition)


@functools.partial(jax.jit, static_argnums=0)
def _decode(decoder, variables, latents):
  return decoder.apply(variables, latents)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sample(denoiser, plan, variables, noise, rngs, condition, strengths):
  def network(x, t, given):
    *inputs, drop = given
    extra = {"drop_statements": drop} if plan.statements else {}
    return denoiser.apply(variables, x, t, *inputs, **extra)

  n = noise.shape[0]
  statements, mask, patient, base = condition
  no, yes = jnp.zeros(n, bool), jnp.ones(n, bool)
  denoise = guided(
    network,
    (statements, mask, patient, base, no),
    without_statements=(statements, mask, patient, base, yes),
    without_person=(statements, mask, patient, jnp.zeros_like(base), no),
    statement_guidance=strengths[0] if plan.statements else 1.0,
    person_guidance=strengths[1] if plan.person else 1.0,
  )
  return samplers.sample(
    denoise,
    noise,
    rngs,
    plan.schedule,
    sampler=plan.sampler,
    steps=plan.steps,
    first=plan.first,
    last=plan.last,
    eta=plan.eta,
    clip=plan.clip,
  )


class ECGTwin:
  """Generates a person's ECG under a condition, from one reference ECG.

  Make one with `ECGTwin.from_checkpoint(directory)`.

  Attributes:
    statements: those the twin was trained on.
    hyper: {part: hyper-parameters}.
    digest: identifies the weights, for the record of what made an ECG.
  """

  def __init__(self, parts: dict, table: StatementTable | None, digest: str):
    missing = [part for part in REQUIRED if part not in parts]
    if missing:
      raise ValueError(f"a twin needs {REQUIRED}; {missing=}")
    self.hyper = {part: hyper for part, (hyper, _) in parts.items()}
    self.digest = digest
    self._table = table
    self._modules = build_modules(parts)
    put = functools.partial(jax.tree.map, jnp.asarray)
    vae = parts["vae"][1]["params"]
    self._variables = {
      "encoder": {"params": put(vae["encoder"])},
      "decoder": {"params": put(vae["decoder"])},
      "base_extractor": {"params": put(parts["base_extractor"][1]["params"])},
      "denoiser": {"params": put(parts["denoiser"][1]["params"])},
    }
    self._scale = float(self.hyper["denoiser"]["latent_scale"])

  @classmethod
  def from_checkpoint(cls, path: str | os.PathLike) -> "ECGTwin":
    """Loads a twin directory (a local folder or gs://).

    Raises:
      FileNotFoundError: there is no twin directory.
      ValueError: it is damaged, or lacks a part.
    """
    index = bundle.read_index(path)
    parts = {
      p: bundle.read_part(path, p) for p in REQUIRED if p in index["parts"]
    }
    digest = "-".join(e["sha256"][:8] for e in index["parts"].values())
    return cls(parts, bundle.read_table(path), digest)

  @property
  def statements(self) -> tuple[str, ...]:
    """The statements that the twin was trained on."""
    return self._table.statements if self._table else ()

  def extract_base(
    self, reference: ECG, condition: Condition
  ) -> Float[np.ndarray, " d"]:
    """Extracts the base vector, who the reference is apart from its condition.

    From the mean of the reference's latent, so the same ECG gives the same
    vector.

    Args:
      reference: 10 s, any rate.
      condition: what the reference shows.
    """
    _check_duration(reference)
    signal = jnp.asarray(reference.resample().signal)[None]
    inputs = self._condition_arrays(condition, 1, "base_extractor")
    base = _extract(
      self._modules["encoder"],
      self._modules["base_extractor"],
      {k: self._variables[k] for k in ("encoder", "base_extractor")},
      self._scale,
      signal,
      inputs,
    )
    return np.asarray(base[0])

  def generate(
    self,
    base: Float[np.ndarray, " d"],
    condition: Condition,
    *,
    num_samples: int = 8,
    sampler: str = "dpm++",
    steps: int | None = 20,
    eta: float = 0.0,
    statement_guidance: float = 1.0,
    person_guidance: float = 1.0,
    consistent_leads: bool = False,
    seed: int = 0,
    noise: Float[np.ndarray, "n 128 4"] | None = None,
  ) -> Generated:
    """Generates ECGs of the person `base` under a condition.

    Args:
      base: from extract_base.
      condition: what the ECGs shall show.
      num_samples: how many.
      sampler: "dpm++", "ddim" or "ddpm" (as published, with steps=None).
      steps: calls of the network; None calls every trained step.
      eta: noise of ddim.
      statement_guidance: 1 samples as trained, more follows the statements
        more closely.
      person_guidance: likewise for the base vector.
      consistent_leads: projects on ECGs whose limb leads add up exactly.
      seed: sample i depends on (seed, i) alone.
      noise: the latents to start from, in place of drawn ones.

    Raises:
      ValueError: an argument out of range, or guidance of a twin that was
        trained without dropping that condition.
    """
    if num_samples < 1:
      raise ValueError(f"{num_samples=} must be at least 1")
    plan = self._plan(sampler, steps, eta, statement_guidance, person_guidance)
    base = self._check_base(base)
    rngs = _sample_keys(seed, num_samples)
    if noise is None:
      shape = (128, self._modules["denoiser"].latent_channels)
      noise = samplers.draw_noise(rngs, shape, plan.schedule.steps)
    noise = jnp.asarray(noise, jnp.float32)
    if noise.shape[0] != num_samples:
      raise ValueError(f"{noise.shape=} must start with {num_samples=}")
    latents = []
    for rows in _chunks(num_samples, SAMPLE_CHUNK):
      inputs = self._condition_arrays(condition, len(rows), "denoiser")
      bases = jnp.broadcast_to(base, (len(rows), base.shape[0]))
      strengths = jnp.asarray([statement_guidance, person_guidance])
      latents.append(
        _sample(
          self._modules["denoiser"],
          plan,
          self._variables["denoiser"],
          noise[rows],
          rngs[rows],
          (*inputs, bases),
          strengths,
        )
      )
    latents = np.concatenate([np.asarray(x) for x in latents])[:num_samples]
    comments = self._provenance(condition, seed, sampler, steps)
    return self._generated(latents, comments, consistent_leads)

  def decode(
    self, latents: Float[np.ndarray, "n 128 4"]
  ) -> Float[np.ndarray, "n 1024 12"]:
    """Decodes scaled latents to signals in mV, in chunks."""
    signals = []
    for rows in _chunks(len(latents), DECODE_CHUNK):
      chunk = jnp.asarray(latents[rows])
      decoded = _decode(
        self._modules["decoder"], self._variables["decoder"], chunk
      )
      signals.append(np.asarray(decoded))
    return np.concatenate(signals)[: len(latents)]

  def _generated(self, latents, comments, consistent_leads) -> Generated:
    signals = self.decode(latents)
    residual = lead_residual(signals)
    if consistent_leads:
      signals = make_leads_consistent(signals)
    ecgs = [
      ECG(signal, MODEL_RATE, f"twin_{i}", (*comments, f"sample: {i}"))
      for i, signal in enumerate(signals)
    ]
    return Generated(ecgs, latents, float(np.abs(residual).max()))

  def _plan(self, sampler, steps, eta, statement_guidance, person_guidance):
    hyper = self.hyper["denoiser"]
    for name, value, dropped in (
      ("statement_guidance", statement_guidance, "statements"),
      ("person_guidance", person_guidance, "base"),
    ):
      if value != 1 and not hyper.get("dropout", {}).get(dropped):
        raise ValueError(
          f"{name}={value} must be 1: this twin was trained without dropping "
          f"{dropped} (config.dropout.{dropped}=0), so there is no prediction "
          "without them to compare with"
        )
    first, last = hyper["timesteps"]
    return _Plan(
      schedule=Schedule(**hyper["schedule"]),
      sampler=sampler,
      steps=steps,
      eta=eta,
      first=first,
      last=last,
      clip=hyper["latent_clip"],
      statements=statement_guidance != 1,
      person=person_guidance != 1,
    )

  def _check_base(self, base) -> jax.Array:
    base = jnp.asarray(base, jnp.float32)
    width = self._modules["denoiser"].base_width
    if base.shape != (width,) or not bool(jnp.isfinite(base).all()):
      raise ValueError(
        f"base vector of shape {base.shape} must be finite, ({width},)"
      )
    return base

  def _condition_arrays(self, condition: Condition, n: int, part: str) -> tuple:
    """Returns (statements (n, 18, 768), mask (n, 18), patient (n, 3))."""
    patient = condition.patient_vector()
    if np.isnan(patient).any() and not self._modules[part].null_condition:
      raise ValueError(
        f"age={condition.age} and sex={condition.sex} must both be given: this "
        "twin was trained without missing values"
      )
    rows = np.zeros((MAX_STATEMENTS, TEXT_WIDTH), np.float32)
    count = len(condition.statements)
    rows[:count] = self._embed(condition)
    mask = np.arange(MAX_STATEMENTS) < count
    return tuple(
      jnp.broadcast_to(jnp.asarray(x), (n, *x.shape))
      for x in (rows, mask, patient)
    )

  def _embed(self, condition: Condition) -> Float[np.ndarray, "s 768"]:
    if condition.embeddings is not None:
      return condition.embeddings
    if self._table is None:
      raise ValueError(
        "this twin has no statement table: give Condition(embeddings=(n, 768))"
      )
    unknown = [s for s in condition.statements if s not in self._table]
    for statement in unknown:
      warnings.warn(
        f"{statement!r} is not among the statements this twin was trained on; "
        f"the nearest is {self._table.nearest(statement)!r}",
        stacklevel=4,
      )
    embedded = {}
    if unknown:
      encoder = get_encoder(self._table.encoder)
      self._table.require(encoder.name, encoder.revision)
      embedded = dict(zip(unknown, encoder.embed(unknown)))
    known = [s for s in condition.statements if s in self._table]
    embedded |= dict(zip(known, self._table.embeddings[self._table.ids(known)]))
    return np.stack([embedded[s] for s in condition.statements])

  def _provenance(self, condition, seed, sampler, steps) -> tuple[str, ...]:
    age = "unknown" if condition.age is None else f"{condition.age:g}"
    return (
      "synthetic: generated by ecgtwin_jax, not recorded from a person",
      f"statements: {condition.text()}",
      f"heart_rate: {condition.heart_rate:g}, age: {age}, "
      f"sex: {condition.sex or 'unknown'}",
      f"twin: {self.digest}, seed: {seed}, sampler: {sampler}, steps: {steps}",
    )


def _check_duration(ecg: ECG) -> None:
  if abs(ecg.duration - 10.0) > 0.05:
    raise ValueError(
      f"{ecg.record}: duration={ecg.duration:.2f} s must be 10 s "
      "(read_ecg(path, start=...) cuts a piece)"
    )


def _sample_keys(seed: int, n: int) -> jax.Array:
  fold = functools.partial(jax.random.fold_in, jax.random.key(seed))
  return jax.vmap(fold)(jnp.arange(n))


def _chunks(n: int, size: int) -> list[np.ndarray]:
  """Row numbers in pieces of one size; the last is filled with row n - 1."""
  if n <= size:
    return [np.arange(n)]
  starts = range(0, n, size)
  return [np.minimum(np.arange(s, s + size), n - 1) for s in starts]


def assemble(
  output: str | os.PathLike,
  *,
  vae: str,
  base_extractor: str,
  denoiser: str,
  table: StatementTable,
  note: str,
) -> None:
  """Bundles three trained stages into a twin directory.

  Args:
    output: the folder to make.
    vae: run, checkpoint or twin that holds the autoencoder.
    base_extractor: likewise.
    denoiser: likewise.
    table: statements of the training data.
    note: what the model card says of data and intended use.
  """
  sources = dict(vae=vae, base_extractor=base_extractor, denoiser=denoiser)
  weights = {
    part: checkpoint.load_weights(path, part) for part, path in sources.items()
  }
  bundle.write_twin(
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
