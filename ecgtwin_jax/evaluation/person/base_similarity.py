"""Person, as published: are base vectors of generated ECGs the reference's?

The base extractor also guided the generation, so that this says whether the
twin obeys it, not whether a stranger would recognise the patient. And it is
told age and sex: bases of a stranger's ECGs, extracted under the patient's
condition, are near the patient's. That is the floor here.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int, Shaped

from ecgtwin_jax.evaluation.examples import Examples
from ecgtwin_jax.evaluation.metric import Metric, mean_metric, missing
from ecgtwin_jax.evaluation.resampling import mean_of_others, rows_of_others

PATIENTS = (10, 20, 50, 100)  # in a silhouette
_LEVEL = "person"
_FLOORS = {
  "shuffled_reference": "the twin given another patient's base vector",
  "zero_base": "the twin given the base vector 0",
  "matched_stranger": "the twin given the base vector of a patient of like "
  "age, sex and condition",
}

# (signals (m, t, 12) mV, their conditions) -> base vectors (m, d)
Extract = Callable[[np.ndarray, tuple], np.ndarray]


def extract_bases(
  examples: Examples, extract: Extract, *, seed: int = 0
) -> dict[str, Float[np.ndarray, "n _ d"]]:
  """Base vectors of all ECGs, extracted under the condition each shows.

  Args:
    examples: whose ECGs.
    extract: maps ECGs and conditions to base vectors.
    seed: of the strangers.

  Returns:
    {"reference": (n, 1, d), "real": (n, 1, d), arm: (n, k, d)}, and "stranger",
    (n, 1, d), real ECGs of other patients under the row's condition; those of
    the references are the examples' own, where they are there.
  """
  found = {"real": extract(examples.real, examples.conditions)[:, None]}
  if len(np.unique(examples.patients)) > 1:
    others = examples.real[rows_of_others(examples.patients, seed)]
    found["stranger"] = extract(others, examples.conditions)[:, None]
  if examples.bases is None:
    bases = extract(examples.references, examples.reference_conditions)
  else:
    bases = examples.bases
  found["reference"] = np.asarray(bases)[:, None]
  for arm, signals in examples.generated.items():
    count, samples = signals.shape[:2]
    conditions = [c for c in examples.conditions for _ in range(samples)]
    flat = signals.reshape(count * samples, *signals.shape[2:])
    bases = extract(flat, tuple(conditions))
    found[arm] = np.asarray(bases).reshape(count, samples, -1)
  return found


def measure(
  examples: Examples,
  extract: Extract,
  *,
  seed: int = 0,
  bases: dict[str, Float[np.ndarray, "n _ d"]] | None = None,
) -> list[Metric]:
  """Similarity of base vectors to the reference's, and silhouettes.

  Args:
    examples: what is judged.
    extract: maps ECGs and conditions to base vectors.
    seed: of the patients in a silhouette and the bootstrap.
    bases: from `extract_bases`, where they are at hand.
  """
  if bases is None:
    bases = extract_bases(examples, extract, seed=seed)
  return compare(bases, examples.patients, seed=seed)


def compare(
  bases: dict[str, Float[np.ndarray, "n _ d"]],
  patients: Shaped[np.ndarray, " n"],
  *,
  seed: int = 0,
) -> list[Metric]:
  """Compares base vectors with the references', row by row.

  Args:
    bases: "reference" and "real", (n, 1, d), and the arms (n, k, d); "stranger"
      (n, 1, d) where it is there.
    patients: of each row.
    seed: of the patients in a silhouette and the bootstrap.
  """
  if len(np.unique(patients)) < 2:
    why = "needs ECGs of at least 2 patients"
    return [missing("base_similarity", _LEVEL, why, len(patients))]
  reference = _normalized(bases["reference"][:, 0])
  strangers = mean_of_others(reference, patients)

  def mean(name, arm, floor, note):
    values = _similarity(bases[arm], reference)
    return mean_metric(
      name, values, patients, _LEVEL, floor=floor, note=note, seed=seed
    )

  def floor(arm, words):
    if arm in bases:
      near = _similarity(bases[arm], reference)
      return float(near.mean()), f"floor: {words}"
    near = _similarity(bases["real"], strangers)
    return float(near.mean()), "floor: real ECGs to other patients' references"

  strange = floor("stranger", "real ECGs of others under the same condition")
  ours = strange
  if "shuffled_reference" in bases:
    ours = floor("shuffled_reference", _FLOORS["shuffled_reference"])
  metrics = [
    mean("base_similarity", "twin", *ours),
    mean("base_similarity_real", "real", *strange),
  ]
  for arm, words in _FLOORS.items():
    if arm in bases:
      value, note = strange
      note = f"{words}; {note}"
      metrics.append(mean(f"base_similarity_{arm}", arm, value, note))
  return metrics + _silhouettes(bases, patients, seed)


def _normalized(x):
  x = np.asarray(x, np.float64)
  return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _similarity(samples, references):
  """(n,) mean over the samples of their product with the row's reference."""
  return (_normalized(samples) * references[:, None]).sum(axis=2).mean(axis=1)


def _silhouettes(bases, patients, seed):
  """One sample per row, as there is one real ECG per row."""
  names, count = np.unique(patients, return_counts=True)
  names = names[count > 1]
  order = np.random.default_rng([seed, 4]).permutation(names)
  sizes = [size for size in PATIENTS if size <= len(names)]
  if not sizes:
    sizes = [len(names)] if len(names) > 1 else []
  if not sizes:
    why = "needs 2 patients with 2 or more targets each"
    return [missing("silhouette", _LEVEL, why, len(names))]
  metrics = []
  for size in sizes:
    rows = np.flatnonzero(np.isin(patients, order[:size]))
    people = patients[rows]
    floor, words = float("nan"), "cosine; no floor"
    if "shuffled_reference" in bases:
      points = bases["shuffled_reference"][rows, 0]
      floor = float(silhouettes(points, people).mean())
      words = f"cosine; floor: {_FLOORS['shuffled_reference']}"
    for arm, suffix in (("twin", ""), ("real", "_real")):
      metrics.append(
        mean_metric(
          f"silhouette_{size}_patients{suffix}",
          silhouettes(bases[arm][rows, 0], people),
          people,
          _LEVEL,
          floor=floor,
          note=words,
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
    patients: whose; two or more, fewer than there are points.

  Source: Rousseeuw 1987; scikit-learn.
  """
  from sklearn.metrics import silhouette_samples

  return silhouette_samples(
    np.asarray(points, np.float64), patients, metric="cosine"
  )


def draw(
  bases: dict[str, Float[np.ndarray, "n _ d"]],
  patients: Shaped[np.ndarray, " n"],
  *,
  count: int = 20,
  seed: int = 0,
):
  """t-SNE of base vectors: reference, real and generated, colour by patient.

  Args:
    bases: "reference" and "real" (n, 1, d), and "twin" (n, k, d).
    patients: of each row.
    count: patients shown, at most.
    seed: of the patients and of t-SNE.

  Returns:
    A matplotlib Figure.
  """
  from matplotlib import colormaps
  from matplotlib.figure import Figure
  from sklearn.manifold import TSNE
  from threadpoolctl import threadpool_limits

  order = np.random.default_rng([seed, 4]).permutation(np.unique(patients))
  rows = np.flatnonzero(np.isin(patients, order[:count]))
  _, first = np.unique(patients[rows], return_index=True)
  shown = {
    "reference": (bases["reference"][rows[first], 0], patients[rows[first]]),
    "real": (bases["real"][rows, 0], patients[rows]),
    "generated": (bases["twin"][rows, 0], patients[rows]),
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
