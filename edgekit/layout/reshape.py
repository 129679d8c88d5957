"""Which permutations a Reshape lets through.

A reshape pairs runs of axes of equal size: (N, C, H, W) → (N, C, H·W) pairs N with N, C with C and (H, W) with (H·W). It splits
or merges axes only inside such a *block*, so any order that keeps each block's axes together and in sequence can be carried to
the other side: held as (N, H, W, C) it is the reshape to (N, H·W, C). Axes of size 1 belong to no block and go anywhere.

A block may also be *loose*: nobody but constants sees in which sequence it was merged (edgekit.layout.rules.absorb). Its axes
have to be together, in any sequence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from edgekit.layout.permutation import Dim, Perm, complete

Block = tuple[tuple[int, ...], tuple[int, ...]]


def blocks(source: Sequence[Dim], result: Sequence[Dim]) -> tuple[Block, ...] | None:
    """Pair the axes that are not of size 1; None where the sizes cannot be matched (an empty value, unrelated symbols)."""
    if 0 in source or 0 in result:
        return None
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


def carry(
    perm: Perm, paired: Sequence[Block], side: int, shapes: tuple[Sequence[Dim], Sequence[Dim]], loose: Collection[Block] = ()
) -> Perm | None:
    """The order of the other side when this side (0 source, 1 result) is held as `perm`; None if a block would be torn apart."""
    block_of = {axis: block for block in paired for axis in block[side]}
    order: list[int] = []
    place = [a for a in perm if shapes[side][a] != 1]
    i = 0
    while i < len(place):
        block = block_of[place[i]]
        run = tuple(place[i : i + len(block[side])])
        if run != block[side] and not (block in loose and set(run) == set(block[side])):
            return None
        order.extend(block[1 - side])
        i += len(run)
    return complete(order, len(shapes[1 - side]))


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
