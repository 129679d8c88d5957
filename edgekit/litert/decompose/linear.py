"""Linear algebra: determinants, and convolutions of integers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.layout import constant, dims
from edgekit.litert.decompose.builder import Builder, Decomposition, operand

LARGEST_DETERMINANT = 4


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
    """In float32 without the zero points; the sums have to be integers that it holds."""
    x, w = node.inputs[0], constant(node.inputs[1])
    assert x is not None
    if w is None:
        raise b.refuse("its weights are computed at run time", "make them constant in the model", "w")
    weights = w.astype(np.float32)
    zero = constant(operand(node, 3))
    if zero is not None:
        weights = weights - zero.astype(np.float32).reshape(-1, *(1,) * (w.ndim - 1))
    if np.abs(weights).sum(axis=tuple(range(1, w.ndim))).max() * 255 >= 1 << 24:
        raise b.refuse("its sums do not fit float32 exactly", "use fewer input channels or smaller weights", "w")
    held = _float(b, x)
    point = operand(node, 2)
    if point is not None:
        held = b.op("Sub", [held, _float(b, point)], dims(x), ir.DataType.FLOAT)
    attributes = {name: a.value for name, a in node.attributes.items()}
    total = b.op("Conv", [held, b.const(weights)], dims(node.outputs[0]), ir.DataType.FLOAT, **attributes)
    return [b.op("Cast", [total], dims(node.outputs[0]), ir.DataType.INT32, to=int(ir.DataType.INT32))]


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
