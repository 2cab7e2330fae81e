"""Every stage on recordings prepared from files, patients in every split."""

import csv

import numpy as np
import pytest

from data_prep import wfdb_folder
from data_prep.encode import encode_with
from ecgtwin_jax.data.dataset import load_split
from ecgtwin_jax.simulator.simulate import cohort
from ecgtwin_jax.training import train

# As many as the smoke chain's and of the same seed, so that the programs are
# those that are compiled already.
PATIENTS, RECORDINGS = 40, 3


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
  """A folder of WFDB records with a table, simulated patients in them."""
  folder = tmp_path_factory.mktemp("recordings")
  rows = []
  for made in cohort(PATIENTS, RECORDINGS, seed=0, sampling_rate=250.0):
    made.ecg.write(folder / f"r{made.record_id.replace('/', '_')}.hea")
    condition = made.condition
    rows.append(
      {
        "record": f"r{made.record_id.replace('/', '_')}",
        "patient_id": made.patient_id,
        "time": made.time,
        "heart_rate": condition.heart_rate,
        # One patient of eight has neither age nor sex.
        "age": condition.age if made.patient_id % 8 else "",
        "sex": condition.sex if made.patient_id % 8 else "",
        "statements": condition.text(),
      }
    )
  with (folder / "records.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
  return folder


def test_every_stage_trains_and_is_measured_on_held_out_patients(
  recordings, stage_config, tmp_path
):
  data, latents = tmp_path / "ecgs", tmp_path / "latents"
  wfdb_folder.prepare(recordings, data, table=str(recordings / "records.csv"))
  splits = {s: load_split(data, s) for s in ("train", "validation", "test")}
  assert sum(map(len, splits.values())) == PATIENTS * RECORDINGS
  assert all(len(split.pairs) for split in splits.values())
  paths = {"data": str(data), "latents": str(latents)}
  paths["vae"] = str(tmp_path / "vae")
  autoencoder = train.train(
    stage_config("vae", data=paths["data"]), paths["vae"]
  )
  assert np.isfinite(autoencoder["correlation"])
  encode_with(data, paths["vae"], latents)
  paths["base_extractor"] = str(tmp_path / "stage1")
  first = {k: v for k, v in paths.items() if k != "base_extractor"}
  extractor = train.train(
    stage_config("stage1", **first), paths["base_extractor"]
  )
  assert extractor["patients"] >= 2
  assert np.isfinite(extractor["top1"])
  denoiser = train.train(stage_config("stage2", **paths), tmp_path / "stage2")
  assert denoiser["pairs"] >= 2
  channels = [denoiser[f"mse_channel_{i}"] for i in range(8)]
  np.testing.assert_allclose(np.mean(channels), denoiser["mse"], rtol=1e-5)
  assert 0 < denoiser["mse_unpredictable"] < 1
