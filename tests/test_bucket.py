"""Buckets are refused in one line that says how to reach them."""

import pathlib

import pytest

from ecgtwin_jax.data.bucket import refuse_remote
from ecgtwin_jax.data.dataset import load_card, load_split


@pytest.mark.parametrize(
  ("path", "url"),
  [
    ("gs://bucket/a/b/", "gs://bucket/a/b"),
    (pathlib.Path("gs://bucket/a"), "gs://bucket/a"),
    ("s3://bucket", "s3://bucket"),
  ],
)
def test_a_bucket_is_refused_by_its_address(path, url):
  with pytest.raises(ValueError, match=f"output {url} must be .*gcsfuse"):
    refuse_remote(path, "output")
  for read in (load_card, lambda path: load_split(path, "train")):
    with pytest.raises(ValueError, match=f"the data set {url} must be a fold"):
      read(path)


@pytest.mark.parametrize("path", ["/data/set", "data/gs:/x", "C:/data"])
def test_a_folder_is_none(path):
  refuse_remote(path, "output")
