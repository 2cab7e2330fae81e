"""What takes the time of a computation, from a trace of JAX's profiler."""

import collections
import glob
import gzip
import json
import re
import tempfile
from collections.abc import Callable

import jax

_INSTRUCTION = re.compile(
  r'^\s*(?:ROOT )?%?([\w.\-]+) = .*op_name="([^"]*)"', re.MULTILINE
)


def top_costs(
  call: Callable, compiled, count: int = 12
) -> list[tuple[str, float]]:
  """The operations that took most of the devices' time, summed over blocks.

  Args:
    call: does the computation once and waits.
    compiled: its executable, whose text says where an instruction comes from.
    count: how many to name.

  Returns:
    [(where in the model, share of the traced time)], largest first.
  """
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      call()
    (path,) = glob.glob(f"{folder}/**/*.trace.json.gz", recursive=True)
    with gzip.open(path) as file:
      events = json.load(file)["traceEvents"]
  where = dict(_INSTRUCTION.findall(compiled.as_text()))
  times = collections.Counter()
  for event in events:
    instruction = event.get("args", {}).get("hlo_op")
    if event.get("ph") == "X" and instruction is not None:
      place = where.get(instruction, instruction)
      times[_shorten(place)] += event["dur"]
  total = sum(times.values())
  return [(place, t / total) for place, t in times.most_common(count)]


def _shorten(place: str) -> str:
  """Leaves out the jitted function's name and the number of a block."""
  place = re.sub(r"(block|layer|level)_\d+(_\w+_\d+)?", r"\1", place)
  place = re.sub(r"^jit\(\w+\)/", "", place.split(";")[-1])
  return place.replace("transpose(jvp(", "backward((").replace("jvp(", "(")
