"""One mesh with axes `data` and `fsdp`, and what lies where on it."""

import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

# Smaller arrays are not worth a collective each.
FSDP_MIN_SIZE = 2**14


def arrange(devices: Sequence[Any], fsdp: int) -> np.ndarray:
  """Puts devices into rows of `fsdp`, those of a process side by side.

  In this order the rows of a batch that process p reads are those that its
  devices hold, whatever order the hardware would prefer.

  Raises:
    ValueError: the devices cannot be arranged so.
  """
  device_count = len(devices)
  if fsdp < 1 or device_count % fsdp:
    raise ValueError(f"{fsdp=} must divide {device_count=}")
  ordered = sorted(devices, key=lambda d: (d.process_index, d.id))
  return np.array(ordered).reshape(-1, fsdp)


def use_cores() -> None:
  """Makes devices of the CPU's cores, unless the user has said how many.

  Rows that each core computes alone are made nearly twice as fast as rows whose
  products all cores share. A power of two, at most 8, so that batches split. To
  be called before JAX starts; other platforms' devices stay as they are.
  """
  asked = "xla_force_host_platform_device_count"
  if jax.config.jax_num_cpu_devices < 0 and asked not in os.environ.get(
    "XLA_FLAGS", ""
  ):
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    count = min(8, 1 << (cores.bit_length() - 1))
    jax.config.update("jax_num_cpu_devices", count)


def make_mesh(fsdp: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
  """Arranges devices as (data, fsdp).

  Args:
    fsdp: devices over which parameters and optimizer state are split.
    devices: those to use; None: all, of all processes.
  """
  grid = arrange(jax.devices() if devices is None else devices, fsdp)
  return Mesh(grid, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, P())


def rows(mesh: Mesh) -> NamedSharding:
  """The first axis is split over all devices."""
  return NamedSharding(mesh, P(("data", "fsdp")))


def place_state(shapes: Any, mesh: Mesh) -> Any:
  """Adds to each shape where it lies: large arrays split over `fsdp`.

  Args:
    shapes: tree of ShapeDtypeStruct; the largest axis that divides is split.
    mesh: what make_mesh returns.
  """
  parts = mesh.shape["fsdp"]

  def place(leaf):
    order = sorted(range(leaf.ndim), key=lambda axis: -leaf.shape[axis])
    names = [None] * leaf.ndim
    for axis in order if parts > 1 and leaf.size >= FSDP_MIN_SIZE else ():
      if leaf.shape[axis] % parts == 0:
        names[axis] = "fsdp"
        break
    sharding = NamedSharding(mesh, P(*names) if any(names) else P())
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  return jax.tree.map(place, shapes)


def put_batch(batch: Any, mesh: Mesh) -> Any:
  """Makes global arrays from this process's rows of a batch."""
  place = rows(mesh)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(place, np.asarray(x)),
    batch,
  )


def put(x: Any, place: NamedSharding) -> jax.Array:
  """Copies a host array, the same in each process, to where it is to lie."""
  x = np.asarray(x)
  return jax.make_array_from_callback(x.shape, place, lambda index: x[index])


def put_replicated(tree: Any, mesh: Mesh) -> Any:
  """Copies host arrays, the same in each process, to every device."""
  return jax.tree.map(lambda x: put(x, replicated(mesh)), tree)


def check_batch_size(batch_size: int, accumulate: int, mesh: Mesh) -> None:
  """Refuses a batch that does not split evenly.

  Raises:
    ValueError: with the values and the rule.
  """
  device_count = mesh.size
  if accumulate < 1 or batch_size % (accumulate * device_count):
    raise ValueError(
      f"{batch_size=} must be divisible by {accumulate=} x {device_count=}"
    )
