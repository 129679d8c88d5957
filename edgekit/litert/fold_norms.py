"""The scale and bias of a normalization go into the projections that follow it.

Before:  LayerNormalization(x, scale, bias) → MatMul(W)
After:   LayerNormalization(x, 1) → MatMul(diag(scale) · W) → Add(bias · W)

Before:  Mul(n, scale) → MatMul(W)                    (RMSNorm as torch spells it)
After:   n → MatMul(diag(scale) · W)

LiteRT has no LayerNormalization: it becomes nine operators, two of which (times scale, plus bias) are then never made. Applies
to LayerNormalization and RMSNormalization over the last axis, and to Mul, whose scale and bias are constant and whose result is
only taken by MatMuls with a constant matrix, as in transformers that normalize before attention. What only moves positions may
stand in between: Reshape and Transpose that leave the last axis alone, and the Slices and Concats of a shifted window. A matrix
that several layers share is not changed for one of them, for it would be written twice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit.layout import constant, dims, rank
from edgekit.layout.rules.shape import transpose_perm
from edgekit.litert.decompose.builder import Builder

ROWS = 64  # of a matrix at a time


@dataclass(frozen=True)
class _Norm:
    """A node that ends in `· scale + bias` along the last axis, and all that takes its result: MatMuls with a constant matrix."""

    node: ir.Node
    scale: np.ndarray
    bias: np.ndarray | None
    takers: list[ir.Node]


def fold_norms(model: ir.Model) -> None:
    """Apply it wherever it fits, in place."""
    found = [
        norm for node in model.graph if node.domain in ("", "ai.onnx") and (norm := _norm(node) or _factor(node)) is not None
    ]
    for norm in _without_torn_weights(found):
        _fold(norm)


def _norm(node: ir.Node) -> _Norm | None:
    if node.op_type not in ("LayerNormalization", "RMSNormalization"):
        return None
    result = node.outputs[0]
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    scale = constant(node.inputs[1])
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    bias = constant(node.inputs[2]) if has_bias else None
    if scale is None or scale.ndim != 1 or (has_bias and bias is None) or axis % rank(result) != rank(result) - 1:
        return None
    if (scale == 1).all() and (bias is None or (bias == 0).all()):
        return None
    takers = _takers(result)
    return _Norm(node, scale, bias, takers) if takers else None


def _factor(node: ir.Node) -> _Norm | None:
    if node.op_type != "Mul":
        return None
    for i in (0, 1):
        scale, source = constant(node.inputs[i]), node.inputs[1 - i]
        if scale is None or source is None or dims(source) != dims(node.outputs[0]):
            continue
        if scale.size == 1 or not dims(source) or not scale.size == dims(source)[-1] == scale.shape[-1]:
            return None
        takers = _takers(node.outputs[0])
        return _Norm(node, scale.reshape(-1), None, takers) if takers else None
    return None


def _without_torn_weights(found: list[_Norm]) -> list[_Norm]:
    """Those that leave the matrices of several layers shared: all that take one have equal scales and biases before them."""
    while True:
        before: dict[ir.Value, set[bytes]] = {}
        takers: Counter[ir.Value] = Counter()
        for norm in found:
            numbers = norm.scale.tobytes() + (b"" if norm.bias is None else norm.bias.tobytes())
            for user in norm.takers:
                before.setdefault(_weights(user), set()).add(numbers)
                takers[_weights(user)] += 1
        torn = {weights for weights in before if len(before[weights]) > 1 or takers[weights] < len(weights.uses())}
        kept = [norm for norm in found if not any(_weights(user) in torn for user in norm.takers)]
        if len(kept) == len(found):
            return kept
        found = kept


def _weights(taker: ir.Node) -> ir.Value:
    weights = taker.inputs[1]
    assert weights is not None
    return weights


def _fold(norm: _Norm) -> None:
    """Let the matrices include scale and bias."""
    node = norm.node
    for user in norm.takers:
        weights = constant(user.inputs[1])
        assert weights is not None
        user.replace_input_with(1, Builder(user).const(norm.scale.astype(weights.dtype)[:, None] * weights))
        if norm.bias is not None:
            add_row(user, _product(norm.bias, weights))
    if node.op_type == "Mul":
        source = next(v for v in node.inputs if constant(v) is None)
        assert source is not None
        node.outputs[0].replace_all_uses_with(source)
        assert isinstance(node.graph, ir.Graph)
        node.graph.remove(node, safe=True)
        return
    node.replace_input_with(1, Builder(node).const(np.ones_like(norm.scale)))
    if norm.bias is not None:
        node.replace_input_with(2, None)


def _takers(result: ir.Value) -> list[ir.Node]:
    """The MatMuls with a constant matrix that take `result`, however its positions are moved; none where anything else does."""
    takers: list[ir.Node] = []
    moved, joins = {result}, list[ir.Node]()
    waiting = [result]
    while waiting:
        value = waiting.pop()
        if value.is_graph_output():
            return []
        for user, place in value.uses():
            if _has_constant_matrix(user) and place == 0:
                takers.append(user)
            elif user.op_type == "Concat":
                joins.append(user)
            elif place != 0 or not _keeps_last_axis(user):
                return []
            else:
                moved.add(user.outputs[0])
                waiting.append(user.outputs[0])
        if not waiting:
            ready = [node for node in joins if all(part in moved for part in node.inputs) and _keeps_last_axis(node)]
            joins = [node for node in joins if node not in ready]
            for node in ready:
                if node.outputs[0] not in moved:
                    moved.add(node.outputs[0])
                    waiting.append(node.outputs[0])
    return [] if joins else takers


def _keeps_last_axis(node: ir.Node) -> bool:
    """Whether the node moves whole rows of the last axis: none is cut, joined to another, or made up."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("Reshape", "Transpose", "Slice", "Concat"):
        return False
    before, after = dims(node.inputs[0]), dims(node.outputs[0])  # type: ignore[arg-type]
    if not before or not after or before[-1] != after[-1]:
        return False
    return node.op_type != "Transpose" or transpose_perm(node)[-1] == len(before) - 1


