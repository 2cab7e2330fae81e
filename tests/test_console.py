"""The commands and snippets of README and docs, run as they stand there.

Each command is at least read by its own parser. Quick ones are run, on the
smoke twin and in this process; what takes longer is marked slow, or is run by
the test file that stands beside it in `ELSEWHERE`.
"""

import argparse
import configparser
import os
import pathlib
import re
import shutil

import matplotlib.pyplot as plt
import pytest

import ecgtwin_jax as et
from data_prep import __main__ as data_prep
from ecgtwin_jax import flags, main
from ecgtwin_jax.data.ecg import EXAMPLE_RECORD
from ecgtwin_jax.evaluation import benchmark
from ecgtwin_jax.torch_import import convert
from helpers.commands import read_commands

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [
  *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
  *sorted(ROOT.glob("docs/*.md")),
  *(ROOT / name for name in ("launch/README.md", "studies/RESULTS.md")),
]
PROGRAMS = {
  "python -m data_prep": data_prep.main,
  "ecgtwin-data": data_prep.main,
  "ecgtwin-benchmark": benchmark.main,
  "python -m ecgtwin_jax.torch_import": convert.main,
}
TWINS = ("ecgtwin", "python -m ecgtwin_jax.main")
# What is not run here, and what runs it.
ELSEWHERE = {
  "pytest": "itself",
  "python": "test_export.py",
  "ruff": "itself",
  "hf": "a download",
  "npm": "a download",
  "python -m http.server": "Python's own; test_web_page.py serves the page",
  "gcloud": "an account",
  ".ci/lock": "the index of packages",
  ".ci/run": "CI",
  ".ci/sbom": "the index of packages",
  "launch/local_processes.sh": "test_launch_runs.py",
  "launch/gpu_slurm.sh": "test_launch.py",
  "launch/tpu_pod.sh": "test_launch.py",
  "python -m studies.simulated_against_real": "tests/studies",
  "python -m studies.finding_effect": "tests/studies",
  "python -m studies.next_beat": "tests/studies",
  "python -m benchmarks.slices": "test_slices.py",
  "python -m studies.train_shipped": "tests/studies",
}
JOBS = ("generate", "explain", "edit")  # that are run here


def split_program(words):
  """(program, its arguments): python -m NAME is one program."""
  count = 3 if words[:2] == ["python", "-m"] else 1
  return " ".join(words[:count]), words[count:]


COMMANDS = [
  pytest.param(*split_program(words), id=f"{page.stem}-{' '.join(words)[:70]}")
  for page in PAGES
  for words in read_commands(page)
]


class Parsed(Exception):
  """The arguments are fine, and nothing is run."""


