"""Reductions whose axes are computed: nothing is replaced, but the rank of the result is known from how many axes there are."""

from __future__ import annotations

import onnx_ir as ir

from edgekit.layout import constant, dims, rank
from edgekit.litert.decompose.builder import Builder, Decomposition, integer, operand


def _rank_from_axes(node: ir.Node, b: Builder) -> list[ir.Value] | None:
    x, axes, y = node.inputs[0], operand(node, 1), node.outputs[0]
    if y.shape is not None or x is None or x.shape is None or axes is None or constant(axes) is not None or rank(axes) != 1:
        return None
    count = dims(axes)[0]
    if not isinstance(count, int):
        return None
    if count == 0:
        y.shape = ir.Shape(dims(x) if integer(node, "noop_with_empty_axes") else (1,) * rank(x) * integer(node, "keepdims", 1))
    else:
        left = rank(x) if integer(node, "keepdims", 1) else rank(x) - count
        y.shape = ir.Shape([f"{y.name}_d{i}" for i in range(left)])
    return None


DECOMPOSITIONS: dict[str, Decomposition] = {
    f"Reduce{name}": _rank_from_axes for name in "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare".split()
}
