"""SIGTERM, which clouds send before they take a machine: save, then stop."""

import signal
import threading

import jax
from jax.experimental import multihost_utils

# What the process exits with then: sysexits' "try again".
EXIT_PREEMPTED = 75


class Preempted(SystemExit):
  """The run was told to stop, and saved its state first."""

  def __init__(self):
    super().__init__(EXIT_PREEMPTED)


class Preemption:
  """Remembers SIGTERM, and says after which step to stop.

  With several processes JAX's own handler stays in place: it tells the others
  and finds a step that all of them can still reach.
  """

  def __enter__(self):
    self._alone = jax.process_count() == 1
    self._before = None
    self._seen = False
    main = threading.current_thread() is threading.main_thread()
    if self._alone and main:
      self._before = signal.signal(signal.SIGTERM, self._remember)
    return self

  def _remember(self, *_):
    self._seen = True

  def reached(self, step: int) -> bool:
    """True after the step to stop at, the same one in every process."""
    if self._alone:
      return self._seen
    return multihost_utils.reached_preemption_sync_point(step)

  def __exit__(self, *_):
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)
