"""Whole jobs, timed: twins of a reference, starting up, memory of a step.

Starting up and memory are measured in a process each:

  python -m benchmarks.end_to_end first_twin TWIN_DIRECTORY
  python -m benchmarks.end_to_end peer_first_twin
  python -m benchmarks.end_to_end step_memory ours 64 float32
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent


def make_twins(twin, reference, now, then, n: int, **settings):
  """Reference in, n decoded ECGs out."""
  base = twin.extract_base(reference, now)
  return twin.generate(base, then, num_samples=n, **settings).signals


def in_chunks(twin, reference, now, then, n: int, chunk: int):
  """The same for many, as the request job does: large calls of the networks."""
  from ecgtwin_jax.inference.sampling import Settings

  base = twin.extract_base(reference, now)
  return twin.generate_rows(
    [base] * n, [then] * n, [0] * n, range(n), Settings(), batch_size=chunk
  ).signals


def example():
  """(twin's reference, its condition, the target)."""
  from benchmarks.published import STATEMENTS
  from ecgtwin_jax import Condition, read_ecg
  from ecgtwin_jax.data.ecg import EXAMPLE_RECORD

  who = dict(age=81, sex="F")
  now = Condition(STATEMENTS[:2], heart_rate=82, **who)
  then = Condition(STATEMENTS[1:], heart_rate=70, **who)
  return read_ecg(EXAMPLE_RECORD), now, then


def run_alone(*arguments, cache: str | None = None) -> dict:
  """Runs this file in a process of its own; returns what it prints."""
  environment = dict(os.environ)
  environment.pop("JAX_COMPILATION_CACHE_DIR", None)
  if cache is not None:
    environment["JAX_COMPILATION_CACHE_DIR"] = cache
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # as main
  start = time.perf_counter()
  done = subprocess.run(
    [sys.executable, "-m", "benchmarks.end_to_end", *map(str, arguments)],
    cwd=ROOT,
    env=environment,
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  )
  seconds = time.perf_counter() - start
  return {"seconds": seconds, **json.loads(done.stdout.splitlines()[-1])}


def first_twin(directory: str) -> dict:
  import ecgtwin_jax as et

  reference, now, then = example()
  twin = et.ECGTwin.from_checkpoint(directory)
  signals = make_twins(twin, reference, now, then, 1)
  return {"twins": len(signals)}


def peer_first_twin() -> dict:
  import numpy as np

  from benchmarks.peers import Peer

  peer = Peer(os.cpu_count(), "float32", False)
  rng = np.random.default_rng(0)
  signal, text = rng.standard_normal((1, 1024, 12)), rng.random((2, 768))
  arrays = (x.astype(np.float32) for x in (signal, text, np.zeros(3)))
  return {"twins": len(peer.twins(*arrays, chunk=1)(1))}


def step_memory(whose: str, batch: str, precision: str) -> dict:
  """Bytes that stage-2 steps took at most, and before the first one.

  On CPU the process's: what compiling took stands in the peak over its life,
  so the peak is measured anew after two steps, where the system allows it.
  """
  from benchmarks import workloads

  if whose == "ours":
    from ecgtwin_jax.training import host_memory

    host_memory.keep_freed()
    import jax

    before = _resident()
    work = workloads.stage2_step(int(batch), precision)
    call, gpu = work.call, jax.default_backend() != "cpu"
  else:
    import torch

    from benchmarks.peers import Peer

    peer = Peer(os.cpu_count(), precision, whose == "peer_compiled")
    before = _resident()
    inputs = stage2_inputs(int(batch))
    call, gpu = peer.calls("stage2_step", inputs)[whose], peer.device == "cuda"
  for _ in range(2):
    call()
  if gpu:
    call()
    if whose == "ours":
      peak = jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    else:
      peak = torch.cuda.max_memory_allocated()
    return {"peak": peak, "before": 0, "life": peak}
  life = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  _forget_peak()
  call()
  return {"peak": _status("VmHWM"), "before": before, "life": life}


def stage2_inputs(batch: int) -> dict:
  """The arrays of workloads.stage2_step, without JAX."""
  import numpy as np

  from benchmarks import published

  rng = np.random.default_rng(0)
  return {
    **published.training_rows(rng, batch, 500),
    "base": rng.standard_normal((batch, 256)).astype(np.float32),
    "table": rng.standard_normal((500, 768), np.float32),
  }


def _status(key: str) -> int:
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith(key + ":"):
      return int(line.split()[1]) * 1024
  raise ValueError(f"/proc/self/status has no {key=}")


def _resident() -> int:
  return _status("VmRSS")


def _forget_peak() -> None:
  try:
    pathlib.Path("/proc/self/clear_refs").write_text("5")
  except OSError as error:
    print(f"the peak includes compiling: {error}", file=sys.stderr)


if __name__ == "__main__":
  name, *rest = sys.argv[1:]
  print(json.dumps(globals()[name](*rest)))
