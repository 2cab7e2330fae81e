"""How near what an extractor foretells comes to a patient's next real beat.

  python -m studies.next_beat --base_extractor=RUN --latents=LATENTS

Takes the recordings of patients with several, of one half of them (as
`config.half` of configs/evaluate.py has it), and foretells the median beat of
each recording under its own condition, and from each that of every other one of
the patient. Latents are of the autoencoder that the extractor was trained with.
The unchanged reference stands beside it, and the reference to which is added
what is foretold to change from its own condition to the target's; a second
table says whether that is what changes. What a twin draws follows the foretold
beat, so that an extractor can be judged before a denoiser is trained on it.
"""

import argparse
from collections.abc import Iterable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Shaped

from ecgtwin_jax.constants import LEADS
from ecgtwin_jax.data.dataset import SPLITS, Dataset, load_split
from ecgtwin_jax.evaluation.counterfactuals import find_changes
from ecgtwin_jax.evaluation.evaluate import HALVES, take_half
from ecgtwin_jax.evaluation.generate_examples import read_condition
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.models.base_extractor import BaseExtractor
from ecgtwin_jax.stages import splits
from ecgtwin_jax.stages.denoiser import extract_bases
from ecgtwin_jax.training import checkpoint

# Samples of a median beat of 100 Hz, of which 30 is R.
WAVES = {"P": slice(5, 22), "QRS": slice(24, 38), "T": slice(40, 76)}
_LEVEL = 24  # just before QRS
_I, _II, _AVF, _V5 = map(LEADS.index, ("I", "II", "aVF", "V5"))


class Beats(NamedTuple):
  """Median beats in mV of n pairs of recordings of one patient.

  Attributes:
    reference: beats of the references.
    target: beats of the targets.
    own: foretold from the references, under their own condition.
    next: likewise, under the target's.
    changed: whether findings of the two reports differ.
    patients: name of each pair's patient.
  """

  reference: Float[np.ndarray, "n 80 12"]
  target: Float[np.ndarray, "n 80 12"]
  own: Float[np.ndarray, "n 80 12"]
  next: Float[np.ndarray, "n 80 12"]
  changed: Bool[np.ndarray, " n"]
  patients: Shaped[np.ndarray, " n"]


def load_extractor(
  base_extractor: str, parts: Iterable[Dataset]
) -> tuple[dict, dict]:
  """Hyper-parameters and parameters of an extractor that foretells beats.

  Args:
    base_extractor: a run, a checkpoint of it or a twin directory.
    parts: latents that it is to see.

  Raises:
    ValueError: it foretells no beats, or the latents are of another
      autoencoder.
  """
  hyper, variables = checkpoint.load_weights(base_extractor, "base_extractor")
  if not hyper["model"]["median_beat"]:
    raise ValueError(
      f"{base_extractor!r} was trained with config.model.median_beat=False: an "
      "extractor that foretells beats needs True"
    )
  known = {hyper["vae"]}
  if checkpoint.has_weights(base_extractor, "vae"):
    _, vae = checkpoint.load_weights(base_extractor, "vae")
    known.add(twin_directory.digest(vae["params"]["encoder"]))
  for data in parts:
    if data.card["vae"] not in known:
      raise ValueError(
        f"{data.directory} was encoded by autoencoder {data.card['vae'][:12]}, "
        f"but {base_extractor!r} needs {hyper['vae'][:12]}: encode again"
      )
  return hyper, variables["params"]


def foretell(base_extractor: str, parts: list[Dataset]) -> Beats:
  """Beats of all pairs of recordings of one patient in several splits.

  Args:
    base_extractor: a run, a checkpoint of it or a twin directory.
    parts: latents of the splits, with beats.

  Raises:
    ValueError: the extractor foretells no beats, the latents are of another
      autoencoder, or no patient has two recordings with a median beat.
  """
  hyper, params = load_extractor(base_extractor, parts)
  pairs = []
  for data in parts:
    number, found = data.patient_number, data.arrays["median_beat_found"] > 0
    same = (number[:, None] == number) & found[:, None] & found
    now, then = np.nonzero(same & ~np.eye(len(number), dtype=bool))
    if len(now):
      pairs.append(_foretell_pairs(hyper, params, data, now, then))
  if not pairs:
    raise ValueError(
      f"0 patients of {', '.join(str(part.directory) for part in parts)} have "
      "two recordings with a median beat: one at least is needed"
    )
  return Beats(*map(np.concatenate, zip(*pairs, strict=True)))


def _foretell_pairs(hyper, params, data, now, then) -> Beats:
  """Beats of the pairs of these rows."""
  module = BaseExtractor(**hyper["model"])
  bases = extract_bases(data, hyper, params, hyper["latent_scale"])[now]

  def under(rows):
    statements, mask = splits.gather_statements(
      jnp.asarray(data.table.embeddings), data.statement_ids[rows]
    )
    patient = data.patient[rows]
    beats = module.apply(
      {"params": params},
      bases,
      statements,
      mask,
      patient,
      method="predict_beat",
    )
    return np.asarray(beats, np.float64)

  beats = data.arrays["median_beat"].astype(np.float64)
  conditions = {row: read_condition(data, row) for row in np.unique(now)}
  changed = [
    bool(find_changes(conditions[i], conditions[j]))
    for i, j in zip(now, then, strict=True)
  ]
  return Beats(
    beats[now],
    beats[then],
    under(now),
    under(then),
    np.array(changed),
    data.patient_id[now],
  )


