"""When each beat falls and what kind it is, one beat after the other.

p(rhythm) = prod_k p(kind_k | past) p(P wave_k | kind_k, past)
            p(RR_k | kind_k, past)

A GRU carries the past, a report and a patient vector condition it. An interval
is y = log(RR / usual RR), a mixture of logistics; usual RR is 60 / heart rate.
Letters of shapes: b batch, n beats, k kinds, m components, d width.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from ecgtwin_jax.constants import TEXT_WIDTH
from ecgtwin_jax.models import layers
from ecgtwin_jax.models.layers import Array

KINDS = 4  # usual, PVC, PAC, paced
_LIMIT = 1.6  # of |y|: an interval is 1/5 to 5 times the usual one
_NARROWEST = 0.005  # scale of a logistic: half a sample of the detector
_MISSED = 0.02  # s: no beat is this near to the end


class Prediction(NamedTuple):
  """Of one beat, given those before it.

  Attributes:
    kind: log probabilities of the kinds.
    p_wave: logit of a P wave before a beat of each kind.
    weight: log probabilities of the components of y, for each kind.
    center: their centers.
    scale: their scales.
  """

  kind: Float[Array, "*b k"]
  p_wave: Float[Array, "*b k"]
  weight: Float[Array, "*b k parts"]
  center: Float[Array, "*b k parts"]
  scale: Float[Array, "*b k parts"]


# (time, kind, p_wave) of rhythms.
Drawn = tuple[
  Float[jax.Array, "b beats"],
  Int[jax.Array, "b beats"],
  Int[jax.Array, "b beats"],
]


class RhythmModel(nn.Module):
  """Predicts each beat from those before it, a report and a patient vector.

  Source: the mixture of logistics is that of Salimans et al., arXiv 1701.05517
  (PixelCNN++); the rest is ours.
  """

  width: int = 64
  components: int = 8
  text_width: int = TEXT_WIDTH

  def setup(self) -> None:
    def dense(features, name):
      return layers.Dense(features, name=name)

    self.statement = dense(self.width, "statement")
    self.hidden = dense(self.width, "hidden")
    self.context = dense(self.width, "context")
    self.null_patient = self.param("null_patient", layers.zeros, (3,))
    self.cell = nn.GRUCell(self.width)
    self.past = nn.RNN(self.cell)
    self.joint = dense(2 * self.width, "joint")
    self.heads = dense(KINDS * (2 + 3 * self.components), "heads")

  def condition(
    self,
    statements: Float[Array, "b s e"],
    mask: Bool[Array, "b s"],
    patient: Float[Array, "b 3"],
  ) -> Float[jax.Array, "b d"]:
    """What the report and the patient vector say of every beat.

    The order of the statements does not matter, padding has no effect; NaN
    entries of the patient vector are replaced by learned ones.
    """
    statements, mask = layers.whole_report(statements, mask, self.text_width)
    statements = jnp.where(mask[..., None], statements, 0)
    each = nn.gelu(self.statement(statements))
    said = jnp.where(mask[..., None], each, 0).sum(axis=1)
    patient = layers.fill_missing(patient, self.null_patient)
    hidden = nn.gelu(self.hidden(jnp.concatenate([said, patient], axis=-1)))
    return self.context(hidden)

  def step(
    self,
    state: Float[Array, "b d"],
    past: Float[Array, "b f"],
    context: Float[Array, "b d"],
  ) -> tuple[Float[jax.Array, "b d"], Prediction]:
    """Takes in a beat (see `features`) and predicts the next one."""
    inputs = jnp.concatenate([past, context], axis=-1)
    state, out = self.cell(state, inputs)
    return state, self._predict(out, past, context)

  def _predict(self, out, past, context) -> Prediction:
    both = jnp.concatenate([out, past, context], axis=-1)
    raw = self.heads(nn.gelu(self.joint(both)))
    kind, p_wave, raw = jnp.split(raw, (KINDS, 2 * KINDS), axis=-1)
    raw = raw.reshape(*raw.shape[:-1], KINDS, 3, self.components)
    weight, center, scale = jnp.moveaxis(raw, -2, 0)
    # Components start spread over what intervals there are.
    spread = jnp.linspace(-0.5, 0.5, self.components)
    return Prediction(
      jax.nn.log_softmax(kind),
      p_wave,
      jax.nn.log_softmax(weight),
      0.3 * center + spread[(None,) * (center.ndim - 1)],
      _NARROWEST + 0.1 * jax.nn.softplus(scale),
    )

  def __call__(
    self,
    time: Float[Array, "b beats"],
    kind: Int[Array, "b beats"],
    p_wave: Int[Array, "b beats"],
    usual: Float[Array, " b"],
    statements: Float[Array, "b s e"],
    mask: Bool[Array, "b s"],
    patient: Float[Array, "b 3"],
  ) -> Prediction:
    """Predicts every beat of known rhythms, (b, n, ...).

    Args:
      time: times of the R peaks in seconds, anything behind the last beat.
      kind: 0 to KINDS - 1, -1 behind the last beat.
      p_wave: 1 where a P wave precedes the beat.
      usual: 60 / heart rate, seconds.
      statements: embedded report.
      mask: True for statements.
      patient: standardised heart rate, age, sex; NaN: not known.
    """
    context = self.condition(statements, mask, patient)
    past = features(time, kind, p_wave, usual)
    context = jnp.broadcast_to(
      context[:, None], (*past.shape[:2], context.shape[-1])
    )
    inputs = jnp.concatenate([past, context], axis=-1)
    out = self.past(inputs)
    return self._predict(out, past, context)


def features(
  time: Float[Array, "b beats"],
  kind: Int[Array, "b beats"],
  p_wave: Int[Array, "b beats"],
  usual: Float[Array, " b"],
) -> Float[jax.Array, "b beats f"]:
  """What the model is told before each beat: the beat before that one.

  Before the first beat it is told when that one comes, which is drawn first.
  """
  time = jnp.where(kind >= 0, time, 0)
  usual = usual[:, None]
  y = log_ratios(time, kind, usual)
  previous = jnp.concatenate([time[:, :1], time[:, :-1]], axis=1)

  def shift(x, first):
    return jnp.pad(x[:, :-1], ((0, 0), (1, 0)), constant_values=first)

  kind = shift(kind, -1)
  counts = jnp.cumsum(jax.nn.one_hot(kind, KINDS), axis=1)
  return beat_features(
    previous, shift(y, 0), kind, shift(p_wave, 0), counts, usual
  )


def beat_features(
  time: Float[Array, "*b"],
  y: Float[Array, "*b"],
  kind: Int[Array, "*b"],
  p_wave: Int[Array, "*b"],
  counts: Float[Array, "*b k"],
  usual: Float[Array, "..."],
) -> Float[jax.Array, "*b f"]:
  """One beat as numbers of about 1; kind -1: none has been.

  `counts` are those of the kinds so far: a report of a premature beat is true
  of one beat as of three, but not of none.
  """
  left = jnp.clip((10 - time) / usual, 0, 4)
  numbers = (time / 10, left / 4, 3 * y, jnp.tanh(20 * y), p_wave)
  known = jax.nn.one_hot(kind, KINDS)  # zeros for -1
  numbers = jnp.stack([jnp.asarray(x, jnp.float32) for x in numbers], -1)
  return jnp.concatenate([numbers, known, jnp.minimum(counts / 3, 1)], -1)


def log_ratios(
  time: Float[Array, "b k"], kind: Int[Array, "b k"], usual: Float[Array, "b 1"]
) -> Float[Array, "b k"]:
  """y = log(RR / usual RR) of the interval before each beat; else 0."""
  interval = jnp.diff(time, axis=1)
  within = kind[:, 1:] >= 0
  ratio = jnp.where(within, interval / usual, 1)
  y = jnp.clip(jnp.log(jnp.maximum(ratio, 1e-3)), -_LIMIT, _LIMIT)
  return jnp.pad(y, ((0, 0), (1, 0)))


def log_likelihoods(
  predicted: Prediction,
  time: Float[Array, "b beats"],
  kind: Int[Array, "b beats"],
  p_wave: Int[Array, "b beats"],
  usual: Float[Array, " b"],
) -> dict[str, Float[jax.Array, " b"]]:
  """Log likelihood of rhythms, in parts whose sum it is.

  Returns:
    {"kind", "p_wave", "interval", "end"}: the last one that no further beat
    came within the 10 s. A row without beats has zeros.
  """
  real = kind >= 0
  own = jnp.maximum(kind, 0)[..., None]

  def of_kind(x):
    return jnp.take_along_axis(x, own, axis=-1)[..., 0]

  y = log_ratios(jnp.where(real, time, 0), kind, usual[:, None])
  z = (y[..., None, None] - predicted.center) / predicted.scale
  density = predicted.weight - jnp.log(predicted.scale)
  density += jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z)
  interval = of_kind(jax.scipy.special.logsumexp(density, axis=-1))
  logit = of_kind(predicted.p_wave)
  sign = jnp.where(p_wave > 0, 1, -1)
  count = real.sum(axis=1)
  # The interval that the end cuts off is longer than what is left of it.
  last = jnp.max(jnp.where(real, time, 0), axis=1)
  left = jnp.log(jnp.maximum((10 - last) / usual, 1e-3))
  z = (left[:, None, None, None] - predicted.center) / predicted.scale
  survival = predicted.weight + jax.nn.log_sigmoid(-z)
  end = predicted.kind + jax.scipy.special.logsumexp(survival, axis=-1)
  end = jax.scipy.special.logsumexp(end, axis=-1)
  position = jnp.arange(kind.shape[1])[None]
  rows = {
    "kind": jnp.where(real, of_kind(predicted.kind), 0),
    "p_wave": jnp.where(real, jax.nn.log_sigmoid(sign * logit), 0),
    "interval": jnp.where(real & (position > 0), interval, 0),
    "end": jnp.where(
      (position == count[:, None]) & (position > 0), jnp.maximum(end, -20), 0
    ),
  }
  return {name: value.sum(axis=1) for name, value in rows.items()}


def sample(
  module: RhythmModel,
  variables: Any,
  rngs: Key[Array, " b"],
  statements: Float[Array, "b s e"],
  mask: Bool[Array, "b s"],
  patient: Float[Array, "b 3"],
  usual: Float[Array, " b"],
  length: int,
) -> Drawn:
  """Draws rhythms whose mean RR interval is the usual one; see `fit_rate`.

  Args:
    module: the model.
    variables: its weights.
    rngs: one key per row, on which the row's draws depend alone.
    statements: embedded report.
    mask: True for statements.
    patient: standardised heart rate, age, sex; NaN: not known.
    usual: 60 / heart rate, seconds.
    length: n, beats at most.

  Returns:
    (time, kind, p_wave) as `RhythmModel` takes them, NaN, -1, -1 behind the
    last beat.
  """

  def draw(function, step, number, *inputs):
    def one(rng, *row):
      key = jax.random.fold_in(jax.random.fold_in(rng, step), number)
      return function(key, *row)

    return jax.vmap(one)(rngs, *inputs)

  condition = (statements, mask, patient)
  return sample_with(module, variables, draw, *condition, usual, length)


def from_uniforms(uniforms: Float[Array, "b steps 4"]) -> Callable:
  """`draw` of `sample_with`, by the inverse of each distribution function.

  Args:
    uniforms: at least one number in 0..1 more than beats, four for each.
  """

  def choose(u, logits):
    below = jnp.cumsum(jax.nn.softmax(logits), axis=1) < u[:, None]
    return jnp.minimum(below.sum(axis=1), logits.shape[1] - 1)

  inverse = {
    jax.random.uniform: lambda u: u,
    jax.random.logistic: lambda u: jnp.log(u) - jnp.log1p(-u),
    jax.random.bernoulli: lambda u, chance: u < chance,
    jax.random.categorical: choose,
  }

  def draw(function, step, number, *inputs):
    u = jnp.take(uniforms[:, :, number], step, axis=1, mode="clip")
    # Neither end has a logarithm.
    return inverse[function](jnp.clip(u, 1e-6, 1 - 1e-6), *inputs)

  return draw


def sample_with(
  module: RhythmModel,
  variables: Any,
  draw: Callable,
  statements: Float[Array, "b s e"],
  mask: Bool[Array, "b s"],
  patient: Float[Array, "b 3"],
  usual: Float[Array, " b"],
  length: int,
) -> Drawn:
  """`sample`, with draw(function, step, number, *inputs) of each row.

  `function` is one of jax.random; `number`, 0 to 3, numbers the draws of a
  step.
  """
  context = module.apply(
    variables, statements, mask, patient, method="condition"
  )
  first = draw(jax.random.uniform, length, 0) * usual
  number = usual.shape[0]

  def next_beat(carry, step):
    state, time, y, kind, p_wave, counts = carry
    counts += jax.nn.one_hot(kind, KINDS)
    past = beat_features(time, y, kind, p_wave, counts, usual)
    state, predicted = module.apply(
      variables, state, past, context, method="step"
    )
    kind = draw(jax.random.categorical, step, 0, predicted.kind)

    def of_kind(x):
      return jnp.take_along_axis(
        x, kind.reshape(-1, *[1] * (x.ndim - 1)), axis=1
      )[:, 0]

    chance = jax.nn.sigmoid(of_kind(predicted.p_wave))
    p_wave = draw(jax.random.bernoulli, step, 1, chance).astype(jnp.int32)
    component = draw(jax.random.categorical, step, 2, of_kind(predicted.weight))
    center, scale = (
      jnp.take_along_axis(of_kind(x), component[:, None], axis=1)[:, 0]
      for x in (predicted.center, predicted.scale)
    )
    y = center + scale * draw(jax.random.logistic, step, 3)
    y = jnp.where(step == 0, 0, jnp.clip(y, -_LIMIT, _LIMIT))
    time += jnp.where(step == 0, 0, jnp.exp(y) * usual)
    return (state, time, y, kind, p_wave, counts), (y, kind, p_wave)

  start = (
    jnp.zeros((number, module.width)),
    first,
    jnp.zeros(number),
    jnp.full(number, -1),
    jnp.zeros(number, jnp.int32),
    jnp.zeros((number, KINDS)),
  )
  _, (y, kind, p_wave) = jax.lax.scan(next_beat, start, jnp.arange(length))
  ratio, kind, p_wave = jnp.exp(y).T[:, 1:], kind.T, p_wave.T
  time, inside = fit_rate(first, ratio, usual)
  return (
    jnp.where(inside, time, jnp.nan),
    jnp.where(inside, kind, -1),
    jnp.where(inside, p_wave, -1),
  )


def fit_rate(
  first: Float[Array, " b"],
  ratio: Float[Array, "b ratios"],
  usual: Float[Array, " b"],
) -> tuple[Float[jax.Array, "b beats"], Bool[jax.Array, "b beats"]]:
  """Times of beats within 10 s whose mean interval is exactly the usual one.

  From the first beat, n beats with that mean end n - 1 usual intervals later,
  so n is as large as the 10 s allow, whatever the intervals are.

  Args:
    first: time of the first beat, seconds.
    ratio: ratio of the intervals after it, in any unit.
    usual: 60 / heart rate, seconds.

  Returns:
    Times in seconds, and which of them lie within the 10 s.
  """
  fitting = jnp.floor((10 - _MISSED - first) / usual).astype(jnp.int32)
  intervals = jnp.clip(fitting, 1, ratio.shape[1])[:, None]
  position = jnp.arange(ratio.shape[1])[None]
  mean = (
    jnp.where(position < intervals, ratio, 0).sum(axis=1, keepdims=True)
    / intervals
  )
  times = jnp.cumsum(ratio / mean * usual[:, None], axis=1)
  times = first[:, None] + jnp.pad(times, ((0, 0), (1, 0)))
  return times, jnp.arange(ratio.shape[1] + 1)[None] <= intervals
