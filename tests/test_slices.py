"""The page of steps on TPU slices, of costs that are given."""

import pytest

from benchmarks import slices
from ecgtwin_jax.jobs import compile_for
from ecgtwin_jax.jobs.compile_for import Cost


@pytest.fixture
def compiled(monkeypatch):
  """Costs: a fixed millisecond, and one per 64 rows; 256 rows do not fit."""
  asked = []

  def estimate(config, name):
    _, topology = compile_for.parse_slice(name)
    chips = len(devices("", topology))
    rows = config.batch_size // chips
    asked.append((config.stage, name, rows))
    seconds = {"compute": 0.001, "HBM": 0.001 * rows / 64, "interconnect": 0.0}
    held = 2e10 if rows == 256 else 2e9
    return Cost(name, chips, rows, 1e12, 5e9, 1e9, held, [], seconds, 9.0)

  def devices(version, topology):
    count = 1
    for side in topology.split("x"):
      count *= int(side)
    return [None] * count

  monkeypatch.setattr(compile_for, "estimate", estimate)
  monkeypatch.setattr(compile_for, "topology_devices", devices)
  return asked


def test_a_page_of_all_stages_and_slices(compiled, tmp_path):
  page = slices.make_page(tmp_path, "made by nobody:")
  lines = page.splitlines()
  fast = next(x for x in lines if x.startswith("| stage2 | 64 (recommended)"))
  assert "| 3.00 | 1.000 | 5.00 | 0, 0.0 | 1.00 | 1.00 | 0.00 |" in fast
  assert fast.endswith("| 32,000 | 256,000 |")
  # 1 + 16 / 64 ms for 16 rows are slower for each; 256 rows do not fit v5e.
  assert any("| vae | 256 | 21.00 (too much)" in x for x in lines)
  assert "| stage1 | v5e-256 | 256 | 32.00 | 3.00" in page
  assert len(compiled) == 4 * (3 + len(slices.OTHERS) + 1)
  assert slices.make_page(tmp_path, "made by nobody:") == page
  assert len(compiled) == 4 * (3 + len(slices.OTHERS) + 1)  # all were read


def test_what_fits_nowhere_is_not_recommended():
  with pytest.raises(ValueError, match=r"no step of \[16, 64\] rows fits"):
    slices.recommend([{"rows": n, "fits": False} for n in (16, 64)])
