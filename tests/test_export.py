"""An exported twin: the same ECGs in a process that lacks this package."""

import concurrent.futures
import itertools
import multiprocessing
import os
import pathlib
import re
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import ecgtwin_jax as et
from ecgtwin_jax.beats.rhythm import KINDS, MAX_BEATS, Rhythm
from ecgtwin_jax.inference import export, rhythms
from ecgtwin_jax.inference.ecgtwin_loader import Twin

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "generating.md"
NOW = et.Condition(["Sinus rhythm", "Right bundle branch block"], 82, 81, "F")
THEN = et.Condition(["Sinus rhythm", "Ventricular premature complex"], 80)
FRESH = """
import sys
import warnings
for name in ("ecgtwin_jax", "flax", "jaxtyping", "tqdm", "wfdb"):
  sys.modules[name] = None
import numpy as np
from ecgtwin_loader import Twin
twin = Twin()
given = np.load(sys.argv[1])
now, then = list(given["now"]), list(given["then"])
base = twin.extract(given["signal"], now, 82, age=81, sex="F")
few = twin.generate(base, then, 80, count=8, seed=3)
more = twin.generate(base, then, 80, count=3, noise=given["noise"])
with warnings.catch_warnings(record=True) as said:
  alone = twin.generate(base, then[1:], 80, count=8, seed=3)
np.testing.assert_array_equal(alone, few)
said = [str(one.message) for one in said]
names = {"signal": given["signal"]}
exec(str(given["session"]), names)
assert names["ecgs"].shape == (8, 1024, 12)
np.savez(sys.argv[2], base=base, few=few, more=more, said=said)
"""


def exported_and_here(twin, folder, **settings):
  """What a fresh process makes of an export, and what the twin itself makes."""
  twin.export(folder / "twin", **settings)
  ecg = et.example_ecg()
  rng = np.random.default_rng(0)
  channels = twin.hyper["denoiser"]["model"]["latent_channels"]
  noise = rng.standard_normal((3, 128, channels)).astype(np.float32)
  np.savez(
    folder / "given.npz",
    signal=ecg.signal,
    now=NOW.statements,
    then=THEN.statements,
    noise=noise,
    session="\n".join(re.findall(r"^>>> (.*)$", PAGE.read_text(), re.M)),
  )
  subprocess.run(
    [sys.executable, "-c", FRESH, folder / "given.npz", folder / "made.npz"],
    cwd=folder,
    env=os.environ | {"PYTHONPATH": str(folder / "twin")},
    check=True,
  )
  base = twin.extract_base(ecg, NOW)
  few = twin.generate(base, THEN, num_samples=8, seed=3, **settings)
  more = twin.generate(base, THEN, num_samples=3, noise=noise, **settings)
  here = [base, *(np.stack([e.signal for e in x.ecgs]) for x in (few, more))]
  made = np.load(folder / "made.npz")
  (said,) = made["said"]
  assert said.startswith("no statement says which rhythm the ECGs shall have")
  return [made[name] for name in ("base", "few", "more")], here


@pytest.fixture(scope="module")
def both(chain, tmp_path_factory):
  twin = et.ECGTwin.from_checkpoint(chain / "stage2" / "twin")
  folder = tmp_path_factory.mktemp("export")
  settings = dict(sampler="sde-dpm++", steps=3, consistent_leads=True)
  settings |= dict(person_guidance=1.5, statement_guidance=1.2, temperature=0.9)
  settings |= dict(shape_temperature=0.3)
  return folder / "twin", *exported_and_here(twin, folder, **settings)


def test_a_fresh_process_without_the_package_makes_the_same_ecgs(both):
  _, there, here = both
  assert here[1].shape == (8, 1024, 12) and here[2].shape == (3, 1024, 12)
  for one, other in zip(there, here, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-4)
  assert np.abs(here[1][:3] - here[2]).max() > 1e-2


def test_a_file_that_was_tampered_with_is_refused(both, tmp_path):
  folder = shutil.copytree(both[0], tmp_path / "twin")
  data = bytearray((folder / "decode.jax_export").read_bytes())
  data[len(data) // 2] ^= 1
  (folder / "decode.jax_export").write_bytes(data)
  with pytest.raises(ValueError, match=r"^\S*decode\.jax_export is not as "):
    Twin(folder)


def test_a_report_without_a_rhythm_is_given_the_one_that_the_twin_takes(
  both, chain
):
  twin = et.ECGTwin.from_checkpoint(chain / "stage2" / "twin")
  loaded = Twin(both[0])
  pairs = list(itertools.combinations(twin.statements, 2))
  reports = [*pairs, *((text,) for text in twin.statements)]
  changed = set()
  for report, rate in itertools.product(reports, (45, 60, 150)):
    stated = loaded.state_rhythm(list(report), rate)
    expected = twin.state_rhythm(et.Condition(report, rate)).statements
    assert tuple(stated) == expected, report
    changed.add(len(stated) - len(report))
  assert changed == {0, 1}
  with pytest.raises(ValueError, match=r"\['nothing'\] must be 1..18"):
    loaded.state_rhythm(["nothing"], 60)


def test_another_folder_is_left_alone_and_an_export_replaced(chain, tmp_path):
  twin = et.ECGTwin.from_checkpoint(chain / "stage2" / "twin")
  (tmp_path / "letter.txt").write_text("dear")
  with pytest.raises(ValueError, match="is not empty and no exported twin"):
    twin.export(tmp_path)
  with pytest.raises(ValueError, match="person_guidance"):
    twin.export(tmp_path / "new", person_guidance=float("nan"))
  assert [x.name for x in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("kind", ["pvc", "pac"])
def test_a_stated_premature_beat_comes_where_the_package_puts_it(kind):
  statement = {"pvc": "Ventricular premature complex"}.get(
    kind, "Atrial premature complex"
  )
  rng = np.random.default_rng(1)
  rows = []
  for count in (2, 3, 9, 20):
    time = np.full(MAX_BEATS, np.nan, np.float32)
    time[:count] = np.sort(rng.uniform(0.1, 9.9, count))
    kinds = np.where(np.isnan(time), -1, 0).astype(np.int8)
    rows.append(Rhythm(time, kinds, kinds + 0))
  rows.append(rows[-1]._replace(kind=rows[-1].kind + 0))
  rows[-1].kind[4] = KINDS.index(kind)  # has one
  shown = et.Condition([statement], 75)
  expected = [rhythms.as_stated(row, shown) for row in rows]
  columns = tuple(jnp.asarray(np.stack(column)) for column in zip(*rows))
  stated, rate = jnp.ones(len(rows), bool), jnp.full(len(rows), 75.0)
  got = export.as_stated(columns, KINDS.index(kind), stated, rate)
  for column, want in zip(got, zip(*expected), strict=True):
    np.testing.assert_allclose(column, np.stack(want), atol=1e-6)
  same = export.as_stated(columns, KINDS.index(kind), ~stated, rate)
  np.testing.assert_array_equal(same[1], columns[1])


def shipped_and_here(folder):
  return exported_and_here(
    et.ECGTwin.from_pretrained("simulated-small"), folder
  )


@pytest.mark.slow
def test_the_shipped_twin_travels(tmp_path, monkeypatch):
  # As users run it: two programs that nobody optimizes round further apart.
  for name in ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS"):
    monkeypatch.delenv(name)
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
    there, here = pool.submit(shipped_and_here, tmp_path).result()
  for one, other in zip(there, here, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-4)
