"""The command line: ecgtwin COMMAND [RECORD] --KEY=VALUE, or --config=NAME.

absl reads the flags and ml_collections' config_flags the values; a mistyped one
is answered in one line that names the nearest key.
"""

import ast
import difflib
import importlib.util
import pathlib
import sys
import textwrap
import types
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags as absl_flags

if TYPE_CHECKING:
  import ml_collections

USAGE = """usage: ecgtwin COMMAND [RECORD] [options]
   or: python -m ecgtwin_jax.main COMMAND [RECORD] [options]

  generate [RECORD]      ECGs of one person under another condition
  explain [RECORD]       which statement each part of them attends to
  edit [RECORD]          ECGs, and the same ECGs with one statement changed
  evaluate [TWIN]        a report of how good a twin is
  train STAGE[:VARIANT]  vae, stage1, rhythm, stage2, clip, identity, classifier
                         (variants: base, paper, small, smoke)
  app, demo, diagnose    a page in the browser; everything at small size; do
                         twins help to diagnose?

  --KEY=VALUE            change a value of the command's configuration; of a
                         dotted key its last words are enough where no other
                         key has them (--steps for --sampling.steps)
  --now, --target        what RECORD shows and what is asked for: statements
                         with | between (--now.statements, --target.statements)
  --rate                 heart rate that is asked for (--target.heart_rate)
  --workdir=DIR          where results go (default: the command's workdir)
  --multihost            join the other processes of this run first
  --compile_for=SLICE    of a training: what its step would cost on a TPU slice,
                         such as v5e-256; nothing is run
  --help                 this text; after COMMAND: its keys and their meanings

  ecgtwin generate RECORD --now "Sinus rhythm" \\
    --target "Sinus rhythm|Left bundle branch block" --rate 80

A configuration may be named as a file, and each key as it stands there:
--config=configs/generate.py --config.target.heart_rate=80.
"""
_KNOWN = ("--config", "--workdir", "--multihost", "--compile_for", "--help")
# What a word that is no flag says, by the configuration's job.
_WORDS = {
  **{job: "record" for job in ("generate", "explain", "edit", "app", "demo")},
  "evaluate": "twin",
}
# Short names of keys.
_SHORT = {
  "now": "now.statements",
  "target": "target.statements",
  "rate": "target.heart_rate",
}


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
    ValueError: the file is no Python, has no get_config, or not this variant.
  """
  name, _, variant = source.partition(":")
  path = _find_config(name)
  _find_common(path.resolve().parent)
  spec = importlib.util.spec_from_file_location(f"_config_{path.stem}", path)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except SyntaxError as error:
    raise ValueError(
      f"{error.filename}, line {error.lineno}: {error.msg}"
    ) from None
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
    _, *words = values(["", *argv], known_only=True)
  except absl_flags.Error as error:
    raise ValueError(str(error)) from None
  source = values.config or _take_command(words)
  if source is None:
    if values.help or not argv:
      print(USAGE, end="")
      raise SystemExit(0 if argv else 2)
    if words:
      _refuse(words[0].partition("=")[0], {})
    raise ValueError("a command is missing, such as generate (see --help)")
  config = load_config(source)
  for key, text in _split(words, config):
    override(config, key, text)
  if values.help:
    _print_help(source, config)
    raise SystemExit(0)
  return Flags(
    config, source, values.workdir, values.multihost, values.compile_for
  )


def _take_command(words: list[str]) -> str | None:
  """Takes the configuration's name from the words; None: there is none."""
  if not words or words[0].startswith("-"):
    return None
  name = words.pop(0)
  if name != "train":
    return name
  if not words or words[0].startswith("-"):
    raise ValueError("train needs a stage: ecgtwin train stage2:small")
  return words.pop(0)


def _split(
  words: list[str], config: "ml_collections.ConfigDict"
) -> list[tuple[str, str]]:
  """(key, text of its value) of what absl did not know.

  Raises:
    ValueError: an unknown flag, a missing value, or a word that says nothing.
  """
  overrides, leaves, words = [], flatten(config), list(words)
  free = _WORDS.get(config.job)
  while words:
    word = words.pop(0)
    flag, equals, text = word.partition("=")
    if not flag.startswith("--"):
      if free is None or flag.startswith("-"):
        raise ValueError(
          f"{word!r} is neither a command nor a flag (see --help)"
        )
      overrides.append((free, word))
      free = None
      continue
    if flag.startswith("--config."):
      key = flag.removeprefix("--config.")
    else:
      key = _find_key(flag, leaves)
      if not equals and isinstance(leaves[key], bool):
        overrides.append((key, "true"))
        continue
    if not equals:
      if not words or words[0].startswith("--"):
        raise ValueError(f"{flag} needs a value: {flag}=VALUE")
      text = words.pop(0)
    overrides.append((key, text))
  return overrides


def _find_key(flag: str, leaves: dict[str, Any]) -> str:
  """The key that a flag means: whole, by a short name, or by its last words.

  Raises:
    ValueError: none, or several.
  """
  name = flag.removeprefix("--").replace("-", "_")
  if name in leaves:
    return name
  if _SHORT.get(name) in leaves:
    return _SHORT[name]
  ends = [key for key in leaves if key.endswith(f".{name}")]
  if len(ends) > 1:
    choice = " or ".join(f"--{key}" for key in ends)
    raise ValueError(f"{flag} may be {choice}: give one of them")
  return ends[0] if ends else _refuse(flag, leaves)


def _refuse(flag, leaves):
  """Raises for an unknown flag; names the nearest."""
  short = [name for name, key in _SHORT.items() if key in leaves]
  ends = [key.rpartition(".")[2] for key in leaves]
  known = [*_KNOWN, *(f"--{name}" for name in (*leaves, *short, *ends))]
  raise ValueError(f"unknown flag {flag!r}{nearest(flag, known)}")


def _print_help(source: str, config: "ml_collections.ConfigDict") -> None:
  """Prints what a configuration is for, and its keys with their meanings."""
  from ecgtwin_jax import config_help

  path = _find_config(source.partition(":")[0])
  files = [path, path.with_name("common.py"), _shipped_configs() / "common.py"]
  meanings = [config_help.read_meanings(f) for f in files if f.is_file()]
  print(f"{config_help.read_purpose(path)}\n\nKeys:")
  for key, value in flatten(config).items():
    print(f"  --{key}={value!r}")
    meaning = config_help.find_meaning(key, meanings)
    print(textwrap.indent(textwrap.fill(meaning, 72), " " * 6))
  print("\nSee ecgtwin --help for short names of keys, and what else there is.")
