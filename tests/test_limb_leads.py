"""The projection on ECGs whose limb leads add up."""

import numpy as np

from ecgtwin_jax.data.leads import lead_residual, make_leads_consistent


def test_the_identities_hold_after_the_projection_and_it_is_idempotent():
  rng = np.random.default_rng(0)
  signal = rng.normal(size=(3, 7, 12)).astype(np.float32)
  got = make_leads_consistent(signal)
  one, two = got[..., 0], got[..., 1]
  for lead, want in (
    (2, two - one),
    (3, -(one + two) / 2),
    (4, one - two / 2),
    (5, two - one / 2),
  ):
    np.testing.assert_allclose(got[..., lead], want, atol=1e-6)
  np.testing.assert_allclose(got[..., 6:], signal[..., 6:], atol=1e-6)
  np.testing.assert_allclose(make_leads_consistent(got), got, atol=1e-6)


def test_the_residual_is_what_least_squares_leaves():
  consistent = make_leads_consistent(np.ones((5, 12), np.float32))
  np.testing.assert_allclose(lead_residual(consistent), 0, atol=1e-6)
  planted = consistent.copy()
  planted[:, 2] += 0.3  # the identities are broken in III alone
  residual = lead_residual(planted)
  assert np.abs(residual[:, 2]).min() > 0.1
  # Least squares: the residual is orthogonal to every consistent ECG.
  other = make_leads_consistent(
    np.random.default_rng(1).normal(size=(5, 12)).astype(np.float32)
  )
  np.testing.assert_allclose((residual * other).sum(), 0, atol=1e-5)
