"""Attention over the statements, from the user's object and from the job."""

import json
import pathlib

import jax
import numpy as np
import pytest

import ecgtwin_jax as et
from ecgtwin_jax import main
from ecgtwin_jax.data.ecg import example_ecg
from ecgtwin_jax.inference import twin_directory

ROOT = pathlib.Path(__file__).parent.parent
NOW = et.Condition(["Sinus rhythm"], 82, 81, "F")
THEN = et.Condition(
  ["Sinus rhythm", "Ventricular premature complex", "Abnormal ECG"], 80
)
OPTIONS = dict(num_samples=2, steps=2, seed=5)


@pytest.fixture(scope="module")
def twin(chain):
  return et.ECGTwin.from_checkpoint(chain / "stage2" / "twin")


@pytest.fixture(scope="module")
def base(twin):
  return twin.extract_base(example_ecg(), NOW)


def test_attention_is_over_the_statements_of_what_generate_gives(twin, base):
  out = twin.explain(base, THEN, **OPTIONS)
  assert out.attention.shape == (2, 2, 128, 3)
  assert out.statements == THEN.statements
  np.testing.assert_allclose(out.attention.sum(axis=-1), 1, atol=1e-5)
  assert out.attention.std(axis=2).min() > 1e-6
  made = twin.generate(base, THEN, **OPTIONS)
  for explained, generated in zip(out.ecgs, made.ecgs):
    assert explained.comments == generated.comments
    np.testing.assert_allclose(explained.signal, generated.signal, atol=1e-4)


def test_chosen_steps_and_blocks(twin, base):
  whole = twin.explain(base, THEN, **OPTIONS)
  late = twin.explain(base, THEN, between=(0.0, 0.5), **OPTIONS)
  early = twin.explain(base, THEN, between=(0.5, 1.0), **OPTIONS)
  # One of the two steps lies in each half.
  both = (late.attention + early.attention) / 2
  np.testing.assert_allclose(whole.attention, both, atol=1e-5)
  assert np.abs(late.attention - early.attention).max() > 1e-5
  mean = whole.attention.mean(axis=1)
  np.testing.assert_allclose(whole.over_time(), mean, atol=1e-6)
  np.testing.assert_array_equal(whole.over_time([1]), whole.attention[:, 1])
  for blocks in ((), (2,), (-1,)):
    with pytest.raises(ValueError, match=r"must be some of 0\.\.1"):
      whole.over_time(blocks)
  with pytest.raises(ValueError, match="holds none of the 2 steps"):
    twin.explain(base, THEN, between=(0.2, 0.3), **OPTIONS)


def test_a_given_ecg_is_explained_as_it_is(twin, base):
  ecg = example_ecg()
  out = twin.explain(base, THEN, ecg=ecg, **OPTIONS)
  assert out.attention.shape == (2, 2, 128, 3)
  np.testing.assert_allclose(out.attention.sum(axis=-1), 1, atol=1e-5)
  np.testing.assert_array_equal(out.ecgs[1].signal, ecg.resample().signal)
  assert np.abs(out.attention[0] - out.attention[1]).max() > 1e-5
  flat = et.ECG(0.1 * ecg.signal, ecg.sampling_rate)
  other = twin.explain(base, THEN, ecg=flat, between=(0, 0.5), **OPTIONS)
  same = twin.explain(base, THEN, ecg=ecg, between=(0, 0.5), **OPTIONS)
  assert np.abs(other.attention - same.attention).max() > 1e-5


def test_a_given_ecg_is_noised_as_a_scaled_latent(chain, twin):
  signal = example_ecg().resample().signal
  _, variables = twin_directory.read_part(chain / "stage2" / "twin", "vae")
  mean, _ = jax.jit(twin.networks.modules["encoder"].apply)(
    {"params": variables["params"]["encoder"]}, signal[None]
  )
  scaled = np.asarray(mean[0]) * twin.hyper["denoiser"]["latent_scale"]
  latent = twin.networks.encode(example_ecg())
  np.testing.assert_allclose(latent, scaled, atol=1e-4)


def test_the_job_writes_pictures_numbers_and_records(chain, tmp_path, capsys):
  code = main.main(
    [
      f"--config={ROOT}/configs/explain.py",
      f"--config.twin={chain}/stage2/twin",
      "--config.num_samples=2",
      "--config.sampling.steps=2",
      "--config.blocks=1",
      "--config.format=npz",
      f"--workdir={tmp_path}",
    ]
  )
  assert code == 0
  assert "attention_0.png" in capsys.readouterr().out
  with np.load(tmp_path / "attention.npz") as file:
    assert file["attention"].shape == (2, 2, 128, 3)
    np.testing.assert_allclose(
      file["seconds"][[0, -1]], [10 / 256, 10 - 10 / 256]
    )
    shares = file["attention"][:, 1].mean(axis=1)
  record = json.loads((tmp_path / "explained.json").read_text())
  assert record["blocks"] == [1]
  found = record["mean_share"]["Ventricular premature complex"]
  np.testing.assert_allclose(found, shares[:, 2], atol=1e-4)
  for i in range(2):
    assert (tmp_path / f"attention_{i}.png").stat().st_size > 10_000
    assert et.read_ecg(tmp_path / f"twin_{i}.npz").signal.shape == (1024, 12)
