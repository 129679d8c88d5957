"""Operators that move elements to places: Col2Im, TensorScatter, Compress."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.layout import constant, dims, rank
from edgekit.litert.decompose.builder import Builder, Decomposition, integer, integers, operand, string

MOST_PLACES = 1 << 27


def _col2im(node: ir.Node, b: Builder) -> list[ir.Value]:
    """Every column element is added to its pixel: one ScatterND over pixels, with batch and channels inside."""
    x = node.inputs[0]
    assert x is not None
    assert x.dtype is not None
    sizes = [constant(v) for v in node.inputs[1:3]]
    if sizes[0] is None or sizes[1] is None:
        raise b.refuse("its image or block shape is computed", "make both constant in the model", "image_shape")
    image, block = (tuple(int(d) for d in size) for size in (sizes[0], sizes[1]))
    n = len(image)
    strides, dilations = integers(node, "strides", (1,) * n), integers(node, "dilations", (1,) * n)
    pads = integers(node, "pads", (0,) * 2 * n)
    batch, columns, count = b.static(x)
    cells, channels = int(np.prod(block)), columns // int(np.prod(block))
    if cells * count > MOST_PLACES:
        raise b.refuse(
            f"{count} blocks of {cells} elements are too many to place one by one", "use smaller blocks", "block_shape"
        )
    steps = [(image[i] + pads[i] + pads[n + i] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1 for i in range(n)]
    if min(steps) < 1 or int(np.prod(steps)) != count:
        raise b.refuse(
            f"its input has {count} blocks where {steps} fit", "check its block shape, pads and dilations", "block_shape"
        )
    within = np.indices(block).reshape(n, cells, 1)
    starts = np.indices(steps).reshape(n, 1, count)
    places = [within[i] * dilations[i] + starts[i] * strides[i] - pads[i] for i in range(n)]
    inside = np.logical_and.reduce([(p >= 0) & (p < size) for p, size in zip(places, image, strict=True)]).reshape(-1)
    pixels = np.ravel_multi_index([np.clip(p, 0, s - 1) for p, s in zip(places, image, strict=True)], image).reshape(-1)
    split = b.reshape(x, (batch, channels, cells, count))
    rows = b.reshape(b.transpose(split, (2, 3, 0, 1)), (cells * count, batch * channels))
    if not inside.all():
        rows = b.op("Gather", [rows, b.ints(np.flatnonzero(inside).tolist())], (int(inside.sum()), batch * channels), axis=0)
    zeros = b.const(np.zeros((int(np.prod(image)), batch * channels), x.dtype.numpy()))
    index = b.const(pixels[inside].astype(np.int64)[:, None])
    total = b.op("ScatterND", [zeros, index, rows], dims(zeros), reduction="add")
    whole = b.reshape(total, (*image, batch, channels))
    return [b.transpose(whole, (n, n + 1, *range(n)))]


def _tensor_scatter(node: ir.Node, b: Builder) -> list[ir.Value]:
    """The update is written along one axis from each sample's index on: a ScatterND with all coordinates up to that axis."""
    cache, update, starts = node.inputs[0], node.inputs[1], operand(node, 2)
    assert cache is not None
    assert update is not None
    shape, length = b.static(cache), b.static(update)
    axis = integer(node, "axis", -2) % len(shape)
    prefix = shape[:axis]
    base = np.moveaxis(np.indices((*prefix, length[axis])), 0, -1).astype(np.int64)
    if starts is None:
        index = b.const(base)
    else:
        known = constant(starts)
        column = (shape[0], *(1,) * (axis + 1))
        offset = b.reshape(starts, column) if known is None else b.const(known.reshape(column).astype(np.int64))
        unit = b.const(np.array([0] * axis + [1], np.int64))
        moved = b.op("Mul", [offset, unit], (*column[:-1], axis + 1), ir.DataType.INT64)
        index = b.op("Add", [b.const(base), moved], base.shape, ir.DataType.INT64)
        if string(node, "mode", "linear") == "circular":
            index = b.op("Mod", [index, b.const(np.array(shape[: axis + 1], np.int64))], base.shape, ir.DataType.INT64)
    return [b.op("ScatterND", [cache, index, update], shape)]


def _compress(node: ir.Node, b: Builder) -> list[ir.Value]:
    """The selected elements are gathered; which those are may be known only when the model runs."""
    x, condition, y = node.inputs[0], node.inputs[1], node.outputs[0]
    assert x is not None
    assert condition is not None
    if "axis" in node.attributes:
        axis = integer(node, "axis") % rank(x)
    else:
        axis, x = 0, b.reshape(x, (int(np.prod(b.static(x))),))
    known = constant(condition)
    if known is not None:
        places = b.ints(np.flatnonzero(known).tolist())
        shape = (*dims(x)[:axis], len(np.flatnonzero(known)), *dims(x)[axis + 1 :])
    else:
        count = dims(y)[axis]
        shape = dims(y)
        places = b.reshape(b.op("NonZero", [condition], (1, count), ir.DataType.INT64), (count,))
    return [b.op("Gather", [x, places], shape, axis=axis)]


DECOMPOSITIONS: dict[str, Decomposition] = {"Col2Im": _col2im, "Compress": _compress, "TensorScatter": _tensor_scatter}
