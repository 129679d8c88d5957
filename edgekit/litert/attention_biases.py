"""Biases that attention makes superfluous are taken out of it.

    softmax(q · (k + b)ᵀ)  =  softmax(q · kᵀ)            q · b is the same for all keys, and softmax does not see what is
    softmax(…) · (v + b)   =  softmax(…) · v + b         the weights of a query add up to one

Before:  k → Add(b) → [Reshape, Transpose] → MatMul(q, ·) → [Mul c, Add mask] → Softmax
After:   k → [Reshape, Transpose] → MatMul(q, ·) → …
Before:  v → Add(b) → [Reshape, Transpose] → MatMul(softmax, ·) → [Transpose, Reshape] → MatMul(W) → [Add(d)]
After:   v → [Reshape, Transpose] → MatMul(softmax, ·) → [Transpose, Reshape] → MatMul(W) → Add(b · W [+ d])

and likewise with the operands of a product exchanged and transposed, and with a Conv in the place of MatMul(W). Applies where
everything between has one user, and the bias is constant and the same for all keys. Only what leaves the differences between the
scores of one query alone may stand before the Softmax.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.layout import constant, dims, rank
from edgekit.layout import reshape as reshaping
from edgekit.layout.rules.shape import transpose_perm
from edgekit.litert.decompose.builder import Builder
from edgekit.litert.fold_norms import add_row
from edgekit.litert.split_projections import only_user

NOTHING = -1e30
"""A score that is replaced by less than this counts for nothing, whatever is added to the others."""
RESHAPES = ("Reshape", "Squeeze", "Unsqueeze")

Spread = np.ndarray
"""What was added to a value: an array of its rank, of size 1 along the axes on which it does not depend."""


def remove_attention_biases(model: ir.Model) -> None:
    """Apply it wherever it fits, in place."""
    for node in list(model.graph):
        if node.op_type != "Add" or node.domain not in ("", "ai.onnx"):
            continue
        for i in (0, 1):
            bias, source = constant(node.inputs[i]), node.inputs[1 - i]
            if bias is None or source is None or bias.dtype != np.float32 or dims(source) != dims(node.outputs[0]):
                continue
            spread = bias.reshape((1,) * (rank(source) - bias.ndim) + bias.shape).astype(np.float64)
            if _is_superfluous(node.outputs[0], spread):
                node.outputs[0].replace_all_uses_with(source)
                assert isinstance(node.graph, ir.Graph)
                node.graph.remove(node, safe=True)


def _is_superfluous(value: ir.Value, added: Spread) -> bool:
    """Whether what was added to a key or a value is not seen, or was moved to where it costs nothing."""
    value, added = _follow(value, added)
    product = only_user(value)
    if product is None or product.op_type != "MatMul" or added.ndim < 2 or rank(product.outputs[0]) != added.ndim:
        return False
    is_left = product.inputs[0] is value
    summed, kept = (added.ndim - 1, added.ndim - 2) if is_left else (added.ndim - 2, added.ndim - 1)
    if added.shape[kept] == 1 and _sees_differences(product.outputs[0], kept):
        return True
    weights = product.inputs[1 if is_left else 0]  # their sum is over the axis of that number which the other operand keeps
    if weights is None or rank(weights) != added.ndim or added.shape[summed] != 1 or not _adds_up_to_one(weights, kept):
        return False
    value, added = _follow(product.outputs[0], added)
    projection = only_user(value)
    return projection is not None and projection.inputs[0] is value and _into_bias(projection, added)


def _follow(value: ir.Value, added: Spread) -> tuple[ir.Value, Spread]:
    """The last of a chain of values that are only rearranged or multiplied by one number, and what was added to it."""
    while (node := only_user(value)) is not None and (moved := _passed(node, added)) is not None:
        value, added = node.outputs[0], moved
    return value, added


def _passed(node: ir.Node, added: Spread) -> Spread | None:
    """What was added to the node's result; None for a node that does more."""
    if node.op_type == "Transpose":
        return added.transpose(transpose_perm(node))
    if node.op_type in RESHAPES and node.inputs[0] is not None:
        return _reshaped(added, dims(node.inputs[0]), dims(node.outputs[0]))
    if node.op_type in ("Mul", "Div"):
        factor = constant(node.inputs[1])
        if factor is not None and factor.size == 1 and rank(node.outputs[0]) == added.ndim:
            number = float(factor.reshape(-1)[0])
            return added * number if node.op_type == "Mul" else added / number
    return None


