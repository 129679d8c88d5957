"""Operators that rearrange elements without computing: reshape, transpose, concat, split, slice, pad, expand, tile."""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Tensor
from edgekit.litert.lower.padding import pad as constant_pad
from edgekit.litert.lower.table import Node, lowers

FAR = 2**31 - 1


@lowers("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")
def reshape(node: Node) -> None:
    """All of them are RESHAPE to the result's shape; with several dynamic dimensions the target is computed."""
    dynamic = [d for d in node.y.shape if not isinstance(d, int)]
    if len(dynamic) <= 1:
        node.reshape(node.x, node.y.shape, out=node.y)
    elif node.op_type == "Reshape" and node.input(1).data is None:
        node.emit("RESHAPE", [node.x, _int32(node, node.input(1))])
    elif node.op_type == "Unsqueeze":
        _unsqueeze(node)
    elif node.op_type == "Squeeze":
        axes = node.constant(1)
        dims = [i for i, d in enumerate(node.x.shape) if d == 1] if axes is None else [int(a) % node.x.rank for a in axes]
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
    axes = sorted(int(a) % node.y.rank for a in node.constant(1))  # type: ignore[union-attr]
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
    parts = node.constant(1)
    sizes = [out.shape[axis] for out in node.outputs] if parts is None else parts.tolist()
    where = node.const(axis, np.int32, "axis")
    if len(sizes) == 1:
        node.reshape(node.x, node.y.shape, out=node.y)
    elif len(set(sizes)) == 1:
        node.emit("SPLIT", [where, node.x], node.outputs, numSplits=len(sizes))
    else:
        node.emit("SPLIT_V", [node.x, node.ints(sizes, "sizes"), where], node.outputs, numSplits=len(sizes))


@lowers("Slice")
def slice_(node: Node) -> None:
    """STRIDED_SLICE, or SLICE where every step is 1; backwards to the very start is said with an end mask."""
    x, rank = node.x, node.x.rank
    axes_given, steps_given = node.constant(3), node.constant(4)
    if node.input(1).data is None or node.input(2).data is None:
        _dynamic_slice(node)
        return
    starts, ends = node.constant(1), node.constant(2)
    assert starts is not None
    assert ends is not None
    axes = range(len(starts)) if axes_given is None else [int(a) % rank for a in axes_given]
    steps = [1] * len(starts) if steps_given is None else steps_given.tolist()
    begin, end, stride = [0] * rank, [0] * rank, [1] * rank
    begin_mask = end_mask = (1 << rank) - 1
    for axis, start, stop, step in zip(axes, starts.tolist(), ends.tolist(), steps, strict=True):
        size = x.shape[axis]
        begin_mask &= ~(1 << axis)
        if isinstance(size, int):
            first, last, step = slice(start, stop if stop > -(2**31) else None, step).indices(size)
            begin[axis], end[axis], stride[axis] = first, last, step
            if last != -1 and not (step == 1 and last == size):
                end_mask &= ~(1 << axis)
        else:
            begin[axis], end[axis], stride[axis] = start, max(-FAR, min(stop, FAR)), step
            if stop < FAR:
                end_mask &= ~(1 << axis)
    if all(s == 1 for s in stride) and x.is_static:
        lengths = node.static_shape(node.y)
        if lengths == x.shape:
            node.reshape(x, node.y.shape, out=node.y)
            return
        if rank <= 5:
            node.emit("SLICE", [x, node.ints(begin, "begin"), node.ints(lengths, "size")])
            return
    if rank > 5:
        raise node.refuse(f"LiteRT slices up to 5 axes, not {rank}", "slice before the reshape that adds axes", "data")
    inputs = [x, node.ints(begin, "begin"), node.ints(end, "end"), node.ints(stride, "strides")]
    node.emit("STRIDED_SLICE", inputs, beginMask=begin_mask, endMask=end_mask)


