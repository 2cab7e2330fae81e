"""Command line of the data sets: python -m data_prep NAME ..."""

import argparse
import os
import sys

_EPILOG = """\
A first data set, in seconds:
  python -m data_prep simulated --output data/simulated
  python -m data_prep describe data/simulated

Recordings that break a rule of quality are left out, each with its reason in
quality.jsonl of the data set; the rest is written: read = written + rejected.
A run that was interrupted goes on where it stopped when it is started again;
one that is finished does nothing. `python -m data_prep NAME --help` explains
the options of NAME.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
  """Adds what all commands that make ECGs have in common."""
  _add_output(parser)
  _add_workers(parser)
  parser.add_argument(
    "--encoder",
    default="hashed-v1",
    metavar="NAME",
    help="what turns statements into vectors: hashed-v1 (spelling; needs"
    " nothing; default), nomic-embed-text-v1.5 (language model, from the"
    " Hugging Face cache), or a folder with such a model",
  )
  parser.add_argument(
    "--beam_options",
    metavar="TEXT",
    help="run on Apache Beam instead of --workers, with these options of its"
    ' pipeline: --beam_options="--runner=DirectRunner --direct_num_workers=4'
    ' --direct_running_mode=multi_processing"; all workers must see the same'
    " folders",
  )


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


def _add_numbers(parser: argparse.ArgumentParser, *numbers) -> None:
  for name, default, about in numbers:
    parser.add_argument(
      f"--{name}",
      type=int,
      default=default,
      metavar="N",
      help=about if default is None else f"{about} (default {default})",
    )


def _add_simulated(parser: argparse.ArgumentParser) -> None:
  _add_options(parser)
  _add_numbers(
    parser,
    ("patients", 500, "number of patients"),
    ("recordings", 5, "recordings of each patient"),
    ("seed", 0, "of all that is drawn"),
    ("limit", None, "stop with the patient that makes it N recordings"),
  )


def _simulated(args: argparse.Namespace) -> None:
  from data_prep import simulated

  options = _options(args)
  limit = options.pop("limit")
  if limit is not None:
    patients = -(-limit // max(1, args.recordings))
    options["patients"] = min(args.patients, patients)
  simulated.prepare(**options)


def _options(args: argparse.Namespace) -> dict:
  """Returns the arguments that a function `prepare` takes."""
  return {name: x for name, x in vars(args).items() if name != "run"}


def _add_input(parser: argparse.ArgumentParser, about: str) -> None:
  parser.add_argument("--input", required=True, metavar="DIR", help=about)
  _add_options(parser)


def _add_ptbxl(parser: argparse.ArgumentParser) -> None:
  _add_input(parser, "folder with ptbxl_database.csv, scp_statements.csv")
  parser.add_argument(
    "--sampling_rate",
    type=int,
    default=500,
    choices=(500, 100),
    help="of records500 or records100 (default 500)",
  )
  parser.add_argument(
    "--without_repeats",
    action="store_true",
    help="leave out patients with several recordings, to judge twins on",
  )
  _add_numbers(parser, ("limit", None, "rows of ptbxl_database.csv to read"))


def _ptbxl(args: argparse.Namespace) -> None:
  from data_prep import ptbxl

  ptbxl.prepare(**_options(args))


def _add_mimic_iv_ecg(parser: argparse.ArgumentParser) -> None:
  _add_input(
    parser, "folder with record_list.csv, machine_measurements.csv and files/"
  )
  parser.add_argument(
    "--patients",
    default="",
    metavar="FILE",
    help="patients.csv or patients.csv.gz of MIMIC-IV's module hosp, for ages"
    " and sexes (default: in the input or its folder hosp; else both are"
    " missing)",
  )
  parser.add_argument(
    "--exclude",
    default="",
    metavar="FILE",
    help="text file with a study_id or path per line to leave out",
  )
  _add_numbers(
    parser,
    ("seed", 0, "of the splits by patient"),
    ("limit", None, "rows of record_list.csv to read"),
  )


def _mimic_iv_ecg(args: argparse.Namespace) -> None:
  from data_prep import mimic_iv_ecg

  mimic_iv_ecg.prepare(**_options(args))


def _add_wfdb_folder(parser: argparse.ArgumentParser) -> None:
  _add_input(parser, "folder that the paths of the table start from")
  parser.add_argument(
    "--table",
    default="",
    metavar="FILE",
    help="CSV file with the columns record (path without suffix), patient_id,"
    " time (date or seconds), heart_rate (bpm; a blank or no such column:"
    " detected), age (years), sex (F or M), statements (separated by '|';"
    " a blank or no such column: no report, for the autoencoder alone);"
    " blank ages and sexes are stored as missing (default: recordings.csv in"
    " the input)",
  )
  parser.add_argument(
    "--licence",
    default="",
    metavar="TEXT",
    help="of the recordings; it goes into the card of the data set, and of"
    " every twin that is trained on it (default: not stated)",
  )
  _add_numbers(
    parser,
    ("seed", 0, "of the splits by patient"),
    ("limit", None, "rows of the table to read"),
  )


def _wfdb_folder(args: argparse.Namespace) -> None:
  from data_prep import wfdb_folder

  wfdb_folder.prepare(**_options(args))


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
  _add_workers(parser)
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
    args.data,
    args.vae,
    args.output,
    batch_size=args.batch_size,
    workers=args.workers,
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
  "ptbxl": (
    "write a data set of PTB-XL: 21,799 ECGs, open to all",
    _add_ptbxl,
    _ptbxl,
  ),
  "mimic_iv_ecg": (
    "write a data set of MIMIC-IV-ECG: 800,035 ECGs of 161,352 patients",
    _add_mimic_iv_ecg,
    _mimic_iv_ecg,
  ),
  "wfdb_folder": (
    "write a data set of any WFDB records that a CSV file lists",
    _add_wfdb_folder,
    _wfdb_folder,
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
  except (ValueError, OSError) as error:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 1
  return 0


if __name__ == "__main__":
  sys.exit(main())
