"""What a training's step would cost on a TPU slice, without one.

The TPU compiler runs on any Linux machine: the very step that would run is
compiled for the slice, without data and without chips, and its program is read.
Times are estimates from published rates; nothing is run.
"""

import contextlib
import functools
import importlib
import math
import os
import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from ecgtwin_jax import sharding
from ecgtwin_jax.constants import (
  LATENT_LENGTH,
  LEADS,
  MEDIAN_SAMPLES,
  MODEL_SAMPLES,
  TEXT_WIDTH,
)
from ecgtwin_jax.training import flops, train
from ecgtwin_jax.training.metric_writer import say

_GB, _MB = 1e9, 1e6
# Stands for a data set's table and the longest report of it.
_STATEMENTS, _REPORT, _BEATS = 512, 18, 48


class Chip(NamedTuple):
  """A TPU chip by its published rates.

  Attributes:
    kind: kind of the device, as JAX names it.
    memory: bytes of HBM.
    bandwidth: bytes per second of HBM.
    link: bytes per second that a chip sends to its neighbours, all links
      together, one way.
    slices: {number in the slice's name: topology}; v4 and v5p count
      TensorCores, two of a chip, the others count chips.
  """

  kind: str
  memory: float
  bandwidth: float
  link: float
  slices: dict[int, str]


_FLAT = {
  4: "2x2",
  8: "2x4",
  16: "4x4",
  32: "4x8",
  64: "8x8",
  128: "8x16",
  256: "16x16",
}
_CUBES = {
  8: "2x2x1",
  16: "2x2x2",
  32: "2x2x4",
  64: "2x4x4",
  128: "4x4x4",
  256: "4x4x8",
  512: "4x8x8",
}
# Source: docs.cloud.google.com/tpu/docs, the page of each version, read in
# November 2026. Links: half of the two-way figure; of v4, what its pod's
# all-reduce bandwidth of 1.1 PB/s leaves to each of 4,096 chips.
CHIPS = {
  "v4": Chip("TPU v4", 32e9, 1228e9, 268e9, _CUBES),
  "v5e": Chip("TPU v5 lite", 16e9, 819e9, 200e9, _FLAT),
  "v5p": Chip("TPU v5", 95e9, 2765e9, 600e9, _CUBES),
  "v6e": Chip("TPU v6 lite", 32e9, 1638e9, 400e9, _FLAT),
}


class Collective(NamedTuple):
  """One exchange between chips, as often as it stands in the program.

  Attributes:
    operation: such as "all-reduce".
    axis: axis of the mesh: "data", "fsdp" or "all".
    group: chips that take part.
    size: bytes that each of them gets.
    count: how often it stands in the program.
  """

  operation: str
  axis: str
  group: int
  size: float
  count: int


class Cost(NamedTuple):
  """What one step of one chip costs, as compiled.

  Attributes:
    slice: its name, such as "v5e-256".
    chips: number of chips in the slice.
    rows: rows of the batch on one chip.
    flops: multiply-adds of products and convolutions, times two.
    traffic: bytes read from and written to HBM, by the compiler's count.
    state: bytes of what lies in HBM between steps, and of the batch.
    temporary: bytes more while a step runs.
    collectives: operations between the chips.
    seconds: {"compute", "HBM", "interconnect"}, each at its published rate.
    compile_seconds: what compiling took here.
  """

  slice: str
  chips: int
  rows: int
  flops: float
  traffic: float
  state: float
  temporary: float
  collectives: list[Collective]
  seconds: dict[str, float]
  compile_seconds: float


def parse_slice(name: str) -> tuple[str, str]:
  """Returns (version, topology) of a slice such as "v5e-256".

  Raises:
    ValueError: no such slice.
  """
  version, _, number = name.partition("-")
  known = [f"{v}-{n}" for v, chip in CHIPS.items() for n in chip.slices]
  if name not in known:
    raise ValueError(f"--compile_for={name!r} must be one of {known}")
  return version, CHIPS[version].slices[int(number)]