def _has_constant_matrix(node: ir.Node) -> bool:
    weights = constant(node.inputs[1]) if node.op_type == "MatMul" and node.domain in ("", "ai.onnx") else None
    return weights is not None and weights.ndim == 2


def _product(row: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """row · weights, summed in float64, some rows of the matrix at a time: it is never held in float64 as a whole."""
    total = np.zeros(weights.shape[1])
    for start in range(0, row.size, ROWS):
        some = slice(start, start + ROWS)
        total += row[some].astype(np.float64) @ weights[some].astype(np.float64)
    return total.astype(weights.dtype)


def add_row(node: ir.Node, row: np.ndarray) -> None:
    """node(…) + row: into the bias that is added already, else under the name that node's result had."""
    out = node.outputs[0]
    users = list(out.uses())
    assert isinstance(node.graph, ir.Graph)
    if len(users) == 1 and users[0][0].op_type == "Add" and not out.is_graph_output():
        add, place = users[0]
        old = constant(add.inputs[1 - place])
        if old is not None and old.size in (1, row.size) and old.shape[-1:] in ((), (1,), row.shape):
            total = (old.reshape(-1).astype(np.float64) + row).astype(row.dtype)
            add.replace_input_with(1 - place, Builder(add).const(total))
            return
    name = out.name
    out.name = f"{name}/product"
    constant_row = Builder(node).const(row)
    add = ir.node("Add", [out, constant_row])
    total_value = add.outputs[0]
    total_value.name, total_value.dtype, total_value.shape = name, out.dtype, ir.Shape(dims(out))  # type: ignore[assignment]
    node.graph.insert_after(node, add)
    for user, place in users:
        user.replace_input_with(place, total_value)
    for i, value in enumerate(node.graph.outputs):
        if value is out:
            node.graph.outputs[i] = total_value
