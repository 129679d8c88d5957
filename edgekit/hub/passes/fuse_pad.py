"""A Pad before an operator that pads itself becomes part of it.

    1. Pad(0) → Conv                                 always
    2. Pad(0) → AveragePool without pads of its own, or that counts them: count_include_pad = 1, not with ceil_mode
    3. Pad(-inf, or the lowest number) → MaxPool
    4. Pad(0) → MaxPool of values that cannot be negative (Relu, Clip from 0, Sigmoid …)

Only constant padding of the spatial axes, with nothing cut off, read by operators alone that can all take it in. A pool's padding
must stay smaller than its kernel (a window of padding alone has no maximum).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.hub.edit import Editor, integers, producer, scalar, shape
from edgekit.hub.passes.merge_bounds import bounds_of


def fuse_pad(node: ir.Node, edit: Editor) -> bool:
    """All cases: `node` is the operator after the Pad."""
    data = node.inputs[0]
    pad = producer(data, "Pad")
    if data is None or pad is None or data.is_graph_output() or any(_pads(user, data, pad) is None for user in data.consumers()):
        return False
    attributes = {**dict(node.attributes), "pads": ir.AttrInt64s("pads", _pads(node, data, pad) or [])}
    if node.op_type == "AveragePool":
        attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
    again = edit.node(node.op_type, [pad.inputs[0], *node.inputs[1:]], attributes, before=node, outputs=len(node.outputs))
    for old, new in zip(list(node.outputs), again.outputs, strict=True):
        edit.replace(old, new)
    return True


def _pads(node: ir.Node, data: ir.Value, pad: ir.Node) -> list[int] | None:
    """A reader's own pads and the Pad's together; None where it cannot take the Pad in."""
    if node.op_type not in RULES or node.domain != "" or node.inputs[0] is not data or data in node.inputs[1:]:
        return None
    added = _spatial_pads(pad)
    kernel = node.attributes.get_ints("kernel_shape")
    if added is None or kernel is None or "auto_pad" in node.attributes or not _is_exact(node, pad):
        return None
    own = list(node.attributes.get_ints("pads") or [0] * len(added))
    pads = [a + b for a, b in zip(own, added, strict=True)]
    if node.op_type != "Conv" and any(size >= reach for size, reach in zip(pads, [*kernel, *kernel], strict=True)):
        return None
    return pads


def _is_exact(node: ir.Node, pad: ir.Node) -> bool:
    filled = pad.inputs[2] if len(pad.inputs) > 2 else None
    value = 0.0 if filled is None else scalar(filled)
    if value is None or pad.attributes.get_string("mode", "constant") != "constant":
        return False
    own = any(node.attributes.get_ints("pads") or ())
    match node.op_type:
        case "Conv":
            return value == 0
        case "AveragePool":
            counted = bool(node.attributes.get_int("count_include_pad", 0))
            return value == 0 and (counted or not own) and not node.attributes.get_int("ceil_mode", 0)
        case "MaxPool":
            lowest = value <= float(np.finfo(np.float32).min)
            return len(node.outputs) == 1 and (lowest or (value == 0 and _is_positive(pad.inputs[0])))
    return False


def _is_positive(value: ir.Value | None) -> bool:
    node = producer(value, "Relu", "Clip", "Sigmoid", "Softmax", "HardSigmoid", "Abs", "Exp")
    bounds = bounds_of(node) if node is not None and node.op_type == "Clip" else None
    return node is not None and (node.op_type != "Clip" or (bounds is not None and bounds.low >= 0))


def _spatial_pads(pad: ir.Node) -> list[int] | None:
    """Begins, then ends, of the spatial axes; None where anything else is padded or cut."""
    rank = len(shape(pad.inputs[0]) or ())
    pads = integers(pad.inputs[1])
    axes = integers(pad.inputs[3]) if len(pad.inputs) > 3 and pad.inputs[3] is not None else list(range(rank))
    if pads is None or axes is None or rank < 3 or min(pads, default=0) < 0:
        return None
    begins, ends = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        begins[axis % rank], ends[axis % rank] = pads[place], pads[place + len(axes)]
    if any(begins[:2]) or any(ends[:2]):
        return None
    return begins[2:] + ends[2:]


RULES = {name: [fuse_pad] for name in ("Conv", "AveragePool", "MaxPool")}
