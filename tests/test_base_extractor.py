"""Properties of the base extractor, with prime sizes and random parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgtwin_jax.models import beat_rate
from ecgtwin_jax.models.base_extractor import (
  BaseExtractor,
  UnderCondition,
  contrastive_logits,
)
from helpers import weights

SIZES = dict(
  width=22, depth=2, heads=2, mlp_ratio=2, latent_channels=3, text_width=7
)
B, L, S = 2, 13, 5
MASK = np.array([[True] * 5, [True, True, True, False, False]])


def _random(seed, *shape):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


LATENT = _random(0, B, L, 3)
STATEMENTS = _random(1, B, S, 7)
PATIENT = _random(2, B, 3)
ARGS = (LATENT, STATEMENTS, MASK, PATIENT)


@functools.cache
def _build(**changes):
  model = BaseExtractor(**{**SIZES, **changes})
  return model, weights.draw(model.init, *ARGS)


@functools.cache
def _jitted(model):
  return jax.jit(model.apply)


def call(*args, changes=(), **options):
  """Returns base vectors of the jitted small extractor."""
  model, variables = _build(**dict(changes))
  return np.asarray(_jitted(model)(variables, *args, **options))


def test_published_parameter_count():
  shapes = [(1, 128, 4), (1, 2, 768), (1, 2), (1, 3)]
  types = ["f4", "f4", "bool", "f4"]
  args = map(jax.ShapeDtypeStruct, shapes, types)
  variables = jax.eval_shape(BaseExtractor().init, jax.random.key(0), *args)
  assert sum(a.size for a in jax.tree.leaves(variables)) == 3_361_025


def test_base_is_the_mean_of_the_tokens():
  model, variables = _build()
  positions = jax.jit(functools.partial(model.apply, method="tokens"))
  tokens = positions(variables, *ARGS)
  assert tokens.shape == (B, L, 22)
  np.testing.assert_allclose(call(*ARGS), tokens.mean(axis=1), atol=1e-5)


def test_every_input_matters():
  base = call(*ARGS)
  assert np.isfinite(base).all()
  for i in (0, 1, 3):
    changed = [-a if i == j else a for j, a in enumerate(ARGS)]
    assert np.abs(call(*changed) - base).max() > 1e-3, i
  assert np.abs(call(LATENT[:, ::-1], *ARGS[1:]) - base).max() > 1e-3


READ = (
  ("identity_tokens", 3),
  ("token_width", 5),
  ("median_beat", True),
  ("null_condition", True),
)
BEAT = dict(
  median_beat=_random(3, B, 80, 12) / 5, median_beat_found=np.array([1, 0])
)


@functools.cache
def _build_reader():
  model = BaseExtractor(**{**SIZES, **dict(READ)})

  def everything(module):
    base = module(*ARGS, **BEAT)
    return module.predict_beat(base, *ARGS[1:])

  return model, weights.draw(model.init, method=everything)


@functools.cache
def _jitted_reader(method):
  model, _ = _build_reader()
  return jax.jit(functools.partial(model.apply, method=method))


def read(*args, method="__call__", **options):
  """Returns what a small extractor with identity tokens and beats gives."""
  out = _jitted_reader(method)(_build_reader()[1], *args, **options)
  return np.asarray(out)


def test_identity_tokens_and_median_beat_make_the_base_vector():
  base = read(*ARGS, **BEAT)
  assert base.shape == (B, 3 * 5) == (B, _build_reader()[0].base_width)
  changed = {**BEAT, "median_beat": -BEAT["median_beat"]}
  other = read(*ARGS, **changed)
  assert np.abs(other[0] - base[0]).max() > 1e-3
  # Where none was found, what stands there instead is not read.
  np.testing.assert_array_equal(other[1], base[1])
  np.testing.assert_allclose(read(*ARGS)[1], base[1], atol=1e-6)
  assert np.abs(read(*ARGS)[0] - base[0]).max() > 1e-3


def test_a_beats_pieces_have_their_places():
  _, variables = _build_reader()
  params = dict(variables["params"])
  # Without what reads the beat at once: that knows places by itself.
  params["beat_reading"] = jax.tree.map(jnp.zeros_like, params["beat_reading"])
  pieces = BEAT["median_beat"].reshape(B, 20, 4, 12)
  swapped = {**BEAT, "median_beat": pieces[:, ::-1].reshape(B, 80, 12)}
  run = functools.partial(_jitted_reader("__call__"), {"params": params}, *ARGS)
  assert np.abs(run(**BEAT) - run(**swapped))[0].max() > 1e-3


def test_what_goes_straight_through_is_added_and_begins_at_zero():
  module = UnderCondition(hidden=3, features=5)
  x, condition = _random(6, B, 7), _random(7, B, 2)
  params = module.init(jax.random.key(0), x, condition)["params"]
  np.testing.assert_array_equal(params["direct"]["kernel"], 0)
  weight = _random(8, 7, 5)
  moved = {**params, "direct": {"kernel": weight}}
  np.testing.assert_allclose(
    module.apply({"params": moved}, x, condition),
    module.apply({"params": params}, x, condition) + x @ weight,
    rtol=1e-5,
    atol=1e-5,
  )


def test_gated_blocks_add_nothing_at_first_and_multiply_by_the_condition():
  x, condition = _random(6, B, 7), _random(7, B, 2)
  plain, gated = (UnderCondition(hidden=3, features=5, gates=n) for n in (0, 1))
  params = gated.init(jax.random.key(0), x, condition)["params"]
  own = plain.init(jax.random.key(0), x, condition)["params"]
  assert params.keys() - own.keys() == {
    *("norm_0", "change_0", "change_condition_0", "gate_0", "add_0")
  }
  shared = {name: params[name] for name in own}
  first = plain.apply({"params": shared}, x, condition)
  np.testing.assert_array_equal(
    gated.apply({"params": params}, x, condition), first
  )
  add = {"kernel": _random(8, 3, 3), "bias": jnp.zeros(3)}
  open_gate = jax.tree.map(jnp.zeros_like, params["gate_0"])
  closed = {**open_gate, "bias": -jnp.ones(3)}  # 1 + gate is 0
  shown = {
    name: gated.apply(
      {"params": {**params, "add_0": add, "gate_0": gate}}, x, condition
    )
    for name, gate in (("open", open_gate), ("closed", closed))
  }
  np.testing.assert_allclose(shown["closed"], first, atol=1e-6)
  assert np.abs(shown["open"] - first).max() > 1e-3


def test_the_predicted_beat_depends_on_person_and_condition():
  base = _random(5, B, 15)
  beat = read(base, *ARGS[1:], method="predict_beat")
  assert beat.shape == (B, 80, 12)
  dirty = np.where(MASK[:, :, None], STATEMENTS, np.nan).astype(np.float32)
  same = read(base, dirty, *ARGS[2:], method="predict_beat")
  np.testing.assert_array_equal(same, beat)
  for changed in (
    (-base, *ARGS[1:]),
    (base, -STATEMENTS, *ARGS[2:]),
    (base, *ARGS[1:3], -PATIENT),
  ):
    other = read(*changed, method="predict_beat")
    assert np.abs(other - beat).max() > 1e-3
  unknown = np.full_like(PATIENT, np.nan)
  alone = read(base, *ARGS[1:3], unknown, method="predict_beat")
  assert np.isfinite(alone).all()


def test_a_beat_is_read_and_foretold_as_at_60_bpm(monkeypatch):
  module, variables = _build_reader()
  base = _random(5, B, 15)
  moved = beat_rate.at_60_bpm(jnp.asarray(BEAT["median_beat"]), PATIENT)
  seen = module.apply(variables, *ARGS, **BEAT)
  beat = module.apply(variables, base, *ARGS[1:], method="predict_beat")
  stretch = beat_rate.from_60_bpm
  for name in ("at_60_bpm", "from_60_bpm"):
    monkeypatch.setattr(beat_rate, name, lambda beat, patient: beat)
  same = module.apply(variables, *ARGS, **{**BEAT, "median_beat": moved})
  np.testing.assert_allclose(same, seen, atol=1e-5)
  assert np.abs(module.apply(variables, *ARGS, **BEAT) - seen)[0].max() > 1e-3
  at_60 = module.apply(variables, base, *ARGS[1:], method="predict_beat")
  np.testing.assert_allclose(stretch(at_60, PATIENT), beat, atol=1e-5)
  assert np.abs(at_60 - beat).max() > 1e-3


def test_padding_changes_nothing_and_has_no_gradient():
  model, variables = _build()

  def run(statements):
    base = model.apply(variables, LATENT, statements, MASK, PATIENT)
    return (base**2).sum(), base

  step = jax.jit(jax.value_and_grad(run, has_aux=True))
  (_, base), gradient = step(STATEMENTS)
  dirty = np.where(MASK[:, :, None], STATEMENTS, np.nan).astype(np.float32)
  (_, same), other = step(dirty)
  np.testing.assert_array_equal(same, base)
  np.testing.assert_array_equal(other, gradient)
  assert (np.asarray(gradient)[~MASK] == 0).all()
  assert (np.asarray(gradient)[MASK] != 0).all()
  more = ((0, 0), (0, 18 - S))
  longer = np.pad(dirty, (*more, (0, 0)), constant_values=np.nan)
  padded = call(LATENT, longer, np.pad(MASK, more), PATIENT)
  assert np.abs(padded - base).max() < 1e-5


def test_no_valid_statement_subtracts_exactly_nothing():
  model, variables = _build()
  mask = np.array([[False] * S, [True] * S])
  base = call(LATENT, STATEMENTS, mask, PATIENT)

  def silence(path, a):
    names = {k.key for k in path}
    return jnp.zeros_like(a) if {"cross_attention", "out_proj"} <= names else a

  silent = jax.tree_util.tree_map_with_path(silence, variables)
  expected = _jitted(model)(silent, LATENT, STATEMENTS, mask, PATIENT)
  np.testing.assert_array_equal(base[0], expected[0])
  assert np.abs(base[1] - expected[1]).max() > 1e-3
  empty = call(LATENT, np.zeros((B, 0, 7), np.float32), None, PATIENT)
  np.testing.assert_allclose(empty[0], base[0], atol=1e-6)


def test_the_condition_is_only_ever_subtracted():
  # With one layer, no feed-forward and no self-attention, what is left of the
  # tokens is never above what they were.
  model, variables = _build(depth=1)

  def silence(path, a):
    names = {k.key for k in path}
    quiet = {"linear_2", "self_attention"} & names
    return jnp.zeros_like(a) if quiet else a

  quiet = jax.tree_util.tree_map_with_path(silence, variables)
  tokens = jax.jit(functools.partial(model.apply, method="tokens"))
  left = tokens(quiet, *ARGS)
  none = np.zeros_like(MASK)
  start = tokens(quiet, LATENT, STATEMENTS, none, PATIENT)
  assert (left <= start).all()
  assert 0.2 < np.mean(left < start) < 0.8


def test_dropped_text_is_the_unconditional_form():
  drop = np.array([True, False])
  mixed = call(*ARGS, drop_text=drop)
  unconditional = call(LATENT, None)
  np.testing.assert_allclose(mixed[0], unconditional[0], atol=1e-6)
  np.testing.assert_allclose(mixed[1], call(*ARGS)[1], atol=1e-6)
  assert np.abs(unconditional - call(*ARGS)).max() > 1e-3
  np.testing.assert_array_equal(call(LATENT, None, None, None), unconditional)
  empty = np.zeros((B, 0, 7), np.float32)
  both = call(LATENT, empty, None, PATIENT, drop_text=np.ones(B, bool))
  np.testing.assert_allclose(both, unconditional, atol=1e-6)


def test_a_tree_made_without_text_takes_text():
  model = BaseExtractor(**SIZES)
  with_text, without = (
    jax.eval_shape(model.init, jax.random.key(0), LATENT, *rest)
    for rest in (ARGS[1:], (None,))
  )
  assert with_text == without


def test_missing_patient_entries_are_learned():
  changes = (("null_condition", True),)
  model, variables = _build(null_condition=True)
  missing, filled = PATIENT.copy(), PATIENT.copy()
  missing[0, 1] = np.nan
  filled[0, 1] = variables["params"]["null_patient"][1]
  base = call(LATENT, STATEMENTS, MASK, missing, changes=changes)
  expected = call(LATENT, STATEMENTS, MASK, filled, changes=changes)
  np.testing.assert_array_equal(base, expected)

  def loss(v):
    return (model.apply(v, LATENT, STATEMENTS, MASK, missing) ** 2).sum()

  gradient = jax.jit(jax.grad(loss))(variables)["params"]
  assert gradient["null_patient"][1] != 0
  assert gradient["null_patient"][0] == gradient["null_patient"][2] == 0
  assert all(np.isfinite(a).all() for a in jax.tree.leaves(gradient))


def test_remat_computes_the_same():
  _, variables = _build()

  def gradient(remat):
    model = BaseExtractor(remat=remat, **SIZES)
    loss = lambda v: (model.apply(v, *ARGS) ** 2).mean()  # noqa: E731
    return jax.tree.leaves(jax.jit(jax.grad(loss))(variables))

  for a, b in zip(gradient(False), gradient(True)):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_bfloat16_products_keep_float32_around_them():
  low = call(*ARGS, changes=(("dtype", "bfloat16"),))
  assert low.dtype == np.float32
  assert 1e-6 < np.abs(low - call(*ARGS)).max() < 0.1


def test_contrastive_logits_by_hand():
  a = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
  b = np.array([[5.0, 0.0], [0.0, 2.0], [1.0, 1.0]], np.float32)
  scale = np.log(10)
  logits = contrastive_logits(a, b, scale)
  expected = [[6, 8, 10 * 7 / (5 * np.sqrt(2))], [0, 0, 0]]
  np.testing.assert_allclose(logits, expected, rtol=1e-6)
  gradient = jax.grad(lambda a: contrastive_logits(a, b, scale).sum())(a)
  assert np.isfinite(gradient).all()


def test_errors():
  model = BaseExtractor(**SIZES)
  patched = BaseExtractor(**SIZES, latent_patch=2)
  with pytest.raises(ValueError, match=r"length=13 must be divisible by .*=2"):
    jax.eval_shape(patched.init, jax.random.key(0), *ARGS)
  with pytest.raises(ValueError, match=r"\(2, 79, 12\) must be \(b, 80, 12\)"):
    short = {**BEAT, "median_beat": BEAT["median_beat"][:, 1:]}
    _jitted_reader("__call__").eval_shape(_build_reader()[1], *ARGS, **short)
  with pytest.raises(ValueError, match="channels=4 must be 3"):
    jax.eval_shape(
      model.init, jax.random.key(0), _random(0, B, L, 4), *ARGS[1:]
    )
  with pytest.raises(ValueError, match="width=8 must be text_width=7"):
    statements = _random(0, B, S, 8)
    jax.eval_shape(
      model.init, jax.random.key(0), LATENT, statements, MASK, PATIENT
    )
