"""One mesh with axes `data` and `fsdp`, and what lies where on it."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

# Smaller arrays are not worth a collective each.
_FSDP_MIN_SIZE = 2**14


def make_mesh(fsdp: int = 1) -> Mesh:
  """Arranges all devices as (data, fsdp).

  Args:
    fsdp: devices over which parameters and optimizer state are split.

  Raises:
    ValueError: the devices cannot be arranged so.
  """
  devices = jax.device_count()
  if fsdp < 1 or devices % fsdp:
    raise ValueError(f"{fsdp=} must divide device_count={devices}")
  return jax.make_mesh(
    (devices // fsdp, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, P())


def rows(mesh: Mesh) -> NamedSharding:
  """The first axis is split over all devices."""
  return NamedSharding(mesh, P(("data", "fsdp")))


def state_shardings(abstract, mesh: Mesh):
  """Splits the largest divisible axis of each large array over `fsdp`."""
  parts = mesh.shape["fsdp"]

  def place(leaf):
    order = sorted(range(leaf.ndim), key=lambda axis: -leaf.shape[axis])
    for axis in order if leaf.size >= _FSDP_MIN_SIZE else ():
      if leaf.shape[axis] % parts == 0:
        names = [None] * leaf.ndim
        names[axis] = "fsdp"
        return NamedSharding(mesh, P(*names))
    return replicated(mesh)

  if parts == 1:
    return jax.tree.map(lambda _: replicated(mesh), abstract)
  return jax.tree.map(place, abstract)


def put_batch(batch, mesh: Mesh):
  """Makes global arrays from this process's rows of a batch."""
  place = rows(mesh)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(place, np.asarray(x)),
    batch,
  )


def put_replicated(tree, mesh: Mesh):
  """Copies host arrays, the same in each process, to every device."""

  def put(x):
    x = np.asarray(x)
    return jax.make_array_from_callback(
      x.shape, replicated(mesh), lambda index: x[index]
    )

  return jax.tree.map(put, tree)


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
