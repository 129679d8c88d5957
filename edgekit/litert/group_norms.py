"""Group normalization as torch exports it becomes the operator, whose decomposition keeps the layout of images.

Before:  Reshape(x to (N, groups, rest)) → InstanceNormalization(s, b) → Reshape to x's shape → [Mul(scale)] → [Add(bias)]
After:   GroupNormalization(x, s · scale, b · scale + bias)

The Reshape mixes channels with space in the order of channels first, so that a network in channels last would have to be
transposed before and after each of them. Applies when s, b, scale and bias are constant and nothing else takes what lies between.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.layout import constant, dims, rank
from edgekit.litert.decompose.builder import Builder, take_over
from edgekit.litert.split_projections import only_maker


def recognize_group_norms(model: ir.Model) -> None:
    """Apply it wherever it fits, in place."""
    for node in list(model.graph):
        if node.op_type == "InstanceNormalization" and node.domain in ("", "ai.onnx"):
            _recognize(node)


def _recognize(node: ir.Node) -> None:
    grouped, scale, bias = node.inputs[0], constant(node.inputs[1]), constant(node.inputs[2])
    first = only_maker(grouped) if grouped is not None else None
    last = _only_user(node.outputs[0])
    if first is None or last is None or first.op_type != "Reshape" or last.op_type != "Reshape":
        return
    x, end = first.inputs[0], last.outputs[0]
    if grouped is None or x is None or scale is None or bias is None or rank(grouped) != 3 or rank(x) < 3:
        return
    shape, groups = dims(x), scale.size
    channels = shape[1]
    if dims(end) != shape or dims(grouped)[0] != shape[0] or not isinstance(channels, int) or channels % groups:
        return
    scale, bias = (np.repeat(array.astype(np.float64), channels // groups) for array in (scale, bias))
    end, factor = _with_constant(end, "Mul", channels)
    if factor is not None:
        scale, bias = scale * factor, bias * factor
    end, shift = _with_constant(end, "Add", channels)
    if shift is not None:
        bias = bias + shift
    maker = end.producer()
    assert maker is not None
    assert x.dtype is not None
    b = Builder(maker)
    constants = [b.const(array.astype(x.dtype.numpy())) for array in (scale, bias)]
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    made = b.op("GroupNormalization", [x, *constants], shape, x.dtype, num_groups=groups, epsilon=epsilon)
    take_over(end, made)


def _with_constant(value: ir.Value, op_type: str, channels: int) -> tuple[ir.Value, np.ndarray | None]:
    """The result of the operator that alone takes `value`, and its constant per channel; `value` and None where there is none."""
    user = _only_user(value)
    if user is None or user.op_type != op_type or dims(user.outputs[0]) != dims(value):
        return value, None
    for i in (0, 1):
        array = constant(user.inputs[i])
        if array is None or user.inputs[1 - i] is not value:
            continue
        full = array.reshape((1,) * (rank(value) - array.ndim) + array.shape)
        if full.shape[1] in (1, channels) and full.size == full.shape[1]:
            return user.outputs[0], np.broadcast_to(full.reshape(-1).astype(np.float64), (channels,))
    return value, None


def _only_user(value: ir.Value) -> ir.Node | None:
    users = list(value.uses())
    return users[0][0] if len(users) == 1 and not value.is_graph_output() else None
