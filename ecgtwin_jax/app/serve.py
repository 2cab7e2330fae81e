"""The app job: serves the page on one twin."""

import contextlib
import multiprocessing.util
import os
import shutil
import signal
import sys
import tempfile
import threading

from ml_collections import ConfigDict

from ecgtwin_jax.app.actions import Session
from ecgtwin_jax.app.guard import LOOPBACK, Guard
from ecgtwin_jax.app.uploads import MB, start_reader
from ecgtwin_jax.inference.twin import load_twin
from ecgtwin_jax.jobs.inputs import read_reference, read_target
from ecgtwin_jax.jobs.outputs import suffix_of

FORM = 1 << 16  # bytes around the files of an upload
# Bytes of a temporary folder's name in which uploads can be read: the name of a
# socket behind it is limited.
LONGEST_FOLDER = (107 if sys.platform == "linux" else 103) - len(
  "/ecgtwin_12345678/pymp-12345678/listener-12345678"
)


def run(config: ConfigDict) -> None:
  """Serves the page until Ctrl-C or SIGTERM.

  Raises:
    ValueError: Gradio is not installed, a value of the configuration is out of
      range, or the name of the folder for temporary files is too long.
    OSError: the port is taken, or there is no such twin or recording.
  """
  suffix_of(config.format)
  if not 0 < config.max_upload_mb < 1e6:
    raise ValueError(
      f"config.max_upload_mb={config.max_upload_mb} must be in 0..1000000"
    )
  if len(os.fsencode(tempfile.gettempdir())) > LONGEST_FOLDER:
    raise ValueError(
      f"the folder for temporary files, {tempfile.gettempdir()!r}, must have a "
      f"name of at most {LONGEST_FOLDER} bytes: TMPDIR=/tmp ecgtwin app"
    )
  reference, now = read_reference(config)
  target = read_target(config.target, now)
  folder = tempfile.mkdtemp(prefix="ecgtwin_")
  usual, tempfile.tempdir = tempfile.tempdir, folder
  with _stopped_by_signals() as stopped:
    try:
      _serve(config, folder, reference, now, target, stopped)
    except BaseException:
      # multiprocessing removes a folder of its own in it first, and complains
      # where there is none.
      multiprocessing.util.Finalize(
        None, shutil.rmtree, (folder, True), exitpriority=-200
      )
      raise
    finally:
      tempfile.tempdir = usual
  for _ in range(2):  # a job that is at work may have written meanwhile
    shutil.rmtree(folder, ignore_errors=True)
  # A job that is still at work cannot be ended, and Python's exit would pull
  # away what it works on.
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(0)


def _serve(config, folder, reference, now, target, stopped) -> None:
  """Serves until `stopped`; all that is uploaded or made lies in `folder`."""
  # Gradio reads these at its import. Its own folder would be the same for all
  # users of this machine, and stay there.
  os.environ["GRADIO_TEMP_DIR"] = os.path.join(folder, "gradio")
  os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
  os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
  try:
    from ecgtwin_jax.app import page
  except ModuleNotFoundError as error:
    if error.name != "gradio":
      raise
    raise ValueError(
      "the page needs Gradio, which is not installed: pip install -e '.[app]'"
    ) from None
  session = Session(
    load_twin(config.twin, config.encoder),
    reference,
    now,
    max_upload_mb=config.max_upload_mb,
    sampler=config.sampling.sampler,
    eta=config.sampling.eta,
    file_format=config.format,
    **config.picture,
  )
  start_reader()
  blocks = page.build(session, target, config)
  address = _launch(blocks, page.STYLE, config, folder)
  print(f"the page is at {address} (Ctrl-C ends it)", flush=True)
  if config.host not in LOOPBACK or config.share:
    print("whoever reaches it can use it: it has no password", flush=True)
  stopped.wait()
  blocks.close(verbose=False)


def _launch(blocks, style, config, folder):
  """Starts the server; returns its address."""
  import gradio as gr

  theme = gr.themes.Default(
    # The system's fonts: nothing is fetched from elsewhere.
    font=["system-ui", "sans-serif"],
    font_mono=["monospace"],
  )
  try:
    app, local, public = blocks.launch(
      server_name=config.host,
      server_port=config.port,
      share=config.share,
      max_file_size=int(config.max_upload_mb * MB),
      theme=theme,
      css=style,
      # None of Gradio's own pages: some of them keep what was uploaded.
      footer_links=[],
      run_history=False,
      enable_monitoring=False,
      mcp_server=False,
      ssr_mode=False,
      pwa=False,
      quiet=True,
      inbrowser=False,
      prevent_thread_lock=True,
    )
  except OSError as error:
    if "empty port" not in str(error):
      raise
    raise OSError(
      f"port {config.port} is taken: ecgtwin app --port={config.port + 1}"
    ) from None
  if not config.share:  # who comes by that way is known to Gradio alone
    app.middleware_stack = None  # is built anew, with the guard before the rest
    app.add_middleware(
      Guard,
      hosts=LOOPBACK if config.host in LOOPBACK else (),
      max_upload=int(config.max_upload_mb * MB) + FORM,
      folder=folder,
    )
  return public or local


@contextlib.contextmanager
def _stopped_by_signals():
  """An event that SIGINT and SIGTERM set."""
  stopped = threading.Event()
  before = {
    number: signal.signal(number, lambda *_: stopped.set())
    for number in (signal.SIGINT, signal.SIGTERM)
  }
  try:
    yield stopped
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
