"""Privacy: copies are caught, honest generators are not, blocks equal all."""

import hashlib
import pickle

import numpy as np
import pytest
from scipy import stats

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.diffusion.schedule import Schedule
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.generate_examples import choose
from ecgtwin_jax.evaluation.metric import NAN, Metric, missing
from ecgtwin_jax.evaluation.privacy import (
  beat_match,
  membership,
  privacy,
  replay,
)
from ecgtwin_jax.inference.conditioning import ConditionArrays
from ecgtwin_jax.inference.twin import ECGTwin
from helpers.datasets import make_dataset

SINUS = Condition(["Sinus rhythm"], 70.0)
TRAIN, UNSEEN, TARGETS = 150, 60, 60


def recordings(n, rng):
  """Bumps at random times with random amplitudes: 12 leads, 10 s, in mV."""
  t = np.arange(1024)
  signals = np.zeros((n, 1024, 12), np.float32)
  for i in range(n):
    period = rng.uniform(60, 120)
    beats = np.arange(rng.uniform(0, period), 1024, period)
    beats = beats + rng.normal(0, 4, len(beats))
    for width in (2.0, 8.0):
      shape = np.exp(-0.5 * ((t[:, None] - beats) / width) ** 2).sum(axis=1)
      signals[i] += shape[:, None] * rng.normal(size=12)
  return signals + rng.normal(0, 0.02, signals.shape).astype(np.float32)


def make_examples(generated, references, real):
  n = len(real)
  return Examples(
    patients=np.arange(n) // 2,
    references=references,
    reference_conditions=(SINUS,) * n,
    real=real,
    conditions=(SINUS,) * n,
    generated={"twin": generated[:, None]},
    reference_ids=tuple(f"{i // 2}/0" for i in range(n)),
    real_ids=tuple(f"{i // 2}/{1 + i % 2}" for i in range(n)),
  )


def remember(function):
  """The same function; what is asked for again is not computed again."""
  results = {}

  def answer(*arrays, **options):
    key = hashlib.sha256(pickle.dumps((arrays, options))).digest()
    if key not in results:
      results[key] = function(*arrays, **options)
    return results[key]

  return answer


@pytest.fixture(scope="module", autouse=True)
def _remembered():
  """Real recordings are the same, whatever was generated."""
  with pytest.MonkeyPatch.context() as patch:
    for module, name in (
      (beat_match, "median_beats"),
      (beat_match, "beats_at_stretches"),
      (replay, "nearest"),
      (replay, "nearest_stretched"),
    ):
      patch.setattr(module, name, remember(getattr(module, name)))
    yield


@pytest.fixture(scope="module")
def sets():
  rng = np.random.default_rng(0)
  names = dict(train=TRAIN, validation=UNSEEN, references=TARGETS, real=TARGETS)
  names["honest"] = TARGETS
  return {name: recordings(n, rng) for name, n in names.items()}


def measured(sets, generated):
  examples = make_examples(generated, sets["references"], sets["real"])
  return named(privacy.compute(examples, sets["train"], sets["validation"]))


def named(nearness):
  metrics = privacy.metrics(nearness)
  names = [metric.name for metric in metrics]
  assert len(names) == len(set(names)) and {m.level for m in metrics} == {
    "privacy"
  }
  return {metric.name: metric for metric in metrics}


@pytest.fixture(scope="module")
def nearness(sets):
  """Of an honest generator's ECGs."""
  examples = make_examples(sets["honest"], sets["references"], sets["real"])
  return privacy.compute(examples, sets["train"], sets["validation"])


@pytest.fixture(scope="module")
def honest(nearness):
  """What is measured of it."""
  return named(nearness)


def test_a_generator_that_copies_its_training_set_is_caught(sets):
  rng = np.random.default_rng(1)
  rows = rng.integers(0, TRAIN, TARGETS)
  # Other start, gain and drift, and noise: copies all the same.
  drift = np.linspace(0, 0.3, 1024, dtype=np.float32)[:, None]
  copies = np.stack([np.roll(sets["train"][r], 5 * r, axis=0) for r in rows])
  copies = 0.7 * copies + drift
  copies += rng.normal(0, 0.05, copies.shape).astype(np.float32)
  got = measured(sets, copies)
  share = got["privacy_replay_share"]
  assert share.value > 0.95 and share.low > 0.85 and share.reference == 0.05
  assert got["privacy_nearest_training_correlation"].value > 0.9
  assert got["privacy_membership_distance_auc"].low > 0.55
  largest = got["privacy_largest_training_correlation"]
  unseen, _ = replay.nearest(sets["validation"], sets["train"])
  assert largest.value > largest.reference == unseen.max()
  text = privacy.describe(list(got.values()))
  assert "Training recordings are replayed" in text
  assert "No sign that the reference is copied" in text


