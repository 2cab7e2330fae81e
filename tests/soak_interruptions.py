"""Kills jobs at random moments, resumes them, and compares each bit.

  python tests/soak_interruptions.py                about 10 minutes, 4 cores
  python tests/soak_interruptions.py --runs=4 --stages=stage1
  python tests/soak_interruptions.py --jobs=preparation,requests,evaluation

--jobs: `--runs` of each are killed once, at a random moment of their time,
every other one after it began to write, and started again with the same
command; each must leave the files of a run that nobody touched, byte by byte.
Without it trainings are killed.

Trainings, SIGKILL: `--runs` trainings of the first stage named are killed one
to three times each, at a random moment after the start, of the training itself,
or from the moment a save begins, and started again with the same command.
SIGTERM: every stage is stopped at a random step and started again. Each must
end with the parameters, averages, optimizer state and metrics of every step of
a training that nobody touched. Prints a tally; exit code 1 where one differs.
"""

import argparse
import collections
import concurrent.futures
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

os.environ["JAX_PLATFORMS"] = "cpu"

from ecgtwin_jax.data.whole_files import sha256_of
from ecgtwin_jax.training import manifest
from helpers import runs

EXAMPLE = runs.ROOT / "ecgtwin_jax" / "assets" / "s0010_re_10s"

MOMENTS = ("start", "training", "save")
_DATA = ("simulated", "--patients=40", "--recordings=2", "--workers=1")
# Each with {folder} for what they read and {output} for where they write.
JOBS = {
  "preparation": ("data_prep", *_DATA, "--output={output}"),
  "requests": (
    *("ecgtwin_jax.main", "--config=generate", "--workdir={output}"),
    *("--config.requests={folder}/r.csv", "--config.batch_size=2"),
    "--config.sampling.steps=2",
  ),
  "evaluation": (
    *("ecgtwin_jax.main", "--config=evaluate", "--workdir={output}"),
    *("--config.data={folder}/data", "--config.splits=('train',)"),
    *("--config.patients=8", "--config.conditions=1"),
    *("--config.levels=('fidelity','condition')", "--config.ablations=()"),
    "--config.sampling.steps=2",
  ),
}
_REQUESTS = """\
record,now_statements,target_statements,target_heart_rate,seed
s0010_re_10s,Sinus rhythm,Sinus rhythm,60,1
s0010_re_10s,Sinus rhythm,Sinus rhythm,80,2
s0010_re_10s,Sinus rhythm,Atrial fibrillation,90,3
s0010_re_10s,Sinus rhythm,Sinus tachycardia,120,4
"""


def launch(chain, name, workdir, changes):
  workdir.mkdir(parents=True, exist_ok=True)
  with open(workdir / "log", "a") as log:
    return subprocess.Popen(
      [sys.executable, "-m", "ecgtwin_jax.main"]
      + runs.flags_of(chain, name, workdir, **changes),
      stdout=log,
      stderr=subprocess.STDOUT,
    )


def finish(process):
  """Waits; returns the exit code."""
  return process.wait(timeout=600)


def began(workdir, size):
  """True once this start has written a metric."""
  file = workdir / "metrics.jsonl"
  return file.exists() and file.stat().st_size > size


def where_it_was(workdir):
  """What a kill left behind: how far the newest save had come."""
  root = workdir / "checkpoints"
  if [*root.glob("*.orbax-checkpoint-tmp*")]:
    return "while saving"
  steps = [p for p in root.glob("*") if p.name.isdigit()]
  if any(not (p / manifest.NAME).exists() for p in steps):
    return "saved, not sealed"
  return "between saves" if steps else "before any save"


