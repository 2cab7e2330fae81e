"""The command line: what is read, and what a typo gets."""

import pathlib
import re

import pytest

from ecgtwin_jax import config_help, flags

STAGE2 = "--config=configs/stage2.py:smoke"


def test_values_are_read_as_the_type_of_their_default():
  parsed = flags.parse(
    [
      STAGE2,
      "--config.batch_size=32",
      "--config.remat=true",
      "--config.optimizer.ema=0.5",
      "--config.timesteps=1,998",
      "--config.latent_scale=0.2",
      "--config.init_from=some/where",
      "--config.data=Some/Where",
      "--workdir",
      "elsewhere",
    ]
  )
  config = parsed.config
  assert config.batch_size == 32
  assert config.remat is True
  assert config.optimizer.ema == 0.5
  assert config.timesteps == (1, 998)
  assert config.latent_scale == 0.2
  assert config.init_from == "some/where"
  assert config.data == "Some/Where"
  assert parsed.workdir == "elsewhere"
  assert not parsed.multihost
  again = flags.parse(
    [STAGE2, "--config.remat=true", "--config.remat=False", "--multihost"]
  )
  assert again.config.remat is False
  assert again.multihost
  assert again.workdir is None


@pytest.mark.parametrize(
  ("argument", "message"),
  [
    ("--config.batchsize=32", "did you mean 'batch_size'"),
    ("--config.optimizer.learning_rat=1", "'optimizer.learning_rate'"),
    ("--wokdir=x", "did you mean '--workdir'"),
    ("--config.batch_size=many", "must be of type int"),
    ("--config.remat=perhaps", "must be of type bool"),
    ("--workdir", "Missing value for flag --workdir"),
    ("--config.seed", "--config.seed needs a value: --config.seed=VALUE"),
  ],
)
def test_a_typo_names_the_nearest_key_or_the_type(argument, message):
  with pytest.raises(ValueError, match=message):
    flags.parse([STAGE2, argument])


@pytest.mark.parametrize(
  ("source", "message"),
  [
    ("configs/stage3.py", "did you mean 'configs/stage"),
    ("configs/stage2.py:bse", "variant='bse' must be one of base, paper"),
  ],
)
def test_a_missing_file_or_variant_is_named(source, message):
  with pytest.raises((FileNotFoundError, ValueError), match=message):
    flags.parse([f"--config={source}"])


def test_a_command_without_a_configuration_is_told_so(capsys):
  with pytest.raises(
    ValueError, match="a command is missing, such as generate"
  ):
    flags.parse(["--workdir=x"])
  for arguments, code in (([], 2), (["--help"], 0)):
    with pytest.raises(SystemExit) as stop:
      flags.parse(arguments)
    assert stop.value.code == code
    assert flags.USAGE in capsys.readouterr().out


def test_help_lists_the_keys(capsys):
  with pytest.raises(SystemExit) as stop:
    flags.parse([STAGE2, "--help"])
  assert stop.value.code == 0
  assert "--optimizer.learning_rate=" in capsys.readouterr().out


STAGES = ("vae", "stage1", "stage2")
JUDGES = ("clip", "identity", "classifier")
VARIANTS = (
  *(
    (name, v) for name in STAGES for v in "base paper small smoke demo".split()
  ),
  *((name, v) for name in JUDGES for v in "base small smoke".split()),
  *(("diagnose", v) for v in "base small smoke".split()),
)


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_every_variant_is_complete_locked_and_static(name, variant):
  from ml_collections import FrozenConfigDict

  config = flags.load_config(f"configs/{name}.py:{variant}")
  assert config.is_locked
  assert isinstance(hash(FrozenConfigDict(config)), int)
  with pytest.raises(AttributeError):
    config.no_such_key = 1


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("amplitude,limb_lead", ("amplitude", "limb_lead")),
    ("('amplitude',)", ("amplitude",)),
    ("", ()),
  ],
)
def test_a_tuple_of_words(text, words):
  config = flags.load_config("configs/evaluate.py")
  flags.override(config, "not_applicable", text)
  assert config.not_applicable == words


def test_a_word_among_numbers_is_refused():
  config = flags.load_config("configs/stage2.py")
  with pytest.raises(ValueError, match="timesteps='0,last' must be of type tu"):
    flags.override(config, "timesteps", "0,last")


@pytest.mark.parametrize("name", ["generate", "stage2:smoke"])
def test_a_name_is_a_configuration_of_the_package_everywhere(
  name, tmp_path, monkeypatch
):
  stem, _, variant = name.partition(":")
  file = f"configs/{stem}.py:{variant}" if variant else f"configs/{stem}.py"
  expected = flags.load_config(file)
  monkeypatch.chdir(tmp_path)
  assert flags.load_config(name) == expected
  parsed = flags.parse([f"--config={name}", "--config.seed", "7"])
  assert (parsed.source, parsed.config.seed) == (name, 7)
  with pytest.raises(FileNotFoundError, match="did you mean 'stage"):
    flags.load_config("stage3:smoke")


