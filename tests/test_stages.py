"""The losses of the stages, by hand and by their properties."""

import dataclasses
import functools
import itertools
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from ecgtwin_jax.flags import load_config
from ecgtwin_jax.inference.sampling import Settings
from ecgtwin_jax.models.base_extractor import BEAT_SIZE
from ecgtwin_jax.models.denoiser import DenoiserInputs
from ecgtwin_jax.stages import base_extractor, clip, denoiser, splits, vae
from ecgtwin_jax.text import findings
from helpers import weights
from helpers.datasets import make_dataset


def smoke(name, **changes):
  config = load_config(f"configs/{name}.py:smoke")
  with config.ignore_type():
    config.update_from_flattened_dict(changes)
  return ml_collections.FrozenConfigDict(config)


def test_contrastive_losses_by_hand():
  logits = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 1.0, 1.0]])
  rows = np.log(np.exp(logits).sum(1)) - np.diagonal(logits)
  columns = np.log(np.exp(logits).sum(0)) - np.diagonal(logits)
  got = base_extractor.contrastive_losses(logits)
  np.testing.assert_allclose(got, (rows + columns) / 2, rtol=1e-6)


def test_pairs_of_one_patient_are_no_negatives():
  logits = jax.random.normal(jax.random.key(0), (3, 3))
  patients = jnp.array([7, 7, 9])
  same = patients[:, None] == patients[None, :]
  kept = base_extractor.contrastive_losses(logits, same)
  changed = logits.at[0, 1].add(100.0).at[1, 0].add(100.0)
  again = base_extractor.contrastive_losses(changed, same)
  np.testing.assert_array_equal(kept, again)
  assert not np.allclose(kept, base_extractor.contrastive_losses(logits))


def draw_extractor(config):
  """Parameters of an extractor, none of them zero."""
  return weights.draw(lambda rng: base_extractor.init(rng, config)[0])


def small_pairs(rng, n):
  """A batch of n pairs with beats, the last target without one."""
  batch = {"patient_id": jnp.arange(n)}
  for prefix in ("reference_", ""):
    batch[prefix + "mean"] = rng.normal(size=(n, 128, 8)).astype("f4")
    batch[prefix + "std"] = np.zeros((n, 128, 8), "f4")
    batch[prefix + "statement_ids"] = rng.integers(-1, 7, (n, 2))
    batch[prefix + "patient"] = rng.normal(size=(n, 3)).astype("f4")
    batch[prefix + "median_beat"] = rng.normal(size=(n, 80, 12)).astype("f4")
    batch[prefix + "median_beat_found"] = np.ones(n, np.int8)
  batch["median_beat_found"][-1] = 0
  return jax.tree.map(jnp.asarray, batch)


def test_each_side_of_a_pair_is_seen_with_its_own_condition_and_beat():
  config = smoke("stage1")
  rng = np.random.default_rng(0)
  params = draw_extractor(config)
  frozen = {"table": jnp.asarray(rng.normal(size=(7, 768)) / 28, "f4")}
  batch = small_pairs(rng, 3)
  channels = config.model.latent_channels
  latents = rng.normal(size=(2, 3, 128, channels)).astype("f4")
  drop = jnp.array([False, True, False])
  together, _ = jax.jit(functools.partial(base_extractor.extract_both, config))(
    params, frozen, batch, latents, drop
  )
  extract = jax.jit(base_extractor.make_module(config).apply)
  for found, latent, prefix in zip(
    together.swapaxes(0, 1), latents, ("reference_", "")
  ):
    statements, mask = splits.gather_statements(
      frozen["table"], batch[prefix + "statement_ids"]
    )
    alone = extract(
      {"params": params},
      latent,
      statements,
      mask,
      batch[prefix + "patient"],
      drop_text=drop,
      median_beat=batch[prefix + "median_beat"],
      median_beat_found=batch[prefix + "median_beat_found"],
    )
    np.testing.assert_allclose(found, alone, atol=1e-5)


