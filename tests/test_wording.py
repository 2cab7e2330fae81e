"""Statements in known words: what is the same, near, or neither."""

import pytest

from ecgtwin_jax.simulator.findings import CONDITIONS
from ecgtwin_jax.text.wording import reword


@pytest.mark.parametrize("statement", CONDITIONS)
def test_case_spaces_and_a_full_stop_do_not_matter(statement):
  odd = f"  {statement.upper().replace(' ', '  ')}."
  assert reword(odd, CONDITIONS) == ((statement,), "spelling")
  assert reword(statement, CONDITIONS) == ((statement,), "spelling")


@pytest.mark.parametrize("statement", CONDITIONS)
def test_no_two_statements_of_the_simulator_say_the_same(statement):
  others = [one for one in CONDITIONS if one != statement]
  wording = reword(statement, others)
  # The heart rate says what is rapid.
  rapid = "Atrial fibrillation with rapid ventricular response"
  assert (wording.how == "meaning") == (statement == rapid)


def test_known_ones_share_out_a_statement_whatever_their_order():
  known = ("1st degree A-V block", "Sinus rhythm", "Sinus rhythm with PVC(s)")
  text = "NSR with PVCs, first degree AV block"
  shares = ("1st degree A-V block", "Sinus rhythm with PVC(s)")
  assert reword(text, known) == (shares, "meaning")
  assert reword(text, known[::-1]) == (shares[::-1], "meaning")
  # The rhythm is not the rate.
  assert reword("Sinus tachycardia with PVCs", ("PVC",)).how == "nearest"


def test_the_nearest_is_so_by_meaning_before_spelling():
  known = ("Normal ECG", "Right bundle branch block", "Sinus rhythm")
  assert reword("IRBBB", known) == (("Right bundle branch block",), "nearest")
  known = ("Left posterior fascicular block", "LAHB with RBBB")
  text = "Left anterior fascicular block"
  assert reword(text, known) == (("LAHB with RBBB",), "nearest")
  assert reword("Pacemaker", ("Pacing",)) == (("Pacing",), "meaning")
  assert reword("Sinus rythm", CONDITIONS) == (("Sinus rhythm",), "nearest")


def test_nothing_is_near_what_is_denied_or_unheard_of():
  for text in ("No RBBB", "A made up thing"):
    assert reword(text, CONDITIONS) == ((), "none")
    assert str(reword(text, CONDITIONS)) == "none of them is near it"
  assert reword("RBBB", ()) == ((), "none")


def test_a_wording_as_a_clause():
  assert str(reword("Sinus rythm", CONDITIONS)) == (
    "the nearest is 'Sinus rhythm'"
  )
  assert str(reword("NSR with PVCs", CONDITIONS)) == (
    "the same is said by 'Sinus rhythm' with 'Ventricular premature complex'"
  )
