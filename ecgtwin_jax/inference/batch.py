"""Base vectors and ECGs of many people, rows of several in one call.

What evaluations and request files work with; a single person's are methods of
ECGTwin.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import ECG
from ecgtwin_jax.inference import networks, sampling
from ecgtwin_jax.inference.twin import ECGTwin


def extract_bases(
  twin: ECGTwin,
  references: Sequence[ECG],
  conditions: Sequence[Condition],
  *,
  batch_size: int = networks.DECODE_CHUNK,
  mesh: Mesh | None = None,
) -> Float[np.ndarray, "n d"]:
  """Extracts the base vectors of n references, as `ECGTwin.extract_base`.

  Args:
    twin: whose networks to use.
    references: 10 s each, any rate.
    conditions: what each of them shows.
    batch_size: references per call of the networks.
    mesh: devices that share a call, which is always full then.

  Raises:
    ValueError: as extract_base, or a batch that does not split evenly.
  """
  arrays = [
    twin.arrays(condition, "base_extractor")
    for _, condition in zip(references, conditions, strict=True)
  ]
  stacked = tuple(np.stack(rows) for rows in zip(*arrays))
  return twin.networks.extract(
    list(references), stacked, batch_size=batch_size, mesh=mesh
  )


def generate_signals(
  twin: ECGTwin,
  bases: Float[np.ndarray, "n d"],
  conditions: Sequence[Condition],
  seeds: Sequence[int],
  numbers: Sequence[int],
  *,
  batch_size: int = networks.SAMPLE_CHUNK,
  mesh: Mesh | None = None,
  **settings: Any,
) -> tuple[Float[np.ndarray, "n 1024 12"], Float[np.ndarray, "n 128 c"]]:
  """Generates one ECG per row.

  Row k is sample numbers[k] of `ECGTwin.generate` with that row's base vector,
  condition and seed, up to rounding, whatever the other rows are.

  Args:
    twin: whose networks to use.
    bases: one per row.
    conditions: likewise.
    seeds: likewise.
    numbers: of the samples under their seed.
    batch_size: rows per call of the networks.
    mesh: devices that share a call, which is always full then.
    **settings: sampler, steps, eta and the guidances, as `generate` has them.

  Returns:
    Signals in mV, and their scaled latents.

  Raises:
    ValueError: as generate, or a batch that does not split evenly.
  """
  chosen = sampling.Settings(**settings)
  plan = chosen.plan(twin.hyper["denoiser"])
  latents = []
  # In pieces here, too: an embedded report takes 55 kB.
  for start in range(0, len(bases), batch_size):
    rows = slice(start, start + batch_size)
    rngs = sampling.make_keys(seeds[rows], numbers[rows])
    inputs = [
      twin.networks.inputs(base, twin.arrays(condition, "denoiser"), 1)
      for base, condition in zip(bases[rows], conditions[rows], strict=True)
    ]
    latents.append(
      twin.networks.sample(
        plan,
        chosen.strengths,
        twin.networks.draw_noise(plan, rngs),
        rngs,
        jax.tree.map(lambda *parts: np.concatenate(parts), *inputs),
        batch_size=batch_size,
        mesh=mesh,
      )
    )
  latents = np.concatenate(latents)
  return twin.networks.decode(latents, mesh), latents
