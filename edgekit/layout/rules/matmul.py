"""Matrix products: the last two axes are the matrices', those before them only count."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from edgekit.layout.permutation import Perm, identity
from edgekit.layout.rules.node import Part, Rewriter, Slot, aligned, constant, fixed, rank
from edgekit.layout.rules.quantized import dequantized_constant

CHANNELS_LAST = "edgekit.channels_last"
"""Domain of an operator that LiteRT has in another form than ONNX; edgekit.layout.rules says what it means per operator."""


def matmul_parts(transposed_right: bool) -> Callable[[ir.Node], list[Part]]:
    """MatMul, and where `transposed_right` one that also takes its right operand as (…, N, K)."""

    def parts(node: ir.Node) -> list[Part]:
        left, right = node.inputs[:2]
        assert left is not None
        assert right is not None
        size = rank(left)
        if (constant(right) is not None or dequantized_constant(right) is not None) and rank(right) == 2:
            # A constant matrix: all axes of the left operand but its last are a batch.
            slots = {Slot(0): range(size), Slot(0, True): range(size)}
            return aligned(node, size, slots, allowed=lambda frame: frame[-1] == size - 1)
        if constant(right) is not None or rank(right) < 2 or size < 2:
            return fixed(node)
        return _batched(node, transposed_right)

    return parts


def matmul(r: Rewriter) -> None:
    """Mark a product whose right operand is held as (…, N, K)."""
    right = r.input_perm(1)
    if len(right) >= 2 and right[-1] == len(right) - 2:
        r.node.domain = CHANNELS_LAST
        r.node.version = 1
        r.set_attribute("adj_y", 1)


def _batched(node: ir.Node, transposed_right: bool) -> list[Part]:
    """(…, M, K) · (…, K, N): batch axes permute alike where all operands have them all; the rest stays, or the right swaps."""
    slots = tuple(s for s in (Slot(0), Slot(1), Slot(0, True)) if constant(s.of(node)) is None)
    ranks = [rank(v) for s in slots if (v := s.of(node)) is not None]
    same = len(slots) == 3 and len(set(ranks)) == 1

    def mode(batch: Perm, swapped: bool) -> tuple[Perm, ...]:
        made = []
        for slot, size in zip(slots, ranks, strict=True):
            last = (size - 1, size - 2) if swapped and slot == Slot(1) else (size - 2, size - 1)
            made.append((*(batch if same else range(size - 2)), *last))
        return tuple(made)

    def relate(i: int, perm: Perm) -> tuple[Perm, ...] | None:
        batch, last = perm[:-2], perm[-2:]
        swapped = last == (len(perm) - 1, len(perm) - 2)
        if swapped and not (transposed_right and slots[i] == Slot(1)):
            return None
        if not swapped and last != (len(perm) - 2, len(perm) - 1):
            return None
        return mode(batch, swapped) if same or batch == identity(len(batch)) else None

    batch = identity(ranks[0] - 2)
    choices = (mode(batch, True),) if transposed_right and Slot(1) in slots else ()
    return [Part(slots, mode(batch, False), relate, choices=choices)]
