"""One full-size stage-2 training on a large simulated cohort, in one command.

  python -m benchmarks.large_training --workdir=runs/large
  python -m benchmarks.large_training --workdir=runs/large -- \
    --config.precision=bfloat16
  python -m benchmarks.large_training --workdir=/tmp/large --patients=100 \
    --recordings=3 --minutes=0.5 --variant=demo --early_steps=30

Simulates 10,000 patients with 10 recordings each, trains autoencoder and base
extractor for a while (their quality is not the subject), encodes, and trains
stage 2 for 20 minutes, which SIGTERM ends as a cloud would. What is there
already is used again. What follows `--` goes to stage 2. Prints a table for
RESULTS.md, of simulated patients, and writes it beside the runs.
"""

import argparse
import json
import pathlib
import signal
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
# The state of a device as its own process sees it: here it would take memory.
DEVICES = """
import jax, json
devices = jax.devices()
print(json.dumps([jax.__version__, len(devices), devices[0].device_kind]))
"""
WATCHED = {
  "samples_per_s": "samples/s",
  "input_wait_share": "share of time waiting for input",
  "tflop_per_s": "TFLOP/s",
  "flop_utilisation": "share of the bfloat16 peak",
  "device_memory_peak_gib": "device memory, GiB",
}


def run(*arguments) -> None:
  command = [sys.executable, "-m", *map(str, arguments)]
  print("+", " ".join(command), flush=True)
  subprocess.run(command, cwd=ROOT, check=True)


def train(name: str, variant: str, workdir, *flags) -> None:
  run(*_command(name, variant, workdir, *flags))


def _command(name, variant, workdir, *flags) -> list[str]:
  config = f"--config=configs/{name}.py:{variant}"
  return ["ecgtwin_jax.main", config, f"--workdir={workdir}", *flags]


def prepare(arguments, folder: pathlib.Path) -> list[str]:
  """Makes what stage 2 reads; returns the flags that name it."""
  data, vae = folder / "simulated", folder / "vae"
  latents, stage1 = folder / "latents", folder / "stage1"
  steps = arguments.early_steps
  early = (
    f"--config.steps={steps}",
    f"--config.optimizer.warmup_steps={steps // 10}",
    f"--config.checkpoint_every={steps}",
    f"--config.eval_every={steps}",
    f"--config.data={data}",
  )
  if not (data / "card.json").exists():
    run(
      *("data_prep", "simulated", "--output", data),
      *("--patients", arguments.patients),
      *("--recordings", arguments.recordings),
    )
  train("vae", arguments.variant, vae, *early)
  if not (latents / "card.json").exists():
    run(
      "data_prep", "encode", "--data", data, "--vae", vae, "--output", latents
    )
  paths = [f"--config.vae={vae}", f"--config.latents={latents}"]
  train("stage1", arguments.variant, stage1, *early, *paths)
  return [
    f"--config.data={data}",
    f"--config.base_extractor={stage1}",
    *paths,
  ]


def train_for(minutes: float, workdir: pathlib.Path, command: list) -> None:
  """Trains from the first step on for so long, then saves and stops."""
  command = [sys.executable, "-m", *command]
  print("+", " ".join(command), flush=True)
  numbers = workdir / "metrics.jsonl"
  before = numbers.stat().st_size if numbers.exists() else 0
  process = subprocess.Popen(command, cwd=ROOT)
  while process.poll() is None:
    if numbers.exists() and numbers.stat().st_size > before:
      break
    time.sleep(0.1)
  try:
    process.wait(timeout=60 * minutes)
  except subprocess.TimeoutExpired:
    process.send_signal(signal.SIGTERM)
  code = process.wait()
  if code not in (0, 75):
    raise SystemExit(f"error: stage 2 ended with exit code {code}")


def summarize(workdir: pathlib.Path) -> dict:
  """Medians of what was watched, and the losses."""
  from ecgtwin_jax.training.metric_writer import read_metrics

  merged = read_metrics(workdir)
  steps = sorted(merged)

  def series(name):
    return [merged[s][name] for s in steps if name in merged[s]]

  losses = series("train/loss")
  tenth = max(1, len(losses) // 10)
  summary = {
    "steps": steps[-1],
    "minutes": (merged[steps[-1]]["time"] - merged[steps[0]]["time"]) / 60,
    "loss, first tenth of the steps": statistics.fmean(losses[:tenth]),
    "loss, last tenth of the steps": statistics.fmean(losses[-tenth:]),
  }
  for name, title in WATCHED.items():
    values = series(f"watch/{name}")[1:] or series(f"watch/{name}")
    if values:
      summary[f"{title} (median)"] = statistics.median(values)
  for name in ("loss", "mse", "pairs"):
    values = series(f"validation/{name}")
    if values:
      summary[f"held-out {name}, last"] = values[-1]
  return summary


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--workdir", required=True)
  parser.add_argument("--patients", type=int, default=10_000)
  parser.add_argument("--recordings", type=int, default=10)
  parser.add_argument("--minutes", type=float, default=20)
  parser.add_argument("--variant", default="base", help="of the configs")
  parser.add_argument(
    "--early_steps", type=int, default=2000, help="of the stages before"
  )
  parser.add_argument("stage2", nargs="*", help="flags for stage 2, after --")
  arguments = parser.parse_args()
  folder = pathlib.Path(arguments.workdir).resolve()
  workdir = folder / "stage2"
  flags = [*prepare(arguments, folder), *arguments.stage2]
  train_for(
    arguments.minutes,
    workdir,
    _command("stage2", arguments.variant, workdir, *flags),
  )
  version, count, kind = json.loads(
    subprocess.check_output([sys.executable, "-c", DEVICES], text=True)
  )
  commit = subprocess.run(
    ["git", "rev-parse", "--short", "HEAD"],
    cwd=ROOT,
    capture_output=True,
    text=True,
  ).stdout.strip()
  summary = {
    "device": f"{count} x {kind}, jax {version}, commit {commit or 'unknown'}",
    "cohort": f"simulated, {arguments.patients} patients x "
    f"{arguments.recordings} recordings",
    "configuration": " ".join(
      [f"stage2.py:{arguments.variant}", *arguments.stage2]
    ),
    **summarize(workdir),
  }
  (folder / "large_training.json").write_text(json.dumps(summary, indent=1))
  print("\n| what | value |\n|---|---|")
  for name, value in summary.items():
    text = f"{value:.4g}" if isinstance(value, float) else value
    print(f"| {name} | {text} |")


if __name__ == "__main__":
  main()
