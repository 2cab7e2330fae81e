"""A JAX function of fixed shapes as an ONNX program.

Written with `onnx` alone: each primitive of the function's jaxpr becomes the
operator of the same meaning, `scan` becomes `Scan`; what has no operator may
depend on no argument, and is computed here.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

OPSET = 18
_IR_VERSION = 9  # which runtimes of the last years read
_SAME = {
  **{"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "neg": "Neg"},
  **{"max": "Max", "min": "Min", "abs": "Abs", "pow": "Pow", "sqrt": "Sqrt"},
  **{"exp": "Exp", "log": "Log", "sin": "Sin", "cos": "Cos", "tanh": "Tanh"},
  **{"logistic": "Sigmoid", "erf": "Erf", "floor": "Floor", "ceil": "Ceil"},
  **{"and": "And", "or": "Or", "not": "Not", "eq": "Equal"},
  **{"lt": "Less", "le": "LessOrEqual", "gt": "Greater"},
  **{"ge": "GreaterOrEqual", "stop_gradient": "Identity", "copy": "Identity"},
}
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # programs that are called


def convert(
  function: Callable,
  arguments: Mapping[str, jax.ShapeDtypeStruct],
  results: Sequence[str],
) -> bytes:
  """Converts a function of arrays.

  Args:
    function: takes the arguments in order, returns an array or a tuple.
    arguments: their names, shapes and types.
    results: names of what it returns.

  Raises:
    ValueError: the function uses a primitive that has no operator here, or onnx
      is not installed.
  """
  try:
    import onnx
  except ImportError:
    raise ValueError(
      "writing ONNX needs onnx: pip install 'ecgtwin_jax[onnx]'"
    ) from None
  closed, shapes = jax.make_jaxpr(function, return_shape=True)(
    *arguments.values()
  )
  graph = _Graph(onnx)
  made = graph.run(closed.jaxpr, closed.consts, list(arguments))
  graph.name_results(made, results)
  shapes = jax.tree.leaves(shapes)
  model = onnx.helper.make_model(
    onnx.helper.make_graph(
      _alive(graph.nodes, results),
      "ecgtwin",
      [graph.describe(name, x) for name, x in arguments.items()],
      [graph.describe(*x) for x in zip(results, shapes, strict=True)],
      graph.constants,
    ),
    opset_imports=[onnx.helper.make_opsetid("", OPSET)],
    ir_version=_IR_VERSION,
  )
  used = {name for node in _all(model.graph.node) for name in node.input}
  kept = [x for x in model.graph.initializer if x.name in used]
  del model.graph.initializer[:]
  model.graph.initializer.extend(kept)
  onnx.checker.check_model(model)
  return model.SerializeToString()


def _all(nodes):
  """The nodes, and those of the graphs within them."""
  for node in nodes:
    yield node
    for attribute in node.attribute:
      yield from _all(attribute.g.node)


def _alive(nodes, results):
  """The nodes on which the results depend."""
  needed, kept = set(results), []
  for node in reversed(nodes):
    if needed & set(node.output):
      kept.append(node)
      needed |= {name for each in _all([node]) for name in each.input}
  return kept[::-1]


class _Graph:
  """Nodes in the making: a value is a name, or an array if it is constant."""

  def __init__(self, onnx: Any, outer: "_Graph | None" = None):
    self.onnx = onnx
    self.nodes: list = []
    self.constants: list = outer.constants if outer else []
    self.names: dict = outer.names if outer else {}
    self.numbers: Iterator[int] = outer.numbers if outer else itertools.count()

  def new_name(self):
    return f"v{next(self.numbers)}"

  def name(self, value):
    """The name of a value, which a constant gets here."""
    if isinstance(value, str):
      return value
    if id(value) not in self.names:
      name = self.new_name()
      array = np.asarray(value)
      self.constants.append(self.onnx.numpy_helper.from_array(array, name))
      self.names[id(value)] = name, value  # kept, so that its id stays its own
    return self.names[id(value)][0]

  def describe(self, name, x):
    kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(x.dtype))
    return self.onnx.helper.make_tensor_value_info(name, kind, x.shape)

  def add(self, operator, *inputs, count=1, **attributes):
    """Adds a node and returns the name of its output, or a list of them."""
    names = [self.name(x) for x in inputs]
    outputs = [self.new_name() for _ in range(count)]
    self.nodes.append(
      self.onnx.helper.make_node(operator, names, outputs, **attributes)
    )
    return outputs[0] if count == 1 else outputs

  def name_results(self, values, names):
    for value, name in zip(values, names, strict=True):
      node = self.onnx.helper.make_node("Identity", [self.name(value)], [name])
      self.nodes.append(node)

  def run(self, jaxpr, consts, arguments):
    """Adds the nodes of a jaxpr; returns the values of its results."""
    known = dict(zip(jaxpr.constvars, consts, strict=True))
    known |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(v):
      if isinstance(v, Literal):
        return np.asarray(v.val, v.aval.dtype)
      return known[v]

    for eqn in jaxpr.eqns:
      values = self._run_one(eqn, [read(v) for v in eqn.invars])
      known |= dict(zip(eqn.outvars, values, strict=True))
    return [read(v) for v in jaxpr.outvars]

  def _run_one(self, eqn, inputs):
    name = eqn.primitive.name
    if name == "scan":
      return self._scan(eqn, inputs)
    if name == "platform_index":  # what is for none of JAX's platforms is last
      return [len(eqn.params["platforms"]) - 1]
    if name == "cond" and isinstance(inputs[0], int):
      branch = eqn.params["branches"][inputs[0]]
      return self.run(branch.jaxpr, branch.consts, inputs[1:])
    inner = [eqn.params[key] for key in _INNER if key in eqn.params]
    if inner:
      closed = hasattr(inner[0], "consts")
      jaxpr = inner[0].jaxpr if closed else inner[0]
      return self.run(jaxpr, inner[0].consts if closed else [], inputs)
    # The rest of what is constant is left to the runtime, which is faster.
    keys = any(_is_key(v.aval) for v in (*eqn.invars, *eqn.outvars))
    if keys or name not in _SAME | _RULES:
      if any(isinstance(x, str) for x in inputs):
        raise ValueError(f"JAX's {name!r} has no operator in {__name__}")
      made = eqn.primitive.bind(*inputs, **eqn.params)
      return made if eqn.primitive.multiple_results else [made]
    if name in _SAME:
      return [self.add(_SAME[name], *inputs)]
    made = _RULES[name](self, eqn, *inputs)
    return made if isinstance(made, list) else [made]

  def _scan(self, eqn, inputs):
    p, body = eqn.params, _Graph(self.onnx, self)
    if p["reverse"]:
      raise ValueError("a reverse scan has no operator here")
    jaxpr = p["jaxpr"].jaxpr
    # What is read or made row by row has one axis more outside than inside;
    # parameters that count these are not those of every version of JAX.
    read = _more_axes(eqn.invars, jaxpr.invars)
    carry = len(eqn.outvars) - _more_axes(eqn.outvars, jaxpr.outvars)
    fixed = len(eqn.invars) - carry - read
    rows = jaxpr.invars[fixed:]
    names = [body.new_name() for _ in rows]
    made = body.run(jaxpr, p["jaxpr"].consts, inputs[:fixed] + names)
    results = [body.new_name() for _ in made]
    body.name_results(made, results)
    described = zip(results, jaxpr.outvars, strict=True)
    graph = self.onnx.helper.make_graph(
      _alive(body.nodes, results),
      self.new_name(),
      [self.describe(n, v.aval) for n, v in zip(names, rows, strict=True)],
      [self.describe(n, v.aval) for n, v in described],
    )
    values = self.add(
      "Scan",
      *inputs[fixed:],
      count=len(results),
      body=graph,
      num_scan_inputs=read,
    )
    return [values] if len(results) == 1 else values


def _more_axes(outside, inside):
  pairs = zip(outside, inside, strict=True)
  return sum(a.aval.ndim > b.aval.ndim for a, b in pairs)


def _is_key(aval):
  return jax.dtypes.issubdtype(aval.dtype, jax.dtypes.extended)


def _integers(*values):
  return np.array(values, np.int64)


def _reshape(graph, eqn, x, shape=None):
  (out,) = eqn.outvars
  return graph.add(
    "Reshape", x, _integers(*(out.aval.shape if shape is None else shape))
  )


def _broadcast(graph, eqn, x):
  shape = eqn.params["shape"]
  source = eqn.invars[0].aval.shape
  ones = [1] * len(shape)
  for size, axis in zip(
    source, eqn.params["broadcast_dimensions"], strict=True
  ):
    ones[axis] = size
  x = _reshape(graph, eqn, x, ones)
  return x if ones == list(shape) else graph.add("Expand", x, _integers(*shape))


def _cast(graph, eqn, x):
  kind = np.dtype(eqn.outvars[0].aval.dtype)
  return graph.add(
    "Cast", x, to=graph.onnx.helper.np_dtype_to_tensor_dtype(kind)
  )


def _select(graph, eqn, which, no, yes):
  if eqn.outvars[0].aval.dtype != bool:
    return graph.add("Where", which, yes, no)
  chosen = graph.add("And", which, yes)
  return graph.add("Or", chosen, graph.add("And", graph.add("Not", which), no))


def _power(graph, eqn, x):
  kind = eqn.invars[0].aval.dtype
  return graph.add("Pow", x, np.array(eqn.params["y"], kind))


def _dot(graph, eqn, a, b):
  (a_sum, b_sum), (a_row, b_row) = eqn.params["dimension_numbers"]
  a_rank, b_rank = (v.aval.ndim for v in eqn.invars)
  if (a_rank, b_rank, a_sum, b_sum) == (2, 2, (1,), (0,)):
    return graph.add("MatMul", a, b)
  letters = iter("abcdefghijklmnopqrstuvwxyz")
  first = [next(letters) for _ in range(a_rank)]
  second = [next(letters) for _ in range(b_rank)]
  for i, j in zip((*a_sum, *a_row), (*b_sum, *b_row), strict=True):
    second[j] = first[i]
  out = [first[i] for i in a_row]
  out += [x for i, x in enumerate(first) if i not in (*a_sum, *a_row)]
  out += [x for i, x in enumerate(second) if i not in (*b_sum, *b_row)]
  equation = f"{''.join(first)},{''.join(second)}->{''.join(out)}"
  return graph.add("Einsum", a, b, equation=equation)


def _convolve(graph, eqn, x, kernel):
  p = eqn.params
  if set(p["lhs_dilation"]) != {1} or p["batch_group_count"] != 1:
    raise ValueError("a transposed convolution has no operator here")
  spec = p["dimension_numbers"]
  before, after = zip(*p["padding"], strict=True)
  out = graph.add(
    "Conv",
    graph.add("Transpose", x, perm=spec.lhs_spec),
    graph.add("Transpose", kernel, perm=spec.rhs_spec),
    strides=p["window_strides"],
    pads=[*before, *after],
    dilations=p["rhs_dilation"],
    group=p["feature_group_count"],
  )
  return graph.add("Transpose", out, perm=np.argsort(spec.out_spec).tolist())


def _gather(graph, eqn, x, index):
  """Rows of one axis: what jnp.take and take_along_axis of one row make."""
  p, source = eqn.params["dimension_numbers"], eqn.invars[0].aval.shape
  (axis,) = p.start_index_map if len(p.start_index_map) == 1 else (-1,)
  count = eqn.outvars[0].aval.ndim
  rows = range(axis, axis + eqn.invars[1].aval.ndim - 1)
  whole = [size for i, size in enumerate(source) if i != axis]
  sizes = [s for i, s in enumerate(eqn.params["slice_sizes"]) if i != axis]
  if (
    p.collapsed_slice_dims != (axis,)
    or p.operand_batching_dims
    or sizes != whole
    or list(p.offset_dims) != [i for i in range(count) if i not in rows]
  ):
    raise ValueError(f"gather of {p} has no operator here")
  index = graph.add("Reshape", index, _integers(*eqn.invars[1].aval.shape[:-1]))
  return graph.add("Gather", x, index, axis=axis)


def _pad(graph, eqn, x, value):
  before, after, between = zip(*eqn.params["padding_config"], strict=True)
  if any(between) or min(*before, *after) < 0:
    raise ValueError("padding between values has no operator here")
  return graph.add("Pad", x, _integers(*before, *after), value)


def _reduce(operator):
  def rule(graph, eqn, x):
    axes = _integers(*eqn.params["axes"])
    return graph.add(operator, x, axes, keepdims=0)

  return rule


def _any(graph, eqn, x):
  x = graph.add("Cast", x, to=graph.onnx.TensorProto.INT32)
  return _cast(graph, eqn, _reduce("ReduceMax")(graph, eqn, x))


def _argmax(graph, eqn, x):
  (axis,) = eqn.params["axes"]
  return _cast(graph, eqn, graph.add("ArgMax", x, axis=int(axis), keepdims=0))


def _slice(graph, eqn, x):
  p = eqn.params
  steps = p["strides"] or [1] * len(p["start_indices"])
  return graph.add(
    "Slice",
    x,
    _integers(*p["start_indices"]),
    _integers(*p["limit_indices"]),
    _integers(*range(len(steps))),
    _integers(*steps),
  )


def _split(graph, eqn, x):
  sizes = _integers(*eqn.params["sizes"])
  made = graph.add("Split", x, sizes, count=len(sizes), axis=eqn.params["axis"])
  return made if len(sizes) > 1 else [made]


def _stack(graph, eqn, *parts):
  axis = eqn.params["axis"]
  parts = [graph.add("Unsqueeze", x, _integers(axis)) for x in parts]
  return graph.add("Concat", *parts, axis=axis)


def _unstack(graph, eqn, x):
  axis, count = eqn.params["axis"], len(eqn.outvars)
  parts = graph.add("Split", x, _integers(*[1] * count), count=count, axis=axis)
  parts = parts if count > 1 else [parts]
  return [graph.add("Squeeze", part, _integers(axis)) for part in parts]


def _finite(graph, eqn, x):
  bad = graph.add("Or", graph.add("IsNaN", x), graph.add("IsInf", x))
  return graph.add("Not", bad)


_RULES = {
  "reshape": _reshape,
  "squeeze": _reshape,
  "expand_dims": _reshape,
  "broadcast_in_dim": _broadcast,
  "convert_element_type": _cast,
  "select_n": _select,
  "integer_pow": _power,
  "square": lambda graph, eqn, x: graph.add("Mul", x, x),
  "rsqrt": lambda graph, eqn, x: graph.add("Reciprocal", graph.add("Sqrt", x)),
  "log1p": lambda graph, eqn, x: graph.add(
    "Log", graph.add("Add", x, np.float32(1))
  ),
  "ne": lambda graph, eqn, a, b: graph.add("Not", graph.add("Equal", a, b)),
  "is_finite": _finite,
  "dot_general": _dot,
  "conv_general_dilated": _convolve,
  "gather": _gather,
  "pad": _pad,
  "reduce_sum": _reduce("ReduceSum"),
  "reduce_max": _reduce("ReduceMax"),
  "reduce_min": _reduce("ReduceMin"),
  "reduce_or": _any,
  "argmax": _argmax,
  "cumsum": lambda graph, eqn, x: graph.add(
    "CumSum", x, _integers(eqn.params["axis"]), reverse=eqn.params["reverse"]
  ),
  "concatenate": lambda graph, eqn, *parts: graph.add(
    "Concat", *parts, axis=eqn.params["dimension"]
  ),
  "stack": _stack,
  "unstack": _unstack,
  "split": _split,
  "slice": _slice,
  "tile": lambda graph, eqn, x: graph.add(
    "Tile", x, _integers(*eqn.params["reps"])
  ),
  "transpose": lambda graph, eqn, x: graph.add(
    "Transpose", x, perm=eqn.params["permutation"]
  ),
}
