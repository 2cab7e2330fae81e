"""Which criterion a report's statements ask for, by their words."""

import re

from ecgtwin_jax.data.conditions import Condition

_NEGATED = re.compile(
  r"\b(no|not|without|absence of|absent|no longer|resolved|ruled? out)\b"
)


def _words(asks: str, never: str = r"(?!)"):
  return re.compile(asks), re.compile(never)


# What a statement says, and what it says instead, in lower case. The wordings
# are those of MIMIC-IV-ECG's machine reports, of PTB-XL's descriptions of SCP
# codes, and of the simulator.
_RULES = {
  "lvh": _words(r"left ventricular hypertrophy|\blvh\b"),
  "st_elevation": _words(
    r"\bst[ -](segment )?elevation|\bstemi\b|\binjury"
    r"|acute.*(infarct|\bmi\b)|(infarct|\bmi\b).*acute",
    r"subendocardial|\bold\b|age (undetermined|indeterminate)|nstemi",
  ),
  "lbbb": _words(
    r"left bundle[ -]branch block|\bc?lbbb\b", r"(?<!\w)incomplete|\bilbbb\b"
  ),
  "rbbb": _words(
    r"right bundle[ -]branch block|\bc?rbbb\b", r"(?<!\w)incomplete|\birbbb\b"
  ),
  "av_block": _words(r"(1st|first)[ -]degree.*block|prolonged pr\b|long pr\b"),
  "fibrillation": _words(r"\batrial fib|\ba-?fib\b"),
  "pvc": _words(
    r"\bventricular (premature|ectop|extrasyst)|premature ventricular"
    r"|\bpvc\(?s?\b|\bvpcs?\b"
  ),
  "pac": _words(
    r"\batrial (premature|ectop|extrasyst)|premature atrial"
    r"|supraventricular (premature|ectop|extrasyst)|\bpac\(?s?\b|\bapcs?\b"
  ),
  "bradycardia": _words(r"bradycardia|slow ventricular response", r"tachy"),
  "tachycardia": _words(
    r"tachycardia|(rapid|uncontrolled) ventricular response", r"brady"
  ),
}
# Statements that show what a criterion looks for, without being asked for it:
# such a report is neither asked nor free of it.
_ALIKE = {
  "lbbb": re.compile(r"pac(ing|ed)\b|pacemaker"),
  "st_elevation": re.compile(r"pac(ing|ed)\b|pacemaker|left bundle|lbbb"),
  "fibrillation": re.compile(r"flutter"),
  "pac": re.compile(r"fib|flutter"),
}
CRITERIA = tuple(_RULES)


def asks_for(condition: Condition, criterion: str) -> bool | None:
  """Whether a report asks for a criterion; None where it is another's sign.

  A ventricular pacemaker's beat looks like a left bundle branch block, flutter
  beats like fibrillation or premature beats: there None.

  Raises:
    ValueError: the criterion is not one of CRITERIA.
  """
  if criterion not in _RULES:
    raise ValueError(f"{criterion=} must be one of {', '.join(CRITERIA)}")
  said, instead = _RULES[criterion]
  texts = [statement.casefold() for statement in condition.statements]
  for text in texts:
    if said.search(text) and not instead.search(text):
      if not _NEGATED.search(text):
        return True
  alike = _ALIKE.get(criterion)
  if alike and any(alike.search(text) for text in texts):
    return None
  return False
