"""What an evaluation compares: real ECGs of unseen patients and generated ones.

One row is one target: a patient's recording under a condition, the reference
that the twin was given, and what was generated for it.
"""

import dataclasses

import numpy as np
from jaxtyping import Float32, Int

from ecgtwin_jax.data.conditions import Condition

# What the twin is given in place of its due, to say how much of a score the
# condition and the reference earn.
ABLATIONS = (
  "shuffled_text",  # condition of another row
  "shuffled_reference",  # base vector of another patient
  "zero_base",  # base vector 0
  "matched_stranger",  # base of a matched control: like age, sex, condition
)


@dataclasses.dataclass(frozen=True)
class Examples:
  """n targets and what was generated for them; signals are in mV.

  Attributes:
    patients: a dense number of each row's patient.
    references: the earlier recording that stands for the patient.
    reference_conditions: what it shows.
    real: the recording under the target condition.
    conditions: the target conditions.
    generated: {"twin" or one of ABLATIONS: (n, k, 1024, 12)}; "twin" always,
      the ablations that were wanted, each with its own k.
    reference_ids: record ids, "patient/record".
    real_ids: record ids of the real targets.
    decoded: the real ones after the autoencoder, where they are wanted.
    bases: the references' base vectors.
  """

  patients: Int[np.ndarray, " n"]
  references: Float32[np.ndarray, "n 1024 12"]
  reference_conditions: tuple[Condition, ...]
  real: Float32[np.ndarray, "n 1024 12"]
  conditions: tuple[Condition, ...]
  generated: dict[str, Float32[np.ndarray, "n _ 1024 12"]]
  reference_ids: tuple[str, ...]
  real_ids: tuple[str, ...]
  decoded: Float32[np.ndarray, "n 1024 12"] | None = None
  bases: Float32[np.ndarray, "n d"] | None = None

  @property
  def twins(self) -> Float32[np.ndarray, "n _ 1024 12"]:
    return self.generated["twin"]
