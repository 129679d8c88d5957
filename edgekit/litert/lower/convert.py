"""Shapes, axes, indices and counts as the kernels take them."""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Tensor
from edgekit.litert.lower.table import Node

FAR = 2**31 - 1
"""Beyond any size: ONNX says "to the end" with INT64_MAX."""


def as_int32(node: Node, tensor: Tensor, hint: str) -> Tensor:
    """An integer tensor as int32; constants beyond its range are clipped, which is what "to the end" needs."""
    if tensor.data is not None:
        return node.const(np.clip(tensor.data, -FAR, FAR), np.int32, f"{hint}32")
    if tensor.dtype == np.int32:
        return tensor
    options = {"inDataType": tensor.dtype, "outDataType": np.dtype(np.int32)}
    return node.emit("CAST", [tensor], node.like(tensor, f"{hint}32", np.int32), **options)
