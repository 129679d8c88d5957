"""The scale and bias of a normalization go into the projections that follow it.

Before:  LayerNormalization(x, scale, bias) → MatMul(W)
After:   LayerNormalization(x, 1) → MatMul(diag(scale) · W) → Add(bias · W)

LiteRT has no LayerNormalization: it becomes nine operators, two of which (times scale, plus bias) are then never made. Applies to
LayerNormalization and RMSNormalization over the last axis whose scale and bias are constant and whose result is only taken by
MatMuls with a constant matrix, as in transformers that normalize before attention.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.layout import constant, dims, rank
from edgekit.litert.decompose import Builder


def fold_norms(model: ir.Model) -> None:
    """Apply it wherever it fits, in place."""
    for node in list(model.graph):
        if node.op_type in ("LayerNormalization", "RMSNormalization") and node.domain in ("", "ai.onnx"):
            _fold(node)


def _fold(node: ir.Node) -> None:
    result = node.outputs[0]
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    scale = constant(node.inputs[1])
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    bias = constant(node.inputs[2]) if has_bias else None
    takers = [user for user, place in result.uses() if place == 0 and _has_constant_matrix(user)]
    if scale is None or scale.ndim != 1 or (has_bias and bias is None) or axis % rank(result) != rank(result) - 1:
        return
    if not takers or len(takers) != len(result.uses()) or result.is_graph_output():
        return
    if (scale == 1).all() and (bias is None or (bias == 0).all()):
        return
    for user in takers:
        weights = constant(user.inputs[1])
        assert weights is not None
        b = Builder(user)
        wide = weights.astype(np.float64)
        user.replace_input_with(1, b.const((scale.astype(np.float64)[:, None] * wide).astype(weights.dtype)))
        if bias is not None:
            _add_row(user, (bias.astype(np.float64) @ wide).astype(weights.dtype))
    b = Builder(node)
    node.replace_input_with(1, b.const(np.ones_like(scale)))
    if has_bias:
        node.replace_input_with(2, None)


def _has_constant_matrix(node: ir.Node) -> bool:
    weights = constant(node.inputs[1]) if node.op_type == "MatMul" and node.domain in ("", "ai.onnx") else None
    return weights is not None and weights.ndim == 2


def _add_row(node: ir.Node, row: np.ndarray) -> None:
    """node(…) + row, under the name that node's result had."""
    out = node.outputs[0]
    users = list(out.uses())
    assert isinstance(node.graph, ir.Graph)
    name = out.name
    out.name = f"{name}/product"
    constant_row = Builder(node).const(row)
    add = ir.node("Add", [out, constant_row])
    total = add.outputs[0]
    total.name, total.dtype, total.shape = name, out.dtype, ir.Shape(dims(out))  # type: ignore[assignment]
    node.graph.insert_after(node, add)
    for user, place in users:
        user.replace_input_with(place, total)
    for i, value in enumerate(node.graph.outputs):
        if value is out:
            node.graph.outputs[i] = total
