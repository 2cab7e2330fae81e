"""A beat at another heart rate: what follows QRS goes with the root of RR.

So a person's beat can be kept as it would be at 60 bpm, and given back at any
rate, without anything of it having been learned.

Source: Fridericia, Acta Medica Scandinavica 53 (1920) 469-486, has the whole QT
go with the cube root. QRS, a quarter of it, lasts as long at every rate, so
what follows has to go with the square root. Over 1,132 recordings of PTB-XL's
training patients the exponents are 0.36 and 0.50.
"""

import jax.numpy as jnp
from jaxtyping import Float

from ecgtwin_jax.constants import (
  MEDIAN_R,
  MEDIAN_SAMPLES,
  MODEL_RATE,
  PATIENT_MEAN,
  PATIENT_STD,
)
from ecgtwin_jax.models.layers import Array

_EXPONENT = 1 / 2
_KEPT = 0.06  # s after R that no rate changes, as is all before R
_SLOWEST, _FASTEST = 20.0, 300.0  # bpm


def at_60_bpm(
  beat: Float[Array, "b 80 12"], patient: Float[Array, "b 3"]
) -> Float[Array, "b 80 12"]:
  """What beats of these patients' heart rates would be at 60 bpm."""
  return _stretch(beat, 1 / _over_60_bpm(patient))


def from_60_bpm(
  beat: Float[Array, "b 80 12"], patient: Float[Array, "b 3"]
) -> Float[Array, "b 80 12"]:
  """What beats of 60 bpm would be at these patients' heart rates."""
  return _stretch(beat, _over_60_bpm(patient))


def _over_60_bpm(patient):
  """What the time behind QRS is, over what it is at 60 bpm."""
  rate = patient[:, 0] * PATIENT_STD[0] + PATIENT_MEAN[0]
  return (60 / jnp.clip(rate, _SLOWEST, _FASTEST)) ** _EXPONENT


def _stretch(beat, factor):
  """Moves what is t behind the kept part to t * factor; linear between samples.

  What comes from behind the last sample is that sample.
  """
  samples = jnp.arange(MEDIAN_SAMPLES, dtype=jnp.float32)
  behind = jnp.maximum(samples - MEDIAN_R - _KEPT * MODEL_RATE, 0)
  at = samples[None] + behind[None] * (1 / factor[:, None] - 1)
  at = jnp.minimum(at, MEDIAN_SAMPLES - 1)
  weight = jnp.maximum(1 - jnp.abs(at[:, :, None] - samples[None, None]), 0)
  return weight @ beat
