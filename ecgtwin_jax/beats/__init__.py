"""Beats of an ECG: found, averaged, delineated, checked against criteria."""
