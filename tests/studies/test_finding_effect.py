"""What a finding does to foretold beats: known answers, and a small run."""

import dataclasses
import sys

import numpy as np
import pytest

from ecgtwin_jax.models.base_extractor import BaseExtractor
from studies import finding_effect


def test_shares_are_projections(monkeypatch):
  simulated, real = object(), object()
  rng = np.random.default_rng(0)
  whole = rng.standard_normal(960)
  other = rng.standard_normal(960)
  other -= (other @ whole) / (whole @ whole) * whole

  def effects(hyper, variables, data, count):
    del hyper, variables, count
    if data is simulated:
      return {"lvh": np.stack([0.5 * whole, 1.5 * whole])}
    return {"lvh": np.stack([0.25 * whole + other, -whole])}

  monkeypatch.setattr(finding_effect, "effects", effects)
  monkeypatch.setattr(finding_effect, "load_extractor", lambda *_: ({}, {}))
  shares = finding_effect.share_on_real("twin", simulated, real)
  np.testing.assert_allclose(shares["lvh"], [0.25, -1])


def test_each_finding_is_added_alone(chain, monkeypatch, capsys):
  asked = []
  apply = BaseExtractor.apply

  def watched(self, variables, base, *given, method=None, **options):
    out = apply(self, variables, base, *given, method=method, **options)
    if method == "predict_beat":
      asked.append(given[1].sum(axis=1))
    return out

  monkeypatch.setattr(BaseExtractor, "apply", watched)
  latents = chain / "latents"
  flags = [f"--base_extractor={chain / 'stage2' / 'twin'}"]
  flags += [f"--simulated={latents}", f"--real={latents}"]
  monkeypatch.setattr(sys, "argv", ["finding_effect", *flags])
  finding_effect.main()
  rows = capsys.readouterr().out.splitlines()[2:]
  assert [row.split(" | ")[0][2:] for row in rows] == [*finding_effect.FINDINGS]
  counts = {int(row.split(" | ")[2].rstrip(" |")) for row in rows}
  assert len(counts) == 1 and counts.pop() > 0
  # Of each set of recordings first as they are, then with each finding.
  for plain, *added in (asked[:5], asked[5:]):
    assert len(added) == 4
    for one in added:
      np.testing.assert_array_equal(one, plain + 1)


@pytest.mark.parametrize("split", ["test", "validation"])
def test_whose_report_is_free_of_them(chain, split):
  data = finding_effect.load_split(chain / "latents", split, kind="latent")
  reports = finding_effect.reports_of(data, 1000)
  assert 0 < len(reports) < len(data)
  said = " ".join(one for report in reports.values() for one in report)
  for word in (
    "bundle branch",
    "fibrillation",
    "pacing",
    "Ventricular",
    "hypertrophy",
  ):
    assert word not in said


def test_recordings_that_all_have_something_are_refused(chain, monkeypatch):
  data = finding_effect.load_split(chain / "latents", "test", kind="latent")
  monkeypatch.setattr(finding_effect, "finding", lambda *_: 1)
  hyper = {"model": {}}
  with pytest.raises(ValueError, match=f"0 of {len(data)} recordings of"):
    finding_effect.effects(hyper, {}, data, 5)


def test_latents_of_another_autoencoder_are_refused(chain):
  own = finding_effect.load_split(chain / "latents", "test", kind="latent")
  card = own.card | {"vae": "0123456789abcdef"}
  other = dataclasses.replace(own, card=card)
  twin = str(chain / "stage2" / "twin")
  for given in ((own, other), (other, own)):
    with pytest.raises(ValueError, match="autoencoder 0123456789ab, but"):
      finding_effect.share_on_real(twin, *given)
