"""Launch scripts: syntax, wrong use, help, and the commands of dry runs."""

import os
import re
import shlex
import shutil
import subprocess

import pytest

from helpers.launching import LAUNCH, POD, TRAIN, program, run

SCRIPTS = sorted(LAUNCH.glob("*.sh"))


def commands(output):
  """The commands of a dry run, each as its words."""
  found = []
  for word in shlex.split(output):
    if word in ("gcloud", "sbatch", "srun", "bash", "env"):
      found.append([])
    found[-1].append(word)
  return found


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
  (check,) = (command for command in found if command[0] == "env")
  assert "JAX_PLATFORMS=cpu" in check and "--compile_for=v6e-16" in check
  assert found.index(check) == 1  # before the slice is asked for
  assert "--workdir=gs://bucket/runs/vae" in check
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
  assert "JAX_COMPILATION_CACHE_DIR=/gcs/bucket/runs/jax_cache" in words
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
