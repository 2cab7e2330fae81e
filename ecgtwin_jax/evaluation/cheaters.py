"""Cheaters: twins that are wrong in one known way, to test the report itself.

Each is made from arrays alone, without a network. The verdict must name each
by the question that it fails, and an honest twin, here a real recording of the
same patient on another day, by none.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage
from jaxtyping import Float, Float32, Shaped

from ecgtwin_jax.constants import LEADS, MODEL_RATE, MODEL_SAMPLES
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.heart_rate import detect_beats_by_energy
from ecgtwin_jax.evaluation.privacy.replay import stretch_time
from ecgtwin_jax.evaluation.resampling import rows_of_others
from ecgtwin_jax.simulator import simulate
from ecgtwin_jax.simulator.simulate import Patient

TEXT = "Is the text followed?"
PERSON = "Is it this patient?"
REAL = "Is it realistic?"
VARIES = "Does it vary?"
REPLAYS = "Does it replay recordings?"
_POOR = ("No", "Hardly", "In part")


class Scene(NamedTuple):
  """What cheaters are made from; signals are in mV at 102.4 Hz.

  Attributes:
    references: of each row.
    real: the true target of each row, which a twin never sees.
    honest: k recordings of the row's patient under the target condition.
    strangers: k recordings of another patient under it.
    rates: asked for, bpm.
    train: recordings that a twin may have been trained on.
    seed: of what is drawn.
  """

  references: Float32[np.ndarray, "n 1024 12"]
  real: Float32[np.ndarray, "n 1024 12"]
  honest: Float32[np.ndarray, "n k 1024 12"]
  strangers: Float32[np.ndarray, "n k 1024 12"]
  rates: Float[np.ndarray, " n"]
  train: Float32[np.ndarray, "m 1024 12"]
  seed: int


class Cheater(NamedTuple):
  """One way to be wrong.

  Attributes:
    make: its ECGs, (n, k, 1024, 12), of a scene.
    question: of the verdict, by which it is named.
    words: one of which is the answer.
    figure: part of the name of a figure that must stand in the sentence; empty:
      any.
  """

  make: Callable[[Scene], Float32[np.ndarray, "n k 1024 12"]]
  question: str
  words: tuple[str, ...]
  figure: str = ""


def record_twins(
  conditions: Sequence[Condition],
  patients: Sequence[Patient],
  samples: int,
  seed: int,
) -> Float32[np.ndarray, "n k 1024 12"]:
  """Recordings of each row's patient under its condition, on other days.

  Args:
    conditions: of each row.
    patients: of each row.
    samples: per row.
    seed: of the days and the noise.
  """
  twins = np.empty((len(patients), samples, MODEL_SAMPLES, 12), np.float32)
  for i, (patient, condition) in enumerate(
    zip(patients, conditions, strict=True)
  ):
    for k in range(samples):
      rng = np.random.default_rng([seed, 5, i, k])
      shown = simulate.simulate(patient, condition, rng)
      twins[i, k] = shown.ecg.resample(MODEL_SAMPLES).signal
  return twins


def set_scene(
  references: Float32[np.ndarray, "n 1024 12"],
  real: Float32[np.ndarray, "n 1024 12"],
  conditions: Sequence[Condition],
  patients: Sequence[Patient],
  numbers: Shaped[np.ndarray, " n"],
  train: Float32[np.ndarray, "m 1024 12"],
  *,
  samples: int = 2,
  seed: int = 0,
) -> Scene:
  """Simulates what an honest twin and a stranger's show.

  Args:
    references: of each row, like the next four.
    real: the true target.
    conditions: of the targets.
    patients: simulated ones.
    numbers: of the patients.
    train: recordings that a twin may have been trained on.
    samples: per row.
    seed: of what is drawn.
  """
  others = [patients[k] for k in rows_of_others(numbers, seed)]
  return Scene(
    references,
    real,
    record_twins(conditions, patients, samples, seed),
    record_twins(conditions, others, samples, seed + 1),
    np.array([condition.heart_rate for condition in conditions]),
    train,
    seed,
  )


def _some_of_training(scene: Scene, pieces=1):
  n, k = scene.honest.shape[:2]
  rng = np.random.default_rng([scene.seed, 6])
  return rng.integers(0, len(scene.train), (n, k, pieces))


def replay(scene: Any) -> Any:
  """Training recordings, from another moment on."""
  return np.roll(scene.train[_some_of_training(scene)[..., 0]], 217, axis=2)


def replay_stretched(scene: Any) -> Any:
  """Training recordings that last 3% longer."""
  twins = scene.train[_some_of_training(scene)[..., 0]]
  flat = stretch_time(twins.reshape(-1, *twins.shape[2:]), 0.97)
  return flat.reshape(twins.shape).astype(np.float32)


def replay_second(scene: Any) -> Any:
  """An honest twin first, training recordings behind it."""
  twins = scene.honest.copy()
  twins[:, 1:] = replay(scene)[:, 1:]
  return twins


def splice(scene: Any) -> Any:
  """Four pieces of 2.5 s, each of another training recording."""
  chosen = _some_of_training(scene, 4)
  piece = MODEL_SAMPLES // 4
  return np.concatenate(
    [
      scene.train[chosen[..., j], j * piece : (j + 1) * piece] for j in range(4)
    ],
    axis=2,
  )


def repeat_reference(scene: Any) -> Any:
  """The reference, left as it is."""
  return np.repeat(scene.references[:, None], scene.honest.shape[1], axis=1)


def repeat_mean_beat(scene: Any) -> Any:
  """The mean beat of all training recordings, at the rate asked for."""
  before, after = 26, 45  # samples: 0.25 and 0.44 s
  beats = []
  for signal in scene.train:
    middles = detect_beats_by_energy(signal, MODEL_RATE)
    beats += [
      signal[m - before : m + after]
      for m in middles
      if before <= m <= len(signal) - after
    ]
  mean = np.mean(beats, axis=0)
  return np.stack([_repeat_beat(mean, before, r) for r in scene.rates])[
    :, None
  ].repeat(scene.honest.shape[1], axis=1)


def repeat_own_beat(scene: Any) -> Any:
  """The first whole beat of an honest twin, at a distance that never varies."""
  before, after = 26, 45
  twins = np.empty_like(scene.honest)
  for i, row in enumerate(scene.honest):
    for k, signal in enumerate(row):
      middles = detect_beats_by_energy(signal, MODEL_RATE)
      middle = next((m for m in middles if m >= before), 2 * before)
      beat = signal[middle - before : middle + after]
      twins[i, k] = _repeat_beat(beat - beat[:1], before, scene.rates[i])
  return twins


def _repeat_beat(beat, before, rate):
  signal = np.zeros((MODEL_SAMPLES + 2 * len(beat), beat.shape[1]), np.float32)
  distance = 60 * MODEL_RATE / rate
  for start in np.arange(before, MODEL_SAMPLES + len(beat), distance):
    start = round(start)
    length = min(len(beat), round(distance), len(signal) - start)
    signal[start : start + length] += beat[:length]
  return signal[len(beat) : len(beat) + MODEL_SAMPLES]


def smooth(scene: Any) -> Any:
  """An honest twin without what is faster than about 5 Hz."""
  width = (0, 0, 0.03 * MODEL_RATE, 0)
  return scipy.ndimage.gaussian_filter(scene.honest, width)


def permute(scene: Any) -> Any:
  """Each lead in the place of the next one."""
  return np.roll(scene.honest, 1, axis=-1)


def swap_arm_electrodes(scene: Any) -> Any:
  """The electrodes of both arms changed: I upside down, II as III."""
  order = [LEADS.index(x) for x in ("I", "III", "II", "aVL", "aVR", "aVF")]
  swapped = scene.honest[..., [*order, *range(6, 12)]].copy()
  swapped[..., 0] *= -1
  return swapped


CHEATERS = {
  "replayer": Cheater(replay, REPLAYS, ("Yes",), "replay"),
  "stretched replayer": Cheater(replay_stretched, REPLAYS, ("Yes",), "replay"),
  "hidden replayer": Cheater(replay_second, REPLAYS, ("Yes",), "replay"),
  "splicer": Cheater(splice, REPLAYS, ("Yes",), "beat_replay"),
  "stranger": Cheater(lambda scene: scene.strangers, PERSON, ("No", "Hardly")),
  "parrot": Cheater(repeat_reference, REPLAYS, ("Yes",), "reference"),
  "mean beat": Cheater(repeat_mean_beat, VARIES, ("No", "Hardly")),
  "own beat": Cheater(repeat_own_beat, VARIES, ("No", "Hardly")),
  "smoother": Cheater(smooth, REAL, _POOR[:2]),
  "halved amplitude": Cheater(lambda scene: scene.honest / 2, REAL, _POOR),
  "permuted leads": Cheater(permute, REAL, _POOR[:2]),
  "swapped limb leads": Cheater(swap_arm_electrodes, REAL, _POOR),
  "inverted": Cheater(lambda scene: -scene.honest, REAL, _POOR[:2]),
  "collapsed": Cheater(
    lambda scene: np.repeat(scene.honest[:, :1], 2, axis=1),
    VARIES,
    ("No",),
    "sample_spread",
  ),
  "leaked truth": Cheater(
    lambda scene: np.repeat(scene.real[:, None], 2, axis=1),
    REPLAYS,
    ("Yes",),
    "leak",
  ),
}
