"""Clinical prints: true to scale, every lead named, files written."""

import sys

import matplotlib.image
import numpy as np
import pytest

from ecgtwin_jax import plotting
from ecgtwin_jax.data.ecg import ECG, example_ecg
from ecgtwin_jax.data.leads import LEADS


def traces(figure):
  """Lines of the figure that are neither pulses nor separators."""
  lines = figure.axes[0].lines
  return [line.get_xydata() for line in lines if len(line.get_xydata()) > 4]


def names(figure):
  return [text.get_text() for text in figure.axes[0].texts]


def make_steps(sampling_rate=500):
  """Each lead k jumps from 0 to k/10 mV after 7 s, except the first."""
  signal = np.zeros((10 * sampling_rate, 12))
  signal[7 * sampling_rate :] = np.arange(12) / 10
  return ECG(signal, sampling_rate, "steps")


def test_the_page_is_in_millimetres():
  figure = plotting.plot_ecg(make_steps(), layout="12x1")
  axes = figure.axes[0]
  np.testing.assert_allclose(
    figure.get_size_inches() * 25.4, [axes.get_xlim()[1], axes.get_ylim()[1]]
  )
  np.testing.assert_array_equal(axes.get_position().bounds, [0, 0, 1, 1])


def test_25_mm_per_second_and_10_mm_per_millivolt():
  lines = traces(plotting.plot_ecg(make_steps(), layout="12x1"))
  assert len(lines) == 12
  for k, line in enumerate(lines):
    x, y = line.T
    jump = x[int(7 * 500)] - x[0]
    assert jump == pytest.approx(7 * 25)
    assert y[-1] - y[0] == pytest.approx(k / 10 * 10)
    assert x[-1] - x[0] == pytest.approx(25 * 10, abs=0.06)


def test_calibration_pulse_is_1_mv_by_5_mm():
  figure = plotting.plot_ecg(make_steps())
  pulses = [x for x in figure.axes[0].lines if len(x.get_xydata()) == 4]
  assert len(pulses) == 4  # one per row
  for pulse in pulses:
    np.testing.assert_allclose(np.ptp(pulse.get_xydata(), axis=0), [5, 10])


def test_grid_of_1_and_5_mm():
  figure = plotting.plot_ecg(make_steps())
  thin, thick = figure.axes[0].collections
  for rules, step in ((thin, 1), (thick, 5)):
    ends = np.array(rules.get_segments())
    upright = ends[ends[:, 0, 0] == ends[:, 1, 0]][:, 0, 0]
    np.testing.assert_allclose(np.diff(np.unique(upright)), step)


def test_three_rows_of_four_leads_run_on_in_time():
  ecg = example_ecg()
  lines = traces(plotting.plot_ecg(ecg))
  order = "I aVR V1 V4 II aVL V2 V5 III aVF V3 V6 II".split()
  assert len(lines) == 13
  for i, (lead, line) in enumerate(zip(order, lines)):
    first = (i % 4) * 2500 if i < 12 else 0
    trace = ecg.signal[:, LEADS.index(lead)]
    shown = trace[first : first + len(line)]
    height = (line[:, 1] - line[0, 1]) / 10
    np.testing.assert_allclose(height, shown - shown[0], atol=1e-5)
    assert line[0, 0] - lines[0][0, 0] == pytest.approx(first / 1000 * 25)


@pytest.mark.parametrize("layout", ["3x4", "12x1"])
def test_every_lead_is_named(layout):
  ecg = make_steps()
  found = names(plotting.plot_ecg(ecg, layout=layout, title="A title"))
  assert set(LEADS) <= set(found) and "A title" in found
  assert "25 mm/s    10 mm/mV    500 Hz" in found
  assert "steps" in names(plotting.plot_ecg(ecg, layout=layout))


def test_an_offset_does_not_move_the_trace():
  ecg = make_steps()
  moved = ECG(ecg.signal + 7, 500)
  for a, b in zip(traces(ecg.plot()), traces(moved.plot())):
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_short_recordings_are_drawn_as_far_as_they_go():
  lines = traces(plotting.plot_ecg(ECG(np.zeros((701, 12)), 100)))
  ends = [line[-1, 0] for line in lines]
  assert max(ends) == pytest.approx(lines[0][0, 0] + 7 * 25)


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_files_are_written_without_global_state(tmp_path, suffix):
  loaded = "matplotlib.pyplot" in sys.modules
  path = tmp_path / "new" / f"a.{suffix}"
  example_ecg().resample().plot(path)
  assert path.stat().st_size > 10_000
  assert loaded or "matplotlib.pyplot" not in sys.modules
  if suffix == "png":
    image = matplotlib.image.imread(path)
    assert image.shape[1] == pytest.approx(270 / 25.4 * 150, abs=1)
    assert image[..., :3].min() < 0.2 < 0.9 < image[..., :3].mean()


