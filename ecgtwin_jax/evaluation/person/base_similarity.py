"""As published: are base vectors of generated ECGs the reference's?

The base extractor also guided the generation, so that this says whether the
twin obeys it, not whether a stranger would recognise the patient. And it is
told age and sex: bases of a stranger's ECGs, extracted under the patient's
condition, are near the patient's. That is the baseline here.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import NAN, Metric, mean_metric, missing
from ecgtwin_jax.evaluation.resampling import mean_of_others, rows_of_others

if TYPE_CHECKING:
  import matplotlib.figure

PATIENTS = (10, 20, 50, 100)  # in a silhouette
_LEVEL = "person"
# Ablations: what the twin was given in place of the patient's base vector.
_ABLATIONS = {
  "shuffled_reference": "the twin given another patient's base vector",
  "zero_base": "the twin given the base vector 0",
  "matched_stranger": "the twin given the base vector of a matched control: a "
  "patient of like age, sex and condition",
}

# (signals (m, t, 12) mV, their conditions) -> base vectors (m, d)
Extract = Callable[[np.ndarray, tuple], np.ndarray]


class Bases(NamedTuple):
  """Base vectors of all ECGs, extracted under the condition each shows.

  Attributes:
    sets: {"reference": (n, 1, d), "real": (n, 1, d), "twin" or one of
      ABLATIONS: (n, k, d)}, and "stranger", (n, 1, d), real ECGs of other
      patients under the row's condition.
    patients: dense number of each row's patient.
  """

  sets: dict[str, Float[np.ndarray, "n _ d"]]
  patients: Shaped[np.ndarray, " n"]


def compute(examples: Examples, extract: Extract, *, seed: int = 0) -> Bases:
  """Extracts base vectors; the references' are the examples' own, if there.

  Args:
    examples: real and generated ECGs.
    extract: maps ECGs and conditions to base vectors.
    seed: seed that draws the strangers.
  """
  sets = {"real": extract(examples.real, examples.conditions)[:, None]}
  if len(np.unique(examples.patients)) > 1:
    others = examples.real[rows_of_others(examples.patients, seed)]
    sets["stranger"] = extract(others, examples.conditions)[:, None]
  if examples.bases is None:
    bases = extract(examples.references, examples.reference_conditions)
  else:
    bases = examples.bases
  sets["reference"] = np.asarray(bases)[:, None]
  if examples.decoded is not None:
    sets["decoded"] = extract(examples.decoded, examples.conditions)[:, None]
  for variant, signals in examples.generated.items():
    count, samples = signals.shape[:2]
    conditions = [c for c in examples.conditions for _ in range(samples)]
    flat = signals.reshape(count * samples, *signals.shape[2:])
    bases = extract(flat, tuple(conditions))
    sets[variant] = np.asarray(bases).reshape(count, samples, -1)
  return Bases(sets, examples.patients)


def metrics(bases: Bases, *, seed: int = 0) -> list[Metric]:
  """Similarity of base vectors to the reference's, and silhouettes.

  The baseline is the twin given another patient's base vector, or where that
  was not generated real ECGs of strangers; the reference is real ECGs of the
  patients.

  Args:
    bases: what `compute` returns.
    seed: seed that draws the patients of a silhouette and the bootstrap.
  """
  sets, patients = bases
  if len(np.unique(patients)) < 2:
    why = "needs ECGs of at least 2 patients"
    n = len(patients)
    return [missing("base_similarity", _LEVEL, why, n, better="higher")]
  reference = _normalized(sets["reference"][:, 0])
  real = float(_similarity(sets["real"], reference).mean())

  def mean(name, which, baseline, note):
    itself = which == "real"
    return mean_metric(
      name,
      _similarity(sets[which], reference),
      patients,
      _LEVEL,
      better="higher",
      baseline=baseline,
      reference=NAN if itself else real,
      note=note if itself else f"{note}; reference: the patients' real ECGs",
      seed=seed,
    )

  if "stranger" in sets:
    strange = float(_similarity(sets["stranger"], reference).mean())
    words = "baseline: real ECGs of others under the same condition"
  else:
    others = mean_of_others(reference, patients)
    strange = float(_similarity(sets["real"], others).mean())
    words = "baseline: real ECGs to other patients' references"
  ignorant, note = strange, words
  if "shuffled_reference" in sets:
    ignorant = float(_similarity(sets["shuffled_reference"], reference).mean())
    note = f"baseline: {_ABLATIONS['shuffled_reference']}"
  rows = [
    mean("base_similarity", "twin", ignorant, note),
    mean("base_similarity_real", "real", strange, words),
  ]
  if "decoded" in sets:
    note = f"real ECGs after the autoencoder; {words}"
    rows.append(mean("base_similarity_decoded", "decoded", strange, note))
  for variant, what in _ABLATIONS.items():
    if variant in sets:
      note = f"{what}; {words}"
      rows.append(mean(f"base_similarity_{variant}", variant, strange, note))
  return rows + _silhouettes(sets, patients, seed)


def _normalized(x):
  x = np.asarray(x, np.float64)
  return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _similarity(samples, references):
  """(n,) mean over the samples of their product with the row's reference."""
  return (_normalized(samples) * references[:, None]).sum(axis=2).mean(axis=1)


