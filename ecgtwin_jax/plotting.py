"""ECGs drawn as clinical prints: 25 or 50 mm/s and 10 mm/mV on paper.

All lengths are millimetres of paper, and the page has that size, so a print
at 100 % is true to scale. Each lead is shown around its median. A print of
generated ECGs says on itself, and in the file's metadata, that it is synthetic.
"""

import os
import pathlib
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from ecgtwin_jax.data.ecg import ECG
from ecgtwin_jax.data.leads import LEADS

if TYPE_CHECKING:
  import matplotlib.figure

SPEED = 25.0  # mm per second, unless told otherwise
SPEEDS = (25.0, 50.0)
GAIN = 10.0  # mm per millivolt
SECONDS = 10.0  # of paper
ROWS = {
  "3x4": (
    ("I", "aVR", "V1", "V4"),
    ("II", "aVL", "V2", "V5"),
    ("III", "aVF", "V3", "V6"),
    ("II",),
  ),
  "6x2": (
    ("I", "V1"),
    ("II", "V2"),
    ("III", "V3"),
    ("aVR", "V4"),
    ("aVL", "V5"),
    ("aVF", "V6"),
  ),
  "12x1": tuple((lead,) for lead in LEADS),
}
OVERVIEW_LEADS = ("II", "V1", "V3", "V5")
ATTENTION_LEADS = ("II", "V1", "V5")

# mm from row to row, and from the margin to the first row's zero line.
_PITCH = {
  "3x4": (35, 20),
  "6x2": (30, 16),
  "12x1": (20, 10),
  "overview": (40, 25),
  "attention": (30, 17),
  "lane": (14, 9),
}
_LEFT, _RIGHT, _TOP, _BOTTOM = 15, 5, 15, 10  # mm of margin
_PULSE = 5  # mm wide, 1 mV high
_NAME = 8  # mm that a lead's name takes
_DPI = 150
_PAPER, _THIN, _THICK, _INK = "#fffafa", "#f9dcdc", "#efb0b0", "#101014"
_BEFORE = "#3b7dd8"  # the source behind its edit, twins over their reference
_BEAT_SPEED = 50.0  # mm per second, of median beats
_MARK = "#a01030"  # of what is synthetic
_NOTE = "not recorded from a person, not for diagnosis"
# One per statement; the first eight can be told apart without red or green.
_COLORS = """#0072b2 #e69f00 #009e73 #cc79a7 #d55e00 #56b4e9 #7f7f7f #8c564b
  #6a3d9a #b2df8a #1b9e77 #fb9a99 #a6761d #cab2d6 #666600 #33a02c #a6cee3
  #17becf""".split()
_SHADE = 0.6  # opacity where a statement stands out most
_LEAST = 0.02  # share of the attention: smaller deviations are not magnified


def is_synthetic(ecg: ECG) -> bool:
  """Whether a twin made the ECG: its comments say so, in files, too."""
  return any(line.startswith("synthetic:") for line in ecg.comments)


def plot_ecg(
  ecg: ECG,
  path: str | os.PathLike | None = None,
  layout: str = "3x4",
  title: str | None = None,
  speed: float | int = SPEED,
) -> "matplotlib.figure.Figure":
  """Draws the first 10 s of an ECG as a clinical print.

  Args:
    ecg: The recording.
    path: File to write, by its suffix: .png, .pdf or .svg. None: none.
    layout: "3x4": three rows of four leads, 2.5 s each and running on in time,
      above 10 s of lead II. "6x2": the limb leads for 5 s, then the chest
      leads. "12x1": every lead for 10 s.
    title: Line at the top; by default the record's name.
    speed: Of the paper, 25 or 50 mm/s.

  Returns:
    The matplotlib figure.

  Raises:
    ValueError: Unknown layout or speed.
  """
  check_layout(layout, speed)
  pitch, first = _PITCH[layout]
  figure, axes = _page(len(ROWS[layout]) * pitch, speed)
  for i, leads in enumerate(ROWS[layout]):
    middle = _height(axes) - _TOP - first - i * pitch
    _draw_row(axes, ecg, leads, middle, 0.3 * pitch, first + 4)
  _write(axes, _LEFT, _height(axes) - 7, title or ecg.record, 10, "bold")
  _write_scale(axes, f"{ecg.sampling_rate:g} Hz")
  return _save(figure, path, "Synthetic ECG" * is_synthetic(ecg))


