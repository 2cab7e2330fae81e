"""Launch scripts: syntax, dry runs, errors, and what they do to processes.

gcloud and Slurm are played by small programs that come first on PATH. The one
for gcloud runs what goes over ssh right here, in a home of its own.
"""

import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

LAUNCH = pathlib.Path(__file__).parent.parent / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
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


def commands(output):
  """The commands of a dry run, each as its words."""
  found = []
  for word in shlex.split(output):
    if word in ("gcloud", "sbatch", "srun", "bash"):
      found.append([])
    found[-1].append(word)
  return found


def wait_for(path, text, times=1):
  for _ in range(200):
    if path.exists() and path.read_text().count(text) == times:
      return
    time.sleep(0.05)
  raise AssertionError(f"no {text!r} in {path}")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_parses(script):
  subprocess.run(["bash", "-n", script], check=True)
  assert os.access(script, os.X_OK)
  text = script.read_text()
  assert "set -euo pipefail" in text
  assert max(map(len, text.splitlines())) <= 80


@pytest.mark.skipif(
  shutil.which("shellcheck") is None, reason="shellcheck is not installed"
)
def test_scripts_pass_shellcheck():
  done = subprocess.run(["shellcheck", *SCRIPTS], capture_output=True)
  assert done.returncode == 0, done.stdout.decode()


@pytest.mark.parametrize(
  ("script", "arguments", "message"),
  [
    ("tpu_pod.sh", ["fly"], "unknown command fly"),
    ("tpu_pod.sh", ["create", "--zone=z"], "--name= must be"),
    ("tpu_pod.sh", ["create", "--name=A_b", "--zone=z"], "--name=A_b must be"),
    ("tpu_pod.sh", ["create", "--name=a"], "--zone=ZONE is missing"),
    ("tpu_pod.sh", ["create", "--nmae=a"], "unknown flag --nmae=a"),
    ("tpu_pod.sh", ["create", *POD], "--type=TYPE is missing"),
    ("tpu_pod.sh", ["create", *POD, "--type=v99-8"], "add --runtime="),
    ("tpu_pod.sh", ["setup", *POD, "--repo=u"], "--repo=u needs --commit"),
    ("tpu_pod.sh", ["start", *POD], "--config=FILE is missing"),
    (
      "tpu_pod.sh",
      ["start", *POD, "--", "--config=c", "--workdir=runs/vae"],
      "--workdir=gs://",
    ),
    ("gpu_slurm.sh", TRAIN, "--nodes=N is missing"),
    ("gpu_slurm.sh", ["--nodes=2", *TRAIN], "--gpus= must be"),
    ("gpu_slurm.sh", ["--nodes=two", *TRAIN], "--nodes=two must be"),
    ("gpu_slurm.sh", ["--nodes=2", "--gpus=8", *TRAIN], "--time=LIMIT"),
    ("gpu_slurm.sh", ["--node=2"], "unknown flag --node=2"),
    ("gpu_slurm.sh", ["--nodes=2", "--"], "--config=FILE is missing"),
    ("gpu_slurm.sh", ["--", "--config=c"], "--workdir=DIR is missing"),
    ("local_processes.sh", [], "must be a number of processes"),
    ("local_processes.sh", ["0", "--", "true"], "N=0 must be"),
    ("local_processes.sh", ["2", "--"], "the command is missing"),
    ("local_processes.sh", ["2", "true"], "the command is missing"),
  ],
)
def test_wrong_use_is_one_line(script, arguments, message, tmp_path):
  program(tmp_path / "gcloud", "#!/bin/sh\nexit 0\n")
  env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": ""}
  done = run(script, *arguments, env=env)
  assert done.returncode == 2
  assert done.stdout == ""
  (error,) = done.stderr.splitlines()
  assert error.startswith("error: ") and message in error


@pytest.mark.parametrize("script", ["tpu_pod.sh", "gpu_slurm.sh"])
def test_help_names_every_flag(script):
  done = run(script, "--help")
  assert done.returncode == 0
  cases = re.findall(r"^ +(--\w+)=?\*?\) ", (LAUNCH / script).read_text(), re.M)
  assert len(cases) > 6
  for flag in cases:
    assert flag == "--help" or f" {flag}" in done.stdout, flag


