"""Released weights compute the published function, and bad ones are refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgtwin_jax.models.base_extractor import contrastive_logits
from ecgtwin_jax.torch_import.convert import convert, published
from helpers import golden
from helpers.parity import (
  arguments,
  assert_close,
  channels_last,
  denoise,
  variables,
  weights,
)

COUNTS = {
  "denoiser_adax": 10_541_060,
  "denoiser_adaln": 9_338_890,
  "denoiser_attn": 7_786_244,
  "base_extractor": 3_361_025,
  "vae_encoder": 12_217_424,
  "vae_decoder": 17_332_640,
}


@pytest.fixture(autouse=True)
def _highest_precision():
  with jax.default_matmul_precision("highest"):
    yield


@pytest.mark.parametrize("module", COUNTS)
def test_parameter_counts(module):
  leaves = jax.tree.leaves(variables(module))
  assert sum(a.size for a in leaves) == COUNTS[module]
  assert {a.dtype for a in leaves} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
  "module, masked",
  [
    ("denoiser_adax", False),
    ("denoiser_adax", True),
    ("denoiser_adaln", False),
    ("denoiser_attn", False),
    ("denoiser_attn", True),
  ],
)
def test_denoiser_parity(module, masked):
  case = golden.load(module)
  noise, _ = denoise(module, arguments(case, masked=masked))
  expected = case["noise_masked" if masked else "noise_unmasked"]
  assert_close(channels_last(noise), expected)


def test_adaln_divides_the_sum_by_the_number_of_valid_statements():
  # The release sums all rows, of which padding is zero, for the same mean.
  case = golden.load("denoiser_adaln")
  out, _ = denoise("denoiser_adaln", arguments(case, masked=True))
  mask = case["mask"][:, :, None]
  mean = (case["text"] * mask).sum(1, keepdims=True) / mask.sum(1)[:, None]
  case["text"] = np.broadcast_to(mean, case["text"].shape)
  same, _ = denoise("denoiser_adaln", arguments(case))
  np.testing.assert_allclose(out, same, atol=1e-5)


def test_attention_parity():
  case = golden.load("denoiser_adax")
  _, maps = denoise("denoiser_adax", arguments(case, masked=True))
  assert_close(maps.mean(axis=2), case["attention_masked"])


def _edited(case, text, edit):
  """Returns the noise of the edit, whose maps are edit(source's, own)."""
  noise, maps = denoise("denoiser_adax", arguments(case))
  latent, t, _, _, patient, base = arguments(case, x="x_edit")
  mask = np.ones(text.shape[:2], bool)

  @jax.jit
  def run(maps):
    return published("denoiser_adax").apply(
      variables("denoiser_adax"),
      latent,
      t,
      text,
      mask,
      patient,
      base,
      attention=edit(maps),
    )

  return channels_last(noise), channels_last(run(maps))


def test_swap_parity():
  case = golden.load("denoiser_adax")
  source, edit = _edited(case, case["text_swap"], lambda maps: maps)
  assert_close(source, case["swap_src"])
  assert_close(edit, case["swap_edit"])


def test_add_parity():
  case = golden.load("denoiser_adax")
  text = np.concatenate([case["text"], case["text_add"]], axis=1)

  def one_more_column(maps):
    def edit(block, own):
      added = case["add_weight"] * own[..., -1:]
      return jnp.concatenate([maps[block], added], axis=-1)

    return edit

  source, edit = _edited(case, text, one_more_column)
  assert_close(source, case["add_src"])
  assert_close(edit, case["add_edit"])


def test_base_extractor_parity():
  case = golden.load("base_extractor")
  model, v = published("base_extractor"), variables("base_extractor")
  mask = np.ones(case["text"].shape[:2], bool)
  args = case["latent"], case["text"], mask, case["patient"]
  extract = jax.jit(model.apply)
  base = extract(v, *args)
  assert_close(base, case["base"])
  tokens = jax.jit(functools.partial(model.apply, method="tokens"))(v, *args)
  assert_close(tokens, case["tokens"])
  unconditional = extract(v, case["latent"], None, None, None)
  assert_close(unconditional, case["base_unconditional"])
  other = extract(v, case["latent2"], case["text2"], mask, case["patient2"])
  logits = contrastive_logits(base, other, v["params"]["logit_scale"])
  assert_close(logits, case["logits_1"])
  assert_close(logits.T, case["logits_2"])


def test_vae_encoder_parity():
  case = golden.load("vae")
  signal = case["signal"][:, :, golden.SWAP_LEADS]
  mean, log_variance = jax.jit(published("vae_encoder").apply)(
    variables("vae_encoder"), signal
  )
  mean, log_variance = channels_last(mean), channels_last(log_variance)
  assert_close(mean, case["mean"])
  assert_close(log_variance, case["log_variance"])
  latent = 0.18215 * (mean + np.exp(log_variance / 2) * case["noise"])
  assert_close(latent, case["latent"])


def test_vae_decoder_parity():
  case = golden.load("vae")
  signal = jax.jit(published("vae_decoder").apply)(
    variables("vae_decoder"), channels_last(case["decoder_input"])
  )
  assert_close(signal[:, :, np.array(golden.SWAP_LEADS)], case["decoded"])


@pytest.mark.parametrize("module", ["base_extractor", "vae_encoder"])
def test_converting_twice_gives_identical_trees(module):
  once, twice = variables(module), convert(module, weights(module))
  jax.tree.map(np.testing.assert_array_equal, once, twice)


@pytest.mark.parametrize("module", ["vae_encoder", "vae_decoder"])
def test_unused_names_may_be_absent(module):
  names = weights(module)
  fewer = {k: a for k, a in names.items() if ".groupnorm." not in k}
  assert len(names) - len(fewer) == 2
  jax.tree.map(
    np.testing.assert_array_equal, convert(module, fewer), variables(module)
  )


def test_only_the_attention_may_have_an_unused_norm():
  names = {**weights("vae_encoder"), "12.groupnorm.weight": np.zeros(512)}
  with pytest.raises(ValueError, match=r"unexpected: 12\.groupnorm\.weight"):
    convert("vae_encoder", names)


def test_all_faults_are_listed_at_once():
  names = dict(weights("base_extractor"))
  del names["logit_scale"], names["layers.1.layer_norm2.bias"]
  names["layers.3.layer_norm2.bias"] = np.zeros(256)
  names["module.other"] = np.zeros(3)
  names["signal_embedding.weight"] = np.zeros((4, 256))
  names["classfree_emb"] = np.zeros(256)
  with pytest.raises(ValueError) as error:
    convert("base_extractor", names)
  message = str(error.value)
  assert message == (
    "not the weights of base_extractor: "
    "missing: layers.1.layer_norm2.bias, logit_scale; "
    "unexpected: layers.3.layer_norm2.bias, module.other; "
    "wrong shape: classfree_emb (256,) must be (1, 256), "
    "signal_embedding.weight (4, 256) must be (256, 4)"
  )


@pytest.mark.parametrize("function", [published, lambda m: convert(m, {})])
def test_unknown_modules_are_refused(function):
  with pytest.raises(ValueError, match="module='denoiser' must be one of"):
    function("denoiser")