def check_layout(layout: str, speed: float | int) -> None:
  """Refuses what `plot_ecg` cannot draw.

  Raises:
    ValueError: Unknown layout or speed.
  """
  if layout not in ROWS:
    raise ValueError(f"{layout=} must be one of {', '.join(ROWS)}")
  if speed not in SPEEDS:
    known = " or ".join(f"{one:g}" for one in SPEEDS)
    raise ValueError(f"{speed=} must be {known} mm/s")


def plot_overview(
  reference: ECG,
  twins: list[ECG] | tuple[ECG, ...],
  path: str | os.PathLike | None = None,
  titles: list[str] | tuple[str, ...] | None = None,
  leads: tuple[str, ...] = OVERVIEW_LEADS,
  speed: float | int = SPEED,
) -> "matplotlib.figure.Figure":
  """Draws a reference above its twins, a row each, on one sheet.

  Args:
    reference: The patient's recording, in the first row.
    twins: One or more ECGs.
    path: File to write, by its suffix: .png, .pdf or .svg. None: none.
    titles: One line above each row, the reference's first.
    leads: Leads of a row; they share its 10 s and run on in time.
    speed: Of the paper, 25 or 50 mm/s.

  Returns:
    The matplotlib figure.

  Raises:
    ValueError: Number of titles, an unknown lead or no lead, unknown speed.
  """
  check_layout("3x4", speed)
  ecgs = [reference, *twins]
  if titles is None:
    numbers = range(1, len(ecgs))
    titles = [f"Reference {reference.record}".strip()]
    titles += [f"Twin {i} {ecgs[i].record}".strip() for i in numbers]
  if len(titles) != len(ecgs):
    raise ValueError(f"{len(titles)=} must be {len(ecgs)}: reference and twins")
  _check_leads(leads)
  pitch, first = _PITCH["overview"]
  figure, axes = _page(len(ecgs) * pitch, speed)
  for i, (ecg, title) in enumerate(zip(ecgs, titles)):
    top = _height(axes) - _TOP - i * pitch
    _draw_row(axes, ecg, leads, top - first, 0.25 * pitch, first - 5)
    weight = "normal" if i else "bold"
    _write(axes, _LEFT, top - 1, title, 9, weight)
  _write_scale(axes)
  return _save(figure, path, _name_synthetic(reference, twins, "twins"))


def _name_synthetic(first, others, word):
  """Words for what of a sheet is synthetic; empty where nothing is."""
  if not any(map(is_synthetic, others)):
    return ""
  return "Synthetic ECGs" if is_synthetic(first) else f"Synthetic {word}"


