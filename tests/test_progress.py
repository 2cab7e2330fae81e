"""What a person sees: intervals, waiting, memory, utilisation, traces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from ecgtwin_jax.flags import load_config
from ecgtwin_jax.training import flops, metric_writer, progress


class Clock:
  """Time that passes when told to."""

  def __init__(self):
    self.now = 1000.0

  def monotonic(self):
    return self.now

  def time(self):
    return self.now

  def pass_by(self, seconds):
    self.now += seconds


@pytest.fixture
def clock(monkeypatch):
  clock = Clock()
  monkeypatch.setattr(progress, "time", clock)
  return clock


@pytest.fixture
def make_progress(tmp_path):
  made = []

  def make(batch_size=4):
    config = load_config("configs/vae.py:smoke")
    config.update(steps=100, batch_size=batch_size)
    writer = metric_writer.MetricsWriter(tmp_path, 100, 0, "test")
    made.append(writer)
    return progress.Progress(
      config, writer, lambda rows: [f"r{i}" for i in rows]
    )

  yield make
  for writer in made:
    writer.close()


def interval(tmp_path, step):
  return metric_writer.read_metrics(tmp_path)[step]


def test_waiting_for_input_is_its_share_of_the_time(
  make_progress, clock, tmp_path
):
  seen = make_progress(batch_size=8)

  def slow():
    while True:
      clock.pass_by(0.25)
      yield None

  batches = slow()
  for step in (1, 2, 3):
    seen.next_batch(batches)
    clock.pass_by(0.75)
    seen.add(step, {"loss": np.float32(1)}, [])
  seen.flush()
  numbers = interval(tmp_path, 3)
  assert numbers["watch/input_wait_share"] == 0.25
  assert numbers["watch/samples_per_s"] == 8
  # The next interval begins anew, and an evaluation is no part of it.
  clock.pass_by(100)
  seen.evaluated(3, {"score": 0.5})
  clock.pass_by(2)
  seen.add(4, {"loss": np.float32(1)}, [])
  seen.flush()
  numbers = interval(tmp_path, 4)
  assert numbers["watch/input_wait_share"] == 0
  assert numbers["watch/samples_per_s"] == 4
  assert interval(tmp_path, 3)["validation/score"] == 0.5


def test_the_host_is_two_steps_ahead_and_reads_no_more(
  make_progress, monkeypatch
):
  waited = []
  monkeypatch.setattr(jax, "block_until_ready", waited.append)
  monkeypatch.setattr(
    jax, "device_get", lambda x: pytest.fail("read before the flush")
  )
  seen = make_progress()
  for step in range(1, 6):
    seen.add(step, {"loss": step}, [])
  assert waited == [1, 2, 3]


def test_utilisation_is_of_all_devices_where_their_peak_is_known(
  make_progress, clock, tmp_path, monkeypatch
):
  seen = make_progress()
  monkeypatch.setitem(flops.PEAK, "cpu", 1e9)
  clock.pass_by(100)  # compiling is no training
  seen.measure(2e9, jax.devices()[:4])
  clock.pass_by(2.0)
  seen.add(1, {"loss": np.float32(1)}, [])
  seen.flush()
  numbers = interval(tmp_path, 1)
  np.testing.assert_allclose(numbers["watch/tflop_per_s"], 1e-3)
  np.testing.assert_allclose(numbers["watch/flop_utilisation"], 0.25)
  assert "watch/device_memory_peak_gib" not in numbers  # CPUs do not say
  monkeypatch.delitem(flops.PEAK, "cpu")
  seen.measure(2e9, jax.devices()[:4])
  clock.pass_by(2.0)
  seen.add(2, {"loss": np.float32(1)}, [])
  seen.flush()
  assert "watch/flop_utilisation" not in interval(tmp_path, 2)


def test_memory_is_that_of_the_fullest_device(
  make_progress, tmp_path, monkeypatch
):
  class Device:
    def __init__(self, used):
      self.used = used

    def memory_stats(self):
      return {"peak_bytes_in_use": self.used}

  devices = [Device(2**30), Device(3 * 2**30)]
  monkeypatch.setattr(jax, "local_devices", lambda: devices)
  seen = make_progress()
  seen.add(1, {"loss": np.float32(1)}, [])
  seen.flush()
  assert interval(tmp_path, 1)["watch/device_memory_peak_gib"] == 3


def test_a_loss_that_is_not_finite_is_named_exactly(make_progress, tmp_path):
  seen = make_progress()
  for step, loss in ((1, 1.0), (2, 2.0), (3, np.nan)):
    seen.add(step, {"loss": jnp.float32(loss)}, [10 * step])
  with pytest.raises(ValueError, match=r"loss=nan at step=3 .*: r30$"):
    seen.flush()


@pytest.mark.parametrize("steps", [(1,), (0, 2), (3, 2), (1, 2, 3)])
def test_steps_to_trace_are_checked(steps, tmp_path):
  with pytest.raises(ValueError, match="must be "):
    progress.Trace(steps, tmp_path)


def test_a_trace_ends_with_the_run(tmp_path, monkeypatch):
  called = []

  def start(folder, profiler_options):
    assert profiler_options.python_tracer_level == 0
    called.append(folder)

  monkeypatch.setattr(jax.profiler, "start_trace", start)
  monkeypatch.setattr(jax.profiler, "stop_trace", lambda: called.append("stop"))
  trace = progress.Trace((2, 9), tmp_path)
  for step in (1, 2, 3):
    trace.before(step)
    trace.after(step, {})
  trace.close()
  trace.close()
  assert called == [str(tmp_path), "stop"]
  none = progress.Trace((), tmp_path)
  none.before(0)
  none.after(0, {})
  none.close()
  assert len(called) == 2


def events(folder):
  """Events of all files, decoded: [length, crc, data, crc] each."""
  for path in sorted(folder.glob("tensorboard/events*")):
    data = path.read_bytes()
    while data:
      length = int.from_bytes(data[:8], "little")
      yield Event.FromString(data[12 : 12 + length])
      data = data[16 + length :]


def test_metrics_survive_a_torn_line_and_a_restart(tmp_path):
  first = metric_writer.MetricsWriter(tmp_path, 9, 0, "t")
  first.write(1, {"train/loss": 0.5})
  first.write(2, {"train/loss": 0.25})
  first.close()
  path = tmp_path / "metrics.jsonl"
  path.write_bytes(path.read_bytes()[:-9])  # as a kill leaves it
  again = metric_writer.MetricsWriter(tmp_path, 9, 1, "t")
  again.write(2, {"train/loss": 0.75, "train/gradient_norm": 2.0})
  again.flush()
  assert metric_writer.read_metrics(tmp_path)[2]["train/loss"] == 0.75
  assert metric_writer.read_metrics(tmp_path)[1]["train/loss"] == 0.5
  again.close()
  found = list(events(tmp_path))
  scalars = [
    (event.step, value.tag, value.simple_value)
    for event in found
    for value in event.summary.value
  ]
  assert scalars[-2:] == [
    (2, "train/loss", 0.75),
    (2, "train/gradient_norm", 2.0),
  ]
  # What TensorBoard drops of the interrupted run: step 2 and later.
  starts = [e.step for e in found if e.session_log.status == 1]
  assert starts == [1, 2]
