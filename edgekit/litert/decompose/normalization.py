"""BatchNormalization, InstanceNormalization and GroupNormalization."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.layout import constant, dims, rank
from edgekit.litert.decompose.builder import Builder, Decomposition, Shape, integer, real

MEAN_WEIGHTS = 32768
"""Up to how many weights, which are all the same, a convolution takes the means of groups of channels."""


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

    What has the size of x keeps its shape and meets numbers per channel only: rows of channels are what kernels are fast at, and
    no tensor gets more axes than x has.
    """
    x, scale, bias = node.inputs[:3]
    if x is None or scale is None or bias is None:
        return None
    shape, n = dims(x), rank(x)
    channels = shape[1]
    if not isinstance(channels, int):
        return None
    groups, epsilon = integer(node, "num_groups", channels), real(node, "epsilon", 1e-5)
    axes = list(range(1 if groups == 1 else 2, n))
    small = tuple(1 if a in axes else d for a, d in enumerate(shape))

    def mean(value: ir.Value) -> ir.Value:
        found = b.op("ReduceMean", [value, b.ints(axes)], small, x.dtype, keepdims=1)
        return found if groups in (1, channels) else mean_of_groups(b, found, groups)

    centred = b.op("Sub", [x, mean(x)], shape, x.dtype)
    variance = mean(b.op("Mul", [centred, centred], shape, x.dtype))
    factor = b.binary("Pow", b.binary("Add", variance, epsilon), -0.5)
    column = (channels, *(1,) * (n - 2))
    wide = b.op("Mul", [factor, _column(b, scale, column)], (*shape[:1], *column), x.dtype)
    scaled = b.op("Mul", [centred, wide], shape, x.dtype)
    return [b.op("Add", [scaled, _column(b, bias, column)], shape, x.dtype)]


def mean_of_groups(b: Builder, x: ir.Value, groups: int) -> ir.Value:
    """Numbers per channel (N, C, 1, …), each replaced by the mean of its group.

    A convolution in groups whose weights are all the same is that in one step; where it would need many weights, and where the
    kernel takes no groups, the groups become an axis.
    """
    shape = dims(x)
    channels = int(shape[1])
    size = channels // groups
    if len(shape) == 4 and x.dtype == ir.DataType.FLOAT and channels * size <= MEAN_WEIGHTS:
        weights = b.const(np.full((channels, size, 1, 1), 1 / size, np.float32))
        return b.op("Conv", [x, weights], shape, x.dtype, group=groups, kernel_shape=[1, 1])
    assert x.dtype is not None
    rows = b.reshape(x, (shape[0], groups, size))
    each = b.op("ReduceMean", [rows, b.ints([2])], (shape[0], groups, 1), x.dtype, keepdims=1)
    spread = b.op("Mul", [each, b.const(np.ones((1, 1, size), x.dtype.numpy()))], dims(rows), x.dtype)
    return b.reshape(spread, shape)


def _column(b: Builder, value: ir.Value | None, shape: Shape) -> ir.Value:
    assert value is not None
    array = constant(value)
    return b.reshape(value, shape) if array is None else b.const(array.reshape([int(d) for d in shape]))


DECOMPOSITIONS: dict[str, Decomposition] = {
    "BatchNormalization": _batch_normalization,
    "GroupNormalization": _group_normalization,
    "InstanceNormalization": _group_normalization,
}
