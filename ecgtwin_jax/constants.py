"""Numbers that data and models share: what the networks take and give."""

import numpy as np

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", *(f"V{i}" for i in range(1, 7)))
SECONDS = 10.0
MODEL_SAMPLES = 1024
MODEL_RATE = 102.4  # Hz: 1024 samples in 10 s
LATENT_LENGTH = 128  # positions: one for 8 samples
MEDIAN_SAMPLES = 80  # of a median beat, at MODEL_RATE
MEDIAN_R = 31  # its sample at the R peak: 0.30 s before, 0.47 s after
TEXT_WIDTH = 768  # of a statement's vector
PATIENT_MEAN = (77.95, 64.25, 0.0)  # heart rate, age, sex: as published
PATIENT_STD = (20.37, 17.13, 1.0)

# Of the twelve leads eight are independent: I, II and V1..V6. The others are
# III = II - I, aVR = -(I + II) / 2, aVL = I - II / 2, aVF = II - I / 2
# (Einthoven, Goldberger).
INDEPENDENT = np.array([0, 1, 6, 7, 8, 9, 10, 11])
# (12, 8): all leads, in clinical order, from those.
FROM_INDEPENDENT = np.zeros((12, 8), np.float32)
FROM_INDEPENDENT[:6, :2] = [
  *([1, 0], [0, 1], [-1, 1]),
  *([-0.5, -0.5], [1, -0.5], [-0.5, 1]),
]
FROM_INDEPENDENT[6:, 2:] = np.eye(6)
