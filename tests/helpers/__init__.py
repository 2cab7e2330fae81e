"""Builders and witnesses that several tests share."""

import importlib.metadata

# XLA's flags of the tests. Nearly all of their time is compilation; the fusion
# emitters, half of it, are the subject of test_optimized.py alone. Later
# versions know no such option, and end where it is given.
HAS_EMITTERS_OPTION = importlib.metadata.version("jaxlib").startswith("0.10.")
XLA_FLAGS = "--xla_cpu_use_fusion_emitters=false" if HAS_EMITTERS_OPTION else ""
EMITTERS_ON = (
  {"xla_cpu_use_fusion_emitters": True} if HAS_EMITTERS_OPTION else {}
)
