"""Attention heads are projected where they are needed, not transposed there.

Before:  MatMul(x, W) → [Add(b)] → Reshape to (B, N, heads, size) → [Mul(c)] → Transpose to (B, heads, N, size)
After:   MatMul(x as (B, 1, N, C), c·W as (1, heads, C, size)) → [Add(c·b as (1, heads, 1, size))]

The product broadcasts over the heads and gives them in front at once, so three of the four transposes of an attention layer are
never made, in the same number of multiplications. A Transpose to (B, heads, size, N), as the keys want it, keeps its last step,
which BATCH_MATMUL's `adjY` absorbs. Applies when W and b are constant, everything between has one user, and a head is large
enough: heads of 24 cost CaiT 6 % more time than FULLY_CONNECTED and its transposes, and products of 16 x 64 by 64 x 16 (ELECTRA
in small) 20 %, while heads of 64 (ViT) are as fast one way as the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit.layout import constant, dims, rank
from edgekit.layout.rules.shape import transpose_perm
from edgekit.litert.decompose.builder import Builder, take_over
from edgekit.litert.split_projections import only_maker

HEADS_FIRST = (0, 2, 1, 3)
HEADS_FIRST_TRANSPOSED = (0, 2, 3, 1)

# What makes a product per head as fast as one for all heads: columns that fill the registers of XNNPACK's kernels, and
# multiplications enough to pay for a call.
COLUMNS = 16
MULTIPLICATIONS = 2**18


@dataclass(frozen=True)
class _Heads:
    """x · weights + bias with its columns read as (heads, size)."""

    x: ir.Value
    weights: np.ndarray
    bias: np.ndarray | None


def project_heads(model: ir.Model) -> None:
    """Apply it wherever it fits, in place."""
    rows: dict[ir.Value, ir.Value] = {}
    for node in list(model.graph):
        if node.op_type != "Transpose" or node.domain not in ("", "ai.onnx"):
            continue
        perm = transpose_perm(node)
        if perm not in (HEADS_FIRST, HEADS_FIRST_TRANSPOSED) or node.inputs[0] is None:
            continue
        heads = _heads(node.inputs[0])
        if heads is not None:
            _replace(node, heads, rows, perm == HEADS_FIRST_TRANSPOSED)


def _heads(result: ir.Value) -> _Heads | None:
    """Follow a value of shape (B, N, heads, size) up to the projection that makes it."""
    shape, factor, value = dims(result), 1.0, result
    node = only_maker(value)
    if node is not None and node.op_type == "Mul":
        scalar, source = _with_constant(node)
        if scalar is None or scalar.size != 1 or source is None:
            return None
        factor, value, node = float(scalar.reshape(-1)[0]), source, only_maker(source)
    while node is not None and node.op_type in ("Reshape", "Squeeze", "Unsqueeze") and node.inputs[0] is not None:
        value, node = node.inputs[0], only_maker(node.inputs[0])
    flat = dims(value)
    if len(flat) != 3 or flat[:2] != shape[:2] or not all(isinstance(d, int) for d in shape[2:]):
        return None
    bias = None
    if node is not None and node.op_type == "Add":
        bias, source = _with_constant(node)
        if bias is None or source is None or bias.size != flat[-1] or bias.shape[-1] != flat[-1]:
            return None
        node = only_maker(source)
    if node is None or node.op_type != "MatMul" or node.domain not in ("", "ai.onnx"):
        return None
    x, weights = node.inputs[0], constant(node.inputs[1])
    if x is None or rank(x) != 3 or weights is None or weights.ndim != 2 or weights.dtype != np.float32:
        return None
    split = int(shape[2]), int(shape[3])
    if split[1] % COLUMNS or (isinstance(shape[1], int) and shape[1] * weights.shape[0] * split[1] < MULTIPLICATIONS):
        return None
    wide = (weights.astype(np.float64) * factor).astype(np.float32) if factor != 1.0 else weights
    heads = wide.reshape(-1, *split).transpose(1, 0, 2)[None]
    row = None if bias is None else (bias.astype(np.float64) * factor).astype(np.float32).reshape(1, split[0], 1, split[1])
    return _Heads(x, heads, row)


def _with_constant(node: ir.Node) -> tuple[np.ndarray | None, ir.Value | None]:
    """The constant operand of a binary node and the other one."""
    for i in (0, 1):
        array = constant(node.inputs[i])
        if array is not None:
            return array, node.inputs[1 - i]
    return None, None


def _replace(node: ir.Node, heads: _Heads, rows: dict[ir.Value, ir.Value], transposed: bool) -> None:
    out, b = node.outputs[0], Builder(node)
    batch, length, _ = dims(heads.x)
    if heads.x not in rows:
        rows[heads.x] = b.op("Unsqueeze", [heads.x, b.ints([1])], (batch, 1, length, dims(heads.x)[2]), heads.x.dtype)
    shape = (batch, heads.weights.shape[1], length, heads.weights.shape[3])
    made = b.op("MatMul", [rows[heads.x], b.const(heads.weights)], shape)
    if heads.bias is not None:
        made = b.op("Add", [made, b.const(heads.bias)], shape)
    if transposed:
        made = b.transpose(made, (0, 1, 3, 2))
    take_over(out, made)
    b.graph.remove(node, safe=True)
