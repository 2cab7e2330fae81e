"""The user's object, on the smoke chain's twin (untrained, but whole)."""

import json
import warnings

import jax
import numpy as np
import pytest

import ecgtwin_jax as et
from ecgtwin_jax.data.conditions import SEXES
from ecgtwin_jax.data.dataset import load_split
from ecgtwin_jax.data.ecg import example_ecg
from ecgtwin_jax.inference import networks, twin_directory
from ecgtwin_jax.stages.denoiser import extract_bases
from ecgtwin_jax.text.statements import HashedEncoder, StatementTable

NOW = et.Condition(["Sinus rhythm", "Right bundle branch block"], 82, 81, "F")
THEN = et.Condition(["Sinus rhythm", "Ventricular premature complex"], 80)


@pytest.fixture(scope="module")
def twin(chain):
  return et.ECGTwin.from_checkpoint(chain / "stage2" / "twin")


@pytest.fixture(scope="module")
def base(twin):
  return twin.extract_base(example_ecg(), NOW)


def test_the_base_vector_depends_on_ecg_and_condition(twin, base):
  assert base.shape == (64,)
  assert base.dtype == np.float32
  np.testing.assert_array_equal(base, twin.extract_base(example_ecg(), NOW))
  assert np.abs(twin.extract_base(example_ecg(), THEN) - base).max() > 1e-5


def test_a_recording_has_the_base_vector_that_stage_2_trains_with(chain, twin):
  latents = load_split(chain / "latents", "validation")
  ecgs = load_split(chain / "simulated", "validation")
  rows = np.arange(3)
  hyper, variables = twin_directory.read_part(
    chain / "stage2" / "twin", "base_extractor"
  )
  trained = extract_bases(
    latents.select(rows), hyper, variables["params"], hyper["latent_scale"]
  )
  for row, want in zip(rows, trained, strict=True):
    names = [
      ecgs.table.statements[i] for i in ecgs.statement_ids[row] if i >= 0
    ]
    rate, age = float(ecgs.heart_rate[row]), float(ecgs.age[row])
    shown = et.Condition(names, rate, age, SEXES[ecgs.sex[row]])
    signal = ecgs.arrays["ecg"][row] * np.float32(ecgs.card["scale"])
    got = twin.extract_base(et.ECG(signal, 102.4), shown)
    np.testing.assert_allclose(got, want, atol=0.01)


def test_several_references_give_the_mean_of_their_vectors(twin, base):
  ecg = example_ecg()
  other = et.ECG(ecg.signal[::-1], ecg.sampling_rate, "other")
  both = twin.extract_base([ecg, other], [NOW, THEN])
  mean = (base + twin.extract_base(other, THEN)) / 2
  np.testing.assert_allclose(both, mean, atol=1e-6)
  with pytest.raises(ValueError, match=r"2 references must be .*: 1 given"):
    twin.extract_base([ecg, other], [NOW])
  with pytest.raises(ValueError, match="0 references"):
    twin.extract_base([], [])


# ddim, which draws nothing on its way, is seen below.
@pytest.mark.parametrize("sampler", ["ddpm", "dpm++"])
def test_generate_is_reproducible_and_a_sample_is_its_own(twin, base, sampler):
  def make(n, seed):
    return twin.generate(
      base, THEN, num_samples=n, seed=seed, sampler=sampler, steps=3
    )

  three, two, other = make(3, 0), make(2, 0), make(3, 1)
  assert three.signals.shape == (3, 1024, 12)
  assert three.latents.shape == (3, 128, 8)
  assert np.isfinite(three.signals).all()
  np.testing.assert_array_equal(make(3, 0).signals, three.signals)
  np.testing.assert_allclose(two.latents, three.latents[:2], atol=1e-4)
  assert np.abs(other.latents - three.latents).max() > 0.1
  assert np.abs(three.latents[0] - three.latents[1]).max() > 0.1
  assert three.ecgs[0].sampling_rate == 102.4
  assert "synthetic" in three.ecgs[0].comments[0]


def test_given_noise_is_where_sampling_starts(twin, base):
  noise = np.random.default_rng(0).normal(size=(2, 128, 8))
  kwargs = dict(num_samples=2, sampler="ddim", steps=3, noise=noise)
  kwargs["beats"] = "0.5 1.3 2.1"  # otherwise these are the seed's
  one = twin.generate(base, THEN, seed=0, **kwargs)
  two = twin.generate(base, THEN, seed=1, **kwargs)
  np.testing.assert_array_equal(one.latents, two.latents)
  with pytest.raises(ValueError, match="must start with num_samples=3"):
    twin.generate(base, THEN, num_samples=3, noise=noise)


