"""Before layouts are assigned: ONNX operators that LiteRT has no form of, in terms of those that it has.

Each function takes a node and the builder that places new nodes in front of it, and returns the values that replace its outputs,
or None where the node can stay.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.errors import EdgekitError
from edgekit.hub.facts import unexpected
from edgekit.layout import dims, rank
from edgekit.litert.decompose import deformable, linear, ngrams, normalization, pooling, signal, space, unique
from edgekit.litert.decompose.builder import Builder, Decomposition, is_used, take_over

__all__ = ["DECOMPOSITIONS", "Builder", "Decomposition", "decompose", "has_lowering"]


def decompose(model: ir.Model) -> None:
    """Apply every decomposition that fits, in place, also to what decompositions make."""
    graph = model.graph
    waiting = list(graph)[::-1]
    while waiting:
        node = waiting.pop()
        function = DECOMPOSITIONS.get(node.op_type)
        if function is None or node.domain not in ("", "ai.onnx"):
            continue
        builder = Builder(node)
        try:
            values = function(node, builder)
        except EdgekitError:
            raise
        except Exception as error:
            raise unexpected(node, error) from error
        if values is None:
            continue
        for old, new in zip(node.outputs, values, strict=False):
            take_over(old, new)
        graph.remove(node, safe=True)
        waiting += builder.made[::-1]


def has_lowering(node: ir.Node) -> bool:
    """Whether the compiler has a form of its own for a node; otherwise the node's ONNX function body is the better one."""
    from edgekit.litert.lower import LOWERINGS

    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "LayerNormalization":
        return not any(is_used(v) for v in node.outputs[1:])
    return node.op_type in LOWERINGS or node.op_type in DECOMPOSITIONS


def _last_axis(node: ir.Node, b: Builder) -> list[ir.Value] | None:
    """Softmax along another axis: that axis is brought to the end and back; layout assignment makes most of it vanish."""
    x = node.inputs[0]
    if x is None:
        return None
    n = rank(x)
    axis = node.attributes["axis"].as_int() % n if "axis" in node.attributes and n else n - 1
    if axis == n - 1:
        return None
    perm = [*(a for a in range(n) if a != axis), axis]
    moved = b.op(node.op_type, [b.transpose(x, perm)], [dims(x)[a] for a in perm], axis=-1)
    return [b.transpose(moved, np.argsort(perm).tolist())]


DECOMPOSITIONS: dict[str, Decomposition] = {
    **deformable.DECOMPOSITIONS,
    **linear.DECOMPOSITIONS,
    **ngrams.DECOMPOSITIONS,
    **normalization.DECOMPOSITIONS,
    **pooling.DECOMPOSITIONS,
    **signal.DECOMPOSITIONS,
    **space.DECOMPOSITIONS,
    **unique.DECOMPOSITIONS,
    "LogSoftmax": _last_axis,
    "Softmax": _last_axis,
}
