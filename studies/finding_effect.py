"""How much of what a finding does to simulated beats it does to real ones.

  python -m studies.finding_effect --base_extractor=RUN \\
    --simulated=LATENTS --real=LATENTS

Takes recordings without the finding, nor fibrillation, pacing, premature
ventricular beats or a block: of the split `test` of simulated patients and of
the split `validation` of real ones. Foretells each one's median beat under its
own condition and under that with the finding added. The mean difference of the
simulated beats is the finding's effect; the table says how much of it, by
projection, real beats get: 1 as much, 0 nothing.
"""

import argparse
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from ecgtwin_jax.data.dataset import Dataset, load_split
from ecgtwin_jax.models.base_extractor import BaseExtractor
from ecgtwin_jax.text.findings import finding
from ecgtwin_jax.text.statements import get_encoder
from studies.next_beat import load_extractor

FINDINGS = {
  "right_bundle_branch_block": "Right bundle branch block",
  "left_bundle_branch_block": "Left bundle branch block",
  "first_degree_av_block": "1st degree A-V block",
  "left_ventricular_hypertrophy": "Left ventricular hypertrophy",
}
_LEFT_OUT = (
  *FINDINGS,
  "incomplete_right_bundle_branch_block",
  "intraventricular_delay",
  "atrial_fibrillation",
  "atrial_flutter",
  "pacing",
  "ventricular_premature",
)


def reports_of(data: Dataset, count: int) -> dict[int, list[str]]:
  """{row: statements} of the first rows without any of those left out."""
  reports = {}
  for row in range(len(data)):
    ids = data.statement_ids[row]
    report = [data.table.statements[i] for i in ids[ids >= 0]]
    if data.arrays["median_beat_found"][row] and not any(
      finding(name, report) for name in _LEFT_OUT
    ):
      reports[row] = report
    if len(reports) == count:
      break
  return reports


def effects(
  hyper: dict, variables: dict, data: Dataset, count: int
) -> dict[str, Float[np.ndarray, "n 960"]]:
  """{finding: what it adds to each recording's foretold beat, in mV}.

  Args:
    hyper: hyper-parameters of an extractor that foretells beats.
    variables: its weights.
    data: latents, with beats.
    count: recordings, at most.

  Raises:
    ValueError: every recording has one of what is left out, or no median beat.
  """
  module = BaseExtractor(**hyper["model"])
  reports = reports_of(data, count)
  if not reports:
    raise ValueError(
      f"0 of {len(data)} recordings of {data.card['name']!r} have a median beat"
      f" and none of {', '.join(_LEFT_OUT)}: one at least is needed"
    )
  rows, encoder = list(reports), get_encoder(data.table.encoder)

  def condition(more: Iterable[str] = ()):
    told = [[*report, *more] for report in reports.values()]
    mask = np.arange(max(map(len, told))) < np.array([[len(x)] for x in told])
    vectors = np.zeros((*mask.shape, encoder.width), np.float32)
    vectors[mask] = encoder.embed([one for report in told for one in report])
    return vectors, mask, data.patient[rows]

  scale = np.asarray(hyper["latent_scale"], np.float32).reshape(1, 1, -1)
  base = module.apply(
    variables,
    data.arrays["mean"][rows].astype(np.float32) * scale,
    *condition(),
    median_beat=data.arrays["median_beat"][rows].astype(np.float32),
    median_beat_found=data.arrays["median_beat_found"][rows],
  )

  def foretell(*more):
    beat = module.apply(
      variables, base, *condition(more), method="predict_beat"
    )
    return np.asarray(beat, np.float64).reshape(len(rows), -1)

  plain = foretell()
  return {name: foretell(word) - plain for name, word in FINDINGS.items()}


def share_on_real(
  base_extractor: str, simulated: Dataset, real: Dataset, count: int = 60
) -> dict[str, Float[np.ndarray, " n"]]:
  """{finding: of each real recording, the share of the simulated effect}.

  Args:
    base_extractor: a run, a checkpoint of it or a twin directory.
    simulated: latents of simulated patients, whose mean effect is 1.
    real: latents of real ones.
    count: recordings of each, at most.

  Raises:
    ValueError: the extractor foretells no beats, latents are of another
      autoencoder, or every recording of one of them has what is left out.
  """
  hyper, params = load_extractor(base_extractor, (simulated, real))
  of_simulated, of_real = (
    effects(hyper, {"params": params}, data, count)
    for data in (simulated, real)
  )
  shares = {}
  for name, each in of_real.items():
    whole = of_simulated[name].mean(axis=0)
    shares[name] = each @ whole / (whole @ whole)
  return shares


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  for name in ("base_extractor", "simulated", "real"):
    parser.add_argument(f"--{name}", required=True)
  arguments = parser.parse_args()
  shares = share_on_real(
    arguments.base_extractor,
    load_split(arguments.simulated, "test", kind="latent"),
    load_split(arguments.real, "validation", kind="latent"),
  )
  print(
    "| finding | share of the simulated effect, mean (sd) | N |\n|---|---|---|"
  )
  for name, each in shares.items():
    print(f"| {name} | {each.mean():.2f} ({each.std():.2f}) | {len(each)} |")


if __name__ == "__main__":
  main()
