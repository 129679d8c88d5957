"""Parts of parts are taken in one step.

1. Slice → Slice                      →  Slice      constant bounds, positive steps; every reader of the first is such a Slice
       x[:, 0::2] → [:, :, 1::2]         →  x[:, 0::2, 1::2]              (merging patches, space to depth)
2. Concat → Slice that takes exactly one of its parts  →  the part
"""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir

from edgekit.hub.edit import Editor, integers, producer, shape, static_shape


def merge_slices(node: ir.Node, edit: Editor) -> bool:
    """Case 1: `node` is the second of the two."""
    data = node.inputs[0]
    first = producer(data, "Slice")
    if data is None or first is None or node.graph is None or data.is_graph_output():
        return False
    if any(user.op_type != "Slice" or index or _taken(user) is None for user, index in data.uses()):
        return False
    inner, outer, source = _taken(first), _taken(node), shape(first.inputs[0])
    if inner is None or outer is None or source is None:
        return False
    both = dict(inner)
    for axis, part in outer.items():
        both[axis] = inner[axis][part.start : part.stop : part.step] if axis in inner else part
    name = node.outputs[0].name
    bounds = [
        edit.constant(np.array(values, np.int64), f"{name}_{what}", node.graph)
        for what, values in (
            ("starts", [part.start for part in both.values()]),
            ("ends", [part.stop for part in both.values()]),
            ("axes", list(both)),
            ("steps", [part.step for part in both.values()]),
        )
    ]
    return edit.replace(node.outputs[0], edit.op("Slice", [first.inputs[0], *bounds], before=node))


def slice_of_concat(node: ir.Node, edit: Editor) -> bool:
    """Case 2: `node` is the Slice."""
    joined = producer(node.inputs[0], "Concat")
    taken, result = _taken(node), shape(node.outputs[0])
    if joined is None or taken is None or result is None or len(taken) != 1:
        return False
    [(axis, part)] = taken.items()
    sizes = [static_shape(value) for value in joined.inputs]
    if joined.attributes["axis"].as_int() % len(result) != axis or part.step != 1:
        return False
    ends = list(itertools.accumulate(0 if size is None else size[axis] for size in sizes))
    for value, size, end in zip(joined.inputs, sizes, ends, strict=True):
        if size is None:
            return False
        if (part.start, part.stop) == (end - size[axis], end) and value is not None:
            return edit.replace(node.outputs[0], value)
    return False


def _taken(node: ir.Node) -> dict[int, range] | None:
    """The places that a Slice takes, by axis; None where they are not constant, or the steps not positive."""
    sizes = shape(node.inputs[0])
    given = [integers(value) if value is not None else None for value in node.inputs[1:]]
    if sizes is None or len(given) < 2 or given[0] is None or given[1] is None:
        return None
    if any(value is not None and content is None for value, content in zip(node.inputs[1:], given, strict=True)):
        return None
    starts, ends = given[0], given[1]
    axes = given[2] if len(given) > 2 and given[2] is not None else list(range(len(starts)))
    steps = given[3] if len(given) > 3 and given[3] is not None else [1] * len(starts)
    taken = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = sizes[axis % len(sizes)]
        if isinstance(size, str) or step < 1:
            return None
        taken[axis % len(sizes)] = range(size)[start:end:step]
    return taken if all(len(part) for part in taken.values()) else None


RULES = {"Slice": [slice_of_concat, merge_slices]}
