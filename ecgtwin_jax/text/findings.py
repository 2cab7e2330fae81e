"""The one vocabulary of what a report's statements mean.

FINDINGS says by which words a statement means a finding; `finding` reads it off
a report, with one rule of negation and one of doubt. Everything else that asks
what statements mean is a reading of this table: labels, criteria asked for,
contradictions with the heart rate, and statements in other words (wording.py).

The wordings are those of MIMIC-IV-ECG's machine reports, of PTB-XL's
descriptions of SCP codes and of the simulator, abbreviated or not.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int8

from ecgtwin_jax.text.abbreviations import write_out

UNCLEAR = -1


class Finding(NamedTuple):
  """How a statement means a finding, and what goes with it.

  Attributes:
    pattern: the words, as `plain_text` leaves them.
    look_alikes: findings whose ECG shows the same: a report that states one of
      them is not free of the signs of this one.
    rates: heart rates in bpm that agree with it, both ends allowed; None: any.
    abnormal: whether it makes an ECG abnormal by itself.
  """

  pattern: str
  look_alikes: tuple[str, ...] = ()
  rates: tuple[int, int] | None = None
  abnormal: bool = True


_SLOW, _FAST = (0, 60), (100, 300)  # bpm
# What may stand between a wall, or an age, and its infarct.
_UP_TO = r"(?:(?!isch|invers|change|depress|fascic|hemi|voltage)[^,;])*?"
_ACUTE = (
  rf"\bacute\b(?!{_UP_TO}(?:subendocardial|\bnon st)){_UP_TO}\binfarct"
  r"|\binfarct\w*(?:[ ,;]+(?!old)\w+){0,3}?[ ,;]+acute\b"
  r"(?! (?:isch|inj|st |peric))"
)
_PREMATURE = r"(?:premature|ectop|extrasyst|bigem|trigem|couplet)"


def _infarct(wall):
  return (
    rf"{wall}{_UP_TO}\binfarct"
    rf"|\binfarct\w*(?:,| of| of the)? {wall}(?: wall| leads)?(?=$|[,;])"
  )


# The first 18 are LABELS; classifiers have them in this order.
FINDINGS = {
  "sinus_bradycardia": Finding(r"\bsinus brady", (), _SLOW),
  "sinus_tachycardia": Finding(r"\bsinus tach", (), _FAST),
  "atrial_fibrillation": Finding(
    r"\batrial (?:flutter ?(?:/|or) ?)?(?:atrial )?fib", ("atrial_flutter",)
  ),
  "atrial_flutter": Finding(r"(?<!ventricular )\bflutter"),
  # A wandering, or ectopic, pacemaker is the heart's own.
  "pacing": Finding(
    r"\bpac(?:ed|ing|ers?)\b|(?<!wandering )(?<!wandering atrial )"
    r"(?<!ectopic atrial )(?<!junctional )\bpacemaker"
  ),
  "ventricular_premature": Finding(
    rf"\bventricular {_PREMATURE}|\bpremature (?:\w+ and )?ventricular"
    r"|bigeminal ventricular|complexes, ventricular and supraventricular",
    ("unspecified_premature",),
  ),
  "atrial_premature": Finding(
    rf"\b(?:atrial|supraventricular) (?:{_PREMATURE}(?! atrial))"
    r"(?! (?:rhythm|tachy|brady))"
    r"|\bpremature (?:\w+ and )?(?:atrial|supraventricular)"
    r"|bigeminal atrial|complexes, ventricular and supraventricular",
    (
      "unspecified_premature",
      "junctional_premature",
      "atrial_fibrillation",
      "atrial_flutter",
    ),
  ),
  "first_degree_av_block": Finding(
    r"\b(?:1st|first|1|i) degree (?:av |heart |av nodal )?block"
    r"|\bav block,? (?:\w+ )?(?:1st|first|1|i) degree"
    r"|\b(?:prolonged|long) pr\b|\bpr (?:interval )?(?:is )?prolong",
    ("av_block", "second_degree_av_block", "third_degree_av_block"),
  ),
  # "incomplete" blocks are another finding, and a lesser one.
  "right_bundle_branch_block": Finding(
    r"(?<!incomplete )(?<!partial )\bright bundle (?:branch )?block"
    r"(?!,? incomplete| type)",
    ("bifascicular_block", "intraventricular_delay", "preexcitation"),
  ),
  "left_bundle_branch_block": Finding(
    r"(?<!incomplete )(?<!partial )\bleft bundle (?:branch )?block"
    r"(?!,? incomplete| type)",
    ("pacing", "intraventricular_delay", "preexcitation"),
  ),
  "left_anterior_fascicular_block": Finding(
    r"\bleft anterior (?:superior )?(?:fascic|hemi)"
  ),
  "left_ventricular_hypertrophy": Finding(
    r"\b(?:left ventricular|lv|biventricular) hypertrophy", ("high_voltage",)
  ),
  "low_voltage": Finding(
    r"\blow (?:\w+ lead |precordial |limb |extremity )?(?:qrs )?voltage",
    abnormal=False,
  ),
  "inferior_infarct": Finding(_infarct(r"\binfer(?:ior|o\w*)")),
  "anterior_infarct": Finding(
    _infarct(r"(?<!left )\banter(?:ior|o\w*)"),
    ("poor_r_wave_progression", "septal_infarct"),
  ),
  "acute_infarct": Finding(
    rf"{_ACUTE}|\bacute (?:\w+ )*subendocardial[^,;]*\binfarct"
    r"|\bnon st (?:segment )?elevation[^,;]*\binfarct"
  ),
  "t_wave_inversion": Finding(
    r"\bt (?:wave )?inver|\binverted t\b|\bt waves? (?:is |are )?inverted"
  ),
  "long_qt": Finding(
    r"\b(?:prolonged|long) (?:corrected )?qtc?\b"
    r"|\bqtc? (?:interval )?(?:is )?prolong"
  ),
  # Rhythm and rate.
  "sinus_rhythm": Finding(r"\bsinus (?:rhythm|mechanism)", abnormal=False),
  "sinus_arrhythmia": Finding(r"\bsinus arr?hythmia", abnormal=False),
  # A syndrome of both says nothing of this recording's rate.
  "bradycardia": Finding(
    r"(?<!tachy )(?<!tachycardia )\bbradycardia(?! tachy)"
    r"|\bsinus brady\b|slow ventricular (?:response|rate)",
    (),
    _SLOW,
  ),
  "tachycardia": Finding(
    r"(?<!brady )(?<!bradycardia )\btachycardia(?! brady)|\bsinus tachy?\b"
    r"|(?:rapid|uncontrolled) ventricular (?:response|rate)",
    (),
    _FAST,
  ),
  "tachycardia_bradycardia_syndrome": Finding(
    r"\btachy(?:cardia)? brady|\bbrady(?:cardia)? tachy|\bsick sinus"
  ),
  "supraventricular_tachycardia": Finding(
    r"\b(?:supraventricular|atrial|junctional) tachycardia", (), _FAST
  ),
  "ventricular_tachycardia": Finding(r"\bventricular tachycardia", (), _FAST),
  "ventricular_fibrillation": Finding(r"\bventricular fib"),
  "ectopic_atrial_rhythm": Finding(
    r"ectopic atrial|\batrial rhythm|\batrial ectopic (?:rhythm|tachy|brady)"
    r"|\b(?:wandering|ectopic) (?:atrial )?pacemaker"
  ),
  "supraventricular_arrhythmia": Finding(r"supraventricular arr?hythmia"),
  "junctional_rhythm": Finding(r"\b(?:junctional|nodal) (?:escape )?rhythm"),
  "idioventricular_rhythm": Finding(r"idioventricular|\bescape rhythm"),
  "escape_beat": Finding(r"\bescape (?:beat|complex)"),
  "junctional_premature": Finding(
    rf"\bjunctional {_PREMATURE}|\bpremature junctional"
  ),
  "unspecified_premature": Finding(
    r"(?<!atrial )(?<!ventricular )(?<!junctional )"
    r"\b(?:premature (?:complex|beat|contraction)(?!es, vent)"
    r"|(?:bi|tri)gemin(?!al (?:vent|atri)))"
  ),
  "sinus_pause": Finding(r"\bsinus (?:pause|arrest)|\bsinoatrial block"),
  "ventricular_pacing": Finding(
    r"\bventricular (?:paced|pacing|pacemaker)|\bav (?:sequential|dual)"
  ),
  "atrial_pacing": Finding(
    r"\batrial (?:paced|pacing)|\bav (?:sequential|dual)|\bdual (?:cham|paced)"
    r"|\b(?:electronic|artificial) atrial"
  ),
  "bigeminy": Finding(r"(?:bi|tri)gemin"),
  "couplet": Finding(r"\bcouplet|\bpaired\b"),
  "unnamed_rhythm": Finding(
    r"\b(?:undetermined|unknown|irregular|regular)(?: \w+)? rhythm",
    abnormal=False,
  ),
  # Conduction.
  "av_block": Finding(
    r"\b(?:high|advanced) (?:degree|grade) (?:av|heart) block"
    r"|(?<!degree )(?<!grade )(?<!complete )\b(?:av|heart) block"
    r"(?!,? (?:\w+ )?(?:1st|2nd|3rd|first|second|third|mobitz|wencke|complete))"
  ),
  "second_degree_av_block": Finding(
    r"\b(?:2nd|second|2|ii) degree (?!\w* ?\w* ?(?:sa|sinoatrial)\b)[^,;]*block"
    r"|\bav block,? (?:\w+ )?(?:2nd|second)|\bmobitz(?! i+ s)|wenckebach"
  ),
  "third_degree_av_block": Finding(
    r"\b(?:3rd|third|3|iii) degree [^,;]*block|\bcomplete (?:av|heart) block"
    r"|\bav block,? (?:complete|3rd|third)"
  ),
  "incomplete_right_bundle_branch_block": Finding(
    r"\b(?:incomplete|partial) right bundle"
    r"|\bright bundle (?:branch )?block,? incomplete",
    abnormal=False,
  ),
  "incomplete_left_bundle_branch_block": Finding(
    r"\b(?:incomplete|partial) left bundle"
    r"|\bleft bundle (?:branch )?block,? incomplete",
    abnormal=False,
  ),
  "left_posterior_fascicular_block": Finding(
    r"\bleft posterior (?:inferior )?(?:fascic|hemi)"
  ),
  "bifascicular_block": Finding(r"\b(?:bi|tri)fascicular"),
  "intraventricular_delay": Finding(
    r"\bintraventricular (?:conduction )?(?:delay|defect|disturb|block)"
    r"|\bconduction defect"
  ),
  "preexcitation": Finding(
    r"\bwolff? parkinson|\bpre ?excitation|\bdelta waves?\b"
  ),
  "short_pr": Finding(r"\bshort pr\b", abnormal=False),
  # Chambers, axis and voltage.
  "right_ventricular_hypertrophy": Finding(
    r"\b(?:right ventricular|rv|biventricular) hypertrophy"
  ),
  "septal_hypertrophy": Finding(r"\bseptal hypertrophy"),
  "left_atrial_enlargement": Finding(
    r"\b(?:left |bi)atrial (?:overload|enlarge|abnormal|hypertrophy)"
  ),
  "right_atrial_enlargement": Finding(
    r"\b(?:right |bi)atrial (?:overload|enlarge|abnormal|hypertrophy)"
  ),
  "left_axis_deviation": Finding(
    r"\bleft(?:ward)? axis|\baxis leftward", abnormal=False
  ),
  "right_axis_deviation": Finding(
    r"\bright(?:ward)? axis|\baxis rightward", abnormal=False
  ),
  "high_voltage": Finding(r"\bhigh (?:qrs )?voltage", abnormal=False),
  "poor_r_wave_progression": Finding(
    r"\b(?:poor|abnormal) (?:precordial )?r (?:wave )?progress(?!.*early)"
  ),
  # Infarction, ischemia, ST and T.
  "infarct": Finding(r"\binfarct"),
  "lateral_infarct": Finding(_infarct(r"\blateral")),
  "septal_infarct": Finding(_infarct(r"\bseptal")),
  "posterior_infarct": Finding(_infarct(r"(?<!left )poster(?:ior|o\w*)")),
  # Acute infarction and injury are named by it; a reciprocal depression hints
  # at it.
  "st_elevation": Finding(
    rf"(?<!non )\bst (?:segment )?elevat|(?<!subendocardial )\binjury"
    rf"|\breciprocal\b|{_ACUTE}",
    (
      "pacing",
      "left_bundle_branch_block",
      "early_repolarization",
      "pericarditis",
      "aneurysm",
    ),
  ),
  "st_depression": Finding(r"\bst (?:segment )?depress"),
  "subendocardial_injury": Finding(r"\bsubendocardial injury"),
  "ischemia": Finding(r"\bischa?emi"),
  "early_repolarization": Finding(r"\bearly repol", abnormal=False),
  "pericarditis": Finding(r"\bpericarditis"),
  "aneurysm": Finding(r"\baneurysm", abnormal=False),
  "q_waves": Finding(r"\bq waves?\b", abnormal=False),
  "st_t_changes": Finding(
    r"\b(?:st|t|qrs t|repolarization)(?: waves?| segment)?(?: and t(?: wave)?)?"
    r" (?:change|abnormal)|\babnormal t\b|\blow (?:amplitude )?t\b|\bflat t\b",
    abnormal=False,
  ),
  "drug_or_electrolytes": Finding(r"\bdigitalis|\belectrolyt?", abnormal=False),
  "abnormality": Finding(r"\babnormal(?!\w*[^,;]*\becg\b)"),
  # A report's summary.
  "normal_ecg": Finding(
    r"(?<!otherwise )\bnormal\b(?=(?:(?!abnormal|border)[^,;])*\becg\b)"
    r"(?!.*\bexcept\b)|\becg\b[^,;]*(?<!except )\bnormal\b"
    r"|^(?:ecg )?within normal limits$",
    abnormal=False,
  ),
  "normal_ecg_except_for_rate": Finding(r"\becg except\b", abnormal=False),
  "otherwise_normal_ecg": Finding(r"\botherwise normal\b", abnormal=False),
  "borderline_ecg": Finding(
    r"\bborderline\b(?=[^,;]*\becg\b)|^borderline$", abnormal=False
  ),
  "abnormal_ecg": Finding(
    r"\babnormal\b(?=[^,;]*\becg\b)|\becg\b[^,;]*\babnormal\b", abnormal=False
  ),
}
# The heart's walls, or leads, that a statement names.
_WALLS = {
  "inferior": re.compile(r"\binfer(?:ior|o)"),
  "anterior": re.compile(r"(?<!left )\banter(?:ior|o)"),
  "lateral": re.compile(r"lateral"),
  "septal": re.compile(r"septal"),
  "posterior": re.compile(r"(?<!left )poster(?:ior|o)"),
}
# What the summary makes of its ECG.
_SUMMARIES = {
  "normal_ecg": 0,
  "normal_ecg_except_for_rate": 1,
  "otherwise_normal_ecg": 1,
  "borderline_ecg": UNCLEAR,
  "abnormal_ecg": 1,
}
_SINUS = ("sinus_rhythm", "sinus_bradycardia", "sinus_tachycardia")
# What tells which rhythm there is; premature beats do not.
_RHYTHMS = {
  *_SINUS,
  "atrial_fibrillation",
  "atrial_flutter",
  "pacing",
  "sinus_arrhythmia",
  "bradycardia",
  "tachycardia",
  "tachycardia_bradycardia_syndrome",
  "ventricular_fibrillation",
  "ectopic_atrial_rhythm",
  "supraventricular_arrhythmia",
  "junctional_rhythm",
  "idioventricular_rhythm",
  "sinus_pause",
  "bigeminy",
  "unnamed_rhythm",
}
# What an ECG is checked for, and which finding asks for it.
CRITERIA = {
  "lvh": "left_ventricular_hypertrophy",
  "st_elevation": "st_elevation",
  "lbbb": "left_bundle_branch_block",
  "rbbb": "right_bundle_branch_block",
  "av_block": "first_degree_av_block",
  "fibrillation": "atrial_fibrillation",
  "pvc": "ventricular_premature",
  "pac": "atrial_premature",
  "bradycardia": "bradycardia",
  "tachycardia": "tachycardia",
}

# Words of doubt and of negation speak of what follows them, or of what stands
# before them. The rules are NegEx's in outline (Chapman et al. 2001), cut down
# to what reports of ECGs say.
_SEEN = r"(?: (?:present|seen|evident|observed|found|identified|noted))"
_WORDS = re.compile(
  r"(?P<doubts_before>"
  r"\b(?:can ?not|not) be (?:ruled out|excluded)|\bnot (?:ruled out|excluded)"
  r"|\b(?:probable|possible|may be|consider) (?:a )?normal (?:variant|early)"
  r"|\b(?:is|are|was) (?:possible|probable|likely|suspected|questionable)"
  r"|\b(?:possible|probable|suspected|questionable|likely)(?=$|;)|\?(?=$|;))"
  r"|(?P<denies_before>"
  rf"\bno longer(?:{_SEEN}|$|(?=[,;]))|\bnot{_SEEN}|(?<!^)\b(?:absent|resolved"
  r"|disappeared|ruled out|excluded|replaced by|converted to)\b)"
  # One of two, and a hint.
  r"|(?P<doubts_these>fibrillation(?: or |/)(?:atrial )?flutter"
  r"|flutter(?: or |/)(?:atrial )?fib|premature ventricular or aberr"
  r"|sinus or (?:ectopic )?atrial rhythm|reciprocal)"
  r"|(?P<doubts_all>\bconsider\b)"
  # "possibly acute" doubts an infarct's age, not the infarct.
  r"|(?P<doubts>\b(?:possible|possibly(?! acute\b)|probabl[ey]"
  r"|suggest\w*|suspect\w*|suspicious|questionable|equivocal|likely|may|might"
  r"|could|vs|versus|atypical|non ?diagnostic|borderline(?![^,;]*\becg\b)(?!$)"
  r"|(?:can ?not|unable to|not) (?:rule out|exclude)|rule out|r/o)\b|\?)"
  r"|(?P<denies>\b(?:no(?! (?:\w+ )?(?:change|further))(?: longer (?:with|in))?"
  r"|not|without|absence of|absent|resolved|negative for|free of|instead of"
  r"|rather than|replaces|replaced)\b)"
)
_STOP = r"(?:(?!\b(?:but|with|except|however|although)\b)[^,;])*"
# To the end of the clause, which "with" ends unless a whole is considered; a
# list is one clause: "no a, b or c".
_AFTER = re.compile(rf"{_STOP}(?:(?:,{_STOP})*?,(?=[^,;]*\bor\b){_STOP})?")
_ALL_AFTER = re.compile(_AFTER.pattern.replace("with|", ""))
_BEFORE = re.compile(r"(?:(?!\bbut\b)[^,;])*[ ,;]*$")


def finding(name: str, statements: Sequence[str]) -> int:
  """Whether a report states a finding: 1, 0 where it does not, -1 in doubt.

  What is denied ("no longer present") is not stated.

  Args:
    name: one of FINDINGS.
    statements: statements of the report.
  """
  FINDINGS[name]  # a KeyError, rather than 0
  values = [read_statement(text).get(name, 0) for text in statements]
  return _strongest(values)


def _strongest(values):
  return 1 if 1 in values else UNCLEAR if UNCLEAR in values else 0


@functools.lru_cache(maxsize=1 << 16)
def read_statement(statement: str) -> dict[str, int]:
  """The findings that a statement names: 1 stated, -1 in doubt, 0 denied."""
  text = plain_text(statement)
  spoken = [_reach(text, word) for word in _WORDS.finditer(text)]
  found = {}
  for name, row in FINDINGS.items():
    values = [
      _value({kind for kind, span in spoken if _covers(span, mention)})
      for mention in re.finditer(row.pattern, text)
    ]
    if values:
      found[name] = _strongest(values)
  return found


def _value(kinds):
  return 0 if "denies" in kinds else UNCLEAR if kinds else 1


@functools.lru_cache(maxsize=1 << 16)
def read_walls(statement: str) -> frozenset[str]:
  """The walls of the heart that a statement names, such as "inferior"."""
  text = plain_text(statement)
  return frozenset(name for name, word in _WALLS.items() if word.search(text))


def plain_text(statement: str) -> str:
  """A statement in small letters, its abbreviations written out.

  Hyphens are spaces, and what else ends a clause is a semicolon.
  """
  text = statement.casefold().replace("°", " degree ").replace("&", " and ")
  text = re.sub(r"\((e?s)\)", r"\1", text)  # complex(es)
  text = re.sub(r"\b([a-z])\.([a-z])\.", r"\1 \2 ", text)  # I.V.
  text = re.sub(r"[*()\[\]\"_]", " ", text)
  text = re.sub(r"(?<=\w)[-–](?=\w)", " ", text)
  text = re.sub(r"[-–]+|[.:](?!\d)", ";", text)
  text = re.sub(r"\s*([,;])\s*", r"\1 ", " ".join(text.split())).strip(" ;,")
  return write_out(text)


def _reach(text, word):
  kind, _, what = word.lastgroup.partition("_")
  if what == "these":
    return kind, word.span()
  if what == "before":
    return kind, (_BEFORE.search(text, 0, word.start()).start(), word.start())
  after = _ALL_AFTER if what == "all" else _AFTER
  return kind, (word.start(), after.match(text, word.end()).end())


def _covers(span, mention):
  start, end = span
  # A mention may hold the word: "infarct, cannot rule out acute".
  return mention.start() < end and start < mention.end()


def names_rhythm(statement: str) -> bool:
  """Whether a statement says which rhythm there is, for sure or in doubt."""
  read = read_statement(statement)
  return any(read.get(name) for name in _RHYTHMS)


def names_sinus_rhythm(statement: str) -> bool:
  """Whether a statement says that the rhythm is the sinus node's."""
  return any(finding(name, [statement]) == 1 for name in _SINUS)


