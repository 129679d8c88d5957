"""Rows that are gathered element by element are gathered as rows.

1. GatherElements(x, Tile(i) | Expand(i), axis)  →  Gather(x, i, axis)
       x [1, n, c], i [1, k, 1] repeated to [1, k, c]: the k best of n proposals, as DETR and its kin pick them

i varies along `axis` alone, is repeated along every other axis in the whole of x's size, and has that axis's indices only.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.hub.edit import Editor, producer, static_shape


def gather_rows(node: ir.Node, edit: Editor) -> bool:
    """Case 1."""
    data, repeated = node.inputs
    maker = producer(repeated, "Tile", "Expand")
    source = maker.inputs[0] if maker is not None else None
    sizes, few, many = static_shape(data), static_shape(source), static_shape(repeated)
    if maker is None or sizes is None or few is None or many is None or node.graph is None:
        return False
    axis = (node.attributes["axis"].as_int() if "axis" in node.attributes else 0) % len(sizes)
    few = (1,) * (len(many) - len(few)) + few
    if any(few[i] != 1 or many[i] != size for i, size in enumerate(sizes) if i != axis) or few[axis] != many[axis]:
        return False
    count = edit.constant(np.array([few[axis]], np.int64), f"{node.outputs[0].name}_count", node.graph)
    places = edit.op("Reshape", [source, count], before=node)
    return edit.replace(node.outputs[0], edit.op("Gather", [data, places], {"axis": axis}, before=node))


RULES = {"GatherElements": [gather_rows]}