def test_each_base_vector_foretells_the_other_recordings_beat():
  config = smoke("stage1")
  rng = np.random.default_rng(0)
  params = draw_extractor(config)
  head = params["beat_head"]
  kernel = jnp.asarray(rng.normal(size=head["output"]["kernel"].shape), "f4")
  head = {**head, "output": {**head["output"], "kernel": kernel}}
  params = {**params, "beat_head": head}
  frozen = {"table": jnp.asarray(rng.normal(size=(7, 768)) / 28, "f4")}
  variance = rng.uniform(0.3, 0.7, (80, 12))
  frozen |= {"beat_variance": jnp.asarray(variance, "f4")}
  frozen["scale"] = jnp.float32(2)
  batch = small_pairs(rng, 3)
  bases = rng.normal(size=(2, 3, config.model.identity_tokens * 8))
  bases = jnp.asarray(bases, "f4")
  latents = [batch["reference_mean"], batch["mean"]]

  @jax.jit
  def losses(params, frozen, batch, bases, latents):
    _, conditions = base_extractor.extract_both(
      config, params, frozen, batch, latents
    )
    both = bases.swapaxes(0, 1)
    return base_extractor.beat_losses(
      config, params, frozen, both, conditions, batch
    )

  got, want = losses(params, frozen, batch, bases, latents), 0
  module = base_extractor.make_module(config)
  predict = jax.jit(functools.partial(module.apply, method="predict_beat"))
  # The reference's vector with the target's condition, and the other way round.
  for base, prefix in zip(bases, ("", "reference_")):
    beat = predict(
      {"params": params},
      base,
      *splits.gather_statements(
        frozen["table"], batch[prefix + "statement_ids"]
      ),
      batch[prefix + "patient"],
    )
    error = (beat - batch[prefix + "median_beat"]) ** 2 / variance[None]
    want += error.mean((1, 2)) * batch[prefix + "median_beat_found"] / 2
  np.testing.assert_allclose(got, want, rtol=1e-5)
  both, (_, metrics) = jax.jit(functools.partial(base_extractor.loss, config))(
    params, {}, frozen, batch, jax.random.key(0)
  )
  np.testing.assert_allclose(
    both, metrics["contrast"] + config.beat_weight * metrics["beat"], rtol=1e-6
  )


def test_what_base_vectors_hold_by_construction():
  rng = np.random.default_rng(0)
  points = rng.normal(size=(4000, 5)) * [1, 1, 1, 0, 0]
  turned = points @ np.linalg.qr(rng.normal(size=(5, 5)))[0]
  assert base_extractor.effective_dimension(turned) == pytest.approx(3, abs=0.1)
  line = points[:, :1] * np.ones((1, 7))
  assert base_extractor.effective_dimension(line) == pytest.approx(1)
  known = rng.normal(size=(4000, 2))
  rates = known[:, 0] + points[:, 0]
  told = base_extractor.heart_rate_leakage(turned, rates, known)
  assert told == pytest.approx(1, abs=0.01)
  nothing = base_extractor.heart_rate_leakage(turned, known[:, 0], known)
  assert abs(nothing) < 0.05
  other = rng.normal(size=4000)
  assert abs(base_extractor.heart_rate_leakage(turned, other, known)) < 0.01


