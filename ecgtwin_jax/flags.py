"""The command line: --config=NAME[:variant], --workdir=DIR, --config.key=value.

absl reads the flags and ml_collections' config_flags the values; a mistyped one
is answered in one line that names the nearest key.
"""

import ast
import difflib
import importlib.util
import pathlib
import sys
import types
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags as absl_flags

if TYPE_CHECKING:
  import ml_collections

USAGE = """usage: ecgtwin --config=NAME[:VARIANT] [options]
   or: python -m ecgtwin_jax.main --config=FILE[:VARIANT] [options]

  --config=NAME[:VARIANT]  what to do: demo, generate, edit, explain, app, vae,
                           stage1, stage2, evaluate, diagnose, ...; or a file,
                           such as configs/generate.py
                           (variants of a training: base, paper, smoke)
  --config.KEY=VALUE       change one value of the configuration
  --workdir=DIR            where results go (default: the config's workdir)
  --multihost              join the other processes of this run first
  --compile_for=SLICE      of a training: what its step would cost on a TPU
                           slice, such as v5e-256; nothing is run
  --help                   this text; with --config=NAME also its keys
"""
_KNOWN = ("--config", "--workdir", "--multihost", "--compile_for", "--help")


class Flags(NamedTuple):
  """What a command line says.

  Attributes:
    config: the configuration, with its changes.
    source: what --config named; other configurations lie `beside` it.
    workdir: folder of the results; None: the configuration's.
    multihost: whether this is one process of several.
    compile_for: TPU slices to compile a training's step for; None: run it.
  """

  config: "ml_collections.ConfigDict"
  source: str
  workdir: str | None
  multihost: bool
  compile_for: str | None = None


def flatten(
  config: "ml_collections.ConfigDict", prefix: str = ""
) -> dict[str, Any]:
  """Returns {dotted key: value} of a configuration's leaves."""
  from ml_collections import ConfigDict

  leaves = {}
  for key in config:
    value = config[key]
    if isinstance(value, ConfigDict):
      leaves.update(flatten(value, f"{prefix}{key}."))
    else:
      leaves[prefix + key] = value
  return leaves


def nearest(word: str, known: Iterable[str]) -> str:
  """Returns "; did you mean X?" for the known word closest to `word`."""
  close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
  return f"; did you mean {close[0]!r}?" if close else ""


def _shipped_configs() -> pathlib.Path:
  """The folder of configurations: in an installed package, or in a clone."""
  package = pathlib.Path(__file__).resolve().parent
  inside = package / "configs"
  return inside if inside.is_dir() else package.parent / "configs"


def _find_config(name: str) -> pathlib.Path:
  """Returns the file of a configuration.

  Args:
    name: name of a configuration of the package, such as "generate", or a path.

  Raises:
    FileNotFoundError: no such file.
  """
  path, what = pathlib.Path(name), "configuration file"
  known = sorted(str(p) for p in path.parent.glob("*.py"))
  if path.suffix != ".py" and path.name == name:
    folder, what = _shipped_configs(), "configuration"
    known = [p.stem for p in folder.glob("*.py") if p.stem != "common"]
    path = folder / f"{name}.py"
  if not path.is_file():
    raise FileNotFoundError(f"no {what} {name!r}{nearest(name, known)}")
  if path.suffix != ".py":
    raise ValueError(f"configuration file {name!r} must end in .py")
  return path


def beside(source: str, name: str, variant: str = "base") -> str:
  """Returns the source of another configuration, from where `source` is.

  Args:
    source: what --config named, such as "configs/stage2.py:small" or "stage2".
    name: name of the other configuration, such as "vae".
    variant: variant of the other configuration; "base" is not written.
  """
  path = pathlib.Path(source.partition(":")[0])
  other = str(path.with_name(f"{name}{path.suffix}"))
  return other if variant == "base" else f"{other}:{variant}"


def load_config(source: str) -> "ml_collections.ConfigDict":
  """Runs get_config(variant) of a configuration.

  Args:
    source: "NAME", "FILE", "NAME:VARIANT" or "FILE:VARIANT".

  Raises:
    FileNotFoundError: there is no such configuration.
    ValueError: the file has no get_config, or not this variant.
  """
  name, _, variant = source.partition(":")
  path = _find_config(name)
  _find_common(path.resolve().parent)
  spec = importlib.util.spec_from_file_location(f"_config_{path.stem}", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, "get_config"):
    raise ValueError(f"{name!r} must define get_config()")
  return module.get_config(variant) if variant else module.get_config()