def plot_median_beats(
  reference: Float[np.ndarray, "t 12"],
  twins: list[Float[np.ndarray, "t 12"]],
  sampling_rate: float | int,
  path: str | os.PathLike | None = None,
  title: str = "",
) -> "matplotlib.figure.Figure":
  """Draws the twins' median beats over their reference's: is it one heart?

  Args:
    reference: Its median beat in mV, in ink.
    twins: Theirs, aligned with it, in blue.
    sampling_rate: Hz.
    path: File to write, by its suffix: .png, .pdf or .svg. None: none.
    title: Line at the top.

  Returns:
    The matplotlib figure.
  """
  rows = ROWS["3x4"][:-1]
  pitch, first = _PITCH["3x4"]
  seconds = len(reference) / sampling_rate
  gap = 8  # mm from lead to lead
  step = _BEAT_SPEED * seconds + gap
  figure, axes = _page(
    len(rows) * pitch, width=len(rows[0]) * step - gap + _LEFT + _RIGHT
  )
  time = _BEAT_SPEED * np.arange(len(reference)) / sampling_rate
  for i, leads in enumerate(rows):
    middle = _height(axes) - _TOP - first - i * pitch
    for j, lead in enumerate(leads):
      column, left = LEADS.index(lead), _LEFT + j * step
      beats = [(beat, _BEFORE, 0.5, 0.8) for beat in twins]
      for beat, color, opacity, width in [*beats, (reference, _INK, 1, 1.2)]:
        axes.plot(
          left + time,
          middle + GAIN * beat[:, column],
          color=color,
          alpha=opacity,
          linewidth=width,
          solid_joinstyle="round",
        )
      _write(axes, left, middle + 0.3 * pitch, lead, 9, "bold")
  _write(axes, _LEFT, _height(axes) - 7, title, 10, "bold")
  _write_scale(axes, "black: reference, blue: twins", _BEAT_SPEED)
  return _save(figure, path, "Synthetic twins")


def plot_edits(
  sources: list[ECG] | tuple[ECG, ...],
  edits: list[ECG] | tuple[ECG, ...],
  path: str | os.PathLike | None = None,
  titles: tuple[str, str] = ("source", "edit"),
  leads: tuple[str, ...] = OVERVIEW_LEADS,
) -> "matplotlib.figure.Figure":
  """Draws each source above its edit, and once more in blue behind it.

  Args:
    sources: ECGs before the edit.
    edits: the same number of ECGs after it.
    path: File to write, by its suffix: .png, .pdf or .svg. None: none.
    titles: What stands above the rows of sources and of edits.
    leads: Leads of a row; they share its 10 s and run on in time.

  Returns:
    The matplotlib figure.

  Raises:
    ValueError: Number of edits, an unknown lead or no lead.
  """
  if not sources or len(sources) != len(edits):
    raise ValueError(f"{len(edits)=} must be {len(sources)=}, at least 1")
  _check_leads(leads)
  pitch, first = _PITCH["overview"]
  figure, axes = _page(2 * len(sources) * pitch)
  for i, pair in enumerate(zip(sources, edits)):
    for j, (ecg, title) in enumerate(zip(pair, titles)):
      top = _height(axes) - _TOP - (2 * i + j) * pitch
      if j:
        _draw_traces(axes, pair[0], leads, top - first, _BEFORE)
      _draw_row(axes, ecg, leads, top - first, 0.25 * pitch, first - 5)
      text = f"{ecg.record}: {title}" if ecg.record else title
      _write(axes, _LEFT, top - 1, text, 9, "normal" if j else "bold")
  _write_scale(axes, "blue: the source")
  return _save(figure, path, _name_synthetic(sources[0], edits, "edits"))