def test_small_waves_are_among_what_a_beat_begins_with():
  rng = np.random.default_rng(0)
  p_wave, qrs = slice(5, 25), slice(25, 38)
  shapes = rng.normal(0, 0.02, (3, 20, 12))
  beats = np.zeros((400, 80, 12))
  beats[:, p_wave] = np.tensordot(rng.normal(size=(400, 3)), shapes, 1)
  beats[:, qrs] = rng.normal(0, 0.5, (400, 13, 12))
  split = dataclasses.replace(
    make_dataset("latent", recordings=400),
    arrays={"median_beat": beats, "median_beat_found": np.ones(400)},
  )
  given = base_extractor.start(smoke("stage1"), splits.Splits(split, split))
  beats = beats.reshape(400, -1) / BEAT_SIZE
  head = given["beat_head"]
  back = beats @ given["beat_reading"]["direct"]["kernel"]
  back = back @ head["direct"]["kernel"] + head["output"]["bias"]
  lost = np.square(back - beats).reshape(400, 80, 12)
  whole = np.square(beats - beats.mean(axis=0)).reshape(400, 80, 12)
  assert lost[:, p_wave].sum() < 0.05 * whole[:, p_wave].sum()
  # There are more directions in this QRS than entries in the base vector.
  assert lost[:, qrs].sum() > 0.5 * whole[:, qrs].sum()


def test_the_spread_of_beats_is_that_of_found_ones():
  rng = np.random.default_rng(0)
  beats = rng.normal(0, 0.3, (900, 80, 12)).astype(np.float16)
  beats[:, :7] = 0.25
  beats[::2] = 100
  found = np.arange(900) % 2
  split = dataclasses.replace(
    make_dataset("latent", recordings=900),
    directory=pathlib.Path("somewhere"),
    arrays={"median_beat": beats, "median_beat_found": found},
  )
  variance = base_extractor.spread_of_beats(split)
  assert variance[7:].mean() == pytest.approx(0.09 + 0.05**2, rel=0.01)
  assert variance[:7] == pytest.approx(0.05**2)
  split.arrays["median_beat_found"] = found * 0
  with pytest.raises(
    ValueError, match="'train' of somewhere has 0 median beat"
  ):
    base_extractor.spread_of_beats(split)
  config = smoke("stage1", latents="old")
  bare = splits.Splits(make_dataset("latent"), make_dataset("latent"))
  with pytest.raises(ValueError, match=r"'old' holds no median beats.*encode"):
    splits.require_beats(config, bare)


def test_the_published_text_dropout_is_one_draw_per_batch():
  paper = smoke("stage1", text_dropout=0.5, text_dropout_per="batch")
  ours = smoke("stage1", text_dropout=0.5)
  keys = jax.random.split(jax.random.key(0), 20)
  whole = np.stack([base_extractor.draw_lost_texts(paper, k, 16) for k in keys])
  each = np.stack([base_extractor.draw_lost_texts(ours, k, 16) for k in keys])
  assert (whole == whole[:, :1]).all()
  assert 0 < whole[:, 0].mean() < 1
  assert not (each == each[:, :1]).all()


def test_vae_losses_by_hand():
  rng = np.random.default_rng(0)
  ecg, decoded = jnp.asarray(rng.normal(size=(2, 2, 5, 3)))
  mean, log_variance = jnp.asarray(rng.normal(size=(2, 2, 7, 4)))
  error, kl = vae.losses(ecg, decoded, mean, log_variance)
  np.testing.assert_allclose(
    error, ((ecg - decoded) ** 2).sum((1, 2)), rtol=1e-5
  )
  each = 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance)
  np.testing.assert_allclose(kl, each.sum(2).mean(1), rtol=1e-5)


def test_vae_loss_weighs_slopes():
  time = np.arange(1024) / 102.4
  beats = np.sin(40 * time)
  difference = jnp.asarray(beats[None, :, None])
  zeros = jnp.zeros((1, 1, 1))

  def weighed(*weights):
    nothing = jnp.zeros_like(difference)
    error, _ = vae.losses(difference, nothing, zeros, zeros, *weights)
    return float(error[0])

  plain, slopes = np.square(beats).sum(), np.square(np.diff(beats)).sum()
  np.testing.assert_allclose(weighed(), plain, rtol=1e-5)
  np.testing.assert_allclose(weighed(4.0), plain + 4 * slopes, rtol=1e-5)


