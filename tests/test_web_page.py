"""A twin as ONNX programs, and as a page without a server behind it."""

import functools
import http.server
import json
import pathlib
import shutil
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ecgtwin_jax as et
from ecgtwin_jax.beats.rhythm import detect_rhythm_and_beat
from ecgtwin_jax.data.conditions import MAX_STATEMENTS
from ecgtwin_jax.inference import onnx_graph, web_page
from ecgtwin_jax.models import layers, rhythm

ROOT = pathlib.Path(__file__).parent.parent
RUNTIME = ROOT / "node_modules" / "onnxruntime-web"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NOW = et.Condition(["Sinus rhythm", "Right bundle branch block"], 82, 81, "F")
THEN = et.Condition(["Sinus rhythm", "Ventricular premature complex"], 80)


def run(data, feeds):
  """What onnxruntime makes of a program."""
  onnxruntime = pytest.importorskip(
    "onnxruntime", reason="onnxruntime is not installed: pip install '.[onnx]'"
  )
  session = onnxruntime.InferenceSession(
    data, providers=["CPUExecutionProvider"]
  )
  wanted = {x.name for x in session.get_inputs()}
  return session.run(None, {k: v for k, v in feeds.items() if k in wanted})


def assert_near(got, expected):
  """Within 1e-4 of what is largest, and NaN in the same places."""
  got, expected = np.asarray(got), np.asarray(expected)
  assert got.dtype == expected.dtype
  largest = np.nanmax(np.abs(expected)) if expected.size else 0
  np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * largest)


def test_of_what_a_platform_has_its_own_way_for_the_common_one_is_taken():
  onnx = pytest.importorskip("onnx", reason="onnx is not installed: .[onnx]")
  rng = np.random.default_rng(0)
  kernel = rng.standard_normal((3, 128, 256)).astype(np.float32) / 16

  def wide(x):
    numbers = dict(dimension_numbers=("NWC", "WIO", "NWC"))
    return layers.convolve(x, kernel, (1,), ((1, 1),), **numbers)

  x = rng.standard_normal((1, 6, 128)).astype(np.float32)
  made = onnx_graph.convert(
    wide, {"x": jax.ShapeDtypeStruct(x.shape, x.dtype)}, ["y"]
  )
  nodes = [node.op_type for node in onnx.load_from_string(made).graph.node]
  assert nodes.count("Conv") == 1 and "MatMul" not in nodes
  assert_near(run(made, {"x": x})[0], wide(x))


def test_each_operator_means_what_jax_means():
  pytest.importorskip("onnx", reason="onnx is not installed: .[onnx]")
  rng = np.random.default_rng(0)
  table = rng.standard_normal((7, 3)).astype(np.float32)
  kernel = rng.standard_normal((3, 5, 2)).astype(np.float32)

  def function(x, gaps, rows, which):
    taken = jnp.take(jnp.asarray(table), rows, axis=0, mode="clip")
    y = jax.lax.conv_general_dilated(
      x, kernel, (2,), [(1, 2)], dimension_numbers=("NWC", "WIO", "NWC")
    )
    either = jnp.where(which, x[0] > 0, x[0] < -1)
    sums = jnp.einsum("btc,bsc->bts", x, x * jnp.float32(0.1))

    def body(carry, row):
      carry = carry * 0.5 + jnp.tanh(row) @ table[:5, :1][:, 0]
      return carry, (carry, jnp.argmax(row).astype(jnp.int32))

    last, (each, best) = jax.lax.scan(body, jnp.float32(1), x[0])
    first, second = jnp.split(x, [2], axis=2)
    joined = jnp.concatenate([second, first], axis=2)[:, ::1].transpose(0, 2, 1)
    logs = jnp.log1p(jnp.square(joined)) ** 3
    padded = jnp.pad(jnp.cumsum(logs, axis=2), ((0, 0), (0, 1), (2, 0)))
    whole = jnp.where(jnp.isnan(gaps), 0, jax.lax.rsqrt(jnp.abs(gaps) + 1))
    count = jnp.isfinite(gaps).astype(jnp.int32).sum(axis=(0, 2))
    return (
      *(taken, y, either, either.any(axis=0), sums, last, each, best),
      *(padded, whole, count, jnp.stack([rows, -rows], axis=1)),
      jnp.unstack(x, axis=2)[3],
    )

  x = rng.standard_normal((1, 11, 5)).astype(np.float32)
  gaps = np.where(x > 1, np.nan, x)
  gaps[0, 3, 2] = np.inf
  rows, which = np.array([4, 0, 6], np.int32), np.arange(11)[:, None] > 5
  which = np.broadcast_to(which, (11, 5)).copy()
  arguments = {"x": x, "gaps": gaps, "rows": rows, "which": which}
  shapes = {
    k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in arguments.items()
  }
  expected = function(**arguments)
  names = [f"y{i}" for i in range(len(expected))]
  got = run(onnx_graph.convert(function, shapes, names), arguments)
  for one, other in zip(got, expected, strict=True):
    assert_near(one, other)


