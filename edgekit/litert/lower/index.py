"""Operators that pick elements by index, and those that make index-like tensors."""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Tensor
from edgekit.litert.lower.convert import as_int32
from edgekit.litert.lower.non_negative import is_non_negative
from edgekit.litert.lower.table import Node, lowers


@lowers("Gather")
def gather(node: Node) -> None:
    """GATHER, with indices from the end counted from the start where they may be some.

    What the model is fed for a constant table is taken to be no such: GATHER itself refuses a negative token id.
    """
    axis = node.axis()
    node.emit("GATHER", [node.x, _from_start(node, axis)], axis=axis, batchDims=0)


def _from_start(node: Node, axis: int) -> Tensor:
    """The indices; in a dimension of dynamic size it is asked for when the model runs."""
    indices, size = node.input(1), node.x.shape[axis]
    if indices.data is None and is_non_negative(node.onnx.inputs[1], trust_inputs=node.x.data is not None):
        return indices
    if indices.data is not None and (isinstance(size, int) or not (indices.data < 0).any()):
        data = indices.data
        return node.const(
            (np.where(data < 0, data + size, data) if isinstance(size, int) else data).astype(np.int32), hint="indices"
        )
    limit = node.const(size, indices.dtype, "size") if isinstance(size, int) else _size(node, axis, indices.dtype)
    return node.emit("FLOOR_MOD", [indices, limit], node.like(indices, "from_start"))


def _size(node: Node, axis: int, dtype: np.dtype) -> Tensor:
    sizes = node.emit("SHAPE", [node.x], node.temp((node.x.rank,), "sizes", dtype), outType=dtype)
    place = node.ints([axis], "axis"), node.ints([1], "one")
    return node.reshape(node.emit("SLICE", [sizes, *place], node.temp((1,), "size1", dtype)), (), "size")


@lowers("OneHot")
def one_hot(node: Node) -> None:
    """ONE_HOT gives the off value to any index outside [0, depth), so only those in [-depth, 0) have to be moved."""
    values, axis = node.input(2), node.integer("axis", -1) % node.y.rank
    size = node.reshape(as_int32(node, node.input(1), "depth"), (), "depth")
    off, on = (_element(node, values, i, hint) for i, hint in enumerate(("off", "on")))
    x = node.x
    if x.data is not None and size.data is not None:
        data = x.data.astype(np.int64)
        x = node.const(np.where(data < 0, data + int(size.data), data).astype(np.int32), hint="indices")
    else:
        x = as_int32(node, x, "index")
        below = node.emit("LESS", [x, node.const(0, x.dtype, "zero")], node.like(x, "below", np.bool_))
        raised = node.emit("ADD", [x, size], node.like(x, "raised"))
        x = node.emit("SELECT_V2", [below, raised, x], node.like(x, "from_start"))
    node.emit("ONE_HOT", [x, size, on, off], axis=axis if axis != node.y.rank - 1 else -1)


def _element(node: Node, pair: Tensor, i: int, hint: str) -> Tensor:
    """One of two values as a scalar."""
    if pair.data is not None:
        return node.const(pair.data.reshape(-1)[i], pair.dtype, hint)
    part = node.emit("SLICE", [pair, node.ints([i], "begin"), node.ints([1], "size")], node.temp((1,), f"{hint}1", pair.dtype))
    return node.reshape(part, (), hint)


@lowers("Hardmax")
def hardmax(node: Node) -> None:
    """One at the first largest value along the axis."""
    axis, shape = node.axis("axis", -1), node.static_shape(node.x)
    dropped = tuple(d for i, d in enumerate(shape) if i != axis)
    top = node.temp(dropped, "top", np.int32)
    node.emit("ARG_MAX", [node.x, node.const(axis, np.int32, "axis")], top, outputType=np.dtype(np.int32))
    on, off = (node.const(v, node.y.dtype, hint) for v, hint in ((1, "on"), (0, "off")))
    depth = node.const(shape[axis], np.int32, "depth")
    node.emit("ONE_HOT", [top, depth, on, off], axis=axis if axis != len(shape) - 1 else -1)


@lowers("EyeLike")
def eye_like(node: Node) -> None:
    rows, columns = node.static_shape(node.y)
    eye = node.const(np.eye(rows, columns, node.integer("k", 0)), node.y.dtype, "eye")
    node.reshape(eye, (rows, columns), out=node.y)


@lowers("NonZero")
def non_zero(node: Node) -> None:
    """WHERE lists the places row by row; ONNX has them as columns. How many there are is known when the model runs."""
    rank = node.x.rank
    count = node.y.shape[1]
    rows = node.emit("WHERE", [node.x], node.temp((count, rank), "places", np.int64))
    node.emit("TRANSPOSE", [rows, node.ints((1, 0), "perm")])


@lowers("ReverseSequence")
def reverse_sequence(node: Node) -> None:
    node.emit(
        "REVERSE_SEQUENCE", [node.x, node.input(1)], seqDim=node.integer("time_axis", 0), batchDim=node.integer("batch_axis", 1)
    )


@lowers("Range")
def range_(node: Node) -> None:
    node.emit("RANGE", [node.reshape(node.input(i), (), hint) for i, hint in enumerate(("start", "limit", "delta"))])


@lowers("ConstantOfShape")
def constant_of_shape(node: Node) -> None:
    value = node.onnx.attributes.get("value")
    fill = np.zeros(1, np.float32) if value is None else value.as_tensor().numpy()
    node.emit("FILL", [node.x, node.const(fill.reshape(()), node.y.dtype, "fill")])


@lowers("Trilu")
def triangle(node: Node) -> None:
    """A mask keeps one triangle of the last two axes; where the diagonal is computed, so is the mask."""
    rows, columns = node.static_shape(node.x)[-2:]
    upper = bool(node.integer("upper", 1))
    distance = np.arange(columns)[None, :] - np.arange(rows)[:, None]
    offset = node.input(1) if node.has_input(1) else node.const(0, np.int64, "main")
    if offset.data is not None:
        k = int(offset.data.reshape(-1)[0])
        mask = node.const(distance >= k if upper else distance <= k, hint="mask")
    else:
        places = node.const(distance, offset.dtype, "distance")
        code = "GREATER_EQUAL" if upper else "LESS_EQUAL"
        mask = node.emit(code, [places, offset], node.temp((rows, columns), "mask", np.bool_))
    node.emit("SELECT_V2", [mask, node.x, node.const(0, node.x.dtype, "zero")])