def test_guidance_of_one_is_plain_sampling_and_more_is_not(twin, base):
  kwargs = dict(num_samples=2, steps=3)
  plain = twin.generate(base, THEN, **kwargs)
  one = twin.generate(
    base, THEN, statement_guidance=1.0, person_guidance=1.0, **kwargs
  )
  np.testing.assert_array_equal(plain.latents, one.latents)
  for name in ("statement_guidance", "person_guidance"):
    more = twin.generate(base, THEN, **{name: 3.0}, **kwargs)
    assert np.isfinite(more.latents).all()
    assert np.abs(more.latents - plain.latents).max() > 1e-6


def test_a_twin_has_a_guidance_and_a_temperature_of_its_own(chain, base):
  kwargs = dict(num_samples=2, steps=3)
  twin = et.ECGTwin.from_checkpoint(chain / "stage2" / "twin")
  asked = dict(person_guidance=3.0, temperature=0.5, shape_temperature=0.2)
  want = twin.generate(base, THEN, **asked, **kwargs)
  plain = twin.generate(base, THEN, **kwargs)
  twin.hyper["denoiser"]["sampling"] = asked
  own = twin.generate(base, THEN, **kwargs)
  np.testing.assert_array_equal(own.latents, want.latents)
  assert any("temperature: 0.5" in line for line in own.ecgs[0].comments)
  ones = dict(person_guidance=1.0, temperature=1.0, shape_temperature=1.0)
  again = twin.generate(base, THEN, **ones, **kwargs)
  np.testing.assert_array_equal(again.latents, plain.latents)


def test_a_temperature_of_0_leaves_one_twin_and_given_noise_is_kept(twin, base):
  kwargs = dict(num_samples=2, steps=3, beats="0.5 1.3 2.1")
  one, other = twin.generate(base, THEN, temperature=0, **kwargs).latents
  np.testing.assert_allclose(one, other, atol=1e-5)
  drawn = np.random.default_rng(0).normal(size=(2, 128, 8)).astype(np.float32)
  lower = dict(temperature=0.5, shape_temperature=0.2)
  given = twin.generate(base, THEN, noise=drawn, **lower, **kwargs)
  whole = twin.generate(base, THEN, noise=drawn, **kwargs)
  np.testing.assert_array_equal(given.latents, whole.latents)


def test_predictions_out_of_range_are_limited_as_asked(chain, base):
  twin = et.ECGTwin.from_checkpoint(chain / "stage2" / "twin")
  twin.hyper["denoiser"] = {**twin.hyper["denoiser"], "latent_clip": 0.5}
  out = {
    limit: twin.generate(base, THEN, num_samples=2, steps=3, x0_limit=limit)
    for limit in ("clip", "dynamic", "none")
  }
  reach = {k: np.abs(v.latents).max() for k, v in out.items()}
  assert reach["clip"] == reach["dynamic"] == 0.5 < reach["none"]
  # Scaled instead of cut: fewer values lie at the edge.
  edge = {k: (np.abs(v.latents) == 0.5).mean() for k, v in out.items()}
  assert edge["dynamic"] < edge["clip"] / 2
  with pytest.raises(ValueError, match="x0_limit='cut' must be one of clip, d"):
    twin.generate(base, THEN, x0_limit="cut")


def test_guidance_without_dropout_in_training_is_refused(chain, base):
  twin = et.ECGTwin.from_checkpoint(chain / "stage2" / "twin")
  twin.hyper["denoiser"]["dropout"]["statements"] = 0.0
  with pytest.raises(ValueError, match="trained without dropping statements"):
    twin.generate(base, THEN, statement_guidance=2.0)


def test_chunks_change_nothing(twin, base, monkeypatch):
  whole = twin.generate(base, THEN, num_samples=9, steps=3)
  monkeypatch.setattr(networks, "SAMPLE_CHUNK", 3)
  monkeypatch.setattr(networks, "DECODE_CHUNK", 2)
  parts = twin.generate(base, THEN, num_samples=9, steps=3)
  np.testing.assert_allclose(parts.signals, whole.signals, atol=1e-4)