def test_a_dead_channel_stops_the_second_half_of_a_training():
  config = smoke("vae", max_posterior_std=0.8, steps=10)
  alive = {"score": 1.0, "posterior_std_0": 0.1, "posterior_std_1": 0.79}
  dead = {**alive, "posterior_std_1": 0.93}
  vae.check(config, 10, alive)
  vae.check(config, 4, dead)
  said = r"step 5: 1 \(0.93\); .* at most 0.8 .*max_posterior_std"
  with pytest.raises(ValueError, match=said):
    vae.check(config, 5, dead)
  vae.check(smoke("vae", max_posterior_std=None, steps=10), 10, dead)


def test_correlation_is_pearsons_r_per_lead():
  rng = np.random.default_rng(0)
  a, b = jnp.asarray(rng.normal(size=(2, 3, 11, 2)))
  got = vae.correlation(a, b)
  for i in range(3):
    for k in range(2):
      want = np.corrcoef(a[i, :, k], b[i, :, k])[0, 1]
      np.testing.assert_allclose(got[i, k], want, atol=1e-5)
  np.testing.assert_array_equal(vae.correlation(a, jnp.ones_like(a)), 0)


def test_padded_statements_are_zeros_and_masked():
  table = jnp.arange(10.0).reshape(5, 2) + 1
  ids = jnp.array([[3, 0, -1], [-1, -1, -1]])
  statements, mask = splits.gather_statements(table, ids)
  np.testing.assert_array_equal(mask, [[1, 1, 0], [0, 0, 0]])
  np.testing.assert_array_equal(statements[0, :2], table[jnp.array([3, 0])])
  np.testing.assert_array_equal(statements[0, 2], 0)
  text = clip.mean_embedding(table, ids)
  np.testing.assert_allclose(text[0], (table[3] + table[0]) / 2)
  np.testing.assert_array_equal(text[1], 0)


def test_padding_behind_the_longest_report_of_all_splits_goes(monkeypatch):
  @dataclasses.dataclass
  class Split:
    statement_ids: np.ndarray
    card: dict = dataclasses.field(default_factory=dict)

    def with_reports(self):
      return self, 0

  short = Split(np.array([[4, -1, -1, -1], [-1, -1, -1, -1]]))
  long = Split(np.array([[1, 2, 0, -1]]))
  train, validation = splits.trim_reports(splits.Splits(short, long))
  np.testing.assert_array_equal(
    train.statement_ids, [[4, -1, -1], [-1, -1, -1]]
  )
  np.testing.assert_array_equal(validation.statement_ids, [[1, 2, 0]])
  both = splits.Splits(short, long)
  monkeypatch.setattr(splits, "load_splits", lambda *given: both)
  monkeypatch.setattr(splits, "check_latents", lambda *given: None)
  for split in splits.load_pairs(smoke("stage2")):
    assert split.statement_ids.shape[1] == 3
  # A report of nothing keeps one place, which is padding.
  empty = Split(np.full((2, 4), -1))
  for split in splits.trim_reports(splits.Splits(empty, empty)):
    assert split.statement_ids.tolist() == [[-1], [-1]]


def test_a_measured_scale_gives_way_to_a_given_one():
  card = {"latent_scale": 1.5, "latent_clip": 4.0}
  measured = splits.latent_numbers(smoke("stage2"), card)
  assert measured == {"latent_scale": 1.5, "latent_clip": 4.0}
  given = splits.latent_numbers(smoke("stage2", latent_scale=0.18215), card)
  assert given == {"latent_scale": 0.18215, "latent_clip": 4.0}


def inputs_of(size, width, track=None):
  """A batch of zeros but for base vectors of ones."""
  return DenoiserInputs(
    jnp.zeros((size, 1, 768)),
    jnp.ones((size, 1), bool),
    jnp.zeros((size, 3)),
    jnp.ones((size, width)),
    track,
  )


