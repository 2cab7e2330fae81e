"""How cost grows: time against batch, steps, length of report, and cohort size.

  python -m studies.growth
  python -m studies.growth --parts=index,table,report
  python -m studies.growth --parts=steps,denoiser,training

For each quantity: the seconds at each size, and the exponent between the first
and the last, log(time ratio) / log(size ratio): 1 is linear. CPU time of the
process. What devices send each other is in tests/test_collectives.py.
"""

import argparse
import math
import time

import numpy as np

from benchmarks.timing import spread, take_turns


def measure(name: str, calls: dict, runs: int) -> None:
  """Times calls by size; prints a line of a table in Markdown."""
  seconds = take_turns(calls, runs, warm=1, clock=time.process_time)
  medians = {size: spread(each)[1] for size, each in seconds.items()}
  first, last = min(medians), max(medians)
  exponent = math.log(medians[last] / medians[first]) / math.log(last / first)
  cells = ", ".join(f"{size}: {t:.3g}" for size, t in sorted(medians.items()))
  print(f"| {name} | {cells} | {exponent:.2f} |", flush=True)


def denoiser(runs: int) -> None:
  from benchmarks import workloads

  def call(batch, statements=3):
    return workloads.denoiser_call(batch, "float32", statements).call

  measure("denoiser call, by batch", {b: call(b) for b in (1, 4, 16, 64)}, runs)
  measure(
    "denoiser call of 8, by statements of a report",
    {s: call(8, s) for s in (1, 3, 6, 18)},
    runs,
  )


def training(runs: int) -> None:
  from benchmarks import workloads

  sizes = (2, 4, 8, 16)
  for make in (workloads.stage2_step, workloads.stage1_step):
    calls = {b: make(b, "float32").call for b in sizes}
    measure(f"{make.__name__}, by batch", calls, runs)


def steps(runs: int) -> None:
  from benchmarks import end_to_end, published

  twin = published.make_twin("float32")
  given = end_to_end.example()

  def call(count):
    return lambda: end_to_end.make_twins(twin, *given, 1, steps=count)

  measure(
    "1 twin decoded, by steps", {n: call(n) for n in (5, 10, 20, 40)}, runs
  )


def columns(rng, patients: int, recordings: int) -> dict:
  """Random columns of a cohort."""
  from benchmarks.published import reports

  n = patients * recordings
  return {
    "patient_id": np.repeat(np.arange(patients), recordings),
    "time": rng.integers(0, 10**9, n),
    "record_id": np.arange(n),
    "heart_rate": rng.uniform(40, 140, n).astype(np.float32),
    "statement_ids": reports(rng, n, 500),
  }


def index(runs: int) -> None:
  from ecgtwin_jax.data.pairs import PairIndex

  rng = np.random.default_rng(0)

  def build(patients, recordings):
    given = columns(rng, patients, recordings)
    return lambda: PairIndex.from_columns(**given)

  measure(
    "pair index, by patients of 10 recordings",
    {p: build(p, 10) for p in (1_000, 4_000, 16_000, 64_000)},
    runs,
  )
  measure(
    "pair index of 100 patients, by recordings of each",
    {r: build(100, r) for r in (10, 100, 1_000)},
    runs,
  )

  def draw(patients):
    pairs = PairIndex.from_columns(**columns(rng, patients, 10))
    numbers = rng.integers(0, len(pairs), 4096)
    return lambda: [pairs.pair(numbers) for _ in range(50)]

  measure(
    "50 x 4096 pairs drawn, by patients",
    {p: draw(p) for p in (1_000, 4_000, 16_000, 64_000)},
    runs,
  )


def table(runs: int) -> None:
  from ecgtwin_jax.text.statements import StatementTable, get_encoder

  encoder = get_encoder("hashed-v1")

  def texts(count):
    return [f"Finding number {i} of the wall" for i in range(count)]

  sizes = (100, 1_000, 10_000)

  def make(count):
    given = texts(count)
    return lambda: StatementTable.from_encoder(given, encoder)

  measure(
    "statement table made (hashed-v1), by statements",
    {n: make(n) for n in sizes},
    runs,
  )

  def look_up(count):
    made = StatementTable.from_encoder(texts(count), encoder)
    wanted = texts(count)[:100]
    return lambda: [made.ids(wanted) for _ in range(100)]

  measure(
    "100 x 100 statements looked up, by size of the table",
    {n: look_up(n) for n in sizes},
    runs,
  )


def report(runs: int) -> None:
  """Counts of a data set, and what an evaluation compares set by set."""
  import contextlib
  import io
  import tempfile

  from data_prep import builder, describe, simulated
  from ecgtwin_jax.evaluation.fidelity import fidelity

  with tempfile.TemporaryDirectory() as folder:

    def counted(patients):
      config = simulated.SimulatedConfig(patients=patients, recordings=5)
      with contextlib.redirect_stdout(io.StringIO()):
        made = builder.prepare(
          simulated.Simulated, config, f"{folder}/{patients}"
        )

      def call():
        with contextlib.redirect_stdout(io.StringIO()):
          describe.describe(made)

      return call

    measure(
      "data set described, by patients of 5 recordings",
      {p: counted(p) for p in (50, 200, 800)},
      runs,
    )
  rng = np.random.default_rng(0)

  def compared(count):
    points = rng.standard_normal((2, count, 64), np.float32)
    people = np.arange(count) // 4
    sets = {"twin": points[1][:, None]}
    compared = fidelity.Points(points[0], sets, people, fidelity.plan(people))
    return lambda: fidelity.metrics(compared, repeats=20)

  measure(
    "Frechet distance, precision, recall, by ECGs",
    {n: compared(n) for n in (500, 2_000, 8_000)},
    runs,
  )


PARTS = {
  f.__name__: f for f in (index, table, report, steps, denoiser, training)
}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--parts", default=",".join(PARTS))
  parser.add_argument("--runs", type=int, default=3)
  options = parser.parse_args()
  print("| what | size: seconds | exponent |\n|---|---|---|")
  for part in options.parts.split(","):
    PARTS[part](options.runs)


if __name__ == "__main__":
  main()
