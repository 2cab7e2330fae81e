"""Packages of the wheel: configs/ travels inside ecgtwin_jax."""

from setuptools import find_packages, setup

setup(
  packages=[
    *find_packages(include=["ecgtwin_jax*", "data_prep*"]),
    "ecgtwin_jax.configs",
  ],
  package_dir={"ecgtwin_jax.configs": "configs"},
)
