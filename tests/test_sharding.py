"""A CPU's cores as devices."""

import os
import subprocess
import sys

import pytest

CODE = """
import os
os.sched_getaffinity = lambda pid: set(range({cores}))
from ecgtwin_jax import sharding
sharding.use_cores()
import jax
print(jax.device_count())
"""


def count(cores, **environment):
  own = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", **environment}
  done = subprocess.run(
    [sys.executable, "-c", CODE.format(cores=cores)],
    env=os.environ | own,
    capture_output=True,
    text=True,
    check=True,
    timeout=120,
  )
  return int(done.stdout)


@pytest.mark.parametrize("cores, devices", [(1, 1), (6, 4), (40, 8)])
def test_cores_become_devices(cores, devices):
  assert count(cores) == devices


def test_what_the_user_says_stays():
  assert count(4, JAX_NUM_CPU_DEVICES="3") == 3
  flags = "--xla_force_host_platform_device_count=2"
  assert count(4, XLA_FLAGS=flags) == 2
