"""The commands that a page of the documentation shows."""

import re
import shlex


def read_commands(page):
  """The commands of a page's indented and `console` blocks, one by one."""
  text = page.read_text()
  blocks = re.findall(r"```console\n(.*?)```", text, re.S)
  text = re.sub(r"```.*?```", "", text, flags=re.S)
  blocks += re.findall(r"(?<=\n\n)(?: {4}.*\n)+", text)
  for block in blocks:
    lines = block.replace("\\\n", " ").splitlines()
    if lines[0].startswith("$"):  # what is no command was printed or typed
      lines = [line for line in lines if line.startswith("$")]
    for line in lines:
      for command in line.split(" && "):
        words = shlex.split(command.lstrip("$ "), comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):  # of the environment
          words.pop(0)
        if words:
          yield words
