"""BatchNormalization, InstanceNormalization and GroupNormalization."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.layout import constant, dims, rank
from edgekit.litert.decompose.builder import Builder, Decomposition, Shape, integer, real


def _batch_normalization(node: ir.Node, b: Builder) -> list[ir.Value] | None:
    """(x - mean) * (scale / sqrt(var + epsilon)) + bias; with constants that is one product and one sum."""
    x, scale, bias, mean, variance = node.inputs[:5]
    if integer(node, "training_mode"):
        return _trained(node, b)
    assert x is not None
    epsilon = real(node, "epsilon", 1e-5)
    column = (-1, *(1,) * (rank(x) - 2))
    constants = [constant(v) for v in (scale, bias, mean, variance)]
    if any(c is None for c in constants):
        channels = dims(x)[1:2]
        shape = (*channels, *(1,) * (rank(x) - 2))
        columns = [_column(b, v, shape) for v in (scale, bias, mean, variance)]
        return [_normalized(b, x, columns[0], columns[1], columns[2], columns[3], epsilon)]
    s, o, m, v = (c.astype(np.float64) for c in constants if c is not None)
    factor = s / np.sqrt(v + epsilon)
    dtype = x.dtype.numpy() if x.dtype is not None else np.float32
    scaled = b.op("Mul", [x, b.const(factor.astype(dtype).reshape(column))], dims(x))
    return [b.op("Add", [scaled, b.const((o - m * factor).astype(dtype).reshape(column))], dims(x))]


def _trained(node: ir.Node, b: Builder) -> list[ir.Value]:
    """With the statistics of the batch; the running ones move towards them by 1 - momentum."""
    x, scale, bias, mean, variance = node.inputs[:5]
    assert x is not None
    axes = [a for a in range(rank(x)) if a != 1]
    kept = (1, *dims(x)[1:2], *(1,) * (rank(x) - 2))
    channels = dims(x)[1:2]
    column = (*channels, *(1,) * (rank(x) - 2))

    def average(value: ir.Value) -> ir.Value:
        return b.op("ReduceMean", [value, b.ints(axes)], kept, x.dtype, keepdims=1)

    found_mean = average(x)
    centred = b.op("Sub", [x, found_mean], dims(x))
    found_variance = average(b.binary("Mul", centred, centred))
    made = [
        _normalized(
            b, x, _column(b, scale, column), _column(b, bias, column), found_mean, found_variance, real(node, "epsilon", 1e-5)
        )
    ]
    momentum = real(node, "momentum", 0.9)
    for old, new in ((mean, found_mean), (variance, found_variance)):
        assert old is not None
        flat = b.reshape(new, channels)
        made.append(b.binary("Add", b.binary("Mul", flat, 1 - momentum), b.binary("Mul", old, momentum)))
    return made


def _normalized(
    b: Builder, x: ir.Value, scale: ir.Value, bias: ir.Value, mean: ir.Value, variance: ir.Value, epsilon: float
) -> ir.Value:
    above = b.binary("Add", variance, epsilon)
    inverse = b.binary("Pow", above, -0.5)
    shape = max(dims(scale), dims(inverse), key=len)
    factor = b.op("Mul", [inverse, scale], shape, x.dtype)
    centred = b.op("Sub", [x, mean], dims(x))
    scaled = b.op("Mul", [centred, factor], dims(x))
    return b.op("Add", [scaled, bias], dims(x))


def _group_normalization(node: ir.Node, b: Builder) -> list[ir.Value] | None:
    """Instance- and GroupNormalization: normalize each group over its channels and space, then scale per channel.

    With one channel a group, or one group, the axes are reduced in place; otherwise the channels are split into (group, rest).
    """
    x, scale, bias = node.inputs[:3]
    if x is None or scale is None or bias is None:
        return None
    shape, n = dims(x), rank(x)
    channels = shape[1]
    if not isinstance(channels, int):
        return None
    groups, epsilon = integer(node, "num_groups", channels), real(node, "epsilon", 1e-5)
    split = groups not in (1, channels)
    inner = b.reshape(x, (shape[0], groups, channels // groups, *shape[2:])) if split else x
    held = dims(inner)
    axes = list(range(1 if groups == 1 else 2, len(held)))
    small = tuple(1 if a in axes else d for a, d in enumerate(held))

    def reduced(value: ir.Value) -> ir.Value:
        return b.op("ReduceMean", [value, b.ints(axes)], small, x.dtype, keepdims=1)

    centred = b.op("Sub", [inner, reduced(inner)], held, x.dtype)
    variance = reduced(b.op("Mul", [centred, centred], held, x.dtype))
    factor = b.binary("Pow", b.binary("Add", variance, epsilon), -0.5)
    column = (channels, *(1,) * (n - 2))
    if split:
        normal = b.reshape(b.op("Mul", [centred, factor], held, x.dtype), shape)
        scaled = b.op("Mul", [normal, _column(b, scale, column)], shape, x.dtype)
    else:  # the factors first: there are few of them
        wide = b.op("Mul", [factor, _column(b, scale, column)], (*shape[:1], *column), x.dtype)
        scaled = b.op("Mul", [centred, wide], shape, x.dtype)
    return [b.op("Add", [scaled, _column(b, bias, column)], shape, x.dtype)]


def _column(b: Builder, value: ir.Value | None, shape: Shape) -> ir.Value:
    assert value is not None
    array = constant(value)
    return b.reshape(value, shape) if array is None else b.const(array.reshape([int(d) for d in shape]))


DECOMPOSITIONS: dict[str, Decomposition] = {
    "BatchNormalization": _batch_normalization,
    "GroupNormalization": _group_normalization,
    "InstanceNormalization": _group_normalization,
}
