"""Checkpoints of a training: saved as one, sealed, and checked on the way back.

Layout of <workdir>/checkpoints/<step>/: `weights` (averaged parameters and
model state, what inference reads), `state` (the rest of the training state),
`meta` (configuration, hyper-parameters, metrics) and `manifest.json` (size and
sha256 of every file). Orbax notices a missing file but not a flipped byte; the
manifest does.
"""

import hashlib
import json
import math
import os
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import (
  preservation_policy as preservation,
)

from ecgtwin_jax import bundle
from ecgtwin_jax.flags import flatten

MANIFEST = "manifest.json"
# These may differ between the runs that share a checkpoint: they change what
# is written and where, never what is computed.
_FREE_KEYS = frozenset(
  "workdir job stop_at fsdp log_every checkpoint_every keep_checkpoints "
  "profile_steps".split()
)


class DamagedError(ValueError):
  """Checkpoints exist, but none of them can be trusted."""


def _warn(message: str) -> None:
  print(f"checkpoint: {message}", file=sys.stderr, flush=True)


def _files(folder: epath.Path, prefix: str = "") -> list[str]:
  names = []
  for path in folder.iterdir():
    name = prefix + path.name
    names += _files(path, f"{name}/") if path.is_dir() else [name]
  return sorted(name for name in names if not name.startswith(MANIFEST))


def _entry(path: epath.Path) -> dict:
  data = path.read_bytes()
  return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def seal(step_dir) -> None:
  """Writes the manifest of a committed checkpoint."""
  step_dir = epath.Path(step_dir)
  manifest = {name: _entry(step_dir / name) for name in _files(step_dir)}
  draft = step_dir / f"{MANIFEST}.tmp"
  draft.write_text(json.dumps(manifest, indent=1))
  draft.rename(step_dir / MANIFEST)


def fault(step_dir) -> str | None:
  """Returns what is wrong with a sealed checkpoint, None where nothing is."""
  step_dir = epath.Path(step_dir)
  try:
    manifest = json.loads((step_dir / MANIFEST).read_text())
    entries = {name: (e["size"], e["sha256"]) for name, e in manifest.items()}
  except (ValueError, KeyError, TypeError, AttributeError, OSError):
    return f"{MANIFEST} cannot be read"
  for name, (size, digest) in entries.items():
    if not (step_dir / name).exists():
      return f"{name} is missing"
    found = _entry(step_dir / name)
    if found["size"] != size:
      return f"{name} has {found['size']} bytes instead of {size}"
    if found["sha256"] != digest:
      return f"{name} does not match its sha256"
  return None if entries else f"{MANIFEST} is empty"


def _steps(root: epath.Path) -> list[int]:
  if not root.exists():
    return []
  return sorted(int(p.name) for p in root.iterdir() if p.name.isdigit())


def _score(metrics) -> float:
  value = (metrics or {}).get("score")
  return value if value is not None and math.isfinite(value) else math.inf


def config_difference(saved: dict, config) -> list[str]:
  """Lists "key: saved -> now" for what makes a checkpoint unfit."""
  now = json.loads(json.dumps(flatten(config)))
  lines = []
  for key in sorted(saved.keys() | now.keys()):
    if key not in _FREE_KEYS and saved.get(key) != now.get(key):
      lines.append(f"{key}: {saved.get(key)!r} -> {now.get(key)!r}")
  return lines


