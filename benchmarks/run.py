"""Speed of ours, and of PyTorch in the same process: one table.

  python -m benchmarks.run --peer --out speed.json         everything
  python -m benchmarks.run --peer --eager --rows stage2_step,denoiser_b8
  python -m benchmarks.run --quick                         seconds, not a result

All networks have the published sizes and seeded random weights. On CPU
products are float32, batches of a step 64; on a GPU bfloat16 and 512. Where
PyTorch runs, it takes turns with ours on the same numbers: eager in float32,
and compiled in our precision. Times are medians; the JSON has lowest and
highest, too. A floor is what the larger of operations and bytes needs at the
rates of a large product and a large copy in the same process.
"""

import argparse
import json
import os
import pathlib
import tempfile
import time

import numpy as np

_KERNELS = (
  "stage1_step",
  "stage2_step",
  "vae_encode",
  "vae_decode",
  "denoiser_b1",
  "denoiser_b8",
  "denoiser_b64",
  "denoiser_b512",
)
_TWINS = ("twins8_ddpm1000", "twins8_default")
_ALONE = ("twins50_default", "mass_generation")
_INPUT = ("data_preparation", "pair_batches")
_PROCESSES = (
  "first_twin_cold",
  "first_twin_cached",
  "stage2_step_memory",
  "import",
  "help",
)
ROWS = (*_KERNELS, *_TWINS, *_ALONE, *_INPUT, *_PROCESSES)


def row(name: str, seconds: dict[str, list[float]], **facts) -> dict:
  """One row: medians, and spreads as [lowest, highest]."""
  from benchmarks.timing import spread

  result = {"name": name, **facts}
  for who, each in seconds.items():
    low, middle, high = spread(each)
    result[f"{who}_s"] = middle
    result[f"{who}_spread_s"] = [low, high]
    if who != "ours":
      result["ratio" + who.removeprefix("peer")] = middle / result["ours_s"]
  result["runs"] = len(seconds["ours"])
  return result


def kernel_rows(names, options, ceilings, peer):
  from benchmarks import workloads
  from benchmarks.timing import take_turns
  from benchmarks.trace_summary import top_costs

  for name in names:
    if name.startswith("denoiser_b"):
      size = int(name.removeprefix("denoiser_b"))
      work = workloads.denoiser_call(size, options.precision)
    elif name.startswith("vae_"):
      work = getattr(workloads, name)(16, options.precision)
    else:
      make = getattr(workloads, name)
      work = make(options.batch, options.precision)
    calls = {"ours": work.call}
    if peer is not None:
      calls |= peer.calls(name, work.inputs)
    seconds = take_turns(calls, options.runs, clock=options.clock)
    floor = ceilings.floor(work.flops, work.size)
    made = row(
      name,
      seconds,
      batch=work.batch,
      precision=options.precision,
      gflop=work.flops / 1e9,
      megabytes=work.size / 1e6,
      floor_s=floor,
      compile_s=work.compile_s,
    )
    made["share_of_floor"] = floor / made["ours_s"]
    if options.trace:
      made["top_costs"] = top_costs(work.call, work.compiled)
    yield made


def twin_rows(names, options, peer):
  """Twins of a reference, decoded; the peer always takes 1000 steps."""
  from benchmarks import end_to_end, published
  from benchmarks.timing import take_turns

  if not {*_TWINS, *_ALONE} & set(names):
    return
  twin = published.make_twin(options.precision)
  reference, now, then = end_to_end.example()
  given = (twin, reference, now, then)

  def ours(n, **settings):
    return lambda: end_to_end.make_twins(*given, n, **settings)

  made = None
  if peer is not None:
    rng = np.random.default_rng(0)
    text = twin.arrays(then, "denoiser")[0][:2]
    patient = rng.standard_normal(3).astype(np.float32)
    signal = reference.resample().signal[None]
    made = peer.twins(signal, text, patient, chunk=options.chunk)
  calls = {}
  if "twins8_ddpm1000" in names:
    calls["twins8_ddpm1000"] = ours(8, sampler="ddpm", steps=None)
  if "twins8_default" in names:
    calls["twins8_default"] = ours(8)
  if calls and made is not None:
    calls["peer"] = lambda: made(8)
  if calls:
    for name in calls:
      if name != "peer":
        calls[name]()  # compiles; the peer's first step costs little
    seconds = take_turns(calls, options.long_runs, 0, options.clock)
    for name in (x for x in calls if x != "peer"):
      both = {"ours": seconds[name]}
      if "peer" in seconds:
        both["peer"] = seconds["peer"]
      yield row(name, both, batch=8, precision=options.precision)
  if "twins50_default" in names:
    seconds = take_turns({"ours": ours(50)}, options.runs, 1, options.clock)
    yield row("twins50_default", seconds, batch=50, precision=options.precision)
  if "mass_generation" in names:
    n, chunk = options.mass, min(options.mass, options.chunk)
    calls = {"ours": lambda: end_to_end.in_chunks(*given, n, chunk)}
    calls["ours"]()  # compiles
    seconds = take_turns(calls, options.long_runs, 0, options.clock)
    if made is not None and not options.skip_peer_mass:
      # Once: its 1000 steps take minutes.
      seconds |= take_turns({"peer": lambda: made(n)}, 1, 0, options.clock)
    found = row(
      "mass_generation", seconds, batch=n, precision=options.precision
    )
    yield {**found, "ecgs_per_s": n / found["ours_s"]}


