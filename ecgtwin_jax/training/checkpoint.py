"""Checkpoints of a training: saved as one, sealed, and checked on the way back.

Layout of <workdir>/checkpoints/<step>/: `weights` (averaged parameters and
model state, what inference reads), `state` (the rest of the training state),
`meta` (configuration, hyper-parameters, metrics) and `manifest.json` (size and
sha256 of every file). Orbax notices a missing file but not a flipped byte; the
manifest does.
"""

import json
import math
import os
import shutil
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict
from orbax.checkpoint.checkpoint_managers import (
  preservation_policy as preservation,
)

from ecgtwin_jax.flags import flatten
from ecgtwin_jax.inference import twin_directory
from ecgtwin_jax.training import manifest
from ecgtwin_jax.training.metric_writer import say

# These may differ between the runs that share a checkpoint: they change what
# is written and where, or name what a fingerprint or a digest identifies.
_FREE_KEYS = frozenset(
  "workdir job stop_at fsdp remat log_every eval_every checkpoint_every "
  "keep_checkpoints profile_steps data cohort latents vae "
  "base_extractor".split()
)
_SMALL_FILES = 2**20  # bytes, more than what lies beside a checkpoint's arrays


class DamagedError(ValueError):
  """Checkpoints exist, but none of them can be trusted."""


def _warn(message: str) -> None:
  say(f"checkpoint: {message}", sys.stderr)


def _steps(root: epath.Path) -> list[int]:
  if not root.exists():
    return []
  return sorted(int(p.name) for p in root.iterdir() if p.name.isdigit())


def _score(metrics) -> float:
  value = (metrics or {}).get("score")
  return value if value is not None and math.isfinite(value) else math.inf


def _difference(saved: dict, now: dict) -> list[str]:
  """Lists "key: saved -> now" for what makes a checkpoint unfit."""

  def identity(meta):
    config = {
      key: value
      for key, value in meta["config"].items()
      if key.partition(".")[0] not in _FREE_KEYS
    }
    hyper = {f"hyper.{key}": value for key, value in meta["hyper"].items()}
    return {**config, **hyper, "fingerprint of the data": meta["data"]}

  saved, now = identity(saved), identity(now)
  return [
    f"{key}: {saved.get(key)!r} -> {now.get(key)!r}"
    for key in sorted(saved.keys() | now.keys())
    if saved.get(key) != now.get(key)
  ]