def test_conditions_drop_at_their_rates_and_apart():
  names = ("statements", "patient", "base", "track")
  rates = {f"dropout.{name}": 0.3 for name in names}
  config = smoke("stage2", **rates)
  size = 4000
  given = inputs_of(size, 5, track=jnp.ones((size, 7, 2)))
  left, drop = denoiser.drop_conditions(config, jax.random.key(0), given)
  lost = [
    jnp.isnan(left.patient).all(1),
    (left.base == 0).all(1),
    (left.track == 0).all((1, 2)),
    drop,
  ]
  for gone in lost:
    assert 0.26 < float(gone.mean()) < 0.34
  for one, other in itertools.combinations(lost, 2):
    assert 0.06 < float(jnp.mean(one & other)) < 0.12
  assert set(np.unique(left.base)) == set(np.unique(left.track)) == {0.0, 1.0}


def test_paper_hides_the_same_base_entries_for_the_whole_batch():
  config = load_config("configs/stage2.py:paper")
  config = ml_collections.FrozenConfigDict(config)
  left, drop = denoiser.drop_conditions(
    config, jax.random.key(0), inputs_of(7, 1000)
  )
  base = left.base
  assert drop is None
  np.testing.assert_array_equal(left.patient, 0)
  assert (base == base[:1]).all()
  assert 0.1 < float((base == 0).mean()) < 0.2


@pytest.mark.parametrize(
  ("name", "part", "count"),
  [
    ("vae", "encoder", 12_217_424),
    ("vae", "decoder", 17_332_640),
    ("stage1", None, 3_361_025),
    ("stage2", None, 10_541_060),
    ("clip", None, 20_432_513),
  ],
)
def test_paper_configs_have_the_published_parameter_counts(name, part, count):
  modules = {
    "vae": vae,
    "stage1": base_extractor,
    "stage2": denoiser,
    "clip": clip,
  }
  config = ml_collections.FrozenConfigDict(
    load_config(f"configs/{name}.py:paper")
  )
  params, _ = jax.eval_shape(
    lambda: modules[name].init(jax.random.key(0), config)
  )
  params = params[part] if part else params
  assert sum(x.size for x in jax.tree.leaves(params)) == count


def test_reports_lose_their_rhythm_and_never_their_last_statement():
  says = jnp.array([True, False, False, True])
  ids = jnp.array([[0, 1, 2], [2, 3, 1], [3, 0, -1], [1, 0, -1], [-1, -1, -1]])
  every = jnp.ones(5, bool)
  got = denoiser.drop_rhythm(ids, says, every)
  np.testing.assert_array_equal(
    got, [[1, 2, -1], [2, 1, -1], [3, 0, -1], [1, -1, -1], [-1, -1, -1]]
  )
  one = jnp.arange(5) == 1
  got = denoiser.drop_rhythm(ids, says, one)
  np.testing.assert_array_equal(got[1], [2, 1, -1])
  np.testing.assert_array_equal(got[~one], ids[~one])


@pytest.mark.parametrize(
  ("statement", "expected"),
  [
    ("Sinus rhythm", True),
    ("Atrial fibrillation with rapid ventricular response", True),
    ("Atrial flutter", True),
    ("Ventricular pacing", True),
    ("Electronic pacemaker", True),
    ("Supraventricular tachycardia", True),
    ("Sinus bradycardia", True),
    ("Right bundle branch block", False),
    ("Inferior infarct, age undetermined", False),
    ("Ventricular premature complex", False),
    ("First degree A-V block", False),
    ("Left ventricular hypertrophy", False),
  ],
)
def test_statements_that_say_a_rhythm(statement, expected):
  assert findings.names_rhythm(statement) == expected