def test_without_onnx_the_error_names_the_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, "onnx", None)
  with pytest.raises(ValueError, match=r"pip install 'ecgtwin_jax\[onnx\]'"):
    onnx_graph.convert(jnp.sin, {}, ["y"])


def test_what_has_no_operator_is_named():
  pytest.importorskip("onnx", reason="onnx is not installed: .[onnx]")
  shape = {"x": jax.ShapeDtypeStruct((3,), np.float32)}
  with pytest.raises(ValueError, match="'sort' has no operator"):
    onnx_graph.convert(jnp.sort, shape, ["y"])


def rows_of(arguments, seed):
  """A plausible row of a program's arguments."""
  rng = np.random.default_rng(seed)
  row = {
    name: rng.standard_normal(x.shape).astype(x.dtype)
    for name, x in arguments.items()
    if np.dtype(x.dtype).kind == "f"
  }
  time = np.full((1, 48), np.nan, np.float32)
  time[0, :9] = 0.3 + 1.05 * np.arange(9)
  kind = np.where(np.isnan(time), -1, 0).astype(np.int32)
  kind[0, 4] = 1
  row |= {"time": time, "kind": kind, "p_wave": np.minimum(kind, 0) + kind * 0}
  row |= {
    "mask": np.arange(MAX_STATEMENTS)[None] < 3,
    "found": np.ones(1, np.int8),
  }
  row["premature"] = np.array([[True, True]])
  row["patient"] = np.array([[0.3, np.nan, -0.5]], np.float32)
  row["usual"], row["rate"] = np.float32([0.75]), np.float32([80])
  row["uniforms"] = rng.uniform(size=(1, 49, 4)).astype(np.float32)
  return {name: row[name] for name in arguments}


def check_programs(twin):
  made = web_page.programs(twin, twin.settings())
  assert {"extract", "noise", "sample", "decode", "rhythm"} == set(made)
  for name, (function, arguments, results) in made.items():
    data = onnx_graph.convert(function, arguments, results)
    for seed in range(2):
      feeds = rows_of(arguments, seed)
      expected = jax.jit(function)(*feeds.values())
      for got, want in zip(
        run(data, feeds), jax.tree.leaves(expected), strict=True
      ):
        assert got.shape[0] == 1, name
        assert_near(got, want)


