"""What `import ecgtwin_jax as et` offers, by name, type and in print."""

import ast
import dataclasses
import importlib
import pathlib

import numpy as np

import ecgtwin_jax as et
from ecgtwin_jax.inference.results import Edited, Explained, Generated
from ecgtwin_jax.inference.sampling import SamplingOptions, Settings


def test_type_checkers_see_what_is_loaded_on_first_use():
  tree = ast.parse(pathlib.Path(et.__file__).read_text())
  (block,) = [node for node in tree.body if isinstance(node, ast.If)]
  seen = {
    alias.name: node.module.removeprefix("ecgtwin_jax.")
    for node in block.body
    for alias in node.names
  }
  assert set(dir(et)) == {*seen, "__version__"} == set(et.__all__)
  for name, module in seen.items():
    home = importlib.import_module(f"ecgtwin_jax.{module}")
    assert getattr(et, name) is getattr(home, name)


def test_options_are_the_fields_of_the_settings():
  fields = {f.name: f.type for f in dataclasses.fields(Settings)}
  assert SamplingOptions.__annotations__ == fields


def test_what_is_printed_is_short():
  ecg = et.example_ecg()
  assert repr(ecg) == "ECG(s0010_re_10s, 10 s, 1000 Hz)"
  assert repr(et.ECG(np.zeros((5, 12)), 500)) == "ECG(0.01 s, 500 Hz)"
  made = Generated([ecg] * 3, np.zeros((3, 128, 4)), np.zeros(3))
  assert repr(made) == "Generated(3 ECGs)"
  assert repr(Edited(made, made)) == "Edited(3 ECGs)"
  why = Explained(np.zeros((3, 1, 128, 1)), made.ecgs, ("Pacing",))
  assert repr(why) == "Explained(3 ECGs, ['Pacing'])"


def test_an_ecg_is_enough_for_detectors_and_criteria():
  ecg = et.example_ecg()
  rate = et.detect_heart_rate(ecg)
  assert rate == et.detect_heart_rate(ecg.signal, ecg.sampling_rate)
  now = et.fill_condition(ecg, "Sinus rhythm")
  assert (now.heart_rate, now.age, now.sex) == (rate, 81, "F")
  assert et.describe(now) == f"Sinus rhythm; {rate:g} bpm, 81 years, F"
  assert et.check_criteria(ecg, now)["bradycardia"] is False
