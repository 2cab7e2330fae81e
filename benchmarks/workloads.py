"""What is timed, ours: jitted functions with their costs and arguments."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from benchmarks import published
from ecgtwin_jax import sharding
from ecgtwin_jax.flags import load_config
from ecgtwin_jax.stages import base_extractor, denoiser
from ecgtwin_jax.torch_import import convert
from ecgtwin_jax.training import train
from ecgtwin_jax.training.flops import count_flops

TABLE = 500  # statements


class Workload(NamedTuple):
  """One computation.

  Attributes:
    name: name of its row.
    batch: examples that it works on.
    call: does it once and waits.
    compiled: the XLA executable.
    inputs: NumPy arrays that PyTorch is to be given, too.
    flops: operations of its products and convolutions.
    size: bytes of its arguments and results.
    compile_s: seconds that tracing and compiling took.
  """

  name: str
  batch: int
  call: Callable[[], Any]
  compiled: Any
  inputs: dict[str, np.ndarray]
  flops: float
  size: float
  compile_s: float


def _size(compiled) -> float:
  memory = compiled.memory_analysis()
  # What is given up and returned in place counts as read and as written.
  return memory.argument_size_in_bytes + memory.output_size_in_bytes


def _inference(name, batch, module_name, precision, inputs) -> Workload:
  module = convert.published(module_name).clone(dtype=jnp.dtype(precision))
  variables = published.variables(module_name)
  arguments = [jnp.asarray(x) for x in inputs.values()]
  took = timer()
  traced = jax.jit(module.apply).trace(variables, *arguments)
  compiled = traced.lower().compile()
  return Workload(
    name,
    batch,
    lambda: jax.block_until_ready(compiled(variables, *arguments)),
    compiled,
    inputs,
    count_flops(traced.jaxpr),
    _size(compiled),
    took(),
  )


def vae_encode(batch: int, precision: str) -> Workload:
  rng = np.random.default_rng(0)
  signal = rng.standard_normal((batch, 1024, 12), np.float32)
  return _inference(
    "vae_encode", batch, "vae_encoder", precision, {"signal": signal}
  )


def vae_decode(batch: int, precision: str) -> Workload:
  rng = np.random.default_rng(0)
  latent = 0.15 * rng.standard_normal((batch, 128, 4), np.float32)
  return _inference(
    "vae_decode", batch, "vae_decoder", precision, {"latent": latent}
  )


def denoiser_call(batch: int, precision: str, statements: int = 3) -> Workload:
  rng = np.random.default_rng(0)
  inputs = {
    "latent": rng.standard_normal((batch, 128, 4), np.float32),
    "t": rng.integers(0, 1000, batch).astype(np.int32),
    **published.condition(rng, batch, statements),
  }
  return _inference(
    f"denoiser_b{batch}", batch, "denoiser_adax", precision, inputs
  )


def stage1_step(batch: int, precision: str) -> Workload:
  rng = np.random.default_rng(0)
  target = published.training_rows(rng, batch, TABLE)
  reference = published.training_rows(rng, batch, TABLE)
  rows = {
    **target,
    **{f"reference_{name}": x for name, x in reference.items()},
    "patient_id": np.arange(batch, dtype=np.int32),
    "index": np.arange(batch, dtype=np.int32),
  }
  config = load_config("configs/stage1.py:paper")
  config.accumulate = 1
  return _training("stage1_step", config, base_extractor, rows, precision)


def stage2_step(batch: int, precision: str) -> Workload:
  rng = np.random.default_rng(0)
  rows = {
    **published.training_rows(rng, batch, TABLE),
    "base": rng.standard_normal((batch, 256)).astype(np.float32),
    "index": np.arange(batch, dtype=np.int32),
  }
  config = load_config("configs/stage2.py:paper")
  return _training("stage2_step", config, denoiser, rows, precision)


def _training(name, config, stage, rows, precision) -> Workload:
  """One step as train.py compiles it, on the first device."""
  config.precision = precision
  config.batch_size = len(rows["index"])
  config = FrozenConfigDict(config)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  rng = np.random.default_rng(1)
  table = rng.standard_normal((TABLE, 768), np.float32) / 28
  frozen = sharding.put_replicated(
    {"table": table, "scale": np.float32(0.18215)}, mesh
  )
  init = functools.partial(train.init_state, config, stage)
  shapes = sharding.place_state(jax.eval_shape(init), mesh)
  places = jax.tree.map(lambda x: x.sharding, shapes)
  held = {"state": jax.jit(init, out_shardings=places)()}
  batch = sharding.put_batch(rows, mesh)
  took = timer()
  step, flops = train.compile_step(
    config, stage, held["state"], frozen, batch, mesh
  )
  compile_s = took()

  def call():
    held["state"], scalars = step(held["state"], frozen, batch)
    return jax.block_until_ready(scalars)

  inputs = {**rows, "table": table}
  size = config.batch_size
  return Workload(name, size, call, step, inputs, flops, _size(step), compile_s)


def timer() -> Callable[[], float]:
  """Seconds since now, each time it is called."""
  import time

  start = time.perf_counter()
  return lambda: time.perf_counter() - start
