"""The simulated patients: physiology on the true fiducials, and purity."""

import numpy as np

from ecgtwin_jax import simulator
from ecgtwin_jax.data.conditions import Condition


def test_simulate_is_a_pure_function():
  patient = simulator.cohort_patient(5, 3)
  condition = Condition(("Atrial fibrillation",), 83.0)
  one, two = (
    simulator.simulate(patient, condition, np.random.default_rng(11))
    for _ in range(2)
  )
  np.testing.assert_array_equal(one.ecg.signal, two.ecg.signal)
  assert one.ecg.signal.shape == (5000, 12)
