"""The algebra of axis orders.

A permutation `p` says how a value is held: `held = logical.transpose(p)`, so axis `i` of what is held is axis `p[i]` of the
logical (ONNX) value. `(0, 2, 3, 1)` holds an NCHW value as NHWC.
"""

from __future__ import annotations

from collections.abc import Sequence

Perm = tuple[int, ...]
Dim = int | str


def identity(rank: int) -> Perm:
    """The logical order itself."""
    return tuple(range(rank))


def channels_last(rank: int) -> Perm:
    """NC… held as N…C; ranks below 3 have no spatial axes and stay."""
    return identity(rank) if rank < 3 else (0, *range(2, rank), 1)


def inverse(p: Sequence[int]) -> Perm:
    """`x.transpose(p).transpose(inverse(p))` is `x`."""
    out = [0] * len(p)
    for i, axis in enumerate(p):
        out[axis] = i
    return tuple(out)


def between(have: Perm, want: Perm) -> Perm:
    """The transpose that turns a value held as `have` into one held as `want`."""
    place = inverse(have)
    return tuple(place[axis] for axis in want)


def held_shape(shape: Sequence[Dim], p: Perm) -> tuple[Dim, ...]:
    """The shape of what is held."""
    return tuple(shape[axis] for axis in p)


def moves_data(have: Perm, want: Perm, shape: Sequence[Dim]) -> bool:
    """Whether going from one order to the other moves bytes; axes of size 1 move for free (a reshape does it)."""
    return have != want and [a for a in have if shape[a] != 1] != [a for a in want if shape[a] != 1]


def complete(order: Sequence[int], size: int) -> Perm:
    """An order of some of the axes 0 … size-1, with each missing axis held right after its logical predecessor."""
    out = list(order)
    present = set(order)
    for axis in range(size):
        if axis not in present:
            out.insert(out.index(axis - 1) + 1 if axis else 0, axis)
    return tuple(out)


def restrict(order: Sequence[int], axes: Sequence[int]) -> Perm:
    """The order of a value whose i-th axis is `axes[i]` of a larger one that is held as `order`."""
    number = {axis: i for i, axis in enumerate(axes)}
    return tuple(number[axis] for axis in order if axis in number)
