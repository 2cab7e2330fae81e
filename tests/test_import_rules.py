"""Who may import whom: each folder itself and those below."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "ecgtwin_jax"

# The floor of a folder, or of a file that differs from its folder; longer
# names win.
FLOORS = {
  "ecgtwin_jax": 0,  # __init__: lazy names alone
  "ecgtwin_jax.constants": 1,
  "ecgtwin_jax.diffusion": 1,
  "ecgtwin_jax.models": 1,
  "ecgtwin_jax.text": 2,
  "ecgtwin_jax.data": 3,
  "ecgtwin_jax.plotting": 3,
  "ecgtwin_jax.ranking": 3,
  "ecgtwin_jax.sharding": 3,
  "ecgtwin_jax.flags": 3,
  "ecgtwin_jax.config_help": 2,
  "ecgtwin_jax.beats": 4,
  "ecgtwin_jax.simulator": 5,
  "ecgtwin_jax.inference": 6,
  "ecgtwin_jax.training": 7,
  "ecgtwin_jax.torch_import": 7,
  "ecgtwin_jax.stages": 8,
  "ecgtwin_jax.jobs": 9,
  "ecgtwin_jax.app": 10,
  "ecgtwin_jax.evaluation": 10,
  "ecgtwin_jax.main": 11,
}
# Folders and files that worker processes load: without jax.
WITHOUT_JAX = (
  "ecgtwin_jax.constants",
  "ecgtwin_jax.data",
  "ecgtwin_jax.beats",
  "ecgtwin_jax.simulator",
  "ecgtwin_jax.plotting",
  "ecgtwin_jax.ranking",
  "ecgtwin_jax.text.statements",
  "ecgtwin_jax.text.findings",
  "ecgtwin_jax.text.wording",
  "ecgtwin_jax.text.abbreviations",
  "ecgtwin_jax.inference.results",
  "ecgtwin_jax.app.uploads",
  "ecgtwin_jax.training.host_memory",
)
WITH_JAX = ("ecgtwin_jax.data.pipeline",)  # among them
ALLOWED_OUTSIDE = {
  0: set(),
  1: {"jax", "flax", "numpy", "jaxtyping"},
}
NUMPY_ALONE = {
  "numpy",
  "scipy",
  "wfdb",
  "jaxtyping",
  "array_record",
  "etils",
  "tqdm",
}
LAZY = {
  *("matplotlib", "torch", "transformers", "neurokit2", "sklearn", "gradio"),
  *("pydicom", "edfio", "ecgdatakit", "pyarrow", "pandas", "huggingface_hub"),
}


def module_name(path):
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(p for p in parts if p != "__init__")


def floor(name):
  while name not in FLOORS:
    assert name.count(".") > 1, f"{name} has no floor: add it to FLOORS"
    name = name.rpartition(".")[0]
  return FLOORS[name]


def without_jax(name):
  inside = (name == f or name.startswith(f"{f}.") for f in WITHOUT_JAX)
  return any(inside) and name not in WITH_JAX


def imports(path, top_level):
  tree = ast.parse(path.read_text())
  if path == PACKAGE / "__init__.py":
    # What only type checkers see of the lazy names is no import.
    tree.body = [node for node in tree.body if not isinstance(node, ast.If)]
  nodes = tree.body if top_level else ast.walk(tree)
  for node in nodes:
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative import"
      for alias in node.names:
        full = f"{node.module}.{alias.name}"
        file = ROOT / full.replace(".", "/")
        is_module = file.with_suffix(".py").exists() or file.is_dir()
        yield full if is_module else node.module


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_each_file_imports_its_folder_and_those_below(path):
  name = module_name(path)
  here = floor(name)
  for target in imports(path, top_level=False):
    top = target.split(".")[0]
    # What the package's own name offers is for type checkers alone.
    if top == "ecgtwin_jax" and "ecgtwin_jax" not in (name, target):
      assert floor(target) <= here, f"{name} (floor {here}) imports {target}"
    assert target != "ecgtwin_jax.main", f"{name} imports main"
    if top == "data_prep":
      assert name == "ecgtwin_jax.jobs.train", name
    if top == "orbax":
      assert name == "ecgtwin_jax.training.checkpoint", name
    if top == "torch":
      assert name == "ecgtwin_jax.torch_import.convert", name
  for target in imports(path, top_level=True):
    top = target.split(".")[0]
    # The page is nothing but Gradio; the app job imports it when it runs.
    page = (name, top) == ("ecgtwin_jax.app.page", "gradio")
    assert top not in LAZY or page, f"{name} imports {top} at its top"
    allowed = ALLOWED_OUTSIDE.get(here)
    if without_jax(name):
      allowed = NUMPY_ALONE
    if allowed is not None and top not in sys.stdlib_module_names:
      assert top in allowed | {"ecgtwin_jax"}, f"{name} imports {top}"


def test_configs_import_ml_collections_and_common_alone():
  for path in (ROOT / "configs").glob("*.py"):
    found = set(imports(path, top_level=False))
    assert found <= {"ml_collections", "configs.common"}, path


def test_what_workers_load_is_without_jax_in_a_fresh_process():
  names = [name for name in map(module_name, FILES) if without_jax(name)]
  assert len(names) > 20
  code = "import sys, " + ", ".join(names) + "; print('jax' in sys.modules)"
  out = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert out.stdout.strip() == "False"


def test_a_twin_is_imported_without_what_takes_long_and_comes_later():
  code = "import sys, ecgtwin_jax; ecgtwin_jax.ECGTwin; print(*sys.modules)"
  out = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  loaded = set(out.stdout.split())
  assert "ecgtwin_jax.inference.twin" in loaded
  assert not loaded & {*LAZY, "scipy.signal", "scipy.stats", "optax", "orbax"}


def test_no_test_imports_a_test():
  for path in (ROOT / "tests").rglob("*.py"):
    found = set(imports(path, top_level=False))
    other = {x for x in found if x.split(".")[-1].startswith("test_")}
    assert not other, f"{path} imports {other}: shared builders are helpers"
