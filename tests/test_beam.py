"""Apache Beam writes what worker processes write."""

import importlib.util
import sys

import pytest

from data_prep import ptbxl
from helpers.recordings import contents, copy_ptbxl

needs_beam = pytest.mark.skipif(
  importlib.util.find_spec("apache_beam") is None,
  reason="Apache Beam is not installed, see CONTRIBUTING.md",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """250 recordings that share ten files, one of them damaged."""

  def change(rows):
    return [
      rows[i % 10] | {"ecg_id": str(i), "patient_id": str(i)}
      for i in range(250)
    ]

  folder = copy_ptbxl(tmp_path_factory.mktemp("ptbxl"), change)
  (folder / "records100/00000/00318_lr.dat").write_bytes(b"short")
  return folder


@needs_beam
@pytest.mark.filterwarnings("default")  # Beam's own
@pytest.mark.parametrize(
  "options",
  [
    "--runner=DirectRunner",
    "--runner=DirectRunner --direct_running_mode=multi_processing"
    " --direct_num_workers=2",
  ],
)
def test_beam_gives_the_same_data_set(folder, tmp_path, options):
  ours = ptbxl.prepare(folder, tmp_path / "ours", sampling_rate=100)
  theirs = ptbxl.prepare(
    folder, tmp_path / "beam", beam_options=options, sampling_rate=100
  )
  assert contents(theirs) == contents(ours)


def test_without_beam_there_is_one_line(folder, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "apache_beam", None)
  with pytest.raises(ValueError, match=r"pip install 'ecgtwin_jax\[beam\]'"):
    ptbxl.prepare(folder, tmp_path / "data", beam_options="")
