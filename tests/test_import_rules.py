"""Who may import whom: each file its own floor and those below."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "ecgtwin_jax"

# The floor of a module or package; longer names win.
FLOORS = {
  "ecgtwin_jax": 0,  # __init__: lazy names alone
  "ecgtwin_jax.data": 0,
  "ecgtwin_jax.simulator": 0,
  "ecgtwin_jax.heart": 0,
  "ecgtwin_jax.plotting": 0,
  "ecgtwin_jax.models": 1,
  "ecgtwin_jax.diffusion": 1,
  "ecgtwin_jax.request_file": 0,
  "ecgtwin_jax.results": 0,
  "ecgtwin_jax.uploads": 0,
  "ecgtwin_jax.retrieval": 0,
  "ecgtwin_jax.bundle": 2,
  "ecgtwin_jax.checkpoint": 2,
  "ecgtwin_jax.conditioning": 2,
  "ecgtwin_jax.flags": 2,
  "ecgtwin_jax.flops": 2,
  "ecgtwin_jax.host_memory": 0,
  "ecgtwin_jax.hub_folder": 2,
  "ecgtwin_jax.language_model": 2,
  "ecgtwin_jax.manifest": 2,
  "ecgtwin_jax.metrics": 2,
  "ecgtwin_jax.optim": 2,
  "ecgtwin_jax.preemption": 2,
  "ecgtwin_jax.published_names": 2,
  "ecgtwin_jax.sampling": 2,
  "ecgtwin_jax.sharding": 2,
  "ecgtwin_jax.statements": 0,  # NumPy alone; encoders come lazily
  "ecgtwin_jax.data.pipeline": 2,
  "ecgtwin_jax.networks": 3,
  "ecgtwin_jax.stages": 3,
  "ecgtwin_jax.train": 4,
  "ecgtwin_jax.twin": 4,
  "ecgtwin_jax.watch": 4,
  "ecgtwin_jax.torch_import": 4,
  "ecgtwin_jax.evaluation": 5,
  "ecgtwin_jax.app": 5,
  "ecgtwin_jax.page": 5,
  "ecgtwin_jax.page_actions": 5,
  "ecgtwin_jax.chain": 5,
  "ecgtwin_jax.crowd": 5,
  "ecgtwin_jax.demo": 5,
  "ecgtwin_jax.edit": 5,
  "ecgtwin_jax.explain": 5,
  "ecgtwin_jax.generate": 5,
  "ecgtwin_jax.records": 5,
  "ecgtwin_jax.request_job": 5,
  "ecgtwin_jax.main": 6,
}
ALLOWED_OUTSIDE = {
  0: {"numpy", "scipy", "wfdb", "jaxtyping", "array_record", "etils", "pandas"},
  1: {"jax", "flax", "numpy", "jaxtyping"},
}
LAZY = {"matplotlib", "torch", "transformers", "neurokit2", "sklearn", "gradio"}


def module_name(path):
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(p for p in parts if p != "__init__")


def floor(name):
  while name not in FLOORS:
    assert "." in name, f"{name} has no floor: add it to FLOORS"
    name = name.rpartition(".")[0]
  return FLOORS[name]


def imports(path, top_level):
  tree = ast.parse(path.read_text())
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
def test_each_file_imports_its_floor_and_below(path):
  name = module_name(path)
  here = floor(name)
  for target in imports(path, top_level=False):
    top = target.split(".")[0]
    if top == "ecgtwin_jax" and target != "ecgtwin_jax":
      # A lazy import of an encoder may reach up from the statement table.
      if name == "ecgtwin_jax.statements":
        continue
      assert floor(target) <= here, f"{name} (floor {here}) imports {target}"
    assert target != "ecgtwin_jax.main", f"{name} imports main"
    if top == "data_prep":
      assert name in ("ecgtwin_jax.main", "ecgtwin_jax.chain"), name
    if top == "orbax":
      assert name == "ecgtwin_jax.checkpoint", name
    if top == "torch":
      assert name == "ecgtwin_jax.torch_import", name
  for target in imports(path, top_level=True):
    top = target.split(".")[0]
    # The page is nothing but Gradio; the app job imports it when it runs.
    page = (name, top) == ("ecgtwin_jax.page", "gradio")
    assert top not in LAZY or page, f"{name} imports {top} at its top"
    allowed = ALLOWED_OUTSIDE.get(here)
    if allowed and top not in sys.stdlib_module_names:
      assert top in allowed | {"ecgtwin_jax"}, f"{name} imports {top}"


def test_configs_import_ml_collections_and_common_alone():
  for path in (ROOT / "configs").glob("*.py"):
    found = set(imports(path, top_level=False))
    assert found <= {"ml_collections", "configs.common"}, path


def test_floor_0_loads_no_jax_in_a_fresh_process():
  names = [module_name(p) for p in FILES if floor(module_name(p)) == 0]
  code = "import sys, " + ", ".join(names) + "; print('jax' in sys.modules)"
  out = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert out.stdout.strip() == "False"
