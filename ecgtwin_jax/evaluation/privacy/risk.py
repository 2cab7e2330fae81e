"""The risk of disclosure in words, from the privacy level's numbers alone."""

import numpy as np

from ecgtwin_jax.evaluation.metric import Metric

_TOO_FEW = "Too few patients to tell."


def describe(metrics: list[Metric]) -> str:
  """Puts the risk into words, from the numbers alone.

  Args:
    metrics: what `measure` returns; with the person level's it also says how
      often an ECG leads back to its person.
  """
  known = {m.name: m for m in metrics if np.isfinite(m.value)}
  parts = [
    _say_replay(
      known.get("privacy_replay_share"),
      known.get("privacy_nearest_training_correlation"),
      known.get("privacy_beat_replay_share"),
    ),
    _say_reference(known.get("privacy_reference_replay_share")),
    *(
      _say_membership(known.get(f"privacy_membership_{kind}_auc"), holder)
      for kind, holder in (
        ("loss", "the weights and a recording"),
        ("distance", "generated ECGs alone"),
      )
    ),
    _say_person(known.get("identity_top1_share")),
  ]
  return " ".join(parts)


def _percent(metric: Metric) -> str:
  text = f"{metric.value:.1%}"
  if np.isfinite(metric.low):
    text += f" (95% interval {metric.low:.1%} to {metric.high:.1%})"
  return text


def _say_replay(metric, correlation, beats):
  if metric is None:
    return "Whether training recordings are replayed was not measured."
  text = (
    f"{_percent(metric)} of the generated ECGs lie nearer to a training "
    f"recording than 95% of unseen real recordings do; {metric.reference:.0%} "
    "is expected of a generator that replays nothing."
  )
  if beats is not None:
    text += f" Of their beats alone that is true of {_percent(beats)}."
  if any(
    share is not None and share.low > share.reference
    for share in (metric, beats)
  ):
    return f"{text} Training recordings are replayed."
  if not np.isfinite(metric.low):
    return f"{text} {_TOO_FEW}"
  text = f"{text} No sign of replay."
  if correlation is not None and correlation.high < correlation.reference:
    text += (
      " They lie further from the training recordings than unseen ones do "
      f"(mean correlation to the nearest {correlation.value:.2f} against "
      f"{correlation.reference:.2f}), which tells of fidelity, not of privacy."
    )
  return text


def _say_reference(metric):
  if metric is None:
    return "Whether the reference is copied was not measured."
  text = (
    f"{_percent(metric)} lie nearer to the reference than 95% of the same "
    f"patients' real later recordings do ({metric.reference:.0%} expected)."
  )
  if metric.low > metric.reference:
    return f"{text} The reference shows through: treat it as disclosed."
  if not np.isfinite(metric.low):
    return f"{text} {_TOO_FEW}"
  return f"{text} No sign that the reference is copied."


def _say_membership(metric, holder):
  if metric is None:
    return f"Membership inference with {holder} was not measured."
  text = (
    f"Who holds {holder} can tell trained-on from unseen recordings with an "
    f"area under the ROC curve of {metric.value:.2f}"
  )
  if np.isfinite(metric.low):
    text += f" ({metric.low:.2f} to {metric.high:.2f})"
  if not np.isfinite(metric.low):
    return f"{text}. {_TOO_FEW}"
  if not metric.low > 0.5:
    return f"{text}: no better than a guess."
  degree = (
    "barely better than a guess"
    if metric.value < 0.6
    else "in part"
    if metric.value < 0.75
    else "mostly"
  )
  return f"{text}: {degree}."


def _say_person(metric):
  if metric is None:
    return "How often an ECG leads back to its person was not measured."
  text = (
    "Re-identification: looked up among real recordings of unseen patients, a "
    f"generated ECG leads to the person it was made for in {_percent(metric)} "
    f"of cases ({metric.note})."
  )
  if metric.low > metric.baseline:
    return (
      f"{text} That is above the baseline of {metric.baseline:.1%}: the ECG "
      "stands for that person, so protect it as you protect the reference."
    )
  if not np.isfinite(metric.low):
    return f"{text} {_TOO_FEW}"
  return f"{text} No better than the baseline of {metric.baseline:.1%}."