class Checkpointer:
  """Saves and restores one training's state.

  Args:
    workdir: the run's folder; checkpoints go to <workdir>/checkpoints.
    config: the run's configuration, stored and compared on restore.
    hyper: what is needed to rebuild the model (JSON), stored beside it.
    data_fingerprint: identifies the training data, compared on restore.
  """

  def __init__(self, workdir, config, hyper: dict, data_fingerprint: str):
    self.root = epath.Path(os.path.abspath(workdir)) / "checkpoints"
    if "://" in os.fspath(workdir):
      self.root = epath.Path(workdir) / "checkpoints"
    self._config = config
    self._meta = {
      "config": json.loads(json.dumps(flatten(config))),
      "hyper": hyper,
      "data": data_fingerprint,
    }
    # An old trash/<step> makes the next deletion of that step fail.
    if jax.process_index() == 0 and (self.root / "trash").exists():
      (self.root / "trash").rmtree()
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

  def _newest_good(self) -> int | None:
    """Picks the step to continue from; moves what is beyond it aside."""
    steps = _steps(self.root)
    sealed = [s for s in steps if (self.root / str(s) / MANIFEST).exists()]
    bad = {}
    for step in reversed(steps):
      where = self.root / str(step)
      if step not in sealed:
        bad[step] = "was never finished"
        continue
      reason = fault(where)
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
    if jax.process_index() == 0:
      for other in bad:
        aside = self.root.parent / "checkpoints_damaged"
        aside.mkdir(exist_ok=True)
        if (aside / str(other)).exists():
          (aside / str(other)).rmtree()
        (self.root / str(other)).rename(aside / str(other))
    if bad:
      _warn(f"continuing from step {step or 0}")
    return step

  def restore(self, abstract):
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
    step = self._newest_good()
    if jax.process_count() > 1:
      from jax.experimental import multihost_utils

      multihost_utils.sync_global_devices("newest_good")
    if step is None:
      return None
    manager = self._open()
    meta = read_meta(self.root / str(step))
    lines = config_difference(meta["config"], self._config)
    if meta["data"] != self._meta["data"]:
      lines.append(f"data: {meta['data']} -> {self._meta['data']}")
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
    """Starts saving {"weights": ..., "state": ...} in the background."""
    manager = self._open()
    manager.wait_until_finished()
    self.seal_finished()
    meta = dict(self._meta, step=step, score=score)
    manager.save(
      step,
      args=ocp.args.Composite(
        meta=ocp.args.JsonSave(meta),
        **{k: ocp.args.StandardSave(v) for k, v in trees.items()},
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
          seal(self.root / str(step))
      self._unsealed.clear()

  def reached_preemption(self, step: int) -> bool:
    """True on every process once any was told to stop (several processes)."""
    return self._open().reached_preemption(step)

  def close(self) -> None:
    if self._manager is not None:
      self._manager.wait_until_finished()
      self.seal_finished()
      self._manager.close()


def read_meta(step_dir) -> dict:
  """Reads the configuration, hyper-parameters and score of a checkpoint."""
  return json.loads((epath.Path(step_dir) / "meta" / "metadata").read_text())


def find_checkpoint(path) -> epath.Path:
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
    candidates = [c for c in candidates if (c / MANIFEST).exists()]
  if not candidates:
    raise FileNotFoundError(f"no checkpoint in {os.fspath(path)!r}")
  intact = []
  for candidate in candidates:
    reason = fault(candidate)
    if reason is None:
      intact.append(candidate)
    else:
      _warn(f"{candidate} {reason}: skipped")
  if not intact:
    raise DamagedError(f"no checkpoint in {os.fspath(path)!r} is intact")
  return min(intact, key=lambda c: _score(read_meta(c)))


def has_weights(path, part: str) -> bool:
  """True where `path` is a run, checkpoint or twin that holds `part`."""
  path = epath.Path(path)
  if bundle.is_twin(path):
    return part in bundle.parts(path)
  try:
    return read_meta(find_checkpoint(path))["hyper"]["part"] == part
  except FileNotFoundError:
    return False


def load_weights(path, part: str) -> tuple[dict, dict]:
  """Reads the averaged weights of one part, for inference or as a frozen stage.

  Args:
    path: a run's workdir, one checkpoint of it, or a twin directory.
    part: "vae", "base_extractor", "denoiser" or "clip".

  Returns:
    (hyper-parameters, variables) as NumPy arrays.

  Raises:
    FileNotFoundError: nothing there.
    ValueError: something else is there, or it is damaged.
  """
  path = epath.Path(path)
  if bundle.is_twin(path):
    return bundle.read_part(path, part)
  where = find_checkpoint(path)
  hyper = bundle.from_json(read_meta(where)["hyper"])
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
