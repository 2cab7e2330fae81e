"""Traced programs that are kept between processes."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgtwin_jax import Condition, ECGTwin, example_ecg, sharding
from ecgtwin_jax.inference import kept_programs, sampling


@pytest.fixture
def folder(tmp_path):
  before = jax.config.jax_compilation_cache_dir
  jax.config.update("jax_compilation_cache_dir", str(tmp_path / "kept"))
  yield tmp_path / "kept"
  jax.config.update("jax_compilation_cache_dir", before)


class Pair(NamedTuple):
  left: jax.Array | None
  right: jax.Array | None


def new_process(traces):
  """The same function, jitted as a process does that has not called it yet."""

  @kept_programs.jit(static_argnums=(1,))
  def scaled(pair, factor, rng):
    traces.append((pair.left.shape, factor))
    noise = jax.random.normal(rng, pair.left.shape)
    total = pair.left * factor + noise
    return total if pair.right is None else (total, pair.right + 1)

  return scaled


PAIR = Pair(np.arange(6.0).reshape(2, 3), np.array([7, 11]))
RNG = jax.random.key(5)


def kept(folder):
  return sorted(folder.glob("traced-*"))


def test_the_next_process_does_not_trace(folder):
  traces = []
  first = new_process(traces)(PAIR, 3, RNG)
  assert traces == [((2, 3), 3)] and len(kept(folder)) == 1
  again = new_process(traces)(PAIR, 3, RNG)
  assert traces == [((2, 3), 3)]
  wanted = PAIR.left * 3 + jax.random.normal(RNG, (2, 3))
  for total, right in (first, again):
    np.testing.assert_allclose(total, wanted, rtol=1e-6)
    np.testing.assert_array_equal(right, [8, 12])
    assert (total.dtype, right.dtype) == (jnp.float32, jnp.int32)


def test_a_process_reads_a_program_once(folder):
  call = new_process([])
  call(PAIR, 3, RNG)
  for file in kept(folder):
    file.unlink()
  call(PAIR, 3, RNG)
  assert not kept(folder)


@pytest.mark.parametrize(
  "arguments",
  [
    (PAIR._replace(left=np.zeros((2, 5))), 3, RNG),
    (PAIR._replace(left=np.zeros((2, 3), np.int32)), 3, RNG),
    (PAIR._replace(right=None), 3, RNG),
    (PAIR, 4, RNG),
    (PAIR, 3.0, RNG),
    (PAIR, 3, jax.random.key(5, impl="rbg")),
  ],
)
def test_what_a_trace_depends_on_is_traced_anew(folder, arguments):
  new_process([])(PAIR, 3, RNG)
  traces = []
  found = new_process(traces)(*arguments)
  assert len(traces) == 1 and len(kept(folder)) == 2
  jax.config.update("jax_compilation_cache_dir", None)
  jax.tree.map(
    np.testing.assert_array_equal, found, new_process([])(*arguments)
  )


def test_which_argument_is_missing_is_traced_anew(folder):
  def of_either():
    @kept_programs.jit(static_argnums=())
    def chosen(pair):
      return pair.left if pair.right is None else -pair.right

    return chosen

  x = np.arange(3, dtype=np.float32)
  np.testing.assert_array_equal(of_either()(Pair(x, None)), x)
  np.testing.assert_array_equal(of_either()(Pair(None, x)), -x)
  assert len(kept(folder)) == 2


def test_static_arguments_stand_in_any_order(folder):
  @kept_programs.jit(static_argnums=(2, 1))
  def spelled(x, a, b, y):
    return a * x + y - b

  total = spelled(np.float32([1]), 2, 3, np.float32([10]))
  np.testing.assert_array_equal(total, [9])
  assert len(kept(folder)) == 1


def test_other_code_or_settings_are_traced_anew(folder, monkeypatch):
  new_process([])(PAIR, 3, RNG)
  traces = []
  with jax.default_matmul_precision("highest"):
    new_process(traces)(PAIR, 3, RNG)
  assert len(traces) == 1
  monkeypatch.setattr(kept_programs, "code_digest", lambda: "another")
  new_process(traces)(PAIR, 3, RNG)
  assert len(traces) == 2 and len(kept(folder)) == 3
  count = jax.device_count()
  monkeypatch.setattr(kept_programs.jax, "device_count", lambda: 2 * count)
  new_process(traces)(PAIR, 3, RNG)
  assert len(traces) == 3 and len(kept(folder)) == 4


def test_the_code_is_that_of_the_package(monkeypatch, tmp_path):
  digest = kept_programs.code_digest.__wrapped__
  (tmp_path / "models").mkdir()
  for name in ("constants.py", "models/one.py"):
    (tmp_path / name).write_text("A = 1\n")
  constants = kept_programs.constants
  monkeypatch.setattr(constants, "__file__", str(tmp_path / "constants.py"))
  before = digest()
  assert digest() == before
  (tmp_path / "models/one.py").write_text("A = 2\n")
  assert digest() != before


def test_a_damaged_file_is_made_anew(folder):
  wanted = new_process([])(PAIR, 3, RNG)
  (file,) = kept(folder)
  whole = file.read_bytes()
  for damaged in (b"", whole[: len(whole) // 2]):
    file.write_bytes(damaged)
    traces = []
    found = new_process(traces)(PAIR, 3, RNG)
    assert len(traces) == 1
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    new_process(traces)(PAIR, 3, RNG)
    assert len(traces) == 1


def test_a_folder_that_cannot_be_written_costs_nothing(folder):
  folder.write_text("a file")
  total, _ = new_process([])(PAIR, 3, RNG)
  assert total.shape == (2, 3)
  assert folder.read_text() == "a file"


def test_without_a_folder_nothing_is_kept(folder, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  jax.config.update("jax_compilation_cache_dir", None)
  traces = []
  assert kept_programs.kept_folder() is None
  new_process(traces)(PAIR, 3, RNG)
  new_process(traces)(PAIR, 3, RNG)
  assert len(traces) == 2 and not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_run_by_jax_alone(folder):
  @kept_programs.jit(static_argnums=(1,))
  def called_back(x, factor):
    if factor < 0:
      raise ValueError(f"{factor=} must not be below 0")
    return jax.pure_callback(lambda x: factor * x, x, x)

  x = jnp.arange(3.0)
  for _ in range(2):
    np.testing.assert_array_equal(called_back(x, 5), [0, 5, 10])
    with pytest.raises(ValueError, match="factor=-1 must not be below 0"):
      called_back(x, -1)
  assert not folder.exists()


def test_a_cache_that_is_off_keeps_nothing(folder):
  jax.config.update("jax_enable_compilation_cache", False)
  try:
    new_process([])(PAIR, 3, RNG)
  finally:
    jax.config.update("jax_enable_compilation_cache", True)
  assert not kept(folder)


@pytest.mark.parametrize(
  ("asked", "answer"), [("process_count", 2), ("default_backend", "gpu")]
)
def test_one_process_on_a_cpu_alone_keeps_traces(
  folder, monkeypatch, asked, answer
):
  monkeypatch.setattr(kept_programs.jax, asked, lambda: answer)
  total, _ = new_process([])(PAIR, 3, RNG)
  assert total.shape == (2, 3) and not kept(folder)


def test_a_bucket_is_no_folder(folder):
  jax.config.update("jax_compilation_cache_dir", "gs://bucket/kept")
  assert kept_programs.kept_folder() is None


def test_within_a_trace_it_is_the_function_itself(folder):
  call = new_process([])
  outer = jax.jit(lambda pair, rng: call(pair, 3, rng)[0])
  np.testing.assert_array_equal(outer(PAIR, RNG), call(PAIR, 3, RNG)[0])
  assert len(kept(folder)) == 1


def test_rows_on_several_devices(folder):
  mesh = sharding.make_mesh(devices=jax.local_devices()[:2])
  rows = jax.tree.map(jnp.asarray, PAIR)
  placed = jax.device_put(rows, sharding.rows(mesh))
  alone, _ = new_process([])(rows, 3, RNG)
  traces = []
  for _ in range(2):
    total, right = new_process(traces)(placed, 3, RNG)
    assert total.sharding.device_set == set(mesh.devices.flat)
    np.testing.assert_allclose(total, alone, rtol=1e-6)
    np.testing.assert_array_equal(right, [8, 12])
  assert len(traces) == 1 and len(kept(folder)) == 2


def test_the_next_process_makes_the_same_twin_and_traces_nothing(
  folder, monkeypatch
):
  now = Condition(["Sinus rhythm", "Right bundle branch block"], 82)
  then = Condition(["Sinus rhythm"], 70)

  def first_twin():
    base = twin.extract_base(example_ecg(), now)
    return twin.generate(base, then, num_samples=3).signals

  twin = ECGTwin.from_pretrained("real-small")
  wanted = first_twin()
  for jitted in vars(sampling).values():
    getattr(jitted, "programs", {}).clear()
  jax.clear_caches()

  def traced(*arguments, **options):
    raise AssertionError("traced")

  monkeypatch.setattr(nn.Module, "apply", traced)
  np.testing.assert_array_equal(first_twin(), wanted)