class Checkpointer:
  """Saves and restores one training's state.

  Args:
    workdir: the run's folder; checkpoints go to <workdir>/checkpoints.
    config: the run's configuration, stored and compared on restore.
    hyper: what is needed to rebuild the model (JSON), stored beside it.
    data_fingerprint: identifies the training data, compared on restore.
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    config: ConfigDict,
    hyper: dict,
    data_fingerprint: str,
  ):
    self.root = epath.Path(os.path.abspath(workdir)) / "checkpoints"
    if "://" in os.fspath(workdir):
      self.root = epath.Path(workdir) / "checkpoints"
    meta = dict(config=flatten(config), hyper=hyper, data=data_fingerprint)
    self._meta = json.loads(json.dumps(meta))
    self._empty_trash()
    best = preservation.BestN(
      get_metric_fn=_score,
      reverse=True,
      n=1,
      keep_checkpoints_without_metrics=False,
    )
    latest = preservation.LatestN(config.keep_checkpoints)
    self._options = ocp.CheckpointManagerOptions(
      best_fn=_score,  # without it, metrics are not written
      best_mode="min",
      cleanup_tmp_directories=True,
      todelete_subdir="trash",
      preservation_policy=preservation.AnyPreservationPolicy([latest, best]),
    )
    self._manager = None
    self._unsealed = set()

  def _open(self) -> ocp.CheckpointManager:
    if self._manager is None:
      self._manager = ocp.CheckpointManager(self.root, options=self._options)
    return self._manager

  def newest_good(self) -> int | None:
    """Lets process 0 pick the step: it moves what the others would look at."""
    step = self.pick() if jax.process_index() == 0 else None
    if jax.process_count() > 1:
      choice = np.int64(-1 if step is None else step)
      choice = int(multihost_utils.broadcast_one_to_all(choice))
      step = None if choice < 0 else choice
    return step

  def pick(self) -> int | None:
    """Picks the step to continue from; moves what is beyond it aside."""
    steps = _steps(self.root)
    sealed = [s for s in steps if (self.root / str(s) / manifest.NAME).exists()]
    bad = {}
    for step in reversed(steps):
      where = self.root / str(step)
      if step not in sealed:
        bad[step] = "was never finished"
        continue
      reason = manifest.fault(where)
      if reason is None:
        break
      bad[step] = reason
    else:
      step = None
    for other, reason in bad.items():
      _warn(f"{self.root / str(other)} {reason}: skipped")
    # A kill leaves at most one unfinished save, and no other damage.
    if step is None and len(bad) > (not sealed):
      raise DamagedError(
        f"no checkpoint in {self.root} is intact ({len(bad)} tried, newest "
        f"first); restore one from a backup, or train in another --workdir"
      )
    aside = self.root.parent / "checkpoints_damaged"
    for other in bad:
      aside.mkdir(exist_ok=True)
      if (aside / str(other)).exists():
        (aside / str(other)).rmtree()
      (self.root / str(other)).rename(aside / str(other))
    if bad:
      _warn(f"continuing from step {step or 0}")
    return step

  def restore(self, abstract: dict) -> tuple[int, dict] | None:
    """Restores the newest intact checkpoint.

    Args:
      abstract: {"weights": ..., "state": ...} of ShapeDtypeStruct with
        shardings; the devices need not be those of the run that saved it.

    Returns:
      (step, {"weights": ..., "state": ...}), or None where none was saved.

    Raises:
      DamagedError: there are checkpoints and all are damaged.
      ValueError: the configuration or the data do not fit the checkpoint.
    """
    step = self.newest_good()
    if step is None:
      return None
    manager = self._open()
    lines = _difference(read_meta(self.root / str(step)), self._meta)
    if lines:
      raise ValueError(
        f"the checkpoint {self.root / str(step)} was made by another "
        f"configuration ({'; '.join(lines)}); use another --workdir or set "
        "these back"
      )
    restored = manager.restore(
      step,
      args=ocp.args.Composite(
        **{k: ocp.args.StandardRestore(v) for k, v in abstract.items()}
      ),
    )
    return step, {name: restored[name] for name in abstract}

  def save(self, step: int, trees: dict, score: float | None) -> None:
    """Starts saving {"weights": ..., "state": ...} in the background.

    Raises:
      OSError: there is too little space left for it, or the save before this
        one has failed.
    """
    self.finish()
    manager = self._open()
    self._check_space(trees)
    meta = dict(self._meta, step=step, score=score)
    manager.save(
      step,
      args=ocp.args.Composite(
        meta=ocp.args.JsonSave(meta),
        **{k: ocp.args.StandardSave(_one_copy(v)) for k, v in trees.items()},
      ),
      metrics={"score": math.inf if score is None else score},
      force=True,
    )
    self._unsealed.add(step)

  def seal_finished(self) -> None:
    """Seals the saves that have been committed since the last call."""
    if self._unsealed and not self._manager.is_saving_in_progress():
      for step in self._unsealed & set(_steps(self.root)):
        if jax.process_index() == 0:
          manifest.seal(self.root / str(step))
      self._unsealed.clear()

  def _check_space(self, trees: dict) -> None:
    # Orbax would fill the disk and then print a thousand lines.
    needed = sum(x.nbytes for x in jax.tree.leaves(trees)) + _SMALL_FILES
    free = shutil.disk_usage(self.root).free
    if free < needed:
      raise OSError(
        f"no space left for a checkpoint in {os.fspath(self.root)!r}: "
        f"{needed / 2**20:.1f} MiB needed, {free / 2**20:.1f} MiB free; what "
        "was saved before is intact, and the same command continues"
      )

  def finish(self) -> None:
    """Waits until what was saved is on disk, and seals it.

    Raises:
      OSError: it could not be saved.
    """
    if self._manager is None:
      return
    try:
      self._manager.wait_until_finished()
    except Exception as error:
      raise OSError(
        f"a checkpoint in {os.fspath(self.root)!r} could not be saved, those "
        f"before it are intact: {error}"
      ) from error
    self.seal_finished()

  def close(self) -> None:
    self.finish()
    if self._manager is not None:
      self._manager.close()
      self._empty_trash()

  def _empty_trash(self) -> None:
    """Orbax never does, and an old trash/<step> fails that step's deletion."""
    if jax.process_index() == 0 and (self.root / "trash").exists():
      (self.root / "trash").rmtree()


