"""Builders and witnesses that several tests share."""

# XLA's flags of the tests. Nearly all of their time is compilation; the fusion
# emitters, half of it, are the subject of test_optimized.py alone.
XLA_FLAGS = "--xla_cpu_use_fusion_emitters=false"