# Fewer rows than the eight devices, and more.
@pytest.mark.parametrize("count", [3, 9])
def test_devices_change_nothing(twin, base, monkeypatch, count):
  def made():
    return twin.generate(base, THEN, num_samples=count, steps=3, seed=2)

  several = made()
  one = jax.local_devices()[:1]
  monkeypatch.setattr(networks.jax, "local_devices", lambda: one)
  assert len(several.ecgs) == count
  np.testing.assert_allclose(several.signals, made().signals, atol=2e-4)


def test_consistent_leads_add_up(twin, base):
  out = twin.generate(base, THEN, num_samples=2, steps=3, consistent_leads=True)
  signals = out.signals
  assert out.lead_residual < 1e-5  # its autoencoder has independent leads
  np.testing.assert_allclose(
    signals[..., 2], signals[..., 1] - signals[..., 0], atol=1e-5
  )


def test_an_unknown_statement_warns_and_names_its_neighbour(twin, base):
  odd = et.Condition(["Sinus rythm"], 70)
  with pytest.warns(UserWarning, match="the nearest is 'Sinus rhythm'"):
    twin.generate(base, odd, num_samples=2, steps=3)


def test_a_target_without_a_rhythm_is_given_the_sinus_nodes(twin, base):
  kwargs = dict(num_samples=2, steps=3)
  whole = et.Condition(["Sinus rhythm", "Right bundle branch block"], 70)
  want = twin.generate(base, whole, **kwargs)
  alone = et.Condition(["Right bundle branch block"], 70)
  with pytest.warns(UserWarning, match="'Sinus rhythm' is taken"):
    out = twin.generate(base, alone, **kwargs)
  np.testing.assert_array_equal(out.latents, want.latents)
  assert out.condition.statements == whole.statements


def test_a_rate_that_contradicts_a_statement_warns(twin, base):
  slow = et.Condition(["Sinus bradycardia"], 95)
  with pytest.warns(UserWarning, match="it means at most 60 bpm"):
    twin.generate(base, slow, num_samples=2, steps=3)
  with pytest.warns(UserWarning, match="it means at least 100 bpm"):
    twin.extract_base(example_ecg(), et.Condition(["Sinus tachycardia"], 70))


class CountingEncoder(HashedEncoder):
  """Counts the statements that it is asked for."""

  asked = ()

  def embed(self, statements):
    CountingEncoder.asked += tuple(statements)
    return super().embed(statements)


def test_a_given_encoder_embeds_each_unknown_statement_once(chain, base):
  folder = chain / "stage2" / "twin"
  plain = et.ECGTwin.from_checkpoint(folder)
  twin = et.ECGTwin.from_checkpoint(folder, encoder=CountingEncoder())
  odd = et.Condition(["Sinus rhythm", "Sinus rythm"], 70)
  outs = []
  with pytest.warns(UserWarning, match="the nearest is 'Sinus rhythm'"):
    for one in (plain, twin, twin):
      outs.append(one.generate(base, odd, num_samples=2, steps=3))
  assert CountingEncoder.asked == ("Sinus rythm",)
  for out in outs[1:]:
    np.testing.assert_array_equal(out.latents, outs[0].latents)
  named = et.ECGTwin.from_checkpoint(folder, encoder="hashed-v1")
  with pytest.warns(UserWarning, match="the nearest"):
    out = named.generate(base, odd, num_samples=2, steps=3)
  np.testing.assert_array_equal(out.latents, outs[0].latents)


def test_another_encoder_than_the_twins_is_refused(chain):
  other = HashedEncoder(name="hashed-v2")
  with pytest.raises(ValueError, match="'hashed-v1', but 'hashed-v2'"):
    et.ECGTwin.from_checkpoint(chain / "stage2" / "twin", encoder=other)


def test_given_embeddings_need_no_table(chain, twin, base):
  table = StatementTable.load(chain / "stage2" / "twin")
  row = table.embeddings[table.ids(["Sinus rhythm"])]
  known = et.Condition(["Sinus rhythm"], 70, 81, "F")
  given = et.Condition(["anything"], 70, 81, "F", embeddings=row)
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    a = twin.generate(base, known, num_samples=2, steps=3)
    b = twin.generate(base, given, num_samples=2, steps=3)
  np.testing.assert_array_equal(a.latents, b.latents)