@pytest.mark.parametrize(("program", "arguments"), COMMANDS)
def test_a_command_is_read_by_its_program(program, arguments, monkeypatch):
  if program == "pip":
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for extra in re.findall(r"\[(.*?)\]", " ".join(arguments)):
      for name in extra.split(","):
        assert name in setup["options.extras_require"]
  elif program in TWINS:
    if "--help" not in arguments:
      assert flags.parse(arguments).config.job in main.JOBS
  elif program in PROGRAMS:
    parse = argparse.ArgumentParser.parse_args

    def parse_alone(self, given=None, namespace=None):
      raise Parsed(parse(self, given, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_alone)
    with pytest.raises((Parsed, SystemExit)) as caught:
      PROGRAMS[program](arguments)
    assert caught.type is Parsed or caught.value.code == 0
  else:
    assert program in ELSEWHERE, f"nothing runs {program}"
    assert "/" not in program or (ROOT / program).exists()


def of_job(*jobs):
  """The commands of some jobs, with --help those alone that print it."""
  return [
    one
    for one in COMMANDS
    if one.values[0] in TWINS
    and "--help" not in one.values[1]
    and flags.parse(one.values[1]).config.job in jobs
  ]


def fill(arguments, chain, **places):
  """Puts folders that are there in the place of the page's."""
  places |= {"DIR/record": EXAMPLE_RECORD, "TWIN": chain / "stage2" / "twin"}
  filled = []
  for word in arguments:
    for name, path in places.items():
      word = re.sub(rf"(^|=){name}$", rf"\g<1>{path}", word)
    filled.append(word)
  return filled


@pytest.fixture
def away(tmp_path, monkeypatch):
  """An empty folder to work in, with the configurations in reach."""
  (tmp_path / "configs").symlink_to(ROOT / "configs")
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.mark.parametrize(("program", "arguments"), of_job(*JOBS))
def test_a_command_that_makes_ecgs(program, arguments, chain, away, recwarn):
  del program
  table = "record,now_statements,target_statements,target_heart_rate,n\n"
  table += f"{EXAMPLE_RECORD},Sinus rhythm,Pacing,70,1\n"
  for name in ("requests.csv", "task/requests.csv"):
    (away / name).parent.mkdir(exist_ok=True)
    (away / name).write_text(table)
  arguments = fill(arguments, chain)
  arguments += [f"--twin={chain}/stage2/twin", "--steps=1", "--num_samples=1"]
  results = ["generated", "explained", "edited"]
  if any("requests" in word for word in arguments):
    arguments.append("--batch_size=8")
    results = ["row"]
  assert main.main(arguments) == 0
  (record,) = [x for name in results for x in away.rglob(f"{name}.json")]
  assert '"synthetic": true' in record.read_text()


def test_commands_of_data(chain, away):
  """In the order of the page: what one makes, the next one takes."""
  shutil.copytree(ROOT / "tests" / "data" / "ptbxl", "PTBXL")
  places = {
    "data/ptbxl": "data/ptbxl",
    "DIR": "PTBXL",
    "runs/vae": chain / "vae",
  }
  done = []
  for param in COMMANDS:
    program, arguments = param.values
    run = program == "python -m data_prep" and arguments[0] in (
      *("ptbxl", "simulated", "encode", "describe"),
    )
    if not run or not param.id.startswith("data-"):
      continue
    name, *rest = fill(arguments, chain, **places)
    if name != "describe":
      rest.append("--workers=1")
    if name == "simulated":
      rest += ["--patients=3", "--recordings=2"]
    assert data_prep.main([name, *rest]) in (0, None)
    done.append(name)
  assert sorted(done) == ["describe", "encode", "ptbxl", "simulated"]
  assert (away / "data" / "latents" / "card.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("program", "arguments"), of_job("train"))
def test_a_training(program, arguments, chain, away, stage_config):
  del program, away
  parsed = flags.parse(arguments)
  if parsed.compile_for is not None:
    pytest.skip("test_compile_for.py")
  stem = pathlib.Path(parsed.source.partition(":")[0]).stem
  config = stage_config(stem)  # its smoke variant, on data that are there
  sizes = [f"--{k}={v}" for k, v in flags.flatten(config).items() if v == ""]
  given = {"data", "latents", "vae", "base_extractor", "rhythm", "workdir"}
  for key in given & set(config):
    sizes.append(f"--config.{key}={config[key]}")
  assert main.main([f"--config=configs/{stem}.py:smoke", *sizes]) == 0


@pytest.mark.slow
def test_an_evaluation(chain, away):
  for param in of_job("evaluate"):
    arguments = fill(param.values[1], chain, DIR=chain / "simulated")
    arguments += [f"--twin={chain}/stage2/twin", "--patients=3", "--steps=1"]
    arguments += ["--conditions=1", "--levels=person"]
    shutil.rmtree(away / "runs", ignore_errors=True)
    assert main.main(arguments) == 0
    assert (away / "runs" / "evaluated" / "report.html").exists()


@pytest.mark.parametrize(
  "page",
  [
    "README.md",
    pytest.param("docs/generating.md", marks=pytest.mark.slow),
  ],
)
def test_the_snippets_of_a_page_run_in_their_order(
  page, chain, away, monkeypatch
):
  twin = et.ECGTwin.from_checkpoint(chain / "stage2" / "twin")
  monkeypatch.setattr(et.ECGTwin, "from_pretrained", lambda name: twin)
  blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)
  names = {}
  for block in blocks:
    exec(compile(block, page, "exec"), names)
    plt.close("all")
  assert names["out"].signals.shape == (8, 1024, 12)
  assert et.read_ecg(away / "twin").sampling_rate == 102.4
  assert os.path.getsize("twin.png") > 10_000
