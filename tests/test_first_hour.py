"""The first hour of a stranger, line by line; tests/first_hour.py says what."""

import warnings

import pytest

import first_hour


@pytest.mark.parametrize(
  "line",
  [
    pytest.param(
      line,
      id=f"{line.point} {line.what}",
      marks=[pytest.mark.slow] * line.slow,
    )
    for line in first_hour.LINES
  ],
)
def test_a_line_holds(line):
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    state, found = first_hour.attempt(line)
  if state == "not tried":
    pytest.skip(found)
  assert state == "held", found


def test_what_does_not_hold_makes_the_script_fail(monkeypatch, capsys):
  def fails(folder):
    raise ValueError(f"{folder.name and 'a'} fault")

  def lacks(folder):
    raise first_hour.NotTriedError("no browser")

  lines = [first_hour.Line(1, "right", lambda folder: "yes")]
  lines.append(first_hour.Line(2, "lacking", lacks, slow=True))
  monkeypatch.setattr(first_hour, "LINES", lines)
  assert first_hour.main_of_script([]) == 0
  assert "1 held, 0 not held, 1 not tried" in capsys.readouterr().out
  lines.append(first_hour.Line(3, "wrong", fails))
  assert first_hour.main_of_script(["--quick"]) == 1
  printed = capsys.readouterr().out
  assert "3 not held  wrong" in printed and "ValueError: a fault" in printed
  assert "lacking" not in printed
