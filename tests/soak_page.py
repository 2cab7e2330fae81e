"""Sends hostile uploads to the page while another visitor uses it.

  python tests/soak_page.py                 200 uploads by three at a time
  python tests/soak_page.py --uploads=20

The files are those of the groups `record` and `arrays` of attacks.py, as far as
they can be uploaded. Held: the page and the processes that it starts stay below
1.5 GB together, a visitor with a sound recording is answered within 10 s each
time, and the page is still there at the end, where SIGTERM ends it with code 0
while it generates. Exit code 1: not held.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import uuid

import numpy as np

import attacks
from ecgtwin_jax.data.ecg import ECG

ROOT = pathlib.Path(__file__).parent.parent
MEGABYTES, SECONDS = 1536, 10.0
VISITORS = 3  # hostile ones at a time
UPLOAD = 20 << 20  # bytes that the page takes


class Visitor:
  """Speaks with the page as its own script in a browser does.

  Attributes:
    port: of the page.
    action: what a change of the uploaded files starts.
    session: names the visitor to the page.
    config: what the page consists of.
    values: {id of a control: its value when the page opens}.
  """

  def __init__(self, port: int):
    self.port = port
    self.session = uuid.uuid4().hex[:10]
    self.config = config = json.loads(self._ask("GET", "/config"))
    files = next(
      each["id"]
      for each in config["components"]
      if each["type"] == "file"
      and each["props"].get("file_count") == "multiple"
    )
    (self.action,) = [
      each
      for each in config["dependencies"]
      if (files, "change") in map(tuple, each["targets"])
    ]
    self.values = {
      each["id"]: each["props"].get("value") for each in config["components"]
    }

  def _ask(self, method, path, body=None, headers=None) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
    try:
      connection.request(method, path, body, headers or {})
      return connection.getresponse().read().decode()
    finally:
      connection.close()

  def show(self, paths: list[pathlib.Path]) -> str:
    """Uploads a recording; returns what the page says of it."""
    boundary = uuid.uuid4().hex
    parts = [
      f'--{boundary}\r\nContent-Disposition: form-data; name="files"; '
      f'filename="{path.name}"\r\n\r\n'.encode()
      + path.read_bytes()
      + b"\r\n"
      for path in paths
    ]
    body = b"".join([*parts, f"--{boundary}--\r\n".encode()])
    kind = f"multipart/form-data; boundary={boundary}"
    answer = self._ask(
      "POST", "/gradio_api/upload", body, {"Content-Type": kind}
    )
    try:
      stored = json.loads(answer)
    except ValueError:
      return answer
    if not isinstance(stored, list):
      return answer
    files = [
      {
        "path": place,
        "orig_name": path.name,
        "meta": {"_type": "gradio.FileData"},
      }
      for place, path in zip(stored, paths)
    ]
    self._join(self.action, files)
    path = f"/gradio_api/queue/data?session_hash={self.session}"
    return self._ask("GET", path)

  def generate(self) -> None:
    """Presses “Generate twins” with what the page opens with."""
    (button,) = [k for k, v in self.values.items() if v == "Generate twins"]
    (action,) = [
      each
      for each in self.config["dependencies"]
      if (button, "click") in map(tuple, each["targets"]) and each["inputs"]
    ]
    self._join(action)

  def _join(self, action, files=None):
    """Asks for an action; all but the files is as the page opens."""
    rest = [self.values[each] for each in action["inputs"][1:]]
    request = {
      "data": [files, *rest],
      "fn_index": action["id"],
      "session_hash": self.session,
    }
    self._ask(
      "POST",
      "/gradio_api/queue/join",
      json.dumps(request),
      {"Content-Type": "application/json"},
    )


def memory(process: int) -> int:
  """Bytes of a process and those it started, shared pages counted once."""
  total, waiting = 0, [process]
  while waiting:
    number = waiting.pop()
    place = pathlib.Path(f"/proc/{number}")
    try:
      text = (place / "smaps_rollup").read_text()
      total += int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) << 10
      for task in (place / "task").iterdir():
        waiting += map(int, (task / "children").read_text().split())
    except (OSError, TypeError):  # it has ended
      continue
  return total


def hostile_files(folder: pathlib.Path) -> list[tuple[str, list[pathlib.Path]]]:
  """(name, files) of each attack that can be uploaded."""
  found = []
  for attack in attacks.ATTACKS:
    if attack.group not in ("record", "arrays"):
      continue
    place = folder / str(len(found))
    place.mkdir()
    attack.prepare(place)
    paths = sorted(place.iterdir())
    if all(stat.S_ISREG(path.lstat().st_mode) for path in paths) and (
      sum(path.stat().st_size for path in paths) < UPLOAD
    ):
      found.append((attack.name, paths))
    else:
      place.rename(folder / f"left-{uuid.uuid4().hex}")
  return found


def serve(folder: pathlib.Path) -> tuple[subprocess.Popen, int]:
  """Starts a page; returns its process and port."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  with (folder / "log").open("w") as log:
    process = subprocess.Popen(
      [
        *(sys.executable, "-m", "ecgtwin_jax.main", "--config=configs/app.py"),
        *(f"--config.port={port}", f"--workdir={folder}/app"),
      ],
      stdout=log,
      stderr=log,
      cwd=ROOT,
    )
  while "the page is at" not in (text := (folder / "log").read_text()):
    assert process.poll() is None, text
    time.sleep(0.1)
  return process, port


