"""Draws the two diagrams of the documentation.

  python docs/figures/make.py

Writes method.png (what the system does) and layers.png (who may import whom;
read from tests/test_import_rules.py, so that it cannot say something else).
"""

import ast
import pathlib

from matplotlib.figure import Figure

HERE = pathlib.Path(__file__).parent
BLUE, ORANGE, GREEN, GREY = "#dbe9f6", "#fdebd0", "#dff0d8", "#eeeeee"
# What each folder is, for the reader of layers.png.
MEANING = {
  "main": "reads the configuration, calls the job",
  "app": "the page in the browser",
  "evaluation": "the report on a twin",
  "jobs": "train, generate, requests, edit, explain, demo",
  "stages": "what each training is",
  "training": "the loop, checkpoints, metrics",
  "torch_import": "released weights",
  "inference": "the twin: weights to ECGs",
  "simulator": "patients with a known truth",
  "beats": "beats found, averaged, measured",
  "data": "ECGs, conditions, data sets, pairs",
  "text": "statements: meaning and vectors",
  "diffusion": "schedule, samplers, editing",
  "models": "networks, functions of arrays",
}


def box(axes, x, y, width, height, text, colour, size=9):
  """A box with its lower left corner at (x, y)."""
  from matplotlib.patches import FancyBboxPatch

  axes.add_patch(
    FancyBboxPatch(
      (x, y),
      width,
      height,
      boxstyle="round,pad=0.02,rounding_size=0.08",
      facecolor=colour,
      edgecolor="#555555",
      linewidth=0.8,
    )
  )
  axes.text(
    x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size
  )


def arrow(axes, start, end):
  axes.annotate(
    "",
    xy=end,
    xytext=start,
    arrowprops=dict(arrowstyle="-|>", color="#333333", linewidth=1.1),
  )


def make_axes(width, height, right, top):
  figure = Figure(figsize=(width, height))
  axes = figure.add_axes([0, 0, 1, 1])
  axes.set_xlim(0, right)
  axes.set_ylim(0, top)
  axes.axis("off")
  return figure, axes


def draw_method():
  figure, axes = make_axes(10.5, 3.9, 10.5, 3.9)
  box(axes, 0.15, 2.55, 1.6, 0.9, "reference ECG\n12 leads, 10 s", GREY)
  box(
    axes,
    0.15,
    1.35,
    1.6,
    0.8,
    "what it shows:\nstatements, rate,\nage, sex",
    GREY,
    8,
  )
  box(axes, 2.3, 2.55, 1.6, 0.9, "autoencoder\nencoder (stage 0)", BLUE)
  box(
    axes, 4.45, 2.0, 1.7, 1.2, "base extractor\n(stage 1): who,\nnot what", BLUE
  )
  box(
    axes,
    6.7,
    1.7,
    1.8,
    1.5,
    "denoiser (stage 2)\nnorms read who\nand when, cross-\nattention what",
    BLUE,
    8.5,
  )
  box(axes, 8.95, 2.55, 1.4, 0.9, "decoder", BLUE)
  box(
    axes,
    8.95,
    1.05,
    1.4,
    0.9,
    "the twin's ECG\nunder the\ncondition",
    GREEN,
    8.5,
  )
  box(
    axes,
    0.15,
    0.15,
    1.6,
    0.85,
    "target condition:\nstatements, rate,\nage, sex",
    ORANGE,
    8,
  )
  box(axes, 2.3, 0.15, 1.6, 0.85, "statements as\nvectors (tokens)", ORANGE)
  box(
    axes,
    4.45,
    0.15,
    1.7,
    0.85,
    "rhythm model:\nwhen each beat falls",
    ORANGE,
    8.5,
  )
  for start, end in (
    ((1.8, 3.0), (2.25, 3.0)),
    ((3.95, 3.0), (4.4, 2.8)),
    ((1.8, 1.75), (4.4, 2.3)),
    ((6.2, 2.6), (6.65, 2.6)),
    ((8.55, 2.7), (8.9, 2.9)),
    ((9.65, 2.5), (9.65, 2.0)),
    ((1.8, 0.57), (2.25, 0.57)),
    ((3.95, 0.57), (4.4, 0.57)),
    ((3.1, 1.05), (6.65, 2.05)),
    ((6.2, 0.7), (7.2, 1.65)),
  ):
    arrow(axes, start, end)
  figure.savefig(HERE / "method.png", dpi=130)


def read_floors():
  """FLOORS of tests/test_import_rules.py, without importing it."""
  path = HERE.parent.parent / "tests" / "test_import_rules.py"
  for node in ast.parse(path.read_text()).body:
    if isinstance(node, ast.Assign) and node.targets[0].id == "FLOORS":
      return ast.literal_eval(node.value)
  raise ValueError(f"{path} has no FLOORS")


def draw_layers():
  floors = {}
  for name, floor in read_floors().items():
    parts = name.split(".")
    if len(parts) == 2 and parts[1] in MEANING:
      floors.setdefault(floor, []).append(parts[1])
  rows = sorted(floors, reverse=True)
  step = 0.72
  figure, axes = make_axes(
    8.5, step * len(rows) + 0.2, 8.5, step * len(rows) + 0.2
  )
  for place, floor in enumerate(rows):
    folders = floors[floor]
    width = 8.2 / len(folders)
    y = step * (len(rows) - 1 - place) + 0.12
    for k, folder in enumerate(folders):
      box(
        axes,
        0.15 + k * width,
        y,
        width - 0.12,
        step - 0.2,
        f"{folder}: {MEANING[folder]}",
        (BLUE, GREY)[place % 2],
        8.5,
      )
  figure.savefig(HERE / "layers.png", dpi=130)


if __name__ == "__main__":
  draw_method()
  draw_layers()