def kill(process, workdir, moment, rng, seconds):
  """Sends SIGKILL at a random moment; returns where it hit."""
  file = workdir / "metrics.jsonl"
  size = file.stat().st_size if file.exists() else 0
  if moment == "start":
    time.sleep(rng.uniform(0, seconds["start"] + seconds["training"]))
  else:
    while process.poll() is None and not began(workdir, size):
      time.sleep(0.002)
    if moment == "training":
      time.sleep(rng.uniform(0, seconds["training"]))
    else:
      unfinished = "*.orbax-checkpoint-tmp*"
      for _ in range(rng.randint(1, 3)):  # not always the first save
        root = workdir / "checkpoints"
        while process.poll() is None and not [*root.glob(unfinished)]:
          time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.15))
  process.send_signal(signal.SIGKILL)
  if finish(process) != -signal.SIGKILL:
    return "had ended"
  return where_it_was(workdir)


def killed_run(number, chain, name, folder, changes, seconds, seed):
  """One training, killed and resumed; returns (folder, where it was hit)."""
  rng = random.Random(f"{seed} {number}")
  workdir, hits = folder / f"killed-{number}", []
  for _ in range(rng.randint(1, 3)):
    process = launch(chain, name, workdir, changes)
    moment = MOMENTS[number % len(MOMENTS)]
    hits.append(kill(process, workdir, moment, rng, seconds))
  code = finish(launch(chain, name, workdir, changes))
  return workdir, hits, code


def stopped_run(chain, name, folder, changes, rng, steps):
  """One training, sent SIGTERM at a random step and resumed."""
  workdir, at = folder / f"stopped-{name}", rng.randint(1, steps - 5)
  process = launch(chain, name, workdir, changes)
  while process.poll() is None:
    file = workdir / "metrics.jsonl"
    if file.exists() and len(runs.train_losses(workdir)) >= at:
      break
    time.sleep(0.002)
  process.send_signal(signal.SIGTERM)
  codes = [finish(process)]
  stopped = runs.newest_step(workdir)
  codes.append(finish(launch(chain, name, workdir, changes)))
  return workdir, stopped, codes


def start_job(name, folder, output):
  words = [x.format(folder=folder, output=output) for x in JOBS[name]]
  with (folder / f"{output.name}.log").open("a") as log:
    return subprocess.Popen(
      [sys.executable, "-m", *words], stdout=log, stderr=subprocess.STDOUT
    )


def files_of(output):
  """{file: sha256} of all that a job wrote."""
  return {
    path.relative_to(output).as_posix(): sha256_of(path)
    for path in sorted(output.rglob("*"))
    if path.is_file()
  }


def killed_job(name, folder, seconds, seed):
  """One job, killed once and started again; returns (code, where, files)."""
  output = folder / f"{name}-{seed}"
  partial = output.with_name(f"{output.name}.partial")
  process, rng = start_job(name, folder, output), random.Random(seed)
  if seed % 2:  # most of its time is its start: every other one while it writes
    while process.poll() is None and not (output.exists() or partial.exists()):
      time.sleep(0.002)
    seconds /= 5
  time.sleep(rng.uniform(0, seconds))
  process.send_signal(signal.SIGKILL)
  ended = finish(process) != -signal.SIGKILL
  there = [*output.rglob("*"), *partial.rglob("*")]
  where = "had ended" if ended else f"{sum(p.is_file() for p in there)} files"
  code = finish(start_job(name, folder, output))
  return code, where, files_of(output)


