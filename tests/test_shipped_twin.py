"""The shipped twin is as good as its card says, on a small new cohort."""

import re

import pytest

from data_prep import simulated
from ecgtwin_jax.evaluation import evaluate
from ecgtwin_jax.flags import load_config
from ecgtwin_jax.inference import twin_directory
from helpers import runs

PATIENTS = 60  # a gallery in which the right one is found more easily


def card():
  """The figures that the model card states, by name."""
  text = (twin_directory.shipped("simulated-small") / "README.md").read_text()
  rows = re.findall(r"^\| (\w+) \| [↑↓] \| ([-\d.]+) \|", text, re.MULTILINE)
  return {name: float(value) for name, value in rows}


@pytest.mark.slow
def test_the_shipped_twin_is_as_good_as_its_card_says(tmp_path):
  simulated.prepare(
    tmp_path / "cohort", patients=PATIENTS, recordings=4, seed=4242
  )
  config = load_config(f"{runs.ROOT}/configs/evaluate.py")
  config.data, config.workdir = str(tmp_path / "cohort"), str(tmp_path / "out")
  config.splits = ("train", "validation", "test")  # the twin knows none of them
  config.patients, config.conditions = PATIENTS, 2
  config.ablations = ()
  config.levels = ("condition", "person", "truth")
  found = {m.name: m.value for m in evaluate.run(config)}
  stated = card()
  assert found["heart_rate_mae_bpm"] < 2 * stated["heart_rate_mae_bpm"]
  for name, less in (("identity_top1_share", 0.15), ("truth_score", 0.1)):
    assert found[name] > stated[name] - less, name
