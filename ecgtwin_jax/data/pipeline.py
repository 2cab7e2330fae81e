"""Batches for training and evaluation, the same for any number of processes.

Training batches are endless. Global batch number i is a function of data set,
seed and i alone: process p of n holds its p-th part, as contiguous rows, and
`{"next_index": i}` is the whole state of an iterator. What travels through
grain is the number of a batch: its rows are found and gathered at once, so no
work is done per record. Where several data sets have shares, each position of
the endless sequence belongs to one of them, in turn, and each data set has
epochs of its own.
"""

import functools
import sys
from collections.abc import Callable, Iterator

import grain
import numpy as np
from jaxtyping import Bool, Int

from ecgtwin_jax.data.dataset import BEATS, Dataset

_PREFETCH = 4  # batches

Batch = dict[str, np.ndarray]
Choose = Callable[[np.ndarray], np.ndarray]  # positions to rows, or pairs


def ecg_batches(
  dataset: Dataset,
  batch_size: int,
  seed: int,
  *,
  process_index: int = 0,
  process_count: int = 1,
  start_step: int = 0,
) -> grain.DatasetIterator:
  """Endless batches of single ECGs, every recording once per epoch.

  Args:
    dataset: a data set of kind "ecg".
    batch_size: rows of all processes together.
    seed: seed of the order.
    process_index: number of this process.
    process_count: number of processes; each gets batch_size / process_count
      rows.
    start_step: number of the first batch.

  Returns:
    An iterator of {"ecg" (b, 1024, 12) float32 mV, "index" (b,) int32 row}.

  Raises:
    ValueError: the data set holds no ECGs, or the batch cannot be divided.
  """
  dataset.require("ecg")
  if not len(dataset):
    raise ValueError(f"{_name(dataset)} holds 0 recordings")
  order = _mix(dataset, seed, _recordings)
  return _iterate(
    lambda position: gather_ecgs(dataset, order(position)),
    batch_size,
    process_index,
    process_count,
    start_step,
  )


def rhythm_batches(
  dataset: Dataset,
  batch_size: int,
  seed: int,
  *,
  process_index: int = 0,
  process_count: int = 1,
  start_step: int = 0,
) -> grain.DatasetIterator:
  """Endless batches of rhythms, every recording once per epoch.

  The arguments are those of `ecg_batches`, for a data set of latents.

  Returns:
    An iterator of the batches that `gather_rhythms` describes.

  Raises:
    ValueError: the data set holds no beats, or the batch cannot be divided.
  """
  if not len(dataset):
    raise ValueError(f"{_name(dataset)} holds 0 recordings with beats")
  order = _mix(dataset, seed, _recordings)
  return _iterate(
    lambda position: gather_rhythms(dataset, order(position)),
    batch_size,
    process_index,
    process_count,
    start_step,
  )


def pair_batches(
  dataset: Dataset,
  batch_size: int,
  seed: int,
  *,
  uniform_over: str = "pairs",
  process_index: int = 0,
  process_count: int = 1,
  start_step: int = 0,
) -> grain.DatasetIterator:
  """Endless batches of pairs of recordings of one patient, as latents.

  Uniform over pairs, every pair comes once per epoch, and a patient with many
  recordings comes often. Uniform over patients, every patient comes once per
  epoch, each time with one of the patient's pairs drawn at random.

  Args:
    dataset: a data set of kind "latent".
    batch_size: rows of all processes together.
    seed: seed of the order, and of the draws.
    uniform_over: "pairs" or "patients".
    process_index: number of this process.
    process_count: number of processes; each gets batch_size / process_count
      rows.
    start_step: number of the first batch.

  Returns:
    An iterator of the batches that `gather_pairs` describes.

  Raises:
    ValueError: the data set holds no latents or no pairs, or the batch cannot
      be divided.
  """
  _require_pairs(dataset, "latent")
  if uniform_over == "pairs":
    choose = _mix(dataset, seed, _pairs)
  elif uniform_over == "patients":
    choose = _mix(dataset, seed, _pairs_of_patients)
  else:
    raise ValueError(f"{uniform_over=} must be 'pairs' or 'patients'")
  return _iterate(
    lambda position: gather_pairs(dataset, choose(position)),
    batch_size,
    process_index,
    process_count,
    start_step,
  )


