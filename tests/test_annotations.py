"""Every public function says what it takes and what it gives."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parent.parent


def functions(tree):
  """Public functions and methods: (name, node)."""
  for node in tree.body:
    owner = isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    for each in node.body if owner else [node]:
      if isinstance(each, ast.FunctionDef) and (
        not each.name.startswith("_") or each.name in ("__init__", "__call__")
      ):
        yield f"{node.name}.{each.name}" if owner else each.name, each


def missing(function):
  arguments = function.args
  named = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
  rest = filter(None, (arguments.vararg, arguments.kwarg))
  for argument in (*named, *rest):
    if argument.annotation is None and argument.arg not in ("self", "cls"):
      yield argument.arg
  if function.returns is None and function.name != "__init__":
    yield "return"


def test_public_functions_are_annotated():
  gaps, count = [], 0
  for package in ("ecgtwin_jax", "data_prep"):
    for path in sorted((ROOT / package).rglob("*.py")):
      for name, function in functions(ast.parse(path.read_text())):
        count += 1
        gaps += [f"{path.name}: {name}: {gap}" for gap in missing(function)]
  assert count > 500
  assert not gaps, gaps
