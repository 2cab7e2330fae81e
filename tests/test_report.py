import csv
import json
import math

import numpy as np
import pytest

from ecgtwin_jax.evaluation import report
from ecgtwin_jax.evaluation.metric import (
  Metric,
  bootstrap_interval,
  mean_metric,
  missing,
)

NAN = float("nan")
METRICS = [
  Metric(
    "distance",
    np.float32(0.5),
    0.25,
    0.75,
    NAN,
    1.5,
    "lower",
    7,
    "fidelity",
    "a <b>",
  ),
  missing("axis_deg", "physiology", "no beats"),
]


def test_metrics_are_json_that_comes_back(tmp_path):
  report.write_metrics(tmp_path, METRICS)
  text = (tmp_path / "metrics.json").read_text()
  assert "NaN" not in text
  entries = json.loads(text)["metrics"]
  assert entries[0] == {
    "name": "distance",
    "value": 0.5,
    "low": 0.25,
    "high": 0.75,
    "baseline": None,
    "reference": 1.5,
    "better": "lower",
    "n": 7,
    "level": "fidelity",
    "note": "a <b>",
  }
  endless = METRICS[0]._replace(high=math.inf)
  assert report.to_json(endless)["high"] is None
  again = [report.from_json(entry) for entry in entries]
  assert again[0].value == 0.5 and math.isnan(again[1].value)
  earlier = {"floor" if k == "baseline" else k: 0 for k in entries[0]}
  with pytest.raises(ValueError, match=r"not name.*floor.*another workdir"):
    report.from_json(earlier)
  with open(tmp_path / "physiology.csv") as file:
    assert [row["name"] for row in csv.DictReader(file)] == ["axis_deg"]
  with open(tmp_path / "metrics.csv") as file:
    assert len(list(csv.DictReader(file))) == 2


def test_names_are_unique_and_levels_known(tmp_path):
  with pytest.raises(ValueError, match=r"'distance'.*the only one of its name"):
    report.write_metrics(tmp_path, [METRICS[0], METRICS[0]])
  with pytest.raises(ValueError, match="level 'taste' must be"):
    report.write_metrics(tmp_path, [METRICS[0]._replace(level="taste")])
  with pytest.raises(ValueError, match=r"better='up' must be one of lower, hi"):
    report.write_metrics(tmp_path, [METRICS[0]._replace(better="up")])


def test_the_page_holds_tables_words_and_pictures(tmp_path):
  picture = tmp_path / "heart_rate.png"
  picture.write_bytes(b"\x89PNG picture")
  page = report.write_html(
    tmp_path,
    {"twin": "<script>"},
    [METRICS[0]._replace(baseline=0.125), METRICS[1]],
    {"fidelity": [picture]},
    {"physiology": "Nothing & nobody."},
  ).read_text()
  assert "<script>" not in page and "&lt;script&gt;" in page
  cells = "<td>↓<td>0.5<td>0.25 to 0.75<td>0.125<td>1.5<td>7<td>a &lt;b&gt;"
  assert cells in page.replace("</td>", "")
  assert "<td>↓<td>–<td>–<td>–<td>–<td>0<td>no beats" in page.replace(
    "</td>", ""
  )
  assert page.count("<img") == 1 and page.index("<img") < page.index("axis_deg")
  assert "alt='heart rate'" in page and "iVBORw" not in page
  assert "Nothing &amp; nobody." in page and page.count("<h2") == 2


def test_intervals_resample_patients_not_rows():
  # Each patient's rows are equal: more rows of a patient say nothing new.
  rng = np.random.default_rng(0)
  means = rng.normal(size=40)
  once, often = means, np.repeat(means, 25)
  mean = mean_metric("x", once, np.arange(40), "truth", better="lower")
  many = mean_metric(
    "x", often, np.repeat(np.arange(40), 25), "truth", better="lower"
  )
  width = mean.high - mean.low
  assert abs(width - 2 * 1.96 * means.std() / 40**0.5) < 0.1 * width
  assert abs((many.high - many.low) - width) < 0.1 * width
  assert many.n == 1000


def test_failed_measurements_are_counted_not_replaced():
  values = np.array([1.0, NAN, 3.0])

  def metric_of(values, **more):
    people = np.arange(len(values))
    return mean_metric("x", values, people, "truth", better="lower", **more)

  metric = metric_of(values, note="why")
  assert metric.value == 2.0 and metric.n == 2
  assert metric.note == "why; 1 of 3 failed"
  none = metric_of(values[1:2])
  assert math.isnan(none.value) and none.note == "1 of 1 failed"
  few = metric_of(np.array([1.0, NAN, NAN]))
  assert math.isnan(few.value) and few.note == "2 of 3 failed" and few.n == 1
  assert metric_of(np.array([1.0, NAN])).value == 1.0


def test_one_patient_has_no_interval():
  low, high = bootstrap_interval(lambda rows: 1.0, np.zeros(9))
  assert math.isnan(low) and math.isnan(high)


def test_the_interval_of_a_mean_is_that_of_its_resamples():
  rng = np.random.default_rng(0)
  people, values = rng.integers(0, 7, 23), rng.normal(size=23)
  found = mean_metric("x", values, people, "truth", better="lower", seed=3)
  want = bootstrap_interval(lambda rows: values[rows].mean(), people, seed=3)
  np.testing.assert_allclose((found.low, found.high), want, rtol=1e-12)


@pytest.mark.parametrize(("every", "known"), [(3, False), (2, True)])
def test_an_interval_needs_half_of_its_resamples(every, known):
  calls = iter(range(100))
  interval = bootstrap_interval(
    lambda rows: 1.0 if next(calls) % every == 0 else NAN,
    np.arange(4),
    repeats=100,
  )
  assert np.isfinite(interval).all() == known