def _reshaped(added: Spread, before: tuple[int | str, ...], after: tuple[int | str, ...]) -> Spread | None:
    paired = None if "?" in (*before, *after) else reshaping.blocks(before, after)
    if paired is None:
        return None
    sizes, shape = [1] * len(before), [1] * len(after)
    for source, result in paired:
        if all(added.shape[a] == 1 for a in source):
            continue
        if not all(isinstance(d, int) for d in (*(before[a] for a in source), *(after[a] for a in result))):
            return None
        for a in source:
            sizes[a] = int(before[a])
        for a in result:
            shape[a] = int(after[a])
    return np.broadcast_to(added, sizes).reshape(shape)


def _into_bias(node: ir.Node, added: Spread) -> bool:
    """Let a projection add its response to what was added to its input: a product with a matrix, or a Conv without padding."""
    weights = constant(node.inputs[1]) if node.op_type in ("MatMul", "Conv") else None
    if weights is None or (node.op_type == "MatMul" and weights.ndim != 2) or added.ndim < 2:
        return False
    axis = added.ndim - 1 if node.op_type == "MatMul" else 1
    if added.size != added.shape[axis]:
        return False
    wide = weights.astype(np.float64)
    if node.op_type == "MatMul":
        add_row(node, (np.broadcast_to(added.reshape(-1), wide.shape[:1]) @ wide).astype(weights.dtype))
        return True
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    bias = constant(node.inputs[2]) if has_bias else np.zeros(wide.shape[0])
    padded = any(node.attributes.get_ints("pads") or ()) or node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME")
    if bias is None or padded or node.attributes.get_int("group", 1) != 1:
        return False
    response = wide.reshape(*wide.shape[:2], -1).sum(axis=2) @ np.broadcast_to(added.reshape(-1), wide.shape[1:2])
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, Builder(node).const((bias + response).astype(weights.dtype)))
    return True


def _sees_differences(scores: ir.Value, axis: int) -> bool:
    """Whether only the differences along an axis count, because a Softmax over it is all that sees them."""
    while (node := only_user(scores)) is not None:
        moved = axis + rank(node.outputs[0]) - rank(scores)
        if node.op_type == "Softmax":
            return _axis(node) == axis
        if node.op_type == "Transpose":
            moved = transpose_perm(node).index(axis)
        elif node.op_type in RESHAPES:
            places = _carried(scores, node.outputs[0], axis)
            if places is None:
                return False
            moved = places
        elif dims(scores)[axis] != dims(node.outputs[0])[moved] or not _keeps_differences(node, scores):
            return False
        scores, axis = node.outputs[0], moved
    return False


def _keeps_differences(node: ir.Node, scores: ir.Value) -> bool:
    """Whether adding the same to all scores of a query adds the same to all of the node's results for it."""
    others = [v for v in node.inputs if v is not scores]
    if node.op_type in ("Add", "Sub"):
        return len(others) == 1
    if node.op_type in ("Mul", "Div"):
        factor = constant(others[0]) if len(others) == 1 and node.inputs[0] is scores else None
        return factor is not None and factor.size == 1
    if node.op_type == "Where":
        fill = constant(node.inputs[2]) if node.inputs[1] is scores else None
        return fill is not None and bool((fill <= NOTHING).all())
    return False


def _adds_up_to_one(weights: ir.Value, axis: int) -> bool:
    """Whether a value's numbers along an axis are a Softmax's."""
    node = weights.producer()
    while node is not None and node.inputs and node.inputs[0] is not None:
        if node.op_type == "Softmax":
            return _axis(node) == axis
        source = node.inputs[0]
        if node.op_type == "Transpose":
            axis = transpose_perm(node)[axis]
        elif node.op_type in RESHAPES and (moved := _carried(node.outputs[0], source, axis)) is not None:
            axis = moved
        else:
            return False
        node = source.producer()
    return False


def _carried(source: ir.Value, result: ir.Value, axis: int) -> int | None:
    """Where a reshape puts an axis that it neither splits nor merges."""
    before, after = dims(source), dims(result)
    paired = None if "?" in (*before, *after) else reshaping.blocks(before, after)
    return next((right[0] for left, right in paired or () if left == (axis,) and len(right) == 1), None)


def _axis(node: ir.Node) -> int:
    return node.attributes.get_int("axis", -1) % rank(node.outputs[0])