def test_an_honest_generator_is_not_accused(honest):
  got = honest
  share = got["privacy_replay_share"]
  assert share.low <= 0.05 <= share.high and share.value < 0.2
  attack = got["privacy_membership_distance_auc"]
  assert attack.low < 0.5 < attack.high and attack.baseline == 0.5
  nearest = got["privacy_nearest_training_correlation"]
  assert abs(nearest.value - nearest.reference) < 0.05
  assert np.isnan(got["privacy_membership_loss_auc"].value)
  text = privacy.describe(list(got.values()))
  assert "No sign of replay" in text and "no better than a guess" in text
  assert "with the weights and a recording was not measured" in text


def test_a_generator_that_hands_the_reference_back_is_caught(sets):
  got = measured(sets, np.roll(sets["references"], 100, axis=1))
  share = got["privacy_reference_replay_share"]
  # 30 of 30 patients: exact binomial.
  assert share.value == share.high == 1
  assert share.low == pytest.approx(0.025 ** (1 / 30))
  assert got["privacy_reference_correlation"].value > 0.999
  assert got["privacy_reference_correlation"].reference < 0.9
  assert got["privacy_replay_share"].low <= 0.05
  text = privacy.describe(list(got.values()))
  assert "The reference shows through" in text and "No sign of replay" in text


def test_a_drawn_recording_keeps_its_patient_and_its_reference(sets, nearness):
  examples = make_examples(sets["honest"], sets["references"], sets["real"])
  every = nearness
  some = privacy.compute(
    examples,
    sets["train"],
    sets["validation"],
    train_patients=1000 + np.arange(TRAIN),
    validation_patients=2000 + np.arange(UNSEEN),
    limit=13,
  )
  assert set(some.member_patients) <= set(range(1000, 1000 + TRAIN))
  unseen = every.unseen[some.unseen_patients - 2000]
  np.testing.assert_allclose(some.unseen, unseen, atol=1e-5)
  for values, of_all in (
    (some.to_reference, every.to_reference),
    (some.real_to_reference, every.real_to_reference),
  ):
    assert np.abs(values[:, None] - of_all).min(axis=1).max() < 1e-5


def test_the_names_of_patients_of_two_sets_may_coincide(nearness, honest):
  assert set(nearness.patients) < set(nearness.unseen_patients)
  same = honest
  other = named(
    nearness._replace(unseen_patients=1000 + nearness.unseen_patients)
  )
  name = "privacy_replay_share"
  assert same[name].low == other[name].low
  assert same[name].high == other[name].high


def test_blocks_equal_all_at_once(sets):
  queries, pool = sets["honest"][:7], sets["train"][:23]
  want, where = replay.nearest(queries, pool, rows=7, columns=23)
  got, place = replay.nearest(queries, pool, rows=3, columns=5)
  np.testing.assert_allclose(got, want, atol=1e-5)
  np.testing.assert_array_equal(place, where)


def test_correlation_by_hand_at_every_shift(sets):
  a, b = sets["honest"][:2].astype(np.float64)

  def filtered(x):
    f = np.fft.rfft(x, axis=0)
    f[:5] = 0
    f[256:] = 0
    return np.fft.irfft(f, axis=0)

  a, b = filtered(a), filtered(b)
  norm = np.linalg.norm(a) * np.linalg.norm(b)
  all_shifts = [(a * np.roll(b, s, axis=0)).sum() / norm for s in range(1024)]
  got, shift = replay.paired(sets["honest"][:1], sets["honest"][1:2])
  np.testing.assert_allclose(got[0], max(all_shifts), atol=1e-4)
  assert shift[0] == np.argmax(all_shifts)
  best, where = replay.nearest(sets["honest"][:1], sets["honest"][1:4])
  others = replay.paired(
    np.repeat(sets["honest"][:1], 3, axis=0), sets["honest"][1:4]
  )[0]
  np.testing.assert_allclose(best[0], others.max(), atol=1e-5)
  assert where[0] == others.argmax()


def test_flat_recordings_resemble_nothing():
  flat = np.zeros((2, 1024, 12), np.float32)
  values, _ = replay.nearest(flat, flat)
  np.testing.assert_allclose(values, 0, atol=1e-6)
  with pytest.raises(ValueError, match="pool"):
    replay.nearest(flat, flat[:0])


