"""Before layouts are assigned: ONNX operators that LiteRT has no form of, in terms of those that it has.

Each function takes a node and the builder that places new nodes in front of it, and returns the values that replace its outputs,
or None where the node can stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit.layout import constant, dims, rank

Shape = Sequence[int | str]


class Builder:
    """Places nodes before `node`, with names, dtypes and shapes of what they make."""

    def __init__(self, node: ir.Node) -> None:
        self.node = node
        assert isinstance(node.graph, ir.Graph)
        self.graph = node.graph
        self._count = 0

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        shape: Shape,
        dtype: ir.DataType | None = None,
        **attributes: Any,
    ) -> ir.Value:
        """One node with one output of that shape; of the replaced node's dtype where none is given."""
        made = ir.node(op_type, inputs, attributes={k: v for k, v in attributes.items() if v is not None})
        self._count += 1
        out = made.outputs[0]
        made.name = out.name = f"{self.node.outputs[0].name}/{op_type}{self._count}"
        out.dtype, out.shape = dtype or self.node.outputs[0].dtype, ir.Shape(shape)  # type: ignore[assignment]
        self.graph.insert_before(self.node, made)
        return out

    def const(self, array: np.ndarray) -> ir.Value:
        self._count += 1
        name = f"{self.node.outputs[0].name}/const{self._count}"
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
        self.graph.register_initializer(value)
        return value

    def ints(self, values: Sequence[int]) -> ir.Value:
        return self.const(np.array(values, np.int64))

    def transpose(self, value: ir.Value, perm: Sequence[int]) -> ir.Value:
        shape = dims(value)
        return self.op("Transpose", [value], [shape[a] for a in perm], value.dtype, perm=list(perm))

    def reshape(self, value: ir.Value, shape: Shape) -> ir.Value:
        return self.op("Reshape", [value, self.ints([d if isinstance(d, int) else -1 for d in shape])], shape, value.dtype)


Decomposition = Callable[[ir.Node, Builder], "list[ir.Value] | None"]


def decompose(model: ir.Model) -> None:
    """Apply every decomposition that fits, in place."""
    graph = model.graph
    for node in list(graph):
        function = DECOMPOSITIONS.get(node.op_type)
        if function is None or node.domain not in ("", "ai.onnx"):
            continue
        values = function(node, Builder(node))
        if values is None:
            continue
        for old, new in zip(node.outputs, values, strict=False):
            name = old.name
            old.name, new.name = f"{name}/replaced", name
            old.replace_all_uses_with(new, replace_graph_outputs=True)
        graph.remove(node, safe=True)


def has_lowering(node: ir.Node) -> bool:
    """Whether the compiler has a form of its own for a node; otherwise the node's ONNX function body is the better one."""
    from edgekit.litert.lower import LOWERINGS

    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "LayerNormalization":
        return not any(v.uses() or v.is_graph_output() for v in node.outputs[1:])
    return node.op_type in LOWERINGS or node.op_type in DECOMPOSITIONS


