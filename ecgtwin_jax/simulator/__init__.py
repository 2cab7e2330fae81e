"""Simulated patients with a known truth."""
