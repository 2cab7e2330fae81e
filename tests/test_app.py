"""The page as users open it: a server, and a browser without a screen."""

import http.client
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile

import pytest

from ecgtwin_jax import main, read_ecg
from helpers import XLA_FLAGS

ROOT = pathlib.Path(__file__).parent.parent
RECORD = str(ROOT / "tests/data/ptbxl/records500/00000/00008_hr")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HAS_TEXT = """text => [...document.querySelectorAll("textarea, input")]
  .some(box => box.value.includes(text))"""


def test_without_gradio_the_error_names_the_extra(monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, "gradio", None)
  monkeypatch.delitem(sys.modules, "ecgtwin_jax.app.page", raising=False)
  monkeypatch.setattr(os, "environ", os.environ.copy())
  assert main.main([f"--config={ROOT}/configs/app.py"]) == 1
  (line,) = capsys.readouterr().err.splitlines()
  assert "pip install -e '.[app]'" in line


def test_a_temporary_folder_of_a_long_name_is_named(monkeypatch, capsys):
  monkeypatch.setattr(tempfile, "tempdir", f"/tmp/{'x' * 54}")  # of 59 bytes
  assert main.main([f"--config={ROOT}/configs/app.py"]) == 1
  (line,) = capsys.readouterr().err.splitlines()
  assert "xxx', must have a name of at most" in line
  assert "TMPDIR=/tmp ecgtwin app" in line


@pytest.fixture(scope="module")
def server(tmp_path_factory):
  """(address, port, process, folder for temporary files) of a running page."""
  pytest.importorskip("gradio", reason="Gradio is not installed")
  folder = tmp_path_factory.mktemp("page")
  (folder / "temporary").mkdir()
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  with (folder / "log").open("w") as log:
    process = subprocess.Popen(
      [
        *(sys.executable, "-m", "ecgtwin_jax.main"),
        "--config=configs/app.py",
        f"--config.port={port}",
        "--config.num_samples=1",
        "--config.sampling.steps=2",
        "--config.max_upload_mb=1",
        f"--workdir={folder}/app",
      ],
      stdout=log,
      stderr=log,
      cwd=ROOT,
      env={
        **os.environ,
        "TMPDIR": str(folder / "temporary"),
        "XLA_FLAGS": XLA_FLAGS,
      },
    )
  try:
    end = time.monotonic() + 300
    while "the page is at" not in (text := (folder / "log").read_text()):
      assert process.poll() is None and time.monotonic() < end, text
      time.sleep(0.1)
    yield f"http://127.0.0.1:{port}", port, process, folder
  finally:
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def chromium():
  api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed"
  )
  found = [path for name in BROWSERS if (path := shutil.which(name))]
  if not found:
    pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
  with api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(
      executable_path=found[0], args=["--no-sandbox"]
    )
    yield browser
    browser.close()


@pytest.fixture
def page(server, chromium):
  """A tab with the page; it fails on dialogs, errors and other hosts."""
  tab = chromium.new_page(viewport={"width": 1440, "height": 1000})
  bad = []
  own = server[0].removeprefix("http://")
  tab.on("dialog", lambda x: (bad.append(x.message), x.dismiss()))
  tab.on("pageerror", lambda error: bad.append(str(error)))
  tab.on(
    "request",
    lambda x: None if f"//{own}/" in x.url else bad.append(x.url),
  )
  tab.set_default_timeout(120_000)
  tab.goto(server[0])
  tab.get_by_role("button", name="Generate twins").wait_for()
  tab.wait_for_timeout(1000)  # until it listens
  yield tab
  tab.close()
  assert not [x for x in bad if not x.startswith(("data:", "blob:"))]


def see(tab, text):
  tab.wait_for_function(HAS_TEXT, arg=text)


def upload(tab, *paths):
  tab.locator("input[type=file]").first.set_input_files(list(map(str, paths)))


def clear(tab):
  tab.get_by_role("button", name="Clear").first.click()
  tab.get_by_text("Click to Upload").wait_for()
  tab.wait_for_timeout(1000)


def test_a_port_that_is_taken_is_one_line(server):
  _, port, *_ = server
  with tempfile.TemporaryDirectory() as folder:  # of a short name
    out = subprocess.run(
      [sys.executable, "-m", "ecgtwin_jax.main", "app", f"--port={port}"],
      capture_output=True,
      text=True,
      cwd=ROOT,
      env={**os.environ, "TMPDIR": folder},
    )
    assert not list(pathlib.Path(folder).glob("ecgtwin_*"))
  (line,) = out.stderr.splitlines()
  assert out.returncode == 1
  assert f"port {port} is taken: ecgtwin app --port={port + 1}" in line


