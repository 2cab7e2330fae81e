"""README and docs: links lead somewhere, the site builds, numbers agree."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from data_prep import quality

ROOT = pathlib.Path(__file__).parent.parent
PAGES = sorted(
  [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("*/*.md"),
    *ROOT.glob("ecgtwin_jax/assets/**/*.md"),
  ]
)


def test_the_readme_is_short():
  lines = (ROOT / "README.md").read_text().splitlines()
  assert len(lines) <= 170


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files_that_are_there(page):
  text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
  for target in re.findall(r"\]\(([^)\s]+)\)", text):
    if re.match(r"https?:|mailto:|#", target):
      continue
    path = (page.parent / target.partition("#")[0]).resolve()
    assert path.exists(), f"{page.name} links to {target}"


def test_the_site_builds_without_a_warning_and_without_a_network(tmp_path):
  pytest.importorskip("mkdocs", reason="mkdocs-material is not installed")
  offline = {
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
  }
  out = subprocess.run(
    [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "-d", tmp_path],
    cwd=ROOT,
    env={
      **os.environ,
      **offline,
      "PYTHONPATH": str(ROOT),
      "NO_MKDOCS_2_WARNING": "1",
    },
    capture_output=True,
    text=True,
  )
  assert out.returncode == 0, out.stderr
  assert "ECGTwin.generate" in (tmp_path / "api" / "index.html").read_text()


def test_the_data_guide_holds_the_table_of_rules():
  assert quality.markdown() in (ROOT / "docs" / "data.md").read_text()


def test_the_readme_and_the_citation_name_this_version():
  from ecgtwin_jax import __version__

  for name in ("README.md", "CITATION.cff"):
    text = (ROOT / name).read_text()
    assert re.search(rf"version\W+{re.escape(__version__)}\b", text), name


def test_the_layers_in_the_picture_are_those_of_the_import_rules():
  source = (ROOT / "docs" / "figures" / "make.py").read_text()
  rules = (ROOT / "tests" / "test_import_rules.py").read_text()
  folders = set(re.findall(r'"ecgtwin_jax\.(\w+)": \d+', rules))
  named = set(re.findall(r'^  "(\w+)": "', source, flags=re.M))
  files = {"constants", "plotting", "ranking", "sharding", "flags"}
  files.add("config_help")
  assert folders - files == named