def _one_spatial_axis(node: ir.Node, b: Builder) -> list[ir.Value] | None:
    """A 1-D convolution or pooling is a 2-D one of height 1."""
    x, y = node.inputs[0], node.outputs[0]
    if x is None or rank(x) != 3 or len(node.outputs) > 1:
        return None
    attributes: dict[str, Any] = {name: a.value for name, a in node.attributes.items()}
    for name, neutral in (("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("output_padding", 0)):
        if name in attributes:
            attributes[name] = [neutral, *attributes[name]]
    if "output_shape" in attributes:
        attributes["output_shape"] = [1, *attributes["output_shape"]]
    if "pads" in attributes:
        begin, end = attributes["pads"]
        attributes["pads"] = [0, begin, 0, end]
    inputs: list[ir.Value | None] = [_unsqueeze(b, x), *node.inputs[1:]]
    if node.op_type in ("Conv", "ConvTranspose"):
        weight = constant(node.inputs[1])
        if weight is None:
            return None
        inputs[1] = b.const(weight[:, :, None, :])
    shape = dims(y)
    made = b.op(node.op_type, inputs, (*shape[:2], 1, shape[2]), **attributes)
    return [b.op("Squeeze", [made, b.ints([2])], shape)]


def _unsqueeze(b: Builder, x: ir.Value) -> ir.Value:
    shape = dims(x)
    return b.op("Unsqueeze", [x, b.ints([2])], (*shape[:2], 1, shape[2]), x.dtype)


def _last_axis(node: ir.Node, b: Builder) -> list[ir.Value] | None:
    """Softmax along another axis: that axis is brought to the end and back; layout assignment makes most of it vanish."""
    x = node.inputs[0]
    if x is None:
        return None
    n = rank(x)
    axis = node.attributes["axis"].as_int() % n if "axis" in node.attributes and n else n - 1
    if axis == n - 1:
        return None
    perm = [*(a for a in range(n) if a != axis), axis]
    moved = b.op(node.op_type, [b.transpose(x, perm)], [dims(x)[a] for a in perm], axis=-1)
    return [b.transpose(moved, np.argsort(perm).tolist())]


def _batch_normalization(node: ir.Node, b: Builder) -> list[ir.Value] | None:
    """(x - mean) * (scale / sqrt(var + epsilon)) + bias with the four computed or constant."""
    x, scale, bias, mean, variance = node.inputs[:5]
    constants = [constant(v) for v in (scale, bias, mean, variance)]
    if x is None or any(c is None for c in constants):
        return None
    s, o, m, v = (c.astype(np.float64) for c in constants if c is not None)
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    factor = s / np.sqrt(v + epsilon)
    dtype = x.dtype.numpy() if x.dtype is not None else np.float32
    column = (-1, *(1,) * (rank(x) - 2))
    scaled = b.op("Mul", [x, b.const(factor.astype(dtype).reshape(column))], dims(x))
    return [b.op("Add", [scaled, b.const((o - m * factor).astype(dtype).reshape(column))], dims(x))]


def _group_normalization(node: ir.Node, b: Builder) -> list[ir.Value] | None:
    """Instance- and GroupNormalization: normalize each group over its channels and space, then scale per channel.

    With one channel a group the spatial axes are reduced in place; otherwise the channels are split into (group, rest).
    """
    x, scale, bias = node.inputs[:3]
    if x is None or scale is None or bias is None:
        return None
    shape, n = dims(x), rank(x)
    channels = shape[1]
    if not isinstance(channels, int):
        return None
    groups = node.attributes["num_groups"].as_int() if "num_groups" in node.attributes else channels
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    dtype = x.dtype.numpy() if x.dtype is not None else np.dtype(np.float32)
    grouped = groups != channels
    inner = b.reshape(x, (shape[0], groups, channels // groups, *shape[2:])) if grouped else x
    held = dims(inner)
    axes = list(range(2, len(held)))
    small = (*held[:2], *(1,) * len(axes))

    def reduced(value: ir.Value) -> ir.Value:
        return b.op("ReduceMean", [value, b.ints(axes)], small, keepdims=1)

    centred = b.op("Sub", [inner, reduced(inner)], held)
    variance = reduced(b.op("Mul", [centred, centred], held))
    above = b.op("Add", [variance, b.const(np.array(epsilon, dtype))], small)
    inverse = b.op("Pow", [above, b.const(np.array(-0.5, dtype))], small)
    normal = b.op("Mul", [centred, inverse], held)
    if grouped:
        normal = b.reshape(normal, shape)
    column = (channels, *(1,) * (n - 2))
    scaled = b.op("Mul", [normal, _column(b, scale, column)], shape)
    return [b.op("Add", [scaled, _column(b, bias, column)], shape)]


def _column(b: Builder, value: ir.Value, shape: Shape) -> ir.Value:
    array = constant(value)
    return b.reshape(value, shape) if array is None else b.const(array.reshape([int(d) for d in shape]))


def _global_pool(node: ir.Node, b: Builder) -> list[ir.Value] | None:
    x = node.inputs[0]
    if x is None:
        return None
    axes = b.ints(range(2, rank(x)))  # type: ignore[arg-type]
    return [
        b.op("ReduceMean" if node.op_type == "GlobalAveragePool" else "ReduceMax", [x, axes], dims(node.outputs[0]), keepdims=1)
    ]


DECOMPOSITIONS: dict[str, Decomposition] = {
    "AveragePool": _one_spatial_axis,
    "BatchNormalization": _batch_normalization,
    "Conv": _one_spatial_axis,
    "ConvTranspose": _one_spatial_axis,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "GroupNormalization": _group_normalization,
    "InstanceNormalization": _group_normalization,
    "LogSoftmax": _last_axis,
    "MaxPool": _one_spatial_axis,
    "Softmax": _last_axis,
}
