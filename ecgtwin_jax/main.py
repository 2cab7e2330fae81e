"""The command `ecgtwin`: trains, generates, demonstrates."""

import importlib
import os
import pathlib
import sys
import traceback
import warnings
from typing import NamedTuple

from ecgtwin_jax import flags as flags_module

TRACEBACK = "ECGTWIN_TRACEBACK"


class EntryPoint(NamedTuple):
  """Where the function of a job is.

  Attributes:
    module: the module that holds it; only that of the chosen job is imported.
    function: name of a function of (config), or of (config, source) where the
      job trains.
    trains: whether the job trains.
  """

  module: str
  function: str = "run"
  trains: bool = False


JOBS = {
  "train": EntryPoint("jobs.train", "train_stage", trains=True),
  "generate": EntryPoint("jobs.generate"),
  "explain": EntryPoint("jobs.explain"),
  "edit": EntryPoint("jobs.edit"),
  "app": EntryPoint("app.serve"),
  "evaluate": EntryPoint("evaluation.evaluate"),
  "diagnose": EntryPoint("evaluation.diagnosis.job", trains=True),
  "demo": EntryPoint("jobs.demo", trains=True),
}


def run(flags: flags_module.Flags) -> None:
  """Does the configuration's job; imports only what that job needs."""
  config = flags.config
  if flags.workdir is not None:
    config.workdir = flags.workdir
  if config.job not in JOBS:
    raise ValueError(f"config.job={config.job!r} must be one of {list(JOBS)}")
  job = JOBS[config.job]
  if flags.compile_for is not None:
    from ecgtwin_jax.jobs import compile_for

    compile_for.run(config, flags.compile_for)
    return
  if job.trains:
    from ecgtwin_jax.training import host_memory

    host_memory.keep_freed()
  else:
    from ecgtwin_jax import sharding

    sharding.use_cores()
  if flags.multihost:
    import jax

    jax.distributed.initialize()
  _keep_compiled()
  module = importlib.import_module(f"ecgtwin_jax.{job.module}")
  function = getattr(module, job.function)
  function(config, flags.source) if job.trains else function(config)


def _keep_compiled() -> None:
  """Keeps compiled programs in the user's cache folder, unless told where."""
  import jax

  if jax.config.jax_compilation_cache_dir is None:
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    cache = os.path.join(home, "ecgtwin_jax", "jax")
    jax.config.update("jax_compilation_cache_dir", cache)
    # Small ones, too: there are many, and each takes a moment of every command.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    if jax.process_index() == 0:
      print(f"compiled programs are kept in {cache}", flush=True)


def _format_warning(message, category, *where, **line) -> str:
  """What a user is warned of is a line, without the code that says it."""
  if category is UserWarning:
    return f"warning: {' '.join(str(message).split())}\n"
  return _FORMAT(message, category, *where, **line)


_FORMAT = warnings.formatwarning


def main(argv: list[str] | None = None) -> int:
  """Returns the exit code; a user's error is one line on stderr."""
  warnings.formatwarning = _format_warning
  try:
    run(flags_module.parse(sys.argv[1:] if argv is None else argv))
  except (Exception, KeyboardInterrupt) as error:
    expected = isinstance(error, (ValueError, OSError))
    alone = not _joined()
    if alone and (not expected or os.environ.get(TRACEBACK)):
      raise
    if expected and not os.environ.get(TRACEBACK):
      text = " ".join(str(error).split())
      print(
        f"error: {text} (set {TRACEBACK}=1 for the traceback)", file=sys.stderr
      )
    else:
      traceback.print_exc()
    if not alone:
      # The others wait for this process at their next step, and Python's exit
      # would wait for them: five minutes, then both abort.
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(1)
    return 1
  return 0


def _joined() -> bool:
  """True where this is one process of several."""
  if "jax" not in sys.modules:
    return False
  import jax

  return jax.distributed.is_initialized()


def _leave(code: int) -> None:
  """Ends the process; one of several at once, when the others are done, too.

  About one of a hundred such processes hang in the exit of jaxlib on a CPU.
  """
  if _joined():
    import jax

    jax.distributed.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  sys.exit(code)


if __name__ == "__main__":
  _leave(main())
