"""A folder has one writer, whose lock dies with it."""

import subprocess
import sys

import pytest

from ecgtwin_jax.data.whole_files import hold
from ecgtwin_jax.jobs.requests import as_cell

HOLDER = """
import sys
from ecgtwin_jax.data.whole_files import hold
with hold(sys.argv[1]):
  print("held", flush=True)
  sys.stdin.read()
"""


def test_a_lock_refuses_the_second_and_dies_with_its_owner(tmp_path):
  folder = tmp_path / "run"
  holder = subprocess.Popen(
    [sys.executable, "-c", HOLDER, str(folder)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert holder.stdout.readline() == "held\n"
  with pytest.raises(ValueError, match="in use by another process"):
    with hold(folder):
      pass
  holder.kill()
  holder.communicate()
  with hold(folder):
    assert not [*folder.iterdir()]
  with hold(folder):
    pass


@pytest.mark.parametrize("text", ["=cmd|x", "+1", "-1", "@a", "\tx", "\rx"])
def test_what_a_spreadsheet_would_compute_is_text(text):
  assert as_cell(text) == f"'{text}"
  assert as_cell("row = 1") == "row = 1"
  assert as_cell(-1) == -1