def names_conclusion(statement: str) -> bool:
  """Whether a statement sums up a report ("Abnormal ECG"), and no more."""
  read = {name for name, value in read_statement(statement).items() if value}
  return bool(read) and read <= _SUMMARIES.keys()


def normality(statements: Sequence[str]) -> int:
  """Whether a report calls its ECG normal (0) or abnormal (1); -1: unclear.

  Its summary decides: "normal ECG" is 0; "abnormal ECG", "normal ECG except for
  rate" and "otherwise normal ECG" are 1; "borderline ECG", and summaries that
  contradict each other, are unclear. Without a summary, an abnormal finding
  that is not in doubt ("right bundle branch block") is 1, and anything else is
  unclear.
  """
  found = [pair for text in statements for pair in read_statement(text).items()]
  calls = {
    _SUMMARIES[name] if value == 1 else UNCLEAR
    for name, value in found
    if name in _SUMMARIES and value
  }
  if calls:
    return calls.pop() if len(calls) == 1 else UNCLEAR
  sure = (FINDINGS[name].abnormal for name, value in found if value == 1)
  return 1 if any(sure) else UNCLEAR


LABELS: dict[str, Callable[[Sequence[str]], int]] = {
  "abnormal": normality,
  **{name: functools.partial(finding, name) for name in list(FINDINGS)[:18]},
}