def test_overview_stands_the_reference_above_its_twins(tmp_path):
  reference = example_ecg()
  twins = [reference.resample(), make_steps()]
  path = tmp_path / "overview.png"
  titles = ["Before", "After", "Later"]
  figure = plotting.plot_overview(reference, twins, path, titles)
  assert path.stat().st_size > 10_000
  places = {x.get_text(): x.get_position()[1] for x in figure.axes[0].texts}
  assert places["Before"] > places["After"] > places["Later"]
  lines = traces(figure)
  assert len(lines) == 12  # three ECGs, four leads each
  heights = [line[0, 1] for line in lines]
  assert min(heights[:4]) > max(heights[4:8])
  assert min(heights[4:8]) > max(heights[8:])
  assert lines[4][-1, 0] == pytest.approx(lines[0][-1, 0], abs=0.3)


def test_overview_names_its_rows_by_default():
  reference = example_ecg()
  found = names(plotting.plot_overview(reference, [make_steps()]))
  assert {"Reference s0010_re_10s", "Twin 1 steps"} <= set(found)
  found = names(plotting.plot_overview(reference, [], leads=("aVF", "V6")))
  assert {"aVF", "V6"} <= set(found) and "II" not in found


def test_an_edit_stands_under_its_source_and_before_it(tmp_path):
  source, edit = make_steps(), make_steps()
  edit = ECG(2 * edit.signal, 500, "edited")
  path = tmp_path / "edit.png"
  figure = plotting.plot_edits(
    [source, source], [edit, edit], path, ("was", "is"), leads=("V5",)
  )
  assert path.stat().st_size > 10_000
  found = names(figure)
  assert found.count("steps: was") == found.count("edited: is") == 2
  lines = [x for x in figure.axes[0].lines if len(x.get_xydata()) > 4]
  assert len(lines) == 2 * 3
  above, behind, before = lines[:3]
  assert behind.get_color() != before.get_color() == above.get_color()
  rise = [np.ptp(line.get_ydata()) for line in (above, behind, before)]
  np.testing.assert_allclose(rise, [10 * 1.0, 10 * 1.0, 10 * 2.0], atol=1e-6)
  assert behind.get_ydata()[0] == before.get_ydata()[0] < above.get_ydata()[0]


def test_titles_of_recordings_without_a_name():
  unnamed = ECG(make_steps().signal, 500)
  found = names(plotting.plot_overview(unnamed, [unnamed, make_steps()]))
  assert {"Reference", "Twin 1", "Twin 2 steps"} <= set(found)
  found = names(plotting.plot_edits([unnamed], [unnamed]))
  assert {"source", "edit"} <= set(found)


def test_attention_colours_the_time_in_which_a_statement_stands_out(tmp_path):
  attention = np.full((128, 3), [0.5, 0.3, 0.2])
  attention[32:64] += [-0.1, 0.1, 0.0]  # 2.5 s to 5 s
  attention[96:112] += [0.0, -0.05, 0.05]  # 7.5 s to 8.75 s
  statements = ("Sinus rhythm", "Ectopic beat", "Block")
  path = tmp_path / "attention.png"
  figure = plotting.plot_attention(
    make_steps(), attention, statements, path, leads=("II", "aVF")
  )
  assert path.stat().st_size > 10_000
  found = names(figure)
  assert {"II", "aVF", "Ectopic beat   mean 32%", "steps"} <= set(found)
  shades = figure.axes[0].get_images()
  assert len(shades) == 2
  for shade in shades:
    left, right, _, _ = shade.get_extent()
    assert right - left == pytest.approx(250)
    (pixels,) = shade.get_array()
    alpha = pixels[:, 3]
    # Inside a span the statement that gains, the strongest at full strength.
    assert alpha.max() == pytest.approx(0.6)
    assert alpha[32:64].min() == alpha.max() > 1.5 * alpha[96:112].max()
    colors = {tuple(pixels[i, :3]) for i in (0, 40, 100)}
    assert len(colors) == 3
  lanes = [
    text.get_position()[1]
    for text in figure.axes[0].texts
    if "mean" in text.get_text() and "lanes" not in text.get_text()
  ]
  assert lanes == sorted(lanes, reverse=True) and len(lanes) == 3


