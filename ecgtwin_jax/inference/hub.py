"""Twins by their names: those of the package, and of the Hugging Face hub.

A repository of the hub is a twin directory.
"""

import os
import pathlib
import re

from ecgtwin_jax.data.wfdb_record import first_line
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.inference.networks import REQUIRED

# What a twin directory is made of; nothing else is fetched or sent.
_FILES = ("twin.json", "*.safetensors", "statements.*", "README.md")
NAME = re.compile(r"[\w.-]+/[\w.-]+")


def find(
  name: str | os.PathLike, revision: str | None = None
) -> str | os.PathLike:
  """The twin directory of a name; see ECGTwin.from_pretrained.

  Raises:
    ValueError: there is no such twin, or it cannot be reached.
  """
  known = sorted(
    path.parent.name
    for path in twin_directory.shipped("").glob(f"*/{twin_directory.INDEX}")
    if set(REQUIRED) <= set(twin_directory.parts(path.parent))
  )
  if name in known:
    return twin_directory.shipped(str(name))
  if twin_directory.is_twin(name):
    return name
  if not NAME.fullmatch(os.fspath(name)):
    raise ValueError(
      f"{name=} must be one of {', '.join(known)}, 'owner/name' on the"
      " Hugging Face hub, or a twin directory"
    )
  return fetch(os.fspath(name), revision)


def fetch(name: str, revision: str | None = None) -> pathlib.Path:
  """A twin directory of the hub, from its local cache where that has it.

  Args:
    name: "owner/name".
    revision: branch, tag or commit; None: the newest.

  Raises:
    ValueError: it cannot be had, or is no twin.
  """
  from huggingface_hub import snapshot_download

  try:
    folder = snapshot_download(
      name, revision=revision, allow_patterns=list(_FILES)
    )
  # Network, permission and cache raise errors of many families.
  except Exception as error:
    raise ValueError(
      f"twin {name!r} cannot be had from the Hugging Face hub, nor is it in the"
      f" local cache ({first_line(error)[:160]})"
    ) from None
  if not twin_directory.is_twin(folder):
    raise ValueError(
      f"{name!r} on the Hugging Face hub is no twin: it has no"
      f" {twin_directory.INDEX}"
    )
  return pathlib.Path(folder)


def push(
  folder: str | os.PathLike,
  name: str,
  *,
  private: bool = True,
  token: str | None = None,
  message: str = "A twin of ecgtwin_jax",
) -> str:
  """Sends a twin directory to the hub, into a repository made if need be.

  Returns:
    The address of the repository.

  Raises:
    ValueError: the name is not "owner/name", or the hub does not take it.
  """
  if not NAME.fullmatch(name):
    raise ValueError(f"{name=} must be 'owner/name' on the Hugging Face hub")
  from huggingface_hub import HfApi

  api = HfApi(token=token)
  try:
    address = api.create_repo(name, private=private, exist_ok=True)
    api.upload_folder(
      repo_id=name,
      folder_path=folder,
      allow_patterns=list(_FILES),
      commit_message=message,
    )
  except Exception as error:
    raise ValueError(
      f"twin {name!r} cannot be sent to the Hugging Face hub"
      f" ({first_line(error)[:160]}): `hf auth login` signs you in"
    ) from None
  return str(address)
