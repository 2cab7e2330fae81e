"""The command line: --config=FILE[:variant], --workdir=DIR, --config.key=value.

A parser of our own, since absl answers a mistyped flag with a traceback; here
it is one line that names the nearest key.
"""

import ast
import difflib
import functools
import importlib.util
import pathlib
import sys
from typing import NamedTuple

import ml_collections

USAGE = """usage: python -m ecgtwin_jax.main --config=FILE[:VARIANT] [options]

  --config=FILE[:VARIANT]  what to do: configs/demo.py, configs/vae.py,
                           configs/stage1.py, configs/stage2.py,
                           configs/generate.py, ...
                           (variants of a training: base, paper, smoke)
  --config.KEY=VALUE       change one value of the configuration
  --workdir=DIR            where results go (default: the config's workdir)
  --multihost              join the other processes of this run first
  --help                   this text; with --config=FILE also its keys
"""


class Flags(NamedTuple):
  config: ml_collections.ConfigDict
  config_file: str
  workdir: str | None
  multihost: bool


def flatten(config, prefix="") -> dict:
  """Returns {dotted key: value} of a configuration's leaves."""
  leaves = {}
  for key in config:
    value = config[key]
    if isinstance(value, ml_collections.ConfigDict):
      leaves.update(flatten(value, f"{prefix}{key}."))
    else:
      leaves[prefix + key] = value
  return leaves


def nearest(word: str, known) -> str:
  """Returns "; did you mean X?" for the known word closest to `word`."""
  close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
  return f"; did you mean {close[0]!r}?" if close else ""


def load_config(source: str) -> ml_collections.ConfigDict:
  """Runs get_config(variant) of a configuration file.

  Args:
    source: "FILE" or "FILE:VARIANT".

  Raises:
    FileNotFoundError: no such file.
    ValueError: the file has no get_config, or not this variant.
  """
  name, _, variant = source.partition(":")
  path = pathlib.Path(name)
  if not path.is_file():
    beside = sorted(str(p) for p in path.parent.glob("*.py"))
    raise FileNotFoundError(
      f"no configuration file {name!r}{nearest(name, beside)} "
      "(configs/ is used from a clone of the repository)"
    )
  # `from configs import common` must find the folder the file lies in.
  root = str(path.resolve().parent.parent)
  if root not in sys.path:
    sys.path.insert(0, root)
  spec = importlib.util.spec_from_file_location(f"_config_{path.stem}", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, "get_config"):
    raise ValueError(f"{name!r} must define get_config()")
  return module.get_config(variant) if variant else module.get_config()


def parse_value(text: str, default, key: str):
  """Reads `text` as the type of `default`.

  Raises:
    ValueError: the text is no such value.
  """
  try:
    if isinstance(default, str):
      return text
    if isinstance(default, bool):
      return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    if default is None:
      try:
        return ast.literal_eval(text)
      except (ValueError, SyntaxError):
        return text
    if isinstance(default, (tuple, list)):
      words = all(isinstance(item, str) for item in default)
      items = text.strip("()[] ,")
      return tuple(_item(i, words) for i in items.split(",")) if items else ()
    return type(default)(text)
  except (KeyError, ValueError, SyntaxError):
    kind = type(default).__name__
    raise ValueError(
      f"--config.{key}={text!r} must be of type {kind} (default {default!r})"
    ) from None


def _item(text: str, words: bool):
  """One of a tuple: a number or, where words are allowed, a bare word."""
  try:
    return ast.literal_eval(text.strip())
  except (ValueError, SyntaxError):
    if not words:
      raise
    return text.strip()


def override(config: ml_collections.ConfigDict, key: str, text: str) -> None:
  """Sets one dotted key of a configuration from text.

  Raises:
    ValueError: unknown key, or a value of another type.
  """
  leaves = flatten(config)
  if key not in leaves:
    raise ValueError(f"unknown configuration key {key!r}{nearest(key, leaves)}")
  default = leaves[key]
  *parents, last = key.split(".")
  field = functools.reduce(getattr, parents, config)
  if default is None and field.get_type(last) is bool:
    default = False
  value = parse_value(text, default, key)
  with config.ignore_type():
    config.update_from_flattened_dict({key: value})


def parse(argv: list[str]) -> Flags:
  """Parses the command line.

  Raises:
    ValueError: unknown flag or key, missing or mistyped value.
    FileNotFoundError: no such configuration file.
    SystemExit: --help was asked for.
  """
  known = ("--config", "--workdir", "--multihost", "--help")
  values, overrides, words = {}, [], list(argv)
  while words:
    word = words.pop(0)
    flag, equals, value = word.partition("=")
    if flag in ("--help", "-h", "--multihost"):
      values[flag.lstrip("-")[0]] = True
      continue
    if not flag.startswith("--config.") and flag not in known:
      raise ValueError(f"unknown flag {flag!r}{nearest(flag, known)}")
    if not equals:
      if not words:
        raise ValueError(f"{flag} needs a value: {flag}=VALUE")
      value = words.pop(0)
    if flag.startswith("--config."):
      overrides.append((flag.removeprefix("--config."), value))
    else:
      values[flag] = value
  if "--config" not in values:
    if values.get("h") or not argv:
      print(USAGE, end="")
      raise SystemExit(0 if argv else 2)
    raise ValueError("--config=FILE is missing (see --help)")
  config = load_config(values["--config"])
  for key, value in overrides:
    override(config, key, value)
  if values.get("h"):
    print(USAGE)
    for key, value in flatten(config).items():
      print(f"  --config.{key}={value!r}")
    raise SystemExit(0)
  return Flags(
    config, values["--config"], values.get("--workdir"), "m" in values
  )
