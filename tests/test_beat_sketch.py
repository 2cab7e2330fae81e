"""The usual beat, foretold and laid at the R peaks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgtwin_jax.constants import MEDIAN_R, PATIENT_MEAN, PATIENT_STD
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.models import beat_rate
from ecgtwin_jax.models.base_extractor import BEAT_SIZE, BaseExtractor
from ecgtwin_jax.models.beat_sketch import ForetoldBeat, lay_beats
from ecgtwin_jax.models.beat_track import beat_track
from ecgtwin_jax.models.denoiser import Denoiser
from ecgtwin_jax.stages import base_extractor, denoiser
from ecgtwin_jax.training import checkpoint, train
from helpers import runs

RATE = 102.4


def track_of(*times, p_waves=True, kinds=True):
  time = np.full((1, 16), np.nan, np.float32)
  time[0, : len(times)] = times
  none = np.zeros((1, 16), np.int32)
  has_p = none + np.asarray(p_waves, np.int32)
  return beat_track(
    jnp.asarray(time), jnp.asarray(none), jnp.asarray(has_p), kinds=kinds
  )


def make_beat():
  """A line that rises by 1 a sample, and another lead of half its size."""
  beat = np.zeros((1, 80, 12), np.float32)
  beat[0, :, 0] = 1 + np.arange(80)
  beat[0, :, 7] = beat[0, :, 0] / 2
  return jnp.asarray(beat)


def test_a_beat_lies_on_each_r_peak_and_reaches_so_far():
  times = 1.0, 1.9, 2.5
  sketch = lay_beats(make_beat(), track_of(*times))
  assert sketch.shape == (1, 128, 8 * 12)
  signal = np.asarray(sketch).reshape(1024, 12)
  at = (np.arange(1024) + 0.5) / RATE
  wanted = np.zeros(1024)
  line = np.concatenate([np.arange(81), [0]])
  # Before the first beat and behind the last one the next interval repeats.
  peaks = np.array([1.0 - 0.9, *times, 2.5 + 0.6])
  for last, following in itertools.pairwise(peaks):
    split = last + 0.6 * (following - last)
    for r, inside in (
      (last, (at >= last) & (at < split)),
      (following, (at >= split) & (at < following)),
    ):
      place = MEDIAN_R + (at[inside] - r) * RATE
      wanted[inside] = np.interp(place, np.arange(-1, 81), line)
  here = (at > 0.2) & (at < 2.8)  # whether beats behind have P waves: unknown
  np.testing.assert_allclose(signal[here, 0], wanted[here], atol=1e-3)
  np.testing.assert_allclose(signal[:, 7], signal[:, 0] / 2, atol=1e-6)
  assert not signal[:, 1].any()


def test_a_beat_without_a_p_wave_is_laid_without():
  times = 1.0, 1.9, 2.8
  has_p = np.zeros((1, 16))
  has_p[0, 1] = 1  # that of the second beat
  whole, some = (
    np.asarray(lay_beats(make_beat(), track_of(*times, p_waves=p))).reshape(
      1024, 12
    )[:, 0]
    for p in (True, has_p)
  )
  at = (np.arange(1024) + 0.5) / RATE
  # A line from the beat's last sample to 60 ms before R.
  ends = 1.9 + (79 - MEDIAN_R) / RATE, 2.8 - 0.06
  p_wave = (at > ends[0]) & (at < ends[1])
  values = 80, 1 + MEDIAN_R - 0.06 * RATE
  line = np.interp(at[p_wave], ends, values)
  np.testing.assert_allclose(some[p_wave], line, atol=1e-3)
  assert np.abs(whole[p_wave] - line).max() > 10
  kept = (at > 1.0) & (at < 2.8) & ~p_wave
  np.testing.assert_array_equal(some[kept], whole[kept])
  timing = track_of(*times, p_waves=has_p, kinds=False)
  untold = np.asarray(lay_beats(make_beat(), timing)).reshape(1024, 12)[:, 0]
  np.testing.assert_array_equal(untold[p_wave], whole[p_wave])


def test_a_line_between_fast_beats_is_as_short_as_it_has_to_be():
  """At 150 bpm a beat reaches 0.24 s after R, and the line 0.34 s."""
  times = 1.0, 1.4, 1.8
  sketch = lay_beats(make_beat(), track_of(*times, p_waves=False))
  signal = np.asarray(sketch).reshape(1024, 12)[:, 0]
  at = (np.arange(1024) + 0.5) / RATE
  between = (at > 1.4) & (at < 1.8)
  place = MEDIAN_R + (at[between] - 1.4) * RATE
  until = MEDIAN_R + (at[between] - 1.8) * RATE
  ends = 0.6 * 0.4, 0.4 - 0.06
  line = np.interp(
    at[between] - 1.4,
    ends,
    (1 + MEDIAN_R + ends[0] * RATE, 1 + MEDIAN_R - 0.06 * RATE),
  )
  wanted = np.where(
    at[between] - 1.4 < ends[0],
    1 + place,
    np.where(at[between] - 1.4 < ends[1], line, 1 + until),
  )
  np.testing.assert_allclose(signal[between], wanted, atol=2e-3)


def test_no_track_has_no_sketch():
  track = jnp.zeros((1, 128, 13))
  assert not np.asarray(lay_beats(make_beat(), track)).any()


def test_it_foretells_what_the_extractor_does():
  extractor = BaseExtractor(
    width=16, depth=1, heads=2, latent_channels=8, identity_tokens=2,
    token_width=8, median_beat=True, beat_width=32, text_width=6,
  )  # fmt: skip
  rng = np.random.default_rng(0)
  base = jnp.asarray(rng.normal(size=(3, 16)), jnp.float32)
  statements = jnp.asarray(rng.normal(size=(3, 2, 6)), jnp.float32)
  mask = jnp.asarray([[True, False], [True, True], [False, False]])
  patient = jnp.asarray(rng.normal(size=(3, 3)), jnp.float32)
  condition = base, statements, mask, patient
  variables = extractor.init(
    jax.random.key(0), *condition, method="predict_beat"
  )
  head = variables["params"]["beat_head"]["output"]
  head["kernel"] = jnp.asarray(rng.normal(size=head["kernel"].shape))
  wanted = extractor.apply(variables, *condition, method="predict_beat")
  got = ForetoldBeat(16, 32).apply(variables, *condition)
  assert np.abs(wanted).max() > 0.1
  np.testing.assert_allclose(BEAT_SIZE * got, wanted, atol=1e-5)


def test_a_sketch_needs_a_track():
  model = Denoiser(beat_sketch=8, width=16, heads=2, base_width=16)
  zeros = jnp.zeros((1, 128, 4))
  with pytest.raises(ValueError, match="beat_sketch=8 must be 0"):
    model.init(
      jax.random.key(0), zeros, jnp.zeros(1), jnp.zeros((1, 1, 768)),
      None, jnp.zeros((1, 3)), jnp.zeros((1, 16)),
    )  # fmt: skip


def test_stage_1_begins_by_giving_a_beat_back(stage_config):
  config = stage_config("stage1")
  data = base_extractor.load_data(config)
  given = base_extractor.start(config, data)
  head = given["beat_head"]
  arrays = data.train.arrays
  found = arrays["median_beat_found"] > 0
  beats = beat_rate.at_60_bpm(
    arrays["median_beat"][found], data.train.patient[found]
  )
  beats = np.asarray(beats, float).reshape(len(beats), -1) / BEAT_SIZE
  code = beats @ given["beat_reading"]["direct"]["kernel"]
  assert not code[:, 1::2].any() and code[:, ::2].any(axis=0).all()
  back = code @ head["direct"]["kernel"] + head["output"]["bias"]
  lost = np.square(back - beats).reshape(-1, 80, 12).mean(axis=0)
  assert lost.sum() < 0.05 * beats.var(axis=0).sum()
  # Small waves are not what is lost.
  p_wave = slice(8, 22)
  spread = beats.var(axis=0).reshape(80, 12)[p_wave].sum()
  assert lost[p_wave].sum() < 0.1 * spread
  with config.unlocked():
    config.model.median_beat = False
  assert base_extractor.start(config, data) == {}


def test_training_starts_with_what_stage_1_foretells(chain, stage_config):
  config = stage_config("stage2")
  data = denoiser.load_data(config)
  given = denoiser.start(config, data)["foretold_beat"]
  _, learned = checkpoint.load_weights(chain / "stage1", "base_extractor")
  learned = learned["params"]
  np.testing.assert_array_equal(
    given["beat_head"]["input"]["kernel"],
    learned["beat_head"]["input"]["kernel"],
  )
  np.testing.assert_array_equal(
    given["beat_head"]["output"]["bias"],
    learned["beat_head"]["output"]["bias"],
  )
  with runs.program(config, jax.devices()) as p:
    state = train.first_state(p.config, p.stage, p.shapes, "denoiser")
    begun = train.start_with({"foretold_beat": given}, state)
  for tree in (begun.params, begun.ema):
    jax.tree.map(np.testing.assert_array_equal, tree["foretold_beat"], given)
    assert tree["condition"] is not None
  wrong = {"foretold_beat": jax.tree.map(lambda x: x[..., :3], given)}
  with pytest.raises(ValueError, match="must be"):
    train.start_with(wrong, state)


def test_a_trained_denoiser_foretells_as_stage_1_does(chain):
  _, learned = checkpoint.load_weights(chain / "stage1", "base_extractor")
  _, trained = checkpoint.load_weights(chain / "stage2", "denoiser")
  own = trained["params"]["foretold_beat"]
  for name in ("beat_head", "statement_tokens"):
    jax.tree.map(
      np.testing.assert_array_equal, own[name], learned["params"][name]
    )


def test_a_given_denoiser_foretells_as_stage_1_does(
  chain, stage_config, tmp_path
):
  hyper, variables = checkpoint.load_weights(chain / "stage2", "denoiser")
  foretold = variables["params"]["foretold_beat"]
  other = {
    **variables["params"],
    "foretold_beat": jax.tree.map(lambda x: x + 1, foretold),
  }
  twin_directory.write_twin(
    tmp_path / "other",
    {"denoiser": (hyper, {"params": other})},
    sources={},
    card="A denoiser of another extractor.",
  )
  config = stage_config("stage2", init_from=str(tmp_path / "other"))
  train.train(config, tmp_path / "run")
  _, trained = checkpoint.load_weights(tmp_path / "run", "denoiser")
  jax.tree.map(
    np.testing.assert_array_equal, trained["params"]["foretold_beat"], foretold
  )


def test_what_gets_a_share_of_another_beat():
  rng = np.random.default_rng(0)
  rows, own = 200, np.arange(200) < 50
  batch = {"index": np.arange(rows), "reference_index": 300 + np.arange(rows)}
  batch["reference_index"][own] = batch["index"][own]
  for prefix, rate in (("", 60), ("reference_", 90)):
    patient = [(rate - PATIENT_MEAN[0]) / PATIENT_STD[0], np.nan, 0]
    batch[prefix + "patient"] = np.tile(np.float32(patient), (rows, 1))
    beats = rng.standard_normal((rows, 80, 12), np.float32)
    batch[prefix + "median_beat"] = beats
  new = base_extractor.add_other_beats(jax.random.key(3), batch)
  added = np.asarray(new["median_beat"] - batch["median_beat"])
  mixed = np.abs(added).max(axis=(1, 2)) > 0
  assert mixed[own].all()
  assert 0.35 < mixed[~own].mean() < 0.65
  other = np.roll(batch["median_beat"], 1, axis=0)
  share = (added * other).sum(axis=(1, 2)) / (other**2).sum(axis=(1, 2))
  np.testing.assert_allclose(added, share[:, None, None] * other, atol=1e-4)
  assert 0.55 < share[mixed].std() < 0.85
  # Both of a pair get the same, as it would be at their rates.
  np.testing.assert_allclose(
    new["reference_median_beat"] - batch["reference_median_beat"],
    beat_rate.from_60_bpm(added, batch["reference_patient"]),
    atol=1e-4,
  )
  np.testing.assert_array_equal(new["patient"], batch["patient"])


def test_a_share_at_an_unknown_rate_is_finite():
  rng = np.random.default_rng(0)
  batch = {"index": np.arange(8), "reference_index": 8 + np.arange(8)}
  for prefix in ("", "reference_"):
    batch[prefix + "patient"] = np.full((8, 3), np.nan, np.float32)
    beats = rng.standard_normal((8, 80, 12), np.float32)
    batch[prefix + "median_beat"] = beats
  new = base_extractor.add_other_beats(jax.random.key(0), batch)
  assert np.isfinite(new["median_beat"]).all()
  assert np.isfinite(new["reference_median_beat"]).all()
  assert (new["median_beat"] != batch["median_beat"]).any()


def test_another_width_than_stage_1_s_is_refused(stage_config):
  config = stage_config("stage2", **{"model.beat_sketch": 32})
  with pytest.raises(ValueError, match="beat_sketch=32 must be 64"):
    denoiser.load_data(config)


def test_other_gates_than_stage_1_s_are_refused(stage_config):
  config = stage_config("stage2", **{"model.beat_gates": 1})
  with pytest.raises(ValueError, match="beat_gates=1 must be 2"):
    denoiser.load_data(config)


def test_another_width_of_what_foretells_is_refused(stage_config, monkeypatch):
  monkeypatch.setattr(ForetoldBeat, "hidden", 128)
  with pytest.raises(ValueError, match="beat_width=256, which must be 128"):
    denoiser.load_data(stage_config("stage2"))
