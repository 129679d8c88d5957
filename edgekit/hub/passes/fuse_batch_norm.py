"""A BatchNormalization that no linear operator could take (`fuse_linear`) becomes a multiplication and an addition.

    BatchNormalization(x)  →  Mul(x, factor) → Add(offset)      factor = scale / sqrt(variance + epsilon), shape [C, 1, …]
                                                                 offset = shift - mean * factor

With parameters that are not constant, or in training mode, it is left alone. Computed in float64 and rounded once. Source: ONNX
BatchNormalization-15.
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit.hub.edit import Editor
from edgekit.hub.passes.fuse_linear import affine_of


def lower_batch_norm(node: ir.Node, edit: Editor) -> bool:
    """Replace the node as above."""
    affine = affine_of(node)
    if affine is None or affine.data.dtype is None or node.graph is None:
        return False
    name, dtype = node.outputs[0].name, affine.data.dtype.numpy()
    factor = edit.constant(affine.factor.astype(dtype), f"{name}_factor", node.graph)
    offset = edit.constant(affine.offset.astype(dtype), f"{name}_offset", node.graph)
    scaled = edit.op("Mul", [affine.data, factor], before=node)
    return edit.replace(node.outputs[0], edit.op("Add", [scaled, offset], before=node))


RULES = {"BatchNormalization": [lower_batch_norm]}