def test_wrong_arguments_are_named(twin, base):
  with pytest.raises(ValueError, match="num_samples=0"):
    twin.generate(base, THEN, num_samples=0)
  with pytest.raises(ValueError, match="sampler='euler'"):
    twin.generate(base, THEN, sampler="euler")
  with pytest.raises(ValueError, match="must be finite"):
    twin.generate(base * np.nan, THEN)
  with pytest.raises(ValueError, match="seed=-1 must be in 0"):
    twin.generate(base, THEN, seed=-1)
  with pytest.raises(ValueError, match="person_guidance=nan must be finite"):
    twin.generate(base, THEN, person_guidance=np.nan)
  with pytest.raises(ValueError, match=r"temperature=3 must be in 0\.\.2"):
    twin.generate(base, THEN, temperature=3)
  with pytest.raises(ValueError, match=r"shape_temperature=-1 must be in 0"):
    twin.generate(base, THEN, shape_temperature=-1)
  with pytest.raises(ValueError, match="temperature='low' must be in"):
    twin.settings(temperature="low").plan(twin.hyper["denoiser"])
  with pytest.raises(ValueError, match="person_guidance='a lot' must be fin"):
    twin.settings(person_guidance="a lot").plan(twin.hyper["denoiser"])
  short = et.ECG(example_ecg().signal[:4000], 1000.0, "short")
  with pytest.raises(ValueError, match=r"duration=4.00 s must be 10 s"):
    twin.extract_base(short, NOW)


def test_a_damaged_or_missing_twin_is_named(chain, tmp_path):
  with pytest.raises(FileNotFoundError, match="is no twin directory"):
    et.ECGTwin.from_checkpoint(tmp_path)
  weights = {
    part: twin_directory.read_part(chain / "stage2" / "twin", part)
    for part in ("vae", "base_extractor")
  }
  twin_directory.write_twin(tmp_path / "half", weights, sources={}, card="half")
  with pytest.raises(ValueError, match=r"missing=\['denoiser'\]"):
    et.ECGTwin.from_checkpoint(tmp_path / "half")
  path = tmp_path / "half" / "vae.safetensors"
  data = bytearray(path.read_bytes())
  data[-1] ^= 1
  path.write_bytes(bytes(data))
  with pytest.raises(ValueError, match="does not match the sha256"):
    twin_directory.read_part(tmp_path / "half", "vae")


def test_a_table_that_was_changed_is_refused(tmp_path):
  table = StatementTable.from_encoder(["Sinus rhythm", "PVC"], HashedEncoder())
  twin_directory.write_twin(tmp_path, {}, sources={}, card="", table=table)
  assert twin_directory.read_table(tmp_path).statements == table.statements
  path = tmp_path / "statements.json"
  text = path.read_text()
  path.write_text(text.replace("PVC", "PAC"))
  with pytest.raises(ValueError, match=r"statements\.json does not match the"):
    twin_directory.read_table(tmp_path)
  path.unlink()
  with pytest.raises(ValueError, match=r"statements\.json does not match the"):
    twin_directory.read_table(tmp_path)
  path.write_text(text)
  vectors = table.embeddings.copy()
  vectors[1, 3] = np.nan
  np.save(tmp_path / "statements.npy", vectors)
  with pytest.raises(ValueError, match=r"statements\.npy does not match the"):
    twin_directory.read_table(tmp_path)
  with pytest.raises(ValueError, match="finite: the vector of 'PVC' is not"):
    StatementTable.load(tmp_path)


def test_shipped_tables_are_what_their_index_says():
  for name in ("simulated-small", "simulated-evaluators"):
    path = twin_directory.shipped(name)
    assert set(twin_directory.read_index(path)["table"]) == {
      "statements.json",
      "statements.npy",
    }
    assert len(twin_directory.read_table(path)) > 10


def test_a_twin_says_what_it_is(chain, twin):
  folder = chain / "stage2" / "twin"
  card = (folder / "README.md").read_text()
  assert "simulated" in card
  assert "Not a medical device" in card
  index = json.loads((folder / "twin.json").read_text())
  assert set(index["parts"]) == set(networks.PARTS)
  assert "Sinus rhythm" in twin.statements


def test_a_folder_with_other_things_is_not_overwritten(tmp_path):
  (tmp_path / "thesis.txt").write_text("precious")
  with pytest.raises(ValueError, match="is not empty and holds no twin"):
    twin_directory.write_twin(tmp_path, {}, sources={}, card="")
  assert (tmp_path / "thesis.txt").read_text() == "precious"
