"""Trees of real and made recordings, for the tests of data preparation."""

import csv
import json
import pathlib
import shutil

import numpy as np

from ecgtwin_jax.data.dataset import SPLITS, load_split
from ecgtwin_jax.data.ecg import quiet_wfdb
from ecgtwin_jax.data.leads import LEADS

PTBXL = pathlib.Path(__file__).parents[1] / "data" / "ptbxl"


def copy_ptbxl(folder, change=None):
  """Copies the twelve recordings; change(rows) edits the table before."""
  shutil.copytree(PTBXL, folder, dirs_exist_ok=True)
  rows = read_csv(folder / "ptbxl_database.csv")
  if change is not None:
    changed = change(rows)
    write_csv(
      folder / "ptbxl_database.csv", rows if changed is None else changed
    )
  return folder


def read_csv(path):
  with open(path, newline="", encoding="utf-8") as file:
    return list(csv.DictReader(file))


def write_csv(path, rows):
  with open(path, "w", newline="", encoding="utf-8") as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


def write_record(folder, name, signal, leads=LEADS, rate=500, gain=200.0):
  """Writes millivolts as a WFDB record of format 16."""
  folder.mkdir(parents=True, exist_ok=True)
  count = len(leads)
  with quiet_wfdb() as wfdb:
    wfdb.wrsamp(
      name,
      fs=rate,
      units=["mV"] * count,
      sig_name=list(leads),
      p_signal=np.asarray(signal, np.float64),
      fmt=["16"] * count,
      adc_gain=[gain] * count,
      baseline=[0] * count,
      write_dir=str(folder),
    )


def read_physical(path):
  """Reads the leads of a record in clinical order, by wfdb alone."""
  with quiet_wfdb() as wfdb:
    record = wfdb.rdrecord(str(path))
  names = [name.upper() for name in record.sig_name]
  return record.p_signal[:, [names.index(lead.upper()) for lead in LEADS]]


def contents(directory):
  """Every file of a data set, by name."""
  return {path.name: path.read_bytes() for path in directory.iterdir()}


def recordings(directory):
  """What a data set says of each recording, by name: a dict of its columns."""
  found = {}
  for split in SPLITS:
    data = load_split(directory, split)
    for row, name in enumerate(data.record_id.tolist()):
      ids = data.statement_ids[row]
      found[name] = {
        "split": split,
        "patient_id": str(data.patient_id[row]),
        "time": int(data.time[row]),
        "heart_rate": float(data.heart_rate[row]),
        "age": float(data.age[row]),
        "sex": int(data.sex[row]),
        "statements": [data.table.statements[i] for i in ids[ids >= 0]],
        "ecg": data.arrays["ecg"][row] * data.card["scale"],
      }
  return found


def rejections(directory):
  """Rule and detail of each rejected recording, in the order of the file."""
  lines = (directory / "quality.jsonl").read_text("utf-8").splitlines()
  lines = [json.loads(line) for line in lines]
  return [(line["record"], line["rule"], line["detail"]) for line in lines]


def card(directory):
  """What card.json says."""
  return json.loads((directory / "card.json").read_text("utf-8"))