def ecg_pair_batches(
  dataset: Dataset,
  batch_size: int,
  seed: int,
  *,
  process_index: int = 0,
  process_count: int = 1,
  start_step: int = 0,
) -> grain.DatasetIterator:
  """Endless batches of pairs of ECGs, every patient once per epoch.

  The arguments are those of `ecg_batches`; batch_size counts pairs.

  Returns:
    An iterator of the batches that `gather_ecg_pairs` describes.

  Raises:
    ValueError: the data set holds no ECGs or no pairs, or the batch cannot be
      divided.
  """
  _require_pairs(dataset, "ecg")
  choose = _mix(dataset, seed, _pairs_of_patients)
  return _iterate(
    lambda position: gather_ecg_pairs(dataset, choose(position)),
    batch_size,
    process_index,
    process_count,
    start_step,
  )


def eval_ecg_batches(
  dataset: Dataset,
  batch_size: int,
  *,
  limit: int | None = None,
  seed: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[Batch]:
  """One pass over the recordings, or over `limit` of them drawn once by seed.

  Every process gets equally many batches of equal size; where they run out of
  recordings, the rest of the rows repeats one of them and `valid` (b,) bool is
  False there.

  Yields:
    The batches of `ecg_batches`, with "valid".

  Raises:
    ValueError: the data set holds no ECGs, or the batch cannot be divided.
  """
  dataset.require("ecg")
  rows = _local_rows(batch_size, process_index, process_count)
  gather = functools.partial(gather_ecgs, dataset)
  order = _order(len(dataset), limit, seed)
  return _pass(order, gather, batch_size, process_index * rows, rows)


def eval_rhythm_batches(
  dataset: Dataset,
  batch_size: int,
  *,
  limit: int | None = None,
  seed: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[Batch]:
  """One pass over the rhythms, or over `limit` of them drawn once by seed.

  Padded as in `eval_ecg_batches`.

  Yields:
    The batches that `gather_rhythms` describes, with "valid" (b,) bool.

  Raises:
    ValueError: the batch cannot be divided.
  """
  rows = _local_rows(batch_size, process_index, process_count)
  gather = functools.partial(gather_rhythms, dataset)
  order = _order(len(dataset), limit, seed)
  return _pass(order, gather, batch_size, process_index * rows, rows)


def eval_pair_batches(
  dataset: Dataset,
  batch_size: int,
  *,
  limit: int | None = None,
  seed: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[Batch]:
  """One pass over the pairs, or over `limit` of them drawn once by seed.

  Padded as in `eval_ecg_batches`. Nothing is yielded where there are no pairs.

  Yields:
    The batches that `gather_pairs` describes, with "valid" (b,) bool.

  Raises:
    ValueError: the data set holds no latents, or the batch cannot be divided.
  """
  dataset.require("latent")
  rows = _local_rows(batch_size, process_index, process_count)
  gather = functools.partial(gather_pairs, dataset)
  order = _order(len(dataset.pairs), limit, seed)
  return _pass(order, gather, batch_size, process_index * rows, rows)


def gather_ecgs(dataset: Dataset, rows: Int[np.ndarray, " b"]) -> Batch:
  """Returns the ECGs of those rows, "ecg" (b, 1024, 12) in mV, and "index"."""
  scale = np.float32(dataset.card["scale"])
  return {
    "ecg": dataset.arrays["ecg"][rows] * scale,
    "index": rows.astype(np.int32),
  }


def gather_rhythms(dataset: Dataset, rows: Int[np.ndarray, " b"]) -> Batch:
  """Returns the rhythms of those rows, and their conditions.

  "beat_time" (b, n) float32 seconds padded with NaN, "beat_kind" and "beat_p"
  (b, n) int8 padded with -1, "statement_ids" (b, s) int32 padded with -1,
  "patient" (b, 3) float32 with NaN where missing, and "index".
  """
  beats = ("beat_time", "beat_kind", "beat_p")
  return {
    **{name: dataset.arrays[name][rows] for name in beats},
    "statement_ids": dataset.statement_ids[rows],
    "patient": dataset.patient[rows],
    "index": rows.astype(np.int32),
  }


def gather_ecg_pairs(dataset: Dataset, k: Int[np.ndarray, " b"]) -> Batch:
  """Returns the pairs of those numbers: "ecg" and "reference_ecg".

  Both are (b, 1024, 12) in mV, with "index" and "reference_index" of their
  rows, and "patient_id" (b,) int32, a number per patient.
  """
  reference, target = dataset.pairs.pair(k)
  earlier = gather_ecgs(dataset, reference)
  return {
    "patient_id": dataset.patient_number[target],
    **gather_ecgs(dataset, target),
    **{f"reference_{name}": value for name, value in earlier.items()},
  }


def gather_pairs(dataset: Dataset, k: Int[np.ndarray, " b"]) -> Batch:
  """Returns the pairs of those numbers.

  Returns:
    Of the target, the later recording: "mean" and "std" (b, 128, 4) float32 of
    the unscaled latent, "statement_ids" (b, 18) int32 padded with -1, "patient"
    (b, 3) float32 with NaN where missing, "index" (b,) int32 row in the split;
    and where the data set has them "beat_time" (b, 48) float32 seconds padded
    with NaN, "beat_kind" and "beat_p" (b, 48) int8 padded with -1,
    "median_beat" (b, 80, 12) float32 mV and "median_beat_found" (b,) int8.
    The same of the earlier one under "reference_" names. And "patient_id" (b,)
    int32, a number per patient.
  """
  reference, target = dataset.pairs.pair(k)
  batch = {"patient_id": dataset.patient_number[target]}
  for prefix, rows in (("", target), ("reference_", reference)):
    for name in ("mean", "std"):
      latent = dataset.arrays[name][rows]
      batch[prefix + name] = latent.astype(np.float32)
    for name in BEATS:
      if name in dataset.arrays:
        batch[prefix + name] = dataset.arrays[name][rows]
    if "median_beat" in dataset.arrays:
      median = batch[prefix + "median_beat"]
      batch[prefix + "median_beat"] = median.astype(np.float32)
    batch[prefix + "statement_ids"] = dataset.statement_ids[rows]
    batch[prefix + "patient"] = dataset.patient[rows]
    batch[prefix + "index"] = rows.astype(np.int32)
  return batch


def _require_pairs(dataset: Dataset, kind: str) -> None:
  dataset.require(kind)
  if not len(dataset.pairs):
    patients = len(np.unique(dataset.patient_number))
    raise ValueError(
      f"{_name(dataset)} holds 0 pairs: its {len(dataset)} recordings are of"
      f" {patients} patients, and a pair needs two recordings of one patient"
      " that differ in heart rate or statements"
    )


def _name(dataset: Dataset) -> str:
  return f"split {dataset.split!r} of {dataset.directory}"


def _local_rows(batch_size: int, process_index: int, process_count: int) -> int:
  if batch_size < 1 or batch_size % process_count:
    raise ValueError(
      f"{batch_size=} must be positive and divisible by {process_count=}"
    )
  if not 0 <= process_index < process_count:
    raise ValueError(f"{process_index=} must be in 0..{process_count - 1}")
  return batch_size // process_count


def _iterate(
  make: Callable[[np.ndarray], Batch],
  batch_size: int,
  process_index: int,
  process_count: int,
  start_step: int,
) -> grain.DatasetIterator:
  rows = _local_rows(batch_size, process_index, process_count)

  def batch(step: int) -> Batch:
    first = step * batch_size + process_index * rows
    return make(np.arange(first, first + rows))

  # More threads would only wait for each other: gathering holds the lock.
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_PREFETCH)
  batches = grain.MapDataset.range(sys.maxsize).map(batch)
  iterator = iter(batches.to_iter_dataset(options))
  if start_step:
    iterator.set_state({"next_index": start_step})
  return iterator


def _shuffle(count: int, seed: int) -> Choose:
  """Returns position -> number: each of 0..count-1 once per epoch.

  grain's own shuffle costs 9 us per number, and 2 ms where there are but ten.
  """

  @functools.lru_cache(maxsize=2)
  def permutation(epoch: int) -> np.ndarray:
    numbers = np.arange(count, dtype=np.min_scalar_type(count))
    return np.random.default_rng([seed, epoch]).permutation(numbers)

  def order(position: np.ndarray) -> np.ndarray:
    epoch, place = np.divmod(position, count)
    parts = [
      permutation(number)[place[epoch == number]]
      for number in range(int(epoch[0]), int(epoch[-1]) + 1)
    ]
    return np.concatenate(parts).astype(np.int64)

  return order


def _recordings(
  dataset: Dataset, seed: int, own: Bool[np.ndarray, " n"]
) -> Choose | None:
  """Returns position -> row, each of those rows once per epoch."""
  rows = np.flatnonzero(own)
  if not len(rows):
    return None
  order = _shuffle(len(rows), seed)
  return lambda position: rows[order(position)]


def _pairs(
  dataset: Dataset, seed: int, own: Bool[np.ndarray, " n"]
) -> Choose | None:
  """Returns position -> pair, each of those patients' pairs once per epoch."""
  first, count = _patients(dataset, own)
  if not len(first):
    return None
  ends = np.cumsum(count)
  order = _shuffle(int(ends[-1]), seed)

  def choose(position: np.ndarray) -> np.ndarray:
    number = order(position)
    patient = np.searchsorted(ends, number, side="right")
    return number - (ends - count)[patient] + first[patient]

  return choose


def _pairs_of_patients(
  dataset: Dataset, seed: int, own: Bool[np.ndarray, " n"]
) -> Choose | None:
  """Returns position -> pair: one of each patient, at random, per epoch."""
  first, count = _patients(dataset, own)
  if not len(first):
    return None
  order = _shuffle(len(first), seed)

  def choose(position: np.ndarray) -> np.ndarray:
    patient = order(position)
    # Draws are numbered by position: no two processes share one.
    generator = np.random.Philox(key=seed)
    generator.advance(int(position[0]))  # by four draws for each position
    bits = generator.random_raw(4 * len(position))[::4]
    chosen = bits % count[patient].astype(np.uint64)
    return first[patient] + chosen.astype(np.int64)

  return choose


def _patients(dataset, own):
  """First pair, and number of pairs, of the patients whose rows are given."""
  first, count = dataset.pairs.patients()
  _, target = dataset.pairs.pair(first)
  return first[own[target]], count[own[target]]


def _mix(
  dataset: Dataset, seed: int, make: Callable[..., Choose | None]
) -> Choose:
  """Returns position -> what `make` counts, by the shares of several data sets.

  Of the first p positions, floor(p * share) are the first data set's, and so on
  with the rest. So position p of the sequence is found without its beginning,
  and every batch holds the shares to within a row or two.

  Raises:
    ValueError: a data set with a share has nothing to give.
  """
  mixed = dataset.mixed
  if mixed is None:
    return make(dataset, seed, np.ones(len(dataset), bool))
  chooses, of_rest, left = [], [], 1.0
  for part, (name, share) in enumerate(zip(mixed.names, mixed.shares)):
    choose = make(dataset, seed, mixed.part == part)
    if choose is None:
      what = "recordings" if make is _recordings else "pairs"
      raise ValueError(
        f"{name!r} has a share of the batches, but no {what} in split"
        f" {dataset.split!r}: leave it out, or name all without shares"
      )
    chooses.append(choose)
    of_rest.append(share / left)
    left -= share
  of_rest[-1] = 1.0

  def choose(position: np.ndarray) -> np.ndarray:
    out = np.empty(len(position), np.int64)
    places, rest = np.arange(len(position)), position
    for choose_own, share in zip(chooses, of_rest):
      before = np.floor(rest * share).astype(np.int64)
      own = np.floor((rest + 1) * share).astype(np.int64) > before
      if own.any():
        out[places[own]] = choose_own(before[own])
      places, rest = places[~own], (rest - before)[~own]
    return out

  return choose


def _order(count: int, limit: int | None, seed: int) -> np.ndarray:
  order = np.random.default_rng(seed).permutation(count)
  return order if limit is None else order[:limit]


def _pass(order, gather, batch_size, offset, rows) -> Iterator[Batch]:
  for start in range(0, len(order), batch_size):
    part = order[start + offset : start + offset + rows]
    padded = np.full(rows, order[0])
    padded[: len(part)] = part
    yield {**gather(padded), "valid": np.arange(rows) < len(part)}
