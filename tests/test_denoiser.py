"""Properties of the denoiser, with prime sizes and random parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgtwin_jax.models.denoiser import Denoiser
from ecgtwin_jax.models.injector import INJECTORS
from helpers import weights
from helpers.denoisers import (
  MASK,
  SIZES,
  B,
  L,
  S,
  build,
  call,
  inputs,
  start,
)

CASES = [*((injector, "dit") for injector in INJECTORS), ("adax", "unet")]
each_case = pytest.mark.parametrize("injector, backbone", CASES)


@each_case
def test_every_input_matters(injector, backbone):
  model, variables, args = build(injector, backbone)
  out = np.asarray(call(model, variables, args))
  assert out.shape == args[0].shape and out.dtype == np.float32
  assert np.isfinite(out).all()
  other = inputs(args[0].shape[1], seed=1)
  for i in (0, 1, 2, 4, 5):
    changed = [other[i] if i == j else a for j, a in enumerate(args)]
    assert np.abs(call(model, variables, changed) - out).max() > 1e-3, i
  fewer = [*args[:3], MASK & (np.arange(S) < 2)[None], *args[4:]]
  assert np.abs(call(model, variables, fewer) - out).max() > 1e-3


@pytest.mark.parametrize("backbone", ["dit", "unet"])
def test_zero_modulations_mean_no_dependence_on_time_and_base(backbone):
  model, _, args = build("adax", backbone)
  variables = start(model, args[0].shape[1])
  out = call(model, variables, args)
  latent, _, statements, mask, patient, base = args
  other = [latent, np.array([1, 998]), statements, mask, patient, base + 1]
  np.testing.assert_array_equal(call(model, variables, other), out)
  assert np.abs(out).max() > 0.01


@pytest.mark.parametrize("injector", ["adaln", "cross_attention"])
def test_ablations_start_at_zero_noise(injector):
  model, _, args = build(injector)
  variables = start(model, L)
  assert (np.asarray(call(model, variables, args)) == 0).all()


@each_case
def test_padding_changes_nothing_and_has_no_gradient(injector, backbone):
  model, variables, args = build(injector, backbone)

  def run(statements):
    out = model.apply(variables, *args[:2], statements, *args[3:])
    return (out**2).sum(), out

  step = jax.jit(jax.value_and_grad(run, has_aux=True))
  (_, out), gradient = step(args[2])
  dirty = np.where(MASK[:, :, None], args[2], np.nan).astype(np.float32)
  (_, same), other_gradient = step(dirty)
  np.testing.assert_array_equal(same, out)
  np.testing.assert_array_equal(gradient, other_gradient)
  gradient = np.asarray(gradient)
  assert (gradient[~MASK] == 0).all()
  assert (gradient[MASK] != 0).all()


@each_case
def test_more_padding_changes_next_to_nothing(injector, backbone):
  model, variables, args = build(injector, backbone)
  latent, t, statements, mask, patient, base = args
  more = ((0, 0), (0, 18 - S))
  longer = np.pad(statements, (*more, (0, 0)), constant_values=np.nan)
  out = call(model, variables, args)
  padded = [latent, t, longer, np.pad(mask, more), patient, base]
  error = np.abs(call(model, variables, padded) - out).max()
  assert error < 1e-5 * max(1, np.abs(out).max())


@each_case
def test_no_valid_statement_adds_exactly_nothing(injector, backbone):
  model, variables, args = build(injector, backbone)
  args[3] = np.array([[False] * S, [True] * S])
  out = np.asarray(call(model, variables, args))

  def silence(path, a):
    names = [k.key for k in path]
    text = {"out_proj", "text_projection"} & set(names)
    inside = {"cross_attention", "text_projection"} & set(names)
    return jnp.zeros_like(a) if text and inside else a

  silent = jax.tree_util.tree_map_with_path(silence, variables)
  expected = np.asarray(call(model, silent, args))
  np.testing.assert_array_equal(out[0], expected[0])
  assert np.abs(out[1] - expected[1]).max() > 1e-3
  empty = [*args[:2], np.zeros((B, 0, 11), np.float32), None, *args[4:]]
  np.testing.assert_allclose(
    call(model, variables, empty)[0], out[0], atol=1e-6
  )


@pytest.mark.parametrize("injector", ["adax", "cross_attention"])
def test_attention_maps(injector):
  model, variables, args = build(injector, depth=2)
  plain = call(model, variables, args)
  out, heads = call(model, variables, args, return_attention="heads")
  _, mean = call(model, variables, args, return_attention=True)
  np.testing.assert_allclose(out, plain, atol=1e-6)
  assert heads.shape == (2, B, 2, L, S) and mean.shape == (2, B, L, S)
  np.testing.assert_allclose(mean, heads.mean(axis=2), atol=1e-6)
  np.testing.assert_allclose(heads.sum(axis=-1), 1, atol=1e-5)
  assert (np.asarray(heads)[:, 1, :, :, 3:] == 0).all()


@pytest.mark.parametrize("backbone", ["dit", "unet"])
def test_own_maps_given_back_change_nothing(backbone):
  model, variables, args = build("adax", backbone, depth=2)
  out, maps = call(model, variables, args, return_attention="heads")
  given = call(model, variables, args, attention=maps)
  np.testing.assert_allclose(given, out, atol=1e-5)
  same = call(model, variables, args, attention=lambda i, own: maps[i])
  np.testing.assert_allclose(same, given, atol=1e-5)


def test_given_maps_are_used_as_they_are():
  model, variables, args = build(depth=2)
  _, maps = call(model, variables, args, return_attention="heads")
  doubled, used = call(
    model, variables, args, attention=2 * maps + 1, return_attention="heads"
  )
  np.testing.assert_array_equal(used, 2 * maps + 1)
  own, _ = call(
    model,
    variables,
    args,
    attention=lambda i, own: jnp.where(i == 0, 2 * own + 1, 2 * maps[i] + 1),
    return_attention="heads",
  )
  np.testing.assert_allclose(own, doubled, atol=1e-5)


@pytest.mark.parametrize("injector", INJECTORS)
def test_missing_entries_and_dropped_reports(injector):
  model, variables, args = build(injector, null_condition=True)
  latent, t, statements, mask, patient, base = args
  null = jax.tree.map(np.asarray, variables["params"])
  missing, filled = patient.copy(), patient.copy()
  missing[1, 1:] = np.nan
  filled[1, 1:] = null["null_patient"][1:]
  drop = np.array([True, False])
  out = call(
    model,
    variables,
    [latent, t, statements, mask, missing, base],
    drop_statements=drop,
  )
  replaced, one = statements.copy(), mask.copy()
  replaced[0, 0], one[0] = null["null_statement"], np.arange(S) == 0
  expected = call(model, variables, [latent, t, replaced, one, filled, base])
  np.testing.assert_allclose(out, expected, atol=1e-6)

  def loss(variables):
    out = model.apply(variables, *args[:4], missing, base, drop_statements=drop)
    return (out**2).sum()

  if injector != "adax":  # what is learned of them is one code for all
    return
  gradient = jax.jit(jax.grad(loss))(variables)["params"]
  assert (np.asarray(gradient["null_statement"]) != 0).all()
  assert gradient["null_patient"][0] == 0
  assert (np.asarray(gradient["null_patient"])[1:] != 0).all()
  assert all(np.isfinite(a).all() for a in jax.tree.leaves(gradient))


@pytest.mark.parametrize("backbone", ["dit", "unet"])
def test_a_track_is_read_where_it_is_asked_for(backbone):
  model, _, args = build(
    "adax", backbone, beat_track="timing", null_condition=True
  )
  rng = np.random.default_rng(2)
  track = rng.standard_normal((B, args[0].shape[1], 8)).astype(np.float32)
  args = [*args, track]
  variables = weights.draw(model.init, *args)
  without = jax.tree_util.tree_map_with_path(
    lambda keys, a: a * ("track_embedding" not in str(keys)), variables
  )
  out = call(model, variables, args)
  assert np.abs(call(model, without, args) - out).max() > 1e-3
  silent = [*args[:6], np.zeros_like(track)]
  alone = call(model, variables, args[:6])
  np.testing.assert_allclose(call(model, variables, silent), alone, atol=1e-6)
  # A position's track is told to that position first.
  moved = track.copy()
  moved[:, 0] += 1
  assert np.abs(call(model, variables, [*args[:6], moved]) - out).max() > 1e-3


def test_dropping_needs_no_row_to_stand_in():
  model, variables, args = build(null_condition=True)
  args[2], args[3] = np.zeros((B, 0, 11), np.float32), None
  drop = np.ones(B, bool)
  out = call(model, variables, args, drop_statements=drop)
  args[2], args[3] = np.zeros((B, 2, 11), np.float32), np.zeros((B, 2), bool)
  other = call(model, variables, args, drop_statements=drop)
  np.testing.assert_allclose(out, other, atol=1e-6)


@pytest.mark.parametrize("backbone", ["dit", "unet"])
def test_remat_computes_the_same(backbone):
  results = []
  for remat in (False, True):
    model, variables, args = build("adax", backbone, remat=remat)

    def loss(v, model=model, args=args):
      return (model.apply(v, *args) ** 2).sum()

    results.append(jax.jit(jax.value_and_grad(loss))(variables))
  for a, b in zip(*map(jax.tree.leaves, results)):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backbone", ["dit", "unet"])
def test_bfloat16_products_keep_float32_around_them(backbone):
  model, variables, args = build("adax", backbone)
  out = np.asarray(call(model, variables, args))
  low, start, _ = build("adax", backbone, dtype="bfloat16")
  assert {a.dtype for a in jax.tree.leaves(start)} == {jnp.dtype("float32")}
  rounded = call(low, variables, args)
  assert rounded.dtype == jnp.float32
  error = np.abs(rounded - out).max() / np.abs(out).max()
  assert 1e-5 < error < 0.1


def test_init_is_as_stated():
  model = Denoiser()
  args = [
    jax.ShapeDtypeStruct(shape, dtype)
    for shape, dtype in (
      ((1, 128, 4), "f4"),
      ((1,), "i4"),
      ((1, 2, 768), "f4"),
      ((1, 2), "bool"),
      ((1, 3), "f4"),
      ((1, 256), "f4"),
    )
  ]
  shapes = jax.eval_shape(model.init, jax.random.key(0), *args)
  assert sum(a.size for a in jax.tree.leaves(shapes)) == 10_541_060
  small, _, _ = build()
  p = start(small, L)["params"]
  time = p["condition"]["time_mlp"]["linear_1"]["kernel"]
  assert 0.017 < np.std(time) < 0.023
  bound = np.sqrt(6 / (34 + 3 * 34))
  packed = np.abs(p["block_0"]["self_attention"]["in_kernel"]).max()
  assert 0.95 * bound < packed <= bound
  table = p["condition"]["positions"]
  np.testing.assert_allclose(table[0], [1] * 17 + [0] * 17, atol=1e-6)
  assert p["output"]["kernel"].any()


@pytest.mark.parametrize(
  "changes, options, message",
  [
    (dict(injector="film"), {}, "injector='film' must be in"),
    (dict(backbone="mamba"), {}, "backbone='mamba' must be in"),
    (dict(latent_channels=5), {}, "channels=3 must be 5"),
    (dict(base_width=8), {}, "width=7 must be 8"),
    (dict(text_width=8), {}, "width=11 must be text_width=8"),
    (dict(positions=4), {}, "report of 5 rows must have at most"),
    (dict(beat_track="beats"), {}, "beat_track='beats' must be in"),
    (
      dict(beat_track="kinds"),
      dict(track=np.ones((B, L, 8), np.float32)),
      "track of 8 channels must have 13",
    ),
    (
      dict(injector="adaln"),
      dict(return_attention=True),
      "'adaln' has no attention",
    ),
    ({}, dict(return_attention="head"), "must be False, True or 'heads'"),
    (
      {},
      dict(drop_statements=np.ones(B, bool)),
      "drop_statements needs null_condition=True",
    ),
    (
      {},
      dict(attention=np.ones((2, B, 2, L, S + 1), np.float32)),
      r"given maps \(2, 2, 13, 6\) must be \(2, 2, 13, 5\)",
    ),
    (
      {},
      dict(attention=np.ones((3, B, 2, L, S), np.float32)),
      "blocks must be of 2",
    ),
  ],
)
def test_errors(changes, options, message):
  model = Denoiser(**{**SIZES, **changes})
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(
      functools.partial(model.init, **options), jax.random.key(0), *inputs()
    )