def kill_jobs(names, count, seed, together):
  """Kills each job `count` times; returns the exit code."""
  wrong = 0
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "jax_cache")
    for path in EXAMPLE.parent.glob(f"{EXAMPLE.name}.*"):
      shutil.copy(path, folder)
    (folder / "r.csv").write_text(_REQUESTS)
    assert finish(start_job("preparation", folder, folder / "data")) == 0
    for name in names:
      for attempt in range(2):  # the second one finds its programs compiled
        whole, began = folder / f"{name}-whole-{attempt}", time.monotonic()
        code = finish(start_job(name, folder, whole))
        assert code == 0, (folder / f"{whole.name}.log").read_text()
        seconds = time.monotonic() - began
      want, equal = files_of(whole), 0
      assert want == files_of(folder / f"{name}-whole-0"), "never equal"
      with concurrent.futures.ThreadPoolExecutor(together) as pool:
        killed = [
          pool.submit(killed_job, name, folder, seconds, seed * 1000 + number)
          for number in range(count)
        ]
        for job in killed:
          code, where, files = job.result()
          same = code == 0 and files == want
          equal += same
          other = [x for x in {*want, *files} if want.get(x) != files.get(x)]
          verdict = "equal" if same else f"DIFFERENT (code {code}, {other})"
          print(f"{name} killed, {where} there: {verdict}", flush=True)
      wrong += count - equal
      print(f"{equal} of {count} ended equal, {len(want)} files\n", flush=True)
  return 1 if wrong else 0


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--runs", type=int, default=20)
  parser.add_argument("--steps", type=int, default=40)
  parser.add_argument("--stages", default="stage1,stage2,vae,clip")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--together", type=int, default=2, help="at a time")
  parser.add_argument(
    "--jobs", help=f"in place of trainings: {', '.join(JOBS)}"
  )
  parser.add_argument("--chain", help="folder of an earlier smoke chain")
  parsed = parser.parse_args()
  if parsed.jobs:
    names = parsed.jobs.split(",")
    return kill_jobs(names, parsed.runs, parsed.seed, parsed.together)
  changes = dict(
    steps=parsed.steps, log_every=1, eval_every=10, checkpoint_every=4
  )
  stages = parsed.stages.split(",")
  rng, wrong = random.Random(parsed.seed), 0
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    cache = folder / "jax_cache"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    chain = runs.make_chain(parsed.chain, folder)
    whole, seconds = {}, {}
    for name in stages:
      for attempt in range(2):  # the second one finds its programs compiled
        whole[name] = folder / f"whole-{name}-{attempt}"
        start = time.monotonic()
        process = launch(chain, name, whole[name], changes)
        while process.poll() is None and not began(whole[name], 0):
          time.sleep(0.002)
        seconds[name] = {"start": time.monotonic() - start}
        assert finish(process) == 0, (whole[name] / "log").read_text()
        seconds[name]["training"] = (
          time.monotonic() - start - seconds[name]["start"]
        )
    want = {name: runs.digest(workdir) for name, workdir in whole.items()}

    first, tally, equal = stages[0], collections.Counter(), 0
    with concurrent.futures.ThreadPoolExecutor(parsed.together) as pool:
      jobs = [
        pool.submit(
          killed_run,
          *(number, chain, first, folder, changes),
          *(seconds[first], parsed.seed),
        )
        for number in range(parsed.runs)
      ]
      for job in jobs:
        workdir, hits, code = job.result()
        same = code == 0 and runs.digest(workdir) == want[first]
        equal += same
        tally.update(hits)
        verdict = "equal" if same else f"DIFFERENT (exit code {code})"
        print(f"{first} killed {'; '.join(hits)}: {verdict}", flush=True)
    wrong += parsed.runs - equal
    kills = sum(tally.values())
    print(f"\n{parsed.runs} runs of {parsed.steps} steps, {kills} SIGKILLs:")
    for where, count in tally.most_common():
      print(f"  {count:3} {where}")
    print(f"  {equal} of {parsed.runs} ended equal to {want[first][:16]}\n")

    for name in stages:
      workdir, stopped, codes = stopped_run(
        chain, name, folder, changes, rng, parsed.steps
      )
      same = codes == [75, 0] and runs.digest(workdir) == want[name]
      wrong += not same
      verdict = "equal" if same else f"DIFFERENT (exit codes {codes})"
      print(f"{name} stopped by SIGTERM at step {stopped}: {verdict}")
  return 1 if wrong else 0


if __name__ == "__main__":
  sys.exit(main())
