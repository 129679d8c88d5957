"""Which permutations a Reshape lets through.

A reshape pairs runs of axes of equal size: (N, C, H, W) → (N, C, H·W) pairs N with N, C with C and (H, W) with (H·W). It splits
or merges axes only inside such a *block*, so any order that keeps each block's axes together and in sequence can be carried to
the other side: held as (N, H, W, C) it is the reshape to (N, H·W, C). Axes of size 1 belong to no block and go anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from edgekit.layout.permutation import Dim, Perm

Block = tuple[tuple[int, ...], tuple[int, ...]]


def blocks(source: Sequence[Dim], result: Sequence[Dim]) -> tuple[Block, ...] | None:
    """Pair the axes that are not of size 1; None where the sizes cannot be matched (an empty value, unrelated symbols)."""
    left = [a for a, d in enumerate(source) if d != 1]
    right = [a for a, d in enumerate(result) if d != 1]
    paired: list[Block] = []
    i = j = 0
    while i < len(left) or j < len(right):
        if i == len(left) or j == len(right):
            return None
        start = i, j
        have, want = _Size(source[left[i]]), _Size(result[right[j]])
        i, j = i + 1, j + 1
        while have != want:
            if i < len(left) and (have.fits_in(want) or j == len(right)):
                have.times(source[left[i]])
                i += 1
            elif j < len(right):
                want.times(result[right[j]])
                j += 1
            else:
                return None
        paired.append((tuple(left[start[0] : i]), tuple(right[start[1] : j])))
    return tuple(paired)


def carry(perm: Perm, paired: Sequence[Block], side: int, shapes: tuple[Sequence[Dim], Sequence[Dim]]) -> Perm | None:
    """The order of the other side when this side (0 source, 1 result) is held as `perm`; None if a block would be torn apart."""
    block_of = {axes[side][0]: axes for axes in paired}
    order: list[int] = []
    place = [a for a in perm if shapes[side][a] != 1]
    i = 0
    while i < len(place):
        block = block_of.get(place[i])
        if block is None or tuple(place[i : i + len(block[side])]) != block[side]:
            return None
        order.extend(block[1 - side])
        i += len(block[side])
    for axis in range(len(shapes[1 - side])):  # axes of size 1 follow their logical predecessor
        if shapes[1 - side][axis] == 1:
            order.insert(order.index(axis - 1) + 1 if axis else 0, axis)
    return tuple(order)


class _Size:
    """A product of dimensions, some of them symbolic."""

    def __init__(self, dim: Dim) -> None:
        self.number = 1
        self.symbols: Counter[str] = Counter()
        self.times(dim)

    def times(self, dim: Dim) -> None:
        if isinstance(dim, int):
            self.number *= dim
        else:
            self.symbols[dim] += 1

    def fits_in(self, other: _Size) -> bool:
        return self.number <= other.number and self.symbols <= other.symbols

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Size) and (self.number, self.symbols) == (other.number, other.symbols)
