"""The error that names a broken rule, and the rules of rate and length."""

import numbers
from typing import Any

MIN_RATE = 50.0  # Hz: less cannot hold a QRS complex
MAX_RATE = 20_000.0  # Hz: no recorder is as fast


class RecordingError(ValueError):
  """A recording breaks a rule.

  Its message is one line: what cannot be printed, as names of leads may hold
  it, is escaped.

  Attributes:
    rule: the rule's name, as data preparation lists it.
  """

  def __init__(self, rule: str, message: str):
    escaped = [x if x.isprintable() else ascii(x)[1:-1] for x in message]
    super().__init__(rule, "".join(escaped))
    self.rule = rule

  def __str__(self) -> str:
    return self.args[1]


class ArgumentError(TypeError, ValueError):
  """An argument of another type than the one that is expected."""


def require_type(value: Any, name: str, kind: type, expected: str) -> None:
  """Refuses an argument of another type; float takes any real number.

  Args:
    value: the argument.
    name: how the caller calls it.
    kind: what it must be.
    expected: the same in words, for the message.

  Raises:
    ArgumentError: it is of another type.
  """
  wanted = {float: numbers.Real, int: numbers.Integral}.get(kind, kind)
  if not isinstance(value, wanted) or (
    isinstance(value, bool) and kind is not bool
  ):
    shown = repr(value)
    shown = shown if len(shown) <= 40 else type(value).__name__
    raise ArgumentError(
      f"{name}={shown} is of type {type(value).__name__}, must be"
      f" {kind.__name__}: {expected}"
    )


def find_window(
  count: int,
  rate: float | int,
  start: float | int,
  duration: float | int | None,
) -> tuple[int, int]:
  """First sample, and the one after the last, of the seconds asked for.

  Args:
    count: samples of the recording.
    rate: samples per second.
    start: seconds to skip.
    duration: seconds to read; None is all the rest.

  Raises:
    RecordingError: `duration`, the recording is too short or its rate not in
      50..20,000 Hz.
  """
  if not MIN_RATE <= rate <= MAX_RATE:
    bound = f"most {MAX_RATE:g}" if rate > MAX_RATE else f"least {MIN_RATE:g}"
    raise RecordingError(
      "duration", f"sampling_rate={rate:g} must be at {bound} Hz"
    )
  first = round(start * rate)
  last = count if duration is None else first + round(duration * rate)
  if last > count or first >= last:
    wanted = "more" if duration is None else f"{duration:g} s"
    raise RecordingError(
      "duration",
      f"too short: {wanted} from {start:g} s on are needed, the recording"
      f" has {count / rate:.4g} s",
    )
  return first, last
