"""ECG digital twins in JAX: the public names, each loaded on first use."""

import importlib

__version__ = "0.1.0"

_PUBLIC = {
  "ECG": "ecgtwin_jax.data.ecg",
  "read_ecg": "ecgtwin_jax.data.ecg",
  "Condition": "ecgtwin_jax.data.conditions",
  "ECGTwin": "ecgtwin_jax.inference.twin",
  "import_torch": "ecgtwin_jax.torch_import.convert",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name):
  if name not in _PUBLIC:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__():
  return sorted(__all__)
