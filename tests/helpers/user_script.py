"""A user's script with five mistakes that a type checker is to find."""

import re

SCRIPT = """\
import ecgtwin_jax as et

reference = et.example_ecg()
now = et.Condition(["Sinus rhythm"], heart_rate=82, age=81, sex="F")
then = et.Condition("Sinus rhythm", heart_rate=80)  # 1: a list is meant
twin = et.ECGTwin.from_pretrained("simulated-small")
base = twin.extract_base(reference, now)
out = twin.generate(base, now, num_samples=4, beats="pvc@4.2")
twin.generate(base, now, num_sample=4)  # 2: num_samples
twin.generate(base, reference, seed=1, sampling_rate=500)  # 3
first = out.ecg[0]  # 4: ecgs
et.detect_heart_rates(reference)  # 5: no such function
out.ecgs[0].plot("a.png")
reference.to_frame()
edited = twin.edit(base, now, add="Right bundle branch block", steps=10)
edited.source.ecgs[0].write("a.hea")
et.read_ecg("a.npy", sampling_rate=500, leads=et.LEADS, unit="mV")
"""


def planted_lines():
  lines = enumerate(SCRIPT.splitlines(), 1)
  return [number for number, line in lines if re.search(r"# \d", line)]
