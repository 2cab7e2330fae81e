"""Released weight files into a twin directory, and a twin that works."""

import hashlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

import ecgtwin_jax as et
from ecgtwin_jax.data.ecg import example_ecg
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.torch_import import convert
from ecgtwin_jax.training import checkpoint
from helpers import golden

PARTS = {
  "base_extractor": "base_extractor",
  "denoiser": "denoiser_adax",
  "clip": "clip",
}


def vae_weights():
  return {
    f"{part}.{name}": array
    for part in ("encoder", "decoder")
    for name, array in golden.seeded_weights(f"vae_{part}").items()
  }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """Released files as .safetensors, from seeded weights: {part: path}."""
  folder = tmp_path_factory.mktemp("released")
  weights = {p: golden.seeded_weights(m) for p, m in PARTS.items()}
  weights["vae"] = vae_weights()
  paths = {}
  for part, arrays in weights.items():
    paths[part] = folder / f"{part}.safetensors"
    safetensors.save_file(arrays, paths[part])
  return paths


@pytest.fixture(scope="module")
def imported(files, tmp_path_factory):
  folder = tmp_path_factory.mktemp("twin") / "twin"
  et.import_torch(**files, output=folder)
  return folder


@pytest.fixture(scope="module")
def published_latents(imported, tmp_path_factory):
  """A toy cohort's latents by the imported autoencoder."""
  from data_prep import simulated
  from data_prep.encode import encode_with

  folder = tmp_path_factory.mktemp("latents")
  simulated.prepare(folder / "ecgs", patients=20, recordings=2, seed=0)
  encode_with(folder / "ecgs", imported, folder / "latents")
  return folder / "latents"


def embedded_condition():
  rng = np.random.default_rng(3)
  rows = rng.normal(size=(2, 768)).astype(np.float32)
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  return et.Condition(["one", "two"], 80, 60, "M", embeddings=rows)


def test_the_card_records_every_file(files, imported):
  card = (imported / "README.md").read_text()
  for path in files.values():
    assert hashlib.sha256(path.read_bytes()).hexdigest() in card
  assert set(twin_directory.parts(imported)) == set(files)


def test_ddpm_is_the_golden_schedule_stepped_by_hand(imported):
  twin = et.ECGTwin.from_checkpoint(imported)
  assert tuple(twin.hyper["denoiser"]["timesteps"]) == (0, 999)
  # The last steps, every one of them.
  twin.hyper["denoiser"]["timesteps"] = (0, 19)
  condition = embedded_condition()
  base = twin.extract_base(example_ecg(), condition)
  assert base.shape == (256,)
  noise = np.random.default_rng(0).normal(size=(1, 128, 4)).astype(np.float32)
  out = twin.generate(
    base,
    condition,
    num_samples=1,
    sampler="ddpm",
    steps=None,
    seed=5,
    noise=noise,
  )

  schedule = golden.load("ddpm_schedule")
  alphas = 1 - schedule["betas"].astype(np.float64)
  product = schedule["alphas_cumprod"].astype(np.float64)
  denoiser = convert.published("denoiser_adax")
  variables = convert.convert(
    "denoiser_adax", golden.seeded_weights("denoiser_adax")
  )
  inputs = (
    jnp.asarray(condition.embeddings)[None],
    jnp.ones((1, 2), bool),
    jnp.asarray(condition.patient_vector())[None],
    jnp.asarray(base)[None],
  )
  predict = jax.jit(lambda x, t: denoiser.apply(variables, x, t, *inputs))
  key = jax.random.fold_in(jax.random.key(5), 0)
  draw = jax.jit(
    lambda t: jax.random.normal(jax.random.fold_in(key, t), (128, 4))
  )
  x = noise.astype(np.float64)
  for t in range(19, -1, -1):
    eps = np.asarray(predict(jnp.asarray(x, jnp.float32), jnp.array([t])))
    x0 = (x - np.sqrt(1 - product[t]) * eps) / np.sqrt(product[t])
    x0 = np.clip(x0, -1, 1)
    before = product[t - 1] if t else 1.0
    beta = 1 - alphas[t]
    x = (
      np.sqrt(before) * beta * x0 + np.sqrt(alphas[t]) * (1 - before) * x
    ) / (1 - product[t])
    if t:
      variance = beta * (1 - before) / (1 - product[t])
      x += np.sqrt(variance) * np.asarray(draw(t))
  assert golden.relative_error(out.latents, x) < 2e-4


def test_importing_twice_gives_identical_trees(files, imported, tmp_path):
  few = {part: files[part] for part in ("base_extractor", "denoiser")}
  et.import_torch(**few, output=tmp_path / "again")
  for part in few:
    first, second = (
      twin_directory.read_part(path, part)[1]
      for path in (imported, tmp_path / "again")
    )
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize(
  "module", ["denoiser_adax", "denoiser_adaln", "denoiser_attn"]
)
def test_the_injector_is_seen_from_the_names(module, tmp_path):
  path = tmp_path / "denoiser.safetensors"
  safetensors.save_file(golden.seeded_weights(module), path)
  et.import_torch(denoiser=path, output=tmp_path / "twin")
  hyper, variables = checkpoint.load_weights(tmp_path / "twin", "denoiser")
  wanted = convert.published(module).injector
  assert hyper["model"]["injector"] == wanted
  jax.tree.map(
    np.testing.assert_array_equal,
    variables,
    convert.convert(module, golden.seeded_weights(module)),
  )


