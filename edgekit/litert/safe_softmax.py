"""PyTorch's safe softmax without looking for NaNs.

A row of scores that is masked everywhere is all -inf, and its softmax NaN; PyTorch makes it zero afterwards:

Before:  s = Softmax(x + m);  Where(IsNaN(s), 0, s)                 m = Where(mask, 0, -inf)
After:   Softmax(x + m') * r                                        m' = Where(mask, 0, lowest float),  r = any(mask) as 0 or 1

Where the mask hides with a finite number (or there is none), finite scores cannot make a NaN, and the question goes unasked:

Before:  s = Softmax(x + Where(mask, 0, -3e38));  Where(IsNaN(s), 0, s)
After:   Softmax(x + Where(mask, 0, -3e38))

LiteRT's delegates have neither the comparison nor the selection, which work on the largest tensors of an attention layer; the
product they have, and r is small and made once for all layers that share the mask. In a row that is not masked everywhere the
results are the same bits: exp of the lowest float is 0, as that of -inf is. In others s is not what it was: where anyone but
the guard sees s, it stays.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.layout import constant, dims, rank
from edgekit.litert.decompose.builder import Builder, take_over


def simplify_safe_softmax(model: ir.Model) -> None:
    """Apply it wherever it fits, in place."""
    masks: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
    for node in list(model.graph):
        softmax = _guarded_softmax(node)
        if softmax is None:
            continue
        if _is_finite(softmax.inputs[0]):
            _replace(node, softmax.outputs[0])
            continue
        add = softmax.inputs[0].producer() if softmax.inputs[0] is not None else None
        if add is None or add.op_type != "Add" or not _serves(add, 1) or not _serves(softmax, 2):
            continue
        place = next((i for i in (0, 1) if _is_mask(add.inputs[i])), None)
        if place is None:
            continue
        mask = add.inputs[place]
        assert mask is not None
        if mask not in masks:
            masks[mask] = _finite_mask_and_rows(mask)
        finite, rows = masks[mask]
        add.replace_input_with(place, finite)
        _replace(node, Builder(node).op("Mul", [softmax.outputs[0], rows], dims(node.outputs[0])))


def _serves(node: ir.Node, users: int) -> bool:
    """Whether what a node makes is read so many times and not given out."""
    return len(node.outputs[0].uses()) == users and not node.outputs[0].is_graph_output()


def _replace(node: ir.Node, value: ir.Value) -> None:
    if value.is_graph_output():  # under its own name
        value = Builder(node).unary("Identity", value)
    take_over(node.outputs[0], value)
    assert isinstance(node.graph, ir.Graph)
    node.graph.remove(node, safe=True)


def _is_finite(value: ir.Value | None) -> bool:
    """Whether a value is made of products and finite constants only: then it is infinite or NaN only where those overflow."""
    array = constant(value)
    if array is not None:
        return array.dtype.kind != "f" or bool(np.isfinite(array).all())
    node = value.producer() if value is not None else None
    if node is None or node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in ("MatMul", "Gemm"):
        return True
    if node.op_type == "Where":
        return all(_is_finite(v) for v in node.inputs[1:])
    return node.op_type in ("Add", "Mul", "Reshape", "Transpose", "Expand", "Unsqueeze", "Squeeze") and all(
        _is_finite(v) for v in node.inputs
    )


def _guarded_softmax(node: ir.Node) -> ir.Node | None:
    """The Softmax s of Where(IsNaN(s), 0, s) over the last axis."""
    if node.op_type != "Where" or node.domain not in ("", "ai.onnx"):
        return None
    question, zero, value = node.inputs
    asked = question.producer() if question is not None else None
    softmax = value.producer() if value is not None else None
    if (
        asked is None
        or softmax is None
        or asked.op_type != "IsNaN"
        or softmax.op_type != "Softmax"
        or asked.inputs[0] is not value
    ):
        return None
    fill = constant(zero)
    axis = softmax.attributes["axis"].as_int() if "axis" in softmax.attributes else -1
    last = axis in (-1, rank(softmax.outputs[0]) - 1)
    return softmax if last and fill is not None and fill.size == 1 and not fill.any() else None


def _is_mask(value: ir.Value | None) -> bool:
    """Whether a value is Where(mask, 0, -inf) of float32."""
    node = value.producer() if value is not None else None
    if (
        node is None
        or node.op_type != "Where"
        or node.domain not in ("", "ai.onnx")
        or node.outputs[0].dtype != ir.DataType.FLOAT
    ):
        return False
    kept, hidden = constant(node.inputs[1]), constant(node.inputs[2])
    if kept is None or hidden is None or kept.size != 1 or hidden.size != 1:
        return False
    return not kept.any() and bool(np.isneginf(hidden).all())


def _finite_mask_and_rows(mask: ir.Value) -> tuple[ir.Value, ir.Value]:
    node = mask.producer()
    assert node is not None
    b, shape = Builder(node), dims(mask)
    zero, one = b.const(np.array(0, np.float32)), b.const(np.array(1, np.float32))
    lowest = b.const(np.array(np.finfo(np.float32).min))
    finite = b.op("Where", [node.inputs[0], zero, lowest], shape)
    open_places = b.op("Where", [node.inputs[0], one, zero], shape)
    rows = b.op("ReduceMax", [open_places, b.ints([len(shape) - 1])], (*shape[:-1], 1), keepdims=1)
    return finite, rows
