"""Linear algebra: determinants, and convolutions of integers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import onnx_ir as ir

from edgekit.layout import constant, dims, rank
from edgekit.litert.decompose.builder import Builder, Decomposition, integer, operand

LARGEST_DETERMINANT = 4
EXACT = 1 << 24
"""Below that, float32 holds every integer."""


def _determinant(node: ir.Node, b: Builder) -> list[ir.Value]:
    """The expansion along the first row, every minor computed once."""
    x = node.inputs[0]
    assert x is not None
    *outer, size, _ = b.static(x)
    if size > LARGEST_DETERMINANT:
        raise b.refuse(
            f"a determinant of {size} x {size} by expansion is too many products", f"use at most {LARGEST_DETERMINANT} rows", "X"
        )
    flat = b.reshape(x, (*outer, size * size))
    cells = {
        (i, j): b.op("Gather", [flat, b.const(np.array(i * size + j, np.int64))], outer, axis=len(outer))
        for i in range(size)
        for j in range(size)
    }
    minors: dict[tuple[int, ...], ir.Value] = {(j,): cells[size - 1, j] for j in range(size)}

    def minor(columns: tuple[int, ...]) -> ir.Value:
        if columns not in minors:
            row = size - len(columns)
            total: ir.Value | None = None
            for place, column in enumerate(columns):
                rest = minor((*columns[:place], *columns[place + 1 :]))
                term = b.binary("Mul", cells[row, column], rest)
                total = term if total is None else b.binary("Sub" if place % 2 else "Add", total, term)
            assert total is not None
            minors[columns] = total
        return minors[columns]

    return [b.unary("Identity", minor(tuple(range(size))))]


def _conv_integer(node: ir.Node, b: Builder) -> list[ir.Value]:
    """In float32 without the zero points, in as many parts of the input channels as it takes for exact sums; those are added as
    integers."""
    x, w = node.inputs[0], node.inputs[1]
    assert x is not None
    assert w is not None
    held, weights = _centered(b, x, operand(node, 2)), _centered(b, w, operand(node, 3))
    shape, sizes = dims(node.outputs[0]), b.static(w)
    attributes = {name: a.value for name, a in node.attributes.items()}
    total: ir.Value | None = None
    for start, end in _exact_parts(node, b, constant(weights), sizes):
        inputs = [held, weights]
        if end - start < sizes[1]:
            inputs = [_channels(b, value, start, end) for value in inputs]
        part = b.op("Conv", inputs, shape, ir.DataType.FLOAT, **attributes)
        whole = b.op("Cast", [part], shape, ir.DataType.INT32, to=int(ir.DataType.INT32))
        total = whole if total is None else b.binary("Add", total, whole)
    assert total is not None
    return [total]


def _exact_parts(node: ir.Node, b: Builder, weights: np.ndarray | None, sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """Runs of input channels whose products with 8 bits have sums that float32 holds, whatever the input."""
    per_filter = (sizes[0], sizes[1], math.prod(sizes[2:]))
    largest = np.full(per_filter, 255.0) if weights is None else np.abs(weights.astype(np.float64)).reshape(per_filter)
    each = largest.sum(axis=2) * 255
    for count in range(1, sizes[1] + 1):
        bounds = [sizes[1] * i // count for i in range(count + 1)]
        if np.add.reduceat(each, bounds[:-1], axis=1).max() < EXACT:
            break
    else:
        raise b.refuse("the sums of one channel do not fit float32 exactly", "use a smaller kernel or smaller weights", "w")
    if count > 1 and integer(node, "group", 1) > 1:
        raise b.refuse("its sums do not fit float32 exactly", "use fewer input channels in a group, or smaller weights", "w")
    return list(itertools.pairwise(bounds))


def _centered(b: Builder, x: ir.Value, zero: ir.Value | None) -> ir.Value:
    """An integer tensor in float32 without its zero point, which is one number, or one for each place along the first axis."""
    if zero is None:
        return b.const(known.astype(np.float32)) if (known := constant(x)) is not None else _float(b, x)
    count = math.prod(b.static(zero))
    column = (count, *(1,) * (rank(x) - 1)) if count > 1 else ()
    known, point = constant(x), constant(zero)
    if known is not None and point is not None:
        return b.const(known.astype(np.float32) - point.astype(np.float32).reshape(column))
    return b.op("Sub", [_float(b, x), b.reshape(_float(b, zero), column)], dims(x), ir.DataType.FLOAT)


def _channels(b: Builder, x: ir.Value, start: int, end: int) -> ir.Value:
    first, _, *rest = dims(x)
    known = constant(x)
    if known is not None:
        return b.const(known[:, start:end])
    bounds = [b.ints([n]) for n in (start, end, 1)]
    return b.op("Slice", [x, *bounds], (first, end - start, *rest), x.dtype)


def _qlinear_conv(node: ir.Node, b: Builder) -> list[ir.Value]:
    """The convolution of what was quantized, quantized again."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = node.inputs[:8]
    arrays = [constant(v) for v in (x_scale, w, w_scale, w_zero)]
    if any(a is None for a in arrays):
        raise b.refuse("its weights or scales are computed at run time", "make them constant in the model", "w")
    scale, weight, scales, zeros = (a for a in arrays if a is not None)
    column = (-1, *(1,) * (weight.ndim - 1))
    weights = (weight.astype(np.float32) - zeros.astype(np.float32).reshape(column)) * scales.reshape(column)
    assert x is not None
    held = b.op("DequantizeLinear", [x, x_scale, x_zero], dims(x), ir.DataType.FLOAT)
    inputs: list[ir.Value | None] = [held, b.const(weights.astype(np.float32))]
    bias = constant(operand(node, 8))
    if bias is not None:
        inputs.append(b.const((bias.astype(np.float64) * scale * scales).astype(np.float32).reshape(-1)))
    attributes = {name: a.value for name, a in node.attributes.items()}
    total = b.op("Conv", inputs, dims(node.outputs[0]), ir.DataType.FLOAT, **attributes)
    return [b.op("QuantizeLinear", [total, y_scale, y_zero], dims(node.outputs[0]))]


def _float(b: Builder, x: ir.Value) -> ir.Value:
    return b.op("Cast", [x], dims(x), ir.DataType.FLOAT, to=int(ir.DataType.FLOAT))


DECOMPOSITIONS: dict[str, Decomposition] = {
    "ConvInteger": _conv_integer,
    "Det": _determinant,
    "QLinearConv": _qlinear_conv,
}
