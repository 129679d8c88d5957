"""Gathering and scattering by computed places: GatherElements, GatherND, ScatterElements, ScatterND, TensorScatter.

Places are turned into rows of the flattened data, so that GATHER and SCATTER_ND do the work in one axis.
"""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Tensor
from edgekit.litert.lower.non_negative import is_non_negative
from edgekit.litert.lower.table import Node, lowers


@lowers("GatherElements")
def gather_elements(node: Node) -> None:
    """A GATHER from the flattened data."""
    shape = node.static_shape(node.x)
    rows = _element_rows(node, node.input(1), node.axis(), shape)
    line = node.reshape(node.x, (int(np.prod(shape)),), "line")
    node.emit("GATHER", [line, rows], axis=0, batchDims=0)


@lowers("GatherND")
def gather_nd(node: Node) -> None:
    """GATHER_ND; batch axes are written into the indices."""
    shape, indices, batch = node.static_shape(node.x), node.input(1), node.integer("batch_dims", 0)
    depth = node.static_shape(indices)[-1]
    indices = _from_start(node, indices, shape[batch : batch + depth])
    if batch:
        outer = node.static_shape(indices)[:-1]
        own = np.moveaxis(np.indices(outer)[:batch], 0, -1).astype(np.int32)
        if indices.data is not None:
            indices = node.const(np.concatenate([own, indices.data], -1), hint="indices")
        else:
            both = node.temp((*outer, batch + depth), "indices", np.int32)
            indices = node.emit("CONCATENATION", [node.const(own, hint="batches"), indices], both, axis=len(outer))
    node.emit("GATHER_ND", [node.x, indices])


@lowers("ScatterElements")
def scatter_elements(node: Node) -> None:
    shape, updates = node.static_shape(node.x), node.input(2)
    rows = _element_rows(node, node.input(1), node.axis(), shape)
    count = int(np.prod(node.static_shape(updates)))
    _scatter(node, node.reshape(rows, (count,), "rows"), count, 1)


@lowers("ScatterND")
def scatter_nd(node: Node) -> None:
    shape, indices = node.static_shape(node.x), node.input(1)
    *outer, depth = node.static_shape(indices)
    count, inner = int(np.prod(outer)), int(np.prod(shape[depth:]))
    sizes = shape[:depth]
    strides = np.array([int(np.prod(sizes[i + 1 :])) for i in range(depth)], np.int32)
    indices = _from_start(node, indices, sizes)
    if indices.data is not None:
        rows = node.const((indices.data.reshape(count, depth) @ strides).astype(np.int32), hint="rows")
    else:
        flat = node.reshape(indices, (count, depth), "places")
        weighted = node.emit("MUL", [flat, node.const(strides, hint="strides")], node.temp((count, depth), "weighted", np.int32))
        rows = node.emit("SUM", [weighted, node.ints([1], "last")], node.temp((count,), "rows", np.int32), keepDims=False)
    _scatter(node, rows, count, inner)


def _scatter(node: Node, rows: Tensor, count: int, inner: int) -> None:
    """Write or combine `count` updates of `inner` elements into rows of the flattened data."""
    shape = node.static_shape(node.x)
    height = int(np.prod(shape)) // max(1, inner)
    data = node.reshape(node.x, (height, inner), "rows_of_data")
    updates = node.reshape(node.input(2), (count, inner), "updates")
    reduction = node.string("reduction", "none")
    if rows.data is not None and ((rows.data < 0) | (rows.data >= height)).any():
        raise node.refuse("an index lies outside of the data", "the model is not valid ONNX: export it again", "indices")
    if count == 0:
        node.reshape(node.x, shape, out=node.y)
    elif rows.data is not None and reduction != "add":
        _scatter_known(node, data, updates, rows.data, reduction)
    elif reduction == "add":
        spread = _spread(node, rows, updates, height, inner)
        total = node.emit("ADD", [data, spread], node.like(data, "total"))
        node.reshape(total, shape, out=node.y)
    elif reduction == "none":
        ones = node.const(np.ones((count, 1), np.int32), hint="ones")
        hits = _spread(node, rows, ones, height, 1)
        hit = node.emit("GREATER", [hits, node.const(0, np.int32, "zero")], node.temp((height, 1), "hit", np.bool_))
        chosen = node.emit("SELECT_V2", [hit, _spread(node, rows, updates, height, inner), data], node.like(data, "chosen"))
        node.reshape(chosen, shape, out=node.y)
    else:
        _scatter_by_mask(node, data, updates, rows, reduction)


MOST_COMPARED = 1 << 22
"""Elements: a scatter by mask compares every row of the data with every update."""


