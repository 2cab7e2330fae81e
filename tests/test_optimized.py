"""With XLA's optimizations, as users run it; other tests save their time."""

import contextlib
import functools

import jax
import numpy as np
import pytest

from ecgtwin_jax.diffusion.samplers import SAMPLERS, draw_noise, sample
from ecgtwin_jax.diffusion.schedule import Schedule
from ecgtwin_jax.torch_import.convert import published
from ecgtwin_jax.training import train
from helpers import EMITTERS_ON, golden, runs
from helpers.parity import (
  arguments,
  assert_close,
  channels_last,
  denoise,
  variables,
)

PLAIN = jax.jit
# Other tests have the emitters off, by helpers.XLA_FLAGS.
OPTIMIZED = functools.partial(PLAIN, compiler_options=EMITTERS_ON)


@contextlib.contextmanager
def optimizations(are_on):
  """Compiles so inside; what was compiled before is forgotten."""
  before = jax.config.read("jax_disable_most_optimizations")
  jax.clear_caches()
  jax.config.update("jax_disable_most_optimizations", not are_on)
  try:
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(jax, "jit", OPTIMIZED if are_on else PLAIN)
      yield
  finally:
    jax.config.update("jax_disable_most_optimizations", before)
    jax.clear_caches()


@pytest.fixture(scope="module", autouse=True)
def _optimized():
  with optimizations(True):
    yield


def test_parity_of_denoiser_and_base_extractor():
  with jax.default_matmul_precision("highest"):
    case = golden.load("denoiser_adax")
    noise, _ = denoise("denoiser_adax", arguments(case))
    assert_close(channels_last(noise), case["noise_unmasked"])
    case = golden.load("base_extractor")
    mask = np.ones(case["text"].shape[:2], bool)
    base = jax.jit(published("base_extractor").apply)(
      variables("base_extractor"),
      *(case["latent"], case["text"], mask, case["patient"]),
    )
    assert_close(base, case["base"])


def test_parity_of_the_autoencoder():
  with jax.default_matmul_precision("highest"):
    case = golden.load("vae")
    mean, _ = jax.jit(published("vae_encoder").apply)(
      variables("vae_encoder"), case["signal"][:, :, golden.SWAP_LEADS]
    )
    assert_close(channels_last(mean), case["mean"])
    signal = jax.jit(published("vae_decoder").apply)(
      variables("vae_decoder"), channels_last(case["decoder_input"])
    )
    assert_close(signal[:, :, np.array(golden.SWAP_LEADS)], case["decoded"])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_draw_the_same(sampler):
  schedule = Schedule(steps=13, start=0.02, end=0.4)
  keys = jax.random.split(jax.random.key(5), 7)
  noise = draw_noise(keys, (5, 3), schedule.steps)

  def denoise(x, t):
    return 0.7 * x / (1 + 0.1 * t[:, None, None])

  def draw():
    options = dict(sampler=sampler, steps=6)
    return jax.jit(
      lambda noise: sample(denoise, noise, keys, schedule, **options)
    )(noise)

  fast = draw()
  with optimizations(False):
    plain = draw()
  np.testing.assert_allclose(fast, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", runs.STAGES)
def test_a_training_step_has_the_same_loss(
  name, chain, stage_config, monkeypatch
):
  first_state = train.first_state

  def plain_state(*args, **kwargs):
    with optimizations(False):  # as other tests have compiled it already
      return first_state(*args, **kwargs)

  monkeypatch.setattr(train, "first_state", plain_state)
  with optimizations(False):  # other tests compare each bit of it
    want = runs.train_losses(runs.whole(chain, name))
  got, _ = runs.losses_on(stage_config(name), jax.devices(), 1)
  np.testing.assert_allclose(got[0], want[1], rtol=1e-4)