@pytest.mark.parametrize("separation", [0.0, 1.5])
def test_area_under_the_curve_of_gaussians(separation):
  rng = np.random.default_rng(0)
  members = rng.normal(separation, 1, 1600)
  others = rng.normal(0, 1, 1201)
  metric = membership.auc_metric(
    "attack", members, others, np.arange(1600), np.arange(1201)
  )
  truth = stats.norm.cdf(separation / np.sqrt(2))
  assert abs(metric.value - truth) < 0.02
  assert metric.low < truth < metric.high and metric.n == 2801
  none = membership.auc_metric(
    "attack", members, others[:0], np.arange(1600), np.arange(0)
  )
  assert np.isnan(none.value) and none.note


def test_patients_of_two_sets_stay_apart():
  got = membership.joined(np.array([4, 4, 9]), np.array(["a", "b", "a"]))
  np.testing.assert_array_equal(got, [0, 0, 1, 2, 3, 2])


class Networks:
  """Knows the latents of some recordings by heart, and guesses for others."""

  reads_beats = False

  def __init__(self, known, schedule_of):
    self.known, self.schedule_of = known, schedule_of

  def encode(self, ecg):
    return np.full((128, 4), ecg.signal[0, 0], np.float32)

  def extract(self, references, conditions, **_):
    return np.zeros((len(references), 5), np.float32)

  def predict_noise(self, plan, noisy, timesteps, inputs):
    signal, noise = self.schedule_of(timesteps)
    out = np.zeros_like(noisy)
    for i, x in enumerate(noisy):
      guesses = [(x - signal[i] * k) / noise[i] for k in self.known]
      spread = [abs(guess.mean()) for guess in guesses]
      if min(spread) < 0.2:
        out[i] = guesses[int(np.argmin(spread))]
    return out


class Twin(ECGTwin):
  """A stand-in with a schedule and the networks above."""

  def __init__(self, known):
    schedule = Schedule()
    hyper = {"schedule": {"steps": schedule.steps}, "timesteps": (0, 999)}
    self.hyper = {"denoiser": {**hyper, "latent_clip": 1.0}}
    self.networks = Networks(
      known, lambda t: (schedule.signal_rate[t], schedule.noise_rate[t])
    )

  def arrays(self, condition, part):
    return ConditionArrays(
      np.zeros((18, 768), np.float32),
      np.zeros(18, bool),
      np.zeros(3, np.float32),
    )


def test_a_denoiser_that_knows_its_training_set_by_heart_is_caught():
  data = make_dataset("ecg", recordings=80, patients=20)
  scale = np.float32(data.card["scale"]) * 50
  data.card["scale"] = float(scale)
  choice = choose(data, 20, 2, seed=0)
  values = data.arrays["ecg"][choice.targets, 0, 0] * scale
  half = len(values) // 2
  measured = membership.denoising_losses(
    Twin(values[:half]), data, choice, timesteps=(50, 150)
  )
  assert measured.losses.shape == measured.patients.shape == (len(values),)
  ours, others = measured.losses[:half], measured.losses[half:]
  attack = membership.auc_metric(
    "attack", -ours, -others, np.arange(half), np.arange(len(others))
  )
  assert attack.value > 0.9
  again = membership.denoising_losses(
    Twin(values[:half]), data, choice, timesteps=(50, 150)
  )
  np.testing.assert_array_equal(measured.losses, again.losses)
  with pytest.raises(ValueError, match="timesteps"):
    membership.denoising_losses(Twin([]), data, choice, timesteps=(1000,))