def asks_for(statements: Sequence[str], criterion: str) -> bool | None:
  """Whether a report asks for a criterion; None where it is neither asked.

  Neither asked for it nor free of it is a report that puts it in doubt, or that
  states what looks alike: a ventricular pacemaker's beat looks like a left
  bundle branch block, flutter beats like fibrillation.

  Args:
    statements: statements of the report.
    criterion: one of CRITERIA.

  Raises:
    ValueError: the criterion is not one of CRITERIA.
  """
  if criterion not in CRITERIA:
    raise ValueError(f"{criterion=} must be one of {', '.join(CRITERIA)}")
  name = CRITERIA[criterion]
  stated = finding(name, statements)
  if stated == 1:
    return True
  alike = any(finding(one, statements) for one in FINDINGS[name].look_alikes)
  return None if stated or alike else False


def find_contradictions(
  statements: Sequence[str], heart_rate: float | int
) -> list[str]:
  """Sentences on the statements that the heart rate contradicts.

  "Sinus bradycardia" means at most 60 bpm, "Sinus tachycardia" and a "rapid
  ventricular response" at least 100. A statement that names both ends, as
  "Tachycardia-bradycardia syndrome" does, allows any rate.

  Args:
    statements: statements of the report.
    heart_rate: heart rate in bpm.
  """
  sentences = []
  for statement in statements:
    read = read_statement(statement)
    rules = {FINDINGS[name].rates for name in read if read[name] == 1} - {None}
    if len(rules) != 1:
      continue
    ((low, high),) = rules
    if not low <= heart_rate <= high:
      bound = f"at least {low}" if low else f"at most {high}"
      sentences.append(
        f"{statement!r} contradicts heart_rate={heart_rate:g}: it means "
        f"{bound} bpm"
      )
  return sentences


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
    statements: statements of the data set's table.
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
