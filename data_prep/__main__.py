"""Command line of the data sets: python -m data_prep NAME ..."""

import argparse
import os
import sys

_EPILOG = """\
A first data set, in seconds:
  python -m data_prep simulated --output data/simulated
  python -m data_prep describe data/simulated

A run that was interrupted goes on where it stopped when it is started again;
one that is finished does nothing. `python -m data_prep NAME --help` explains
the options of NAME.
"""


def _add_output(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--output", required=True, metavar="DIR", help="directory to write"
  )


def _add_workers(parser: argparse.ArgumentParser) -> None:
  cpus = os.cpu_count() or 1
  parser.add_argument(
    "--workers",
    type=int,
    default=cpus,
    metavar="N",
    help=f"processes; the result is the same for any number (default {cpus})",
  )


def _add_simulated(parser: argparse.ArgumentParser) -> None:
  _add_output(parser)
  _add_workers(parser)
  for name, default, about in (
    ("patients", 500, "number of patients"),
    ("recordings", 5, "recordings of each patient"),
    ("seed", 0, "of all that is drawn"),
  ):
    parser.add_argument(
      f"--{name}",
      type=int,
      default=default,
      metavar="N",
      help=f"{about} (default {default})",
    )
  parser.add_argument(
    "--limit",
    type=int,
    metavar="N",
    help="stop with the patient that makes it N recordings",
  )


def _simulated(args: argparse.Namespace) -> None:
  from data_prep import simulated

  patients = args.patients
  if args.limit is not None:
    patients = min(patients, -(-args.limit // max(1, args.recordings)))
  simulated.prepare(
    args.output,
    patients=patients,
    recordings=args.recordings,
    seed=args.seed,
    workers=args.workers,
  )


def _add_encode(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--data", required=True, metavar="DIR", help="data set of ECGs"
  )
  parser.add_argument(
    "--vae",
    required=True,
    metavar="DIR",
    help="trained autoencoder: a run, a checkpoint of it, or a twin",
  )
  _add_output(parser)
  parser.add_argument(
    "--batch_size",
    type=int,
    default=256,
    metavar="N",
    help="ECGs per call, on all devices together (default 256)",
  )


def _encode(args: argparse.Namespace) -> None:
  from data_prep import encode

  encode.encode_with(
    args.data, args.vae, args.output, batch_size=args.batch_size
  )


def _add_describe(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("data", metavar="DIR", help="data set")


def _describe(args: argparse.Namespace) -> None:
  from data_prep import describe

  describe.describe(args.data)


# What a command does, its options, and its function. The modules are imported
# by the functions: no command waits for the libraries of another.
_COMMANDS = {
  "simulated": (
    "write a data set of simulated patients; nothing to download",
    _add_simulated,
    _simulated,
  ),
  "encode": (
    "turn a data set of ECGs into one of latents, by a trained autoencoder",
    _add_encode,
    _encode,
  ),
  "describe": (
    "print what a data set holds, and draw its histograms as describe.png",
    _add_describe,
    _describe,
  ),
}


def main(arguments: list[str] | None = None) -> int:
  """Runs the named command; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog="python -m data_prep",
    description="Prepares the data sets that ecgtwin_jax trains on.",
    epilog=_EPILOG,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  names = parser.add_subparsers(metavar="NAME", required=True)
  for name, (about, add_options, run) in _COMMANDS.items():
    command = names.add_parser(name, help=about, description=about)
    add_options(command)
    command.set_defaults(run=run)
  args = parser.parse_args(arguments)
  try:
    args.run(args)
  except (ValueError, FileNotFoundError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  return 0


if __name__ == "__main__":
  sys.exit(main())
