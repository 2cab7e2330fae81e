"""What stands before the page: who may ask, how much, and how often.

A page on loopback is reached by every site that a browser on this machine
opens, once the site's name is made to mean 127.0.0.1 (DNS rebinding). The
browser then says the site's name as Host, and that is refused.
"""

import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_BODY = 1 << 20  # bytes of a request that is no upload
MAX_STORED = 1 << 30  # bytes of all uploads and results that are kept
LEAST_STORED = 1 << 16  # bytes that a file counts: each costs time to look at
PLACES = 3  # in the queue, of one session

Message = dict[str, Any]


class Guard:
  """An ASGI application before another one, which refuses what must not pass.

  Attributes:
    app: that answers the rest.
    hosts: names that a request may give as Host and Origin; empty: any name,
      but Host and Origin must agree.
    max_upload: bytes of an upload.
    folder: where uploads are stored.
  """

  def __init__(
    self, app: Any, hosts: tuple[str, ...], max_upload: int, folder: str
  ) -> None:
    self.app = app
    self.hosts = hosts
    self.max_upload = max_upload
    self.folder = folder

  async def __call__(
    self,
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
  ) -> None:
    if scope["type"] not in ("http", "websocket"):
      await self.app(scope, receive, send)
      return
    reason = self._reason_against(scope)
    if reason is not None:
      await _refuse(scope, send, *reason)
      return
    left = self._limit(scope)

    async def counted():
      nonlocal left
      message = await receive()
      left -= len(message.get("body", b""))
      if left < 0:  # a request that hides its length: nobody listens any more
        return {"type": "http.disconnect"}
      return message

    await self.app(scope, counted, send)

  def _limit(self, scope) -> int:
    """Bytes that the body of a request may have."""
    return self.max_upload if _uploads(scope) else MAX_BODY

  def _reason_against(self, scope) -> tuple[int, str] | None:
    """Status and words of what a request breaks; None: nothing."""
    headers = {}
    for name, value in scope["headers"]:
      headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))
    host, origin = headers.get("host", ""), headers.get("origin")
    if self.hosts and _name(host) not in self.hosts:
      return 403, f"host {host[:100]!r} is not this page's"
    if origin is not None:
      known = self.hosts or (_name(host),)
      if _name(origin.partition("://")[2]) not in known:
        return 403, f"origin {origin[:100]!r} is not this page's"
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > self._limit(scope):
      return 413, f"{length[:20]} bytes are more than a request may have"
    if _uploads(scope) and _stored(self.folder) > MAX_STORED:
      return 507, "too many uploads are kept: try again in an hour"
    return None


def limit_places(queue: Any) -> None:
  """Gives each session a few places in a queue of Gradio's.

  Args:
    queue: of the page, whose `push` is replaced.
  """
  push = queue.push

  async def push_few(body, **options):
    waiting = [
      event
      for events in queue.event_queue_per_concurrency_id.values()
      for event in events.queue
    ]
    own = sum(event.session_hash == body.session_hash for event in waiting)
    if own >= PLACES:
      return False, f"{PLACES} requests of yours wait already", "queue_full"
    return await push(body=body, **options)

  queue.push = push_few


def _uploads(scope) -> bool:
  return scope["path"].rstrip("/").endswith("/upload")


def _name(host: str) -> str:
  """A host without its port."""
  if host.startswith("["):
    return host[1:].partition("]")[0].lower()
  return host.partition(":")[0].lower()


def _stored(folder: str) -> int:
  total = 0
  # Unlike pathlib's, this walk passes over folders that go meanwhile.
  for place, folders, files in os.walk(folder):
    for name in (*folders, *files):
      try:
        size = os.stat(os.path.join(place, name)).st_size
      except OSError:  # gone meanwhile
        continue
      total += max(size, LEAST_STORED)
  return total


async def _refuse(scope, send, status: int, words: str) -> None:
  if scope["type"] == "websocket":
    await send({"type": "websocket.close", "code": 1008})
    return
  body = json.dumps({"detail": words}).encode()
  headers = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(body)).encode()),
    (b"connection", b"close"),
  ]
  start = {"type": "http.response.start", "status": status, "headers": headers}
  await send(start)
  await send({"type": "http.response.body", "body": body})
