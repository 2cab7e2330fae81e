"""The twin that comes with the package: there, small, described, usable."""

import json
import pathlib
import re

import numpy as np
import pytest

import ecgtwin_jax as et
from ecgtwin_jax.data.ecg import example_ecg
from ecgtwin_jax.data.heart_rate import detect_heart_rate
from ecgtwin_jax.flags import load_config
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.inference.twin import load_twin
from ecgtwin_jax.jobs import generate

ROOT = pathlib.Path(__file__).parent.parent
SHIPPED = ROOT / "ecgtwin_jax" / "assets" / "simulated-small"
NOW = et.Condition(["Sinus rhythm", "Right bundle branch block"], 82)


def test_it_makes_ecgs_at_about_the_rate_asked_for():
  twin = et.ECGTwin.from_pretrained()
  base = twin.extract_base(example_ecg(), NOW)
  errors = []
  for rate, text in ((55, "Sinus bradycardia"), (115, "Sinus tachycardia")):
    out = twin.generate(base, et.Condition([text], rate), num_samples=4)
    assert out.signals.shape == (4, 1024, 12)
    assert 0.2 < np.abs(out.signals).max() < 8  # mV
    found = [detect_heart_rate(s, 102.4, "energy") for s in out.signals]
    errors.append(np.median(found) - rate)
  # A twin that ignored the rate would miss one of the two by 30 or more.
  assert np.abs(errors).max() < 3


def test_a_shape_temperature_draws_less_of_the_beat_than_of_the_rest():
  twin = et.ECGTwin.from_pretrained("simulated-small")
  base = twin.extract_base(example_ecg(), NOW)
  rows = np.round(102.4 * (0.6 + 0.8 * np.arange(1, 11))).astype(int)
  beats = " ".join(f"{0.6 + 0.8 * i:.1f}" for i in range(12))

  def draw(factor):
    out = twin.generate(
      base,
      et.Condition(["Sinus rhythm"], 75, 60, "F"),
      num_samples=16,
      beats=beats,
      temperature=1.0,
      shape_temperature=factor,
    )
    pieces = np.stack([out.signals[:, r - 25 : r + 50] for r in rows], axis=1)
    mean = pieces.mean(axis=1)
    return mean.std(axis=0).mean(), (pieces - mean[:, None]).std()

  shape, rest = np.array(draw(0.2)) / draw(1.0)
  # Of the rest goes what a beat's own noise counts in the mean over ten.
  assert shape < 0.6 < 0.75 < rest < 1


@pytest.mark.parametrize("name", ["real-small", "simulated-small"])
def test_cards_have_lines_of_a_page(name):
  lines = (SHIPPED.parent / name / "README.md").read_text().splitlines()
  assert not [x for x in lines if len(x) > 100 and not x.startswith("|")]


def test_it_is_small_and_its_card_has_figures_with_what_to_hold_against():
  assert sum(p.stat().st_size for p in SHIPPED.iterdir()) <= 12e6
  card = (SHIPPED / "README.md").read_text()
  for name in ("heart_rate_mae_bpm", "identity_top1_share", "criterion_pvc"):
    row = next(l for l in card.splitlines() if l.startswith(f"| {name}"))
    for column in (3, 5, 6):  # value, baseline, reference
      assert re.fullmatch(r"[\d.e-]+", row.split("|")[column].strip())
  assert "Not for clinical use" in card and "simulated" in card


def test_the_twin_of_real_recordings_names_their_licence_and_is_usable():
  folder = SHIPPED.parent / "real-small"
  assert sum(p.stat().st_size for p in folder.iterdir()) <= 12e6
  card = (folder / "README.md").read_text()
  assert "Creative Commons Attribution 4.0" in card and "Wagner" in card
  twin = et.ECGTwin.from_pretrained("real-small")
  assert twin.settings().temperature == 0.25
  base = twin.extract_base(example_ecg(), NOW)
  then = et.Condition(["sinus rhythm", "left ventricular hypertrophy"], 70)
  out = twin.generate(base, then, num_samples=2)
  found = [detect_heart_rate(s, 102.4, "energy") for s in out.signals]
  assert np.abs(np.array(found) - 70).max() < 3


def test_half_precision_is_read_as_single(tmp_path):
  hyper, variables = twin_directory.read_part(SHIPPED, "denoiser")
  assert hyper["dropout"]["base"] > 0  # so that guidance exists
  leaf = variables["params"]["output"]["kernel"]
  assert leaf.dtype == np.float32
  np.testing.assert_array_equal(leaf, leaf.astype(np.float16))


def test_commands_take_a_twin_by_its_name(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  assert load_twin("real-small").path == SHIPPED.parent / "real-small"
  for path in ("runs/real-small", "./real-small"):  # not a name
    with pytest.raises(FileNotFoundError, match="is no twin directory"):
      load_twin(path)
  with pytest.raises(FileNotFoundError, match="is no twin directory"):
    load_twin("mine")


def test_an_unknown_name_is_refused_with_the_known_ones():
  known = "must be one of real-small, simulated-small,"
  with pytest.raises(ValueError, match=known):
    et.ECGTwin.from_pretrained("mimic-large")


def test_it_is_what_generate_uses_unless_told_otherwise(tmp_path, capsys):
  config = load_config(f"{ROOT}/configs/generate.py")
  config.workdir, config.num_samples = str(tmp_path), 1
  generate.run(config)
  printed = capsys.readouterr().out
  assert "1 ECGs in" in printed
  assert "self-check of 1 ECGs" in printed and "80 bpm asked for" in printed
  record = json.loads((tmp_path / "generated.json").read_text())
  assert record["synthetic"] is True
  assert list(record["self_check"]["criteria_met"]) == ["rbbb", "pvc"]
  assert (tmp_path / "beats.png").stat().st_size > 10_000
  assert len(list(tmp_path.glob("*.hea"))) == 1
  assert (tmp_path / "overview.png").stat().st_size > 10_000


def test_a_reference_that_is_not_what_is_said_of_it_is_warned_of():
  twin = et.ECGTwin.from_pretrained("simulated-small")
  said = et.Condition(["Sinus rhythm"], 82)
  with pytest.warns(UserWarning, match="shows a right bundle branch block"):
    twin.extract_base(et.example_ecg(), said)
