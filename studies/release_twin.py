"""Makes the twin that comes with the package, with what was measured of it.

  python -m ecgtwin_jax.main --config=configs/stage2.py:small
  python -m ecgtwin_jax.main --config=configs/evaluate.py \\
    --config.twin=runs/small/stage2/twin --config.levels="('privacy',)" \\
    --workdir=runs/small/privacy
  python -m data_prep simulated --patients 200 --seed 4177 --output runs/unseen
  python -m ecgtwin_jax.main --config=configs/evaluate.py \\
    --config.twin=runs/small/stage2/twin --config.data=runs/unseen \\
    --config.splits="('train', 'validation', 'test')" \\
    --workdir=runs/small/evaluated
  python -m studies.release_twin --twin=runs/small/stage2/twin \\
    --evaluation=runs/small/evaluated --privacy=runs/small/privacy \\
    --note="Trained on 4 CPU cores." --sampling='{"person_guidance": 1.5}'

Writes the weights in half precision and a model card whose figures are read
from the evaluation's metrics.json. Its own guidance and temperature, where
given, take the place of those that it was trained with. The level of privacy
needs the training's own cohort; the others, one of which nothing was chosen.
"""

import argparse
import json
import pathlib
import textwrap

import numpy as np

from ecgtwin_jax.evaluation.metric import Metric
from ecgtwin_jax.evaluation.report import cells_of, from_json
from ecgtwin_jax.inference import twin_directory

LIMIT = 12_000_000  # bytes
# What the card shows, beside every criterion.
SHOWN = (
  "fid fid_real fid_decoded rfid precision recall amplitude_ratio "
  "heart_rate_mae_bpm heart_rate_mae_bpm_real heart_rate_slope "
  "heart_rate_failed_share criteria_index criteria_index_decoded clip_score "
  "clip_score_real rclip report_top1 report_top1_real auroc_generated_mean "
  "auroc_real_mean limb_lead_error_uv measurements_failed_share "
  "beat_spread_sinus_uv rr_spread_sinus_ms rr_spread_fibrillation_ms "
  "base_similarity base_similarity_real base_beat_r2 identity_top1_share "
  "identity_top1_share_real_second identity_top1_share_real_second_decoded "
  "identity_equal_error_rate truth_score truth_score_decoded "
  "pr_error_ms qrs_error_ms qt_error_ms t_amplitude_error_mv axis_error_deg "
  "power_spectrum_distance_db counterfactual_beat_mv "
  "counterfactual_beat_nearer_than_reference_share privacy_replay_share"
).split()
LICENCES = """The real recordings are a twentieth of PTB-XL 1.0.3 (P. Wagner,
N. Strodthoff, R.-D. Bousseljot, W. Samek, T. Schaeffter, PhysioNet 2022,
<https://doi.org/10.13026/kfzx-aw45>; Wagner et al. 2020, Scientific Data 7,
154), licensed under the Creative Commons Attribution 4.0 International licence
(<https://creativecommons.org/licenses/by/4.0/>), and recordings that were
marked acceptable in set A of the PhysioNet/Computing in Cardiology Challenge
2011 (I. Silva, G. B. Moody, L. Celi 2011, Computing in Cardiology 38:273-276;
<https://physionet.org/content/challenge-2011/1.0.0/>), licensed under the Open
Data Commons Attribution License 1.0
(<https://opendatacommons.org/licenses/by/1-0/>): resampled, and learned
from."""
CARD = """# simulated-small

An ECG digital twin whose denoiser was trained on simulated patients alone, so
that what it does can be compared with a known truth. It comes with
ECGTwin-JAX: `ecgtwin_jax.ECGTwin.from_pretrained("simulated-small")`.

## Data, licence and training

Denoiser: {patients:,} simulated patients with {recordings} recordings each
(simulator version {version}, seed {seed}; split by patient 8:1:1), whom the
extractor has not met, statements embedded by `{encoder}`. Autoencoder and
rhythm model have met recordings of PTB-XL, too. One command trains all parts,
`python -m studies.train_shipped`.
{note}

{licences}

| part | parameters |
|---|---|
{parts}

Stored in half precision. Unless asked otherwise it samples with
{sampling}, chosen on validation patients.

## Statements

{statements}.
Case does not matter, abbreviations and other wordings of the same are read as
these.

## Measured

On {unseen} simulated patients of another cohort (seed {cohort}), of whom
nothing was trained or chosen, up to {conditions} target conditions each,
sampling seed {evaluation_seed}; privacy on held-out patients of the training's
own cohort; 95% intervals by bootstrap over patients; the evaluators were
trained on other simulated patients. The arrow says where better lies. The
baseline is the same figure where nothing of the kind was learned, the
reference that of real ECGs; the note says which. Measured with the weights as
trained, before they were rounded to half precision.

| measure | | value | 95% interval | baseline | reference | N | note |
|---|---|---|---|---|---|---|---|
{rows}

All figures: `python -m ecgtwin_jax.main --config=configs/evaluate.py`.

## Intended use and limits

For teaching, for tests, and for studies where the truth must be known. The
simulator is a test context with a known truth, no model of disease: nothing
here is a finding about hearts. Not for clinical use; generated ECGs are
synthetic and must not be used for diagnosis or treatment. For recorded ECGs
take `real-small`: on them this twin is out of its depth.
"""


