"""Axes whose order only constants know.

    x (N,C,H,W) ─ Reshape ─ (N, C·H·W) ─ Relu ─ MatMul W (C·H·W, M)

Held as (N,H,W,C), x cannot be merged to the same vector without a transpose. But nothing sees the order of that vector's
elements: the rows of W can be permuted to suit, at compile time. The same holds where a split axis is written by constants:

    MatMul W (K, C·H·W) ─ Add b ─ (N, C·H·W) ─ Reshape ─ (N,C,H,W)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit.layout.rules.elementwise import ELEMENTWISE
from edgekit.layout.rules.node import constant, dims, integer, rank, replace_constant
from edgekit.layout.rules.quantized import dequantized_constant, is_per_tensor


@dataclass(frozen=True)
class Held:
    """A constant, the `index`-th input of a node, that carries the axis as its own axis `axis`."""

    node: ir.Node
    index: int
    axis: int


def absorbers(value: ir.Value, axis: int, reshape: ir.Node) -> list[Held] | None:
    """The constants to permute when the order along `axis` of `value` changes; None where anything else would see it.

    `reshape` made that axis, or takes it apart. Everything that the axis reaches through elementwise operators has to end in
    matrix products with constants.
    """
    size = dims(value)[axis]
    offset = axis - rank(value)  # from the end, where broadcasting aligns
    members, queue, found = {value}, [value], list[Held]()
    checked: set[ir.Node] = set()
    while queue:
        member = queue.pop()
        if member.is_graph_output() or member.is_graph_input() or member.graph is not reshape.graph:
            return None
        producer = member.producer()
        ends = [*member.uses(), (producer, None)]
        for node, i in ends:
            if node is reshape or node in checked:
                continue
            if node is None or node.graph is not reshape.graph or node.domain not in ("", "ai.onnx"):
                return None
            if node.op_type in ELEMENTWISE or is_per_tensor(node):
                checked.add(node)
                operands = _join(node, offset, size, found)
                if operands is None:
                    return None
                for joined in operands:
                    if joined not in members:
                        members.add(joined)
                        queue.append(joined)
                continue
            ended = _product(node, i, offset)
            if ended is None:
                return None
            found += ended
    return found


def permute(held: list[Held], index: np.ndarray) -> None:
    """Reorder those constants along their axes."""
    for use in held:
        array = constant(use.node.inputs[use.index])
        assert array is not None
        replace_constant(use.node, use.index, np.take(array, index, axis=use.axis), f"reordered{use.index}")


def _join(node: ir.Node, offset: int, size: int | str, found: list[Held]) -> list[ir.Value] | None:
    """The computed operands of an elementwise operator that carry the axis; its constants go to `found`."""
    joined = [node.outputs[0]]
    for i, value in enumerate(node.inputs):
        if value is None or rank(value) < -offset or dims(value)[offset] != size:
            continue
        if constant(value) is None and dequantized_constant(value) is None:
            joined.append(value)
            continue
        held = _held(node, i, rank(value) + offset)
        if held is None:
            return None
        found += held
    return joined


def _product(node: ir.Node, i: int | None, offset: int) -> list[Held] | None:
    """The constants of a matrix product that reads the axis with its i-th input, or (None) writes it."""
    weight = node.inputs[1] if node.op_type in ("MatMul", "Gemm") else None
    if weight is None or rank(weight) != 2 or offset != -1 or integer(node, "transA", 0):
        return None
    if i is not None:
        return _held(node, 1, 1 if integer(node, "transB", 0) else 0) if i == 0 else None
    held = _held(node, 1, 0 if integer(node, "transB", 0) else 1)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if held is not None and bias is not None and rank(bias) and dims(bias)[-1] != 1:
        more = _held(node, 2, rank(bias) - 1)
        held = None if more is None else held + more
    return held


def _held(node: ir.Node, i: int, axis: int) -> list[Held] | None:
    """Where the constant that a node reads as its i-th input is written; None where it is computed or others read it."""
    if constant(node.inputs[i]) is not None:
        return [Held(node, i, axis)]
    value = node.inputs[i]
    linear = dequantized_constant(value)
    if linear is None or value is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    scales = [place for place, array in enumerate(map(constant, linear.inputs)) if place and array is not None and array.size > 1]
    if integer(linear, "block_size", 0) or not scales or integer(linear, "axis", 1) % rank(value) != axis:
        return None if integer(linear, "block_size", 0) else [Held(linear, 0, axis)]
    return [Held(linear, 0, axis), *(Held(linear, place, 0) for place in scales)]
