"""What a step costs on a TPU slice, read from its program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ecgtwin_jax.flags import load_config
from ecgtwin_jax.jobs import compile_for
from ecgtwin_jax.jobs.compile_for import Collective

PROGRAM = """
  %r.1 = f32[256,128]{1,0:T(8,128)} all-reduce(%a), replica_groups=[1,8]<=[8]
  %r.2 = f32[256,128]{1,0} all-reduce(%b), replica_groups=[1,8]<=[8], to=%add
  %g = (bf16[4,128]{1,0}, bf16[8,128]{1,0}) all-gather-start(%c), \
replica_groups={{0,1},{2,3},{4,5},{6,7}}, dimensions={0}
  %s = f32[64]{0} reduce-scatter(%d), replica_groups={{0,2,4,6},{1,3,5,7}}
  %copy = f32[8]{0} copy(%r.1)
"""


def test_collectives_of_a_program_are_counted_with_their_bytes_and_axis():
  found = compile_for.find_collectives(PROGRAM, {"data": 4, "fsdp": 2})
  assert found == [
    Collective("all-reduce", "all", 8, 256 * 128 * 4, 2),
    Collective("all-gather", "fsdp", 2, 8 * 128 * 2, 1),
    Collective("reduce-scatter", "data", 4, 4 * 64 * 4, 1),
  ]


def test_seconds_of_an_exchange_by_hand():
  reduced = Collective("all-reduce", "all", 4, 1e9, 1)
  gathered = reduced._replace(operation="all-gather")
  assert compile_for.seconds_of(reduced, 1e9) == pytest.approx(1.5)
  assert compile_for.seconds_of(gathered, 1e9) == pytest.approx(0.75)


def test_a_slice_that_is_none_is_refused():
  assert compile_for.parse_slice("v5e-256") == ("v5e", "16x16")
  with pytest.raises(ValueError, match="'v5e-9' must be one of"):
    compile_for.parse_slice("v5e-9")
  with pytest.raises(ValueError, match=r"config\.job='generate'"):
    compile_for.run(load_config("configs/generate.py"), "v5e-8")


def test_the_page_says_what_bounds_a_step_and_what_mends_its_memory():
  seconds = {"compute": 0.001, "HBM": 0.004, "interconnect": 0.002}
  cost = compile_for.Cost("v5e-8", 8, 64, 1e12, 2e9, 3e9, 2e9, [], seconds, 1.0)
  page = compile_for.describe(cost)
  assert "5.00 of 16 GB" in page and "fits" in page
  assert "HBM bounds the step" in page
  # 512 rows in 7 ms and in 4 ms.
  assert "73,143 to 128,000 rows/s" in page
  assert "config.accumulate" in compile_for.describe(
    cost._replace(temporary=20e9)
  )
  assert "config.fsdp" in compile_for.describe(cost._replace(state=20e9))


def test_a_known_product_compiled_for_eight_chips():
  pytest.importorskip("libtpu", reason="the TPU compiler is not installed")
  devices = compile_for.topology_devices("v5e", "2x4")
  mesh = Mesh(np.array(devices).reshape(8, 1), ("data", "fsdp"))
  rows = NamedSharding(mesh, P(("data", "fsdp")))
  whole = NamedSharding(mesh, P())

  def gradient(w, x):
    return jax.grad(lambda w: jnp.sum((x @ w) ** 2))(w)

  w = jax.ShapeDtypeStruct((256, 128), jnp.float32, sharding=whole)
  x = jax.ShapeDtypeStruct((1024, 256), jnp.float32, sharding=rows)
  step = jax.jit(gradient, out_shardings=whole).lower(w, x).compile()
  (one,) = compile_for.find_collectives(step.as_text(), mesh.shape)
  assert one == Collective("all-reduce", "all", 8, 256 * 128 * 4, 1)
  memory = step.memory_analysis()
  # The weights and an eighth of the rows.
  assert memory.argument_size_in_bytes == (256 * 128 + 128 * 256) * 4


def test_a_training_compiled_for_eight_chips():
  pytest.importorskip("libtpu", reason="the TPU compiler is not installed")
  config = load_config("configs/rhythm.py:smoke")
  config.batch_size = 64
  cost = compile_for.estimate(config, "v5e-8")
  assert (cost.chips, cost.rows) == (8, 8)
  assert cost.flops > 0 and cost.traffic > 0 and cost.seconds["HBM"] > 0
  reduced = [c for c in cost.collectives if c.operation == "all-reduce"]
  assert reduced and all(c.axis == "all" for c in cost.collectives)


def test_a_step_that_does_not_fit_is_an_error_behind_its_page(
  monkeypatch, capsys
):
  seconds = {"compute": 0.001, "HBM": 0.004, "interconnect": 0.0}
  cost = compile_for.Cost("v5e-8", 8, 1, 1e12, 2e9, 1e9, 2e10, [], seconds, 1.0)
  monkeypatch.setattr(compile_for, "estimate", lambda config, name: cost)
  config = load_config("configs/rhythm.py:smoke")
  with pytest.raises(ValueError, match="does not fit the memory of v5e-8"):
    compile_for.run(config, "v5e-8")
  assert "21.00 of 16 GB" in capsys.readouterr().out
  monkeypatch.setattr(
    compile_for, "estimate", lambda config, name: cost._replace(temporary=0.0)
  )
  assert len(compile_for.run(config, "v5e-8")) == 1