def test_dry_run_of_a_pod(tmp_path):
  arguments = ["--type=v6e-16", "--spot", "--create_flag=--network=my net"]
  done = run(
    *("tpu_pod.sh", "watch", *POD, *arguments, "--delete_when_done"),
    *("--dry_run", *TRAIN, "--config.data=gs://other/cohort"),
    "--config.vae=gs://bucket/it's here",
    env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
  )
  assert done.returncode == 0, done.stderr
  found = commands(done.stdout)
  cloud = [command for command in found if command[0] == "gcloud"]
  assert all("--zone=europe-west4-b" in command for command in cloud)
  steps = [" ".join(command[3:5]) for command in cloud]
  assert steps == [
    *("queued-resources list", "queued-resources create"),
    *("queued-resources list", "tpu-vm ssh"),  # is one running already?
    *("tpu-vm ssh", "tpu-vm scp", "tpu-vm ssh"),  # clear, copy, install
    *("tpu-vm ssh", "tpu-vm ssh", "queued-resources delete"),
  ]
  assert cloud[1][5:11] == [
    *("pod-1", "--node-id=pod-1", "--accelerator-type=v6e-16"),
    *("--runtime-version=v2-alpha-tpuv6e", "--spot", "--network=my net"),
  ]
  remote = [w[10:] for c in cloud for w in c if w.startswith("--command=")]
  for command in remote:
    subprocess.run(["bash", "-n", "-c", command], check=True)
  install, start = remote[2:4]
  assert "pip install" in install and "-e '.[tpu]'" in install
  assert start.count("gcsfuse --implicit-dirs") == 2
  words = shlex.split(start)
  at = words.index("--multihost")
  assert words[at - 3 : at + 5] == [
    *(".venv/bin/python", "-m", "ecgtwin_jax.main", "--multihost"),
    *("--config=configs/vae.py", "--workdir=/gcs/bucket/runs/vae"),
    *("--config.data=/gcs/other/cohort", "--config.vae=/gcs/bucket/it's here"),
  ]
  assert not list(tmp_path.iterdir())  # nothing was run


def test_dry_run_clones_a_commit():
  done = run(
    *("tpu_pod.sh", "setup", *POD, "--project=p-1", "--dry_run"),
    *("--repo=https://host/r.git", "--commit=abc123"),
  )
  (command,) = commands(done.stdout)
  assert {"--worker=all", "--project=p-1"} < set(command)
  (remote,) = (word for word in command if word.startswith("--command="))
  assert "git clone --quiet 'https://host/r.git' ecgtwin_jax" in remote
  assert "git -C ecgtwin_jax checkout --quiet 'abc123'" in remote


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


SLURM = ("--nodes=2", "--gpus=4", "--time=1:00:00")


def test_dry_run_of_a_slurm_job():
  done = run(
    *("gpu_slurm.sh", *SLURM, "--sbatch=--partition=a b", "--python=/v/python"),
    *("--dry_run", *TRAIN),
  )
  submit, train = commands(done.stdout)
  assert submit[:6] == [
    *("sbatch", "--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4"),
    *("--time=1:00:00", "--partition=a b"),
  ]
  assert submit[6:] == [
    *(str(LAUNCH / "gpu_slurm.sh"), "--python=/v/python", *TRAIN)
  ]
  assert train[0] == "srun"
  assert train[-6:] == [
    *("/v/python", "-m", "ecgtwin_jax.main", "--multihost", *TRAIN[1:])
  ]
  header = (LAUNCH / "gpu_slurm.sh").read_text().splitlines()
  options = [line for line in header if line.startswith("#SBATCH")]
  assert options == header[1 : 1 + len(options)]  # sbatch reads no further
  assert "#SBATCH --requeue" in options


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
  assert job.wait(timeout=20) == code
  calls = (tmp_path / "calls").read_text()
  assert ("scontrol requeue 7" in calls) == requeued


def test_slurm_job_saves_before_the_time_limit(tmp_path):
  wait = "for _ in {1..200}; do [[ ! -e asked ]] || exit 75; sleep 0.05; done"
  job = slurm(tmp_path, wait)
  wait_for(tmp_path / "calls", "srun")
  job.send_signal(signal.SIGTERM)  # as scancel does; the steps get it too
  job.send_signal(signal.SIGUSR1)  # as --signal says
  assert job.wait(timeout=20) == 75
  calls = (tmp_path / "calls").read_text()
  assert "scancel --signal=TERM 7\n" in calls
  assert "scontrol requeue 7\n" in calls


SUM = """
import jax
import numpy as np
from jax.experimental import multihost_utils
jax.distributed.initialize()
mine = np.array([10 ** jax.process_index()])
total = multihost_utils.process_allgather(mine).sum()
print(f"sum {total} of {jax.device_count()} and {jax.local_device_count()}")
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
  job = subprocess.Popen(
    [LAUNCH / "local_processes.sh", "2", "--", "bash", "-c", script],
    stdout=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  for number in "01":
    wait_for(tmp_path / number, "up")
  if sign == signal.SIGTERM:
    job.send_signal(sign)
  else:
    os.killpg(job.pid, sign)  # as a terminal does on Ctrl-C
  output, _ = job.communicate(timeout=20)
  assert job.returncode == 75
  assert sorted(output.splitlines()) == [
    *("[0] a", "[0] b", "[0] saved", "[1] a", "[1] b", "[1] saved")
  ]