@pytest.mark.slow  # networks of the published sizes train
def test_a_training_starts_from_imported_weights(
  imported, published_latents, stage_config, tmp_path
):
  from ecgtwin_jax.training import train

  config = stage_config(
    "stage1",
    init_from=str(imported),
    vae=str(imported),
    latents=str(published_latents),
    batch_size=8,
    steps=1,
    **{
      "model.latent_channels": 4,
      "model.latent_patch": 1,
      "model.identity_tokens": 0,
      "model.median_beat": False,
      "model.width": 256,
      "model.depth": 3,
      "model.heads": 8,
      "model.null_condition": False,
      "optimizer.learning_rate": 1e-12,
      "optimizer.final_learning_rate": 1e-12,
      "optimizer.weight_decay": 0.0,
    },
  )
  train.train(config, tmp_path / "run")
  _, given = checkpoint.load_weights(imported, "base_extractor")
  _, got = checkpoint.load_weights(tmp_path / "run", "base_extractor")
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
    got["params"],
    given["params"],
  )


@pytest.mark.slow  # networks of the published sizes train
def test_latents_and_frozen_extractor_of_an_imported_twin_train_stage_2(
  files, published_latents, stage_config, tmp_path
):
  from ecgtwin_jax.training import train

  twin = tmp_path / "twin"
  et.import_torch(
    vae=files["vae"], base_extractor=files["base_extractor"], output=twin
  )
  # The toy cohort's statements are hashed; the check of encoders is apart.
  hyper, variables = twin_directory.read_part(twin, "base_extractor")
  hyper["statement_encoder"] = "hashed-v1"
  vae = twin_directory.read_part(twin, "vae")
  twin_directory.write_twin(
    twin,
    {"vae": vae, "base_extractor": (hyper, variables)},
    sources={},
    card="",
  )
  config = stage_config(
    "stage2",
    vae=str(twin),
    base_extractor=str(twin),
    latents=str(published_latents),
    batch_size=8,
    latent_scale=0.18215,
    steps=1,
    **{
      "model.base_width": 256,
      "model.latent_channels": 4,
      "model.beat_sketch": 0,
    },
  )
  evaluation = train.train(config, tmp_path / "run")
  assert np.isfinite(evaluation["mse"])


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("gone.safetensors", None, "no weights file"),
    ("odd.pkl", b"", "must end in .safetensors, .pth or .pt"),
    ("torn.safetensors", b"\x01\x02", "is damaged"),
  ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, name, content, message):
  path = tmp_path / name
  if content is not None:
    path.write_bytes(content)
  with pytest.raises((FileNotFoundError, ValueError), match=message):
    convert.read_weights(path)


def test_pth_without_torch_names_the_extra(tmp_path, monkeypatch):
  path = tmp_path / "weights.pth"
  path.write_bytes(b"")
  monkeypatch.setitem(sys.modules, "torch", None)
  with pytest.raises(ValueError, match=r"pip install 'ecgtwin_jax\[torch\]'"):
    convert.read_weights(path)


def test_pth_is_read_as_weights_alone(tmp_path):
  torch = pytest.importorskip("torch", reason="PyTorch is not installed")
  good, bad = tmp_path / "good.pth", tmp_path / "bad.pth"
  torch.save({"encoder": {"a": torch.ones(2)}, "b": torch.zeros(3)}, good)
  weights = convert.read_weights(good)
  assert sorted(weights) == ["b", "encoder.a"]
  np.testing.assert_array_equal(weights["encoder.a"], [1, 1])
  torch.save({"path": tmp_path}, bad)  # an object, not a tensor
  with pytest.raises(ValueError, match="nothing else is ever unpickled"):
    convert.read_weights(bad)


def test_weights_of_another_part_list_every_name(files, tmp_path):
  with pytest.raises(
    ValueError, match=r"base_extractor=.*missing: .*unexpected"
  ):
    et.import_torch(base_extractor=files["denoiser"], output=tmp_path / "t")
  assert not (tmp_path / "t").exists()
  with pytest.raises(ValueError, match="must start with encoder"):
    mixed = tmp_path / "mixed.safetensors"
    safetensors.save_file(
      {**vae_weights(), "stray": np.zeros(1, np.float32)}, mixed
    )
    et.import_torch(vae=mixed, output=tmp_path / "t")


def test_the_command_line(files, tmp_path, capsys):
  out = tmp_path / "twin"
  arguments = ["--base_extractor", str(files["base_extractor"])]
  assert convert.main([*arguments, "--output", str(out)]) == 0
  assert twin_directory.parts(out) == ["base_extractor"]
  assert convert.main(["--output", str(out)]) == 1
  assert "error: at least one of" in capsys.readouterr().err
