"""Rewrite one node from the opset that the model declares to the hub's.

Only what changed its meaning or its form between opset 7 and 20 is in the table; everything else reads the same in both. Source:
the operators' version histories in onnx/onnx `docs/Changelog.md`.

     1. attributes that became inputs   Slice, TopK (10) · Clip, Pad (11) · Split, Squeeze, Unsqueeze, ReduceSum (13)
                                        · Reduce* (18) · DFT axis (20)
     2. Upsample, Resize before 11      Resize, asymmetric; nearest takes the floor, or the ceiling when it shrinks (onnxruntime)
     3. Resize before 13                tf_half_pixel_for_nn + floor is half_pixel + round_prefer_ceil
     4. Softmax, LogSoftmax, Hardmax    before 13 over all axes from `axis` on at once: Flatten → Softmax(-1) → Reshape, and just
                                        axis=-1 where `axis` is the last
     5. Dropout before 12               the identity; a mask that is read is all true
     6. BatchNormalization              spatial=0 (before 9) is elementwise arithmetic; unread training outputs (before 14) go
     7. Split before 18                 without sizes it says num_outputs
     8. Scatter → ScatterElements · GridSample's mode names (20) · RoiAlign's coordinates (16) · Erfc (tf2onnx's) = 1 - Erf
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgekit.errors import SourceError
from edgekit.hub.edit import Editor, scalar, shape, static_shape
from edgekit.hub.edit import array as array_of

TARGET = 20


def upgrade_node(node: ir.Node, since: int, edit: Editor) -> None:
    """Rewrite a node of opset `since` so that it means the same in the hub's opset.

    The shapes of its inputs must be known. The node is changed in place or replaced.

    Raises:
        SourceError: The operator's old form has no counterpart.
    """
    for below, change in _CHANGES.get(node.op_type, ()):
        if since < below and node.graph is not None:
            change(node, edit)


def _to_input(name: str, index: int, *, dtype: str = "int64", scalar: bool = False) -> Callable[[ir.Node, Editor], None]:
    """The attribute `name` becomes the constant input `index`."""

    def change(node: ir.Node, edit: Editor) -> None:
        attribute = node.attributes.pop(name, None)
        if attribute is None or (len(node.inputs) > index and node.inputs[index] is not None):
            return
        value = np.asarray(attribute.value, dtype).reshape(() if scalar else -1)
        _set_input(node, index, _constant(node, edit, value, name))

    return change


def _constant(node: ir.Node, edit: Editor, value: np.ndarray, name: str) -> ir.Value:
    assert node.graph is not None
    return edit.constant(value, f"{node.outputs[0].name}_{name}", node.graph)


def _set_input(node: ir.Node, index: int, value: ir.Value | None) -> None:
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def _slice(node: ir.Node, edit: Editor) -> None:
    for index, name in enumerate(("starts", "ends", "axes"), start=1):
        _to_input(name, index)(node, edit)


def _topk(node: ir.Node, edit: Editor) -> None:
    _to_input("k", 1)(node, edit)


def _float_input(node: ir.Node, edit: Editor, name: str, index: int, *, ignore: float | None = None) -> None:
    attribute = node.attributes.pop(name, None)
    if attribute is None or (ignore is not None and attribute.as_float() == ignore):
        return
    data = node.inputs[0]
    dtype = data.dtype.numpy() if data is not None and data.dtype is not None else np.float32
    _set_input(node, index, _constant(node, edit, np.asarray(attribute.as_float(), dtype), name))


def _clip(node: ir.Node, edit: Editor) -> None:
    _float_input(node, edit, "min", 1)
    _float_input(node, edit, "max", 2)


def _pad(node: ir.Node, edit: Editor) -> None:
    _to_input("pads", 1)(node, edit)
    _float_input(node, edit, "value", 2, ignore=0.0)


def _split_count(node: ir.Node, edit: Editor) -> None:
    if len(node.inputs) < 2 or node.inputs[1] is None:
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))


def _upsample(node: ir.Node, edit: Editor) -> None:
    _to_input("scales", 1, dtype="float32")(node, edit)
    mode = node.attributes.get_string("mode", "nearest")
    mode = "linear" if mode == "bilinear" else mode
    _replace_by_resize(node, edit, mode)


def _resize_10(node: ir.Node, edit: Editor) -> None:
    _replace_by_resize(node, edit, node.attributes.get_string("mode", "nearest"))


def _replace_by_resize(node: ir.Node, edit: Editor, mode: str) -> None:
    scales = array_of(node.inputs[1])
    nearest = None
    if mode == "nearest":
        nearest = "ceil" if scales is not None and (scales < 1).any() else "floor"
    attributes = {"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": nearest}
    edit.replace(node.outputs[0], edit.op("Resize", [node.inputs[0], None, node.inputs[1]], attributes, before=node))


def _resize_11(node: ir.Node, edit: Editor) -> None:
    for index in (1, 2, 3):
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is not None and static_shape(value) == (0,):
            node.replace_input_with(index, None)
    if node.attributes.get_string("coordinate_transformation_mode", "half_pixel") == "tf_half_pixel_for_nn":
        node.attributes["coordinate_transformation_mode"] = ir.AttrString("coordinate_transformation_mode", "half_pixel")
        node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "round_prefer_ceil")


def _softmax(node: ir.Node, edit: Editor) -> None:
    data = node.inputs[0]
    dims = shape(data)
    axis = node.attributes.get_int("axis", 1)
    if dims is not None:
        axis = axis + len(dims) if axis < 0 else axis
        if axis == len(dims) - 1 or all(dim == 1 for dim in dims[axis + 1 :]):
            node.attributes["axis"] = ir.AttrInt64("axis", axis)
            return
    flat = edit.op("Flatten", [data], {"axis": axis}, before=node)
    result = edit.op(node.op_type, [flat], {"axis": -1}, before=node)
    target = edit.op("Shape", [data], before=node)
    edit.replace(node.outputs[0], edit.op("Reshape", [result, target], before=node))


def _dropout(node: ir.Node, edit: Editor) -> None:
    data = node.inputs[0]
    assert data is not None
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        true = ir.tensor(np.array([True]))
        mask = edit.op("ConstantOfShape", [edit.op("Shape", [data], before=node)], {"value": true}, before=node)
        edit.replace(node.outputs[1], mask)
    edit.replace(node.outputs[0], data)


def _batch_norm_9(node: ir.Node, edit: Editor) -> None:
    spatial = node.attributes.pop("spatial", None)
    if spatial is None or spatial.as_int() == 1:
        return
    data, scale, shift, mean, variance = node.inputs[:5]
    epsilon = np.asarray(node.attributes.get_float("epsilon", 1e-5), np.float32)
    deviation = edit.op("Sqrt", [edit.op("Add", [variance, _constant(node, edit, epsilon, "epsilon")], before=node)], before=node)
    centered = edit.op("Sub", [data, mean], before=node)
    scaled = edit.op("Mul", [centered, edit.op("Div", [scale, deviation], before=node)], before=node)
    edit.replace(node.outputs[0], edit.op("Add", [scaled, shift], before=node))


def _batch_norm_14(node: ir.Node, edit: Editor) -> None:
    if len(node.outputs) > 1 and not any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        node.resize_outputs(1)
    if len(node.outputs) > 1:
        raise SourceError(
            "BatchNormalization gives its training statistics",
            where=f"node {node.name!r}",
            fix="export the model in inference mode (model.eval(), training=False)",
        )


def _scatter(node: ir.Node, edit: Editor) -> None:
    node.op_type = "ScatterElements"


def _grid_sample(node: ir.Node, edit: Editor) -> None:
    mode = node.attributes.get_string("mode", "bilinear")
    names = {"bilinear": "linear", "bicubic": "cubic"}
    node.attributes["mode"] = ir.AttrString("mode", names.get(mode, mode))


def _roi_align(node: ir.Node, edit: Editor) -> None:
    if "coordinate_transformation_mode" not in node.attributes:
        node.attributes.add(ir.AttrString("coordinate_transformation_mode", "output_half_pixel"))


def _dft(node: ir.Node, edit: Editor) -> None:
    attribute = node.attributes.pop("axis", None)
    axis = np.asarray(1 if attribute is None else attribute.as_int(), np.int64)
    _set_input(node, 2, _constant(node, edit, axis, "axis"))


def _scan_8(node: ir.Node, edit: Editor) -> None:
    raise SourceError(
        "Scan of opset 8 (with a batch axis) is not supported",
        where=f"node {node.name!r}",
        fix="export the model again with opset 9 or newer",
    )


def _erfc(node: ir.Node, edit: Editor) -> None:
    data = node.inputs[0]
    dtype = data.dtype.numpy() if data is not None and data.dtype is not None else np.float32
    one = _constant(node, edit, np.asarray(1, dtype), "one")
    edit.replace(node.outputs[0], edit.op("Sub", [one, edit.op("Erf", [data], before=node)], before=node))


def _dropout_12(node: ir.Node, edit: Editor) -> None:
    """From 12 on Dropout may train; without `training_mode`, or with it false, it is the identity as before."""
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if training is None or scalar(training) == 0:
        _dropout(node, edit)


_REDUCTIONS = "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare".split()
_ALWAYS = 1 << 30
_Change = tuple[int, Callable[[ir.Node, Editor], None]]

_CHANGES: dict[str, tuple[_Change, ...]] = {
    "Upsample": ((_ALWAYS, _upsample),),
    "Resize": ((11, _resize_10), (13, _resize_11)),
    "Slice": ((10, _slice),),
    "TopK": ((10, _topk),),
    "Clip": ((11, _clip),),
    "Pad": ((11, _pad),),
    "Split": ((13, _to_input("split", 1)), (18, _split_count)),
    "Squeeze": ((13, _to_input("axes", 1)),),
    "Unsqueeze": ((13, _to_input("axes", 1)),),
    "ReduceSum": ((13, _to_input("axes", 1)),),
    **{name: ((18, _to_input("axes", 1)),) for name in _REDUCTIONS},
    "Softmax": ((13, _softmax),),
    "LogSoftmax": ((13, _softmax),),
    "Hardmax": ((13, _softmax),),
    "Dropout": ((12, _dropout), (_ALWAYS, _dropout_12)),
    "BatchNormalization": ((9, _batch_norm_9), (14, _batch_norm_14)),
    "Scatter": ((_ALWAYS, _scatter),),
    "GridSample": ((20, _grid_sample),),
    "RoiAlign": ((16, _roi_align),),
    "DFT": ((20, _dft),),
    "Scan": ((9, _scan_8),),
    "Erfc": ((_ALWAYS, _erfc),),
}
