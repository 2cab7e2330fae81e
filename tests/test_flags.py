"""The command line: what is read, and what a typo gets."""

import pytest

from ecgtwin_jax import flags

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
  with pytest.raises(ValueError, match="--config=FILE is missing"):
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
  assert "--config.optimizer.learning_rate=" in capsys.readouterr().out


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
