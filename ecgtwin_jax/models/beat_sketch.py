"""A sketch of the ECG: the person's usual beat, laid at each R peak.

Ours. The base vector and the condition foretell the usual beat, as stage 1
learns it, and the beat track says where it stands: so shape meets time before
the denoiser begins.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from ecgtwin_jax.constants import (
  LEADS,
  MEDIAN_R,
  MEDIAN_SAMPLES,
  MODEL_RATE,
  MODEL_SAMPLES,
  SECONDS,
)
from ecgtwin_jax.models import beat_rate, layers
from ecgtwin_jax.models.base_extractor import (
  UnderCondition,
  masked_mean,
)
from ecgtwin_jax.models.beat_track import (
  GIVEN,
  OF_LAST,
  P_WAVE,
  SINCE,
  UNTIL,
)
from ecgtwin_jax.models.layers import Array

_BEFORE_QRS = 0.06  # s before R: so far reaches a P wave


class ForetoldBeat(nn.Module):
  """The usual beat (b, 80, 12) of a person under a condition, in 0.2 mV.

  Its weights are those of a base extractor's `predict_beat`.
  """

  width: int  # of a statement's token
  hidden: int = 256
  gates: int = 0

  @nn.compact
  def __call__(
    self,
    base: Float[Array, "b base"],
    statements: Float[Array, "b s e"],
    mask: Bool[Array, "b s"],
    patient: Float[Array, "b 3"],
  ) -> Float[jax.Array, "b 80 12"]:
    tokens = layers.StatementTokens(
      self.width, layers.torch_uniform, name="statement_tokens"
    )(statements, mask, patient)
    condition = masked_mean(tokens, mask)
    beat = UnderCondition(
      self.hidden,
      MEDIAN_SAMPLES * len(LEADS),
      gates=self.gates,
      name="beat_head",
    )(base, condition)
    beat = beat.reshape(-1, MEDIAN_SAMPLES, len(LEADS))
    return beat_rate.from_60_bpm(beat, patient)


def lay_beats(
  beat: Float[Array, "b 80 12"], track: Float[Array, "b l f"]
) -> Float[jax.Array, "b l n"]:
  """Lays a beat at every R peak of a track; zeros where there is no track.

  Up to 0.6 of an RR interval it is the beat before, from there on the next.
  Before a beat that has no P wave by the track, where that says so, lies a line
  from the end of the beat before to 60 ms before R: a step there would be read
  as a P wave.

  Args:
    beat: 80 samples at 102.4 Hz, the R peak on sample 31.
    track: beat tracks, see models/beat_track.py.

  Returns:
    For each position its samples of 12 leads, one after the other.
  """
  rows, length = track.shape[:2]
  inside = MODEL_SAMPLES // length
  away = (jnp.arange(inside) + 0.5) / inside - 0.5
  away = away[None, None] * (SECONDS / length)
  since = track[..., SINCE, None] + away
  until = track[..., UNTIL, None] - away
  last = OF_LAST * (since + until)
  sketch = _read(beat, jnp.where(since < last, since, -until))
  if track.shape[-1] > P_WAVE:
    first = jnp.minimum(last, (MEDIAN_SAMPLES - 1 - MEDIAN_R) / MODEL_RATE)
    silent = (since > first) & (until > _BEFORE_QRS)
    silent &= track[..., P_WAVE, None] == 0
    whole = jnp.maximum(since + until - _BEFORE_QRS - first, 1 / MODEL_RATE)
    share = ((since - first) / whole)[..., None]
    before = _read(beat, first)
    after = _read(beat, jnp.full_like(first, -_BEFORE_QRS))
    line = before + share * (after - before)
    sketch = jnp.where(silent[..., None], line, sketch)
  return sketch.reshape(rows, length, -1) * track[..., GIVEN, None]


def _read(
  beat: Float[Array, "b 80 12"], time: Float[Array, "b l t"]
) -> Float[jax.Array, "b l t 12"]:
  """Beats at seconds from R, linear between samples, 0 outside of them."""
  at = MEDIAN_R + MODEL_RATE * time
  samples = jnp.arange(MEDIAN_SAMPLES, dtype=at.dtype)[None, None, None]
  weight = jnp.maximum(1 - jnp.abs(at[..., None] - samples), 0)
  read = weight.reshape(beat.shape[0], -1, MEDIAN_SAMPLES) @ beat
  return read.reshape(*time.shape, -1)