def topology_devices(version: str, topology: str) -> list[Any]:
  """Returns the devices of a slice to compile for; no chip is needed.

  Raises:
    ValueError: the TPU compiler is not installed, or refuses.
  """
  # What the compiler would ask a TPU machine for.
  for key, value in {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # No chip is taken, so that no other process need be kept off.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  }.items():
    os.environ.setdefault(key, value)
  from jax.experimental import topologies

  try:
    found = topologies.get_topology_desc(
      platform="tpu", topology_name=f"{version}:{topology}"
    )
  except Exception as error:
    raise ValueError(
      "compiling for TPUs needs their compiler: pip install "
      f"'ecgtwin_jax[tpu]' (Linux on x86-64): {error}"
    ) from error
  return list(found.devices)


def abstract_inputs(config: ConfigDict, rows: int) -> tuple[dict, dict]:
  """What a step reads, as shapes alone: (frozen, batch of `rows`).

  The keys are those of all stages; a step leaves aside what it does not read.
  """
  channels = config.model.get("latent_channels", 1)
  beats = (LATENT_LENGTH, channels)
  of_row = {
    "ecg": ((MODEL_SAMPLES, len(LEADS)), jnp.float32),
    "index": ((), jnp.int32),
    "mean": (beats, jnp.float32),
    "std": (beats, jnp.float32),
    "statement_ids": ((_REPORT,), jnp.int32),
    "patient": ((3,), jnp.float32),
    "beat_time": ((_BEATS,), jnp.float32),
    "beat_kind": ((_BEATS,), jnp.int8),
    "beat_p": ((_BEATS,), jnp.int8),
    "median_beat": ((MEDIAN_SAMPLES, len(LEADS)), jnp.float32),
    "median_beat_found": ((), jnp.int8),
  }
  batch = {
    prefix + name: jax.ShapeDtypeStruct((rows, *shape), dtype)
    for prefix in ("", "reference_")
    for name, (shape, dtype) in of_row.items()
  }
  batch["patient_id"] = jax.ShapeDtypeStruct((rows,), jnp.int32)
  if "base_width" in config.model:
    shape = (rows, config.model.base_width)
    batch["base"] = jax.ShapeDtypeStruct(shape, jnp.float32)
  frozen = {
    "table": ((_STATEMENTS, TEXT_WIDTH), jnp.float32),
    "scale": ((1, 1, channels), jnp.float32),
    "rhythm": ((_STATEMENTS,), bool),
    "sinus": ((_STATEMENTS,), bool),
    "beat_variance": ((MEDIAN_SAMPLES, len(LEADS)), jnp.float32),
  }
  return {k: jax.ShapeDtypeStruct(*v) for k, v in frozen.items()}, batch


def estimate(config: ConfigDict, name: str) -> Cost:
  """Compiles a training's step for a slice and reads its program.

  Args:
    config: the configuration of a training; batch_size, precision, fsdp, remat
      and accumulate are taken as they are.
    name: name of the slice, such as "v5e-256".

  Raises:
    ValueError: as parse_slice and topology_devices, the batch does not split,
      or a stage that has labels of its own.
  """
  version, topology = parse_slice(name)
  chip = CHIPS[version]
  config = FrozenConfigDict(config)
  if config.stage == "classifier":
    raise ValueError(
      "--compile_for takes the stages vae, base_extractor, rhythm, denoiser, "
      "clip and identity"
    )
  stage = importlib.import_module(f"ecgtwin_jax.stages.{config.stage}")
  devices = topology_devices(version, topology)
  grid = sharding.arrange(devices, config.fsdp)
  mesh = Mesh(grid, ("data", "fsdp"))
  sharding.check_batch_size(config.batch_size, config.accumulate, mesh)
  shapes = jax.eval_shape(functools.partial(train.init_state, config, stage))
  state = sharding.place_state(shapes, mesh)
  frozen, batch = abstract_inputs(config, config.batch_size)

  def lies(tree, place):
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree
    )

  frozen = lies(frozen, sharding.replicated(mesh))
  batch = lies(batch, sharding.rows(mesh))
  began = time.monotonic()
  compiled, total = train.compile_step(
    config, stage, state, frozen, batch, mesh
  )
  seconds = time.monotonic() - began
  memory = compiled.memory_analysis()
  cost = compiled.cost_analysis()
  collectives = find_collectives(compiled.as_text(), mesh.shape)
  per_chip = total / mesh.size
  peak = flops.PEAK[chip.kind]
  traffic = float(cost["bytes accessed"])
  return Cost(
    slice=name,
    chips=mesh.size,
    rows=config.batch_size // mesh.size,
    flops=per_chip,
    traffic=traffic,
    state=memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes,
    temporary=memory.temp_size_in_bytes,
    collectives=collectives,
    seconds={
      "compute": per_chip / peak,
      "HBM": traffic / chip.bandwidth,
      "interconnect": sum(
        seconds_of(c, chip.link) * c.count for c in collectives
      ),
    },
    compile_seconds=seconds,
  )


def seconds_of(collective: Collective, link: float) -> float:
  """Estimates an exchange on a ring, at `link` bytes per second and chip."""
  share = (collective.group - 1) / collective.group
  passes = 2 if collective.operation == "all-reduce" else 1
  return passes * share * collective.size / link


_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
_BYTES |= {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}
_OPERATION = re.compile(
  r"= (?P<result>.*?) (?P<operation>all-reduce|all-gather|reduce-scatter|"
  r"collective-permute|all-to-all)(?P<start>-start)?\("
)
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](T\(.*?\))?")
_LISTED = re.compile(r"replica_groups=\{\{([\d,]+)\}")


