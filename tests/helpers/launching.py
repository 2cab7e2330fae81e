"""Calls the launch scripts, among small programs that play gcloud."""

import os
import pathlib
import subprocess
import time

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
POD = ("--name=pod-1", "--zone=europe-west4-b")
TRAIN = ("--", "--config=configs/vae.py", "--workdir=gs://bucket/runs/vae")

# A cloud with one slice of one worker; its state lies in $CLOUD.
GCLOUD = """#!/usr/bin/env bash
cd "$CLOUD" && echo "$*" >>calls
case "$*" in
  *"queued-resources list"*) cat request 2>/dev/null ;;
  *"queued-resources create"*) echo ACTIVE >request && echo READY >vm ;;
  *"queued-resources delete"*) rm -rf request vm home && mkdir home ;;
  *"tpu-vm list"*) cat vm ;;
  *"tpu-vm scp"*) cp "$5" home/ecgtwin_jax.tgz ;;
  *"tpu-vm ssh"*)
    [[ $(cat vm) == READY ]] || exit 255
    cd home
    for word; do
      [[ $word != --command=* ]] || HOME=$PWD exec bash -c "${word#*=}"
    done ;;
esac
exit 0
"""
# What the workers' python3 is asked for: uv, which makes an interpreter that
# does the next thing of $CLOUD/plan.
PYTHON3 = """#!/usr/bin/env bash
[[ "$*" == *"uv venv"* ]] || exit 0
mkdir -p .venv/bin && cp "$0.run" .venv/bin/python
"""
TRAINER = """#!/usr/bin/env bash
trap 'exit 75' TERM
read -r act <"$CLOUD/plan" && sed -i 1d "$CLOUD/plan"
echo "$act: $*" | tee -a "$CLOUD/trainings"
case $act in
  preempt) cd "$CLOUD" && echo SUSPENDED >request && echo PREEMPTED >vm ;;
  wait) for _ in {1..300}; do sleep 0.1; done ;;
  *) exit "$act" ;;
esac
"""


def run(script, *arguments, env=None):
  return subprocess.run(
    [script if "/" in str(script) else LAUNCH / script, *arguments],
    env={**os.environ, **(env or {})},
    capture_output=True,
    text=True,
    timeout=60,
  )


def program(path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  path.chmod(0o755)


def wait_for(path, text, times=1):
  for _ in range(1200):
    if path.exists() and path.read_text().count(text) == times:
      return
    time.sleep(0.05)
  raise AssertionError(f"no {text!r} in {path}")