def _dynamic_slice(node: Node) -> None:
    """Starts and ends computed at run time, step 1 or more, on the axes that are given."""
    rank, axes, steps = node.x.rank, node.constant(3), node.constant(4)
    places = list(range(rank)) if axes is None else [int(a) % rank for a in axes]
    stride = [1] * rank
    for place, step in zip(places, [1] * len(places) if steps is None else steps.tolist(), strict=True):
        stride[place] = step
    if min(stride) < 1:
        raise node.refuse("a backwards slice whose ends are computed", "make starts and ends constant", "steps")

    def spread(i: int, rest: int, hint: str) -> Tensor:
        given = _int32(node, node.input(i))
        if places == list(range(rank)):
            return given
        parts = []
        for axis in range(rank):
            if axis in places:
                at = places.index(axis)
                piece = node.temp((1,), f"{hint}{axis}", np.int32)
                parts.append(node.emit("SLICE", [given, node.ints([at], "at"), node.ints([1], "one")], piece))
            else:
                parts.append(node.ints([rest], f"{hint}_rest"))
        return node.emit("CONCATENATION", parts, node.temp((rank,), hint, np.int32), axis=0)

    free = sum(1 << axis for axis in range(rank) if axis not in places)
    inputs = [node.x, spread(1, 0, "begin"), spread(2, FAR, "end"), node.ints(stride, "strides")]
    node.emit("STRIDED_SLICE", inputs, beginMask=free, endMask=free)


@lowers("Pad")
def pad(node: Node) -> None:
    """constant → PAD or PADV2, reflect → MIRROR_PAD, edge → slices and a concat; negative padding is a slice first."""
    x, pads, axes = node.x, node.constant(1), node.constant(3)
    assert pads is not None
    places = list(range(x.rank)) if axes is None else [int(a) % x.rank for a in axes]
    amounts = [(0, 0)] * x.rank
    for i, place in enumerate(places):
        amounts[place] = int(pads[i]), int(pads[len(places) + i])
    if any(before < 0 or after < 0 for before, after in amounts):
        x = _crop(node, x, amounts)
        amounts = [(max(0, before), max(0, after)) for before, after in amounts]
    mode = node.string("mode", "constant")
    if not any(before or after for before, after in amounts):
        node.reshape(x, node.y.shape, out=node.y)
    elif mode == "constant":
        fill = node.constant(2)
        constant_pad(node, x, amounts, 0 if fill is None or fill.size == 0 else fill.reshape(-1)[0].item(), node.y)
    elif mode == "reflect":
        node.emit("MIRROR_PAD", [x, node.const(np.array(amounts, np.int32), hint="paddings")], mode="REFLECT")
    elif mode in ("edge", "wrap"):
        _pad_by_copies(node, x, amounts, mode)
    else:
        raise node.refuse(f"mode {mode!r} is unknown", "use constant, reflect, edge or wrap", "mode")


def _crop(node: Node, x: Tensor, amounts: list[tuple[int, int]]) -> Tensor:
    shape = node.static_shape(x)
    begin = [max(0, -before) for before, _ in amounts]
    size = [d - b - max(0, -after) for d, b, (_, after) in zip(shape, begin, amounts, strict=True)]
    return node.emit("SLICE", [x, node.ints(begin, "begin"), node.ints(size, "size")], node.temp(size, "cropped", x.dtype))


def _pad_by_copies(node: Node, x: Tensor, amounts: list[tuple[int, int]], mode: str) -> None:
    """One gather per padded axis: the index of every element of the result."""
    padded = [axis for axis, amount in enumerate(amounts) if any(amount)]
    shape = list(node.static_shape(x))
    for axis in padded:
        before, after = amounts[axis]
        places = np.arange(-before, shape[axis] + after)
        index = np.clip(places, 0, shape[axis] - 1) if mode == "edge" else places % shape[axis]
        shape[axis] = len(index)
        out = node.y if axis == padded[-1] else node.temp(shape, f"padded{axis}", x.dtype)
        x = node.emit("GATHER", [x, node.ints(index.tolist(), f"index{axis}")], out, axis=axis, batchDims=0)


@lowers("Expand")
def expand(node: Node) -> None:
    if node.x.shape == node.y.shape:
        node.reshape(node.x, node.y.shape, out=node.y)
        return
    target = node.ints(node.static_shape(node.y), "shape") if node.y.is_static else _int32(node, node.input(1))
    node.emit("BROADCAST_TO", [node.x, target])


@lowers("Tile")
def tile(node: Node) -> None:
    repeats = node.input(1)
    node.emit("TILE", [node.x, _int32(node, repeats)])


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


def _int32(node: Node, tensor: Tensor) -> Tensor:
    """A shape or index vector as the kernels take it."""
    if tensor.data is not None:
        return node.ints(np.clip(tensor.data, -FAR, FAR).tolist(), "int32")
    if tensor.dtype == np.int32:
        return tensor
    return node.emit(
        "CAST", [tensor], node.like(tensor, "int32", np.int32), inDataType=tensor.dtype, outDataType=np.dtype(np.int32)
    )
