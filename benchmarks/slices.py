"""What a step of each stage would cost on TPU slices, as the compiler has it.

  pip install 'ecgtwin_jax[tpu]'
  JAX_PLATFORMS=cpu python -m benchmarks.slices --output=docs/slices.md

Compiles the step of every stage's `base` in bfloat16 for v5e-8 with several
numbers of rows a chip, and, with the number that is recommended, for slices of
every version and for v5e-256 (jobs/compile_for.py). No chip is needed, nothing
is run, and every time is an estimate from published rates. What is in --cells
already is read, so that it can be stopped; a cell takes minutes of one core.
"""

import argparse
import json
import pathlib
from typing import Any

from ecgtwin_jax.data.whole_files import appear_whole
from ecgtwin_jax.flags import load_config
from ecgtwin_jax.jobs import compile_for

ROOT = pathlib.Path(__file__).parent.parent
STAGES = ("vae", "stage1", "rhythm", "stage2")
ROWS = (16, 64, 256)  # of the batch on a chip
SMALLEST = "v5e-8"
OTHERS = ("v5e-256", "v4-16", "v5p-16", "v6e-8")
ENOUGH = 0.9  # of the greatest samples/s that a chip reaches
HEAD = """# Steps on TPU slices

Every figure is an **estimate**: the step that would run, of each stage's
`base` in bfloat16, compiled by the TPU's own compiler and read, at published
rates of compute, HBM and links (sources in `jobs/compile_for.py`). No TPU has
run them. Times are where nothing overlaps; {made}

    JAX_PLATFORMS=cpu python -m benchmarks.slices --output=docs/slices.md

## Rows a chip

On v5e-8. Recommended is the smallest number of rows with which a chip gives
nine tenths of the most samples per second of those that fit.

"""


def cell(folder: pathlib.Path, stage: str, name: str, rows: int) -> dict:
  """The cost of one step, of an earlier run if it is there."""
  path = folder / f"{stage}-{name}-{rows}.json"
  if not path.exists():
    config = load_config(f"{ROOT}/configs/{stage}.py")
    chips = len(compile_for.topology_devices(*compile_for.parse_slice(name)))
    config.update(batch_size=rows * chips, precision="bfloat16")
    cost = compile_for.estimate(config, name)
    exchanged = sum(c.size * c.count for c in cost.collectives)
    with appear_whole(path) as draft:
      draft.write_text(
        json.dumps(
          {
            **cost._asdict(),
            "collectives": sum(c.count for c in cost.collectives),
            "exchanged": exchanged,
            "fits": compile_for.fits(cost),
          }
        )
      )
    print(stage, name, rows, f"{cost.compile_seconds:.0f} s", flush=True)
  return json.loads(path.read_text())


def rate(cost: dict) -> float:
  """Samples per second and chip where nothing overlaps."""
  return cost["rows"] / sum(cost["seconds"].values())


def recommend(costs: list[dict]) -> int:
  """The smallest number of rows a chip that is nearly as fast as any.

  Raises:
    ValueError: none fits.
  """
  fitting = [cost for cost in costs if cost["fits"]]
  if not fitting:
    raise ValueError(f"no step of {[c['rows'] for c in costs]} rows fits")
  best = max(rate(cost) for cost in fitting)
  return min(c["rows"] for c in fitting if rate(c) >= ENOUGH * best)


def to_row(first: list[Any], cost: dict) -> str:
  """One line of a table."""
  seconds = cost["seconds"]
  cells = [
    *first,
    f"{(cost['state'] + cost['temporary']) / 1e9:.2f}"
    + ("" if cost["fits"] else " (too much)"),
    f"{cost['flops'] / 1e12:.3f}",
    f"{cost['traffic'] / 1e9:.2f}",
    f"{cost['collectives']}, {cost['exchanged'] / 1e6:.1f}",
    *(f"{1e3 * seconds[k]:.2f}" for k in ("compute", "HBM", "interconnect")),
    max(seconds, key=seconds.get),
    f"{rate(cost):,.0f}",
    f"{rate(cost) * cost['chips']:,.0f}",
  ]
  return "| " + " | ".join(map(str, cells)) + " |"


COLUMNS = (
  "memory, GB", "TFLOP", "HBM, GB", "collectives, MB",
  "compute, ms", "HBM, ms", "links, ms", "bound by",
  "samples/s and chip", "samples/s",
)  # fmt: skip


def to_head(*first: str) -> str:
  names = (*first, *COLUMNS)
  return "| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|"


def make_page(folder: pathlib.Path, made: str) -> str:
  """Compiles what is missing; the page, in Markdown."""
  lines = [HEAD.format(made=made) + to_head("stage", "rows a chip")]
  chosen = {}
  for stage in STAGES:
    costs = [cell(folder, stage, SMALLEST, rows) for rows in ROWS]
    chosen[stage] = recommend(costs)
    for cost in costs:
      mark = " (recommended)" if cost["rows"] == chosen[stage] else ""
      lines.append(to_row([stage, f"{cost['rows']}{mark}"], cost))
  lines += [
    "",
    "## Slices",
    "",
    "With the recommended rows a chip; the gain over v5e-8 is of samples/s.",
    "",
    to_head("stage", "slice", "chips", "gain"),
  ]
  for stage in STAGES:
    first = cell(folder, stage, SMALLEST, chosen[stage])
    for name in (SMALLEST, *OTHERS):
      cost = cell(folder, stage, name, chosen[stage])
      gain = rate(cost) * cost["chips"] / rate(first) / first["chips"]
      lines.append(to_row([stage, name, cost["chips"], f"{gain:.2f}"], cost))
  lines += [
    "",
    "## One batch on more chips",
    "",
    "The batch of v5e-8 with its recommended rows, split over v5e-64.",
    "",
    to_head("stage", "slice", "gain"),
  ]
  for stage in STAGES:
    first = cell(folder, stage, SMALLEST, chosen[stage])
    cost = cell(folder, stage, "v5e-64", max(1, chosen[stage] // 8))
    gain = rate(cost) * cost["chips"] / rate(first) / first["chips"]
    lines.append(to_row([stage, "v5e-64", f"{gain:.2f}"], cost))
  return "\n".join(lines) + "\n"


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--cells", default="runs/slices", type=pathlib.Path)
  parser.add_argument("--output", required=True, type=pathlib.Path)
  arguments = parser.parse_args()
  import jax
  import libtpu

  jax.config.update("jax_enable_compilation_cache", False)
  arguments.cells.mkdir(parents=True, exist_ok=True)
  made = f"made with jax {jax.__version__} and libtpu {libtpu.__version__} by"
  arguments.output.write_text(make_page(arguments.cells, made))


if __name__ == "__main__":
  main()