def weights_of(patients: Shaped[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
  """Weights of pairs with which all patients count alike; their sum is 1."""
  _, place, counts = np.unique(
    patients, return_inverse=True, return_counts=True
  )
  return 1 / counts[place] / len(counts)


def explained(
  beat: Float[np.ndarray, "n t 12"],
  predicted: Float[np.ndarray, "n t 12"],
  weights: Float[np.ndarray, " n"],
) -> float:
  """R2: 1 - squared error / squared distance to the mean beat."""
  weights = weights[:, None, None]
  total = (weights * (beat - (weights * beat).sum(axis=0)) ** 2).sum()
  return float(1 - (weights * (beat - predicted) ** 2).sum() / total)


def measure(beats: Float[np.ndarray, "n 80 12"]) -> Float[np.ndarray, "n 3"]:
  """Axis in degrees; the largest deflection of T in V5 and of P in II, mV."""
  beats = beats - beats[:, _LEVEL : _LEVEL + 1]
  qrs = beats[:, WAVES["QRS"]].sum(axis=1)
  axis = np.arctan2(qrs[:, _AVF] * 2 / np.sqrt(3), qrs[:, _I])

  def largest(x):
    return np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, None], axis=1)[
      :, 0
    ]

  t_wave = largest(beats[:, WAVES["T"], _V5])
  p_wave = largest(beats[:, WAVES["P"], _II])
  return np.stack([np.degrees(axis), t_wave, p_wave], axis=1)


def errors(
  beats: Beats, predicted: Float[np.ndarray, "n 80 12"]
) -> tuple[list[float], list[float]]:
  """R2 of the targets' waves, and mean absolute errors of `measure`."""
  weights = weights_of(beats.patients)
  r2 = [
    explained(beats.target[:, wave], predicted[:, wave], weights)
    for wave in WAVES.values()
  ]
  apart = between(beats.target, predicted)
  return r2, (weights @ np.abs(apart)).tolist()


def between(
  before: Float[np.ndarray, "n 80 12"], after: Float[np.ndarray, "n 80 12"]
) -> Float[np.ndarray, "n 3"]:
  """Change of `measure`; the axis goes the shorter way round."""
  change = measure(after) - measure(before)
  change[:, 0] = (change[:, 0] + 180) % 360 - 180
  return change


def moved_as_foretold(beats: Beats) -> Float[np.ndarray, "n 80 12"]:
  """References to which the foretold change is added.

  What a foretold beat lacks of the person stays in it: the residual is taken
  from the recording, as Pawlowski et al. (arXiv 2006.06485) abduct it.
  """
  return beats.reference + beats.next - beats.own


def changes(beats: Beats) -> Float[np.ndarray, "3 3"]:
  """Of each of `measure`, over patients that count alike.

  Returns:
    Correlation of foretold with true changes, and the root mean square of
    foretold and of true ones; the first is NaN where either never varies.
  """
  weights = weights_of(beats.patients)
  foretold = between(beats.own, beats.next)
  true = between(beats.reference, beats.target)
  x, y = foretold - weights @ foretold, true - weights @ true
  spread = np.sqrt((weights @ x**2) * (weights @ y**2))
  with np.errstate(invalid="ignore"):
    correlation = weights @ (x * y) / spread
  sizes = (np.sqrt(weights @ each**2) for each in (foretold, true))
  return np.stack([correlation, *sizes])


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--base_extractor", required=True)
  parser.add_argument("--latents", required=True)
  parser.add_argument("--half", choices=HALVES, default="validation")
  given = parser.parse_args()
  halves = [
    take_half(load_split(given.latents, split, kind="latent"), given.half)
    for split in SPLITS
  ]
  whole = foretell(given.base_extractor, halves)
  changed = Beats(*(column[whole.changed] for column in whole))
  print(
    f"{len(np.unique(whole.patients))} patients, {len(whole.changed)} pairs, "
    f"of {len(changed.changed)} findings changed\n\n"
    "| beat | P, R2 | QRS, R2 | T, R2 | axis, degrees | T in V5, mV "
    "| P in II, mV |\n|---|---|---|---|---|---|---|"
  )
  for name, pairs, predicted in (
    ("own, foretold", whole._replace(target=whole.reference), whole.own),
    ("next, foretold", whole, whole.next),
    ("next, unchanged reference", whole, whole.reference),
    ("findings changed, foretold", changed, changed.next),
    ("likewise, unchanged reference", changed, changed.reference),
    ("likewise, moved as foretold", changed, moved_as_foretold(changed)),
  ):
    if len(pairs.changed):
      r2, apart = errors(pairs, predicted)
      cells = [f"{x:.3f}" for x in r2] + [f"{apart[0]:.1f}"]
      cells += [f"{x:.3f}" for x in apart[1:]]
      print(f"| {name} | {' | '.join(cells)} |")
  if len(changed.changed):
    print(
      "\n| findings changed | axis | T in V5 | P in II |\n|---|---|---|---|"
    )
    for name, row in zip(
      ("correlation, foretold and true", "foretold, rms", "true, rms"),
      changes(changed),
      strict=True,
    ):
      print(f"| {name} | {row[0]:.2f} | {row[1]:.3f} | {row[2]:.3f} |")


if __name__ == "__main__":
  main()
