"""A 1x1 convolution whose map is read as tokens of heads is a projection of tokens.

Before:  Conv 1x1 (N, C, H, W) → Reshape to (N, heads, size, H·W)
After:   x as (N, H·W, C) → MatMul(W) → [Add(b)] → Reshape to (N, H·W, heads, size) → Transpose to (N, heads, size, H·W)

Networks that mix convolutions and attention are written so. The product is the same, and the passes for attention
(`split_projections`, `head_projections`) know it by this form: they make each head where it is needed, and the Transpose that is
written here goes. Channels-last, x is a row per token already.

Applies to an ungrouped convolution with constant weights, strides 1 and no padding, whose result is only taken by such Reshapes.
One that sees an input of the model stays: it makes that an image, which is held as the user asks.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from edgekit.layout import constant, dims, rank
from edgekit.litert.decompose.builder import Builder, take_over


def project_tokens(model: ir.Model) -> None:
    """Apply it wherever it fits, in place."""
    tokens: dict[ir.Value, ir.Value] = {}
    for node in list(model.graph):
        weights = _pointwise_weights(node)
        readers = [user for user, _ in node.outputs[0].uses()]
        if weights is None or not readers or node.outputs[0].is_graph_output():
            continue
        if all(_heads(user, node.outputs[0]) for user in readers):
            _replace(node, weights, readers, tokens)


def _pointwise_weights(node: ir.Node) -> np.ndarray | None:
    """The (C, C') matrix of a convolution that looks at one place at a time; None for any other node."""
    if node.op_type != "Conv" or node.domain not in ("", "ai.onnx") or node.inputs[0] is None or node.inputs[0].is_graph_input():
        return None
    weights = constant(node.inputs[1])
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if weights is None or weights.dtype != np.float32 or set(weights.shape[2:]) != {1}:
        return None
    if len(node.inputs) > 2 and node.inputs[2] is not None and bias is None:
        return None
    if node.attributes.get_int("group", 1) != 1 or any(step != 1 for step in node.attributes.get_ints("strides") or ()):
        return None
    return None if any(node.attributes.get_ints("pads") or ()) else weights.reshape(weights.shape[:2]).T


def _heads(node: ir.Node, source: ir.Value) -> tuple[int, ...] | None:
    """The axes into which a Reshape of `source` splits the channels, if it also merges all places into one last axis."""
    if node.op_type != "Reshape" or node.domain not in ("", "ai.onnx"):
        return None
    before, after = dims(source), dims(node.outputs[0])
    if len(before) < 3 or len(after) < 3 or not all(isinstance(d, int) for d in (*before[1:], *after[1:])):
        return None
    batch, channels, places = before[0], before[1], prod(int(d) for d in before[2:])
    for heads in (after[1:-1] if after[0] == batch else (), after[:-1] if batch == 1 else ()):
        if after[-1] == places and len(heads) > 1 and prod(int(d) for d in heads) == channels:
            return tuple(int(d) for d in heads)
    return None


def _replace(node: ir.Node, weights: np.ndarray, readers: list[ir.Node], tokens: dict[ir.Value, ir.Value]) -> None:
    x, b = node.inputs[0], Builder(node)
    assert x is not None
    batch, channels, *places = dims(x)
    length = prod(int(d) for d in places)
    if x not in tokens:
        rows = b.transpose(x, (0, *range(2, rank(x)), 1))
        tokens[x] = b.reshape(rows, (batch, length, channels))
    made = b.op("MatMul", [tokens[x], b.const(np.ascontiguousarray(weights))], (batch, length, weights.shape[1]))
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None:
        made = b.op("Add", [made, b.const(bias)], dims(made))
    for reader in readers:
        out, heads = reader.outputs[0], _heads(reader, node.outputs[0])
        assert heads is not None
        split = b.reshape(made, (batch, length, *heads))
        turned = b.transpose(split, (0, *range(2, 2 + len(heads)), 1))
        take_over(out, turned if dims(turned) == dims(out) else b.reshape(turned, dims(out)))
        b.graph.remove(reader, safe=True)
    b.graph.remove(node, safe=True)
