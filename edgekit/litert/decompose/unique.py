"""Unique: every element is compared with every other; what remains is counting.

How many distinct elements there are is known when the model runs. Until the last step all have the shape of the input: the k-th
row of a table says which elements are the k-th distinct one, and the rows that nothing fills are cut off.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.layout import dims, rank
from edgekit.litert.decompose.builder import Builder, Decomposition, integer

MOST_COMPARISONS = 1 << 24

INT32, INT64, BOOL = ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL


def _unique(node: ir.Node, b: Builder) -> list[ir.Value]:
    x = node.inputs[0]
    assert x is not None
    shape, axis = b.static(x), 0
    if "axis" in node.attributes:
        axis = integer(node, "axis") % rank(x)
        perm = [axis, *(a for a in range(rank(x)) if a != axis)]
        rows = b.reshape(b.transpose(x, perm), (shape[axis], int(np.prod(shape)) // max(1, shape[axis])))
    else:
        x = b.reshape(x, (int(np.prod(shape)),))
        rows = b.reshape(x, (int(np.prod(shape)), 1))
    count, size = b.static(rows)
    if count * count * size > MOST_COMPARISONS:
        raise b.refuse(f"each of {count} elements would be compared with every other", "do that on the model's output", "X")
    same, less = _compared(b, rows)
    square, line = (count, count), (count,)
    first = _first(b, same, line)
    order = np.arange(count, dtype=np.int64)
    is_first = b.op("Equal", [first, b.const(order)], line, BOOL)
    if not integer(node, "sorted", 1):
        less = b.op("Less", [b.const(order), b.reshape(first, (count, 1))], square, BOOL)  # met earlier, not smaller
    before = b.op("And", [less, is_first], square, BOOL)
    place = b.op("ReduceSum", [_cast(b, before, INT32), b.ints([1])], line, INT32, keepdims=0)
    table = b.op("Equal", [place, b.const(order.astype(np.int32)[:, None])], square, BOOL)
    found = b.op("ReduceSum", [_cast(b, is_first, INT64), b.ints([0])], (1,), INT64, keepdims=1)
    counts = b.op("ReduceSum", [_cast(b, table, INT64), b.ints([1])], line, INT64, keepdims=0)
    outputs = [*node.outputs, *[None] * 3]
    lengths = [dims(v)[0] if v is not None and v.shape is not None else f"{node.outputs[0].name}_count" for v in outputs[1:4]]

    def distinct(values: ir.Value, length: int | str) -> ir.Value:
        return b.op("Slice", [values, b.ints([0]), found, b.ints([0])], (length,), INT64)

    indices = distinct(_first(b, table, line), lengths[0])
    y = b.op("Gather", [x, indices], dims(node.outputs[0]), x.dtype, axis=axis)
    return [y, indices, _cast(b, place, INT64), distinct(counts, lengths[2])]


def _compared(b: Builder, rows: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Whether row i is row j, and whether row j comes before row i, both (i, j). NaN is equal to NaN and comes last."""
    count, size = b.static(rows)
    if rows.dtype == BOOL:
        rows = _cast(b, rows, INT32)
    shape, square = (count, count, size), (count, count)
    left, right = b.reshape(rows, (count, 1, size)), b.reshape(rows, (1, count, size))
    same, less = b.op("Equal", [left, right], shape, BOOL), b.op("Less", [right, left], shape, BOOL)
    assert rows.dtype is not None
    if rows.dtype.is_floating_point():
        nan_left, nan_right = (b.op("IsNaN", [v], dims(v), BOOL) for v in (left, right))
        same = b.op("Or", [same, b.op("And", [nan_left, nan_right], shape, BOOL)], shape, BOOL)
        number = b.op("Not", [nan_right], dims(nan_right), BOOL)
        less = b.op("Or", [less, b.op("And", [nan_left, number], shape, BOOL)], shape, BOOL)
    if size == 1:
        return b.reshape(same, square), b.reshape(less, square)
    differs = _cast(b, b.unary("Not", same), INT32)
    zero, last = b.const(np.array(0, np.int32)), b.ints([2])
    earlier = b.op("CumSum", [differs, b.const(np.array(2, np.int64))], shape, INT32, exclusive=1)
    decides = b.op("And", [less, b.op("Equal", [earlier, zero], shape, BOOL)], shape, BOOL)
    total, smaller = (b.op("ReduceSum", [v, last], square, INT32, keepdims=0) for v in (differs, _cast(b, decides, INT32)))
    return b.op("Equal", [total, zero], square, BOOL), b.op("Greater", [smaller, zero], square, BOOL)


def _first(b: Builder, table: ir.Value, line: tuple[int, ...]) -> ir.Value:
    """The first true column of each row."""
    return b.op("ArgMax", [_cast(b, table, INT32)], line, INT64, axis=1, keepdims=0)


def _cast(b: Builder, x: ir.Value, dtype: ir.DataType) -> ir.Value:
    return b.op("Cast", [x], dims(x), dtype, to=int(dtype))


DECOMPOSITIONS: dict[str, Decomposition] = {"Unique": _unique}