def input_rows(names, options):
  """What comes before the networks, by the clock; it has no peer."""
  from benchmarks import inputs
  from benchmarks.timing import take_turns

  if "data_preparation" in names:
    with inputs.preparation(options.recordings) as call:
      seconds = take_turns({"ours": call}, options.long_runs, warm=1)
    made = row("data_preparation", seconds, batch=options.recordings)
    yield {**made, "ecgs_per_s": options.recordings / made["ours_s"]}
  if "pair_batches" in names:
    with inputs.pair_batches(options.recordings) as call:
      seconds = take_turns({"ours": call}, options.runs, warm=1)
    size = inputs.BATCH * inputs.BATCHES
    made = row("pair_batches", seconds, batch=size)
    yield {**made, "pairs_per_s": size / made["ours_s"]}


def process_rows(names, options):
  """What a process of its own measures; PyTorch's beside it."""
  import sys

  from benchmarks import end_to_end, published
  from benchmarks.timing import take_turns
  from ecgtwin_jax.inference import twin_directory

  peer = options.peer
  with tempfile.TemporaryDirectory() as folder:
    directory, cache = f"{folder}/twin", f"{folder}/cache"
    if any(name.startswith("first_twin") for name in names):
      parts = published.make_parts()
      twin_directory.write_twin(
        directory,
        parts,
        sources=dict.fromkeys(parts, "random"),
        card="Random weights, for benchmarks.",
        table=published.make_table(),
      )
    calls = {}
    if "first_twin_cold" in names:
      calls["first_twin_cold"] = lambda: end_to_end.run_alone(
        "first_twin", directory
      )
    if "first_twin_cached" in names:
      cached = {"cache": cache}
      end_to_end.run_alone("first_twin", directory, **cached)
      calls["first_twin_cached"] = lambda: end_to_end.run_alone(
        "first_twin", directory, **cached
      )
    if calls and peer:
      calls["peer"] = lambda: end_to_end.run_alone("peer_first_twin")
    seconds = take_turns(calls, options.long_runs, warm=0)
    for name in (x for x in calls if x != "peer"):
      both = {"ours": seconds[name]}
      if peer:
        both["peer"] = seconds["peer"]
      yield row(name, both, batch=1, precision="float32")
  code = {"import": ["-c", "import ecgtwin_jax as et; et.ECGTwin"]}
  code["help"] = ["-m", "ecgtwin_jax.main", "--help"]
  for name in (x for x in code if x in names):
    import subprocess

    command = [sys.executable, *code[name]]
    call = lambda c=command: subprocess.run(  # noqa: E731
      c, check=True, capture_output=True, cwd=end_to_end.ROOT
    )
    yield row(name, take_turns({"ours": call}, options.runs, warm=1))
  if "stage2_step_memory" in names:
    ways = ("ours", "peer") if peer else ("ours",)
    result = {"name": "stage2_step_memory", "batch": options.batch, "runs": 1}
    for who in ways:
      found = end_to_end.run_alone(
        "step_memory", who, options.batch, options.precision
      )
      result[f"{who}_bytes"] = found["peak"]
      result[f"{who}_bytes_before"] = found["before"]
    if peer:
      result["ratio"] = result["peer_bytes"] / result["ours_bytes"]
    yield result


