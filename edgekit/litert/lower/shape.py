"""Operators that rearrange elements without computing: reshape, transpose, concat, split, expand, tile."""

from __future__ import annotations

import numpy as np

from edgekit.hub.data_sized import holds_data
from edgekit.litert.graph import Tensor
from edgekit.litert.lower.computed_axes import with_ones, without
from edgekit.litert.lower.convert import as_int32
from edgekit.litert.lower.steps import Steps
from edgekit.litert.lower.table import Node, lowers


@lowers("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")
def reshape(node: Node) -> None:
    """All of them are RESHAPE to the result's shape; with several dynamic dimensions the target is computed."""
    dynamic = [d for d in node.y.shape if not isinstance(d, int)]
    if len(dynamic) <= 1 or node.x.shape == node.y.shape:
        node.reshape(node.x, node.y.shape, out=node.y)
    elif node.op_type == "Reshape" and node.input(1).data is None:
        node.emit("RESHAPE", [node.x, _target(node)])
    elif node.op_type == "Unsqueeze":
        _unsqueeze(node)
    elif node.op_type == "Squeeze":
        ones = [i for i, d in enumerate(node.x.shape) if d == 1]
        told = not node.has_input(1) or (node.x.is_static and len(ones) == node.x.rank - node.y.rank)  # by the sizes alone
        if not told and node.input(1).data is None:
            axes, f = as_int32(node, node.input(1), "axes"), Steps(node)
            node.emit("RESHAPE", [node.x, without(f, node.x, axes, node.y.rank)])
            return
        given = None if told else node.constant(1)
        dims = ones if given is None else [int(a) % node.x.rank for a in given.reshape(-1)]
        node.emit("SQUEEZE", [node.x], squeezeDims=np.array(dims, np.int32))
    else:
        raise node.refuse(
            f"its result {node.y.shape} has {len(dynamic)} dynamic dimensions", "fix all but one with --input NAME=SHAPE"
        )


def _target(node: Node) -> Tensor:
    """A computed shape; what comes from data may say with a 0 that a size stays."""
    target = as_int32(node, node.input(1), "target")
    if node.integer("allowzero") or not holds_data(node.onnx.inputs[1]):
        return target
    sizes = _sizes(node, node.static_shape(target)[0], leading=False)
    return _choose(node, _equal(node, target, 0, "stays"), sizes, target, "sizes")


def _unsqueeze(node: Node) -> None:
    x = node.x
    if node.input(1).data is None and node.input(1).shape == (1,):
        node.emit("EXPAND_DIMS", [x, node.reshape(as_int32(node, node.input(1), "axes"), (), "axis")])
        return
    if node.input(1).data is None:
        node.emit("RESHAPE", [x, with_ones(Steps(node), x, as_int32(node, node.input(1), "axes"), node.y.rank)])
        return
    axes = sorted(int(a) % node.y.rank for a in node.constant(1).reshape(-1))  # type: ignore[union-attr]
    for i, axis in enumerate(axes):
        shape = (*x.shape[:axis], 1, *x.shape[axis:])
        out = node.y if i == len(axes) - 1 else node.temp(shape, f"expanded{axis}", x.dtype)
        x = node.emit("EXPAND_DIMS", [x, node.const(axis, np.int32, f"axis{axis}")], out)


@lowers("Dropout")
def dropout(node: Node) -> None:
    """Left in the graph only where it trains; without anything to drop it is the identity."""
    ratio = node.input(1).data if node.has_input(1) else None
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
        if not node.has_input(1):
            raise node.refuse("the sizes of its parts are known only when it runs", "fix them with --input NAME=SHAPE", "split")
        parts = as_int32(node, node.input(1), "sizes")
        node.emit("SPLIT_V", [node.x, parts, node.const(axis, np.int32, "axis")], node.outputs, numSplits=len(node.outputs))
        return
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
    if node.y.is_static:
        target = node.ints(node.static_shape(node.y), "shape")
    else:
        target = as_int32(node, node.input(1), "target")
        if holds_data(node.onnx.inputs[1]):  # which may ask for 1 where the operand has more
            missing = node.x.rank - node.static_shape(target)[0]
            if missing > 0:
                whole = node.temp((node.x.rank,), "whole", np.int32)
                target = node.emit("CONCATENATION", [node.ints([1] * missing, "ones"), target], whole, axis=0)
            sizes = _sizes(node, node.static_shape(target)[0], leading=True)
            target = _choose(node, _equal(node, sizes, 1, "grows"), target, sizes, "sizes")
    node.emit("BROADCAST_TO", [node.x, target])


def _sizes(node: Node, count: int, *, leading: bool) -> Tensor:
    """The first `count` sizes of the operand; where it has fewer axes, with ones before (`leading`) or behind them."""
    x, ones = node.x, max(0, count - node.x.rank)
    if x.is_static:
        given = list(node.static_shape(x))
        return node.ints([1] * ones + given if leading else given[:count] + [1] * ones, "given")
    whole = node.emit("SHAPE", [x], node.temp((x.rank,), "all_sizes", np.int32), outType=np.dtype(np.int32))
    if x.rank > count:
        part = node.temp((count,), "given", np.int32)
        return node.emit("SLICE", [whole, node.ints([0], "first"), node.ints([count], "count")], part)
    if not ones:
        return whole
    parts = [node.ints([1] * ones, "ones"), whole]
    return node.emit("CONCATENATION", parts if leading else parts[::-1], node.temp((count,), "given", np.int32), axis=0)


def _equal(node: Node, values: Tensor, number: int, hint: str) -> Tensor:
    if values.data is not None:
        return node.const(values.data == number, hint=hint)
    return node.emit("EQUAL", [values, node.const(number, np.int32, f"{hint}_if")], node.like(values, hint, bool))


def _choose(node: Node, condition: Tensor, yes: Tensor, no: Tensor, hint: str) -> Tensor:
    return node.emit("SELECT_V2", [condition, yes, no], node.like(no, hint))


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
