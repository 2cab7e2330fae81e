"""The commands that train the shipped twins: read, in order, and run."""

import argparse
import pathlib
import subprocess
import sys

import pytest

from data_prep import __main__ as data_prep
from ecgtwin_jax import flags
from studies import train_shipped


def made_and_read(command):
  """What a command writes, and what of the output's folders it reads."""
  values = dict(
    word.removeprefix("--").split("=", 1) for word in command if "=" in word
  )
  written = values.pop("output", None) or values.pop("workdir")
  folders = [
    part.split(":")[0] for value in values.values() for part in value.split(",")
  ]
  return written, {x for x in folders if x.startswith("out/")}


@pytest.mark.parametrize("unreported", [None, "folder"])
def test_each_reads_what_is_there_by_then(unreported, monkeypatch):
  class Parsed(Exception):
    pass

  parse = argparse.ArgumentParser.parse_args

  def parse_alone(self, given=None, namespace=None):
    raise Parsed(parse(self, given, namespace))

  monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_alone)
  made = set()
  for command in train_shipped.commands(
    "PTBXL", pathlib.Path("out"), unreported=unreported, licence="CC0"
  ):
    written, read = made_and_read(command)
    assert written not in made and read <= made, command
    made.add(written)
    if "train" in command:
      assert flags.parse(command[2:]).workdir == written
    else:
      with pytest.raises(Parsed) as parsed:
        data_prep.main(command[2:])
      if written == "out/unreported":
        assert parsed.value.args[0].licence == "CC0"
  assert "out/stage2_real" in made
  assert ("out/unreported" in made) == (unreported is not None)


def test_the_first_that_fails_ends_it(monkeypatch, tmp_path, capsys):
  ran = []

  def run(command, check):
    assert check and command[0] == sys.executable
    ran.append(command[1:])
    if "vae:small" in command:
      raise subprocess.CalledProcessError(75, command)

  monkeypatch.setattr(subprocess, "run", run)
  given = ["train_shipped", "--ptbxl=PTBXL", f"--output={tmp_path}"]
  monkeypatch.setattr(sys, "argv", [*given, "--dry_run"])
  train_shipped.main()
  assert not ran
  printed = capsys.readouterr().out.splitlines()
  monkeypatch.setattr(sys, "argv", given)
  with pytest.raises(subprocess.CalledProcessError):
    train_shipped.main()
  assert len(ran) == 1 + sum("data_prep simulated" in x for x in printed) + 1
  assert printed[0].startswith("python -m data_prep simulated --patients=10000")