def plot_attention(
  ecg: ECG,
  attention: Float[np.ndarray, "l s"],
  statements: tuple[str, ...] | list[str],
  path: str | os.PathLike | None = None,
  title: str | None = None,
  leads: tuple[str, ...] = ATTENTION_LEADS,
) -> "matplotlib.figure.Figure":
  """Draws which statement each part of an ECG attends to, by colour.

  Behind the leads stands the colour of the statement whose share exceeds its
  own mean by most, the stronger the more it does. Below, a lane per statement
  shows its share over time around its mean, all on one scale.

  Args:
    ecg: 10 s.
    attention: shares, over statements summing to 1, at l moments of the 10 s.
    statements: the s statements.
    path: File to write, by its suffix: .png, .pdf or .svg. None: none.
    title: Line at the top; by default the record's name.
    leads: a row of 10 s for each.

  Returns:
    The matplotlib figure.

  Raises:
    ValueError: Number of statements, an unknown lead or no lead.
  """
  _check_leads(leads)
  if attention.shape[1] != len(statements):
    raise ValueError(f"{attention.shape=} must end with {len(statements)=}")
  pitch, first = _PITCH["attention"]
  lane, above = _PITCH["lane"]
  figure, axes = _page(len(leads) * pitch + len(statements) * lane + 4)
  deviation = attention - attention.mean(axis=0)
  scale = max(float(np.abs(deviation).max()), _LEAST)
  for i, lead in enumerate(leads):
    middle = _height(axes) - _TOP - first - i * pitch
    _shade(axes, deviation, scale, middle, 0.4 * pitch)
    _draw_row(axes, ecg, (lead,), middle, 0.3 * pitch, first + 4)
  top = _height(axes) - _TOP - len(leads) * pitch - 4
  for i, statement in enumerate(statements):
    middle = top - above - i * lane
    heights = (lane - above) / scale * deviation[:, i]
    _draw_lane(axes, heights, middle, _color(i))
    mean = f"{statement}   mean {attention[:, i].mean():.0%}"
    _write(axes, _LEFT, middle + 6.5, mean, 8, "bold", _color(i))
  _write(axes, _LEFT, _height(axes) - 7, title or ecg.record, 10, "bold")
  _write_scale(axes, f"lanes: share of attention, mean ± {scale:.1%}")
  return _save(figure, path, "Synthetic ECG" * is_synthetic(ecg))


def _color(i):
  return _COLORS[i % len(_COLORS)]


def _shade(axes, deviation, scale, middle, reach):
  """Colours the time in which a statement stands out, behind a row."""
  from matplotlib.colors import to_rgb

  most = deviation.argmax(axis=1)
  pixels = np.array([[*to_rgb(_color(i)), 0.0] for i in most])
  pixels[:, 3] = _SHADE * np.clip(deviation.max(axis=1) / scale, 0, 1)
  right = _LEFT + SPEED * SECONDS
  axes.imshow(
    pixels[None],
    extent=(_LEFT, right, middle - reach, middle + reach),
    aspect="auto",
    interpolation="nearest",
    zorder=0.7,
  )


def _draw_lane(axes, heights, middle, color):
  """A statement's share over time: filled above its mean, pale below."""
  width = SPEED * SECONDS / len(heights)
  x = _LEFT + width * (np.arange(len(heights)) + 0.5)
  right = _LEFT + SPEED * SECONDS
  axes.plot([_LEFT, right], [middle, middle], color=color, lw=0.6)
  for part, opacity in (
    (np.maximum(heights, 0), 0.9),
    (np.minimum(heights, 0), 0.3),
  ):
    axes.fill_between(
      x, middle, middle + part, color=color, alpha=opacity, linewidth=0
    )


def _check_leads(leads):
  if not leads or not set(leads) <= set(LEADS):
    raise ValueError(f"{leads=} must be among {', '.join(LEADS)}")


def _page(height, speed=SPEED, width=None):
  """A figure with one axes in millimetres, ruled every 1 and 5 mm.

  It is as wide as 10 s at that speed, unless told otherwise.
  """
  # Figures made without pyplot are nobody's global state: nothing to close.
  from matplotlib.collections import LineCollection
  from matplotlib.figure import Figure

  width = width or _LEFT + speed * SECONDS + _RIGHT
  height = height + _TOP + _BOTTOM
  figure = Figure(figsize=(width / 25.4, height / 25.4), facecolor=_PAPER)
  axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
  axes.axis("off")
  for step, color, line in ((1, _THIN, 0.4), (5, _THICK, 0.6)):
    rules = [[(x, 0), (x, height)] for x in np.arange(0, width + 1, step)]
    rules += [[(0, y), (width, y)] for y in np.arange(0, height + 1, step)]
    axes.add_collection(
      LineCollection(rules, colors=color, linewidths=line, zorder=step / 10)
    )
  return figure, axes


