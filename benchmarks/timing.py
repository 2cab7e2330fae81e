"""Timing of ways to do one thing, in turns, and what a device can do."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Ceilings(NamedTuple):
  """What the device was measured to do, in the same process.

  Attributes:
    flops: floating-point operations per second of a large matrix product.
    bandwidth: bytes per second, read and written, of a large copy.
  """

  flops: float
  bandwidth: float

  def floor(self, flops: float, size: float) -> float:
    """Seconds that a computation needs at least: the larger of two floors.

    Args:
      flops: operations of its products and convolutions.
      size: bytes that it must read and write: arguments and results, not what
        lies between.
    """
    return max(flops / self.flops, size / self.bandwidth)


def take_turns(
  calls: dict[str, Callable[[], Any]],
  runs: int,
  warm: int = 2,
  clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
  """Times calls in turns, so that what else the machine does meets all.

  Args:
    calls: {name: function that returns when its work is done}.
    runs: turns that count.
    warm: turns before them.
    clock: time.process_time counts the CPU's instead, all threads together,
      which on one core another job of the machine hardly changes.

  Returns:
    Seconds of each call, by name.
  """
  for _ in range(warm):
    for call in calls.values():
      call()
  seconds = {name: [] for name in calls}
  for turn in range(runs):
    # Nobody always follows the same one.
    names = list(calls)
    for name in names if turn % 2 == 0 else reversed(names):
      start = clock()
      calls[name]()
      seconds[name].append(clock() - start)
  return seconds


def spread(seconds: list[float]) -> tuple[float, float, float]:
  """Lowest, median and highest."""
  return min(seconds), statistics.median(seconds), max(seconds)


def measure_ceilings(precision: str) -> Ceilings:
  """Measures a copy and a matrix product on the first device."""
  small = jax.default_backend() == "cpu"
  n, size = (2048, 2**28) if small else (8192, 2**32)
  dtype = jnp.dtype(precision)
  a = jax.random.normal(jax.random.key(0), (n, n)).astype(dtype)
  x = jnp.zeros(size // 4)
  product = jax.jit(lambda a: a @ a)
  copy = jax.jit(lambda x: x + 1)
  seconds = take_turns(
    {
      "product": lambda: product(a).block_until_ready(),
      "copy": lambda: copy(x).block_until_ready(),
    },
    runs=7,
  )
  # The fastest: a ceiling is not what a busy machine gives.
  return Ceilings(
    flops=2 * n**3 / min(seconds["product"]),
    bandwidth=2 * size / min(seconds["copy"]),
  )


def describe_machine(threads: int) -> dict:
  """Hardware and versions, for the record."""
  devices = jax.devices()
  versions = {"python": platform.python_version(), "jax": jax.__version__}
  try:
    import torch
  except ImportError:
    pass
  else:
    versions["torch"] = torch.__version__
  return {
    "device": devices[0].device_kind,
    "devices": len(devices),
    "cpu": _cpu_name(),
    "threads": threads,
    "load_average": [round(x, 1) for x in os.getloadavg()],
    "versions": versions,
  }


def _cpu_name() -> str:
  try:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
      names = [x.partition(":")[2] for x in file if x.startswith("model name")]
  except OSError:
    names = []
  return names[0].strip() if names else platform.processor()
