"""Data sets in buckets: copied once, refused in one line within a time."""

import pathlib
import time

import numpy as np
import pytest

from data_prep import simulated
from ecgtwin_jax.data import bucket
from ecgtwin_jax.data.dataset import load_card, load_split

fsspec = pytest.importorskip("fsspec")
URL = "memory://bucket/sets/cohort"


@pytest.fixture
def remote(tmp_path, monkeypatch):
  """A small cohort in a bucket of fsspec's, and the folder it came from."""
  monkeypatch.setenv(bucket.CACHE_VARIABLE, str(tmp_path / "cache"))
  local = simulated.prepare(tmp_path / "local", patients=12, recordings=2)
  files = fsspec.filesystem("memory")
  files.put(f"{local}/", "/bucket/sets/cohort/", recursive=True)
  yield files, local
  files.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
  "path,url",
  [
    ("gs://bucket/a/b/", "gs://bucket/a/b"),
    (pathlib.Path("gs://bucket/a"), "gs://bucket/a"),
    ("s3://bucket", "s3://bucket"),
    ("/data/set", None),
    ("data/gs:/x", None),
    ("C:/data", None),
  ],
)
def test_what_is_a_bucket(path, url):
  assert bucket.find_url(path) == url


def test_a_data_set_is_read_from_a_bucket(remote, tmp_path):
  _, local = remote
  ours, theirs = (load_split(place, "train") for place in (local, URL))
  np.testing.assert_array_equal(ours.arrays["ecg"], theirs.arrays["ecg"])
  assert ours.record_id.tolist() == theirs.record_id.tolist()
  assert load_card(URL) == load_card(local)
  assert len(list((tmp_path / "cache").iterdir())) == 1


def test_it_is_copied_once_and_anew_when_it_changes(remote, monkeypatch):
  files, local = remote
  first = bucket.local_copy(URL)
  get = []
  monkeypatch.setattr(
    type(files), "get_file", lambda self, *a, **k: get.append(a)
  )
  assert bucket.local_copy(URL) == first and not get
  monkeypatch.undo()
  card = (local / "card.json").read_text().replace('"seed": 0', '"seed": 1')
  files.pipe_file("/bucket/sets/cohort/card.json", card.encode())
  monkeypatch.setenv(bucket.CACHE_VARIABLE, str(first.parent))
  second = bucket.local_copy(URL)
  assert second != first and load_card(second)["options"]["seed"] == 1


def test_a_missing_shard_is_found_before_training(remote):
  files, _ = remote
  shards = files.glob("/bucket/sets/cohort/*train.array_record*")
  files.rm(shards[0])
  with pytest.raises(ValueError, match=r"shard .* is missing"):
    load_split(URL, "train")


def test_a_copy_that_fails_leaves_nothing(remote, monkeypatch):
  files, _ = remote

  def fail(self, source, target, **options):
    raise OSError("connection lost")

  monkeypatch.setattr(type(files), "get_file", fail)
  with pytest.raises(
    ValueError, match=f"{URL} could not be copied: connection"
  ):
    bucket.local_copy(URL)
  folder = pathlib.Path(bucket.os.environ[bucket.CACHE_VARIABLE])
  assert list(folder.iterdir()) == []


def test_a_bucket_that_does_not_answer(remote, monkeypatch):
  monkeypatch.setattr(
    fsspec.core, "url_to_fs", lambda url: time.sleep(60), raising=True
  )
  start = time.monotonic()
  with pytest.raises(ValueError, match=r"did not answer within 0\.2 s: check"):
    bucket.local_copy("gs://nowhere/set", timeout=0.2)
  assert time.monotonic() - start < 5


@pytest.mark.parametrize(
  "error,message",
  [
    (ImportError("Install gcsfs"), r"pip install 'ecgtwin_jax\[gcs\]'"),
    (PermissionError("403: \n denied"), "cannot be reached: 403: denied"),
    (KeyError(), "cannot be reached: KeyError"),
  ],
)
def test_a_bucket_that_refuses(monkeypatch, error, message):
  def refuse(url):
    raise error

  monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)
  with pytest.raises(
    ValueError, match=f"gs://nowhere/set .*{message}"
  ) as caught:
    load_split("gs://nowhere/set", "train")
  assert "\n" not in str(caught.value)


def test_a_bucket_without_a_data_set(remote):
  with pytest.raises(ValueError, match="bucket/sets holds no data set"):
    load_card("memory://bucket/sets")
