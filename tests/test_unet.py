"""What is the UNet's own; what both backbones share is in test_denoiser."""

import jax
import numpy as np
import pytest

from helpers.denoisers import MASK, B, S, build, call

BLOCKS = 5  # one per level and way: 2 down, 1 in the middle, 2 up


def build_unet(**changes):
  return build("adax", "unet", **{"levels": 3, **changes})


def test_attention_maps_have_the_full_length():
  model, variables, args = build_unet()
  length = args[0].shape[1]
  _, maps = call(model, variables, args, return_attention="heads")
  assert maps.shape == (BLOCKS, B, 2, length, S)
  np.testing.assert_allclose(maps.sum(axis=-1), 1, atol=1e-5)
  assert (np.asarray(maps)[:, ~MASK.all(axis=1)][..., 3:] == 0).all()
  # Levels have lengths l, l/2, l/4, l/2, l: rows stand 1, 2, 4, 2, 1 times.
  for block, repeats in enumerate((1, 2, 4, 2, 1)):
    own = np.asarray(maps)[block, :, :, ::repeats]
    np.testing.assert_array_equal(np.repeat(own, repeats, 2), maps[block])
    assert len(np.unique(own[0, 0, :, 0])) == length // repeats


def test_given_maps_are_read_at_each_level():
  model, variables, args = build_unet()
  out, maps = call(model, variables, args, return_attention="heads")
  for block in range(BLOCKS):
    changed = maps.at[block].multiply(1.5)
    other = call(model, variables, args, attention=changed)
    assert np.abs(other - out).max() > 1e-3, block


def test_every_position_hears_from_every_other_one():
  model, variables, args = build_unet()

  def last(latent):
    return model.apply(variables, latent, *args[1:])[:, -1].sum()

  gradient = np.asarray(jax.jit(jax.grad(last))(args[0]))
  assert (np.abs(gradient).sum(axis=-1) > 0).all()


def test_length_must_halve():
  model, variables, args = build_unet()
  args[0] = args[0][:, :13]
  with pytest.raises(ValueError, match="length=13 must be divisible by 4"):
    model.apply(variables, *args)


def test_blocks_and_levels_are_numbers():
  model, variables, args = build_unet(levels=2, level_blocks=2)
  _, maps = call(model, variables, args, return_attention="heads")
  assert maps.shape[0] == 6
  params = variables["params"]["unet"]
  assert "self_attention" in params["middle_1_block_0"]
  assert "self_attention" not in params["down_0_block_0"]


@pytest.mark.parametrize("injector", ["adaln", "cross_attention"])
def test_the_other_injectors(injector):
  model, variables, args = build(injector, "unet")
  out = call(model, variables, args)
  assert out.shape == args[0].shape and np.isfinite(out).all()
  latent, t, statements, mask, patient, base = args
  for other in (
    [latent, t + 1, statements, mask, patient, base],
    [latent, t, -statements, mask, patient, base],
    [latent, t, statements, mask, patient + 1, base],
    [latent, t, statements, mask, patient, base + 1],
  ):
    assert np.abs(call(model, variables, other) - out).max() > 1e-3
