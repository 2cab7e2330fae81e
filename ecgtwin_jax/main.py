"""python -m ecgtwin_jax.main --config=FILE: trains, generates, demonstrates."""

import os
import sys
import traceback

from ecgtwin_jax import flags as flags_module

TRACEBACK = "ECGTWIN_TRACEBACK"
TRAINING = ("train", "diagnose", "demo")  # jobs that do


def run(flags: flags_module.Flags) -> None:
  """Does the configuration's job; imports only what that job needs."""
  config = flags.config
  if flags.workdir is not None:
    config.workdir = flags.workdir
  if config.job in TRAINING:
    from ecgtwin_jax.training import host_memory

    host_memory.keep_freed()
  else:
    from ecgtwin_jax import sharding

    sharding.use_cores()
  if flags.multihost:
    import jax

    jax.distributed.initialize()
  _set_compilation_cache(config.workdir)
  match config.job:
    case "train":
      from ecgtwin_jax.jobs import train

      train.train_stage(config, flags.config_file)
    case "generate":
      from ecgtwin_jax.jobs import generate

      generate.run(config)
    case "explain":
      from ecgtwin_jax.jobs import explain

      explain.run(config)
    case "edit":
      from ecgtwin_jax.jobs import edit

      edit.run(config)
    case "app":
      from ecgtwin_jax.app import serve

      serve.run(config)
    case "evaluate":
      from ecgtwin_jax.evaluation import evaluate

      evaluate.run(config)
    case "diagnose":
      from ecgtwin_jax.evaluation.diagnosis import job

      job.run(config, flags.config_file)
    case "demo":
      from ecgtwin_jax.jobs import demo

      demo.run(config, flags.config_file)
    case unknown:
      raise ValueError(
        f"config.job={unknown!r} must be train, generate, explain, edit, app, "
        "evaluate, diagnose or demo"
      )


def _set_compilation_cache(workdir: str) -> None:
  """Keeps compiled programs beside the workdir, unless told where to."""
  import jax

  if jax.config.jax_compilation_cache_dir is None:
    parent = os.path.dirname(os.path.abspath(workdir))
    cache = os.path.join(parent, "jax_cache")
    jax.config.update("jax_compilation_cache_dir", cache)
    if jax.process_index() == 0:
      print(f"compiled programs are kept in {cache}", flush=True)


def main(argv: list[str] | None = None) -> int:
  """Returns the exit code; a user's error is one line on stderr."""
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


if __name__ == "__main__":
  sys.exit(main())
