"""Shapes that depend on which axes an input names."""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Tensor
from edgekit.litert.lower.steps import Steps


def named(f: Steps, axes: Tensor, rank: int) -> Tensor:
    """For each of `rank` axes whether it is one of those (a vector of int32, negative from the end)."""
    count = axes.shape[0] if axes.rank else 1
    column = f.node.reshape(f("FLOOR_MOD", axes, rank), (count, 1), "column")
    found = f("EQUAL", column, f.constant(np.arange(rank), np.int32))
    return f.node.emit("REDUCE_ANY", [found, f.node.ints([0], "first")], f.temp((rank,), np.bool_), keepDims=False)


def sizes_of(f: Steps, x: Tensor) -> Tensor:
    """The shape as a vector of int32."""
    if x.is_static:
        return f.node.ints(f.node.static_shape(x), "sizes")
    return f.node.emit("SHAPE", [x], f.temp((x.rank,), np.int32), outType=np.dtype(np.int32))


def without(f: Steps, x: Tensor, axes: Tensor, rank: int) -> Tensor:
    """The sizes of a tensor but for those of the named axes; `rank` of them are left."""
    places = f.temp((rank, 1), np.int64)
    f.node.emit("WHERE", [f.one("LOGICAL_NOT", named(f, axes, x.rank))], places)
    return f.node.emit("GATHER_ND", [sizes_of(f, x), places], f.temp((rank,), np.int32))


def with_ones(f: Steps, x: Tensor, axes: Tensor, rank: int) -> Tensor:
    """The sizes of a tensor with a 1 at each named axis of the `rank` that there are then."""
    if not x.rank:
        return f.node.ints([1] * rank, "ones")
    added = named(f, axes, rank)
    counted = f.node.emit(
        "CUMSUM", [f.cast(f.one("LOGICAL_NOT", added), np.int32), f.constant(0, np.int32)], f.temp((rank,), np.int32),
        exclusive=True, reverse=False,
    )  # fmt: skip
    source = f("MINIMUM", counted, x.rank - 1)
    taken = f.node.emit("GATHER", [sizes_of(f, x), source], f.temp((rank,), np.int32), axis=0, batchDims=0)
    return f.select(added, f.constant(1, np.int32), taken)
