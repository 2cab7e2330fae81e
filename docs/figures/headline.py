"""Draws headline.png: a simulated patient, the true twin, and generated ones.

  python docs/figures/headline.py

The patient is the first of a cohort that the shipped twin has not seen, in
training or in any choice, as seed and number say: not a chosen one.
"""

import pathlib

import numpy as np

import ecgtwin_jax as et
from ecgtwin_jax.simulator.simulate import cohort_recordings, simulate

COHORT, NUMBER = 4477, 0
ASKED = ["Sinus rhythm", "Left bundle branch block"]


def draw(path: pathlib.Path) -> None:
  """Writes the picture."""
  recording = cohort_recordings(COHORT, NUMBER, 2)[0]
  patient, now = recording.patient, recording.condition
  then = et.Condition(ASKED, 80, now.age, now.sex)
  rng = np.random.default_rng([COHORT, NUMBER, 99])
  true = simulate(patient, then, rng, sampling_rate=500.0).ecg
  twin = et.ECGTwin.from_pretrained("simulated-small")
  base = twin.extract_base(recording.ecg, now)
  made = twin.generate(base, then, num_samples=2, seed=0).ecgs
  et.plot_overview(
    recording.ecg,
    [true, *made],
    path,
    [
      f"reference, a simulated patient: {now.describe()}",
      f"the true twin, simulated: {then.describe()}",
      *(f"generated, seed 0, sample {i}: the same" for i in range(2)),
    ],
  )


if __name__ == "__main__":
  draw(pathlib.Path(__file__).parent.parent / "headline.png")