def line(made: dict) -> str:
  """A row as one line of a table in Markdown."""

  def show(key, form):
    return format(made[key], form) if key in made else ""

  if "ours_bytes" in made:
    sizes = [made.get(f"{w}_bytes") for w in ("ours", "peer")]
    ours, peer = (f"{x / 2**30:.2f} GiB" if x else "" for x in sizes)
  else:
    ours, peer = show("ours_s", ".4g"), show("peer_s", ".4g")
  cells = (
    made["name"],
    show("batch", ""),
    ours,
    peer,
    show("ratio", ".2f"),
    show("peer_compiled_s", ".4g"),
    show("ratio_compiled", ".2f"),
    show("share_of_floor", ".0%"),
    show("runs", ""),
  )
  return f"| {' | '.join(cells)} |"


def _options() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--peer", action="store_true", help="PyTorch beside it")
  parser.add_argument(
    "--eager", action="store_true", help="the peer is not compiled as well"
  )
  parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
  parser.add_argument("--rows", default=",".join(ROWS), help="names, by commas")
  parser.add_argument("--quick", action="store_true", help="few, small runs")
  parser.add_argument("--trace", action="store_true", help="name the top costs")
  parser.add_argument(
    "--cpu_time",
    action="store_true",
    help="CPU time, not the clock's, of what runs in this process: for a busy "
    "machine, with `taskset -c 0`",
  )
  parser.add_argument(
    "--skip_peer_mass",
    action="store_true",
    help="mass_generation alone, without the 1000 steps of the peer",
  )
  parser.add_argument("--precision", choices=("float32", "bfloat16"))
  parser.add_argument("--batch", type=int, help="of a training step")
  parser.add_argument("--runs", type=int, help="of what takes seconds")
  parser.add_argument("--long_runs", type=int, help="of what takes minutes")
  parser.add_argument("--mass", type=int, help="twins of mass_generation")
  parser.add_argument(
    "--recordings",
    type=int,
    help="of data_preparation, which one core does; patients of pair_batches",
  )
  return parser.parse_args()


def main() -> None:
  options = _options()
  names = options.rows.split(",")
  unknown = sorted(set(names) - set(ROWS))
  if unknown:
    raise SystemExit(f"rows {unknown} must be among {', '.join(ROWS)}")
  from ecgtwin_jax import sharding
  from ecgtwin_jax.training import host_memory

  host_memory.keep_freed()  # as in a training; both sides have it
  sharding.use_cores()  # as in a generation; steps and calls are on one device
  import jax

  from benchmarks.timing import describe_machine, measure_ceilings

  cpu = jax.default_backend() == "cpu"
  for key, on_cpu, on_gpu, quick in (
    ("precision", "float32", "bfloat16", None),
    ("batch", 64, 512, 8),
    ("runs", 7, 20, 1),
    ("long_runs", 2, 3, 1),
    ("mass", 64, 1280, 8),
    ("recordings", 512, 2048, 32),
  ):
    if getattr(options, key) is None:
      default = on_cpu if cpu else on_gpu
      small = options.quick and quick is not None
      setattr(options, key, quick if small else default)
  clock = time.process_time if options.cpu_time else time.perf_counter
  options.clock = clock
  options.chunk = 64 if cpu else 640
  threads = len(os.sched_getaffinity(0))
  peer = None
  if options.peer:
    from benchmarks.peers import Peer

    peer = Peer(threads, options.precision, not options.eager)
  machine = describe_machine(threads)
  ceilings = measure_ceilings(options.precision)
  machine["clock"] = clock.__name__
  print(json.dumps(machine))
  print(
    f"ceilings: {ceilings.flops / 1e9:.0f} GFLOP/s in {options.precision}, "
    f"{ceilings.bandwidth / 1e9:.1f} GB/s"
  )
  print(
    "| row | batch | ours, s | PyTorch eager, s | ratio | compiled, s | ratio "
    "| share of floor | runs |\n|---|---|---|---|---|---|---|---|---|"
  )
  results = []
  kernels = [name for name in _KERNELS if name in names]
  for rows in (
    kernel_rows(kernels, options, ceilings, peer),
    twin_rows(names, options, peer),
    input_rows(names, options),
    process_rows(names, options),
  ):
    for made in rows:
      print(line(made), flush=True)
      results.append(made)
  for made in results:
    for place, share in made.get("top_costs", ()):
      print(f"{made['name']:<16}{share:6.1%}  {place}")
  if options.out:
    document = {
      "machine": machine,
      "ceilings": ceilings._asdict(),
      "rows": results,
    }
    options.out.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
  main()
