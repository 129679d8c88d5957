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


def after(p: Perm, transpose: Sequence[int]) -> Perm:
    """The order of what `x.transpose(transpose)` is held in, expressed for `x`: both name the same bytes."""
    return tuple(transpose[i] for i in p)


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


def remove(p: Perm, axes: Sequence[int]) -> Perm:
    """The order that is left when logical `axes` disappear from the value."""
    gone = set(axes)
    left = [a for a in range(len(p)) if a not in gone]
    number = {axis: i for i, axis in enumerate(left)}
    return tuple(number[a] for a in p if a not in gone)


def insert(p: Perm, axes: Sequence[int]) -> Perm:
    """The order when new logical `axes` (numbered in the result) appear: each is held next to its logical predecessor."""
    rank = len(p) + len(axes)
    new = set(axes)
    old = [a for a in range(rank) if a not in new]
    out = [old[a] for a in p]
    for axis in sorted(new):
        out.insert(out.index(axis - 1) + 1 if axis else 0, axis)
    return tuple(out)
