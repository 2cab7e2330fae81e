"""What a step costs and what a device could do: floating-point operations."""

import math
from typing import Any

from jax.extend.core import jaxprs_in_params

# bfloat16 (on the V100, float16) matrix products per second, dense, by
# jax.Device.device_kind. Sources: cloud.google.com/tpu/docs, the page of each
# version, per chip (v2 and v3: per core, which is what JAX calls a device);
# NVIDIA's data sheets, whose figures with sparsity are halved.
PEAK = {
  "TPU v2": 22.5e12,
  "TPU v3": 61.5e12,
  "TPU v4": 275e12,
  "TPU v5 lite": 197e12,
  "TPU v5e": 197e12,
  "TPU v5": 459e12,
  "TPU v5p": 459e12,
  "TPU v6 lite": 918e12,
  "Tesla V100-SXM2-16GB": 125e12,
  "NVIDIA A100-SXM4-40GB": 312e12,
  "NVIDIA A100-SXM4-80GB": 312e12,
  "NVIDIA A100 80GB PCIe": 312e12,
  "NVIDIA L4": 121e12,
  "NVIDIA H100 PCIe": 756e12,
  "NVIDIA H100 80GB HBM3": 989e12,
  "NVIDIA H200": 989e12,
}


def peak_of(device: Any) -> float | None:
  """Returns a device's peak in operations per second; None: not known."""
  return PEAK.get(device.device_kind)


def count_flops(jaxpr: Any) -> float:
  """Counts 2 operations per multiply-add of products and convolutions.

  Counted on the program as traced, before it is split over devices: the
  compiled one's cost_analysis() counts a loop's body once, and on GPUs not the
  products that a library computes. What remat computes twice counts twice.

  Args:
    jaxpr: a closed one, such as `jax.jit(f).trace(*arguments).jaxpr`.
  """
  total = 0.0
  for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
      total += _product_flops(equation)
    elif name == "conv_general_dilated":
      total += _convolution_flops(equation)
    inner = [count_flops(p) for p in jaxprs_in_params(params)]
    whole = sum(inner)
    if name == "cond":
      # One of the branches runs: at most the costliest, or, where a CPU has a
      # way of its own, the last, which is that of other platforms.
      by_platform = params["branches_platforms"] is not None
      whole = inner[-1] if by_platform else max(inner)
    total += whole * (params["length"] if name == "scan" else 1)
  return total


def _product_flops(equation) -> float:
  left, _ = (v.aval.shape for v in equation.invars)
  contracted = equation.params["dimension_numbers"][0][0]
  return (
    2.0
    * equation.outvars[0].aval.size
    * math.prod(left[axis] for axis in contracted)
  )


def _convolution_flops(equation) -> float:
  kernel = equation.invars[1].aval
  features = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
  # The gradient of a strided one meets zeros between the values: not counted.
  zeros = math.prod(equation.params["lhs_dilation"])
  out = equation.outvars[0].aval.size
  return 2.0 * out * kernel.size / features / zeros
