"""Computing a node whose inputs are all constant.

A numpy function per operator that exporters really put on constants; any other deterministic operator goes to ONNX's reference
implementation, which is imported only then. Sums and products of many terms are accumulated in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

Array = np.ndarray
Operands = Sequence[Array | None]

# Not functions of their inputs, or (DequantizeLinear) carrying information that folding would lose.
NEVER = frozenset(
    "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Multinomial Bernoulli Dropout "
    "QuantizeLinear DequantizeLinear DynamicQuantizeLinear If Loop Scan SequenceMap "
    "Optional OptionalGetElement OptionalHasElement SequenceConstruct SequenceEmpty SequenceInsert SequenceErase "
    "SequenceAt SequenceLength SplitToSequence ConcatFromSequence".split()
)


def evaluate(node: ir.Node, inputs: Operands, opset: int) -> list[Array] | None:
    """A node's outputs for these inputs, in the order of its outputs; None where the operator cannot be evaluated here.

    Args:
        node: A node of ai.onnx without graphs in its attributes.
        inputs: One array per input; None for an input that is left out.
        opset: The version of ai.onnx.
    """
    if node.op_type in NEVER or node.domain != "":
        return None
    function = _TABLE.get(node.op_type)
    with np.errstate(all="ignore"):
        if function is not None and len(node.outputs) == 1:
            result = function(node.attributes, *inputs)
            return None if result is None else [np.asarray(result)]
        if node.op_type == "Split":
            return _split(node, inputs)
        return _reference(node, inputs, opset)


def _reference(node: ir.Node, inputs: Operands, opset: int) -> list[Array] | None:
    import onnx
    import onnx.reference

    message = ir.serde.serialize_node(node)
    feeds = {value.name: array for value, array in zip(node.inputs, inputs, strict=True) if value is not None and value.name}
    try:
        implementation = onnx.reference.ReferenceEvaluator(message, opsets={"": min(opset, onnx.defs.onnx_opset_version())})
        results = implementation.run(None, feeds)
    except (NotImplementedError, RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return None  # no reference implementation, or it lacks this form: the node stays and the runtimes compute it
    return [np.asarray(result) for result in results]


def _split(node: ir.Node, inputs: Operands) -> list[Array] | None:
    data, sizes = inputs[0], inputs[1] if len(inputs) > 1 else None
    if data is None:
        return None
    axis = node.attributes.get_int("axis", 0)
    if sizes is None:
        size = -(-data.shape[axis] // len(node.outputs))
        sizes = np.full(len(node.outputs), size)
    return np.split(data, np.cumsum(sizes)[:-1].astype(int), axis=axis)


# One function per operator: attributes first, then the inputs.


def _shape(attributes: Any, data: Array) -> Array:
    return np.array(data.shape[attributes.get_int("start", 0) : attributes.get_int("end")], np.int64)


def _cast(attributes: Any, data: Array) -> Array | None:
    target = ir.DataType(attributes["to"].as_int())
    # float8, 4-bit and string casts round or parse in ways of their own
    if target.itemsize < 1 or "FLOAT8" in target.name or target == ir.DataType.STRING or data.dtype.kind in "OSU":
        return None
    dtype = target.numpy()
    if data.dtype.kind == "f" and np.dtype(dtype).kind in "iu":
        return np.trunc(data).astype(np.int64).astype(dtype)
    return data.astype(dtype)


def _filled(attributes: Any, target: Array) -> Array:
    value = attributes.get_tensor("value")
    return np.full(tuple(int(dim) for dim in target), np.float32(0) if value is None else value.numpy().reshape(-1)[0])


def _range(attributes: Any, start: Array, limit: Array, delta: Array) -> Array:
    count = max(int(np.ceil((limit.reshape(()) - start.reshape(())) / delta.reshape(()))), 0)
    return (start.reshape(()) + np.arange(count) * delta.reshape(())).astype(start.dtype)


def _gather(attributes: Any, data: Array, index: Array) -> Array:
    return np.take(data, index, axis=attributes.get_int("axis", 0))


def _gather_elements(attributes: Any, data: Array, index: Array) -> Array:
    axis = attributes.get_int("axis", 0) % data.ndim
    window = tuple(slice(None) if place == axis else slice(size) for place, size in enumerate(index.shape))
    return np.take_along_axis(data[window], index, axis)


def _gather_nd(attributes: Any, data: Array, index: Array) -> Array:
    batch = np.ogrid[tuple(slice(size) for size in index.shape[: attributes.get_int("batch_dims", 0)])]
    wide = [place.reshape(*place.shape, *[1] * (index.ndim - 1 - len(batch))) for place in batch]
    return data[(*wide, *np.moveaxis(index, -1, 0))]


def _scatter_nd(attributes: Any, data: Array, index: Array, updates: Array) -> Array:
    result, places = data.copy(), tuple(np.moveaxis(index, -1, 0))
    reduction = attributes.get_string("reduction", "none")
    if reduction == "none":
        result[places] = updates  # the last of those for one place
    else:
        _REDUCTIONS[reduction].at(result, places, updates)
    return result


_REDUCTIONS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _slice(
    attributes: Any, data: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None
) -> Array:
    axes = np.arange(len(starts)) if axes is None else axes
    steps = np.ones(len(starts), np.int64) if steps is None else steps
    index = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), axes.tolist(), steps.tolist(), strict=True):
        size = data.shape[axis]
        index[axis] = slice(start, None if step < 0 and end < -size else end, step)
    return data[tuple(index)]


def _unsqueeze(attributes: Any, data: Array, axes: Array) -> Array:
    return np.expand_dims(data, tuple(axes.reshape(-1).tolist()))


def _squeeze(attributes: Any, data: Array, axes: Array | None = None) -> Array:
    return np.squeeze(data, None if axes is None else tuple(axes.reshape(-1).tolist()))


def _reshape(attributes: Any, data: Array, target: Array) -> Array:
    dims = target.tolist()
    if not attributes.get_int("allowzero", 0):
        dims = [data.shape[axis] if dim == 0 else dim for axis, dim in enumerate(dims)]
    return data.reshape(dims)


def _transpose(attributes: Any, data: Array) -> Array:
    return np.ascontiguousarray(data.transpose(attributes.get_ints("perm")))


def _divide(attributes: Any, left: Array, right: Array) -> Array | None:
    if left.dtype.kind in "iu":
        if not right.all():
            return None
        return (np.sign(left) * np.sign(right) * (np.abs(left) // np.abs(right))).astype(left.dtype)
    return left / right


def _power(attributes: Any, left: Array, right: Array) -> Array:
    return np.power(left.astype(np.float64), right.astype(np.float64)).astype(left.dtype)


def _expand(attributes: Any, data: Array, target: Array) -> Array:
    return np.array(np.broadcast_to(data, np.broadcast_shapes(data.shape, tuple(target.tolist()))))


def _tile(attributes: Any, data: Array, repeats: Array) -> Array:
    return np.tile(data, repeats)


def _sigmoid(attributes: Any, data: Array) -> Array:
    grown = np.exp(data)
    return np.where(data > 0, 1 / (1 + np.exp(-data)), grown / (1 + grown))


def _matmul(attributes: Any, left: Array, right: Array) -> Array:
    return np.matmul(left.astype(_wide(left)), right.astype(_wide(right))).astype(left.dtype)


def _wide(data: Array) -> Any:
    return np.float64 if data.dtype.kind == "f" else data.dtype


def _reduce(function: Callable[..., Array]) -> Callable[..., Array]:
    def compute(attributes: Any, data: Array, axes: Array | None = None) -> Array:
        given = None if axes is None or not axes.size else tuple(axes.tolist())
        if given is None and attributes.get_int("noop_with_empty_axes", 0):
            return data
        keep = bool(attributes.get_int("keepdims", 1))
        return function(data.astype(_wide(data)), axis=given, keepdims=keep).astype(data.dtype)

    return compute


def _float64(function: Callable[..., Array]) -> Callable[..., Array]:
    """A unary function computed in float64 and rounded to the input's dtype."""

    def compute(attributes: Any, data: Array) -> Array:
        return function(data.astype(_wide(data))).astype(data.dtype)

    return compute


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """A numpy function that takes the inputs and no attributes."""

    def compute(attributes: Any, *inputs: Array) -> Any:
        return function(*inputs)

    return compute


