"""What the keys of a configuration mean, by the comments of its file."""

import ast
import io
import pathlib
import tokenize


def read_meanings(path: pathlib.Path) -> dict[str, str]:
  """Returns {key: comment} of what a configuration's file sets.

  A key's comment stands at the end of its line, or else in the lines right
  above. Keys are dotted as they stand there: `config.model = dict(width=1)`
  sets "model" and "model.width".

  Args:
    path: a Python file.
  """
  text = path.read_text()
  ends, alone = {}, {}  # comments by line: behind code, in lines of their own
  for token in tokenize.generate_tokens(io.StringIO(text).readline):
    if token.type == tokenize.COMMENT:
      own = token.line.lstrip().startswith("#")
      (alone if own else ends)[token.start[0]] = token.string.lstrip("# ")
  meanings = {}

  def note(key, node):
    first, last = node.lineno, node.end_lineno
    meaning = ends.get(first, ends.get(last))
    if meaning is None:
      above = []
      while (first := first - 1) in alone:
        above.insert(0, alone[first])
      meaning = " ".join(above)
    if meaning:
      meanings.setdefault(key, meaning)

  def note_words(key, node):
    if isinstance(node, ast.Call):
      for inner in node.args:
        note_words(key, inner)
      for word in node.keywords:
        if word.arg is not None:
          inner = f"{key}.{word.arg}".lstrip(".")
          note(inner, word)
          note_words(inner, word.value)

  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.Assign):
      _, _, key = ast.unparse(node.targets[0]).partition(".")
      if key.replace(".", "").isidentifier():
        note(key, node)
      note_words(key, node.value)
    elif isinstance(node, ast.Return):
      note_words("", node.value)
  return meanings


def read_purpose(path: pathlib.Path) -> str:
  """Returns the docstring of a configuration's file."""
  return ast.get_docstring(ast.parse(path.read_text())) or path.stem


def find_meaning(key: str, files: list[dict[str, str]]) -> str:
  """What a key means, "" where no comment says it.

  Args:
    key: dotted, such as "now.heart_rate".
    files: of read_meanings, the first asked first.
  """
  words = key.split(".")
  for start in range(len(words)):  # "heart_rate" is said once for all
    for meanings in files:
      meaning = meanings.get(".".join(words[start:]))
      if meaning:
        return meaning
  # Keys of one line share its comment.
  parent = key.rpartition(".")[0]
  return find_meaning(parent, files) if parent else ""
