"""Where a training's numbers go: metrics.jsonl, TensorBoard, progress bar."""

import json
import pathlib
import time

import jax
from tqdm import tqdm


class MetricsWriter:
  """Writes scalars of a run; only process 0 of several writes.

  metrics.jsonl is the record: one line per step and interval. After a resume a
  step may stand twice; the last line counts (read_metrics does that).
  """

  def __init__(self, workdir, steps: int, start: int, title: str):
    self._active = jax.process_index() == 0
    if not self._active:
      return
    from tensorboardX import SummaryWriter

    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    self._file = open(workdir / "metrics.jsonl", "a")
    self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=start)
    self._bar = tqdm(
      total=steps, initial=start, desc=title, unit="step", dynamic_ncols=True
    )

  def advance(self) -> None:
    if self._active:
      self._bar.update()

  def write(self, step: int, scalars: dict) -> None:
    """Appends one line of scalars, names with `/` for TensorBoard's groups."""
    if not self._active:
      return
    scalars = {name: float(value) for name, value in scalars.items()}
    line = {"step": step, "time": round(time.time(), 3), **scalars}
    self._file.write(json.dumps(line) + "\n")
    self._file.flush()
    for name, value in scalars.items():
      self._board.add_scalar(name, value, step)

  def show(self, **values) -> None:
    """Puts values beside the progress bar."""
    if self._active:
      self._bar.set_postfix({k: f"{v:.4g}" for k, v in values.items()})

  def close(self) -> None:
    if self._active:
      self._bar.close()
      self._file.close()
      self._board.close()


def read_metrics(workdir) -> dict[int, dict]:
  """Reads metrics.jsonl as {step: scalars}; a repeated step's last line wins.

  Lines of one step with different names are merged; a torn last line, as a
  kill can leave, is dropped.
  """
  merged = {}
  text = (pathlib.Path(workdir) / "metrics.jsonl").read_text()
  for line in text.splitlines():
    try:
      scalars = json.loads(line)
    except ValueError:
      continue
    step = scalars.pop("step")
    merged.setdefault(step, {}).update(scalars)
  return merged
