"""The notebook, run from its first cell to its last without a network."""

import base64
import json
import pathlib
import zipfile

import numpy as np
import pytest

from ecgtwin_jax import read_ecg
from ecgtwin_jax.data.wfdb_record import quiet_wfdb

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

NOTEBOOK = pathlib.Path(__file__).parent.parent / "launch" / "colab.ipynb"
PNG = b"\x89PNG\r\n\x1a\n"
# Whatever would leave this machine fails, and so does its cell.
NO_NETWORK = """
import socket

def refuse(*args, **options):
  raise OSError(f"the notebook wants a network: {args}")

socket.getaddrinfo = socket.create_connection = refuse
socket.socket.connect = refuse
"""
RESULTS = """
import json

print(json.dumps({
  "signals": out.signals.shape,
  "range": [float(out.signals.min()), float(out.signals.max())],
  "spread": float(out.signals.std(axis=0).mean()),
  "rates": len(rates),
  "likeness": likeness.tolist(),
  "attention": why.attention.shape,
  "sums": np.ptp(why.attention.sum(axis=-1)).item(),
  "edit": float(np.abs(edit.edited.signals - edit.source.signals).max()),
  "statements": len(twin.statements),
  "colab": IN_COLAB,
}))
"""


def read():
  return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
  """(the notebook with its outputs, what it left behind, its variables)."""
  folder = tmp_path_factory.mktemp("notebook")
  notebook = read()
  cell = nbformat.v4.new_code_cell
  notebook.cells.insert(0, cell(NO_NETWORK))
  notebook.cells.append(cell(RESULTS))
  client = nbclient.NotebookClient(
    notebook, timeout=300, resources={"metadata": {"path": str(folder)}}
  )
  client.execute()
  results = json.loads(notebook.cells[-1].outputs[0]["text"])
  return notebook.cells[1:-1], folder, results


def pictures(cell):
  for output in cell.get("outputs", ()):
    image = output.get("data", {}).get("image/png")
    if image:
      yield base64.b64decode(image)


def test_the_notebook_is_kept_without_outputs():
  cells = read().cells
  assert len(cells) > 10
  for cell in cells:
    assert not cell.get("outputs"), cell.source
    assert cell.get("execution_count") is None, cell.source
  # Each code cell, or the group it stands in, has a text above it.
  assert cells[0].cell_type == "markdown"


def test_it_says_nothing_on_stderr(ran):
  for cell in ran[0]:
    for output in cell.get("outputs", ()):
      assert output.get("name") != "stderr", output["text"]


def test_it_draws_reference_comparison_explanation_and_edit(ran):
  drawn = {}
  for cell in ran[0]:
    for image in pictures(cell):
      assert image.startswith(PNG)
      assert len(image) > 30_000, cell.source
      drawn[cell.source.splitlines()[-1]] = image
  shown = "\n".join(drawn)
  for call in ("reference.plot", "plot_overview", "why.plot", "edit.plot"):
    assert call in shown, shown
  assert len(set(drawn.values())) == 4


def test_its_results_have_shape_range_and_effect(ran):
  results = ran[2]
  assert results["colab"] is False
  assert results["signals"] == [4, 1024, 12]
  low, high = results["range"]
  assert -20 < low < -0.05 < 0.05 < high < 20  # mV
  assert results["spread"] > 1e-3  # the twins are not one and the same
  assert results["rates"] == 4
  assert all(-1 <= x <= 1 for x in results["likeness"])
  assert results["attention"][0] == 1
  assert results["attention"][2:] == [128, 3]
  assert results["sums"] < 1e-4
  assert results["edit"] > 1e-3
  assert results["statements"] > 5


def test_the_zip_holds_wfdb_records_that_can_be_read(ran, tmp_path):
  with zipfile.ZipFile(ran[1] / "twins.zip") as archive:
    assert archive.testzip() is None
    names = set(archive.namelist())
    archive.extractall(tmp_path)
  records = [f"twin_{i}" for i in range(4)]
  records += [f"{name}_{i}" for name in ("source", "edited") for i in range(2)]
  expected = {f"{x}{end}" for x in records for end in (".hea", ".dat")}
  assert expected == names - {"./"}
  for name in records:
    with quiet_wfdb() as wfdb:
      record = wfdb.rdrecord(str(tmp_path / name))
    assert record.p_signal.shape == (1024, 12)
    assert record.units == ["mV"] * 12
    assert record.comments[0].startswith("synthetic")
    assert any("seed: 0" in line for line in record.comments)
  signal = read_ecg(tmp_path / "twin_0.hea").signal
  assert np.ptp(signal) > 0.05
