"""The error that names a broken rule, and the rules of rate and length."""

import math

MIN_RATE = 50.0  # Hz: less cannot hold a QRS complex


class RecordingError(ValueError):
  """A recording breaks a rule.

  Attributes:
    rule: the rule's name, as data preparation lists it.
  """

  def __init__(self, rule: str, message: str):
    super().__init__(rule, message)
    self.rule = rule

  def __str__(self) -> str:
    return self.args[1]


def find_window(
  count: int, rate: float, start: float, duration: float | None
) -> tuple[int, int]:
  """First sample, and the one after the last, of the seconds asked for.

  Args:
    count: samples of the recording.
    rate: samples per second.
    start: seconds to skip.
    duration: seconds to read; None is all the rest.

  Raises:
    RecordingError: `duration`, the recording is too short or its rate below
      50 Hz.
  """
  if not MIN_RATE <= rate < math.inf:
    raise RecordingError(
      "duration", f"sampling_rate={rate:g} must be at least {MIN_RATE:g} Hz"
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
