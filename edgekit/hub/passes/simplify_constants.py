"""What a constant operand lets one say with less.

1. x and True, x or False, x + 0, x * 1 … that only broadcast x  →  Expand(x)
2. f(Expand(x), numbers)  →  Expand(f(x, numbers))              f elementwise: computed once per element, then broadcast
3. (x + a) + b  →  x + (a + b),  (x * a) * b  →  x * (a * b)    a, b constant, x + a has no other reader
4. Gather, GatherND, GatherElements whose constant indices name every element in order  →  Reshape

Together they undo what masks look like after an exporter has written out their broadcasting.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.hub.edit import Editor, array, is_constant, producer, scalar, shape, sole_consumer, static_shape
from edgekit.hub.evaluate import evaluate
from edgekit.hub.facts import does_not_fit

_NEUTRAL = {"And": True, "Or": False, "Add": 0, "Sub": 0, "Mul": 1, "Div": 1}
_LARGEST_LOOK = 1 << 20  # elements of data whose order under a gather is looked at


def expand_neutral(node: ir.Node, edit: Editor) -> bool:
    """Case 1."""
    result = static_shape(node.outputs[0])
    for side in (1, 0) if node.op_type not in ("Sub", "Div") else (1,):
        data, constant = node.inputs[1 - side], array(node.inputs[side])
        if data is None or constant is None or is_constant(data) or result is None or node.graph is None:
            continue
        if shape(data) not in (None, result) and bool((constant == _NEUTRAL[node.op_type]).all()):
            target = edit.constant(np.array(result, np.int64), f"{node.outputs[0].name}_shape", node.graph)
            return edit.replace(node.outputs[0], edit.op("Expand", [data, target], before=node))
    return False


def sink_expand(node: ir.Node, edit: Editor) -> bool:
    """Case 2."""
    if len(node.outputs) != 1:
        return False
    wide = [i for i, value in enumerate(node.inputs) if value is not None and scalar(value) is None]
    expand = producer(node.inputs[wide[0]], "Expand") if len(wide) == 1 else None
    if expand is None or shape(expand.outputs[0]) != shape(node.outputs[0]):
        return False
    if any(
        len(shape(value) or ()) > len(shape(expand.inputs[0]) or ()) for value in node.inputs if value is not expand.outputs[0]
    ):
        return False
    inputs = [expand.inputs[0] if i == wide[0] else value for i, value in enumerate(node.inputs)]
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    small = edit.op(node.op_type, inputs, attributes, before=node)
    return edit.replace(node.outputs[0], edit.op("Expand", [small, expand.inputs[1]], before=node))


def join_constants(node: ir.Node, edit: Editor) -> bool:
    """Case 3."""
    for side in (1, 0):
        outer, inner = array(node.inputs[side]), producer(node.inputs[1 - side], node.op_type)
        if outer is None or inner is None or outer.dtype.kind != "f" or node.graph is None:
            continue
        if sole_consumer(inner.outputs[0]) is not node or inner.graph is not node.graph:
            continue
        for place in (1, 0):
            constant, data = array(inner.inputs[place]), inner.inputs[1 - place]
            if constant is None or data is None or is_constant(data) or constant.dtype != outer.dtype:
                continue
            joined = (np.add if node.op_type == "Add" else np.multiply)(constant.astype(np.float64), outer.astype(np.float64))
            if joined.size > max(constant.size, outer.size) or not np.isfinite(joined).all():
                continue
            value = edit.constant(joined.astype(outer.dtype), f"{node.outputs[0].name}_constant", node.graph)
            made = edit.op(node.op_type, [data, value], before=node)
            if shape(made) == shape(node.outputs[0]):
                return edit.replace(node.outputs[0], made)
            edit.prune(made.producer())  # type: ignore[arg-type]
    return False


def gather_in_order(node: ir.Node, edit: Editor) -> bool:
    """Case 4."""
    data, indices = node.inputs[:2]
    given, result = static_shape(data), static_shape(node.outputs[0])
    if given is None or result is None or array(indices) is None or node.graph is None:
        return False
    size = int(np.prod(given))
    if size > _LARGEST_LOOK or size != np.prod(result):
        return False
    try:
        places = evaluate(node, [np.arange(size).reshape(given), array(indices)], edit.opset)
    except IndexError as error:
        raise does_not_fit(node, f"it picks what is not there ({error})") from error
    if places is None or not np.array_equal(places[0].reshape(-1), np.arange(size)):
        return False
    target = edit.constant(np.array(result, np.int64), f"{node.outputs[0].name}_shape", node.graph)
    return edit.replace(node.outputs[0], edit.op("Reshape", [data, target], before=node))


_ELEMENTWISE = (
    "Add Sub Mul Div Pow Max Min Where Equal Less Greater LessOrEqual GreaterOrEqual And Or Cast Not Neg Abs Exp Log".split()
)

RULES = {
    **{name: [sink_expand] for name in _ELEMENTWISE},
    **{name: [expand_neutral, sink_expand] for name in _NEUTRAL},
    "Add": [expand_neutral, sink_expand, join_constants],
    "Mul": [expand_neutral, sink_expand, join_constants],
    **{name: [gather_in_order] for name in ("Gather", "GatherND", "GatherElements")},
}