def test_losses_become_a_metric(nearness):
  rng = np.random.default_rng(0)
  known = membership.Losses(rng.normal(0.3, 0.1, 90), np.arange(90) // 3)
  unseen = membership.Losses(rng.normal(0.6, 0.1, 60), np.arange(60) // 3)
  got = named(nearness._replace(losses=(known, unseen)))
  metric = got["privacy_membership_loss_auc"]
  assert metric.low > 0.9 and metric.n == 150
  assert "mostly" in privacy.describe(list(got.values()))


def test_words_follow_the_numbers():
  metric = Metric(
    "identity_top1_share",
    0.8,
    0.7,
    0.9,
    0.01,
    0.9,
    "higher",
    400,
    "person",
    "gallery of 100",
  )
  text = privacy.describe([metric])
  assert "80.0% (95% interval 70.0% to 90.0%)" in text
  assert "protect it as you protect the reference" in text
  chance = metric._replace(value=0.01, low=0.0, high=0.03)
  assert "No better than the baseline of 1.0%" in privacy.describe([chance])
  share = Metric(
    "privacy_replay_share", 0, 0, 0.1, NAN, 0.05, "lower", 60, "privacy"
  )
  far = share._replace(
    name="privacy_nearest_training_correlation",
    value=0.2,
    low=0.1,
    high=0.3,
    reference=0.6,
  )
  assert "tells of fidelity" in privacy.describe([share, far])
  near = far._replace(value=0.6, high=0.7)
  assert "tells of fidelity" not in privacy.describe([share, near])
  attack = share._replace(name="privacy_membership_loss_auc", baseline=0.5)
  for low, value, words in (
    (0.45, 0.55, "(0.45 to 0.90): no better than a guess."),
    (0.51, 0.55, "barely better"),
    (0.55, 0.7, "in part"),
  ):
    found = attack._replace(low=low, value=value, high=0.9)
    assert words in privacy.describe([found])
  unknown = [missing("privacy_replay_share", "privacy", "none")]
  assert "replayed was not measured" in privacy.describe(unknown)


def test_the_picture_shows_both_comparisons_and_the_pair(sets):
  examples = make_examples(
    np.roll(sets["train"][:TARGETS], 77, axis=1),
    sets["references"],
    sets["real"],
  )
  found = privacy.compute(examples, sets["train"], sets["validation"], limit=13)
  assert len(found.generated) == len(found.unseen) == len(found.members) == 13
  np.testing.assert_allclose(found.pair[0], found.pair[1], atol=1e-6)
  figure = privacy.draw(found)
  titles = [axes.get_title() for axes in figure.axes]
  assert len(titles) == 3 and f"{TRAIN} training recordings" in titles[0]


def test_nothing_to_compare_with_is_refused(sets):
  examples = make_examples(sets["honest"], sets["references"], sets["real"])
  with pytest.raises(ValueError, match="0 training and 60 validation"):
    privacy.compute(examples, sets["train"][:0], sets["validation"])


def stretched(signals, factor):
  return replay.stretch_time(signals, factor)


def test_a_stretched_copy_is_found_by_recordings_and_by_beats(sets):
  rows = np.random.default_rng(1).integers(0, TRAIN, TARGETS)
  got = measured(sets, stretched(sets["train"][rows], 1.03))
  for name in ("privacy_replay_share", "privacy_beat_replay_share"):
    assert got[name].low > 0.8, name
  assert "are replayed" in privacy.describe(list(got.values()))


def test_one_who_repeats_its_own_beat_is_not_accused(sets):
  # The first beat of an unseen recording, at a regular distance.
  t = np.arange(1024)
  periodic = np.stack([x[300 + t % 80] for x in sets["honest"]])
  got = measured(sets, periodic)
  for name in ("privacy_replay_share", "privacy_beat_replay_share"):
    assert got[name].low <= 0.05 and got[name].value < 0.2, name


def test_pieces_of_training_recordings_are_found_by_their_beats(sets):
  rng = np.random.default_rng(2)
  rows = rng.integers(0, TRAIN, (TARGETS, 4))
  pieces = [
    np.concatenate([sets["train"][r][256 * k : 256 * (k + 1)] for k, r in row])
    for row in map(list, map(enumerate, rows))
  ]
  got = measured(sets, np.stack(pieces))
  assert got["privacy_beat_replay_share"].low > 0.5


def test_who_knows_when_the_targets_beats_fall_has_seen_it(sets, honest):
  leaked = measured(sets, sets["real"])["privacy_leak_share"]
  assert leaked.value == 1 and leaked.low == pytest.approx(0.025 ** (1 / 30))
  honest = honest["privacy_leak_share"]
  assert honest.low <= 0.05 <= honest.high and honest.value < 0.2


def test_one_s_own_recordings_are_passed_over(sets):
  queries = sets["honest"][:6]
  who = np.arange(6) // 2
  best, where = replay.nearest(
    queries, queries, query_owners=who, pool_owners=who
  )
  assert (who[where] != who).all() and (best < 0.999).all()
  pool = beat_match.median_beats(queries)
  beats = beat_match.beats_at_stretches(queries)
  found = beat_match.match(beats, pool, query_owners=who, pool_owners=who)
  assert (found.candidates[:, 0] // 2 != who).all()
  assert beat_match.match(beats, pool).candidates[:, 0].tolist() == [*range(6)]
