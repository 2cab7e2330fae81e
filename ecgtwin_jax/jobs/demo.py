"""The demo job: a small cohort, every stage of a twin, pictures."""

import json
import pathlib
import shutil
import time

from ml_collections import ConfigDict

from ecgtwin_jax.flags import beside, load_config
from ecgtwin_jax.inference.twin import ECGTwin
from ecgtwin_jax.jobs import generate, train
from ecgtwin_jax.training.metric_writer import read_metrics

STAGES = ("vae", "stage1", "rhythm", "stage2")


def _last_evaluation(workdir: str) -> dict:
  """The evaluation of a run's last step, from its metrics.jsonl."""
  metrics = read_metrics(workdir)
  last = max(s for s, m in metrics.items() if "validation/score" in m)
  prefix = "validation/"
  return {
    name.removeprefix(prefix): value
    for name, value in metrics[last].items()
    if name.startswith(prefix)
  }


def run(config: ConfigDict, source: str) -> dict:
  """Trains every stage at small size; returns and prints a summary.

  Args:
    config: the configuration of configs/demo.py.
    source: the file that --config named; the stages' lie beside it.
  """
  print(
    "A toy training on simulated patients, to see every stage run: what it "
    "generates is a demonstration, not a finding."
  )
  start, seconds = time.monotonic(), {}
  workdir = pathlib.Path(config.workdir)
  for name in STAGES:
    began = time.monotonic()
    stage = load_config(beside(source, name, "demo"))
    _move(stage, workdir, name, config.seed)
    train.train_stage(stage, source)
    seconds[name] = round(time.monotonic() - began, 1)
  began = time.monotonic()
  shutil.copytree(
    workdir / "stage2" / "twin", workdir / "twin", dirs_exist_ok=True
  )
  pages = _generate(config, workdir)
  seconds["generate"] = round(time.monotonic() - began, 1)
  seconds["total"] = round(time.monotonic() - start, 1)
  summary = _summary(workdir, seconds)
  (workdir / "summary.json").write_text(json.dumps(summary, indent=1))
  _print(summary, workdir, pages)
  return summary


def _move(stage, workdir, name, seed) -> None:
  """Puts a stage's run, and what it reads, into the demo's workdir."""
  stage.seed = stage.cohort.seed = seed
  stage.data = stage.cohort.path = str(workdir / "simulated")
  stage.workdir = str(workdir / name)
  for key, folder in (
    ("vae", "vae"),
    ("latents", "latents"),
    ("base_extractor", "stage1"),
    ("rhythm", "rhythm"),
  ):
    if key in stage:
      stage[key] = str(workdir / folder)


def _generate(config, workdir) -> list[str]:
  """Twins of the bundled recording, a page per target; returns the pages."""
  reference, now = generate.read_reference(config)
  twin = ECGTwin.from_checkpoint(workdir / "twin")
  pages = []
  for name, target in config.targets.items():
    target = generate.read_target(target, now)
    folder = workdir / "generated" / name
    written = generate.generate(twin, config, target, folder, reference, now)
    pages.append(written.overview)
  return pages


def _summary(workdir, seconds) -> dict:
  vae, stage1, rhythm, stage2 = (
    _last_evaluation(workdir / name) for name in STAGES
  )
  return {
    "reconstruction_correlation": vae["correlation"],
    "recordings": vae["recordings"],
    "retrieval_top1": stage1["top1"],
    "retrieval_chance": stage1["top1_chance"],
    "patients": stage1["patients"],
    "noise_mse": stage2["mse"],
    "pairs": stage2["pairs"],
    "losses": {
      "vae": vae["loss"],
      "stage1": stage1["loss"],
      "rhythm": rhythm["loss"],
      "stage2": stage2["loss"],
    },
    "seconds": seconds,
  }


def _print(summary, workdir, pages) -> None:
  chance = summary["retrieval_chance"]
  print(
    f"""
== What the toy training learned, on simulated patients it never saw
autoencoder   correlation of reconstructions   \
{summary["reconstruction_correlation"]:.3f} (N = {summary["recordings"]:.0f})
stage 1       right patient found first        \
{summary["retrieval_top1"]:.3f} (chance {chance:.3f}, N = \
{summary["patients"]:.0f})
stage 2       error of the predicted noise     \
{summary["noise_mse"]:.3f} (predicting zero: 1, N = {summary["pairs"]:.0f})
seconds       {summary["seconds"]}
twin          {workdir / "twin"}
pictures      {"  ".join(pages)}""",
    flush=True,
  )
