"""What the launch scripts do to processes that run, fail and are preempted.

gcloud and Slurm are played by small programs that come first on PATH. The one
for gcloud runs what goes over ssh right here, in a home of its own.
"""

import os
import signal
import subprocess
import sys
import time

import pytest

from helpers.launching import (
  GCLOUD,
  LAUNCH,
  POD,
  PYTHON3,
  TRAIN,
  TRAINER,
  program,
  run,
  wait_for,
)


@pytest.fixture
def cloud(tmp_path):
  """A repository to launch from, and a cloud to launch into."""
  bin_dir, home = tmp_path / "bin", tmp_path / "home"
  home.mkdir()
  program(bin_dir / "gcloud", GCLOUD)
  program(bin_dir / "python3", PYTHON3)
  program(bin_dir / "python3.run", TRAINER)
  for name in ("gcsfuse", "mountpoint"):
    program(bin_dir / name, "#!/bin/sh\nexit 0\n")
  script = tmp_path / "repository" / "launch" / "tpu_pod.sh"
  program(script, (LAUNCH / "tpu_pod.sh").read_text())
  subprocess.run(["git", "init", "-q", script.parent.parent], check=True)
  env = {
    "PATH": f"{bin_dir}:{os.environ['PATH']}",
    "CLOUD": str(tmp_path),
    "TMPDIR": str(tmp_path),
  }

  def call(command, *flags, plan=None):
    if plan:
      (tmp_path / "plan").write_text("\n".join(plan) + "\n")
    flags = (*POD, "--type=v6e-8", "--poll=0.1", *flags)
    return run(script, command, *flags, *TRAIN, env=env)

  return tmp_path, call


def test_watch_recreates_a_preempted_slice_until_done(cloud):
  folder, call = cloud
  done = call(
    "watch", "--spot", "--delete_when_done", plan=["preempt", "75", "9", "0"]
  )
  assert done.returncode == 0, done.stderr
  trainings = (folder / "trainings").read_text().splitlines()
  assert [line.partition(":")[0] for line in trainings] == [
    *("preempt", "75", "9", "0")
  ]
  # The same command each time.
  assert len({line.partition(":")[2] for line in trainings}) == 1
  calls = (folder / "calls").read_text()
  assert calls.count("queued-resources create") == 2
  assert calls.count("queued-resources delete") == 2
  assert not (folder / "request").exists()


def test_a_slice_whose_step_does_not_fit_is_not_asked_for(cloud):
  folder, call = cloud
  refuses = PYTHON3.replace("exit 0", 'exit "$(grep -c compile_for= <<<"$*")"')
  program(folder / "bin" / "python3", refuses)
  done = call("watch", plan=["0"])
  assert done.returncode == 2
  assert "does not compile or fit" in done.stderr.splitlines()[-1]
  assert "queued-resources create" not in (folder / "calls").read_text()
  assert call("watch", "--no_check", plan=["0"]).returncode == 0


def test_watch_gives_up_on_a_training_that_keeps_failing(cloud):
  folder, call = cloud
  done = call("watch", "--max_failures=2", plan=["7", "7", "7"])
  assert done.returncode == 7
  assert (folder / "trainings").read_text().count("7:") == 2
  assert (folder / "request").exists()


def test_start_status_stop_of_a_pod(cloud):
  folder, call = cloud
  assert call("create").returncode == 0
  assert call("setup").returncode == 0
  assert call("status").stdout.splitlines() == ["slice pod-1: READY", "none"]
  for times in (1, 2):  # the second one goes on with the same slice
    try:
      assert call("start", plan=["wait"]).returncode == 0
      wait_for(folder / "trainings", "wait", times)
      wait_for(folder / "plan", "")
      assert call("status").stdout.endswith("running\n")
      again = call("start")
      assert again.returncode == 1 and "is going on" in again.stderr
    finally:
      assert call("stop").returncode == 0
    wait_for(folder / "home/ecgtwin_run/exit_code", "75")
    assert call("status").stdout.endswith("75\n")
  logged = call("logs").stdout
  assert "wait: -m ecgtwin_jax.main --multihost --config=configs/" in logged
  assert call("create").returncode == 0  # reused
  assert (folder / "calls").read_text().count("queued-resources create") == 1


def slurm(folder, srun, state="RUNNING"):
  """Starts the job with a Slurm of which `srun` is a part."""
  note = '#!/usr/bin/env bash\ncd "${0%/*}" && echo "${0##*/} $*" >>calls\n'
  program(folder / "srun", note + srun)
  program(folder / "scancel", note + "touch asked")
  program(folder / "squeue", note + f"echo {state}")
  program(folder / "scontrol", note)
  return subprocess.Popen(
    [LAUNCH / "gpu_slurm.sh", *TRAIN],
    env={
      **os.environ,
      "SLURM_JOB_ID": "7",
      "PATH": f"{folder}:{os.environ['PATH']}",
    },
  )


