"""Metrics and pictures as files: metrics.json, tables as CSV, report.html."""

import base64
import csv
import html
import json
import math
import pathlib

import numpy as np

from ecgtwin_jax.evaluation.metric import LEVELS, Metric

FIELDS = ("name", "value", "low", "high", "floor", "n", "level", "note")
TITLES = {
  "fidelity": "Fidelity: are they like real ECGs?",
  "condition": "Condition: do they show what was asked for?",
  "physiology": "Physiology: intervals, amplitudes, axis, leads",
  "person": "Person: is it this patient?",
  "truth": "Truth: how far from the patient's true ECG?",
  "privacy": "Privacy: does it replay recordings?",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; padding: 0 1em;
  max-width: 66em; color: #1a1a1a }
table { border-collapse: collapse; margin: 1em 0; width: 100% }
th, td { padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: right;
  font-variant-numeric: tabular-nums; vertical-align: top }
th:first-child, td:first-child, th:last-child, td:last-child {
  text-align: left }
td:last-child { color: #555; font-size: 85% }
img { max-width: 100% }
dt { font-weight: 600 } dd { margin: 0 0 .4em 1.5em; overflow-wrap: anywhere }
.warning { background: #fff4d6; padding: .6em 1em }
"""


def to_json(metric: Metric) -> dict:
  """A metric's fields; what is not a number becomes null."""
  return {
    field: None
    if isinstance(value, float) and not math.isfinite(value)
    # A NumPy number is not JSON's.
    else value.item()
    if hasattr(value, "item")
    else value
    for field, value in metric._asdict().items()
  }


def from_json(entry: dict) -> Metric:
  """The inverse of `to_json`."""
  values = {
    field: math.nan if entry[field] is None else entry[field]
    for field in FIELDS
  }
  return Metric(**values)


def number(value: float | int | np.number) -> str:
  """Four digits, or a dash for what is not a number."""
  if value is None or not math.isfinite(value):
    return "–"
  return f"{value:.4g}"


def write_metrics(folder: pathlib.Path, metrics: list[Metric]) -> None:
  """Writes metrics.json, and a table per level and of all as CSV.

  Raises:
    ValueError: two metrics of one name, or an unknown level.
  """
  names = [metric.name for metric in metrics]
  for metric in metrics:
    if names.count(metric.name) > 1 or metric.level not in LEVELS:
      raise ValueError(
        f"metric {metric.name!r} of level {metric.level!r} must be the only one"
        f" of its name, its level one of {', '.join(LEVELS)}"
      )
  entries = [to_json(metric) for metric in metrics]
  (folder / "metrics.json").write_text(
    json.dumps({"metrics": entries}, indent=1), encoding="utf-8"
  )
  levels = [level for level in LEVELS if any(m.level == level for m in metrics)]
  for table in ("metrics", *levels):
    with open(folder / f"{table}.csv", "w", newline="") as file:
      writer = csv.DictWriter(file, FIELDS)
      writer.writeheader()
      for entry in entries:
        if table in ("metrics", entry["level"]):
          writer.writerow(entry)


def write_html(
  folder: pathlib.Path,
  about: dict[str, str],
  metrics: list[Metric],
  pictures: dict[str, list[pathlib.Path]],
  words: dict[str, str],
) -> pathlib.Path:
  """Writes report.html, one file with its pictures inside.

  Args:
    folder: where.
    about: what was evaluated, on what, with which seeds and versions.
    metrics: all of them.
    pictures: {level: PNG files}.
    words: {level: a paragraph above its table}.

  Returns:
    Its path.
  """
  parts = [
    "<!DOCTYPE html><html lang='en'><meta charset='utf-8'>",
    "<meta name='viewport' content='width=device-width'>",
    f"<title>ECG twin: evaluation</title><style>{_STYLE}</style>",
    "<h1>ECG twin: evaluation</h1><dl>",
    *(
      f"<dt>{html.escape(key)}</dt><dd>{html.escape(str(value))}</dd>"
      for key, value in about.items()
    ),
    "</dl><p>Intervals: 95%, bootstrap over patients. Floor: the same figure "
    "where nothing of the kind was learned, or between real ECGs; the note says"
    " which. A dash: cannot be estimated here. Failed measurements are counted,"
    " never replaced.</p>",
  ]
  for level in LEVELS:
    own = [metric for metric in metrics if metric.level == level]
    if not own:
      continue
    parts.append(f"<h2 id='{level}'>{html.escape(TITLES[level])}</h2>")
    if level in words:
      parts.append(f"<p>{html.escape(words[level])}</p>")
    parts.append(_table(own))
    for picture in pictures.get(level, []):
      data = base64.b64encode(picture.read_bytes()).decode()
      alternative = picture.stem.replace("_", " ")
      parts.append(
        f"<figure><img alt='{html.escape(alternative)}' "
        f"src='data:image/png;base64,{data}'></figure>"
      )
  path = folder / "report.html"
  path.write_text("\n".join(parts), encoding="utf-8")
  return path


def _table(metrics: list[Metric]) -> str:
  rows = [
    "<table><tr><th>measure<th>value<th>95% interval<th>floor<th>N<th>note</tr>"
  ]
  for m in metrics:
    interval = f"{number(m.low)} to {number(m.high)}"
    if not math.isfinite(m.low):
      interval = "–"
    cells = (m.name, number(m.value), interval, number(m.floor), m.n, m.note)
    rows.append(
      "<tr>" + "".join(f"<td>{html.escape(str(c))}</td>" for c in cells)
    )
  return "\n".join([*rows, "</table>"])
