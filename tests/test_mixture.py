"""Several data sets in one training: shares, patients, tables, resume."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from data_prep import simulated
from data_prep.encode import encode_with
from ecgtwin_jax.data import mixture, pipeline
from ecgtwin_jax.data.dataset import load_split
from ecgtwin_jax.jobs import train as train_job
from ecgtwin_jax.stages import splits
from ecgtwin_jax.training import train
from helpers import runs
from helpers.datasets import make_dataset

SHARES = (0.5, 0.3, 0.2)


@pytest.fixture(scope="module")
def small(chain, tmp_path_factory):
  """Folders: another, smaller cohort's ECGs and their latents."""
  folder = tmp_path_factory.mktemp("small")
  ecgs, latents = folder / "ecgs", folder / "latents"
  simulated.prepare(ecgs, patients=16, recordings=2, seed=9)
  encode_with(ecgs, chain / "vae", latents)
  return ecgs, latents


def mix(kind, shares=SHARES):
  """Three data sets of 61, 23 and 17 recordings, whose patients share names."""
  loaded, parts = [], []
  for k, (share, size) in enumerate(zip(shares, (61, 23, 17))):
    data = make_dataset(kind, size, 7, seed=k)
    data.card["fingerprint"] = f"print{k}"
    data.card["name"] = f"name{k}"
    # Latents that tell the data set.
    for name in data.arrays:
      data.arrays[name] = data.arrays[name] * 0 + np.int8(k)
    # A latent without spread has no scale: one value of another kind.
    if kind == "latent":
      data.arrays["mean"][0] = -1
    loaded.append(data)
    parts.append(mixture.Part(f"folder{k}", share))
  return mixture.join(loaded, tuple(parts))


def test_what_names_several_data_sets(tmp_path):
  parse = mixture.parse_parts
  assert parse("a/b") == (("a/b", None),)
  assert parse("a, b") == parse(("a", "b")) == (("a", None), ("b", None))
  assert parse("a:2,b:0.5") == (("a", 2.0), ("b", 0.5))
  assert parse("C:/a") == (("C:/a", None),)
  odd = tmp_path / "one,two:3"
  odd.mkdir()
  (odd / "card.json").write_text("{}")
  assert parse(str(odd)) == ((str(odd), None),)
  for text, message in {
    "a:1,b": "all have a share",
    "a:0,b:1": "share '0' of 'a' must be above 0",
    "a:nan,b:1": "must be above 0",
    "a,a": "must differ",
    "a,": "must name a folder",
    "": "must name a folder",
  }.items():
    with pytest.raises(ValueError, match=message):
      parse(text)


def take(name, dataset, count, **options):
  """The first batches of 24, of recordings or of pairs uniform over `name`."""
  if name == "ecgs":
    batches = pipeline.ecg_batches(dataset, 24, 5, **options)
  else:
    options["uniform_over"] = name
    batches = pipeline.pair_batches(dataset, 24, 5, **options)
  taken = [next(batches) for _ in range(count)]
  batches.close()
  return taken


@pytest.mark.parametrize("name", ["ecgs", "pairs", "patients"])
def test_shares_epochs_and_processes(name):
  data = mix("ecg" if name == "ecgs" else "latent")
  batches = take(name, data, 40)
  owner = np.stack([data.mixed.part[batch["index"]] for batch in batches])
  for k, share in enumerate(SHARES):
    counts = (owner == k).sum(axis=1)
    assert np.abs(counts - 24 * share).max() < 2
    assert abs(counts.sum() - owner.size * share) < 2
    # Each data set goes through its epochs.
    if name == "ecgs":
      rows = np.concatenate([batch["index"] for batch in batches])
      own = rows[data.mixed.part[rows] == k]
      size = (data.mixed.part == k).sum()
      assert len(set(own[:size].tolist())) == size
  if name != "ecgs":
    for batch in batches:
      both = data.mixed.part[[batch["index"], batch["reference_index"]]]
      assert (both[0] == both[1]).all()
  # From the middle, and cut into four: the same batches.
  later = [
    take(name, data, 9, start_step=31, process_index=p, process_count=4)
    for p in range(4)
  ]
  for step in range(9):
    joined = np.concatenate([later[p][step]["index"] for p in range(4)])
    np.testing.assert_array_equal(joined, batches[31 + step]["index"])


def test_without_shares_every_recording_counts_alike():
  data = mix("ecg", (None, None, None))
  rows = np.concatenate([b["index"] for b in take("ecgs", data, 9)])
  assert sorted(rows[: len(data)]) == list(range(61 + 23 + 17))
  assert len(np.unique(data.patient_id)) == len(np.unique(data.patient_number))
  assert len(np.unique(data.patient_number)) > 14  # of seven names


def test_a_data_set_with_a_share_and_without_pairs_is_named():
  data = mix("latent")
  alone = data.mixed.part != 1
  alone[np.flatnonzero(data.mixed.part == 1)[0]] = True
  with pytest.raises(ValueError, match=r"'folder1' has a share .* no pairs"):
    take("pairs", data.select(alone), 1)


