"""Quantized weights stay integers through what exporters put behind them.

`w` is DequantizeLinear of constant integers with a scale, one number or one for each place along an axis.

    1. Transpose | Reshape | Squeeze | Unsqueeze of w       →  w'    its integers moved (a Reshape keeps the scales' axis)
    2. Linear(x, w) → BatchNormalization | Mul f | Add o …  →  Linear(x, w', bias')

In 2 (Conv, Gemm; MatMul gets an Add) each output channel's scale is multiplied by what the normalization multiplies it with,
and where that is negative the channel's integers change their sign. Networks that Keras trained with quantization come so:
weights are rounded before the normalization is folded into them. The integers stay those that were trained. Not where a zero
point is not zero or -128 would change its sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit.hub.edit import Editor, array, producer, shape, sole_consumer, static_shape
from edgekit.hub.passes.fuse_linear import affine_of, per_channel

LINEAR = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class _Weights:
    """`integers * scale`; the scale is one number, or a vector along `axis`. `node` is the DequantizeLinear."""

    node: ir.Node
    integers: np.ndarray
    scale: np.ndarray
    axis: int


def move(node: ir.Node, edit: Editor) -> bool:
    """Case 1: `node` is what moves the weights."""
    weights, made = _weights(node.inputs[0]), static_shape(node.outputs[0])
    if weights is None or made is None:
        return False
    if node.op_type == "Transpose":
        order = node.attributes.get_ints("perm") or tuple(reversed(range(weights.integers.ndim)))
        axis: int | None = list(order).index(weights.axis)
        moved = weights.integers.transpose(order)
    else:
        axis = _place(weights.integers.shape, weights.axis, made) if weights.scale.size > 1 else 0
        moved = weights.integers.reshape(made)
    if axis is None:
        return False
    return edit.replace(node.outputs[0], _dequantized(weights, moved, weights.scale, axis, node, edit))


def fold(node: ir.Node, edit: Editor) -> bool:
    """Case 2: `node` is the arithmetic after the linear operator."""
    affine = affine_of(node)
    linear = producer(affine.data, *LINEAR) if affine is not None else None
    weights = _weights(linear.inputs[1]) if linear is not None else None
    if affine is None or linear is None or weights is None or sole_consumer(affine.data) is not node or node.graph is None:
        return False
    rank, axis = len(shape(affine.data) or ()), _outputs_axis(linear, weights)
    channels = weights.integers.shape[axis]
    given = linear.inputs[2] if len(linear.inputs) > 2 else None
    bias = np.zeros(channels) if given is None else array(given)
    along = 1 if linear.op_type == "Conv" else rank - 1
    factor, offset = (per_channel(part, rank, along, channels) for part in (affine.factor, affine.offset))
    if (
        factor is None
        or offset is None
        or bias is None
        or bias.size not in (1, channels)
        or shape(node.outputs[0]) != shape(affine.data)
    ):
        return False
    if any(linear.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return False
    scaled = linear.inputs[1] if (factor == 1).all() else _scaled(weights, factor, axis, linear, edit)
    if scaled is None or (linear.op_type == "MatMul" and scaled is linear.inputs[1]):
        return False
    shift = edit.constant((bias.reshape(-1) * factor + offset).astype(np.float32), f"{node.outputs[0].name}_bias", node.graph)
    if linear.op_type != "MatMul":
        again = edit.op(linear.op_type, [linear.inputs[0], scaled, shift], dict(linear.attributes), before=node)
        return edit.replace(node.outputs[0], again)
    product = edit.op("MatMul", [linear.inputs[0], scaled], before=node)
    return edit.replace(node.outputs[0], edit.op("Add", [product, shift], before=node) if offset.any() else product)


def _scaled(weights: _Weights, factor: np.ndarray, axis: int, before: ir.Node, edit: Editor) -> ir.Value | None:
    """The weights times a factor for each place along an axis; None where that changes more of an integer than its sign."""
    if (weights.scale.size > 1 and weights.axis != axis) or not factor.all() or not np.isfinite(factor).all():
        return None
    sign = np.where(factor < 0, -1, 1).astype(np.int16).reshape([-1 if i == axis else 1 for i in range(weights.integers.ndim)])
    integers = weights.integers * sign
    if integers.max() > 127:
        return None
    size = np.abs(factor) if weights.scale.size > 1 or (np.abs(factor) != np.abs(factor[0])).any() else np.abs(factor[0])
    scale = (weights.scale.astype(np.float64) * size).astype(np.float32)
    return _dequantized(weights, integers.astype(np.int8), scale, axis, before, edit)


def _weights(value: ir.Value | None) -> _Weights | None:
    node = producer(value, "DequantizeLinear")
    if node is None or node.attributes.get_int("block_size"):
        return None
    integers, scale = array(node.inputs[0]), array(node.inputs[1])
    zero = array(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(1, np.int8)
    if integers is None or scale is None or zero is None or integers.dtype != np.int8 or scale.ndim > 1 or not integers.ndim:
        return None
    if zero.any() or scale.dtype != np.float32:
        return None
    axis = node.attributes.get_int("axis", 1) % integers.ndim if scale.size > 1 else 0
    return _Weights(node, integers, scale.reshape(-1) if scale.size > 1 else scale.reshape(()), axis)


def _dequantized(
    weights: _Weights, integers: np.ndarray, scale: np.ndarray, axis: int, before: ir.Node, edit: Editor
) -> ir.Value:
    """A DequantizeLinear of these integers, in front of a node, named like the one that `weights` are of."""
    assert before.graph is not None
    name = weights.node.outputs[0].name
    operands = [
        edit.constant(integers, f"{name}/integers", before.graph),
        edit.constant(scale.astype(np.float32), f"{name}/scale", before.graph),
    ]
    return edit.op("DequantizeLinear", operands, {"axis": axis} if scale.size > 1 else None, before=before)


def _outputs_axis(linear: ir.Node, weights: _Weights) -> int:
    if linear.op_type == "MatMul":
        return weights.integers.ndim - 1
    return 0 if linear.op_type == "Conv" or linear.attributes.get_int("transB") else 1


def _place(old: tuple[int, ...], axis: int, new: tuple[int, ...]) -> int | None:
    """Where an axis is after a reshape; None where it is torn apart or merged."""
    before = int(np.prod(old[:axis], dtype=np.int64))
    places = [i for i, d in enumerate(new) if d == old[axis] and int(np.prod(new[:i], dtype=np.int64)) == before]
    return places[0] if places else None


RULES = {
    "Transpose": [move],
    "Reshape": [move],
    "Squeeze": [move],
    "Unsqueeze": [move],
    **{op: [fold] for op in ("BatchNormalization", "Mul", "Div", "Neg", "Add", "Sub")},
}