@pytest.mark.parametrize(
  ("injector", "backbone"),
  [("adaln", "dit"), ("cross_attention", "dit"), ("adax", "unet")],
)
def test_stage_2_trains_other_injectors_and_backbones(injector, backbone):
  adax = injector == "adax"
  config = smoke(
    "stage2",
    **{
      "model.injector": injector,
      "model.backbone": backbone,
      "model.width": 32,
      "model.depth": 1,
      "model.levels": 2,
      "model.level_blocks": 1,
      "model.base_width": 6,
      "model.latent_channels": 4,
      "model.beat_track": "kinds" if adax else "none",
      "model.beat_sketch": 64 if adax else 0,
      "prediction": "v" if adax else "noise",
      "dropout.statements": 0.5,
    },
  )
  size = 8
  rng = np.random.default_rng(0)

  def draw(*shape):
    return rng.standard_normal(shape).astype(np.float32)

  params = weights.draw(lambda rng: denoiser.init(rng, config)[0])
  frozen = {
    "table": draw(3, 768),
    "scale": splits.scale_array([1.0, 0.5, 2.0, 1.5]),
    "rhythm": np.array([True, False, True]),
  }
  ids = np.full((size, 18), -1)
  ids[:, 0] = np.arange(size) % 3
  patient = np.zeros((size, 3), np.float32)
  patient[0] = np.nan
  batch = {
    "mean": draw(size, 128, 4),
    "std": np.full((size, 128, 4), 0.1, np.float32),
    "statement_ids": ids,
    "patient": patient,
    "base": draw(size, 6),
    "beat_time": np.tile(np.linspace(0.2, 9.8, 48, dtype="f4"), (size, 1)),
    "beat_kind": np.zeros((size, 48), np.int8),
    "beat_p": np.ones((size, 48), np.int8),
  }

  @jax.jit
  def descend(params, frozen, batch):
    key = jax.random.key(1)
    loss, grads = jax.value_and_grad(
      lambda p: denoiser.loss(config, p, {}, frozen, batch, key)[0]
    )(params)
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(grads)))
    lower = jax.tree.map(lambda p, g: p - 0.05 * g / norm, params, grads)
    return loss, grads, lower

  first, grads, params = descend(params, frozen, batch)
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
  assert descend(params, frozen, batch)[0] < first


def test_guidance_that_the_twin_could_not_have_is_refused(stage_config):
  config = stage_config("stage2")
  config.sampling.person_guidance, config.dropout.base = 1.5, 0.0
  with pytest.raises(ValueError, match=r"person_guidance=1\.5 must be 1"):
    denoiser.load_data(config)


@pytest.mark.parametrize("told", ["kinds", "none"])
def test_shapes_are_drawn_apart_where_beats_are_told(stage_config, told):
  config = stage_config("stage2")
  config.model.beat_track, config.sampling.shape_temperature = told, 0.0
  config.model.beat_sketch = 0
  data = denoiser.load_data(config)
  own = denoiser.hyper(config, data)["sampling"]
  assert own["shape_temperature"] == (0.0 if told == "kinds" else 1.0)
  Settings().plan(denoiser.hyper(config, data) | {"latent_clip": 1.0})


def test_another_scale_than_the_extractors_is_refused(stage_config):
  config = stage_config("stage2", latent_scale=0.2)
  with pytest.raises(ValueError, match=r"config\.latent_scale=0\.2"):
    denoiser.load_data(config)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_patients_only_recording_is_a_pair_where_asked(
  stage, stage_config, monkeypatch
):
  whole = splits.load_splits(stage_config(stage).latents, "latent")
  train = whole.train
  alone = 0
  kept = train.patient_id != train.patient_id[alone]
  kept[alone] = True
  fewer = whole._replace(train=train.select(kept))
  monkeypatch.setattr(splits, "load_splits", lambda given, kind: fewer)

  def load(**changes):
    config = stage_config(stage, **changes)
    if stage == "stage1":
      return base_extractor.load_data(config)
    return denoiser.load_data(config).splits

  of_two = load().train.pairs
  data = load(own_recordings=True)
  pairs = data.train.pairs
  assert len(pairs) == len(of_two) + 1
  reference, target = pairs.pair(np.array([len(pairs) - 1]))
  assert reference == target
  assert data.train.record_names(target) == train.record_names([alone])
  assert len(data.validation.pairs) == len(fewer.validation.pairs)
