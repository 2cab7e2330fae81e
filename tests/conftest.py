"""Shared settings: eight fake CPU devices, rank promotion refused."""

import os
import pathlib

CACHE = pathlib.Path(__file__).parent.parent / ".pytest_cache" / "jax"

# Before jax is imported, and inherited by the entry point's subprocesses.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
os.environ["MPLBACKEND"] = "Agg"
DEVICES = "--xla_force_host_platform_device_count=8"


def pytest_configure(config):
  del config
  flags = os.environ.get("XLA_FLAGS", "")
  if "device_count" not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} {DEVICES}".strip()
  import jax
  from absl import flags as absl_flags

  jax.config.update("jax_numpy_rank_promotion", "raise")
  absl_flags.FLAGS.mark_as_parsed()
