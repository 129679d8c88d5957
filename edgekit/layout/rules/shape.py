"""Transpose and Reshape: the operators that change axes themselves."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from edgekit.layout import reshape as reshaping
from edgekit.layout.permutation import Perm, identity
from edgekit.layout.rules import absorb
from edgekit.layout.rules.node import Part, Rewriter, Slot, aligned, dims, fixed, is_free, rank


def transpose_perm(node: ir.Node) -> Perm:
    """A Transpose's permutation; reversed axes where it is not given."""
    if "perm" in node.attributes:
        return tuple(node.attributes["perm"].as_ints())
    source = node.inputs[0]
    assert source is not None
    return tuple(reversed(range(rank(source))))


def transpose_parts(node: ir.Node) -> list[Part]:
    perm = transpose_perm(node)
    return aligned(node, len(perm), {Slot(0): range(len(perm)), Slot(0, True): perm})


def transpose(r: Rewriter) -> None:
    """The operands were chosen so that nothing moves: the node becomes an Identity, which the caller removes."""
    if is_free(r.node.inputs[0]):
        r.node.op_type = "Identity"
        r.node.attributes.pop("perm", None)


def reshape_parts(node: ir.Node) -> list[Part]:
    """Source and result carry each other's order, block by block (edgekit.layout.reshape)."""
    source, result = node.inputs[0], node.outputs[0]
    if source is None or not is_free(source) or rank(result) < 1 or "?" in dims(source) + dims(result):
        return fixed(node)
    shapes = dims(source), dims(result)
    blocks = reshaping.blocks(*shapes)
    if blocks is None or len([d for d in shapes[1] if not isinstance(d, int)]) > 1:
        return fixed(node)
    loose = {block: held for block in blocks if (held := _absorbers(node, block, shapes)) is not None}
    slots = (Slot(0), Slot(0, True)) if is_free(result) else (Slot(0),)

    def relate(i: int, perm: Perm) -> tuple[Perm, ...] | None:
        other = reshaping.carry(perm, blocks, i, shapes, loose)
        return None if other is None else ((perm, other) if i == 0 else (other, perm))[: len(slots)]

    def settle(chosen: tuple[Perm, ...]) -> None:
        for block, held in loose.items():
            side = 0 if len(block[0]) > 1 else 1
            order = chosen[side] if side < len(chosen) else identity(rank(result))
            _reorder(block[side], order, shapes[side], held)

    default = (identity(rank(source)), identity(rank(result)))[: len(slots)]
    return [Part(slots, default, relate, settle if loose else None)]


def reshape(r: Rewriter) -> None:
    """Reshape, and Flatten where it has to become one."""
    if r.moved:
        shape = [d if isinstance(d, int) else -1 for d in dims(r.node.outputs[0])]  # the output already has its held shape
        r.node.op_type = "Reshape"
        r.node.attributes.clear()
        r.set_constant(1, np.array(shape, np.int64), "shape")


def _absorbers(node: ir.Node, block: reshaping.Block, shapes: tuple[tuple, tuple]) -> list[absorb.Held] | None:
    """The constants that know in which sequence a block is merged, where only constants do."""
    for side, value in ((0, node.outputs[0]), (1, node.inputs[0])):
        many, one = block[side], block[1 - side]
        if len(many) > 1 and len(one) == 1 and all(isinstance(shapes[side][a], int) for a in many) and value is not None:
            return absorb.absorbers(value, one[0], node)
    return None


def _reorder(axes: tuple[int, ...], perm: Perm, shape: tuple, held: list[absorb.Held]) -> None:
    order = [a for a in perm if a in axes]
    if tuple(order) != axes:
        sizes = [shape[a] for a in axes]
        index = np.arange(prod(sizes)).reshape(sizes).transpose([axes.index(a) for a in order])
        absorb.permute(held, index.reshape(-1))
