"""Operators that pick elements by index, and those that make index-like tensors."""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Tensor
from edgekit.litert.lower.table import Node, lowers


@lowers("Gather")
def gather(node: Node) -> None:
    """GATHER; constant indices from the end are counted from the start. Computed ones are taken to be non-negative."""
    axis = node.axis()
    node.emit("GATHER", [node.x, _from_start(node, node.input(1), node.x.shape[axis])], axis=axis, batchDims=0)


def _from_start(node: Node, indices: Tensor, size: int | str) -> Tensor:
    if indices.data is None:
        return indices
    data = indices.data
    if (data < 0).any():
        if not isinstance(size, int):
            raise node.refuse("an index from the end of a dynamic dimension", "fix that dimension with --input", "indices")
        data = np.where(data < 0, data + size, data)
    return node.const(data.astype(np.int32), hint="indices")


@lowers("GatherND")
def gather_nd(node: Node) -> None:
    if node.integer("batch_dims", 0):
        raise node.refuse("LiteRT's GATHER_ND has no batch dimensions", "use batch_dims=0", "batch_dims")
    indices = node.input(1)
    if indices.data is not None:
        sizes = np.array(node.static_shape(node.x)[: indices.data.shape[-1]])
        indices = node.const(np.where(indices.data < 0, indices.data + sizes, indices.data).astype(np.int32), hint="indices")
    node.emit("GATHER_ND", [node.x, indices])


@lowers("GatherElements")
def gather_elements(node: Node) -> None:
    """As a GATHER from the flattened data, for constant indices."""
    index, axis, shape = node.constant(1), node.axis(), node.static_shape(node.x)
    assert index is not None
    places: list[np.ndarray] = list(np.indices(index.shape))
    places[axis] = np.where(index < 0, index + shape[axis], index)
    flat = np.ravel_multi_index([p.astype(np.int64) for p in places], shape).astype(np.int32)
    line = node.reshape(node.x, (int(np.prod(shape)),), "line")
    node.emit("GATHER", [line, node.const(flat, hint="indices")], axis=0, batchDims=0)


@lowers("OneHot")
def one_hot(node: Node) -> None:
    depth, values = node.constant(1), node.constant(2)
    assert depth is not None
    assert values is not None
    axis = node.integer("axis", -1)
    count = node.const(int(depth.reshape(-1)[0]), np.int32, "depth")
    off, on = (node.const(v, node.y.dtype, hint) for v, hint in zip(values, ("off", "on"), strict=True))
    node.emit("ONE_HOT", [node.x, count, on, off], axis=axis if axis != node.y.rank - 1 else -1)


@lowers("Range")
def range_(node: Node) -> None:
    node.emit("RANGE", [node.x, node.input(1), node.input(2)])


@lowers("ConstantOfShape")
def constant_of_shape(node: Node) -> None:
    value = node.onnx.attributes.get("value")
    fill = np.zeros(1, np.float32) if value is None else value.as_tensor().numpy()
    node.emit("FILL", [node.x, node.const(fill.reshape(()), node.y.dtype, "fill")])


@lowers("Trilu")
def triangle(node: Node) -> None:
    """A constant mask keeps one triangle of the last two axes."""
    offset = node.constant(1)
    rows, columns = (int(d) for d in node.static_shape(node.x)[-2:])
    k = 0 if offset is None else int(offset.reshape(-1)[0])
    ones = np.ones((rows, columns), bool)
    mask = np.triu(ones, k) if node.integer("upper", 1) else np.tril(ones, k)
    node.emit("SELECT_V2", [node.const(mask, hint="mask"), node.x, node.const(0, node.x.dtype, "zero")])