@pytest.mark.parametrize(
  ("code", "state", "requeued"),
  [
    (0, "RUNNING", False),
    (1, "RUNNING", False),
    (75, "RUNNING", True),
    (75, "COMPLETING", False),  # cancelled
  ],
)
def test_slurm_job_requeues_on_75(tmp_path, code, state, requeued):
  job = slurm(tmp_path, f"exit {code}", state)
  assert job.wait(timeout=120) == code
  calls = (tmp_path / "calls").read_text()
  assert ("scontrol requeue 7" in calls) == requeued


def test_slurm_job_saves_before_the_time_limit(tmp_path):
  wait = "for _ in {1..200}; do [[ ! -e asked ]] || exit 75; sleep 0.05; done"
  job = slurm(tmp_path, wait)
  wait_for(tmp_path / "calls", "srun")
  job.send_signal(signal.SIGTERM)  # as scancel does; the steps get it too
  job.send_signal(signal.SIGUSR1)  # as --signal says
  assert job.wait(timeout=120) == 75
  calls = (tmp_path / "calls").read_text()
  assert "scancel --signal=TERM 7\n" in calls
  assert "scontrol requeue 7\n" in calls


# It leaves the interpreter at once: about one of a hundred processes that are
# done hang in the exit of jaxlib, and whether they end is not the script's.
SUM = """
import os
import jax
import numpy as np
from jax.experimental import multihost_utils
jax.distributed.initialize()
mine = np.array([10 ** jax.process_index()])
total = multihost_utils.process_allgather(mine).sum()
counts = f"{jax.device_count()} and {jax.local_device_count()}"
print(f"sum {total} of {counts}", flush=True)
jax.distributed.shutdown()
os._exit(0)
"""


def test_local_processes_join():
  done = run(
    *("local_processes.sh", "2", "--", sys.executable, "-c", SUM),
    env={"DEVICES": "3"},
  )
  assert done.returncode == 0, done.stdout + done.stderr
  lines = done.stdout.splitlines()
  assert "[0] sum 11 of 6 and 3" in lines
  assert "[1] sum 11 of 6 and 3" in lines


@pytest.mark.parametrize(
  ("codes", "expected"),
  [("0 0", 0), ("0 3", 3), ("75 75", 75), ("75 3", 3), ("3 75", 3)],
)
def test_local_processes_return_the_worst_code(codes, expected):
  script = f"codes=({codes}); exit ${{codes[SLURM_PROCID]}}"
  done = run("local_processes.sh", "2", "--", "bash", "-c", script)
  assert done.returncode == expected


def test_local_processes_end_together():
  script = (
    "((SLURM_PROCID)) || exit 4; trap '' TERM; "
    "for _ in {1..600}; do sleep 0.1; done"
  )
  start = time.monotonic()
  done = run(
    *("local_processes.sh", "3", "--", "bash", "-c", script),
    env={"GRACE": "0"},
  )
  assert done.returncode == 4
  assert time.monotonic() - start < 20


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_local_processes_are_told_to_save(tmp_path, sign):
  script = (
    f"trap 'echo saved; exit 75' TERM; printf 'a\\rb\\n'; cd {tmp_path}; "
    "echo up >$SLURM_PROCID; for _ in {1..600}; do sleep 0.05; done"
  )
  # A background job of a shell ignores SIGINT, and so would its children.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  job = subprocess.Popen(
    [LAUNCH / "local_processes.sh", "2", "--", "bash", "-c", script],
    stdout=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  signal.signal(signal.SIGINT, before)
  for number in "01":
    wait_for(tmp_path / number, "up")
  if sign == signal.SIGTERM:
    job.send_signal(sign)
  else:
    os.killpg(job.pid, sign)  # as a terminal does on Ctrl-C
  output, _ = job.communicate(timeout=120)
  assert job.returncode == 75
  assert sorted(output.splitlines()) == [
    *("[0] a", "[0] b", "[0] saved", "[1] a", "[1] b", "[1] saved")
  ]


def test_local_processes_end_with_their_reader(tmp_path):
  script = (
    f"cd {tmp_path}; ((SLURM_PROCID)) || {{ echo a; sleep 1; exit 3; }}; "
    "trap '' TERM; for _ in {1..600}; do echo >>beats; sleep 0.05; done"
  )
  job = subprocess.Popen(
    [LAUNCH / "local_processes.sh", "2", "--", "bash", "-c", script],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
  )
  assert job.stdout.readline() == b"[0] a\n"
  job.stdout.close()  # as `| head -1` does
  job.wait(timeout=120)
  time.sleep(0.3)
  beats = (tmp_path / "beats").read_bytes()
  time.sleep(0.3)
  assert (tmp_path / "beats").read_bytes() == beats