_TABLE: dict[str, Callable[..., Any]] = {
    "Shape": _shape,
    "Size": _plain(lambda data: np.array(data.size, np.int64)),
    "Cast": _cast,
    "Identity": _plain(lambda data: data),
    "ConstantOfShape": _filled,
    "Range": _range,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterND": _scatter_nd,
    "Slice": _slice,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Concat": lambda attributes, *inputs: np.concatenate(inputs, axis=attributes["axis"].as_int()),
    "Expand": _expand,
    "Tile": _tile,
    "Add": _plain(np.add),
    "Sub": _plain(np.subtract),
    "Mul": _plain(np.multiply),
    "Div": _divide,
    "Pow": _power,
    "Neg": _plain(np.negative),
    "Abs": _plain(np.abs),
    "Sqrt": _float64(np.sqrt),
    "Reciprocal": _float64(np.reciprocal),
    "Exp": _float64(np.exp),
    "Log": _float64(np.log),
    "Relu": _plain(lambda data: np.maximum(data, 0)),
    "Sigmoid": _sigmoid,
    "Floor": _plain(np.floor),
    "Ceil": _plain(np.ceil),
    "MatMul": _matmul,
    "ReduceSum": _reduce(np.sum),
    "ReduceMean": _reduce(np.mean),
    "ReduceProd": _reduce(np.prod),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "Equal": _plain(np.equal),
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "And": _plain(np.logical_and),
    "Or": _plain(np.logical_or),
    "Not": _plain(np.logical_not),
    "Where": _plain(np.where),
}