def test_onnxruntime_makes_what_jax_makes(chain):
  pytest.importorskip("onnx", reason="onnx is not installed: .[onnx]")
  check_programs(et.ECGTwin.from_checkpoint(chain / "stage2" / "twin"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simulated-small", "real-small"])
def test_onnxruntime_makes_what_jax_makes_of_a_shipped_twin(name):
  pytest.importorskip("onnx", reason="onnx is not installed: .[onnx]")
  check_programs(et.ECGTwin.from_pretrained(name))


def test_uniform_numbers_become_the_distributions():
  u = (np.arange(1000, dtype=np.float32) + 0.5) / 1000
  draw = rhythm.from_uniforms(jnp.tile(u[:, None, None], (1, 3, 4)))
  logits = jnp.tile(jnp.log(jnp.array([[0.1, 0.0, 0.65, 0.25]])), (1000, 1))
  kinds = draw(jax.random.categorical, 1, 0, logits)
  shares = np.bincount(kinds, minlength=4) / 1000
  np.testing.assert_allclose(shares, [0.1, 0, 0.65, 0.25], atol=0.002)
  chance = jnp.full(1000, 0.3)
  assert draw(jax.random.bernoulli, 1, 1, chance).mean() == pytest.approx(0.3)
  quantiles = draw(jax.random.logistic, 2, 3)
  np.testing.assert_allclose(jax.nn.sigmoid(quantiles), u, atol=1e-5)


def test_what_a_page_cannot_have_is_refused(chain, tmp_path):
  twin = et.ECGTwin.from_checkpoint(chain / "stage2" / "twin")
  with pytest.raises(ValueError, match="npm install onnxruntime-web"):
    twin.export_page(tmp_path / "page", runtime=tmp_path)
  (tmp_path / "dist").mkdir()
  for name in web_page.RUNTIME_FILES:
    (tmp_path / "dist" / name).write_text("")
  with pytest.raises(ValueError, match=r"sde-dpm.* draws noise at its steps"):
    twin.export_page(tmp_path / "page", runtime=tmp_path, sampler="sde-dpm++")
  with pytest.raises(ValueError, match="is not empty and no exported twin"):
    twin.export_page(tmp_path, runtime=tmp_path)
  assert not (tmp_path / "page").exists()


class Files(http.server.SimpleHTTPRequestHandler):
  """Serves the files of a folder as they now are, and says nothing."""

  def end_headers(self):
    self.send_header("Cache-Control", "no-store")
    super().end_headers()

  def log_message(self, *_):
    pass


@pytest.fixture(scope="module")
def page(tmp_path_factory):
  """(page of the shipped twin, its twin, switch-off, requests, folder)."""
  pytest.importorskip("onnx", reason="onnx is not installed: .[onnx]")
  api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed"
  )
  found = [path for name in BROWSERS if (path := shutil.which(name))]
  if not found:
    pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
  if not RUNTIME.exists():
    pytest.skip("no node_modules/: npm install onnxruntime-web")
  folder = tmp_path_factory.mktemp("page") / "page"
  twin = et.ECGTwin.from_pretrained("simulated-small")
  twin.export_page(folder, runtime=RUNTIME)
  server = http.server.ThreadingHTTPServer(
    ("127.0.0.1", 0), functools.partial(Files, directory=folder)
  )
  threading.Thread(target=server.serve_forever, daemon=True).start()
  with api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(
      executable_path=found[0],
      args=[
        "--no-sandbox",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
      ],
    )
    tab = browser.new_page()
    tab.set_default_timeout(240_000)
    requests, errors = [], []
    tab.on("request", lambda x: requests.append((x.method, x.url)))
    tab.on("pageerror", lambda x: errors.append(str(x)))
    tab.goto(f"http://127.0.0.1:{server.server_port}/")
    tab.get_by_text("Choose or drop a 12-lead ECG").wait_for()

    def cut():
      server.shutdown()
      server.server_close()
      tab.context.set_offline(True)

    yield tab, twin, cut, requests, folder
    browser.close()
    assert errors == []


NUMBERS = """async ([text, now, then, normals, uniforms]) => {
  const { loadTwin } = await import("./twin.js");
  const { readCsv } = await import("./page.js");
  const { findMedianBeat, resample } = await import("./beats.js");
  const twin = await loadTwin();
  const leads = readCsv(text, twin.card.leads);
  const at = leads.map((x) => resample(x, 1024));
  const { beat, found } = findMedianBeat(
    at, twin.card.filter, twin.card.rate);
  const base = await twin.extract(leads, twin.condition(...now));
  const given = {
    normals: Float32Array.from(normals),
    uniforms: Float32Array.from(uniforms),
  };
  const row = twin.condition(...then);
  const started = performance.now();
  const ecg = await twin.generate(base, row, 0, given);
  const seconds = (performance.now() - started) / 1000;
  const plain = (x) => Array.from(x);
  return {
    beat: plain(beat), found, base: plain(base), ecg: plain(ecg), seconds,
  };
}"""


@pytest.mark.slow
def test_the_browser_makes_what_the_package_makes(page, tmp_path):
  tab, twin, *_ = page
  ecg = et.example_ecg()
  ecg.write(tmp_path / "ecg.csv")
  rng = np.random.default_rng(3)
  normals = rng.standard_normal((1, 128, 8)).astype(np.float32)
  uniforms = rng.uniform(size=(1, 49, 4)).astype(np.float32)
  now = [NOW.statements, 82, 81, "F"]
  got = tab.evaluate(
    NUMBERS,
    [
      (tmp_path / "ecg.csv").read_text(),
      json.loads(json.dumps(now)),
      [list(THEN.statements), 80, None, None],
      normals.ravel().tolist(),
      uniforms.ravel().tolist(),
    ],
  )
  seen = detect_rhythm_and_beat(ecg.resample(1024).signal, 102.4)
  assert got["found"] == seen.median_beat_found == 1
  # Its float16 steps are at most 0.5 uV below 1 mV.
  np.testing.assert_allclose(
    np.reshape(got["beat"], (80, 12)), seen.median_beat, atol=1e-3
  )
  base = twin.extract_base(ecg, NOW)
  assert_near(np.float32(got["base"]), base)
  made = web_page.programs(twin, twin.settings())
  arrays = twin.arrays(THEN, "denoiser")
  statements, mask, patient = (np.asarray(x)[None] for x in arrays[:3])
  row = {"statements": statements, "mask": mask, "patient": patient}
  row |= {"usual": np.float32([0.75]), "rate": np.float32([80])}
  row |= {"premature": np.array([[True, False]]), "uniforms": uniforms}
  row |= {"normals": normals, "base": np.float32([got["base"]])}
  for name in ("rhythm", "noise", "sample", "decode"):
    function, arguments, results = made[name]
    values = function(*(row[x] for x in arguments))
    values = values if isinstance(values, tuple) else (values,)
    row |= dict(zip(results, map(np.asarray, values), strict=True))
  assert_near(np.float32(got["ecg"]).reshape(1, 1024, 12), row["ecg"])


TAMPERED = """async () => {
  const { loadTwin } = await import("./twin.js");
  try {
    await loadTwin();
  } catch (error) {
    return error.message;
  }
}"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["decode.onnx", "statements.f32"])
def test_a_program_that_was_tampered_with_is_not_used(page, name):
  tab, *_, folder = page
  data = (folder / name).read_bytes()
  changed = bytearray(data)
  changed[len(data) // 2] ^= 1
  try:
    (folder / name).write_bytes(changed)
    text = f"{name} is not as exported: copy it anew"
    assert tab.evaluate(TAMPERED) == text
    (folder / name).unlink()
    assert tab.evaluate(TAMPERED) == f"{name} is not there"
  finally:
    (folder / name).write_bytes(data)
  assert tab.evaluate(TAMPERED) is None


DROP = """text => {
  const data = new DataTransfer();
  data.items.add(new File([text], "ecg.csv"));
  document.dispatchEvent(
    new DragEvent("drop", { dataTransfer: data, cancelable: true }));
}"""


@pytest.mark.slow
def test_with_the_network_cut_a_dropped_ecg_becomes_twins(page, tmp_path):
  tab, _, cut, requests, _ = page
  et.example_ecg().write(tmp_path / "ecg.csv")
  cut()
  before = len(requests)
  tab.evaluate(DROP, (tmp_path / "ecg.csv").read_text())
  tab.get_by_text("Say what it shows").wait_for()
  assert tab.locator("#now-rate").input_value() == "82"
  tab.locator("#now").select_option(list(NOW.statements))
  tab.locator("#then").select_option(list(THEN.statements))
  tab.locator("#rate").fill("90")
  tab.get_by_role("button", name="Make twins").click()
  tab.get_by_text("Done. What is drawn").wait_for()
  twins = tab.get_by_role("img", name="synthetic: Sinus rhythm")
  assert twins.count() == 2
  assert tab.get_by_role("img", name="reference: ecg.csv").count() == 1
  inks = twins.evaluate_all(
    """all => all.map((canvas) => {
      const { width, height } = canvas;
      const data = canvas.getContext("2d").getImageData(0, 0, width, height);
      let [dark, red] = [0, 0];
      for (let i = 0; i < data.data.length; i += 4) {
        const [r, g, b] = data.data.slice(i, i + 3);
        dark += r < 60 && g < 60 && b < 60;
        red += r > 140 && g < 60 && b < 80;
      }
      return [dark, red];
    })"""
  )
  assert all(dark > 2000 and red > 200 for dark, red in inks)
  assert len(requests) == before
  assert {method for method, _ in requests} == {"GET"}
  tab.locator("#then").select_option("Right bundle branch block")
  tab.locator("#count").fill("1")
  tab.get_by_role("button", name="Make twins").click()
  tab.get_by_text("shall have: “Sinus rhythm” was taken").wait_for()
  stated = "synthetic: Sinus rhythm, Right bundle branch block, 90 bpm"
  assert tab.get_by_role("img", name=stated).count() == 1
  tab.locator("#file").set_input_files(
    {"name": "x.csv", "mimeType": "text/csv", "buffer": b"I,II\n1,2\n"}
  )
  tab.get_by_text("Not read: a line '# sampling_rate=500").wait_for()