def _draw_row(axes, ecg, leads, middle, name_height, most):
  """One line of paper: a calibration pulse, then the leads one by one.

  Names stand `name_height` mm above the middle or higher, `most` at most: there
  the title begins.
  """
  pulse = np.array([[0, 0], [0, 1], [1, 1], [1, 0]]) * (_PULSE, GAIN)
  x, y = (pulse + (_LEFT - _PULSE - 3, middle)).T
  axes.plot(x, y, color=_INK, linewidth=0.8)
  pieces, speed = _draw_traces(axes, ecg, leads, middle, _INK), _speed(axes)
  for i, (lead, shown) in enumerate(zip(leads, pieces)):
    left = _LEFT + speed * i * SECONDS / len(leads)
    if i:
      axes.plot([left, left], [middle - 4, middle + 4], color=_INK, lw=0.6)
    aside, height = _place_name(
      shown, ecg.sampling_rate / speed, name_height, most
    )
    _write(axes, left + 1 + aside, middle + height, lead, 9, "bold")


def _place_name(shown, samples_per_mm, least, most):
  """(mm to the right, mm up) of a lead's name: above what is below it.

  It stands as far left as it can without rising above `most`.
  """
  width = round(_NAME * samples_per_mm)
  starts = np.arange(0, max(len(shown) - width, 1), max(width // 8, 1))
  heights = [
    max(least, shown[first : first + width].max(initial=0.0) + 2.5)
    for first in starts
  ]
  fits = next((i for i, height in enumerate(heights) if height <= most), 0)
  return starts[fits] / samples_per_mm, min(heights[fits], most)


def _draw_traces(axes, ecg, leads, middle, color):
  """The leads one after the other in time; returns their heights in mm."""
  pieces, seconds, speed = [], SECONDS / len(leads), _speed(axes)
  for i, lead in enumerate(leads):
    trace = ecg.signal[:, LEADS.index(lead)]
    first = round(i * seconds * ecg.sampling_rate)
    last = round((i + 1) * seconds * ecg.sampling_rate)
    shown = GAIN * (trace[first : last + 1] - np.median(trace))
    time = np.arange(first, first + len(shown)) / ecg.sampling_rate
    axes.plot(
      _LEFT + speed * time,
      middle + shown,
      color=color,
      linewidth=0.8,
      solid_joinstyle="round",
    )
    pieces.append(shown)
  return pieces


def _write(axes, x, y, text, size, weight="normal", color=_INK):
  style = dict(size=size, weight=weight, va="center", color=color)
  axes.text(x, y, text, parse_math=False, **style)


def _write_scale(axes, note="", speed=None):
  speed = speed or _speed(axes)
  text = f"{speed:g} mm/s    {GAIN:g} mm/mV    {note}".strip()
  _write(axes, _LEFT, 5, text, 8)


def _height(axes):
  return axes.get_ylim()[1]


def _speed(axes):
  """Of the paper, mm per second."""
  return (axes.get_xlim()[1] - _LEFT - _RIGHT) / SECONDS


def _save(figure, path, synthetic=""):
  """Marks what is synthetic, and writes the file."""
  metadata = {}
  if synthetic:
    (axes,) = figure.axes
    axes.text(
      axes.get_xlim()[1] - _RIGHT,
      5,
      f"{synthetic} (ECGTwin-JAX): {_NOTE}",
      size=8,
      weight="bold",
      ha="right",
      va="center",
      color=_MARK,
      parse_math=False,
    )
    metadata = {"Source": "synthetic ECG, ECGTwin-JAX"}
  if path is not None:
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
      metadata["Software"] = "ECGTwin-JAX"
    elif path.suffix == ".pdf" and metadata:
      metadata = {"Subject": metadata["Source"]}
    figure.savefig(path, dpi=_DPI, metadata=metadata)
  return figure