def test_twins_explanation_and_edit(page, tmp_path):
  page.get_by_role("button", name="Generate twins").click()
  see(page, "80 bpm asked for")
  image = page.get_by_alt_text("The reference above its twins")
  image.wait_for()
  assert image.evaluate("x => x.naturalWidth") > 1000
  with page.expect_download() as download:
    page.get_by_role("button", name="Download twins.zip").click()
  download.value.save_as(tmp_path / "twins.zip")
  with zipfile.ZipFile(tmp_path / "twins.zip") as archive:
    archive.extractall(tmp_path)
  ecg = read_ecg(tmp_path / "twin_0.hea")
  assert ecg.comments[0].startswith("synthetic")
  assert "81" in ecg.comments[2]  # the empty field is the reference's age

  page.get_by_role("button", name="The same twins in Python").click()
  page.get_by_text("from_pretrained").first.wait_for()

  page.get_by_role("tab", name="Attention").click()
  page.get_by_role("button", name="Explain the twins").click()
  see(page, "Mean share of the attention")

  page.get_by_role("tab", name="Edit").click()
  page.get_by_role("button", name="Edit the twins").click()
  see(page, "Not done: choose one statement to add")
  box = page.get_by_label("Statement", exact=True)
  box.fill("Low QRS voltages")
  box.press("Enter")
  page.get_by_role("button", name="Edit the twins").click()
  see(page, "Largest change")
  with page.expect_download() as download:
    page.get_by_role("button", name="Download edits.zip").click()
  download.value.save_as(tmp_path / "edits.zip")
  with zipfile.ZipFile(tmp_path / "edits.zip") as archive:
    assert "edited_0.hea" in archive.namelist()


def test_uploads_and_their_errors_in_words(page, tmp_path):
  upload(page, RECORD + ".hea", RECORD + ".dat")
  see(page, "00008_hr: 10 s at 500 Hz")
  page.get_by_role("button", name="Generate twins").click()
  see(page, "Not done: choose at least one statement of what the reference")

  clear(page)
  evil = tmp_path / "<img src=x onerror=alert(1)>.csv"
  evil.write_text("# sampling_rate=500\nI,<b>II</b>\n1,2\n")
  upload(page, evil)
  see(page, "too short")
  assert page.locator("img[src=x]").count() == 0

  clear(page)
  large = tmp_path / "large.csv"
  large.write_bytes(b"0" * 2**21)
  upload(page, large)
  page.get_by_text("exceed the maximum allowed size").first.wait_for()


def test_two_people_at_once_get_their_own(page, server, chromium):
  other = chromium.new_page()
  other.goto(server[0])
  other.get_by_role("button", name="Generate twins").wait_for()
  other.wait_for_timeout(1000)
  for tab, rate in ((page, "71"), (other, "93")):
    tab.get_by_label("Heart rate asked for (bpm)").fill(rate)
    tab.get_by_role("button", name="Generate twins").click()
  see(page, "71 bpm asked for")
  see(other, "93 bpm asked for")
  other.close()


def test_every_control_has_a_name_of_its_own(page):
  page.get_by_text("How many, and how").click()
  page.get_by_label("Seed").wait_for()
  names = page.evaluate(
    """() => [...document.querySelectorAll("input, textarea, select")]
      .filter(x => x.checkVisibility() && x.type != "radio")
      .map(x => x.getAttribute("aria-label")
        ?? [...x.labels ?? []].map(y => y.innerText.trim()).join())"""
  )
  assert len(names) > 8 and all(names), names
  assert len(set(names)) == len(names), names


def test_it_fits_a_phone(page):
  page.set_viewport_size({"width": 390, "height": 844})
  page.wait_for_timeout(500)
  width = page.evaluate("document.documentElement.scrollWidth")
  assert width <= 390


def request(server, path, headers=(), body=None):
  """Status and headers that a request gets."""
  connection = http.client.HTTPConnection("127.0.0.1", server[1], timeout=60)
  connection.request(
    "POST" if body else "GET", path, body, headers=dict(headers)
  )
  answer = connection.getresponse()
  answer.read()
  connection.close()
  return answer.status, dict(answer.getheaders())


def test_foreign_hosts_and_origins_are_refused(server):
  assert request(server, "/")[0] == 200
  evil = f"evil.example:{server[1]}"
  for headers in (
    {"Host": evil},
    {"Host": evil, "Origin": f"http://{evil}"},
    {"Origin": "http://evil.example"},
  ):
    status, answer = request(server, "/", headers)
    assert status == 403
    assert not [name for name in answer if "access-control" in name.lower()]
  large = {"Content-Length": str(2**21)}  # is refused before it is sent
  assert request(server, "/gradio_api/queue/join", large, "x")[0] == 413


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_listens_on_loopback_alone(server):
  lines = pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]
  lines += pathlib.Path("/proc/net/tcp6").read_text().splitlines()[1:]
  local = [words[1] for line in lines if (words := line.split())[3] == "0A"]
  here = [x for x in local if x.endswith(f":{server[1]:04X}")]
  assert here == [f"0100007F:{server[1]:04X}"]


def test_sigterm_ends_it_and_leaves_no_files(server):
  """The last of this file: it stops the server."""
  _, _, process, folder = server
  assert list((folder / "temporary").glob("ecgtwin_*"))
  process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=30) == 0
  assert not list((folder / "temporary").glob("ecgtwin_*"))
  assert "Traceback" not in (folder / "log").read_text()
