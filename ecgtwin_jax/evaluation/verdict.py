"""The report in a few sentences, from its figures alone.

Each question is answered by its worst figure. Where a figure stands is its
share of the way from the baseline to the reference; where its interval does not
separate from the baseline, nobody can tell.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from ecgtwin_jax.evaluation.metric import BETTER, NAN, Metric, number

_GOOD, _FAIR = 0.8, 0.4  # of the way from baseline to reference
_MANY, _SOME = 0.2, 0.05  # of the measurements failed
_NONE = 0.2  # of the way: where all of an interval lies below it, it is no
_REPLAYED = 2.0  # times what unseen recordings do: below it is no replay
# Verdicts from the worst to the best, and their colours. What a figure shows to
# be wrong is not hidden by another one that cannot tell.
WORDS = {
  "No": "bad",
  "Hardly": "bad",
  "In part": "fair",
  "Cannot tell": "unknown",
  "Yes": "good",
}


class Question(NamedTuple):
  """What is asked, and the figures that answer.

  Attributes:
    text: the question, with its question mark.
    figures: {name of a metric: what it is, in words}.
    instead: the same, where none of those was measured.
    at_best: names of those that are best at the reference, not beyond it.
    enough: whether all that lies above a reference is as good as it.
  """

  text: str
  figures: dict[str, str]
  instead: dict[str, str] = {}  # noqa: RUF012
  at_best: tuple[str, ...] = ()
  enough: bool = False


class Verdict(NamedTuple):
  """What the figures say to a question.

  Attributes:
    question: its text.
    word: a key of WORDS, a share, or "Not measured".
    colour: "good", "fair", "bad" or "unknown".
    sentence: the figure with its interval, baseline and reference.
  """

  question: str
  word: str
  colour: str
  sentence: str


QUESTIONS = (
  Question(
    "Is the text followed?",
    {
      "criteria_index": "criteria met where the report asks for them",
      "rclip": "likeness to the report, over that of real ECGs",
      "heart_rate_slope": "slope of the heart rate on the one asked for",
    },
    at_best=("heart_rate_slope",),
  ),
  Question(
    "Is it this patient?",
    {
      "identity_top1_share": "right patient found first",
      "truth_score": "nearness to the patient's true ECG",
    },
    {"base_similarity": "likeness of the base vectors, which is circular"},
  ),
  Question(
    "Is it realistic?",
    {
      "fid": "Frechet distance to real ECGs",
      "precision": "share that lies among real ECGs",
      "recall": "share of real ECGs that lie among the generated",
      "amplitude_ratio": "height over that of real ECGs",
      "leads_in_place_share": "leads that are where they belong",
      "power_spectrum_distance_db": "difference of the spectrum",
      "beat_spread_sinus_uv": "how much beats differ, in sinus rhythm",
      "rr_spread_sinus_ms": "how much intervals differ, in sinus rhythm",
    },
    at_best=("amplitude_ratio", "beat_spread_sinus_uv", "rr_spread_sinus_ms"),
  ),
  Question(
    "Does it vary?",
    {
      "beat_spread_sinus_uv": "how much beats differ, in sinus rhythm",
      "rr_spread_sinus_ms": "how much intervals differ, in sinus rhythm",
      "sample_spread_uv": "how much samples of one request differ",
      "patient_spread_uv": "how much patients differ",
    },
    enough=True,
  ),
)
REPLAYS = {
  "privacy_replay_share": "nearer to training recordings than unseen ones are",
  "privacy_beat_replay_share": "beats nearer to those of training recordings "
  "than unseen ones are",
  "privacy_reference_replay_share": "nearer to the reference than the "
  "patient's other recordings are",
  "privacy_leak_share": "beats fall where only the true recording has them",
}


def give_verdicts(metrics: Sequence[Metric]) -> list[Verdict]:
  """Answers QUESTIONS, and what has rules of its own.

  That is whether the twin beats the reference left as it was, whether
  recordings are replayed, and what failed.
  """
  known = {m.name: m for m in metrics if math.isfinite(m.value)}
  return [
    *(_verdict_of(question, known) for question in QUESTIONS),
    _verdict_of_unchanged(known.values()),
    _verdict_of_replay([known[name] for name in REPLAYS if name in known]),
    _verdict_of_failures(known.get("measurements_failed_share"), metrics),
  ]


def _verdict_of(question, known):
  for figures in (question.figures, question.instead):
    there = [known[name] for name in figures if name in known]
    if question.enough:
      there = [metric._replace(better="higher") for metric in there]
    if there:
      words = {m.name: _word(m, m.name in question.at_best) for m in there}
      order = list(WORDS)
      worst = min(
        there,
        key=lambda m: (
          order.index(words[m.name]),
          position(m, m.name in question.at_best),
        ),
      )
      word = words[worst.name]
      sentence = describe(known[worst.name], figures[worst.name])
      return Verdict(question.text, word, WORDS[word], sentence)
  return _not_measured(question.text)


def _not_measured(text):
  return Verdict(text, "Not measured", "unknown", "")


def position(metric: Metric, at_best: bool = False) -> float:
  """Share of the way from the baseline, 0, to the reference, 1.

  Without a baseline it is the ratio of both, whichever way round is below 1.
  Where chance has made the reference no better than the baseline, as of few
  patients, nothing lies between: 1 is as good as the reference, 0 worse than
  both.

  Args:
    metric: a metric that has a reference.
    at_best: beyond the reference it becomes worse again.
  """
  value, baseline, reference = metric.value, metric.baseline, metric.reference
  if math.isfinite(baseline):
    way = reference - baseline
    lower = metric.better == "lower"
    if not at_best and (way >= 0 if lower else way <= 0):
      return float(value <= reference if lower else value >= reference)
    share = (value - baseline) / way if way else NAN
  elif metric.better == "higher" or at_best:
    share = value / reference if reference else NAN
  else:
    share = reference / value if value else math.inf
  if at_best and share > 1:
    return 1 / share
  return min(share, 1.0)


def _word(metric, at_best):
  """A key of WORDS."""
  share = position(metric, at_best)
  if not math.isfinite(share):
    return "Cannot tell"
  if math.isfinite(metric.baseline):
    ends = [
      position(metric._replace(value=end), at_best)
      for end in (metric.low, metric.high)
    ]
    # Without an interval nothing separates.
    if not all(map(math.isfinite, ends)):
      return "Cannot tell"
    if max(ends) < _NONE:
      return "No"
    if min(ends) <= 0:
      return "Cannot tell"
  if share >= _GOOD:
    return "Yes"
  return "In part" if share >= _FAIR else "Hardly"


def _verdict_of_unchanged(metrics):
  """In how many rows of the physiology level the twin is the nearer one."""
  text = "Is it nearer than the reference left as it was?"
  # There every other baseline is that of the unchanged reference.
  others = ("sample_spread_uv", "patient_spread_uv")
  rows = [
    m
    for m in metrics
    if m.level == "physiology"
    and math.isfinite(m.baseline)
    and m.name not in others
  ]
  if not rows:
    return _not_measured(text)
  won = [m for m in rows if m.value < m.baseline]
  errors = [m for m in rows if "_error_" in m.name]
  both = sum(m in won for m in errors)
  word = f"{len(won)} of {len(rows)}"
  sentence = (
    f"Nearer than the unchanged reference in {word} rows of the physiology "
    f"level, in {both} of {len(errors)} of those that compare with the same "
    "patient's recording."
  )
  half = 2 * len(won) > len(rows)
  return Verdict(text, word, "good" if half else "bad", sentence)


def _verdict_of_replay(shares):
  text = "Does it replay recordings?"
  if not shares:
    return _not_measured(text)
  words = {m.name: _replay_word(m) for m in shares}
  order = ("Yes", "Cannot tell", "No")
  worst = min(
    shares,
    key=lambda m: (order.index(words[m.name]), m.reference - m.value),
  )
  colours = {"Yes": "bad", "Cannot tell": "unknown", "No": "good"}
  word = words[worst.name]
  sentence = describe(worst, REPLAYS[worst.name])
  return Verdict(text, word, colours[word], sentence)


def _replay_word(metric):
  limit = _REPLAYED * metric.reference
  if metric.high <= limit:
    return "No"
  return "Yes" if metric.low > metric.reference else "Cannot tell"


def _verdict_of_failures(metric, metrics):
  text = "What share of measurements failed?"
  absent = sum(not math.isfinite(m.value) for m in metrics)
  missing = f"{absent} of {len(metrics)} figures show a dash."
  if metric is None:
    return _not_measured(text)._replace(sentence=missing)
  colour = "good" if metric.value <= _SOME else "fair"
  if metric.value > _MANY:
    colour = "bad"
  sentence = describe(metric, "intervals and waves of generated ECGs")
  return Verdict(text, f"{metric.value:.1%}", colour, f"{sentence} {missing}")


def describe(metric: Metric, what: str) -> str:
  """A figure as a sentence, with its interval, baseline and reference."""
  parts = [
    f"{what[0].upper()}{what[1:]} ({metric.name} {BETTER[metric.better]})"
  ]
  parts.append(f"{number(metric.value)}")
  if math.isfinite(metric.low):
    parts[-1] += f", {number(metric.low)} to {number(metric.high)}"
  for word in ("baseline", "reference"):
    value = getattr(metric, word)
    if math.isfinite(value):
      parts.append(f"{word} {number(value)}")
  return f"{parts[0]}: {'; '.join(parts[1:])}."
