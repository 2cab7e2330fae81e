"""In how many ECGs a P wave is read, where reports say fibrillation or sinus.

  python -m studies.p_waves --twin=real-small --data=PTBXL

Of recordings of one split: as they are, after the autoencoder, and their twins
under their own condition; and twins of those in sinus rhythm who are asked for
fibrillation. Writes p_waves.md. A delineator that reads P waves where there are
none costs fibrillation its criterion (beats/criteria_checks.py).
"""

import argparse
import pathlib

import numpy as np

from ecgtwin_jax.beats.delineation import read_ecgs
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.dataset import Dataset
from ecgtwin_jax.evaluation import evaluate, generate_examples
from ecgtwin_jax.inference.sampling import Settings
from ecgtwin_jax.inference.twin import ECGTwin, load_twin
from ecgtwin_jax.text.findings import finding

RHYTHMS = {
  "sinus rhythm": "sinus_rhythm",
  "fibrillation": "atrial_fibrillation",
}


def count(signals) -> str:
  """ECGs with a P wave, of those whose beats could be read."""
  readings = [reading for reading in read_ecgs(signals) if reading is not None]
  found = sum(np.isfinite(reading.marks.p_onset) for reading in readings)
  return f"{found} of {len(readings)}"


def count_twins(twin: ECGTwin, bases, conditions: list[Condition]) -> str:
  """The same of one twin per base vector and condition."""
  zeros = [0] * len(conditions)
  made = twin.generate_rows(bases, conditions, zeros, zeros, Settings())
  return count(made.signals)


def measure(twin: ECGTwin, data: Dataset, most: int) -> dict[str, list[str]]:
  """{rhythm: counts as recorded, decoded, of twins, of those that fibrillate}.

  Raises:
    ValueError: the split has no recording of a rhythm.
  """
  conditions = [
    generate_examples.read_condition(data, row) for row in range(len(data))
  ]
  said = {
    name: np.array([finding(name, c.statements) == 1 for c in conditions], bool)
    for name in RHYTHMS.values()
  }
  table = {}
  for title, name in RHYTHMS.items():
    rows = np.flatnonzero(said[name] & (sum(said.values()) == 1))
    if not len(rows):
      raise ValueError(f"split {data.split!r} has no recording of {title}")
    rows = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]
    signals = generate_examples.signals_mv(data, rows)
    ecgs = generate_examples.as_ecgs(signals)
    now = [conditions[row] for row in rows]
    latents = np.stack([twin.networks.encode(ecg) for ecg in ecgs])
    bases = twin.extract_bases(ecgs, now)
    table[title] = [
      count(signals),
      count(twin.networks.decode(latents)),
      count_twins(twin, bases, now),
      "",
    ]
    if name == "sinus_rhythm":
      asked = [
        Condition(("Atrial fibrillation",), c.heart_rate, c.age, c.sex)
        for c in now
      ]
      table[title][-1] = count_twins(twin, bases, asked)
  return table


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--twin", default="real-small", help="or a directory")
  parser.add_argument("--data", required=True, help="prepared ECGs")
  parser.add_argument("--split", default="train")
  parser.add_argument("--most", type=int, default=250, help="of each rhythm")
  parser.add_argument("--output", default="runs/p_waves")
  arguments = parser.parse_args()
  data = evaluate.load_splits(arguments.data, (arguments.split,))
  table = measure(load_twin(arguments.twin), data, arguments.most)
  lines = [
    "| P wave read | recorded | decoded | twins | asked for fibrillation |",
    "|---" * 5 + "|",
    *(f"| {name} | " + " | ".join(row) + " |" for name, row in table.items()),
  ]
  output = pathlib.Path(arguments.output)
  output.mkdir(parents=True, exist_ok=True)
  (output / "p_waves.md").write_text("\n".join(lines) + "\n")
  print("\n".join(lines))


if __name__ == "__main__":
  main()
