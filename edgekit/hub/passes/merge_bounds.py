"""Every way to bound a value becomes Relu or one Clip.

    1. Max(x, 0)                     →  Relu(x)
    2. Clip(x, 0, none)              →  Relu(x)
    3. Min(Max(x, a), b), either way round  →  Clip(x, a, b)        a ≤ b
    4. Min(Relu(x), b)               →  Clip(x, 0, b)               b ≥ 0: Relu6 and its like
    5. Clip(Clip(x, a, b), c, d), Clip(Relu(x), c, d), Relu(Clip(x, a, b))  →  Clip(x, …)

Bounds are scalar constants. The value in the middle may have other readers: they keep it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit.hub.edit import Editor, is_float, producer, scalar, shape


@dataclass(frozen=True)
class Bounds:
    """`min(max(x, low), high)`."""

    x: ir.Value
    low: float
    high: float


def merge_bounds(node: ir.Node, edit: Editor) -> bool:
    """All cases."""
    outer = bounds_of(node)
    if outer is None or shape(outer.x) != shape(node.outputs[0]) or not is_float(outer.x):
        return False
    source = producer(outer.x, "Relu", "Clip", "Max", "Min")
    inner = bounds_of(source) if source is not None else None
    if inner is not None and shape(inner.x) == shape(outer.x):
        low, high = (min(max(bound, outer.low), outer.high) for bound in (inner.low, inner.high))
        merged = Bounds(inner.x, low, high)
    else:
        merged = outer
    if merged.low == 0 and merged.high == math.inf:
        return node.op_type != "Relu" and edit.replace(node.outputs[0], edit.op("Relu", [merged.x], before=node))
    if merged is outer and node.op_type in ("Clip", "Max", "Min"):
        return False
    return edit.replace(node.outputs[0], _clip(merged, node, edit))


def bounds_of(node: ir.Node) -> Bounds | None:
    """What Relu, Clip, and Max or Min with a scalar constant do; None for any other node."""
    x = node.inputs[0]
    if node.domain != "" or x is None:
        return None
    if node.op_type == "Relu":
        return Bounds(x, 0.0, math.inf)
    if node.op_type == "Clip":
        given = [*node.inputs[1:], None, None][:2]
        bounds = [scalar(value) for value in given]
        if any(value is not None and bound is None for value, bound in zip(given, bounds, strict=True)):
            return None
        low, high = bounds
        return Bounds(x, _finite(low, -math.inf), _finite(high, math.inf))
    if node.op_type in ("Max", "Min") and len(node.inputs) == 2:
        for data, value in (node.inputs, node.inputs[::-1]):
            bound = scalar(value)
            if bound is not None and data is not None and scalar(data) is None:
                return Bounds(data, bound, math.inf) if node.op_type == "Max" else Bounds(data, -math.inf, bound)
    return None


def _finite(bound: float | None, default: float) -> float:
    """A bound at the end of float32's range bounds nothing but infinities: torch and old Clips write it for "none"."""
    return default if bound is None or abs(bound) >= 3.4028234e38 else bound


def _clip(bounds: Bounds, node: ir.Node, edit: Editor) -> ir.Value:
    assert bounds.x.dtype is not None
    graph, dtype = node.graph, bounds.x.dtype.numpy()
    assert graph is not None
    name = node.outputs[0].name
    low = None if bounds.low == -math.inf else edit.constant(np.asarray(bounds.low, dtype), f"{name}_min", graph)
    high = None if bounds.high == math.inf else edit.constant(np.asarray(bounds.high, dtype), f"{name}_max", graph)
    return edit.op("Clip", [bounds.x, low, high], before=node)


RULES = {name: [merge_bounds] for name in ("Relu", "Clip", "Max", "Min")}
