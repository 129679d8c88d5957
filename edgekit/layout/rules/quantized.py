"""QuantizeLinear and DequantizeLinear: elementwise, with scales along one axis at most.

A weight arrives as DequantizeLinear of a constant. It costs nothing in any order: its integers are permuted at compile time.
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit.layout.permutation import Perm
from edgekit.layout.rules.axes import same_axes
from edgekit.layout.rules.node import Part, Rewriter, Slot, constant, fixed, free_slots, integer, rank


def dequantized_constant(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that makes a value out of constants; None for anything else."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear" or node.domain not in ("", "ai.onnx"):
        return None
    return node if all(v is None or constant(v) is not None for v in node.inputs) else None


def linear_parts(node: ir.Node) -> list[Part]:
    """Input and output in one order; the output of a constant in any. Blocks of scales stay as they are."""
    if not _in_one_axis(node):
        return fixed(node)
    if dequantized_constant(node.outputs[0]) is None:
        return same_axes(node)
    slots = tuple(s for s in free_slots(node) if s == Slot(0, True))

    def relate(_: int, perm: Perm) -> tuple[Perm, ...]:
        return (perm,)

    return [Part(slots, tuple(tuple(range(rank(node.outputs[0]))) for _ in slots), relate)]


def linear(r: Rewriter) -> None:
    """Rename the axis of the scales, and permute a constant."""
    if not r.moved:
        return
    perm = r.output_perm()
    array = constant(r.node.inputs[0])
    if array is not None:
        r.set_constant(0, array.transpose(perm), "integers")
    if not is_per_tensor(r.node):
        r.set_attribute("axis", perm.index(integer(r.node, "axis", 1) % len(perm)))


def is_per_tensor(node: ir.Node) -> bool:
    """Whether it is one of the two operators, with one scale for all elements."""
    scale = node.inputs[1] if node.op_type in ("QuantizeLinear", "DequantizeLinear") else None
    return scale is not None and scale.shape is not None and all(d == 1 for d in scale.shape)


def _in_one_axis(node: ir.Node) -> bool:
    scale = node.inputs[1]
    return is_per_tensor(node) or (scale is not None and rank(scale) == 1 and not integer(node, "block_size", 0))