@pytest.mark.parametrize(
  ("source", "other"),
  [
    ("stage2", "vae"),
    ("stage2:small", "vae"),
    ("configs/stage2.py:small", "configs/vae.py"),
    ("/a/b/stage2.py", "/a/b/vae.py"),
  ],
)
def test_other_configurations_lie_beside(source, other):
  assert flags.beside(source, "vae") == other
  assert flags.beside(source, "vae", "small") == f"{other}:small"


def test_a_configuration_of_ones_own_finds_what_the_shipped_share(tmp_path):
  text = "from configs import common\n\n\ndef get_config():\n"
  text += "  return common.training('vae', 'mine', 'smoke')\n"
  (tmp_path / "mine.py").write_text(text)
  config = flags.load_config(str(tmp_path / "mine.py"))
  assert config.workdir == "runs/smoke/mine"


@pytest.mark.parametrize(
  ("command", "longer"),
  [
    (
      "generate DIR/s0010 --now A --target=A|B --rate 80 --num-samples=2",
      "--config=generate --config.record=DIR/s0010 --config.now.statements=A "
      "--config.target.statements=A|B --config.target.heart_rate=80 "
      "--config.num_samples=2",
    ),
    (
      "--workdir=x edit --steps 4 --add B rec --weight -1 --consistent_leads",
      "--config=edit --workdir=x --config.sampling.steps=4 --config.add=B "
      "--config.record=rec --config.weight=-1 "
      "--config.sampling.consistent_leads=true",
    ),
    (
      "explain --of_record rec --now.age=50",
      "--config=explain --config.of_record=True --config.record=rec "
      "--config.now.age=50",
    ),
    (
      "evaluate DIR --data=b --levels=person,truth",
      "--config=evaluate --config.twin=DIR --config.data=b "
      "--config.levels=person,truth",
    ),
    (
      "train configs/stage2.py:smoke --seed 3 --learning_rate=1e-3 --multihost",
      "--config=configs/stage2.py:smoke --config.seed=3 --multihost "
      "--config.optimizer.learning_rate=1e-3",
    ),
    (
      "generate --config.seed 3 --rate=70",
      "--config=generate --seed=3 --rate=70",
    ),
  ],
)
def test_a_command_is_short_for_a_configuration(command, longer):
  short, long = (flags.parse(text.split()) for text in (command, longer))
  assert short == long


@pytest.mark.parametrize(
  ("command", "message"),
  [
    ("genrate", "no configuration 'genrate'; did you mean 'generate'"),
    ("train", "train needs a stage: ecgtwin train stage2:small"),
    ("generate a b", "'b' is neither a command nor a flag"),
    ("train vae:smoke a", "'a' is neither a command nor a flag"),
    ("generate --statements=A", "be --now.statements or --target.statements"),
    ("generate --stpes=3", "unknown flag '--stpes'; did you mean '--steps'"),
    ("evaluate --rate=80", "unknown flag '--rate'"),
    ("generate --rate", "--rate needs a value: --rate=VALUE"),
    ("generate --rate=fast", "target.heart_rate='fast' must be of type float"),
    ("--rate=80", "unknown flag '--rate'"),
  ],
)
def test_a_command_that_cannot_be_read_is_told_why(command, message):
  with pytest.raises((FileNotFoundError, ValueError), match=message):
    flags.parse(command.split())


CONFIGS = sorted(
  path.stem
  for path in pathlib.Path("configs").glob("*.py")
  if path.stem != "common"
)


@pytest.mark.parametrize("name", CONFIGS)
def test_help_says_what_each_key_means(name, capsys):
  with pytest.raises(SystemExit):
    flags.parse([name, "--help"])
  said = capsys.readouterr().out
  lines = said[said.index("Keys:") :].splitlines()
  keys = [i for i, line in enumerate(lines) if line.startswith("  --")]
  assert len(keys) == len(flags.flatten(flags.load_config(name)))
  for i in keys:
    assert re.match(r"      \S", lines[i + 1]), f"{lines[i]} says nothing"


def test_meanings_are_the_comments_of_the_file(tmp_path):
  (tmp_path / "mine.py").write_text(
    "def get_config():\n"
    "  config = make()\n"
    "  # Two lines\n  # above.\n  config.above = 1\n\n"
    "  config.model = dict(  # the net\n    width=3,  # of it\n"
    "    depth=dict(low=1),\n  )\n"
    "  config.bare = 2\n"
  )
  meanings = [config_help.read_meanings(tmp_path / "mine.py")]
  found = {
    key: config_help.find_meaning(key, meanings)
    for key in ("above", "model.width", "model.depth.low", "now.above", "bare")
  }
  assert found == {
    "above": "Two lines above.",
    "model.width": "of it",
    "model.depth.low": "the net",
    "now.above": "Two lines above.",
    "bare": "",
  }