def test_two_cohorts_are_one_data_set(chain, small, tmp_path):
  first = tmp_path / "first"  # a copy: it gets a folder `mapped`
  shutil.copytree(chain / "simulated", first)
  given = f"{first}:3,{small[0]}:1"
  data = mixture.load_mixture(given, "train", kind="ecg")
  parts = [load_split(f, "train") for f in mixture.folders(given)]
  assert len(data) == sum(map(len, parts))
  for row in (0, len(parts[0]) - 1, len(parts[0]), len(data) - 1):
    k, own = divmod(row, len(parts[0])) if row < len(parts[0]) else (1, 0)
    own = row - k * len(parts[0])
    part = parts[k]
    texts = [
      [table.table.statements[i] for i in ids[ids >= 0]]
      for table, ids in (
        (data, data.statement_ids[row]),
        (part, part.statement_ids[own]),
      )
    ]
    assert texts[0] == texts[1] and texts[0]
    assert data.record_id[row].endswith(f"/{part.record_id[own]}")
    assert data.heart_rate[row] == part.heart_rate[own]
    np.testing.assert_array_equal(
      data.arrays["ecg"][row], part.arrays["ecg"][own]
    )
  ids, table = data.statement_ids, data.table
  assert len(set(table.statements)) == len(table) and ids.max() < len(table)
  # Patients of both are numbered from 0: they are two, and so are their pairs.
  assert len(data.pairs) == sum(len(part.pairs) for part in parts)
  mapped = mixture.load_mixture(given, "train", memory_limit=0)
  rows = np.arange(len(data))[::-3]
  for batch in (pipeline.gather_ecgs(d, rows)["ecg"] for d in (data, mapped)):
    np.testing.assert_array_equal(
      batch, data.arrays["ecg"][rows] * np.float32(data.card["scale"])
    )
  assert [part["licence"] for part in data.card["parts"]][1] == (
    "simulated: of no person"
  )


def test_what_does_not_fit_is_refused(chain, small, tmp_path):
  with pytest.raises(ValueError, match="differ in kind"):
    mixture.load_mixture(f"{small[0]},{small[1]}", "train")
  copy = tmp_path / "copy"
  shutil.copytree(small[1], copy)
  with pytest.raises(ValueError, match="the same recordings"):
    mixture.load_mixture(f"{small[1]},{copy}", "train")
  card = json.loads((copy / "card.json").read_text())
  (copy / "card.json").write_text(json.dumps(card | {"vae": "another"}))
  with pytest.raises(ValueError, match=r"differ in vae.*encode them again"):
    mixture.load_mixture(f"{chain}/latents,{copy}", "train")
  table = json.loads((copy / "statements.json").read_text())
  (copy / "card.json").write_text(json.dumps(card))
  text = json.dumps(table | {"encoder": "nomic"})
  (copy / "statements.json").write_text(text)
  with pytest.raises(ValueError, match="with the same --encoder"):
    mixture.load_mixture(f"{chain}/latents,{copy}", "train")


def test_recordings_without_a_report_are_skipped_and_counted(small, capsys):
  data = splits.load_splits(str(small[1]), "latent")
  ids = data.train.statement_ids.copy()
  ids[:5] = -1
  less = dataclasses.replace(data.train, statement_ids=ids)
  kept = splits.skip_unreported(splits.Splits(less, data.validation))
  assert len(kept.train) == len(data.train) - 5
  np.testing.assert_array_equal(kept.train.record_id, data.train.record_id[5:])
  assert kept.validation is data.validation
  assert f"train: 5 of {len(less)} recordings have no report" in (
    capsys.readouterr().out
  )


@pytest.mark.slow
def test_exact_resume_and_what_the_run_says(
  chain, small, stage_config, tmp_path
):
  given = f"{chain}/latents:2,{small[1]}:1"
  config = stage_config("stage1", latents=given)
  train.train(config, tmp_path / "whole")
  train.train(
    stage_config("stage1", latents=given, stop_at=2), tmp_path / "two"
  )
  train.train(config, tmp_path / "two")
  runs.assert_same(tmp_path / "whole", tmp_path / "two")
  saved = json.loads((tmp_path / "whole" / "config.json").read_text())
  assert [p["share"] for p in saved["data_sets"]] == [2.0, 1.0]
  assert saved["data_sets"][1]["licence"] == "simulated: of no person"
  other = stage_config("stage1", latents=f"{chain}/latents:1,{small[1]}:1")
  with pytest.raises(ValueError, match=r"fingerprint|other data"):
    train.train(other, tmp_path / "two")


def test_scale_and_what_the_card_says(chain, small):
  # Other shares leave the latents' scale: the denoiser may mix differently.
  given = f"{chain}/latents:2,{small[1]}:1"
  scales = [
    splits.load_splits(text, "latent").train.card["latent_scale"]
    for text in (given, f"{chain}/latents,{small[1]}")
  ]
  assert scales[0] == scales[1]
  data = mixture.load_mixture(given, "train").arrays
  draws = data["mean"].astype(float)
  std = np.sqrt(draws.var((0, 1)) + np.square(data["std"]).mean((0, 1)))
  np.testing.assert_allclose(scales[0], 1 / std, rtol=0.02)
  card = train_job.describe_data(given)
  assert f"| {small[1]} | 1 | simulated: of no person |" in card
