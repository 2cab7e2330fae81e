"""The PyTorch networks of the benchmarks as a second witness of ours."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgtwin_jax.diffusion import samplers
from ecgtwin_jax.diffusion.schedule import Schedule
from ecgtwin_jax.torch_import import convert
from helpers import golden

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from benchmarks import pytorch_peer  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def one_thread():
  """Threads of PyTorch that wait for each other on busy cores take minutes."""
  threads = torch.get_num_threads()
  torch.set_num_threads(1)
  yield
  torch.set_num_threads(threads)


@functools.cache
def network(name):
  return pytorch_peer.load(name, golden.seeded_weights(name))


def tensors(arrays, *names):
  return [torch.as_tensor(arrays[name]) for name in names]


def assert_close(actual, expected):
  error = golden.relative_error(actual.detach().numpy(), expected)
  assert error < golden.TOLERANCE


@pytest.mark.parametrize(
  "name, form",
  [
    ("denoiser_adax", "masked"),
    ("denoiser_adax", "unmasked"),
    ("denoiser_adaln", "unmasked"),
    ("denoiser_attn", "masked"),
    ("denoiser_attn", "unmasked"),
  ],
)
def test_denoisers(name, form):
  arrays = golden.load(name)
  x, t, text, mask, *rest = tensors(
    arrays, "x", "t", "text", "mask", "patient", "base"
  )
  mask = mask.bool() if form == "masked" else None
  with torch.no_grad():
    noise = network(name)(x, t, text, mask, *rest)
  assert_close(noise, arrays[f"noise_{form}"])


def test_base_extractor():
  arrays = golden.load("base_extractor")
  latent, text, patient = tensors(arrays, "latent", "text", "patient")
  model = network("base_extractor")
  with torch.no_grad():
    assert_close(model(latent, text, None, patient), arrays["base"])
    assert_close(model(latent), arrays["base_unconditional"])
    assert_close(model.tokens(latent, text, None, patient), arrays["tokens"])


def test_autoencoder():
  arrays = golden.load("vae")
  signal, latent = tensors(arrays, "signal", "decoder_input")
  with torch.no_grad():
    mean, log_variance = network("vae_encoder")(signal)
    decoded = network("vae_decoder")(latent)
  assert_close(mean, arrays["mean"])
  assert_close(log_variance, arrays["log_variance"])
  assert_close(decoded, arrays["decoded"])


def test_clip():
  arrays = golden.load("clip")
  signal, text = tensors(arrays, "signal", "text")
  model = network("clip")
  with torch.no_grad():
    features, words = model(signal, text)
    assert_close(model.resnet(signal), arrays["hidden"])
  assert_close(features, arrays["signal_features"])
  assert_close(words, arrays["text_features"])


def denoiser_batch(rows=2, statements=3):
  rng = np.random.default_rng(11)
  shapes = {
    "x": (rows, 4, 128),
    "text": (rows, statements, 768),
    "patient": (rows, 3),
    "base": (rows, 256),
  }
  given = {k: rng.standard_normal(s, np.float32) for k, s in shapes.items()}
  given["mask"] = np.arange(statements) < np.array([[statements], [1]])
  return given


def test_sampling_goes_the_same_way_without_fresh_noise(monkeypatch):
  given = denoiser_batch()
  condition = tensors(given, "text", "mask", "patient", "base")
  monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
  steps = 3
  theirs = pytorch_peer.sample_ddpm(
    network("denoiser_adax"), torch.as_tensor(given["x"]), condition, steps
  )

  model = convert.published("denoiser_adax")
  weights = golden.seeded_weights("denoiser_adax")
  variables = convert.convert("denoiser_adax", weights)
  table = samplers.coefficients(Schedule(), range(999, -1, -1))
  apply = jax.jit(model.apply)
  x = jnp.asarray(given["x"]).swapaxes(1, 2)
  schedule = Schedule()
  for t in range(999, 999 - steps, -1):
    eps = apply(
      variables,
      x,
      jnp.full(2, t),
      *(given[k] for k in ("text", "mask", "patient", "base")),
    )
    x0 = (x - schedule.noise_rate[t] * eps) / schedule.signal_rate[t]
    a, b, _, _ = table[999 - t]
    x = a * x + b * samplers.clip_x0(x0, 1.0)
  assert_close(theirs, x.swapaxes(1, 2))


def test_denoiser_trains_compiled_without_breaks_of_the_graph():
  torch.manual_seed(3)
  given = denoiser_batch()
  batch = tensors(given, "x", "text", "mask", "patient", "base")
  model = pytorch_peer.DenoiserAdaX(depth=1)
  loss_fn = torch.compile(
    pytorch_peer.denoiser_loss, backend="eager", fullgraph=True
  )
  assert_trains(loss_fn, [model], batch)
  torch.compiler.reset()


def test_the_others_train():
  torch.manual_seed(3)
  given = denoiser_batch()
  batch = tensors(given, "x", "text", "mask", "patient", "base")
  for name in ("denoiser_adaln", "denoiser_attn"):
    model = pytorch_peer.NETWORKS[name](depth=1)
    assert_trains(pytorch_peer.denoiser_loss, [model], batch)
  condition = tensors(given, "text", "mask", "patient")
  pairs = [[torch.randn(2, 16, 4), *condition] for _ in range(2)]
  extractor = pytorch_peer.BaseExtractor(depth=1)
  assert_trains(pytorch_peer.extractor_loss, [extractor], pairs)
  signal = torch.randn(2, 64, 12)
  autoencoder = [pytorch_peer.Encoder(), pytorch_peer.Decoder()]
  assert_trains(pytorch_peer.vae_loss, autoencoder, [signal])
  clip = pytorch_peer.CLIP(stages=(32, 48), blocks=(1, 2))
  assert_trains(pytorch_peer.clip_loss, [clip], [signal, torch.randn(2, 768)])


def assert_trains(loss_fn, models, batch):
  parameters = [p for m in models for p in m.parameters()]
  optimizer = torch.optim.AdamW(parameters, 1e-3)
  before = [p.detach().clone() for p in parameters]
  loss = pytorch_peer.train_step(loss_fn, models, optimizer, batch)
  assert torch.isfinite(loss)
  names = [name for m in models for name, _ in m.named_parameters()]
  still = [
    name
    for name, old, p in zip(names, before, parameters, strict=True)
    if p.grad is None or torch.equal(old, p)
  ]
  unused = ("groupnorm.", "classfree_emb", "stage_list.0.block_list.0.bn1.")
  assert all(any(part in name for part in unused) for name in still), still
