"""Shared settings: eight fake CPU devices, rank promotion refused."""

import gc
import os
import pathlib

import pytest

from helpers import XLA_FLAGS

ROOT = pathlib.Path(__file__).parent.parent
CACHE = ROOT / ".pytest_cache" / "jax"

# Before jax is imported, and inherited by the entry point's subprocesses.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
# Nearly all time of the suite is compilation; the optimizer is not its subject.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["MPLBACKEND"] = "Agg"
# Products of small matrices on several threads are mostly waiting.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
DEVICES = "--xla_force_host_platform_device_count=8"
# Tracing makes many objects and no garbage: to look seldom saves a twentieth.
gc.set_threshold(20_000, 10, 10)


def pytest_addoption(parser):
  parser.addoption(
    "--chain", metavar="DIR", help="a smoke chain of earlier, not made again"
  )


def pytest_configure(config):
  del config
  flags = os.environ.get("XLA_FLAGS", "")
  if "device_count" not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} {XLA_FLAGS} {DEVICES}".strip()
  import jax
  from absl import flags as absl_flags

  jax.config.update("jax_numpy_rank_promotion", "raise")
  absl_flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
  """A folder that all workers of this session have in common."""
  folder = tmp_path_factory.getbasetemp()
  return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def _steps():
  """Trainings of one process compile a step, and draw a start, once."""
  from ecgtwin_jax.training import train
  from helpers import runs

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train, "compile_step", runs.compile_once(train.compile_step))
    patch.setattr(train, "first_state", runs.start_once(train.first_state))
    yield


@pytest.fixture(scope="session")
def chain(shared_folder, pytestconfig, _steps):
  """The smoke chain on 40 simulated patients, made once: its folder."""
  if pytestconfig.getoption("--chain"):
    return pathlib.Path(pytestconfig.getoption("--chain"))
  import contextlib

  from filelock import FileLock

  from ecgtwin_jax.flags import load_config
  from ecgtwin_jax.jobs import train as train_job

  folder = shared_folder / "chain"
  with FileLock(f"{folder}.lock"):
    if not (folder / "runs" / "smoke" / "stage2" / "twin").exists():
      folder.mkdir(exist_ok=True)
      with contextlib.chdir(folder):
        config = load_config(f"{ROOT}/configs/stage2.py:smoke")
        train_job.train_stage(config, f"{ROOT}/configs/stage2.py")
  return folder / "runs" / "smoke"


@pytest.fixture
def stage_config(chain, tmp_path):
  """Returns make(name, **changes): a smoke training on the chain's data."""
  from ecgtwin_jax.flags import load_config

  def make(name, **changes):
    config = load_config(f"{ROOT}/configs/{name}.py:smoke")
    for key, value in {
      "data": chain / "simulated",
      "vae": chain / "vae",
      "latents": chain / "latents",
      "base_extractor": chain / "stage1",
      "rhythm": chain / "rhythm",
      "workdir": tmp_path / name,
    }.items():
      if key in config:
        config[key] = str(value)
    with config.ignore_type():
      config.update_from_flattened_dict(changes)
    return config

  return make
