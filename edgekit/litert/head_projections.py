"""Attention heads are projected where they are needed, not transposed there.

Before:  MatMul(x, W) → [Add(b)] → Reshape to (B, N, heads, size) → [Mul(c)] → Transpose to (B, heads, N, size) → [Mul(c)]
After:   MatMul(x as (B, 1, N, C), c·W as (1, heads, C, size)) → [Add(c·b as (1, heads, 1, size))]

The product broadcasts over the heads and gives them in front at once, so three of the four transposes of an attention layer are
never made, in the same number of multiplications. A Transpose to (B, heads, size, N), as the keys want it, keeps its last step,
which BATCH_MATMUL's `adjY` absorbs. Applies when W and b are constant and everything between has one user. The tokens N may have
several axes, and axes of size 1 may stand anywhere.

Small heads are slower so: ones of 24 cost CaiT 6 % more time than FULLY_CONNECTED and its transposes, and products of 16 x 64 by
64 x 16 (ELECTRA in small) 20 %, while heads of 64 (ViT) are as fast one way as the other. Several of one x are projected together
instead, and cut apart when they stand in front (but not where two dimensions are dynamic, for a Reshape can have one):

After:   MatMul(x, [Wq, Wk, Wv]) → Add → Reshape to (B, N, 3·heads, size) → Transpose to (B, 3·heads, N, size) → Split
or:      MatMul(x as (B, 1, N, C), [Wq, Wk, Wv] as (1, heads, C, 3·size)) → Add → Split, where 3·size is large enough
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from edgekit.layout import constant, dims, rank
from edgekit.layout.permutation import Dim
from edgekit.layout.rules.shape import transpose_perm
from edgekit.litert.decompose.builder import Builder, is_used, remove_with_makers, take_over
from edgekit.litert.split_projections import only_maker, only_user

# What makes a product per head as fast as one for all heads: columns that fill whole tiles of XNNPACK's kernels, which are up to
# that wide, and multiplications enough to pay for a call.
COLUMNS = 32
MULTIPLICATIONS = 2**18
Shape = tuple[Dim, ...]
HEADS_FIRST = (0, 2, 1, 3)
HEADS_FIRST_TRANSPOSED = (0, 2, 3, 1)


@dataclass(frozen=True)
class _Heads:
    """x · weights + bias, held heads-first: (1, heads, C, size) and (1, heads, 1, size).

    `node` is the Transpose that makes it so, and `result` what comes of it: its own, or that of a multiplication behind it.
    """

    node: ir.Node
    result: ir.Value
    x: ir.Value
    weights: np.ndarray
    bias: np.ndarray | None

    @property
    def size(self) -> int:
        return self.weights.shape[3]


def project_heads(model: ir.Model) -> None:
    """Apply it wherever it fits, in place."""
    rows: dict[ir.Value, ir.Value] = {}
    of_one: dict[tuple[ir.Value, int], list[_Heads]] = {}
    for node in list(model.graph):
        if node.op_type != "Transpose" or node.domain not in ("", "ai.onnx") or not is_used(node.outputs[0]):
            continue
        heads = _heads(node)
        if heads is not None:
            of_one.setdefault((heads.x, heads.weights.shape[1]), []).append(heads)
    for siblings in of_one.values():
        cannot_reshape = sum(not isinstance(d, int) for d in dims(siblings[0].x)) > 1
        if cannot_reshape or all(_is_worth_a_product(heads.x, heads.size) for heads in siblings):
            for heads in siblings:
                _take_heads(heads, _heads_first(Builder(heads.node), [heads], rows))
        elif len(siblings) > 1:
            _replace_together(siblings, rows)


def _is_worth_a_product(x: ir.Value, size: int) -> bool:
    """Whether heads of that many columns are made as fast one by one as all together."""
    _, length, depth = (d if isinstance(d, int) else MULTIPLICATIONS for d in _as_rows(dims(x)))
    return size % COLUMNS == 0 and length * depth * size >= MULTIPLICATIONS


def _as_rows(shape: Shape) -> tuple[Dim, Dim, Dim]:
    """(B, …, C) as (B, N, C)."""
    inner = shape[1:-1]
    return shape[0], inner[0] if len(inner) == 1 else prod(d if isinstance(d, int) else 0 for d in inner), shape[-1]


def _turned_axes(turn: ir.Node, shape: Shape) -> tuple[Dim, Dim, Dim, Dim] | None:
    """(B, N, heads, size) of a value that a Transpose turns heads-first; tokens may have several axes, ones lie anywhere."""
    perm = transpose_perm(turn)
    if perm in (HEADS_FIRST, HEADS_FIRST_TRANSPOSED):
        return shape[0], shape[1], shape[2], shape[3]
    if len(shape) < 5 or not all(isinstance(d, int) for d in shape):
        return None
    axes = [a for a, d in enumerate(shape) if d != 1 and a > 0]
    order = [a for a in perm if shape[a] != 1 and a > 0]
    if len(axes) < 3 or order != [axes[-2], *axes[:-2], axes[-1]] or (shape[0] != 1 and perm[0] != 0):
        return None
    return shape[0], prod(int(shape[a]) for a in axes[:-2]), shape[axes[-2]], shape[axes[-1]]


def _heads(turn: ir.Node) -> _Heads | None:
    """Follow a Transpose of a value of shape (B, N, heads, size) up to the projection that makes that."""
    value, result, factor = turn.inputs[0], turn.outputs[0], 1.0
    shape = _turned_axes(turn, dims(value)) if value is not None else None
    if value is None or shape is None:
        return None
    user = only_user(result)
    if user is not None and user.op_type == "Mul":
        scalar, _ = _with_constant(user)
        if scalar is not None and scalar.size == 1 and rank(user.outputs[0]) == rank(result):
            result, factor = user.outputs[0], float(scalar.reshape(-1)[0])
    node = only_maker(value)
    if node is not None and node.op_type == "Mul":
        scalar, source = _with_constant(node)
        if scalar is None or scalar.size != 1 or source is None:
            return None
        factor, value, node = factor * float(scalar.reshape(-1)[0]), source, only_maker(source)
    while node is not None and node.op_type in ("Reshape", "Squeeze", "Unsqueeze") and node.inputs[0] is not None:
        value, node = node.inputs[0], only_maker(node.inputs[0])
    flat = dims(value)
    if len(flat) < 3 or _as_rows(flat)[:2] != shape[:2] or not all(isinstance(d, int) for d in shape[2:]):
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
    if x is None or dims(x)[:-1] != flat[:-1] or weights is None or weights.ndim != 2 or weights.dtype != np.float32:
        return None
    split = int(shape[2]), int(shape[3])
    wide = (weights.astype(np.float64) * factor).astype(np.float32) if factor != 1.0 else weights
    heads = wide.reshape(-1, *split).transpose(1, 0, 2)[None]
    row = None if bias is None else (bias.astype(np.float64) * factor).astype(np.float32).reshape(1, split[0], 1, split[1])
    return _Heads(turn, result, x, heads, row)


def _with_constant(node: ir.Node) -> tuple[np.ndarray | None, ir.Value | None]:
    """The constant operand of a binary node and the other one."""
    for i in (0, 1):
        array = constant(node.inputs[i])
        if array is not None:
            return array, node.inputs[1 - i]
    return None, None


def _replace_together(siblings: list[_Heads], rows: dict[ir.Value, ir.Value]) -> None:
    b = Builder(siblings[0].node)
    sizes = [heads.size for heads in siblings]
    if _is_worth_a_product(siblings[0].x, sum(sizes)):
        made, axis = _heads_first(b, siblings, rows), 3
    elif len(set(sizes)) == 1:
        made, axis = _turned(b, siblings, 1), 1
        sizes = [heads.weights.shape[1] for heads in siblings]
    else:
        made, axis = _turned(b, siblings, 3), 3
    parts = [(*dims(made)[:axis], size, *dims(made)[axis + 1 :]) for size in sizes]
    pieces = b.op("Split", [made, b.ints(sizes)], parts[0], outputs=len(parts), axis=axis)
    split = pieces.producer()
    assert split is not None
    for heads, piece, shape in zip(siblings, split.outputs, parts, strict=True):
        piece.name, piece.dtype, piece.shape = f"{pieces.name}/{piece.index()}", pieces.dtype, ir.Shape(shape)  # type: ignore[assignment]
        _take_heads(heads, piece)


def _heads_first(b: Builder, siblings: list[_Heads], rows: dict[ir.Value, ir.Value]) -> ir.Value:
    """The product that gives the heads in front at once; those of several projections side by side."""
    x = siblings[0].x
    batch, length, columns = _as_rows(dims(x))
    if x not in rows:
        shape = (batch, 1, length, columns)
        rows[x] = b.op("Unsqueeze", [x, b.ints([1])], shape, x.dtype) if rank(x) == 3 else b.reshape(x, shape)
    weights = np.concatenate([heads.weights for heads in siblings], axis=3)
    made = b.op("MatMul", [rows[x], b.const(weights)], (batch, weights.shape[1], length, weights.shape[3]))
    bias = _bias(siblings, 3)
    return made if bias is None else b.op("Add", [made, b.const(bias)], dims(made))


def _turned(b: Builder, siblings: list[_Heads], axis: int) -> ir.Value:
    """The heads of several projections, joined along an axis: made token by token, then turned."""
    x = siblings[0].x
    weights = np.concatenate([heads.weights for heads in siblings], axis=axis)
    _, count, columns, size = weights.shape
    rows = (*dims(x)[:-1], count * size)
    made = b.op("MatMul", [x, b.const(weights[0].transpose(1, 0, 2).reshape(columns, -1))], rows)
    bias = _bias(siblings, axis)
    if bias is not None:
        made = b.op("Add", [made, b.const(bias.reshape(-1))], rows)
    return b.transpose(b.reshape(made, (*_as_rows(dims(x))[:2], count, size)), HEADS_FIRST)


def _bias(siblings: list[_Heads], axis: int) -> np.ndarray | None:
    """The biases joined; zeros for a projection without, None where no one has any."""
    if all(heads.bias is None for heads in siblings):
        return None
    none = [np.zeros((1, heads.weights.shape[1], 1, heads.size), np.float32) for heads in siblings]
    return np.concatenate([zero if h.bias is None else h.bias for h, zero in zip(siblings, none, strict=True)], axis=axis)


def _take_heads(heads: _Heads, made: ir.Value) -> None:
    b = Builder(heads.node)
    if transpose_perm(heads.node) == HEADS_FIRST_TRANSPOSED:
        made = b.transpose(made, (0, 1, 3, 2))
    if dims(made) != dims(heads.result):
        made = b.reshape(made, dims(heads.result))
    maker = heads.result.producer()
    assert maker is not None
    take_over(heads.result, made)
    remove_with_makers(maker)
