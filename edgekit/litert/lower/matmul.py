"""Matrix products: FULLY_CONNECTED where the weights are constant, BATCH_MATMUL otherwise."""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Tensor
from edgekit.litert.lower.table import Node, lowers


@lowers("MatMul")
def matmul(node: Node) -> None:
    left, right = node.x, node.input(1)
    if right.data is not None and right.rank == 2 and left.rank >= 2:
        weights = node.const(right.data.T, hint="weights")
        node.emit("FULLY_CONNECTED", [left, weights, None], keepNumDims=left.rank > 2)
        return
    if left.rank == 1 or right.rank == 1:
        _with_vectors(node, left, right)
        return
    adjoint = bool(node.integer("adj_y", 0))
    node.emit("BATCH_MATMUL", [left, right], adjX=False, adjY=adjoint)


@lowers("Gemm")
def gemm(node: Node) -> None:
    """alpha · A' · B' + beta · C; alpha and beta go into constant weights and bias."""
    a, b = node.x, node.input(1)
    alpha, beta = node.real("alpha", 1.0), node.real("beta", 1.0)
    trans_a, trans_b = bool(node.integer("transA", 0)), bool(node.integer("transB", 0))
    if trans_a:
        a = node.emit("TRANSPOSE", [a, node.ints((1, 0), "perm")], node.temp((a.shape[1], a.shape[0]), "a", a.dtype))
    bias = node.inputs[2] if node.has_input(2) and beta != 0.0 else None
    if b.data is not None:
        weight = (b.data if trans_b else b.data.T).astype(b.dtype, copy=False)
        weights = node.const(weight * np.asarray(alpha, b.dtype) if alpha != 1.0 else weight, hint="weights")
        if (
            bias is not None
            and bias.data is not None
            and (bias.data.size == 1 or (bias.data.size == weight.shape[0] and bias.shape[-1] == weight.shape[0]))
        ):
            row = np.broadcast_to(bias.data.reshape(-1) * np.asarray(beta, b.dtype), weight.shape[:1]).astype(b.dtype)
            node.emit("FULLY_CONNECTED", [a, weights, node.const(row, hint="bias")])
            return
        product = node.emit("FULLY_CONNECTED", [a, weights, None], None if bias is None else node.temp(node.y.shape, "product"))
    else:
        scaled = alpha != 1.0
        out = node.y if bias is None and not scaled else node.temp(node.y.shape, "product")
        product = node.emit("BATCH_MATMUL", [a, b], out, adjX=False, adjY=trans_b)
        if scaled:
            out = node.y if bias is None else node.temp(node.y.shape, "scaled")
            product = node.emit("MUL", [product, node.const(alpha, node.y.dtype, "alpha")], out)
    if bias is not None:
        if beta != 1.0:
            bias = node.emit("MUL", [bias, node.const(beta, node.y.dtype, "beta")], node.like(bias, "beta_c"))
        node.emit("ADD", [product, bias])


def _with_vectors(node: Node, left: Tensor, right: Tensor) -> None:
    """numpy's rule: a vector on the left is a row, on the right a column, and that axis is dropped from the result."""
    if left.rank == 1:
        left = node.reshape(left, (1, *left.shape), "row")
    if right.rank == 1:
        right = node.reshape(right, (*right.shape, 1), "column")
    lead = np.broadcast_shapes(node.static_shape(left)[:-2], node.static_shape(right)[:-2])
    product = node.temp((*lead, left.shape[-2], right.shape[-1]), "product")
    node.emit("BATCH_MATMUL", [left, right], product, adjX=False, adjY=False)
    node.reshape(product, node.y.shape, out=node.y)