def _one_copy(tree):
  """Takes one device's copy of what all devices of one process hold.

  Orbax would have each device write a slice of each array: 300 small arrays on
  8 devices take 0.3 s to cut up, and 0.05 s in one piece.
  """

  def one(x):
    single = x.is_fully_addressable and x.is_fully_replicated
    return x.addressable_data(0) if single else x

  return jax.tree.map(one, tree)


def read_meta(step_dir: str | os.PathLike) -> dict:
  """Reads the configuration, hyper-parameters and score of a checkpoint."""
  return json.loads((epath.Path(step_dir) / "meta" / "metadata").read_text())


def find_checkpoint(path: str | os.PathLike) -> epath.Path:
  """Returns the best intact checkpoint of a run, or the one `path` names.

  Raises:
    FileNotFoundError: there is none.
    DamagedError: there are, and none is intact.
  """
  path = epath.Path(path)
  if (path / "meta" / "metadata").exists():
    candidates = [path]
  else:
    root = path / "checkpoints"
    candidates = [root / str(step) for step in reversed(_steps(root))]
    candidates = [c for c in candidates if (c / manifest.NAME).exists()]
  if not candidates:
    raise FileNotFoundError(
      f"no checkpoint in {os.fspath(path)!r}; a training with "
      f"--workdir={os.fspath(path)} makes one (see ecgtwin train --help)"
    )
  intact = []
  for candidate in candidates:
    reason = manifest.fault(candidate)
    if reason is None:
      intact.append(candidate)
    else:
      _warn(f"{candidate} {reason}: skipped")
  if not intact:
    raise DamagedError(f"no checkpoint in {os.fspath(path)!r} is intact")
  return min(intact, key=lambda c: _score(read_meta(c)))


def has_weights(path: str | os.PathLike, part: str) -> bool:
  """True where `path` is a run, checkpoint or twin that holds `part`."""
  path = epath.Path(path)
  if twin_directory.is_twin(path):
    return part in twin_directory.parts(path)
  try:
    return read_meta(find_checkpoint(path))["hyper"]["part"] == part
  except FileNotFoundError:
    return False


def load_weights(path: str | os.PathLike, part: str) -> tuple[dict, dict]:
  """Reads the averaged weights of one part, for inference or as a frozen stage.

  Args:
    path: a run's workdir, one checkpoint of it, or a twin directory.
    part: one of bundle.PARTS.

  Returns:
    (hyper-parameters, variables) as NumPy arrays.

  Raises:
    FileNotFoundError: nothing there.
    ValueError: something else is there, or it is damaged.
  """
  path = epath.Path(path)
  if twin_directory.is_twin(path):
    return twin_directory.read_part(path, part)
  where = find_checkpoint(path)
  hyper = twin_directory.from_json(read_meta(where)["hyper"])
  if hyper["part"] != part:
    raise ValueError(
      f"{os.fspath(path)!r} holds part={hyper['part']!r}, not {part!r}"
    )
  handler = ocp.PyTreeCheckpointHandler()
  folder = (where / "weights").resolve()
  restore_args = jax.tree.map(
    lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
    handler.metadata(folder).tree,
  )
  weights = handler.restore(
    folder, args=ocp.args.PyTreeRestore(restore_args=restore_args)
  )
  return hyper, weights
