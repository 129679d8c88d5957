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
    """Mark a product whose right operand is held as (…, N, K); exchange the operands of one whose result is held as (…, N, M)."""
    left, right = r.input_perm(0), r.input_perm(1)
    if _is_swapped(r.output_perm()):  # (x · y)' = y' · x'
        first, second = r.node.inputs
        r.node.replace_input_with(0, second)
        r.node.replace_input_with(1, first)
        adjoint = not _is_swapped(left)
    else:
        adjoint = _is_swapped(right)
    if adjoint:
        r.node.domain = CHANNELS_LAST
        r.node.version = 1
        r.set_attribute("adj_y", 1)


PLAIN, RIGHT, RESULT, ALL = (0, 0, 0), (0, 1, 0), (0, 1, 1), (1, 1, 1)
"""Which of left, right and result are held with their last two axes swapped."""


def _batched(node: ir.Node, transposed_right: bool) -> list[Part]:
    """(…, M, K) · (…, K, N): batch axes permute alike where all operands have them all; matrices are held in one of four ways.

    With their axes as they are; the right one swapped, which is BATCH_MATMUL's adj_y; the result and the right one, where the
    operands are exchanged and the left one is adj_y's; all three, where they are exchanged alone.
    """
    slots = tuple(s for s in (Slot(0), Slot(1), Slot(0, True)) if constant(s.of(node)) is None)
    ranks = [rank(v) for s in slots if (v := s.of(node)) is not None]
    same = len(slots) == 3 and len(set(ranks)) == 1
    free = (RIGHT, RESULT, ALL) if len(slots) == 3 else (RIGHT,) if Slot(1) in slots else ()
    held = [(Slot(0), Slot(1), Slot(0, True)).index(slot) for slot in slots]

    def mode(batch: Perm, swapped: tuple[int, int, int]) -> tuple[Perm, ...]:
        made = []
        for which, size in zip(held, ranks, strict=True):
            last = (size - 1, size - 2) if swapped[which] else (size - 2, size - 1)
            made.append((*(batch if same else range(size - 2)), *last))
        return tuple(made)

    def relate(i: int, perm: Perm) -> tuple[Perm, ...] | None:
        batch = perm[:-2]
        swapped = (ALL, RIGHT, RESULT)[held[i]] if _is_swapped(perm) else PLAIN
        if swapped not in (PLAIN, *(free if transposed_right else ())) or set(perm[-2:]) != {len(perm) - 1, len(perm) - 2}:
            return None
        return mode(batch, swapped) if same or batch == identity(len(batch)) else None

    batch = identity(ranks[0] - 2)
    choices = tuple(mode(batch, swapped) for swapped in free) if transposed_right else ()
    return [Part(slots, mode(batch, PLAIN), relate, choices=choices)]


def _is_swapped(perm: Perm) -> bool:
    return len(perm) >= 2 and perm[-2:] == (len(perm) - 1, len(perm) - 2)
