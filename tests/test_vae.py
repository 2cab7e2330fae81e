"""Properties of the autoencoder at small sizes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgtwin_jax.data.leads import lead_residual
from ecgtwin_jax.models.vae import Decoder, Encoder, GroupNorm
from helpers import weights

SIZES = dict(widths=(6, 10), blocks=1, middle=1, groups=2, latent_channels=3)
B, L, LEADS = 2, 7, 5


def _random(*shape):
  return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _init(model, x):
  # About as large as those of a start, so that outputs are about 1.
  return jax.tree.map(lambda a: 0.7 * a, weights.draw(model.init, x))


@functools.cache
def _jitted(model):
  return jax.jit(model.apply)


def _apply(model, variables, x):
  return _jitted(model)(variables, x)


def test_group_norm_is_flax_s():
  x = 3 + 2 * _random(B, L, 6)
  ours, theirs = GroupNorm(2), nn.GroupNorm(2, epsilon=1e-5)
  variables = weights.draw(ours.init, x)
  expected = theirs.apply(variables, x)
  np.testing.assert_allclose(ours.apply(variables, x), expected, atol=1e-5)
  assert ours.apply(variables, x.astype(jnp.bfloat16)).dtype == jnp.float32


def test_shapes():
  encoder, decoder = Encoder(**SIZES), Decoder(leads=LEADS, **SIZES)
  signal, latent = _random(B, 4 * L, LEADS), _random(B, L, 3)
  mean, log_variance = _apply(encoder, _init(encoder, signal), signal)
  assert mean.shape == log_variance.shape == (B, L, 3)
  decoded = _apply(decoder, _init(decoder, latent), latent)
  assert decoded.shape == (B, 4 * L, LEADS)
  assert np.isfinite(decoded).all()


@pytest.mark.parametrize(
  "model, shape, count",
  [
    (Encoder(), (1, 1024, 12), 12_217_424),
    (Decoder(), (1, 128, 4), 17_332_640),
  ],
)
def test_published_parameter_counts(model, shape, count):
  x = jax.ShapeDtypeStruct(shape, "f4")
  variables = jax.eval_shape(model.init, jax.random.key(0), x)
  assert sum(a.size for a in jax.tree.leaves(variables)) == count


def test_decoder_divides_by_scale_and_leaves_its_input_alone():
  latent = _random(B, L, 3)
  before = latent.copy()
  variables = _init(Decoder(**SIZES), latent)
  decoded = _apply(Decoder(scale=0.25, **SIZES), variables, latent)
  np.testing.assert_array_equal(latent, before)
  plain = _apply(Decoder(scale=1.0, **SIZES), variables, latent * 4)
  np.testing.assert_allclose(decoded, plain, atol=1e-6)
  assert np.abs(decoded).max() > 0.1


def test_a_scale_per_channel_divides_each_channel():
  latent, scale = _random(B, L, 3), (0.5, 2.0, 3.0)
  variables = _init(Decoder(**SIZES), latent)
  decoded = _apply(Decoder(scale=scale, **SIZES), variables, latent)
  divided = latent / np.array(scale, np.float32)
  plain = _apply(Decoder(scale=1.0, **SIZES), variables, divided)
  np.testing.assert_allclose(decoded, plain, atol=1e-6)


def test_patches_lengthen_by_their_samples_and_keep_the_order_of_time():
  encoder = Encoder(patch=3, **SIZES)
  decoder = Decoder(leads=LEADS, patch=3, **SIZES)
  signal, latent = _random(B, 12 * L, LEADS), _random(B, L, 3)
  mean, _ = _apply(encoder, _init(encoder, signal), signal)
  assert mean.shape == (B, L, 3)
  variables = _init(decoder, latent)
  assert _apply(decoder, variables, latent).shape == (B, 12 * L, LEADS)
  # The last convolution alone: sample i of a patch, lead by lead.
  last = variables["params"]["conv_out"]
  last["kernel"] = np.zeros_like(last["kernel"])
  last["bias"] = np.arange(3.0 * LEADS, dtype=np.float32)
  decoded = _apply(decoder, variables, latent)
  rows = np.arange(3 * LEADS).reshape(3, LEADS)
  np.testing.assert_array_equal(decoded[0], np.tile(rows, (4 * L, 1)))


def test_independent_leads_add_up_and_the_others_are_not_read():
  options = dict(SIZES, independent_leads=True)
  encoder, decoder = Encoder(**options), Decoder(**options)
  signal, latent = _random(B, 4 * L, 12), _random(B, L, 3)
  variables = _init(encoder, signal)
  mean, _ = _apply(encoder, variables, signal)
  other = signal.copy()
  other[..., 2:6] = 7
  np.testing.assert_array_equal(_apply(encoder, variables, other)[0], mean)
  for lead in (0, 1, 6, 11):
    other = signal.copy()
    other[..., lead] += 1
    assert np.abs(_apply(encoder, variables, other)[0] - mean).max() > 1e-3
  decoded = np.asarray(_apply(decoder, _init(decoder, latent), latent))
  assert decoded.shape == (B, 4 * L, 12)
  assert decoded.std(axis=1).min() > 1e-3
  assert np.abs(lead_residual(decoded)).max() < 1e-6


def test_encoder_leaves_its_input_alone_and_clips_the_log_variance():
  encoder, signal = Encoder(**SIZES), _random(B, 4 * L, LEADS)
  before = signal.copy()
  variables = _init(encoder, signal)
  variables["params"]["moments"]["bias"] = np.array(
    [1e3, 0, -1e3, 1e3, 0, -1e3], np.float32
  )
  mean, log_variance = _apply(encoder, variables, signal)
  np.testing.assert_array_equal(signal, before)
  assert np.abs(mean).max() > 900
  assert (np.asarray(log_variance)[..., 0] == 20).all()
  assert (np.asarray(log_variance)[..., 2] == -30).all()
  assert np.std(log_variance[..., 1]) > 0


@pytest.mark.parametrize("model", [Encoder, Decoder])
def test_remat_computes_the_same(model):
  x = _random(B, 4 * L, LEADS) if model is Encoder else _random(B, L, 3)
  variables = _init(model(**SIZES), x)

  def gradient(remat):
    def loss(variables):
      out = model(remat=remat, **SIZES).apply(variables, x)
      return sum((a**2).mean() for a in jax.tree.leaves(out))

    return jax.tree.leaves(jax.jit(jax.grad(loss))(variables))

  for a, b in zip(gradient(False), gradient(True)):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model", [Encoder, Decoder])
def test_bfloat16_products_keep_float32_around_them(model):
  x = _random(B, 4 * L, LEADS) if model is Encoder else _random(B, L, 3)
  low = model(dtype="bfloat16", **SIZES)
  variables = _init(low, x)
  leaves = jax.tree.leaves(variables)
  assert {a.dtype for a in leaves} == {np.dtype("float32")}
  rounded = jax.tree.leaves(_apply(low, variables, x))
  plain = jax.tree.leaves(_apply(model(**SIZES), variables, x))
  for a, b in zip(rounded, plain):
    assert a.dtype == np.float32
    assert 1e-5 < np.abs(a - b).max() < 0.1 * np.abs(b).max()


def test_errors():
  encoder, decoder = Encoder(**SIZES), Decoder(**SIZES)
  with pytest.raises(ValueError, match="length=29 must be divisible by 4"):
    jax.eval_shape(encoder.init, jax.random.key(0), _random(B, 29, LEADS))
  with pytest.raises(ValueError, match="length=28 must be divisible by 12"):
    patched = Encoder(patch=3, **SIZES)
    jax.eval_shape(patched.init, jax.random.key(0), _random(B, 28, LEADS))
  with pytest.raises(ValueError, match="leads=5 must be 12"):
    eight = Encoder(independent_leads=True, **SIZES)
    jax.eval_shape(eight.init, jax.random.key(0), _random(B, 28, LEADS))
  with pytest.raises(ValueError, match="channels=5 must be 3"):
    jax.eval_shape(decoder.init, jax.random.key(0), _random(B, L, 5))


def test_wide_convolutions_have_a_way_of_their_own_on_a_cpu():
  signal, latent = jnp.zeros((8, 64, 12)), jnp.zeros((8, 16, 4))
  for module, given in (
    (Encoder(widths=(128, 256), blocks=1, middle=1), signal),
    (Decoder(widths=(128, 256), blocks=1, middle=1), latent),
  ):
    variables = jax.eval_shape(module.init, jax.random.key(0), given)
    program = str(jax.make_jaxpr(module.apply)(variables, given))
    wide = program.count("platform_index[")
    every = program.count("conv_general_dilated[")
    text = jax.jit(module.apply).lower(variables, given).as_text()
    assert wide > 0 and text.count("stablehlo.convolution") == every - wide
