"""That a twin's arrays were accepted is kept between processes."""

import jax
import numpy as np
import pytest

from ecgtwin_jax.inference import parameters, twin_directory
from ecgtwin_jax.inference.networks import PARTS, Networks


@pytest.fixture
def folder(tmp_path):
  """Where compiled programs are kept, as in a new process."""
  before = jax.config.jax_compilation_cache_dir
  jax.config.update("jax_compilation_cache_dir", str(tmp_path / "kept"))
  parameters.wanted_shapes.cache_clear()
  yield tmp_path / "kept"
  jax.config.update("jax_compilation_cache_dir", before)
  parameters.wanted_shapes.cache_clear()


@pytest.fixture
def parts():
  path = twin_directory.shipped("real-small")
  return {part: twin_directory.read_part(path, part) for part in PARTS}


def no_trace(*arguments, **options):
  raise AssertionError("traced")


def accepted(folder):
  return sorted(folder.glob("parameters-*"))


def load_anew(parts):
  parameters.wanted_shapes.cache_clear()
  return Networks(parts)


def test_the_next_process_traces_nothing(folder, parts, monkeypatch):
  Networks(parts)
  assert len(accepted(folder)) == 5
  assert sorted(folder.iterdir()) == accepted(folder)
  monkeypatch.setattr(jax, "eval_shape", no_trace)
  load_anew(parts)


def test_other_arrays_are_refused_each_time(folder, parts):
  Networks(parts)
  before = accepted(folder)
  hyper, variables = parts["rhythm"]
  name = min(variables["params"])
  first = jax.tree.map(lambda x: np.zeros((*x.shape, 2)), variables["params"])
  wrong = variables["params"] | {name: first[name]}
  parts["rhythm"] = hyper, {"params": wrong}
  for _ in range(2):
    with pytest.raises(ValueError, match=r"rhythm's arrays.* must be"):
      load_anew(parts)
  assert accepted(folder) == before


def test_other_sizes_are_traced_anew(folder, parts):
  Networks(parts)
  hyper, variables = parts["rhythm"]
  width = hyper["model"]["width"]
  model = hyper["model"] | {"width": 2 * width}
  parts["rhythm"] = hyper | {"model": model}, variables
  with pytest.raises(ValueError, match=r"rhythm's arrays.* must be"):
    load_anew(parts)


def test_other_code_is_traced_anew(folder, parts, monkeypatch):
  Networks(parts)
  monkeypatch.setattr(parameters, "code_digest", lambda: "another")
  load_anew(parts)
  assert len(accepted(folder)) == 10


def test_a_folder_that_cannot_be_written_costs_nothing(folder, parts):
  folder.write_text("a file")
  Networks(parts)
  assert folder.read_text() == "a file"
