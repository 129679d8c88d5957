"""Operators that rearrange elements without computing: reshape, transpose, concat, split, expand, tile."""

from __future__ import annotations

import numpy as np

from edgekit.litert.lower.convert import as_int32
from edgekit.litert.lower.table import Node, lowers


@lowers("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")
def reshape(node: Node) -> None:
    """All of them are RESHAPE to the result's shape; with several dynamic dimensions the target is computed."""
    dynamic = [d for d in node.y.shape if not isinstance(d, int)]
    if len(dynamic) <= 1:
        node.reshape(node.x, node.y.shape, out=node.y)
    elif node.op_type == "Reshape" and node.input(1).data is None:
        node.emit("RESHAPE", [node.x, as_int32(node, node.input(1), "target")])
    elif node.op_type == "Unsqueeze":
        _unsqueeze(node)
    elif node.op_type == "Squeeze":
        axes = node.constant(1)
        dims = (
            [i for i, d in enumerate(node.x.shape) if d == 1]
            if axes is None
            else [int(a) % node.x.rank for a in axes.reshape(-1)]
        )
        node.emit("SQUEEZE", [node.x], squeezeDims=np.array(dims, np.int32))
    elif node.x.shape == node.y.shape:
        node.emit(
            "RESHAPE",
            [node.x, node.emit("SHAPE", [node.x], node.temp((node.x.rank,), "shape", np.int32), outType=np.dtype(np.int32))],
        )
    else:
        raise node.refuse(
            f"its result {node.y.shape} has {len(dynamic)} dynamic dimensions", "fix all but one with --input NAME=SHAPE"
        )


def _unsqueeze(node: Node) -> None:
    x = node.x
    axes = sorted(int(a) % node.y.rank for a in node.constant(1).reshape(-1))  # type: ignore[union-attr]
    for i, axis in enumerate(axes):
        shape = (*x.shape[:axis], 1, *x.shape[axis:])
        out = node.y if i == len(axes) - 1 else node.temp(shape, f"expanded{axis}", x.dtype)
        x = node.emit("EXPAND_DIMS", [x, node.const(axis, np.int32, f"axis{axis}")], out)


@lowers("Dropout")
def dropout(node: Node) -> None:
    """Left in the graph only where it trains; without anything to drop it is the identity."""
    ratio = node.constant(1)
    if ratio is None or ratio.item() != 0:
        raise node.refuse("in training mode it drops at random", "export the model in inference mode (model.eval())", "ratio")
    node.reshape(node.x, node.x.shape, out=node.y)
    if node.has_output(1):
        mask = node.const(np.ones(node.static_shape(node.x), bool), hint="mask")
        node.reshape(mask, mask.shape, out=node.outputs[1])


@lowers("Transpose")
def transpose(node: Node) -> None:
    perm = node.integers("perm", tuple(reversed(range(node.x.rank))))
    node.emit("TRANSPOSE", [node.x, node.ints(perm, "perm")])


@lowers("Concat")
def concat(node: Node) -> None:
    """Empty operands are left out."""
    operands = [t for t in node.inputs if t is not None and 0 not in t.shape]
    axis = node.integer("axis") % max(1, node.y.rank)
    if len(operands) == 1:
        node.reshape(operands[0], node.y.shape, out=node.y)
        return
    node.emit("CONCATENATION", operands, axis=axis)


@lowers("Split")
def split(node: Node) -> None:
    """Equal parts are SPLIT, others SPLIT_V; a part that nobody uses is made all the same."""
    axis = node.axis()
    sizes = [d for out in node.outputs if isinstance(d := out.shape[axis], int)]
    if len(sizes) < len(node.outputs):
        raise node.refuse("the sizes of its parts are known only when it runs", "make them constant in the model", "split")
    where = node.const(axis, np.int32, "axis")
    if len(sizes) == 1:
        node.reshape(node.x, node.y.shape, out=node.y)
    elif len(set(sizes)) == 1:
        node.emit("SPLIT", [where, node.x], node.outputs, numSplits=len(sizes))
    else:
        node.emit("SPLIT_V", [node.x, node.ints(sizes, "sizes"), where], node.outputs, numSplits=len(sizes))


@lowers("Expand")
def expand(node: Node) -> None:
    if node.x.shape == node.y.shape:
        node.reshape(node.x, node.y.shape, out=node.y)
        return
    target = node.ints(node.static_shape(node.y), "shape") if node.y.is_static else as_int32(node, node.input(1), "target")
    node.emit("BROADCAST_TO", [node.x, target])


@lowers("Tile")
def tile(node: Node) -> None:
    repeats = node.input(1)
    node.emit("TILE", [node.x, as_int32(node, repeats, "repeats")])


@lowers("DepthToSpace")
def depth_to_space(node: Node) -> None:
    """Channels-last DEPTH_TO_SPACE is ONNX's DCR; CRD differs by an order of the channels, which a gather restores."""
    block, x = node.integer("blocksize"), node.x
    if node.string("mode", "DCR") == "CRD":
        channels = node.static_shape(x)[3]
        order = np.arange(channels).reshape(-1, block, block).transpose(1, 2, 0).reshape(-1)
        x = node.emit("GATHER", [x, node.ints(order.tolist(), "order")], node.like(x, "ordered"), axis=3, batchDims=0)
    node.emit("DEPTH_TO_SPACE", [x], blockSize=block)


@lowers("SpaceToDepth")
def space_to_depth(node: Node) -> None:
    """Channels-last SPACE_TO_DEPTH is ONNX's DCR; CRD is another order of the resulting channels."""
    block = node.integer("blocksize")
    if node.string("mode", "DCR") != "CRD":
        node.emit("SPACE_TO_DEPTH", [node.x], blockSize=block)
        return
    made = node.emit("SPACE_TO_DEPTH", [node.x], node.like(node.y, "blocks"), blockSize=block)
    channels = node.static_shape(node.y)[3]
    order = np.arange(channels).reshape(block * block, -1).T.reshape(-1)
    node.emit("GATHER", [made, node.ints(order.tolist(), "order")], axis=3, batchDims=0)


@lowers("Shape")
def shape(node: Node) -> None:
    start, end = node.integer("start", 0), node.integer("end", node.x.rank)
    if (start, end) != (0, node.x.rank):
        whole = node.emit("SHAPE", [node.x], node.temp((node.x.rank,), "whole"), outType=node.y.dtype)
        first, last, _ = slice(start, end).indices(node.x.rank)
        node.emit("SLICE", [whole, node.ints([first], "begin"), node.ints([last - first], "size")])
        return
    node.emit("SHAPE", [node.x], outType=node.y.dtype)
