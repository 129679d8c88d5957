"""Reshape, Transpose, Reshape: splits go to the front, merges to the back.

    x (1, C, H, W) ─ Reshape (C·h, p, w, q) ─ Transpose 0 2 1 3 ─ Reshape (1, C, h·w, p·q)

cuts an image into patches of p by q. The first Reshape merges C with h, so that x can only be held as NCHW. But a merge before a
transpose is a merge after it, and a split after a transpose is a split before it:

    x (1, C, H, W) ─ Reshape (C, h, p, w, q) ─ Transpose 0 1 3 2 4 ─ Reshape (1, C, h·w, p·q)

Now the first Reshape only splits, which any order of x survives, and the last only merges, which asks nothing of the axes that it
keeps apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import onnx_ir as ir

from edgekit.layout.permutation import Dim, identity
from edgekit.layout.reshape import blocks
from edgekit.layout.rules.node import dims, rank, replace_constant
from edgekit.layout.rules.shape import transpose_perm

MAX_AXES = 6  # LiteRT's TRANSPOSE takes no more


def split_before_transpose(graph: ir.Graph) -> int:
    """Rewrite all such chains whose first Reshape merges or whose last one splits. Returns how many there were."""
    found = 0
    for node in list(graph):
        if node.op_type == "Reshape" and not node.domain and _rewrite(node):
            found += 1
    return found


@dataclass(frozen=True)
class _Piece:
    """A part of an axis: the finest that both sides of a Reshape are made of."""

    size: Dim
    source: int
    result: int


def _rewrite(last: ir.Node) -> bool:
    transpose = _only_feeds(last, "Transpose")
    first = None if transpose is None else _only_feeds(transpose, "Reshape")
    if transpose is None or first is None or first.inputs[0] is None:
        return False
    source, middle, result = first.inputs[0], first.outputs[0], last.outputs[0]
    if source.shape is None or rank(source) == 0 or sum(not isinstance(d, int) for d in dims(source)) > 1:
        return False
    perm = transpose_perm(transpose)
    before = _pieces(dims(source), dims(middle))
    after = _pieces(dims(transpose.outputs[0]), dims(result))
    if before is None or after is None or (_only_splits(before) and _only_splits([_turned(p) for p in after])):
        return False
    finest: list[list[Dim]] = []  # per axis between the first Reshape and the Transpose
    for axis in range(len(perm)):
        made = [piece.size for piece in before if piece.result == axis]
        used = [piece.size for piece in after if piece.source == perm.index(axis)]
        common = _common(made, used)
        if common is None:
            return False
        finest.append(common)
    start = np.cumsum([0, *map(len, finest)]).tolist()
    order = tuple(i for axis in perm for i in range(start[axis], start[axis + 1]))
    shape = [size for sizes in finest for size in sizes]
    if len(shape) > MAX_AXES or order == identity(len(order)):
        return False
    first.attributes.pop("allowzero", None)
    replace_constant(first, 1, np.array([d if isinstance(d, int) else -1 for d in shape], np.int64), "split")
    middle.shape = ir.Shape(shape)
    transpose.attributes["perm"] = ir.AttrInt64s("perm", order)
    transpose.outputs[0].shape = ir.Shape([shape[i] for i in order])
    last.attributes.pop("allowzero", None)
    replace_constant(last, 1, np.array([d if isinstance(d, int) else -1 for d in dims(result)], np.int64), "merged")
    return True


def _only_feeds(node: ir.Node, op_type: str) -> ir.Node | None:
    """The producer of a node's first input, if it is that operator and nothing else reads it."""
    value = node.inputs[0]
    producer = None if value is None else value.producer()
    if value is None or producer is None or producer.op_type != op_type or producer.domain or producer.graph is not node.graph:
        return None
    return producer if len(value.uses()) == 1 and not value.is_graph_output() and value.shape is not None else None


def _pieces(source: Sequence[Dim], result: Sequence[Dim]) -> list[_Piece] | None:
    """The pieces of a Reshape in order; None where its cuts do not fall together."""
    paired = None if "?" in (*source, *result) else blocks(source, result)
    if paired is None:
        return None
    pieces = []
    for left, right in paired:
        sizes = _common([source[a] for a in left], [result[a] for a in right])
        if sizes is None:
            return None
        owners = _owners(sizes, [source[a] for a in left]), _owners(sizes, [result[a] for a in right])
        pieces += [_Piece(size, left[i], right[j]) for size, i, j in zip(sizes, *owners, strict=True)]
    return pieces


def _common(left: Sequence[Dim], right: Sequence[Dim]) -> list[Dim] | None:
    """The coarsest sizes that both sequences, of the same product, are made of: (8, 6) and (16, 3) of (8, 2, 3)."""
    if list(left) == list(right):
        return list(left)
    cuts = {1}
    for sizes in (left, right):
        inner = 1
        for size in reversed(sizes):
            if not isinstance(size, int):
                return None
            inner *= size
            cuts.add(inner)
    ordered = sorted(cuts)
    if any(b % a for a, b in pairwise(ordered)):
        return None
    found: list[Dim] = [b // a for a, b in pairwise(ordered)]
    return found[::-1]


def _owners(pieces: Sequence[Dim], sizes: Sequence[Dim]) -> list[int]:
    """For each piece, the index of the size that it is part of."""
    owners, at, inner = [0] * len(pieces), len(sizes) - 1, 1
    for i in reversed(range(len(pieces))):
        owners[i] = at
        piece, size = pieces[i], sizes[at]
        inner *= piece if isinstance(piece, int) else 1
        if not isinstance(size, int) or inner == size:
            at, inner = at - 1, 1
    return owners


def _only_splits(pieces: Sequence[_Piece]) -> bool:
    """Whether each axis of the result comes from one of the source."""
    return all(len({p.source for p in group}) == 1 for _, group in groupby(pieces, key=lambda p: p.result))


def _turned(piece: _Piece) -> _Piece:
    return _Piece(piece.size, piece.result, piece.source)
