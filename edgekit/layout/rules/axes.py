"""Operators that name axes: they follow any order by renaming them, and may remove or add some."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from edgekit.layout.permutation import inverse
from edgekit.layout.rules.node import (
    Part,
    Rewriter,
    Slot,
    aligned,
    constant,
    dims,
    fixed,
    free_slots,
    integer,
    is_free,
    rank,
    value_rank,
)

Parts = Callable[[ir.Node], list[Part]]


# All operands have the same axes -----------------------------------------------------------------------------------------


def same_axes(node: ir.Node) -> list[Part]:
    return aligned(node, _size(node), {s: range(value_rank(node, s)) for s in free_slots(node)})


def axis_attribute(default: int) -> Callable[[Rewriter], None]:
    """Concat, Split, Softmax …: the attribute `axis` names the axis."""

    def rewrite(r: Rewriter) -> None:
        if not r.moved:
            return
        perm = r.output_perm()
        r.set_attribute("axis", perm.index(integer(r.node, "axis", default) % len(perm)))
        for i, value in enumerate(r.node.inputs):
            array = constant(value)
            if array is not None and array.ndim == len(perm):  # a constant operand of Concat
                r.set_constant(i, array.transpose(perm), f"constant{i}")

    return rewrite


def last_axis(default: int) -> Parts:
    """Operators that a runtime has for the last axis only: whatever order, as long as `axis` is held last."""

    def parts(node: ir.Node) -> list[Part]:
        size = _size(node)
        axis = integer(node, "axis", default) % max(1, size)
        moved = (*(a for a in range(size) if a != axis), axis)
        slots = {s: range(value_rank(node, s)) for s in free_slots(node)}
        return aligned(node, size, slots, allowed=lambda frame: frame[-1] == axis, default=moved)

    return parts


def trailing_axes(default: int) -> Parts:
    """Operators on the axes from `axis` to the last (LayerNormalization): those stay where they are."""

    def parts(node: ir.Node) -> list[Part]:
        size = rank(node.outputs[0])
        first = integer(node, "axis", default) % max(1, size)
        tail = tuple(range(first, size))
        slots = {s: range(size) for s in (Slot(0), *(Slot(i, True) for i in range(len(node.outputs))))}
        return aligned(node, size, slots, allowed=lambda frame: frame[first:] == tail)

    return parts


def if_constant(index: int, parts: Parts) -> Parts:
    """A rule that holds only while that input is a constant or absent."""

    def checked(node: ir.Node) -> list[Part]:
        absent = len(node.inputs) <= index or node.inputs[index] is None
        return parts(node) if absent or constant(node.inputs[index]) is not None else fixed(node)

    return checked


def slice_parts(node: ir.Node) -> list[Part]:
    # Without axes, starts may be shorter than the rank: then only the logical order is plain.
    if len(node.inputs) <= 3 or node.inputs[3] is None:
        starts = constant(node.inputs[1])
        if starts is None or len(starts) != rank(node.outputs[0]):
            return fixed(node)
    return if_constant(3, same_axes)(node)


def axes_input(index: int) -> Callable[[Rewriter], None]:
    """Slice, Pad: the axes they act on are an input, all of them where it is absent."""

    def rewrite(r: Rewriter) -> None:
        if not r.moved:
            return
        perm = r.output_perm()
        given = constant(r.node.inputs[index]) if len(r.node.inputs) > index else None
        axes = range(len(perm)) if given is None else given.tolist()
        bounds = r.node.inputs[1]  # of Slice and Pad: the axes have to be of its dtype
        dtype = np.int32 if bounds is not None and bounds.dtype == ir.DataType.INT32 else np.int64
        r.set_constant(index, np.array([perm.index(a % len(perm)) for a in axes], dtype), "axes")

    return rewrite


def tile(r: Rewriter) -> None:
    repeats = constant(r.node.inputs[1])
    if r.moved and repeats is not None:
        r.set_constant(1, repeats[list(r.output_perm())], "repeats")


def cumsum(r: Rewriter) -> None:
    axis, perm = constant(r.node.inputs[1]), r.output_perm()
    if r.moved and axis is not None:
        r.set_constant(1, np.array(perm.index(int(axis.item()) % len(perm)), np.int64), "axis")


# Some axes are removed or added ------------------------------------------------------------------------------------------


def reduced_axes(node: ir.Node) -> list[int] | None:
    """The axes a Reduce… node reduces, non-negative; None where they are computed."""
    source = node.inputs[0]
    assert source is not None
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        axes = constant(node.inputs[1])
        if axes is None:
            return None
        if axes.size:
            return [int(a) % max(1, rank(source)) for a in axes.reshape(-1)]
    return [] if integer(node, "noop_with_empty_axes", 0) else list(range(rank(source)))


def reduce_parts(node: ir.Node) -> list[Part]:
    axes = reduced_axes(node)
    if axes is None:
        return fixed(node)
    return same_axes(node) if integer(node, "keepdims", 1) else _removing(node, axes)


def reduce(r: Rewriter) -> None:
    axes, perm = reduced_axes(r.node), r.input_perm(0)
    if r.moved and axes:
        r.set_constant(1, np.array(sorted(perm.index(a) for a in axes), np.int64), "axes")


def arg_parts(node: ir.Node) -> list[Part]:
    return same_axes(node) if integer(node, "keepdims", 1) else _removing(node, [_axis(node)])


def arg(r: Rewriter) -> None:
    if r.moved:
        r.set_attribute("axis", r.input_perm(0).index(_axis(r.node)))


def squeeze_parts(node: ir.Node) -> list[Part]:
    axes = _squeezed(node)
    return fixed(node) if axes is None else _removing(node, axes)


def squeeze(r: Rewriter) -> None:
    axes = _squeezed(r.node) if len(r.node.inputs) > 1 else None
    if r.moved and axes is not None:  # without axes every dimension of size 1 goes, in whichever order
        r.set_constant(1, np.array(sorted(r.input_perm(0).index(a) for a in axes), np.int64), "axes")


def unsqueeze_parts(node: ir.Node) -> list[Part]:
    axes = constant(node.inputs[1])
    if axes is None:
        return fixed(node)
    size = rank(node.outputs[0])
    new = {int(a) % max(1, size) for a in axes.reshape(-1)}
    return aligned(node, size, {Slot(0): [a for a in range(size) if a not in new], Slot(0, True): range(size)})


def unsqueeze(r: Rewriter) -> None:
    axes, perm = constant(r.node.inputs[1]), r.output_perm()
    if r.moved and axes is not None:
        r.set_constant(1, np.array(sorted(perm.index(int(a) % len(perm)) for a in axes.reshape(-1)), np.int64), "axes")


def gather_parts(node: ir.Node) -> list[Part]:
    data, indices = node.inputs[:2]
    if not is_free(data) or indices is None or indices.shape is None or rank(indices) > 1:
        return fixed(node)
    if rank(indices) == 1:
        size = _size(node)
        return aligned(node, size, {Slot(0): range(size), Slot(0, True): range(size)})
    return _removing(node, [_axis(node)])


def shape_parts(node: ir.Node) -> list[Part]:
    size = _size(node)
    return aligned(node, size, {Slot(0): range(size)})


def logical_shape(r: Rewriter) -> None:
    """The shape of what is held, put back into the logical order."""
    if not r.moved:
        return
    perm, node, graph = r.input_perm(0), r.node, r.node.graph
    assert graph is not None
    start, end = integer(node, "start", 0), integer(node, "end", len(perm))
    order = np.array(inverse(perm)[start:end], np.int64)
    result = node.outputs[0]
    held = ir.node("Shape", list(node.inputs))
    held.outputs[0].name, held.outputs[0].dtype = f"{result.name}/held", ir.DataType.INT64
    held.outputs[0].shape = ir.Shape([len(perm)])
    graph.insert_before(node, held)
    # The node itself becomes the Gather, so that its output stays what others use.
    node.op_type = "Gather"
    node.attributes.clear()
    node.replace_input_with(0, held.outputs[0])
    r.set_constant(1, order, "order")


def _removing(node: ir.Node, axes: Sequence[int]) -> list[Part]:
    size = _size(node)
    return aligned(node, size, {Slot(0): range(size), Slot(0, True): [a for a in range(size) if a not in set(axes)]})


def _squeezed(node: ir.Node) -> list[int] | None:
    source = node.inputs[0]
    assert source is not None
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        axes = constant(node.inputs[1])
        return None if axes is None else [int(a) % max(1, rank(source)) for a in axes.reshape(-1)]
    return [i for i, d in enumerate(dims(source)) if d == 1]


def _axis(node: ir.Node) -> int:
    return integer(node, "axis", 0) % max(1, _size(node))


def _size(node: ir.Node) -> int:
    return value_rank(node, Slot(0))
