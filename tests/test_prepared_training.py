"""Every stage on recordings prepared from files, patients in every split."""

import csv

import numpy as np
import pytest

from data_prep import wfdb_folder
from data_prep.encode import encode_with
from ecgtwin_jax.data.dataset import load_split
from ecgtwin_jax.simulator.simulate import cohort
from ecgtwin_jax.stages import base_extractor
from ecgtwin_jax.training import metric_writer, train
from helpers import runs

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


@pytest.fixture(scope="module")
def prepared(recordings):
  """The folder of their data set."""
  data = recordings / "ecgs"
  wfdb_folder.prepare(recordings, data, table=str(recordings / "records.csv"))
  splits = {s: load_split(data, s) for s in ("train", "validation", "test")}
  assert sum(map(len, splits.values())) == PATIENTS * RECORDINGS
  assert all(len(split.pairs) for split in splits.values())
  return data


def test_their_pairs_are_whole_but_for_age_and_sex(
  prepared, chain, stage_config, tmp_path
):
  latents = tmp_path / "latents"
  encode_with(prepared, chain / "vae", latents)
  config = stage_config("stage1", data=str(prepared), latents=str(latents))
  data = base_extractor.load_data(config)
  batches = base_extractor.batches(config, data, 0, 0, 1)
  batch = next(batches)
  batches.close()
  patients = [batch.pop(key) for key in ("patient", "reference_patient")]
  assert all(np.isfinite(rows).all() for rows in batch.values())
  missing = np.isnan(patients)
  assert not missing[..., 0].any()
  np.testing.assert_array_equal(missing[..., 1], missing[..., 2])
  assert missing.any() and not missing[..., 1].all()


def assert_measured(autoencoder, extractor, denoiser):
  """Each evaluation has looked at held-out patients, and its parts add up."""
  assert np.isfinite(autoencoder["correlation"])
  assert extractor["patients"] >= 2
  assert np.isfinite(extractor["top1"])
  assert denoiser["pairs"] >= 2
  channels = [denoiser[f"mse_channel_{i}"] for i in range(8)]
  np.testing.assert_allclose(np.mean(channels), denoiser["mse"], rtol=1e-5)
  assert 0 < denoiser["mse_unpredictable"] < 1


def test_every_stage_of_the_chain_is_measured_on_held_out_patients(chain):
  found = []
  for name in ("vae", "stage1", "stage2"):
    last = metric_writer.read_metrics(runs.whole(chain, name))[4]
    found.append({k.removeprefix("validation/"): v for k, v in last.items()})
  assert_measured(*found)


@pytest.mark.slow  # the chain and the batch above are the cheap proof
def test_every_stage_trains_and_is_measured_on_held_out_patients(
  prepared, stage_config, tmp_path
):
  data, latents = prepared, tmp_path / "latents"
  paths = {"data": str(data), "latents": str(latents)}
  paths["vae"] = str(tmp_path / "vae")
  autoencoder = train.train(
    stage_config("vae", data=paths["data"]), paths["vae"]
  )
  encode_with(data, paths["vae"], latents)
  paths["base_extractor"] = str(tmp_path / "stage1")
  first = {k: v for k, v in paths.items() if k != "base_extractor"}
  extractor = train.train(
    stage_config("stage1", **first), paths["base_extractor"]
  )
  denoiser = train.train(stage_config("stage2", **paths), tmp_path / "stage2")
  assert_measured(autoencoder, extractor, denoiser)