def find_collectives(text: str, mesh: dict[str, int]) -> list[Collective]:
  """Reads the collectives of a compiled program, equal ones counted together.

  Args:
    text: the program as `compiled.as_text()` gives it.
    mesh: {axis: chips}, with "data" and "fsdp".
  """
  counts: dict[Collective, int] = {}
  for line in text.splitlines():
    found = _OPERATION.search(line)
    if not found:
      continue
    sizes = list(_sizes(found["result"]))
    # What starts one gives its operands, too; the last is the result.
    size = sizes[-1] if found["start"] and len(sizes) > 1 else sum(sizes)
    operation = found["operation"]
    group = _group(line, math.prod(mesh.values()))
    axis = "all"
    if mesh["data"] > 1 and mesh["fsdp"] > 1:
      axis = {mesh["fsdp"]: "fsdp", mesh["data"]: "data"}.get(group, "all")
    if operation == "reduce-scatter":
      size *= group  # what goes in
    one = Collective(operation, axis, group, size, 1)
    counts[one] = counts.get(one, 0) + 1
  return [one._replace(count=count) for one, count in counts.items()]


def _sizes(result: str) -> Iterator[float]:
  for kind, shape in _ARRAY.findall(result):
    if kind in _BYTES:
      yield _BYTES[kind] * math.prod(int(n) for n in shape.split(",") if n)


def _group(line: str, everyone: int) -> int:
  if found := _IOTA.search(line):
    return int(found[2])
  if found := _LISTED.search(line):
    return len(found[1].split(","))
  return everyone


def describe(cost: Cost) -> str:
  """Returns the page about one slice."""
  chip = CHIPS[cost.slice.partition("-")[0]]
  need = cost.state + cost.temporary
  slowest = max(cost.seconds, key=cost.seconds.get)
  least, most = cost.seconds[slowest], sum(cost.seconds.values())
  batch = cost.rows * cost.chips
  lines = [
    f"{cost.slice}: {cost.chips} chips, {cost.rows} rows each",
    f"  memory        {need / _GB:.2f} of {chip.memory / _GB:.0f} GB per chip "
    f"({cost.state / _GB:.2f} state and batch, {cost.temporary / _GB:.2f} "
    f"temporary): {_verdict(cost)}",
    f"  operations    {cost.flops / 1e12:.3f} TFLOP per chip",
    f"  HBM traffic   {cost.traffic / _GB:.2f} GB per chip, by the compiler's "
    "count",
  ]
  for one in cost.collectives:
    lines.append(
      f"  {one.operation:<13} {one.count} x {one.size / _MB:.3f} MB over "
      f"{one.group} chips (axis: {one.axis})"
    )
  each = ", ".join(f"{k} {1e3 * v:.2f} ms" for k, v in cost.seconds.items())
  lines += [
    f"  at published rates: {each}; {slowest} bounds the step",
    f"  estimate      {1e3 * most:.2f} to {1e3 * least:.2f} ms a step, "
    f"{batch / most:,.0f} to {batch / least:,.0f} rows/s (where nothing "
    "overlaps, where all does)",
    f"  compiled in {cost.compile_seconds:.0f} s here; nothing was run",
  ]
  return "\n".join(lines)


def fits(cost: Cost) -> bool:
  """Whether what a step holds is within a chip's memory."""
  chip = CHIPS[cost.slice.partition("-")[0]]
  return cost.state + cost.temporary <= chip.memory


def _verdict(cost: Cost) -> str:
  chip = CHIPS[cost.slice.partition("-")[0]]
  if fits(cost):
    return "fits"
  if cost.state > chip.memory / 2:
    return "does not fit: raise config.fsdp"
  return (
    "does not fit: raise config.accumulate, set config.remat=True, or lower "
    "config.batch_size"
  )


def run(config: ConfigDict, names: str) -> list[Cost]:
  """Prints a page per slice, and how they compare.

  Args:
    config: the configuration of a training.
    names: names of slices, with commas between them.

  Raises:
    ValueError: as `estimate`, the job is not a training, or a step does not
      fit, which is said after the pages.
  """
  if config.job != "train":
    raise ValueError(
      f"--compile_for takes a training, not config.job={config.job!r}"
    )
  wanted = names.split(",")
  for name in wanted:
    parse_slice(name)
  say(
    f"{config.stage}: batch {config.batch_size}, {config.precision}, fsdp "
    f"{config.fsdp}, accumulate {config.accumulate}, remat {config.remat}"
  )
  costs = []
  with contextlib.ExitStack() as closing:
    # A program of another platform is of no use in this machine's cache.
    cache = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    closing.callback(jax.config.update, "jax_enable_compilation_cache", cache)
    for name in wanted:
      costs.append(estimate(config, name))
      say(describe(costs[-1]))
  if len(costs) > 1:
    first = costs[0]
    for cost in costs[1:]:
      gain = sum(first.seconds.values()) / sum(cost.seconds.values())
      more = cost.chips / first.chips
      say(
        f"{first.slice} to {cost.slice}, the same batch: {gain:.1f} times as "
        f"fast with {more:.0f} times the chips"
      )
  large = [cost.slice for cost in costs if not fits(cost)]
  if large:
    raise ValueError(
      f"a step does not fit the memory of {', '.join(large)}: see above"
    )
  return costs
