"""What a compiled training step sends between devices, and what it holds."""

import functools
import math
import re

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from ecgtwin_jax import sharding
from ecgtwin_jax.flags import load_config
from ecgtwin_jax.stages import base_extractor, denoiser
from ecgtwin_jax.training import train
from ecgtwin_jax.training.flops import count_flops

ROWS = 16
STAGES = {"stage1": base_extractor, "stage2": denoiser}
_SHAPE = re.compile(r"(?:f32|s32|pred|u32|bf16)\[([\d,]*)\]")
_COLLECTIVE = re.compile(
  r"= (\(.*?\)|\S+) (all-reduce|all-gather|reduce-scatter|all-to-all|"
  r"collective-permute)(?:-start)?\("
)


def arguments(name, count, accumulate=1, remat=None, depth=1):
  """What a step is compiled of, for so many devices."""
  config = load_config(f"configs/{name}.py:smoke")
  config.batch_size, config.accumulate = ROWS, accumulate
  config.model.depth = depth
  if remat is not None:
    config.remat = remat
  config = FrozenConfigDict(config)
  stage, mesh = STAGES[name], sharding.make_mesh(devices=jax.devices()[:count])
  one = {
    "mean": np.zeros((ROWS, 128, 8), "f4"),
    "std": np.zeros((ROWS, 128, 8), "f4"),
    "statement_ids": np.zeros((ROWS, 3), "i4"),
    "patient": np.zeros((ROWS, 3), "f4"),
    "median_beat": np.zeros((ROWS, 80, 12), "f4"),
    "median_beat_found": np.ones(ROWS, "i1"),
  }
  rows = {"index": np.arange(ROWS, dtype="i4")}
  if name == "stage1":
    rows |= {f"reference_{key}": x for key, x in one.items()}
    rows["patient_id"] = np.arange(ROWS, dtype="i4")
  else:
    rows["base"] = np.zeros((ROWS, config.model.base_width), "f4")
    rows["beat_time"] = np.zeros((ROWS, 48), "f4")
    rows["beat_kind"] = rows["beat_p"] = np.zeros((ROWS, 48), "i1")
  frozen = {
    "table": np.zeros((5, 768), "f4"),
    "scale": np.ones((), "f4"),
    "beat_variance": np.ones((80, 12), "f4"),
    "rhythm": np.zeros(5, bool),
  }
  shapes = sharding.place_state(
    jax.eval_shape(functools.partial(train.init_state, config, stage)), mesh
  )
  state = jax.tree.map(
    lambda x: sharding.put(np.zeros(x.shape, x.dtype), x.sharding), shapes
  )
  frozen = sharding.put_replicated(frozen, mesh)
  batch = sharding.put_batch(one | rows, mesh)
  return config, stage, state, frozen, batch, mesh


@functools.cache
def compile_step(name, count, **changes):
  """The step, its gradients' size, its FLOPs."""
  given = arguments(name, count, **changes)
  step, flops = train.compile_step(*given)
  held = getattr(given[1], "FIXED", ())
  trained = {k: v for k, v in given[2].params.items() if k not in held}
  sizes = [x.size for x in jax.tree.leaves(trained)]
  return step, sum(sizes), flops


def flops_with(remat):
  """Of stage 2's step as it is written; nothing is compiled."""
  config, stage, *inputs, _ = arguments("stage2", 8, remat=remat, depth=2)
  step = functools.partial(train.train_step, config, stage)
  return count_flops(jax.jit(step).trace(*inputs).jaxpr)


def collectives(step):
  """[(kind, shapes)] of a program's collectives."""
  found = []
  for shapes, kind in _COLLECTIVE.findall(step.as_text()):
    shapes = [
      tuple(map(int, x.split(","))) if x else () for x in _SHAPE.findall(shapes)
    ]
    found.append((kind, shapes))
  return found


def numbers(shapes):
  return sum(math.prod(shape) for shape in shapes)


def test_stage_2_reduces_its_gradients_once_and_gathers_nothing():
  step, gradients, _ = compile_step("stage2", 8)
  found = collectives(step)
  assert {kind for kind, _ in found} == {"all-reduce"}
  # One holds every gradient, but for positions beyond the longest report; what
  # stage 2 holds as stage 1 has it has none.
  *others, largest = sorted(numbers(shapes) for _, shapes in found)
  assert gradients - 25 * 64 <= largest < gradients + 100
  assert sum(others) < 100


def test_stage_1_reduces_once_and_gathers_base_vectors_alone():
  step, gradients, _ = compile_step("stage1", 8)
  found = collectives(step)
  reduced = [numbers(s) for kind, s in found if kind == "all-reduce"]
  large = [size for size in reduced if size > ROWS * 64]
  # Those of both sides of a pair added up.
  assert len(large) == 1 and large[0] < gradients + 100
  gathered = [s for kind, s in found if kind != "all-reduce"]
  assert {kind for kind, _ in found} == {"all-reduce", "all-gather"}
  # Base vectors (rows, 64), and a few numbers per row.
  assert all(numbers(shapes) <= ROWS * 64 for shapes in gathered)


def test_micro_batches_are_cut_without_moving_rows():
  step, gradients, _ = compile_step("stage2", 8, accumulate=2)
  found = collectives(step)
  assert {kind for kind, _ in found} == {"all-reduce"}
  sizes = [numbers(shapes) for _, shapes in found]
  assert sum(sizes) < gradients + 200


def test_one_device_sends_nothing():
  step, *_ = compile_step("stage2", 1, depth=2)
  assert collectives(step) == []


def test_less_is_held_between_the_passes_where_that_is_asked_for():
  def held(step):
    return step.memory_analysis().temp_size_in_bytes

  keeping, _, flops = compile_step("stage2", 1, depth=2)
  sparing, *_ = compile_step("stage2", 1, depth=2, remat=True)
  assert held(sparing) < 0.9 * held(keeping)
  halves, *_ = compile_step("stage2", 1, depth=2, accumulate=2)
  assert held(halves) < 0.75 * held(keeping)
  # Else nothing is computed twice.
  assert flops == flops_with(remat=False) < 0.95 * flops_with(remat=True)