def _find_common(folder: pathlib.Path) -> None:
  """Lets `from configs import common` find the folder's, or else the shipped.

  Installed, the configurations lie inside this package, under another name.
  """
  if "configs" not in sys.modules:
    sys.modules["configs"] = types.ModuleType("configs")
    sys.modules["configs"].__path__ = []
  places = sys.modules["configs"].__path__
  for place in map(str, (folder, _shipped_configs())):
    if place not in places:
      places.append(place)


class _TupleParser(absl_flags.ArgumentParser):
  """Of tuples: 1,998 or (1, 998), and bare words: vae,denoiser."""

  def parse(self, argument):
    if isinstance(argument, tuple):
      return argument
    items = argument.strip("()[] ,")
    return tuple(map(_item, items.split(","))) if items else ()

  def flag_type(self):
    return "tuple"


def _item(text):
  try:
    return ast.literal_eval(text.strip())
  except (ValueError, SyntaxError):
    return text.strip()


def override(config: "ml_collections.ConfigDict", key: str, text: str) -> None:
  """Sets one dotted key of a configuration from text.

  Raises:
    ValueError: unknown key, or a value of another type.
  """
  from ml_collections import config_flags

  leaves = flatten(config)
  if key not in leaves:
    raise ValueError(f"unknown configuration key {key!r}{nearest(key, leaves)}")
  default = leaves[key]
  config_flags.register_flag_parser_for_type(tuple, _TupleParser())
  values, flag = absl_flags.FlagValues(), f"--config.{key}={text}"
  try:
    config_flags.DEFINE_config_dict(
      "config", config, flag_values=values, sys_argv=["", flag]
    )
    values(["", flag])
    _check_items(default, flatten(config)[key])
  except (absl_flags.Error, TypeError, ValueError) as error:
    field = config
    *parents, last = key.split(".")
    for parent in parents:
      field = field[parent]
    kind = field.get_type(last).__name__
    raise ValueError(
      f"--config.{key}={text!r} must be of type {kind} (default {default!r})"
    ) from error


def _check_items(default, value) -> None:
  """Refuses a word in a tuple of numbers."""
  if isinstance(default, tuple) and default:
    words = all(isinstance(item, str) for item in default)
    if not words and any(isinstance(item, str) for item in value):
      raise ValueError(f"{value} must hold numbers alone")


def parse(argv: list[str]) -> Flags:
  """Parses the command line.

  Raises:
    ValueError: unknown flag or key, missing or mistyped value.
    FileNotFoundError: no such configuration.
    SystemExit: --help was asked for.
  """
  values = absl_flags.FlagValues()
  values.set_gnu_getopt(True)
  options = dict(flag_values=values)
  absl_flags.DEFINE_string("config", None, "what to do", **options)
  absl_flags.DEFINE_string("workdir", None, "where results go", **options)
  absl_flags.DEFINE_bool("multihost", False, "join others", **options)
  absl_flags.DEFINE_string("compile_for", None, "a TPU slice", **options)
  absl_flags.DEFINE_bool("help", False, "this text", short_name="h", **options)
  try:
    _, *rest = values(["", *argv], known_only=True)
  except absl_flags.Error as error:
    raise ValueError(str(error)) from None
  overrides = _split(rest)
  if values.config is None:
    if values.help or not argv:
      print(USAGE, end="")
      raise SystemExit(0 if argv else 2)
    raise ValueError("--config=FILE is missing (see --help)")
  config = load_config(values.config)
  for key, text in overrides:
    override(config, key, text)
  if values.help:
    print(USAGE)
    for key, value in flatten(config).items():
      print(f"  --config.{key}={value!r}")
    raise SystemExit(0)
  return Flags(
    config,
    values.config,
    values.workdir,
    values.multihost,
    values.compile_for,
  )


def _split(rest: list[str]) -> list[tuple[str, str]]:
  """(key, value) of what absl did not know: --config.key=value or ... value.

  Raises:
    ValueError: an unknown flag, or a missing value.
  """
  overrides, words = [], list(rest)
  while words:
    word = words.pop(0)
    flag, equals, text = word.partition("=")
    if not flag.startswith("--config."):
      raise ValueError(f"unknown flag {flag!r}{nearest(flag, _KNOWN)}")
    if not equals:
      if not words or words[0].startswith("--"):
        raise ValueError(f"{flag} needs a value: {flag}=VALUE")
      text = words.pop(0)
    overrides.append((flag.removeprefix("--config."), text))
  return overrides
