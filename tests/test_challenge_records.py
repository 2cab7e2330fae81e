"""Real recordings in the form of the PhysioNet Challenges, of each source."""

import pathlib

import numpy as np
import pytest
import scipy.io

from ecgtwin_jax.data.ecg import LEADS, read_ecg
from ecgtwin_jax.data.heart_rate import detect_heart_rate

FOLDER = pathlib.Path(__file__).parent / "data" / "challenge"
# Sampling rate and age as the header says it, and the heart rate, which two
# detectors agree on but for JS00001, where the atria fibrillate.
RECORDS = {
  "A0002": (500, "49", 77.7),
  "E00001": (500, "NaN", 83.2),
  "HR00001": (500, "56", 63.9),  # its unit is written "mv"
  "JS00001": (500, "85", 117.3),
  "S0001": (1000, "81", 81.7),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_recording_of_each_source(name):
  rate, age, heart_rate = RECORDS[name]
  ecg = read_ecg(FOLDER / name)
  assert ecg.sampling_rate == rate
  assert f"Age: {age}" in ecg.comments
  values = scipy.io.loadmat(FOLDER / f"{name}.mat")["val"]
  assert values.shape == (12, 10 * rate)
  np.testing.assert_allclose(ecg.signal, values.T / 1000, atol=1e-6)
  # The leads are where their names say: limb leads add up, to 6 uV.
  one, two, three, *augmented = ecg.signal[:, : LEADS.index("V1")].T
  assert np.abs(one + three - two).max() < 0.007
  assert np.abs(sum(augmented)).max() < 0.007
  assert detect_heart_rate(ecg, method="energy") == pytest.approx(
    heart_rate, abs=0.2
  )
