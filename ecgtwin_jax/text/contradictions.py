"""Statements that say something about the heart rate, against the rate."""

from ecgtwin_jax.data.conditions import Condition

# What a statement's words mean for the rate in bpm; both ends are allowed.
_RATES = {
  "bradycardia": (0, 60),
  "slow ventricular response": (0, 60),
  "tachycardia": (100, 300),
  "rapid ventricular response": (100, 300),
  "uncontrolled ventricular response": (100, 300),
}


def find_contradictions(condition: Condition) -> list[str]:
  """Sentences on the statements that the heart rate contradicts.

  "Sinus bradycardia" means at most 60 bpm, "Sinus tachycardia" and a "rapid
  ventricular response" at least 100. A statement that names both ends, as
  "Tachycardia-bradycardia syndrome" does, allows any rate.
  """
  found = []
  for statement in condition.statements:
    text = statement.casefold()
    rules = {rule for words, rule in _RATES.items() if words in text}
    if len(rules) != 1:
      continue
    ((low, high),) = rules
    if not low <= condition.heart_rate <= high:
      bound = f"at least {low}" if low else f"at most {high}"
      found.append(
        f"{statement!r} contradicts heart_rate={condition.heart_rate:g}: it "
        f"means {bound} bpm"
      )
  return found