def _scatter_by_mask(node: Node, data: Tensor, updates: Tensor, rows: Tensor, reduction: str) -> None:
    """Each row takes the updates that are for it, and the reduction's neutral value instead of the others."""
    (height, inner), count = node.static_shape(data), node.static_shape(updates)[0]
    if height * count * inner > MOST_COMPARED:
        raise node.refuse(
            f"LiteRT scatters by sum, and {reduction!r} at places computed at run time would compare every row with every update",
            "use reduction none or add, or make the indices constant",
            "reduction",
        )
    low, high = (-np.inf, np.inf) if data.dtype.kind == "f" else (np.iinfo(data.dtype).min, np.iinfo(data.dtype).max)
    reducer, neutral = {"max": ("REDUCE_MAX", low), "min": ("REDUCE_MIN", high), "mul": ("REDUCE_PROD", 1)}[reduction]
    places = node.const(np.arange(height, dtype=np.int32)[:, None, None], hint="all_rows")
    line = node.reshape(rows, (count, 1), "updated_rows")
    mine = node.emit("EQUAL", [places, line], node.temp((height, count, 1), "mine", np.bool_))
    taken = node.temp((height, count, inner), "taken", data.dtype)
    node.emit("SELECT_V2", [mine, updates, node.const(neutral, data.dtype, "neutral")], taken)
    combined = node.emit(reducer, [taken, node.ints([1], "updates_axis")], node.like(data, "combined"), keepDims=False)
    result = node.emit(COMBINE[reduction], [data, combined], node.like(data, "result"))
    node.reshape(result, node.static_shape(node.y), out=node.y)


def _spread(node: Node, rows: Tensor, updates: Tensor, height: int, inner: int) -> Tensor:
    count = node.static_shape(updates)[0]
    column = node.reshape(rows, (count, 1), f"{updates.name}/column")
    target = node.ints([height, inner], "target")
    return node.emit("SCATTER_ND", [column, updates, target], node.temp((height, inner), f"{updates.name}/spread", updates.dtype))


COMBINE = {"mul": "MUL", "max": "MAXIMUM", "min": "MINIMUM"}


def _scatter_known(node: Node, data: Tensor, updates: Tensor, rows: np.ndarray, reduction: str) -> None:
    """Constant rows: each row of the result is gathered from data and updates; repeated ones are combined in turn."""
    height, inner = node.static_shape(data)
    rows = rows.reshape(-1)
    shape = node.static_shape(node.y)
    joined = node.temp((height + len(rows), inner), "joined", data.dtype)
    if reduction == "none":
        source = np.arange(height)
        source[rows] = height + np.arange(len(rows))
        both = node.emit("CONCATENATION", [data, updates], joined, axis=0)
        index = node.ints(source.tolist(), "index")
        chosen = node.emit("GATHER", [both, index], node.like(data, "chosen"), axis=0, batchDims=0)
        node.reshape(chosen, shape, out=node.y)
        return
    turn = np.array([(rows[:i] == row).sum() for i, row in enumerate(rows)])
    for step in range(int(turn.max()) + 1):
        mine = np.flatnonzero(turn == step)
        index = node.ints(rows[mine].tolist(), f"index{step}")
        part = node.temp((len(mine), inner), f"part{step}", data.dtype)
        node.emit("GATHER", [updates, node.ints(mine.tolist(), f"mine{step}")], part, axis=0, batchDims=0)
        held = node.emit("GATHER", [data, index], node.like(part, f"held{step}"), axis=0, batchDims=0)
        new = node.emit(COMBINE[reduction], [held, part], node.like(part, f"new{step}"))
        source = np.arange(height)
        source[rows[mine]] = height + np.arange(len(mine))
        both = node.emit("CONCATENATION", [data, new], node.temp((height + len(mine), inner), f"both{step}", data.dtype), axis=0)
        data = node.emit(
            "GATHER", [both, node.ints(source.tolist(), f"source{step}")], node.like(data, f"data{step}"), axis=0, batchDims=0
        )
    node.reshape(data, shape, out=node.y)


def _element_rows(node: Node, index: Tensor, axis: int, shape: tuple[int, ...]) -> Tensor:
    """For each element of `index`, the place in the flattened data: its own coordinates with that of `axis` replaced."""
    own = node.static_shape(index)
    strides = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
    places = np.indices(own)
    offset = sum((places[i] * strides[i] for i in range(len(own)) if i != axis), np.zeros(own, np.int64))
    index = _from_start(node, index, shape[axis : axis + 1])
    if index.data is not None:
        return node.const((index.data * strides[axis] + offset).astype(np.int32), hint="rows")
    if strides[axis] != 1:
        index = node.emit("MUL", [index, node.const(strides[axis], np.int32, "stride")], node.like(index, "scaled"))
    return node.emit("ADD", [index, node.const(offset.astype(np.int32), hint="offset")], node.like(index, "places"))


def _from_start(node: Node, index: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Input 1 as int32, indices from the end counted from the start; the last axis has one size for each coordinate."""
    limits = np.array(sizes, np.int32) if len(sizes) != 1 else np.int32(sizes[0])
    if index.data is not None:
        data = index.data.astype(np.int64)
        return node.const(np.where(data < 0, data + limits, data).astype(np.int32), hint="from_start")
    if index.dtype != np.int32:
        options = {"inDataType": index.dtype, "outDataType": np.dtype(np.int32)}
        index = node.emit("CAST", [index], node.like(index, "index32", np.int32), **options)
    if is_non_negative(node.onnx.inputs[1]):
        return index
    return node.emit("FLOOR_MOD", [index, node.const(limits, np.int32, "sizes")], node.like(index, "from_start"))
