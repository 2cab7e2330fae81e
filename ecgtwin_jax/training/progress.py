"""How a training goes: its numbers, gathered without stalling it."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ecgtwin_jax.training import flops, metric_writer, optimizer

# Steps that the host may be ahead of the device: enough to keep it busy, and
# few enough that waiting for input shows as waiting for input.
_AHEAD = 2


class Progress:
  """Collects the steps' scalars and writes them once per interval.

  A step's numbers are read at the next flush, so a loss that is not finite is
  found late but exactly, and before anything is saved.

  Args:
    config: the training's configuration.
    writer: what takes the numbers.
    names: function from rows of the training data to names of the records.
  """

  def __init__(
    self,
    config: ConfigDict,
    writer: metric_writer.MetricsWriter,
    names: Callable,
  ):
    self._config, self._writer, self._names = config, writer, names
    self._schedule = optimizer.make_schedule(config.optimizer, config.steps)
    self._pending, self._score = [], {}
    self._flops = self._peak = None
    self.restart()

  def measure(
    self, flops_of_step: float, devices: Iterable[jax.Device]
  ) -> None:
    """Sets what a step costs, and begins to count time."""
    self._flops = flops_of_step
    peaks = [flops.peak_of(device) for device in devices]
    self._peak = None if None in peaks else sum(peaks)
    self.restart()

  def restart(self) -> None:
    """Begins an interval: what came before was no training."""
    self._waited, self._since = 0.0, time.monotonic()

  def next_batch(self, batches: Iterator[Any]) -> Any:
    """Takes the next batch, and notes how long that took."""
    began = time.monotonic()
    batch = next(batches)
    self._waited += time.monotonic() - began
    return batch

  def add(self, step: int, scalars: dict, rows: Any) -> None:
    """Notes a step that was started; it need not be done."""
    self._pending.append((step, scalars, rows))
    if len(self._pending) > _AHEAD:
      jax.block_until_ready(self._pending[-1 - _AHEAD][1]["loss"])
    self._writer.advance()

  def flush(self) -> None:
    """Waits for the steps so far and writes what they gave.

    Raises:
      ValueError: a loss is not finite; names the step and the records.
    """
    if not self._pending:
      return
    scalars = jax.device_get([scalars for _, scalars, _ in self._pending])
    elapsed = time.monotonic() - self._since
    for (step, _, rows), values in zip(self._pending, scalars):
      if not np.isfinite(values["loss"]):
        names = ", ".join(self._names(rows)[:16])
        raise ValueError(
          f"loss={values['loss']} at {step=} must be finite; records of the "
          f"batch (first 16): {names}"
        )
      self._writer.write(step, {f"train/{k}": v for k, v in values.items()})
    self._writer.write(step, self._interval(step, elapsed))
    self._writer.flush()
    self._writer.show(loss=values["loss"], **self._score)
    self._pending = []
    self.restart()

  def _interval(self, step, elapsed) -> dict:
    count = len(self._pending)
    numbers = {
      "watch/learning_rate": self._schedule(step - 1),
      "watch/samples_per_s": count * self._config.batch_size / elapsed,
      "watch/input_wait_share": self._waited / elapsed,
    }
    if self._flops is not None:
      rate = count * self._flops / elapsed
      numbers["watch/tflop_per_s"] = rate / 1e12
      if self._peak is not None:
        numbers["watch/flop_utilisation"] = rate / self._peak
    stats = [device.memory_stats() for device in jax.local_devices()]
    if all(stats):  # CPUs have none
      peak = max(each["peak_bytes_in_use"] for each in stats)
      numbers["watch/device_memory_peak_gib"] = peak / 2**30
    return numbers

  def evaluated(self, step: int, evaluation: dict) -> None:
    """Writes an evaluation; its time does not count as training."""
    values = {f"validation/{k}": v for k, v in evaluation.items()}
    self._writer.write(step, values)
    self._writer.flush()
    if "score" in evaluation:
      self._score = {"validation": evaluation["score"]}
    else:
      counts = ", ".join(f"{v:g} {k}" for k, v in evaluation.items())
      metric_writer.say(
        f"step {step}: {counts} held out, too few to estimate from"
      )
    self.restart()


class Trace:
  """Writes a profile of some steps, for TensorBoard or Perfetto.

  Args:
    steps: (first, last) to trace; () for none.
    folder: folder that it is written to.

  Raises:
    ValueError: `steps` is something else.
  """

  def __init__(self, steps: Any, folder: str | os.PathLike):
    profile_steps = tuple(steps)
    if profile_steps and not (
      len(profile_steps) == 2 and 1 <= profile_steps[0] <= profile_steps[1]
    ):
      raise ValueError(f"{profile_steps=} must be (first, last), or ()")
    self._first, self._last = profile_steps or (None, None)
    self._folder = str(folder)
    self._running = False

  def before(self, step: int) -> None:
    """Starts the trace where `step` is its first one (process 0 alone)."""
    if step == self._first and jax.process_index() == 0:
      options = jax.profiler.ProfileOptions()
      # Following every call of Python in every thread slows the steps down.
      options.python_tracer_level = 0
      jax.profiler.start_trace(self._folder, profiler_options=options)
      self._running = True

  def after(self, step: int, scalars: dict) -> None:
    """Ends the trace where `step` is its last one."""
    if self._running and step >= self._last:
      jax.block_until_ready(scalars)
      self.close()
      metric_writer.say(
        f"trace of steps {self._first} to {step}: {self._folder}"
      )

  def close(self) -> None:
    if self._running:
      self._running = False
      jax.profiler.stop_trace()
