"""Base vectors and conditions in, ECGs as rows of arrays out."""

from collections.abc import Sequence

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Key

from ecgtwin_jax.beats.notation import Beats, read_beats
from ecgtwin_jax.beats.rhythm import Rhythm, detect_rhythm
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import ECG
from ecgtwin_jax.data.leads import lead_residual, make_leads_consistent
from ecgtwin_jax.inference import sampling
from ecgtwin_jax.inference.conditioning import ConditionArrays, Conditioner
from ecgtwin_jax.inference.edits import Edit
from ecgtwin_jax.inference.networks import SAMPLE_CHUNK, Networks
from ecgtwin_jax.inference.results import Rows
from ecgtwin_jax.inference.rhythms import (
  as_stated,
  choose_rhythms,
  edit_rhythms,
)
from ecgtwin_jax.inference.sampling import SamplingPlan, Settings
from ecgtwin_jax.models.denoiser import DenoiserInputs


class RowGenerator:
  """Makes a twin's ECGs, of any people and conditions in one call.

  Between the user's object, which checks, warns and names, and the networks,
  which know neither conditions nor rhythms. Settings are those for a twin.

  Attributes:
    hyper: {part: hyper-parameters}.
    networks: the modules with their weights.
    conditioner: turns conditions into arrays.
  """

  def __init__(self, hyper: dict, networks: Networks, conditioner: Conditioner):
    self.hyper = hyper
    self.networks = networks
    self.conditioner = conditioner

  def arrays(self, condition: Condition, part: str) -> ConditionArrays:
    """One condition as the arrays of a part; see ECGTwin.arrays."""
    missing_allowed = self.networks.modules[part].null_condition
    return self.conditioner.arrays(condition, missing_allowed)

  def check_beats(self, beats: Beats | None) -> None:
    """Refuses beats that cannot be; see ECGTwin.check_beats."""
    if beats is None:
      return
    if not self.networks.reads_beats:
      raise ValueError(
        f"{beats=} must be None: this twin is told of none "
        "(config.model.beat_track='none')"
      )
    read_beats(beats)

  def generate(
    self,
    bases: Sequence[Float[np.ndarray, " d"]] | Float[np.ndarray, "n d"],
    conditions: Sequence[Condition],
    seeds: Sequence[int],
    numbers: Sequence[int],
    settings: Settings,
    *,
    noise: Float[np.ndarray, "n 128 c"] | None,
    beats: Sequence[Beats | None] | None,
    batch_size: int,
    mesh: Mesh | None,
  ) -> Rows:
    """One ECG per row; see ECGTwin.generate_rows."""
    plan = self._plan(settings)
    rngs = sampling.make_keys(seeds, numbers)
    rhythms = self._choose_rhythms(conditions, rngs, beats)
    latents = []
    # In pieces here, too: an embedded report takes 55 kB.
    for rows in sampling.chunks(len(bases), batch_size):
      inputs = self._inputs(
        [bases[i] for i in rows],
        [conditions[i] for i in rows],
        rhythms and [rhythms[i] for i in rows],
      )
      if noise is None:
        start = self.networks.draw_noise(plan, rngs[rows], inputs.track)
      else:
        start = noise[rows].astype(np.float32)
      latents.append(
        self.networks.sample(
          plan,
          settings.strengths,
          start,
          rngs[rows],
          inputs,
          batch_size=batch_size,
          mesh=mesh,
        )
      )
    latents = np.concatenate(latents)[: len(bases)]
    return self._decode(latents, rhythms, settings, mesh)

  def edit(
    self,
    base: Float[np.ndarray, " d"],
    condition: Condition,
    change: Edit,
    num_samples: int,
    seed: int,
    settings: Settings,
    beats: Beats | None,
  ) -> tuple[Rows, Rows]:
    """Sources and their edits, which share noise, early steps and beats."""
    plan = self._plan(settings)
    rngs = sampling.make_keys([seed] * num_samples, range(num_samples))
    bases = [base] * num_samples
    before = [condition] * num_samples
    after = [change.condition] * num_samples
    rhythms = changed = self._choose_rhythms(
      before, rngs, _for_each(beats, num_samples)
    )
    if rhythms is not None:
      changed = edit_rhythms(
        rhythms,
        condition,
        change.condition,
        None if beats is not None else lambda: self.draw_rhythms(after, rngs),
        seed,
      )
    inputs = self._inputs(bases, before, rhythms)
    source, edited = self.networks.sample_edit(
      plan,
      change.rule,
      round(change.threshold * plan.schedule.steps),
      change.attention == "own",
      self.networks.draw_noise(plan, rngs, inputs.track),
      rngs,
      inputs,
      self._inputs(bases, after, changed),
      change.row,
      change.weight,
      settings.strengths,
    )
    return (
      self._decode(source, rhythms, settings),
      self._decode(edited, changed, settings),
    )

  def explain(
    self,
    base: Float[np.ndarray, " d"],
    condition: Condition,
    num_samples: int,
    seed: int,
    settings: Settings,
    between: tuple[float | int, float | int],
    beats: Beats | None,
  ) -> tuple[Float[np.ndarray, "n blocks 128 s"], Rows]:
    """The attention of generated ECGs over the statements, and the ECGs."""
    plan = self._plan(settings)
    counted = sampling.steps_between(plan, between)
    rngs = sampling.make_keys([seed] * num_samples, range(num_samples))
    conditions = [condition] * num_samples
    rhythms = self._choose_rhythms(
      conditions, rngs, _for_each(beats, num_samples)
    )
    inputs = self._inputs([base] * num_samples, conditions, rhythms)
    latents, attention = self.networks.sample(
      plan,
      settings.strengths,
      self.networks.draw_noise(plan, rngs, inputs.track),
      rngs,
      inputs,
      weights=tuple(map(float, counted)),
    )
    return attention, self._decode(latents, rhythms, settings)

  def explain_given(
    self,
    ecg: ECG,
    base: Float[np.ndarray, " d"],
    condition: Condition,
    num_samples: int,
    seed: int,
    settings: Settings,
    between: tuple[float | int, float | int],
  ) -> Float[np.ndarray, "n blocks 128 s"]:
    """The attention of a given ECG, under other noise in each sample."""
    plan = self._plan(settings)
    counted = sampling.steps_between(plan, between)
    kept = tuple(np.asarray(plan.timesteps)[np.asarray(counted)].tolist())
    rngs = sampling.make_keys([seed] * num_samples, range(num_samples))
    rhythms = None
    if self.networks.reads_beats:
      rhythms = [detect_rhythm(ecg.signal, ecg.sampling_rate)] * num_samples
    return self.networks.attend(
      plan._replace(timesteps=kept),
      self.networks.encode(ecg),
      rngs,
      self._inputs([base] * num_samples, [condition] * num_samples, rhythms),
    )

  def draw_rhythms(
    self, conditions: Sequence[Condition], rngs: Key[Array, " n"]
  ) -> list[Rhythm]:
    """Samples a rhythm per condition, with the beats that its report states.

    Raises:
      ValueError: the twin has no rhythm model.
    """
    rhythms = []
    # In pieces here, too: an embedded report takes 55 kB.
    for rows in sampling.chunks(len(conditions), SAMPLE_CHUNK):
      piece = [conditions[i] for i in rows]
      arrays = [self.arrays(condition, "denoiser") for condition in piece]
      stacked = ConditionArrays(*map(np.stack, zip(*arrays)))
      rates = np.array([float(condition.heart_rate) for condition in piece])
      drawn = self.networks.draw_rhythms(rngs[rows], stacked, rates)
      rhythms += map(as_stated, drawn, piece)
    return rhythms[: len(conditions)]

  def _choose_rhythms(self, conditions, rngs, beats) -> list[Rhythm] | None:
    """The rhythm of each row; None of a twin that is told of no beats."""
    for own in beats or []:
      self.check_beats(own)
    if not self.networks.reads_beats:
      return None

    def draw(rows):
      return self.draw_rhythms(
        [conditions[i] for i in rows], rngs[np.array(rows)]
      )

    beats = [None] * len(conditions) if beats is None else beats
    return choose_rhythms(beats, conditions, draw)

  def _inputs(self, bases, conditions, rhythms) -> DenoiserInputs:
    """What the denoiser is given in each row."""
    inputs, condition, arrays = [], None, None
    for base, own in zip(bases, conditions, strict=True):
      if own is not condition:  # rows of a person follow each other
        condition, arrays = own, self.arrays(own, "denoiser")
      inputs.append(self.networks.inputs(base, arrays, 1))
    stacked = jax.tree.map(lambda *rows: np.concatenate(rows), *inputs)
    if rhythms is None:
      return stacked
    return stacked._replace(track=self.networks.track(rhythms))

  def _plan(self, settings: Settings) -> SamplingPlan:
    return settings.plan(self.hyper["denoiser"])

  def _decode(
    self, latents, rhythms, settings: Settings, mesh: Mesh | None = None
  ) -> Rows:
    signals = self.networks.decode(latents, mesh)
    residuals = np.abs(lead_residual(signals)).max(axis=(1, 2))
    if settings.consistent_leads:
      signals = make_leads_consistent(signals)
    return Rows(signals, latents, residuals, rhythms)


def _for_each(beats: Beats | None, count: int) -> list[Beats] | None:
  return None if beats is None else [beats] * count
