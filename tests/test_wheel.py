"""The wheel, installed alone: its commands work away from the clone."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from helpers import XLA_FLAGS

ROOT = pathlib.Path(__file__).parent.parent
PARTS = (
  "ecgtwin_jax data_prep configs setup.py setup.cfg pyproject.toml".split()
)


def pip(*arguments):
  subprocess.run([sys.executable, "-m", "pip", "-q", *arguments], check=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
  """The folder that the wheel is installed into, and nothing else."""
  folder = tmp_path_factory.mktemp("wheel")
  source = folder / "source"
  source.mkdir()
  for name in (*PARTS, "README.md", "LICENSE"):
    if (ROOT / name).is_dir():
      ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
      shutil.copytree(ROOT / name, source / name, ignore=ignored)
    else:
      shutil.copy(ROOT / name, source)
  pip("wheel", "--no-deps", f"--wheel-dir={folder}", str(source))
  (wheel,) = folder.glob("*.whl")
  pip("install", "--no-deps", f"--target={folder / 'site'}", str(wheel))
  return folder / "site"


def run(installed, cwd, *command):
  environment = {
    **os.environ,
    "XLA_FLAGS": XLA_FLAGS,
    "PYTHONPATH": str(installed),
  }
  done = subprocess.run(
    [sys.executable, *map(str, command)],
    capture_output=True,
    text=True,
    cwd=cwd,
    env=environment,
    timeout=300,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def test_it_generates_from_a_configuration_inside(installed, tmp_path):
  run(
    installed,
    tmp_path,
    installed / "bin" / "ecgtwin",
    "--config=generate",
    "--config.num_samples=1",
    "--config.sampling.steps=1",
  )
  folder = tmp_path / "runs" / "generated"
  assert json.loads((folder / "generated.json").read_text())["num_samples"] == 1
  assert (folder / "twin_0.hea").exists()
  assert [p.name for p in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize(
  ("command", "words"),
  [
    (("bin/ecgtwin", "--help"), "ecgtwin COMMAND"),
    (("bin/ecgtwin", "train", "stage2:small", "--help"), "--batch_size="),
    (("bin/ecgtwin-data", "--help"), "wfdb_folder"),
    (("-m", "ecgtwin_jax.main", "--help"), "ecgtwin COMMAND"),
    (("-m", "data_prep", "--help"), "wfdb_folder"),
  ],
)
def test_its_commands_are_there(installed, tmp_path, command, words):
  first, *rest = command
  program = installed / first if first.startswith("bin") else first
  assert words in run(installed, tmp_path, program, *rest)


def test_it_ships_its_types(installed):
  for package in ("ecgtwin_jax", "data_prep"):
    assert (installed / package / "py.typed").exists()
