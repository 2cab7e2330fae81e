"""A letter of a shape means one thing: the glossary's."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
SHAPE = re.compile(
  r"[\[(]\s*[\w. |]*\b(?:ndarray|Array)[\w. |]*,\s*\"([^\"]*)\""
)
TIME = {"t", "1024", "80"}  # a median beat has 80 samples


def test_letters_of_shapes_are_the_glossarys():
  table = (ROOT / "docs" / "glossary.md").read_text().split("## Letters")[1]
  rows = re.findall(r"^\| ([a-z, ]+) \|", table, re.MULTILINE)
  letters = {x.strip() for row in rows for x in row.split(",")} - {"letter"}
  assert len(letters) > 10
  strange, count = [], 0
  for path in sorted((ROOT / "ecgtwin_jax").rglob("*.py")):
    for shape in SHAPE.findall(path.read_text()):
      axes, count = [axis.strip("*#") for axis in shape.split()], count + 1
      if any(len(axis) == 1 and axis.islower() for axis in {*axes} - letters):
        strange.append(f"{path.name}: {shape!r}")
      # Signals: what stands before their leads is time, or frequencies of it.
      if len(axes) > 1 and axes[-1] in ("12", "leads"):
        if axes[-2] not in TIME | {"f", "n", "b", "length", "12"}:
          strange.append(f"{path.name}: {shape!r} should have t")
        elif len(axes) > 2 and axes[-2] not in TIME | {"f", "n", "12"}:
          strange.append(f"{path.name}: {shape!r} should have t")
  assert count > 500
  assert not strange, strange
