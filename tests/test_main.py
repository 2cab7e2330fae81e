"""The entry point with the arguments of users.

As a process of its own it trains in test_interruptions.py and test_devices.py.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from ecgtwin_jax import main, read_ecg
from ecgtwin_jax.data.ecg import EXAMPLE_RECORD
from helpers import runs

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def error_line(capsys):
  """Returns call(*arguments) -> the one line that a refused command prints."""

  def call(*arguments):
    assert main.main([*map(str, arguments)]) == 1
    said = capsys.readouterr().err
    (line,) = [x for x in said.splitlines() if x.startswith("error:")]
    assert "Traceback" not in said
    return line

  return call


def test_help_needs_no_jax():
  command = [sys.executable, "-m", "ecgtwin_jax.main", "--help"]
  result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
  assert result.returncode == 0, result.stderr
  assert "ecgtwin COMMAND" in result.stdout
  code = "import ecgtwin_jax.main, sys; print('jax' in sys.modules)"
  out = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert out.stdout.strip() == "False"


def test_small_programs_are_kept_compiled_as_well(tmp_path):
  code = """
import jax
from ecgtwin_jax import main
main._keep_compiled()
jax.numpy.arange(3.0).sum().block_until_ready()
"""
  environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
  environment.pop("JAX_COMPILATION_CACHE_DIR")
  command = [sys.executable, "-c", code]
  subprocess.run(command, env=environment, check=True, cwd=ROOT)
  assert any((tmp_path / "ecgtwin_jax" / "jax").iterdir())


def test_a_stage_trains_from_the_entry_point(chain, tmp_path):
  workdir = tmp_path / "clip"
  assert main.main(runs.flags_of(chain, "clip", workdir)) == 0
  assert (workdir / "checkpoints" / "4" / "manifest.json").exists()
  assert (workdir / "metrics.jsonl").exists()
  # The last stage of the chain, of the same job, leaves a twin.
  assert (chain / "stage2" / "twin" / "twin.json").exists()


def test_a_typo_names_the_nearest_key(error_line):
  line = error_line(
    f"--config={ROOT}/configs/vae.py:smoke", "--config.batchsize=2"
  )
  assert "'batchsize'" in line
  assert "did you mean 'batch_size'" in line


def test_missing_data_name_the_command(error_line, tmp_path):
  line = error_line(
    f"--config={ROOT}/configs/vae.py:smoke",
    f"--config.data={tmp_path}/nowhere",
    f"--workdir={tmp_path}/run",
  )
  assert f"--output {tmp_path}/nowhere" in line
  assert "python -m data_prep" in line


def test_a_missing_earlier_stage_names_the_command(error_line, chain, tmp_path):
  line = error_line(
    f"--config={ROOT}/configs/stage2.py:smoke",
    f"--config.data={chain}/simulated",
    f"--config.vae={chain}/vae",
    f"--config.latents={chain}/latents",
    f"--config.base_extractor={tmp_path}/nowhere",
    f"--workdir={tmp_path}/run",
  )
  assert "configs/stage1.py:smoke" in line
  assert f"--workdir={tmp_path}/nowhere" in line


# Hardly trained, it draws beats that need not be found.
@pytest.mark.filterwarnings("ignore:no picture of median beats")
def test_generate_writes_records_pictures_and_provenance(chain, tmp_path):
  out = tmp_path / "out"
  arguments = [
    f"--config={ROOT}/configs/generate.py",
    f"--config.twin={chain}/stage2/twin",
    f"--config.record={EXAMPLE_RECORD}",
    "--config.now.statements=Sinus rhythm",
    "--config.num_samples=2",
    "--config.sampling.steps=2",
    "--config.seed=7",
    f"--workdir={out}",
  ]
  assert main.main(arguments) == 0
  record = json.loads((out / "generated.json").read_text())
  assert record["seed"] == 7
  assert record["now"]["age"] == 81
  assert record["now"]["sex"] == "F"
  assert 60 < record["now"]["heart_rate"] < 100
  assert record["versions"]["jax"]
  assert (out / "overview.png").stat().st_size > 10_000
  for i in range(2):
    ecg = read_ecg(out / f"twin_{i}.hea")
    assert ecg.signal.shape == (1024, 12)
    assert "synthetic" in ecg.comments[0]
    assert (out / f"twin_{i}.png").stat().st_size > 10_000


def test_what_a_record_shows_needs_the_record(error_line):
  line = error_line(
    f"--config={ROOT}/configs/generate.py", "--config.now.age=50"
  )
  assert "config.now.age needs config.record" in line


def write_header(path, text):
  path.with_suffix(".hea").write_text(text)
  return path


@pytest.mark.parametrize(
  ("header", "message"),
  [
    ("bad 12 five hundred\n", "header cannot be read"),
    (
      "bad 2 500 5000\nbad.dat 16 1000 16 0 0 0 0 I\n"
      "bad.dat 16 1000 16 0 0 0 0 II\n",
      "V1",
    ),
  ],
)
def test_a_bad_record_is_one_line_that_names_it(
  error_line, chain, tmp_path, header, message
):
  record = write_header(tmp_path / "bad", header)
  samples = b"\x01\x00\x00\x00" * 2500 + b"\x00\x01\x10\x00" * 2500
  (tmp_path / "bad.dat").write_bytes(samples)
  line = error_line(
    f"--config={ROOT}/configs/generate.py",
    f"--config.twin={chain}/stage2/twin",
    f"--config.record={record}",
    "--config.now.statements=Sinus rhythm",
    f"--workdir={tmp_path}/out",
  )
  assert "bad" in line
  assert message in line
