"""Runs launch/colab.ipynb and writes it with its outputs as docs/tutorial.md.

  python docs/make_tutorial.py

Pictures go to docs/tutorial/; cells that only install are left out.
"""

import base64
import pathlib
import tempfile

import nbclient
import nbformat

ROOT = pathlib.Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "tutorial"
LONGEST = 12  # lines of a printed output that are shown


def cells_of(notebook):
  """The notebook's cells without those that install or offer a download."""
  for cell in notebook.cells:
    if "%pip" in cell.source or cell.source.startswith("## 1. Install"):
      continue
    yield cell


def show(cell, pictures):
  """A code cell and what it gave, as Markdown."""
  parts = [f"```python\n{cell.source}\n```"]
  for output in cell.get("outputs", ()):
    data = output.get("data", {})
    if "image/png" in data:
      name = f"{len(pictures) + 1}.png"
      (PICTURES / name).write_bytes(base64.b64decode(data["image/png"]))
      pictures.append(name)
      parts.append(f"![What the cell draws](tutorial/{name})")
    text = output.get("text") or data.get("text/plain", "")
    if text and "image/png" not in data:
      lines = text.rstrip().splitlines()
      if len(lines) > LONGEST:
        lines = [*lines[:LONGEST], "..."]
      parts.append("```text\n" + "\n".join(lines) + "\n```")
  return "\n\n".join(parts)


def main():
  notebook = nbformat.read(ROOT / "launch" / "colab.ipynb", as_version=4)
  with tempfile.TemporaryDirectory() as folder:
    nbclient.NotebookClient(
      notebook, timeout=900, resources={"metadata": {"path": folder}}
    ).execute()
  PICTURES.mkdir(exist_ok=True)
  pictures = []
  parts = [
    cell.source if cell.cell_type == "markdown" else show(cell, pictures)
    for cell in cells_of(notebook)
  ]
  parts.insert(
    1,
    "This page is the notebook `launch/colab.ipynb` as it ran; "
    "`python docs/make_tutorial.py` runs it anew.",
  )
  text = "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"
  (ROOT / "docs" / "tutorial.md").write_text(text)


if __name__ == "__main__":
  main()
