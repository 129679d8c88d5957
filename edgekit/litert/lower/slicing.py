"""Slice and Pad: parts of a tensor, and more than it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekit.litert.graph import Tensor
from edgekit.litert.lower.convert import FAR, as_int32
from edgekit.litert.lower.padding import pad as constant_pad
from edgekit.litert.lower.steps import Steps
from edgekit.litert.lower.table import Node, lowers

BOUND = 2**30
"""Beyond any size, and far enough from the ends of int32 for sums."""


@lowers("Slice")
def slice_(node: Node) -> None:
    """STRIDED_SLICE, or SLICE where every step is 1; backwards to the very start is said with an end mask."""
    x, rank = node.x, node.x.rank
    if any(node.has_input(i) and node.input(i).data is None for i in range(1, 5)):
        _computed_slice(node)
        return
    axes_given, steps_given = node.constant(3), node.constant(4)
    starts, ends = node.constant(1), node.constant(2)
    assert starts is not None
    assert ends is not None
    axes = range(len(starts)) if axes_given is None else [int(a) % rank for a in axes_given]
    steps = [1] * len(starts) if steps_given is None else np.clip(steps_given, -BOUND, BOUND).tolist()
    begin, stride = [0] * rank, [1] * rank
    end = [d if isinstance(d, int) else 0 for d in x.shape]
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
            begin[axis], end[axis], stride[axis] = max(-FAR, min(start, FAR)), max(-FAR, min(stop, FAR)), step
            if stop < FAR:
                end_mask &= ~(1 << axis)
        if stride[axis] > 0 and end[axis] == 0 and not end_mask >> axis & 1:
            begin[axis] = end[axis] = 1  # nothing: XNNPACK reads an end of 0 as the end of the axis
    bounds = [
        Bound(size, *place, bool(begin_mask >> i & 1), bool(end_mask >> i & 1))
        for i, (size, place) in enumerate(zip(x.shape, zip(begin, end, stride, strict=True), strict=True))
    ]
    if x.is_static and x.shape == node.y.shape and all(b.is_whole for b in bounds):
        node.reshape(x, node.y.shape, out=node.y)
        return
    folded = _folded(bounds) if rank > MOST_AXES and x.is_static else bounds
    source = node.reshape(x, [b.size for b in folded], "folded")
    if all(b.step == 1 for b in bounds) and x.is_static:
        lengths = [max(0, b.end - b.begin) for b in folded]
        out = node.y if folded is bounds else node.temp(lengths, "part", x.dtype)
        node.emit("SLICE", [source, node.ints([b.begin for b in folded], "begin"), node.ints(lengths, "size")], out)
    else:
        places = [node.ints([getattr(b, name) for b in folded], name) for name in ("begin", "end", "step")]
        masks = {f"{name}Mask": sum(getattr(b, f"{name}_open") << i for i, b in enumerate(folded)) for name in ("begin", "end")}
        out = node.y if folded is bounds else node.temp([b.length for b in folded], "part", x.dtype)
        node.emit("STRIDED_SLICE", [source, *places], out, **masks)
    if out is not node.y:
        node.reshape(out, node.y.shape, out=node.y)


MOST_AXES = 5
"""What SLICE and STRIDED_SLICE take in every runtime; newer ones take 8."""


@dataclass(frozen=True)
class Bound:
    """What is taken of one axis; `open` bounds reach to the end of the axis in the direction of the step."""

    size: int | str
    begin: int
    end: int
    step: int
    begin_open: bool
    end_open: bool

    @property
    def is_whole(self) -> bool:
        return self.step == 1 and self.begin == 0 and self.end == self.size

    @property
    def length(self) -> int:
        assert isinstance(self.size, int)
        return len(range(self.begin, self.end, self.step))


def _folded(bounds: list[Bound]) -> list[Bound]:
    """Neighbouring axes that are taken whole, as one."""
    made: list[Bound] = []
    for bound in bounds:
        if made and made[-1].is_whole and bound.is_whole:
            size = int(made[-1].size) * int(bound.size)
            made[-1] = Bound(size, 0, size, 1, True, True)
        else:
            made.append(bound)
    return made


def _computed_slice(node: Node) -> None:
    """Starts, ends, axes or steps computed at run time: vectors with one element per axis are put together for STRIDED_SLICE."""
    rank = node.x.rank
    axes, steps = node.inputs[3] if node.has_input(3) else None, node.inputs[4] if node.has_input(4) else None
    known_steps = steps is None or (steps.data is not None and (steps.data > 0).all())
    if (axes is None or axes.data is not None) and known_steps:
        _sliced_on_known_axes(node)
        return
    count = node.static_shape(node.input(1))[0]
    places = node.const(np.arange(count, dtype=np.int32), hint="axes") if axes is None else as_int32(node, axes, "axes")
    places = node.emit("FLOOR_MOD", [places, node.const(rank, np.int32, "rank")], node.temp((count,), "places", np.int32))
    column = node.reshape(places, (count, 1), "column")
    sizes = node.ints(node.static_shape(node.x), "sizes")

    def spread(values: Tensor, otherwise: Tensor, hint: str) -> Tensor:
        """`values` on the axes that are sliced, `otherwise` on the rest."""
        usual = otherwise
        if otherwise.rank:
            usual = node.emit("GATHER", [otherwise, places], node.temp((count,), f"{hint}_usual", np.int32), axis=0, batchDims=0)
        change = node.emit("SUB", [values, usual], node.temp((count,), f"{hint}_change", np.int32))
        line = node.emit("SCATTER_ND", [column, change, node.ints([rank], "line")], node.temp((rank,), f"{hint}_line", np.int32))
        return node.emit("ADD", [line, otherwise], node.temp((rank,), hint, np.int32))

    one = node.const(1, np.int32, "one")
    begin = spread(_bounded(node, 1, "starts"), node.const(0, np.int32, "zero"), "begin")
    end = spread(_bounded(node, 2, "ends"), sizes, "end")
    stride = node.ints([1] * rank, "strides") if steps is None else spread(as_int32(node, steps, "steps"), one, "strides")
    node.emit("STRIDED_SLICE", [node.x, begin, end, stride], beginMask=0, endMask=0)


def _sliced_on_known_axes(node: Node) -> None:
    """Starts and ends computed, step 1 or more; the other axes are masked."""
    rank, axes, steps = node.x.rank, node.constant(3), node.constant(4)
    places = list(range(rank)) if axes is None else [int(a) % rank for a in axes]
    stride = [1] * rank
    for place, step in zip(places, [1] * len(places) if steps is None else np.clip(steps, 1, BOUND).tolist(), strict=True):
        stride[place] = step

    def spread(i: int, rest: int, hint: str) -> Tensor:
        given = _bounded(node, i, hint)
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


def _bounded(node: Node, i: int, hint: str) -> Tensor:
    """Starts or ends as int32; an int64 may say "to the end" with a number that int32 does not hold."""
    given = node.input(i)
    if given.data is not None:
        return node.const(np.clip(given.data, -BOUND, BOUND), np.int32, f"{hint}_bounded")
    if given.dtype == np.int64:
        given = node.emit("MINIMUM", [given, node.const(BOUND, np.int64, "high")], node.like(given, f"{hint}_lowered"))
        given = node.emit("MAXIMUM", [given, node.const(-BOUND, np.int64, "low")], node.like(given, f"{hint}_raised"))
    return as_int32(node, given, hint)


@lowers("Pad")
def pad(node: Node) -> None:
    """constant → PAD or PADV2, reflect → MIRROR_PAD, edge → slices and a concat; negative padding is a slice first."""
    if node.input(1).data is None or (node.has_input(2) and node.input(2).data is None):
        _computed_pad(node)
        return
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


def _computed_pad(node: Node) -> None:
    """Amounts or the fill computed at run time: a SLICE takes off what is negative, then PADV2 or copies add the rest."""
    x, rank = node.x, node.x.rank
    pads = as_int32(node, node.input(1), "pads")
    if node.has_input(3):
        pads = _pads_of_all_axes(node, pads)
    zero = node.const(0, np.int32, "zero")
    if pads.data is None or (pads.data < 0).any():
        x = _cropped_by(node, x, pads, zero)
    grown = node.emit("MAXIMUM", [pads, zero], node.like(pads, "grown"))
    if node.string("mode", "constant") != "constant":
        _pad_by_computed_copies(node, x, grown)
        return
    rows = node.reshape(grown, (2, rank), "rows")
    amounts = node.emit("TRANSPOSE", [rows, node.ints((1, 0), "perm")], node.temp((rank, 2), "paddings", np.int32))
    if node.has_input(2):
        fill = node.reshape(node.input(2), (), "fill")
        node.emit("PADV2", [x, amounts, fill])
    else:
        node.emit("PAD", [x, amounts])


def _pads_of_all_axes(node: Node, pads: Tensor) -> Tensor:
    """Amounts given for some axes, with 0 for the others."""
    rank, count = node.x.rank, node.static_shape(pads)[0] // 2
    places = as_int32(node, node.input(3), "axes")
    places = node.emit("FLOOR_MOD", [places, node.const(rank, np.int32, "rank")], node.temp((count,), "places", np.int32))
    column, halves = node.reshape(places, (count, 1), "column"), []
    for i, side in enumerate(("before", "after")):
        given = node.temp((count,), f"given_{side}", np.int32)
        node.emit("SLICE", [pads, node.ints([i * count], f"{side}_begin"), node.ints([count], "count")], given)
        line = node.temp((rank,), f"all_{side}", np.int32)
        halves.append(node.emit("SCATTER_ND", [column, given, node.ints([rank], "line")], line))
    return node.emit("CONCATENATION", halves, node.temp((2 * rank,), "all_pads", np.int32), axis=0)


def _cropped_by(node: Node, x: Tensor, pads: Tensor, zero: Tensor) -> Tensor:
    """What negative amounts leave: `pads` holds all amounts before, then all after."""
    rank = x.rank
    shrunk = node.emit("MINIMUM", [pads, zero], node.like(pads, "shrunk"))
    halves = [node.temp((rank,), f"shrunk_{side}", np.int32) for side in ("before", "after")]
    node.emit("SPLIT", [node.const(0, np.int32, "axis"), shrunk], halves, numSplits=2)
    begin = node.emit("NEG", [halves[0]], node.temp((rank,), "begin", np.int32))
    sizes = node.ints(node.static_shape(x), "sizes")
    end = node.emit("ADD", [sizes, halves[1]], node.temp((rank,), "end", np.int32))
    left = node.temp([f"{node.y.name}_left{i}" for i in range(rank)], "left", x.dtype)
    return node.emit("STRIDED_SLICE", [x, begin, end, node.ints([1] * rank, "ones")], left, beginMask=0, endMask=0)


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


def _pad_by_computed_copies(node: Node, x: Tensor, amounts: Tensor) -> None:
    """One gather per axis, as by `_pad_by_copies`. Reflected places go back and forth with a period of 2 (size - 1)."""
    f, rank, mode = Steps(node), x.rank, node.string("mode")
    sizes = node.emit("SHAPE", [x], f.temp((rank,), np.int32), outType=np.dtype(np.int32))

    def number(values: Tensor, place: int) -> Tensor:
        return node.reshape(f.slice(values, (place,), (1,)), (), "number")

    for axis in range(rank):
        size = number(sizes, axis)
        first, end = f.one("NEG", number(amounts, axis)), f("ADD", size, number(amounts, rank + axis))
        places = node.emit("RANGE", [first, end, f.constant(1, np.int32)], f.temp((f"{node.y.name}_{axis}",), np.int32))
        if mode == "edge":
            places = f("MINIMUM", f("MAXIMUM", places, 0), f("SUB", size, 1))
        elif mode == "wrap":
            places = f("FLOOR_MOD", places, size)
        else:
            period = f("MUL", f("SUB", size, 1), 2)
            places = f("FLOOR_MOD", places, f("MAXIMUM", period, 1))
            places = f("MINIMUM", places, f("SUB", period, places))
        shape = [places.shape[0] if i == axis else d for i, d in enumerate(x.shape)]
        x = node.emit("GATHER", [x, places], node.y if axis == rank - 1 else f.temp(shape, x.dtype), axis=axis, batchDims=0)
