"""Nodes that hand on their input as it is go away.

1. Identity (one that names a graph output after an input, a constant or another output stays)
2. Cast to the dtype that the input has; Cast of a Cast where the first loses nothing (float16 → float → float16)
3. Reshape, Flatten, Expand, Squeeze, Unsqueeze, Slice, Tile, Resize, Pad, Transpose that give the shape they take, when they
   move nothing: Transpose with the identity, Slice with steps of one, Pad by zero, Resize between equal sizes
4. Concat, Sum, Max, Min, Mean of one input
5. Dropout in inference
6. x + 0, x - 0, x * 1, x / 1, x ** 1 where the result has the shape of x (x + 0 turns -0 into 0: equal in float32)
7. x and true, x or false
8. Relu of a value that cannot be negative (Relu, Sigmoid, Softmax, Abs, Exp, HardSigmoid, Clip from 0 or more), Abs likewise
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit.hub.edit import Editor, integers, producer, scalar, shape
from edgekit.hub.edit import array as array_of


def drop_identity(node: ir.Node, edit: Editor) -> bool:
    """Cases 1 and 4."""
    data = node.inputs[0]
    return data is not None and len(node.inputs) == 1 and edit.replace(node.outputs[0], data)


def drop_cast(node: ir.Node, edit: Editor) -> bool:
    """Case 2."""
    data = node.inputs[0]
    if data is None or data.dtype is None:
        return False
    target = ir.DataType(node.attributes["to"].as_int())
    if data.dtype == target:
        return edit.replace(node.outputs[0], data)
    first = producer(data, "Cast")
    origin = first.inputs[0] if first is not None else None
    if origin is None or origin.dtype is None or not _holds(data.dtype, origin.dtype):
        return False
    if origin.dtype == target:
        return edit.replace(node.outputs[0], origin)
    return edit.replace(node.outputs[0], edit.op("Cast", [origin], {"to": int(target)}, before=node))


def _holds(wide: ir.DataType, narrow: ir.DataType) -> bool:
    """Whether every value of `narrow` is exactly one of `wide`."""
    order = (
        [ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE],
        [ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE],
    )
    whole = [ir.DataType.BOOL, ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64]
    return any(
        wide in chain and narrow in chain and chain.index(wide) >= chain.index(narrow) and narrow != ir.DataType.BOOL
        for chain in (*order, whole)
    )


def drop_same_shape(node: ir.Node, edit: Editor) -> bool:
    """Case 3 for operators that keep the order of elements."""
    data = node.inputs[0]
    dims = shape(data)
    return data is not None and dims is not None and dims == shape(node.outputs[0]) and edit.replace(node.outputs[0], data)


def drop_transpose(node: ir.Node, edit: Editor) -> bool:
    """Case 3 for Transpose: the identity permutation."""
    perm = node.attributes.get_ints("perm")
    return perm is not None and list(perm) == list(range(len(perm))) and drop_same_shape(node, edit)


def drop_slice(node: ir.Node, edit: Editor) -> bool:
    """Case 3 for Slice: steps of one."""
    steps = integers(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else [1]
    return steps is not None and all(step == 1 for step in steps) and drop_same_shape(node, edit)


def drop_pad(node: ir.Node, edit: Editor) -> bool:
    """Case 3 for Pad: nothing added or cut on either side."""
    pads = integers(node.inputs[1])
    return pads is not None and not any(pads) and drop_same_shape(node, edit)


def drop_resize(node: ir.Node, edit: Editor) -> bool:
    """Case 3 for Resize; with a region of interest the same size may still crop."""
    if node.attributes.get_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return False
    scales = array_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    return (scales is None or bool((scales == 1).all())) and drop_same_shape(node, edit)


def drop_neutral(node: ir.Node, edit: Editor) -> bool:
    """Case 6."""
    neutral = 0.0 if node.op_type in ("Add", "Sub") else 1.0
    sides = (1, 0) if node.op_type in ("Add", "Mul") else (1,)
    for side in sides:
        data = node.inputs[1 - side]
        constant = array_of(node.inputs[side])
        if data is None or constant is None or shape(data) is None or shape(data) != shape(node.outputs[0]):
            continue
        if constant.dtype.kind in "fiu" and bool((constant == neutral).all()) and data.dtype == node.outputs[0].dtype:
            return edit.replace(node.outputs[0], data)
    return False


def drop_truth(node: ir.Node, edit: Editor) -> bool:
    """Case 7."""
    for side in (0, 1):
        data, constant = node.inputs[1 - side], array_of(node.inputs[side])
        if data is None or constant is None or shape(data) is None or shape(data) != shape(node.outputs[0]):
            continue
        if bool((constant == (node.op_type == "And")).all()):
            return edit.replace(node.outputs[0], data)
    return False


def drop_sign(node: ir.Node, edit: Editor) -> bool:
    """Case 8."""
    data = node.inputs[0]
    source = producer(data, "Relu", "Sigmoid", "Softmax", "Abs", "Exp", "HardSigmoid", "Clip")
    if data is None or source is None:
        return False
    if source.op_type == "Clip":
        low = scalar(source.inputs[1]) if len(source.inputs) > 1 else None
        if low is None or low < 0:
            return False
    return edit.replace(node.outputs[0], data)


RULES = {
    "Identity": [drop_identity],
    **{name: [drop_identity] for name in ("Concat", "Sum", "Max", "Min", "Mean")},
    "Cast": [drop_cast],
    **{name: [drop_same_shape] for name in ("Reshape", "Flatten", "Expand", "Squeeze", "Unsqueeze", "Tile")},
    "Transpose": [drop_transpose],
    "Slice": [drop_slice],
    "Pad": [drop_pad],
    "Resize": [drop_resize],
    **{name: [drop_neutral] for name in ("Add", "Sub", "Mul", "Div", "Pow")},
    **{name: [drop_truth] for name in ("And", "Or")},
    "Relu": [drop_sign],
    "Abs": [drop_sign],
}
