"""The beats of ECGs on their way into a data set, found by several processes.

Without jax: worker processes load this.
"""

import concurrent.futures
import contextlib
import functools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import threadpoolctl
from jaxtyping import Int16

from data_prep.jobs import die_with_parent
from ecgtwin_jax.beats.rhythm import detect_rhythm_and_beat
from ecgtwin_jax.constants import MODEL_RATE

_AT_ONCE = 64  # recordings that a worker gets

FindBeats = Callable[[Iterable[np.ndarray]], Iterator[dict]]

# Looks at all loaded libraries: once is enough.
_threads = functools.cache(threadpoolctl.ThreadpoolController)


def find_beats(ecg: Int16[np.ndarray, "s 12"], scale: float) -> dict:
  """Returns the columns data.dataset.BEATS of an ECG in steps of scale mV."""
  # The last digit of a product depends on the number of threads.
  with _threads().limit(limits=1):
    rhythm, median, found = detect_rhythm_and_beat(ecg * scale, MODEL_RATE)
  return {
    "beat_time": rhythm.time,
    "beat_kind": rhythm.kind,
    "beat_p": rhythm.p_wave,
    "median_beat": median,
    "median_beat_found": found,
  }


@contextlib.contextmanager
def open_finder(workers: int, scale: float, total: int) -> Iterator[FindBeats]:
  """Gives the function from ECGs to their columns, in the same order.

  Args:
    workers: processes; the result is the same for any number.
    scale: unit of the ECGs, in mV.
    total: number of ECGs to come: few are not worth a process.
  """
  find = functools.partial(find_beats, scale=scale)
  workers = min(workers, total // _AT_ONCE)
  if workers <= 1:
    yield functools.partial(map, find)
    return
  # A fresh interpreter for each worker: a fork would copy locked threads.
  with concurrent.futures.ProcessPoolExecutor(
    workers, multiprocessing.get_context("spawn"), die_with_parent
  ) as pool:
    try:
      yield functools.partial(pool.map, find, chunksize=_AT_ONCE)
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      raise
