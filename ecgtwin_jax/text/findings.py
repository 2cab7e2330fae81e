"""What a report says of each finding, as labels; and how scores tell them.

A label is 1 (present), 0 (absent) or -1 (not clear: left out and counted).
Reports are read by rule, in the wordings of MIMIC-IV-ECG's machine reports, of
PTB-XL's SCP descriptions and of the simulated cohort.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, Int8

UNCLEAR = -1
# What makes a statement mean the finding; searched in lower case.
FINDINGS = {
  "sinus_bradycardia": r"sinus bradycardia",
  "sinus_tachycardia": r"sinus tachycardia",
  "atrial_fibrillation": r"atrial fibrillation|\bafib\b",
  "atrial_flutter": r"atrial flutter",
  "pacing": r"\bpac(ed|ing|emaker)\b",
  "ventricular_premature": r"ventricular (premature|ectop|extrasyst)|\bpvc",
  "atrial_premature": r"atrial (premature|ectop)|\bpac(s|\(s\))?$",
  "first_degree_av_block": r"(1st|first)[ -]degree a-?v|prolonged pr\b",
  "right_bundle_branch_block": r"right bundle.branch block|\brbbb\b",
  "left_bundle_branch_block": r"left bundle.branch block|\blbbb\b",
  "left_anterior_fascicular_block": r"left anterior (fascicular|hemi)",
  "left_ventricular_hypertrophy": r"left ventricular hypertrophy|\blvh\b",
  "low_voltage": r"low (limb lead |precordial )?(qrs )?voltage",
  "inferior_infarct": r"infer\w*.*infarct",
  "anterior_infarct": r"anter(o|ior)\w*.*infarct",
  "acute_infarct": r"infarct.*\bacute\b|\bacute\b.*infarct",
  "t_wave_inversion": r"t[ -]wave inversion|inverted t[ -]wave",
  "long_qt": r"(prolonged|long) qt",
}
# A finding in doubt is neither there nor not there. ("possibly acute" doubts
# an infarct's age, not the infarct.)
_DOUBT = re.compile(
  r"\b(possible|probable|consider|suggests?|suspect|borderline|questionable"
  r"|cannot (be )?(rule[d]? out|exclude[d]?)|non-?diagnostic)\b"
)
_SUMMARY = re.compile(r"\becg\b|\bekg\b")
_NOT_NORMAL = re.compile(r"abnormal|except|otherwise")
# Without a summary these, when not in doubt, make a report abnormal.
_ABNORMAL = re.compile(
  r"block|infarct|hypertrophy|fibrillation|flutter|premature|ectop|bradycardia"
  r"|tachycardia|\bpac(ed|ing|emaker)\b|isch[a]?emi|injury|elevation|inversion|inverted"
  r"|depression|abnormal|prolonged|long qt|poor r|enlargement|overload"
  r"|wolff?[ -]park|escape"
)


def normality(statements: Sequence[str]) -> int:
  """Whether a report calls its ECG normal (0) or abnormal (1); -1: unclear.

  Its summary decides: "normal ECG" is 0; "abnormal ECG", "normal ECG except for
  rate" and "otherwise normal ECG" are 1; "borderline ECG", and summaries that
  contradict each other, are unclear. Without a summary, a finding that is not
  in doubt ("right bundle branch block") is 1, and anything else is unclear.
  """
  plain = [_plain(statement) for statement in statements]
  found = {_summary(text) for text in plain if _is_summary(text)}
  if found:
    return found.pop() if len(found) == 1 else UNCLEAR
  sure = (text for text in plain if not _DOUBT.search(text))
  return 1 if any(_ABNORMAL.search(text) for text in sure) else UNCLEAR


def finding(name: str, statements: Sequence[str]) -> int:
  """Whether a report states a finding: 1, 0 where it does not, -1 in doubt.

  Args:
    name: one of FINDINGS.
    statements: of the report.
  """
  pattern = re.compile(FINDINGS[name])
  plain = [_plain(statement) for statement in statements]
  hits = [text for text in plain if pattern.search(text)]
  if any(not _DOUBT.search(text) for text in hits):
    return 1
  return UNCLEAR if hits else 0


def _plain(statement):
  text = " ".join(statement.casefold().split()).rstrip(".")
  # "incomplete" blocks are another finding, and a lesser one.
  return "" if text.startswith("incomplete") else text


def _is_summary(text):
  return bool(_SUMMARY.search(text)) and (
    "normal" in text or "borderline" in text
  )


def _summary(text):
  if "borderline" in text or _DOUBT.search(text):
    return UNCLEAR
  return 1 if _NOT_NORMAL.search(text) else 0


LABELS: dict[str, Callable[[Sequence[str]], int]] = {
  "abnormal": normality,
  **{
    name: (lambda statements, name=name: finding(name, statements))
    for name in FINDINGS
  },
}


def label_reports(
  names: Sequence[str], reports: Sequence[Sequence[str]]
) -> Int8[np.ndarray, "n l"]:
  """Labels of each report, a column per name: 1, 0 or -1 (unclear).

  Args:
    names: some of LABELS.
    reports: statements of each recording.

  Raises:
    ValueError: an unknown name.
  """
  unknown = [name for name in names if name not in LABELS]
  if unknown:
    raise ValueError(f"labels {unknown} must be of {', '.join(LABELS)}")
  # Most reports occur many times.
  known = {}
  rows = np.empty((len(reports), len(names)), np.int8)
  for row, report in zip(rows, map(tuple, reports)):
    if report not in known:
      known[report] = [LABELS[name](report) for name in names]
    row[:] = known[report]
  return rows


def label_rows(
  names: Sequence[str],
  statements: Sequence[str],
  statement_ids: Int[np.ndarray, "n s"],
) -> Int8[np.ndarray, "n l"]:
  """Labels of a data set's rows.

  Args:
    names: some of LABELS.
    statements: of the data set's table.
    statement_ids: rows of the table, padded with -1.
  """
  unique, inverse = np.unique(statement_ids, axis=0, return_inverse=True)
  reports = [[statements[i] for i in ids[ids >= 0]] for ids in unique]
  return label_reports(names, reports)[inverse.reshape(-1)]


def auroc(
  scores: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"]
) -> float:
  """Area under the ROC curve, P(score of a 1 > score of a 0) + P(equal) / 2.

  Args:
    scores: higher means more likely 1.
    labels: 1, 0, or -1: left out.

  Returns:
    nan where one of the two is missing.
  """
  from scipy.stats import rankdata

  clear = labels >= 0
  scores, positive = scores[clear], labels[clear] == 1
  ones, zeros = int(positive.sum()), int((~positive).sum())
  if not ones or not zeros:
    return float("nan")
  ranks = rankdata(scores)[positive].sum()
  return float((ranks - ones * (ones + 1) / 2) / (ones * zeros))


# What tells which rhythm there is; premature beats do not.
_RHYTHM = re.compile(
  r"rhythm|arr?hythmia|fibrillation|flutter|tachy|bradycardia|\bpac(?:ed|ing)"
  r"|pacemaker|\bsinus\b|\ba-?fib|bigemin|trigemin"
)


def names_rhythm(statement: str) -> bool:
  """Whether a statement says which rhythm there is."""
  return _RHYTHM.search(statement.lower()) is not None