def test_attention_without_a_choice_has_no_colour():
  figure = plotting.plot_attention(
    make_steps(), np.ones((128, 1)), ["Sinus rhythm"], title="A title"
  )
  assert "A title" in names(figure) and "steps" not in names(figure)
  for shade in figure.axes[0].get_images():
    assert shade.get_array()[..., 3].max() == 0


def test_what_is_refused():
  ecg = make_steps()
  with pytest.raises(ValueError, match="layout='4x3' must be one of 3x4, 6x2"):
    plotting.plot_ecg(ecg, layout="4x3")
  with pytest.raises(ValueError, match=r"len\(titles\)=1 must be 2"):
    plotting.plot_overview(ecg, [ecg], titles=["one"])
  for leads in (("I", "V7"), ()):
    with pytest.raises(ValueError, match="must be among I, II"):
      plotting.plot_overview(ecg, [ecg], leads=leads)
  with pytest.raises(ValueError, match=r"len\(edits\)=1 must be"):
    plotting.plot_edits([ecg, ecg], [ecg])
  with pytest.raises(ValueError, match=r"len\(edits\)=0 must be"):
    plotting.plot_edits([], [])
  with pytest.raises(ValueError, match="must end with"):
    plotting.plot_attention(ecg, np.ones((128, 2)), ["one"])


def test_a_title_is_text_not_mathematics(tmp_path):
  path = tmp_path / "a.png"
  figure = plotting.plot_ecg(make_steps(), path, title="a $\\nothing$ of")
  assert "a $\\nothing$ of" in names(figure) and path.stat().st_size > 1000


def test_six_rows_of_two_leads_at_50_mm_per_second():
  lines = traces(plotting.plot_ecg(make_steps(), layout="6x2", speed=50))
  assert len(lines) == 12
  limb, chest = lines[0][:, 0], lines[1][:, 0]
  assert limb[-1] - limb[0] == pytest.approx(5 * 50)
  assert chest[0] - limb[0] == pytest.approx(5 * 50)
  with pytest.raises(ValueError, match="speed=30 must be 25 or 50 mm/s"):
    plotting.plot_ecg(make_steps(), speed=30)


def test_a_generated_ecg_says_so_on_its_print_and_in_its_file(tmp_path):
  pillow = pytest.importorskip("PIL.Image")
  mark = "Synthetic ECG (ECGTwin-JAX): not recorded from a person"
  recorded = make_steps()
  made = ECG(recorded.signal, 500, "twin", ("synthetic: generated",))
  for ecg, marked in ((made, True), (recorded, False)):
    path = tmp_path / "a.png"
    figure = ecg.plot(path)
    assert any(x.startswith(mark) for x in names(figure)) == marked
    with pillow.open(path) as image:
      source, software = map(image.info.get, ("Source", "Software"))
    assert source == ("synthetic ECG, ECGTwin-JAX" if marked else None)
    assert software == "ECGTwin-JAX"
  for figure in (
    plotting.plot_overview(recorded, [made]),
    plotting.plot_edits([made], [made]),
    plotting.plot_attention(made, np.ones((4, 1)), ["Pacing"]),
  ):
    assert any(x.startswith("Synthetic") for x in names(figure))
  made.plot(tmp_path / "a.pdf")
  made.plot(tmp_path / "a.svg")
  assert "synthetic ECG, ECGTwin-JAX" in (tmp_path / "a.svg").read_text()


@pytest.mark.parametrize(
  # mV that would lift a name to where the title is, and how often, in ms
  ("layout", "height", "every"),
  [
    *((None, 2.2, 2500), ("3x4", 2.5, 2500), ("6x2", 2.1, 2500)),
    *(("12x1", 1.5, 2500), (None, 4.2, 250)),  # the last leaves no place
  ],
)
def test_a_name_moves_beside_a_tall_wave_not_into_the_title(
  layout, height, every
):
  signal = np.zeros((10_000, 12))
  for first in range(0, 10_000, every):
    signal[first : first + min(every // 2, 200)] = height
  tall = ECG(signal, 1000, "tall " * 30)
  if layout is None:
    figure = plotting.plot_overview(tall, [tall])
  else:
    figure = plotting.plot_ecg(tall, layout=layout)
  figure.draw_without_rendering()
  boxes = {
    text: text.get_window_extent().bounds for text in figure.axes[0].texts
  }
  named = {x: b for x, b in boxes.items() if x.get_text() in LEADS}
  titles = [b for x, b in boxes.items() if "tall" in x.get_text()]
  assert len(titles) == (2 if layout is None else 1)
  for text, (x, y, width, height) in named.items():
    for left, bottom, across, up in titles:
      beside = x >= left + across or left >= x + width
      apart = y >= bottom + up or bottom >= y + height
      assert beside or apart, text.get_text()
