"""ECG digital twins in JAX: the public names, each loaded on first use."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from ecgtwin_jax.beats.criteria_checks import check_criteria
  from ecgtwin_jax.data.conditions import Condition, describe
  from ecgtwin_jax.data.ecg import ECG, LEADS, example_ecg, read_ecg
  from ecgtwin_jax.data.heart_rate import detect_heart_rate
  from ecgtwin_jax.data.twin_file import TwinFile, write_twins
  from ecgtwin_jax.inference.twin import ECGTwin
  from ecgtwin_jax.jobs.inputs import fill_condition
  from ecgtwin_jax.plotting import plot_overview
  from ecgtwin_jax.torch_import.convert import import_torch
else:  # type checkers would take any name for one that it gives

  def __getattr__(name: str) -> Any:
    if name not in _MODULES:
      raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"ecgtwin_jax.{_MODULES[name]}")
    return getattr(module, name)


__version__ = "0.1.0"

_MODULES = {
  "ECG": "data.ecg",
  "LEADS": "data.ecg",
  "example_ecg": "data.ecg",
  "read_ecg": "data.ecg",
  "Condition": "data.conditions",
  "describe": "data.conditions",
  "fill_condition": "jobs.inputs",
  "ECGTwin": "inference.twin",
  "detect_heart_rate": "data.heart_rate",
  "check_criteria": "beats.criteria_checks",
  "plot_overview": "plotting",
  "TwinFile": "data.twin_file",
  "write_twins": "data.twin_file",
  "import_torch": "torch_import.convert",
}

__all__ = [
  "ECG",
  "LEADS",
  "Condition",
  "ECGTwin",
  "TwinFile",
  "__version__",
  "check_criteria",
  "describe",
  "detect_heart_rate",
  "example_ecg",
  "fill_condition",
  "import_torch",
  "plot_overview",
  "read_ecg",
  "write_twins",
]


def __dir__() -> list[str]:
  return sorted(__all__)
