"""Uploads: one recording, of the files that were sent and no others."""

import multiprocessing
import os
import pathlib
import shutil
import tempfile
import time

import numpy as np
import pytest
import scipy.io

from ecgtwin_jax import read_ecg
from ecgtwin_jax.app import uploads
from ecgtwin_jax.app.uploads import MAX_FILES, read_upload, read_upload_apart
from ecgtwin_jax.data.array_files import Given
from ecgtwin_jax.data.ecg import EXAMPLE_RECORD, LEADS, example_ecg


@pytest.fixture(scope="module", autouse=True)
def reader():
  """It keeps its socket in the temporary folder of its start."""
  uploads.start_reader()


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
  """Nothing may be left in it."""
  folder = tmp_path / "temporary"
  folder.mkdir()
  monkeypatch.setattr(tempfile, "tempdir", str(folder))
  yield
  assert not list(folder.iterdir())


@pytest.fixture
def record(tmp_path):
  """Header and data of the example, each in a folder of its own."""
  paths = []
  for i, suffix in enumerate((".hea", ".dat")):
    (tmp_path / str(i)).mkdir()
    paths.append(shutil.copy(EXAMPLE_RECORD + suffix, tmp_path / str(i)))
  return paths


def test_header_and_data_need_not_lie_together(record):
  ecg = read_upload(record)
  np.testing.assert_array_equal(ecg.signal, example_ecg().signal)
  assert ecg.record == "s0010_re_10s"
  assert ecg.comments == example_ecg().comments


@pytest.mark.parametrize("suffix", [".csv", ".npz"])
def test_one_file_is_a_recording(tmp_path, suffix):
  path = tmp_path / f"mine{suffix}"
  example_ecg().write(path)
  ecg = read_upload([str(path)])
  np.testing.assert_array_equal(ecg.signal, example_ecg().signal)


@pytest.mark.parametrize("suffix", [".npy", ".mat"])
def test_one_file_of_plain_numbers_needs_what_it_does_not_say(tmp_path, suffix):
  path, signal = tmp_path / f"mine{suffix}", example_ecg().signal
  if suffix == ".npy":
    np.save(path, signal * 1e3)
  else:
    scipy.io.savemat(path, {"val": signal.T * 1e3})
  given = Given(1000.0, LEADS, "uV")
  ecg = read_upload([str(path)], given=given)
  np.testing.assert_allclose(ecg.signal, signal, atol=1e-6)
  assert ecg.record == "mine"
  with pytest.raises(ValueError, match="say beside the upload leads="):
    read_upload([str(path)], given=given._replace(leads=None))


def test_seconds_are_skipped(tmp_path):
  path = tmp_path / "long.csv"
  signal = np.random.default_rng(0).normal(size=(2400, 12))
  columns = ",".join(LEADS)
  rows = "\n".join(",".join(f"{x:.6f}" for x in row) for row in signal)
  path.write_text(f"# sampling_rate=100,units=mV\n{columns}\n{rows}\n")
  ecg = read_upload([str(path)], start=7.0)
  np.testing.assert_allclose(ecg.signal, signal[700:1700], atol=1e-6)


def test_a_name_of_html_becomes_letters(tmp_path):
  path = tmp_path / "<img src=x onerror=alert(1)>.csv"
  example_ecg().write(path)
  assert read_upload([str(path)]).record == "_img_src_x_onerror_alert_1_"


def refused(paths, message, **options):
  with pytest.raises(ValueError, match=message) as caught:
    read_upload([str(path) for path in paths], **options)
  # The message tells nothing of the server's folders.
  assert "/temporary" not in str(caught.value)
  return str(caught.value)


def test_files_that_are_not_one_recording(record, tmp_path):
  other = tmp_path / "other.csv"
  example_ecg().write(other)
  script = tmp_path / "run.py"
  script.write_text("")
  rule = "must be one recording"
  refused(record[1:], rule)
  refused([*record, other], rule)
  refused([other, record[1]], rule)
  refused([*record, script], rule)
  refused([script], rule)


def test_a_header_without_its_data(record):
  refused(record[:1], "names s0010_re_10s.dat: upload the header and its data")


@pytest.mark.parametrize("name", ["/etc/passwd", "../../secret.dat", "x.dat"])
def test_a_header_that_leads_elsewhere(record, name):
  header = pathlib.Path(record[0])
  text = header.read_text().replace("s0010_re_10s.dat", name)
  header.write_text(text)
  refused(record, "upload the header")


def test_a_header_of_segments(tmp_path):
  header = tmp_path / "many.hea"
  header.write_text("many/2 12 500 10000\n/etc/hosts 5000\npart 5000\n")
  refused([header], "one record, not of several segments")


def test_too_large_and_too_many(record, tmp_path):
  refused(record, r"2 files of 0\.2 MB .* at most", max_mb=0.1)
  refused(record * MAX_FILES, f"{2 * MAX_FILES} files")


def test_an_archive_that_unpacks_to_more(tmp_path):
  path = tmp_path / "zeros.npz"
  np.savez_compressed(path, signal=np.zeros((200_000, 12)), sampling_rate=500)
  assert path.stat().st_size < 1e5
  refused([path], "19? ?MB|18 MB unpacked", max_mb=1)


def test_what_is_no_archive(tmp_path):
  path = tmp_path / "no.npz"
  path.write_bytes(b"nothing")
  refused([path], "no.npz is not an .npz file")


def test_errors_of_reading_name_the_file_alone(record):
  pathlib.Path(record[1]).write_bytes(b"\0" * 100)
  text = refused(record, "has 100 bytes")
  assert text.startswith("s0010_re_10s")
  assert read_ecg(EXAMPLE_RECORD).record == "s0010_re_10s"


def test_a_recording_is_read_apart_as_it_is_read_here(record):
  apart, here = read_upload_apart(record), read_upload(record)
  np.testing.assert_array_equal(apart.signal, here.signal)
  assert (apart.record, apart.comments) == (here.record, here.comments)
  with pytest.raises(ValueError, match="must be one recording"):
    read_upload_apart(record[:1] * 2)


def test_what_names_an_upload_is_sent_as_plain_text(record):
  class Name(str):  # as Gradio has one, with all of Gradio behind it
    __slots__ = ()

  apart = read_upload_apart([Name(path) for path in record])
  assert apart.record == "s0010_re_10s"


def _take(what):
  def take(*_):
    if what == "memory":
      return bytearray(1 << 30)
    if what == "time":
      time.sleep(60)
    os._exit(1)

  return take


@pytest.mark.parametrize(
  "what,words",
  [
    ("memory", "takes more than 512 MB of memory"),
    ("time", "took too long to read"),
    ("process", "took too much to read"),
  ],
)
@pytest.mark.filterwarnings("ignore:.*fork")
def test_what_reads_an_upload_is_bounded(monkeypatch, what, words):
  # A fork of this process, so that what it reads with can be replaced.
  context = multiprocessing.get_context("fork")
  monkeypatch.setattr(uploads, "_context", lambda: context)
  monkeypatch.setattr(uploads, "SECONDS", 1 if what == "time" else 60)
  monkeypatch.setattr(uploads, "read_upload", _take(what))
  with pytest.raises(ValueError, match=words):
    uploads.read_upload_apart(["a"])
