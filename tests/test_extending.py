"""The blocks of docs/extending.md, run as they stand there."""

import json
import pathlib
import re
import sys
import types

import jax
import numpy as np
import pytest

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.dataset import load_split
from ecgtwin_jax.data.ecg import LEADS
from ecgtwin_jax.diffusion import samplers
from ecgtwin_jax.diffusion.schedule import Schedule
from ecgtwin_jax.evaluation import levels
from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.flags import load_config
from ecgtwin_jax.models.injector import INJECTORS
from ecgtwin_jax.simulator import simulate
from ecgtwin_jax.training import metric_writer, train
from helpers import denoisers

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "extending.md"


@pytest.fixture(scope="module")
def names():
  """What the page's blocks define; the tables are put back afterwards."""
  tables = samplers.SAMPLERS, levels.LEVELS, INJECTORS
  before = [dict(table) for table in tables]
  defined = {}
  for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S):
    exec(compile(block, PAGE.name, "exec"), defined)
  yield defined
  for table, content in zip(tables, before):
    table.clear()
    table.update(content)


def test_the_sampler_is_ddim(names):
  schedule = Schedule(steps=100, start=0.001, end=0.1)
  steps = [99, 40, 7, 0]
  np.testing.assert_allclose(
    samplers.coefficients(schedule, steps, "euler"),
    samplers.coefficients(schedule, steps, "ddim"),
  )
  assert names["samplers"] is samplers


def test_the_metric_and_its_level(names):
  real = np.zeros((4, 1024, 12), np.float32)
  real[:, :512] = 1
  examples = Examples(
    patients=np.arange(4),
    references=real,
    reference_conditions=(Condition(["a"], 70),) * 4,
    real=real,
    conditions=(Condition(["a"], 70),) * 4,
    generated={"twin": np.ones((4, 2, 1024, 12), np.float32)},
    reference_ids=("r",) * 4,
    real_ids=("t",) * 4,
  )

  class Context:
    config = type("Config", (), {"seed": 0})

  Context.examples = examples
  (figure,) = levels.LEVELS["quiet"].measure(Context).metrics
  assert (figure.value, figure.reference) == (0.0, 0.5)
  assert (figure.better, figure.n) == ("higher", 4)
  assert figure.name == names["metrics"](names["compute"](examples))[0].name


def test_the_format(names, tmp_path):
  signal = np.random.default_rng(0).normal(size=(5000, 12)).round(3)
  leads = {name: signal[:, i].tolist() for i, name in enumerate(LEADS)}
  path = tmp_path / "one.json"
  turned = dict(reversed(leads.items()))
  path.write_text(json.dumps({"rate": 500, "unit": "mV", "leads": turned}))
  ecg = names["read_json"](path)
  np.testing.assert_allclose(ecg.signal, signal, atol=1e-6)
  assert (ecg.record, ecg.sampling_rate) == ("one", 500)


def test_the_data_set(names, tmp_path):
  folder = tmp_path / "records"
  folder.mkdir()
  recordings = [
    (
      simulate.cohort_recordings(0, patient, 1)[0].ecg,
      f"p{patient}",
      "2020-01-02",
      *(60, "F", ["Sinus rhythm"]),
    )
    for patient in range(3)
  ]
  named = [
    (type(ecg)(ecg.signal, ecg.sampling_rate, f"r{i}"), *rest)
    for i, (ecg, *rest) in enumerate(recordings)
  ]
  output = names["convert"](named, folder, tmp_path / "data")
  splits = [
    load_split(output, s, kind="ecg") for s in ("train", "validation", "test")
  ]
  assert sum(map(len, splits)) == 3


def test_the_injector_reads_a_report_as_a_set(names):
  assert names["injector"].INJECTORS is INJECTORS
  model, variables, args = denoisers.build("adax_set", depth=1)
  out = denoisers.call(model, variables, args)
  turned = list(args)
  turned[2] = args[2][:, [1, 0, 2, 3, 4]]  # two statements that both have
  same = denoisers.call(model, variables, turned)
  np.testing.assert_allclose(same, out, atol=1e-5)
  turned[2] = args[2] + 1
  other = denoisers.call(model, variables, turned)
  assert np.abs(other - out).max() > 1e-3


def test_the_stage_trains(names, chain, tmp_path, monkeypatch):
  module = types.ModuleType("ecgtwin_jax.stages.lead_means")
  vars(module).update(names)
  monkeypatch.setitem(sys.modules, module.__name__, module)
  config = load_config("configs/identity.py:smoke")
  config.stage, config.data = "lead_means", str(chain / "simulated")
  config.steps, config.optimizer.weight_decay = 4, 0.0
  config.workdir = str(tmp_path)
  evaluation = train.train(config, tmp_path, jax.devices()[:1])
  losses = metric_writer.read_metrics(tmp_path)
  assert losses[4]["train/largest_mean"] > losses[1]["train/largest_mean"] == 0
  assert evaluation["loss"] == evaluation["score"] > 0
