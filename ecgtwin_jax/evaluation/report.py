"""Metrics and pictures as files: metrics.json, tables as CSV, report.html."""

import base64
import csv
import html
import json
import math
import pathlib

from ecgtwin_jax.evaluation.levels import LEVELS
from ecgtwin_jax.evaluation.metric import BETTER, Metric, number
from ecgtwin_jax.evaluation.verdict import give_verdicts

FIELDS = Metric._fields
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
.verdict p { margin: 0; padding: .5em 1em; border-left: .5em solid }
.good { background: #e6f4e6; border-color: #2e7d32 }
.fair { background: #fff4d6; border-color: #e0a100 }
.bad { background: #fbe3e1; border-color: #b3261e }
.unknown { background: #eee; border-color: #888 }
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
  """The inverse of `to_json`.

  Raises:
    ValueError: the fields are those of another version.
  """
  if set(entry) != set(FIELDS):
    raise ValueError(
      f"a metric has the fields {', '.join(FIELDS)}, not {', '.join(entry)}: "
      "it is another version's; evaluate again in another workdir"
    )
  values = {
    field: math.nan if entry[field] is None else entry[field]
    for field in FIELDS
  }
  return Metric(**values)


def write_metrics(folder: pathlib.Path, metrics: list[Metric]) -> None:
  """Writes metrics.json, and a table per level and of all as CSV.

  Raises:
    ValueError: two metrics of one name, an unknown level, or a direction that
      is neither lower nor higher.
  """
  names = [metric.name for metric in metrics]
  for metric in metrics:
    if names.count(metric.name) > 1 or metric.level not in LEVELS:
      raise ValueError(
        f"metric {metric.name!r} of level {metric.level!r} must be the only one"
        f" of its name, its level one of {', '.join(LEVELS)}"
      )
    if metric.better not in BETTER:
      raise ValueError(
        f"metric {metric.name!r}: {metric.better=} must be one of "
        f"{', '.join(BETTER)}"
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
    folder: where to write; it must exist.
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
    "<h1>ECG twin: evaluation</h1>",
    _verdict(metrics),
    "<dl>",
    *(
      f"<dt>{html.escape(key)}</dt><dd>{html.escape(str(value))}</dd>"
      for key, value in about.items()
    ),
    "</dl><p>Intervals: 95%, bootstrap over patients. The arrow says where "
    "better lies. Baseline: the same figure where nothing of the kind was "
    "learned. Reference: the same figure of real ECGs; the note says which. A "
    "dash: cannot be estimated here, or more than half of the measurements "
    "failed. Failed measurements are counted, never replaced.</p>",
  ]
  for level in LEVELS:
    of_level = [metric for metric in metrics if metric.level == level]
    if not of_level:
      continue
    parts.append(f"<h2 id='{level}'>{html.escape(LEVELS[level].title)}</h2>")
    if level in words:
      parts.append(f"<p>{html.escape(words[level])}</p>")
    parts.append(_table(of_level))
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


def _verdict(metrics: list[Metric]) -> str:
  """A box with an answer per line, in its colour."""
  lines = [
    f"<p class='{verdict.colour}'><b>{html.escape(verdict.question)} "
    f"{html.escape(verdict.word)}.</b> {html.escape(verdict.sentence)}</p>"
    for verdict in give_verdicts(metrics)
  ]
  return "\n".join(["<div class='verdict'>", *lines, "</div>"])


def _table(metrics: list[Metric]) -> str:
  head = "measure||value|95% interval|baseline|reference|N|note".split("|")
  rows = ["<table><tr>" + "".join(f"<th>{name}" for name in head) + "</tr>"]
  for metric in metrics:
    cells = "".join(
      f"<td>{html.escape(cell)}</td>" for cell in cells_of(metric)
    )
    rows.append(f"<tr>{cells}")
  return "\n".join([*rows, "</table>"])


def cells_of(metric: Metric) -> tuple[str, ...]:
  """Name, arrow, value, interval, baseline, reference, N and note as text."""
  interval = f"{number(metric.low)} to {number(metric.high)}"
  if not math.isfinite(metric.low):
    interval = "–"
  return (
    metric.name,
    BETTER[metric.better],
    number(metric.value),
    interval,
    number(metric.baseline),
    number(metric.reference),
    str(metric.n),
    metric.note,
  )


def to_line(metric: Metric) -> str:
  """A figure on one line of the console; its note where it is missing."""
  name, arrow, value, interval, baseline, reference, _, note = cells_of(metric)
  if not math.isfinite(metric.value):
    return f"  {name} {arrow} {value}: {note}"
  return (
    f"  {name} {arrow} {value} ({interval}), baseline {baseline}, reference "
    f"{reference}"
  )
