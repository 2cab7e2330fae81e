"""When the heart beats: onsets of QRS and what kind of beat each is."""

import dataclasses

import numpy as np
from jaxtyping import Float

from ecgtwin_jax.simulator.anatomy import Patient

FASTEST_ATRIA = 300.0  # flutter waves per minute the conduction ratio aims at
SHORTEST_RR = 0.26  # s: a ventricle in fibrillation conducts no earlier


@dataclasses.dataclass(frozen=True)
class Rhythm:
  """Beats of a recording.

  Attributes:
    onset: (b,) QRS onsets in seconds, one of them or more before 0 and after
      the end, so that the edges of the recording are filled.
    kind: (b,) "normal", "pvc", "pac" or "paced".
    mean_rr: 60 / heart rate, seconds.
    breath: (b,) phase of the breath at each beat, radians.
    atrial_cycle: Seconds from one flutter wave to the next, or nan.
  """

  onset: Float[np.ndarray, " b"]
  kind: np.ndarray
  mean_rr: float
  breath: Float[np.ndarray, " b"]
  atrial_cycle: float = float("nan")


def draw_rhythm(
  patient: Patient,
  findings: frozenset[str],
  heart_rate: float,
  duration: float,
  rng: np.random.Generator,
) -> Rhythm:
  """Draws beat times whose mean RR interval within the recording is 60 / rate.

  Args:
    patient: Whose heart.
    findings: Keys of the effects at work (see findings.CONDITIONS).
    heart_rate: Mean ventricular rate in beats per minute.
    duration: Seconds of the recording.
    rng: Source of all that is drawn.

  Returns:
    The beats, from before the start to after the end.
  """
  mean = 60.0 / heart_rate
  first = rng.uniform(0.05, 0.95) * min(mean, 1.5)
  # Intervals wholly inside the recording if none were longer than the mean.
  inside = max(int((duration - 0.2 - first) / mean), 2)
  before, after = 2 + int(1.0 / mean), 2 + int(1.0 / mean)
  count = before + inside + after
  window = slice(before, before + inside)
  phase = rng.uniform(0, 2 * np.pi)
  turn = 2 * np.pi * patient.respiration * mean
  breath = phase + turn * np.arange(count + 1)
  kind = np.full(count + 1, "normal", dtype="U6")
  cycle = float("nan")

  if "fibrillation" in findings:
    ratio = _irregular(count, mean, window, rng)
  elif "flutter" in findings:
    ratio, cycle = _flutter(count, heart_rate, window, rng)
  elif "pacing" in findings:
    ratio = np.ones(count)
    kind[:] = "paced"
  else:
    swing = patient.respiratory_rr
    if "sinus_arrhythmia" in findings:
      swing = rng.uniform(0.12, 0.18)
    swing *= min(1.0, mean / 0.8)
    ratio = 1 + swing * np.sin(breath[:-1]) + rng.normal(0, 0.008, count)
  if "pac" in findings:
    early = _place(window, rng)
    earliness = rng.uniform(0.62, 0.76) * np.ones(len(early))
    ratio[early - 1], ratio[early] = earliness, rng.uniform(1.0, 1.15)
    kind[early] = "pac"
  if "pvc" in findings:
    taken = np.flatnonzero(kind == "pac")
    early = _place(window, rng, taken)
    coupling = patient.ectopic_coupling + rng.normal(0, 0.02, len(early))
    # At high rates the beat falls into T unless it comes relatively later.
    coupling = np.clip(coupling, min(0.9, 0.42 / mean**0.6), 0.9)
    pause = ratio[early - 1] + ratio[early] - coupling
    if "pacing" in findings:
      pause = 1.0  # the pacemaker starts counting anew
    ratio[early - 1], ratio[early] = coupling, pause
    kind[early] = "pvc"
  if not np.isfinite(cycle):
    ratio[window] /= ratio[window].mean()
  onset = first + mean * np.concatenate([[0.0], np.cumsum(ratio)])
  onset -= onset[before] - first
  return Rhythm(onset, kind, mean, breath, cycle)


def _irregular(count, mean, window, rng):
  """(count,) RR ratios of fibrillation: skewed, spread 0.17..0.28."""
  ratio = rng.gamma(4.0, 0.25, count)
  spread = rng.uniform(0.17, 0.28)
  inside = ratio[window]
  ratio = 1 + (ratio - inside.mean()) * spread / inside.std()
  ratio = np.maximum(ratio, max(0.5, SHORTEST_RR / mean))
  # No further beat just inside the edges: it would change the mean rate.
  for edge in (window.start - 1, window.stop):
    ratio[edge] = max(ratio[edge], 1.0)
  return ratio


def _flutter(count, heart_rate, window, rng):
  """RR ratios of whole numbers of flutter waves, and the flutter cycle (s)."""
  waves = max(int(round(FASTEST_ATRIA / heart_rate)), 2)
  steps = np.full(count, float(waves))
  pairs = (window.stop - window.start) // 2
  if waves > 2 and rng.random() < 0.5 and pairs:
    # One wave fewer, then one more: the conduction varies, the mean does not.
    for pair in rng.choice(pairs, max(pairs // 3, 1), replace=False):
      at = window.start + 2 * pair
      steps[at : at + 2] += rng.permutation([-1.0, 1.0])
  return steps / waves, 60.0 / heart_rate / waves


def _place(window, rng, taken=()):
  """Indices of 1..3 premature beats, not next to each other or to `taken`."""
  inside = window.stop - window.start
  free = [
    i
    for i in range(window.start + 1, window.stop)
    if all(abs(i - j) > 2 for j in taken)
  ] or [window.start + 1]
  number = 1 + int(rng.integers(min(3, max(inside // 4, 1))))
  chosen = []
  for index in rng.permutation(free):
    if len(chosen) < number and all(abs(index - j) > 2 for j in chosen):
      chosen.append(int(index))
  return np.array(sorted(chosen))
