"""A folder of results has one run at a time."""

import pytest

from data_prep import encode
from ecgtwin_jax.data.whole_files import hold
from ecgtwin_jax.evaluation import evaluate
from ecgtwin_jax.flags import load_config
from ecgtwin_jax.training import train
from helpers import runs


def start_training(chain, folder):
  train.train(runs.config_of(chain, "stage1", folder), folder)


def start_evaluation(chain, folder):
  config = load_config("evaluate")
  config.twin = str(chain / "stage2" / "twin")
  config.data, config.workdir = str(chain / "simulated"), str(folder)
  evaluate.run(config)


def start_encoding(chain, folder):
  output = folder.with_suffix("")
  encode.encode_with(chain / "simulated", chain / "vae", output)


@pytest.mark.parametrize(
  "start", [start_training, start_evaluation, start_encoding]
)
def test_a_second_run_is_refused(chain, tmp_path, start):
  folder = tmp_path / "run.partial"
  with (
    hold(folder),
    pytest.raises(ValueError, match=r"run\.partial' is in use by another"),
  ):
    start(chain, folder)
  assert not list(folder.iterdir())
