"""Intervals and amplitudes against the true ones."""