def _silhouettes(sets, patients, seed):
  """One sample per row, as there is one real ECG per row."""
  names, count = np.unique(patients, return_counts=True)
  names = names[count > 1]
  order = np.random.default_rng([seed, 4]).permutation(names)
  sizes = [size for size in PATIENTS if size <= len(names)]
  if not sizes:
    sizes = [len(names)] if len(names) > 1 else []
  if not sizes:
    why = "needs 2 patients with 2 or more targets each"
    n = len(names)
    return [missing("silhouette", _LEVEL, why, n, better="higher")]
  metrics = []
  for size in sizes:
    rows = np.flatnonzero(np.isin(patients, order[:size]))
    people = patients[rows]
    baseline, words = NAN, "cosine"
    if "shuffled_reference" in sets:
      points = sets["shuffled_reference"][rows, 0]
      baseline = float(silhouettes(points, people).mean())
      words = f"cosine; baseline: {_ABLATIONS['shuffled_reference']}"
    real = silhouettes(sets["real"][rows, 0], people)
    twins = silhouettes(sets["twin"][rows, 0], people)
    name = f"silhouette_{size}_patients"
    for suffix, values, reference, note in (
      ("", twins, float(real.mean()), f"{words}; reference: real ECGs"),
      ("_real", real, NAN, words),
    ):
      metrics.append(
        mean_metric(
          f"{name}{suffix}",
          values,
          people,
          _LEVEL,
          better="higher",
          baseline=baseline,
          reference=reference,
          note=note,
          seed=seed,
        )
      )
  return metrics


def silhouettes(
  points: Float[np.ndarray, "n d"], patients: Shaped[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
  """s_i = (b_i - a_i) / max(a_i, b_i) by cosine distance.

  a_i is the mean distance to the patient's own other points, b_i that to the
  points of the nearest other patient.

  Args:
    points: base vectors.
    patients: patient of each point; two or more, fewer than there are points.

  Source: Rousseeuw 1987; scikit-learn.
  """
  from sklearn.metrics import silhouette_samples

  return silhouette_samples(
    np.asarray(points, np.float64), patients, metric="cosine"
  )


def draw(
  bases: Bases, *, count: int = 20, seed: int = 0
) -> "matplotlib.figure.Figure":
  """t-SNE of base vectors: reference, real and generated, colour by patient.

  Args:
    bases: what `compute` returns.
    count: patients shown, at most.
    seed: seed that draws the patients and starts t-SNE.

  Returns:
    A matplotlib Figure.
  """
  from matplotlib import colormaps
  from matplotlib.figure import Figure
  from sklearn.manifold import TSNE
  from threadpoolctl import threadpool_limits

  sets, patients = bases
  order = np.random.default_rng([seed, 4]).permutation(np.unique(patients))
  rows = np.flatnonzero(np.isin(patients, order[:count]))
  _, first = np.unique(patients[rows], return_index=True)
  shown = {
    "reference": (sets["reference"][rows[first], 0], patients[rows[first]]),
    "real": (sets["real"][rows, 0], patients[rows]),
    "generated": (sets["twin"][rows, 0], patients[rows]),
  }
  points = np.concatenate([x for x, _ in shown.values()]).astype(np.float64)
  tsne = TSNE(
    perplexity=min(30.0, (len(points) - 1) / 3),
    metric="cosine",
    init="random",
    random_state=seed,
  )
  # Of so few points, threads take longer than one does alone.
  with threadpool_limits(limits=1):
    places = tsne.fit_transform(points)
  figure = Figure(figsize=(7, 6), layout="constrained")
  axis = figure.subplots()
  colors = colormaps["tab20"].colors
  marks = {"reference": ("*", 90), "real": ("o", 22), "generated": ("x", 22)}
  start = 0
  for name, (x, people) in shown.items():
    marker, size = marks[name]
    where = places[start : start + len(x)]
    start += len(x)
    axis.scatter(
      where[:, 0],
      where[:, 1],
      c=[colors[i % 20] for i in _numbers(people, order)],
      marker=marker,
      s=size,
      label=name,
    )
  axis.set(xticks=[], yticks=[], title="Base vectors, a colour per patient")
  axis.legend()
  return figure


def _numbers(
  people: Shaped[np.ndarray, " n"], order: Shaped[np.ndarray, " p"]
) -> Int[np.ndarray, " n"]:
  place = {patient: number for number, patient in enumerate(order)}
  return np.array([place[patient] for patient in people])