def main() -> int:
  parser = argparse.ArgumentParser()
  parser.add_argument("--uploads", type=int, default=200)
  parsed = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    files = hostile_files(folder)
    noise = np.random.default_rng(0).normal(0, 0.3, (5000, 12))
    ECG(noise, 500, "sound").write(folder / "sound.hea")
    sound = [folder / "sound.hea", folder / "sound.dat"]
    process, port = serve(folder)
    sizes, waits, done = [memory(process.pid)], [], threading.Event()

    def watch():
      while not done.wait(0.2):
        sizes.append(memory(process.pid))

    def visit():
      visitor = Visitor(port)
      while not done.wait(0.5):
        began = time.monotonic()
        answer = visitor.show(sound)
        waits.append(time.monotonic() - began)
        assert "sound: 10 s at 500 Hz" in answer, answer[-500:]

    def attack(number):
      name, paths = files[number % len(files)]
      try:
        answer = Visitor(port).show(paths)
      except (OSError, http.client.HTTPException, ValueError) as error:
        answer = repr(error)
      found = re.search(
        r"Not done: [^\"]*|10 s at|more than .* may have", answer
      )
      words = found[0] if found else f"NO ANSWER {answer[-300:]}"
      print(f"{number:4} {name}: {words}", flush=True)
      return words.startswith("Not done") or "may have" in words

    with concurrent.futures.ThreadPoolExecutor(VISITORS + 2) as pool:
      watching, visiting = pool.submit(watch), pool.submit(visit)
      attacking = [pool.submit(attack, n) for n in range(parsed.uploads)]
      refused = sum(job.result() for job in attacking)
      done.set()
      watching.result()
      visiting.result()
    alive = process.poll() is None
    Visitor(port).generate()
    time.sleep(5)
    process.send_signal(signal.SIGTERM)
    code = process.wait(60)
  most, slowest = max(sizes) / 2**20, max(waits)
  print(
    f"{parsed.uploads} uploads of {len(files)} kinds, {refused} refused; the "
    f"page took {sizes[0] / 2**20:.0f} MB before and at most {most:.0f} MB; a "
    f"visitor was answered {len(waits)} times, after at most {slowest:.1f} s; "
    f"{'alive' if alive else 'DEAD'} at the end, exit code {code}"
  )
  held = alive and code == 0 and most < MEGABYTES and slowest < SECONDS
  return 0 if held and refused == parsed.uploads else 1


if __name__ == "__main__":
  os.environ["JAX_PLATFORMS"] = "cpu"
  sys.exit(main())
