"""Traced programs that outlive their process, beside the compiled ones.

JAX keeps compiled programs between processes but traces each function anew to
find out which one it needs, for longer than a small network then computes.
Where compiled programs are kept, on CPUs, so are traced ones here, as
`jax.export` writes them, named by a digest of all that a trace depends on: the
code of this package, versions, static arguments, and shapes, types and
placement of the others. A function of this package that is replaced while it
runs is not seen: JAX's setting `jax_enable_compilation_cache` turns both off.
"""

import contextlib
import functools
import hashlib
import pathlib
from collections.abc import Callable

import flax
import jax
import numpy as np
from jax import export as jax_export
from jax.sharding import NamedSharding

from ecgtwin_jax import constants
from ecgtwin_jax.data.whole_files import appear_whole

# Settings of JAX that change what is traced.
_SETTINGS = (
  *("jax_enable_x64", "jax_default_matmul_precision"),
  *("jax_default_prng_impl", "jax_threefry_partitionable"),
  *("jax_numpy_dtype_promotion", "jax_debug_nans"),
)


def kept_folder() -> pathlib.Path | None:
  """Where compiled programs are kept, if they are, and in a folder."""
  folder = jax.config.jax_compilation_cache_dir
  enabled = jax.config.jax_enable_compilation_cache
  if folder is None or not enabled or "://" in folder:
    return None
  return pathlib.Path(folder)


@functools.cache
def code_digest() -> str:
  """Digest of this package's code, and of the versions of JAX and Flax."""
  root = pathlib.Path(constants.__file__).parent
  digest = hashlib.sha256(f"{jax.__version__} {flax.__version__}".encode())
  for file in sorted(root.rglob("*.py")):
    digest.update(file.relative_to(root).as_posix().encode() + b"\0")
    digest.update(file.read_bytes() + b"\0")
  return digest.hexdigest()


def jit(*, static_argnums: tuple[int, ...]) -> Callable[[Callable], Callable]:
  """`jax.jit` of a function of positional arguments, whose traces are kept.

  A call is one of `jax.jit` wherever nothing can be kept: without a folder for
  compiled programs, on other platforms than CPUs, with several processes,
  within another trace, with arguments that are no arrays, or of a function that
  `jax.export` cannot write.

  Args:
    static_argnums: which arguments a program is made for; their `repr` says
      all of them.
  """

  def wrap(function):
    jitted = jax.jit(function, static_argnums=static_argnums)
    programs = {}  # of this process

    @functools.wraps(function)
    def call(*arguments):
      folder = kept_folder()
      if folder is None:
        return jitted(*arguments)
      static = {i: arguments[i] for i in static_argnums}
      others = [x for i, x in enumerate(arguments) if i not in static]
      leaves, tree = jax.tree.flatten(others)
      if not _can_be_kept(leaves):
        return jitted(*arguments)
      kinds = tuple(map(_kind_of, leaves))
      key = folder, tuple(static.values()), tree, kinds, _settings()
      if key not in programs:
        flat = _of_leaves(function, static, tree)
        name = function.__module__, function.__qualname__
        text = repr((*name, static, str(tree), kinds, _settings()))
        programs[key] = _load_or_trace(folder, text, flat, leaves)
      program = programs[key]
      return jitted(*arguments) if program is None else program(*leaves)

    call.programs = programs
    return call

  return wrap


def _can_be_kept(leaves):
  return (
    len(leaves) > 0
    and jax.default_backend() == "cpu"
    and jax.process_count() == 1
    and all(
      isinstance(x, (np.ndarray, jax.Array))
      and not isinstance(x, jax.core.Tracer)
      for x in leaves
    )
  )


def _settings():
  given = (str(getattr(jax.config, name)) for name in _SETTINGS)
  # Attention's groups have rows for each device (models/attention.py).
  return *given, str(jax.device_count())


def _kind_of(leaf):
  """All of an array that a trace depends on."""
  place = _placement(leaf)
  if place is not None:
    place = tuple(place.mesh.shape.items()), str(place.spec)
  weak = getattr(leaf, "weak_type", False)
  return leaf.shape, str(leaf.dtype), weak, place


def _placement(leaf):
  """How an array lies on several devices, None of one that lies on one."""
  place = getattr(leaf, "sharding", None)
  return place if isinstance(place, NamedSharding) else None


def _spec(leaf):
  dtype = leaf.dtype
  if not jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
    dtype = jax.dtypes.canonicalize_dtype(dtype)
  weak = getattr(leaf, "weak_type", False)
  return jax.ShapeDtypeStruct(
    leaf.shape, dtype, sharding=_placement(leaf), weak_type=weak
  )


def _of_leaves(function, static, tree):
  """The function, of the leaves of its arguments that are not static."""

  def flat(*leaves):
    arguments = list(jax.tree.unflatten(tree, leaves))
    for place, argument in sorted(static.items()):
      arguments.insert(place, argument)
    return function(*arguments)

  return flat


def _load_or_trace(folder, text, flat, leaves):
  """The jitted program of leaves; None where it cannot be written."""
  digest = hashlib.sha256(f"{code_digest()} {text}".encode()).hexdigest()
  path = folder / f"traced-{digest}"
  # One that cannot be read, of whatever reason, is traced anew.
  with contextlib.suppress(Exception):
    return jax.jit(jax_export.deserialize(path.read_bytes()).call)
  try:
    specs = map(_spec, leaves)
    traced = jax_export.export(jax.jit(flat), platforms=("cpu",))(*specs)
    written = traced.serialize()
  # If it is the function that raises, it does so again under `jax.jit`.
  except Exception:
    return None
  with contextlib.suppress(OSError):  # then the next process traces, too
    folder.mkdir(parents=True, exist_ok=True)
    with appear_whole(path) as draft:
      draft.write_bytes(written)
  return jax.jit(traced.call)
