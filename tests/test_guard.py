"""The guard before the page: names, lengths, places in the queue."""

import asyncio
import os
import pathlib
import types

import pytest

from ecgtwin_jax.app import guard

PORT = 7860


def ask(headers, path="/", hosts=guard.LOOPBACK, body=b"", folder="none"):
  """Status that a request gets, and how much of its body the page read."""
  read, sent = [], []

  async def page(scope, receive, send):
    while (message := await receive())["type"] == "http.request":
      read.append(message.get("body", b""))
      if not message.get("more_body"):
        break
    await send({"type": "http.response.start", "status": 200, "headers": []})

  pieces = [body[i : i + 1000] for i in range(0, len(body), 1000)] or [b""]

  async def receive():
    body = pieces.pop(0)
    more = bool(pieces)
    return {"type": "http.request", "body": body, "more_body": more}

  async def send(message):
    sent.append(message)

  app = guard.Guard(page, tuple(hosts), 2 << 20, str(folder))
  coded = [(k.encode(), v.encode()) for k, v in headers.items()]
  scope = {"type": "http", "path": path, "method": "POST", "headers": coded}
  asyncio.run(app(scope, receive, send))
  return sent[0]["status"], sum(map(len, read))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
@pytest.mark.parametrize("port", ["", f":{PORT}"])
def test_this_machines_names_pass(host, port):
  headers = {"host": host + port, "origin": f"http://{host}{port}"}
  assert ask(headers) == (200, 0)


@pytest.mark.parametrize(
  "headers",
  [
    {"host": f"evil.example:{PORT}"},
    {"host": f"evil.example:{PORT}", "origin": f"http://evil.example:{PORT}"},
    {"host": f"127.0.0.1.evil.example:{PORT}"},
    {"host": "evil.example:80@127.0.0.1"},
    {"host": ""},
    {},
    {"host": "localhost", "origin": "http://evil.example"},
    {"host": "localhost", "origin": "http://localhost.evil.example"},
    {"host": "localhost", "origin": "null"},
    {"host": "localhost", "origin": ""},
  ],
)
def test_other_names_are_refused(headers):
  assert ask(headers)[0] == 403


def test_a_page_on_the_network_has_any_name_but_one():
  known = {"host": "ward-7:80", "origin": "http://ward-7:80"}
  assert ask(known, hosts=()) == (200, 0)
  assert ask(known | {"origin": "http://evil.example"}, hosts=())[0] == 403


def test_bodies_are_as_long_as_they_may_be():
  here = {"host": "localhost"}
  for size, path, status in (
    (1 << 20, "/gradio_api/queue/join", 200),
    ((1 << 20) + 1, "/gradio_api/queue/join", 413),
    (2 << 20, "/gradio_api/upload", 200),
    ((2 << 20) + 1, "/gradio_api/upload", 413),
  ):
    headers = here | {"content-length": str(size)}
    assert ask(headers, path)[0] == status
  assert ask(here | {"content-length": "-5"})[0] == 413
  assert ask(here | {"content-length": "9" * 5000})[0] == 413


def test_of_a_body_without_a_length_no_more_is_read():
  _, read = ask({"host": "localhost"}, body=b"x" * (3 << 20))
  assert (1 << 20) - 1000 <= read <= 1 << 20


def test_uploads_end_where_too_many_are_kept(tmp_path, monkeypatch):
  monkeypatch.setattr(guard, "MAX_STORED", 1 << 20)
  here = {"host": "localhost"}
  (tmp_path / "x").write_bytes(bytes((1 << 20) + 1))
  assert ask(here, "/gradio_api/upload", folder=tmp_path)[0] == 507
  assert ask(here, "/", folder=tmp_path)[0] == 200
  (tmp_path / "x").write_bytes(bytes(1 << 19))
  assert ask(here, "/gradio_api/upload", folder=tmp_path)[0] == 200
  for number in range(16):  # small ones, each of which costs time
    (tmp_path / str(number)).touch()
  assert ask(here, "/gradio_api/upload", folder=tmp_path)[0] == 507


def test_a_folder_may_go_while_what_is_kept_is_counted(tmp_path, monkeypatch):
  (tmp_path / "going").mkdir()
  (tmp_path / "kept").touch()
  scan = os.scandir

  def go(path=".", *args):
    if pathlib.Path(path).name == "going":
      os.rmdir(path)
    return scan(path, *args)

  with monkeypatch.context() as patch:
    patch.setattr(os, "scandir", go)
    here = {"host": "localhost"}
    assert ask(here, "/gradio_api/upload", folder=tmp_path)[0] == 200
  assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_session_has_a_few_places_in_the_queue():
  events = types.SimpleNamespace(queue=[])
  queue = types.SimpleNamespace(event_queue_per_concurrency_id={"t": events})

  async def push(body, request):
    events.queue.append(body)
    return True, request, "success"

  queue.push = push
  guard.limit_places(queue)

  def join(session):
    body = types.SimpleNamespace(session_hash=session)
    return asyncio.run(queue.push(body=body, request="r"))

  assert [join("one")[0] for _ in range(5)] == [True] * 3 + [False] * 2
  assert join("one")[2] == "queue_full"
  assert join("two") == (True, "r", "success")
  events.queue.pop(0)
  assert join("one")[0]