REAL_CARD = """# real-small

An ECG digital twin trained on simulated patients and on real recordings. It
comes with ECGTwin-JAX: `ecgtwin_jax.ECGTwin.from_pretrained("real-small")`.

## Data, licence and training

Autoencoder: simulated recordings (10,000 patients, seed 77) and real ones of
1,120 patients of PTB-XL and 575 without a report. Base extractor: simulated
pairs (16,000 patients, seeds 0 and 7) and, a quarter of each batch, the 1,120
recordings of PTB-XL, each a pair with itself (`config.own_recordings`). Rhythm
model: simulated ones and PTB-XL. Denoiser: pairs of simulated patients whom the
extractor has not met (10,000, seed 912, in its last steps 4,000 of them) and,
as many in each batch, the 1,120 real recordings, each its own reference, with
statements embedded by `{encoder}`.
One command, `python -m studies.train_shipped`, trains such a twin; the goes in
which this one was trained stand in studies/RESULTS.md.
Simulated patients and the evaluators below are those of version 1 of the
simulator.
{note}

{licences}

| part | parameters |
|---|---|
{parts}

Stored in half precision. Unless asked otherwise it samples with
{sampling}, chosen on validation patients.

## Statements

{statements}.

## Measured

On the 31 patients of PTB-XL with several recordings that are the half `test`
(`--config.half=test`), of whom nothing was trained or chosen: this twin has
looked at them once, those before it four times; privacy on the same, beside
the real recordings of the training; up to {conditions} target conditions each,
sampling seed {evaluation_seed}; 95% intervals, which are wide, by bootstrap
over patients; the evaluators were trained on simulated patients. Weights as
trained, before they were rounded to half precision.

| measure | | value | 95% interval | baseline | reference | N | note |
|---|---|---|---|---|---|---|---|
{rows}

## Intended use and limits

For research on how such twins are trained and judged. A twentieth of PTB-XL
and 31 patients are no finding about hearts. Not for clinical use; generated
ECGs are synthetic and must not be used for diagnosis or treatment.
"""
CARDS = {"simulated-small": CARD, "real-small": REAL_CARD}


def make_card(
  evaluation: pathlib.Path,
  privacy: pathlib.Path,
  weights: dict,
  note: str,
  statements: tuple[str, ...],
  text: str = CARD,
) -> str:
  """The model card, its figures read from the evaluations."""
  metrics = [
    metric
    for folder, is_privacy in ((evaluation, False), (privacy, True))
    for metric in read_metrics(folder)
    if (metric.level == "privacy") == is_privacy
  ]
  what = json.loads((evaluation / "evaluated.json").read_text())
  rows = [
    f"| {' | '.join(cells_of(m))} |"
    for m in metrics
    if np.isfinite(m.value)
    and (m.name in SHOWN or m.name.startswith("criterion_"))
  ]
  own = weights["denoiser"][0].get("sampling", {})
  parts = [
    f"| {part} | {sum(x.size for x in _leaves(variables['params'])):,} |"
    for part, (_, variables) in weights.items()
  ]
  trained = json.loads((privacy / "evaluated.json").read_text())
  options = trained["data_options"]
  return text.format(
    **options,
    licences=LICENCES,
    encoder=options["statement_encoder"],
    note="\n".join(textwrap.wrap(note, 80)),
    sampling=", ".join(f"`{name}={value}`" for name, value in own.items())
    or "guidance and temperature of 1",
    statements=list_statements(statements),
    parts="\n".join(parts),
    rows="\n".join(rows),
    unseen=what["patients"],
    conditions=what["conditions"],
    evaluation_seed=what["seed"],
    cohort=what["data_options"].get("seed"),
  )


def read_metrics(folder: pathlib.Path) -> list[Metric]:
  """The figures of an evaluation."""
  read = json.loads((folder / "metrics.json").read_text())["metrics"]
  return [from_json(entry) for entry in read]


def list_statements(statements: tuple[str, ...]) -> str:
  """The statements as lines of a card, each in quotes."""
  names = ", ".join(f"“{statement}”" for statement in statements)
  return "\n".join(textwrap.wrap(names, 80))


def _leaves(tree):
  for value in tree.values():
    if isinstance(value, dict):
      yield from _leaves(value)
    else:
      yield value


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--twin", required=True)
  parser.add_argument("--evaluation", required=True, help="its workdir")
  parser.add_argument("--privacy", required=True, help="likewise, of the level")
  parser.add_argument("--sampling", type=json.loads, help="a JSON object")
  parser.add_argument("--note", default="", help="hardware and time")
  parser.add_argument(
    "--output", default=str(twin_directory.shipped("simulated-small"))
  )
  arguments = parser.parse_args()
  weights = {
    part: twin_directory.read_part(arguments.twin, part)
    for part in twin_directory.parts(arguments.twin)
  }
  output = pathlib.Path(arguments.output)
  if output.name not in CARDS:
    raise ValueError(f"{arguments.output!r} must end with one of {set(CARDS)}")
  if arguments.sampling:
    weights["denoiser"][0]["sampling"] = arguments.sampling
  table = twin_directory.read_table(arguments.twin)
  card = make_card(
    pathlib.Path(arguments.evaluation),
    pathlib.Path(arguments.privacy),
    weights,
    arguments.note,
    table.statements,
    CARDS[output.name],
  )
  twin_directory.write_twin(
    output,
    weights,
    sources=dict.fromkeys(weights, "configs/*.py:small"),
    card=card,
    table=table,
    dtype=np.float16,
  )
  size = sum(path.stat().st_size for path in output.iterdir())
  if size > LIMIT:
    raise ValueError(f"{output}: {size=} bytes must be at most {LIMIT}")
  print(f"{output}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
  main()
