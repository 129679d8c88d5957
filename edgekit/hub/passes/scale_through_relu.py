"""A scale per channel after a Relu goes before it, into the weights that made its operand.

    Linear → Relu → Mul f               →  Linear' → Relu                    f ≥ 0
    Linear → Relu → Mul f               →  Linear' → Relu → Mul sign(f)      otherwise
    with LeakyRelu, or a MaxPool behind the Relu, likewise

Relu(x)·|f| is Relu(x·|f|). It saves the product, and it evens out the channels before they share one quantization scale: networks
that normalize after the activation (Conv → Relu → BatchNormalization) lose most of their accuracy in INT8 otherwise.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.hub.edit import Editor, producer, shape, sole_consumer
from edgekit.hub.passes.fuse_linear import LINEAR, affine_of


def scale_through_relu(node: ir.Node, edit: Editor) -> bool:
    """All cases: `node` is the Mul (or Div) after the activation."""
    affine = affine_of(node)
    if affine is None or affine.offset.any() or shape(affine.data) != shape(node.outputs[0]) or node.graph is None:
        return False
    factor = affine.factor.astype(affine.data.dtype.numpy()) if affine.data.dtype is not None else affine.factor
    size = np.where(factor == 0, 1, np.abs(factor)).astype(factor.dtype)
    if (size == 1).all() or not np.isfinite(size).all():
        return False
    between = _chain(affine.data, node)
    if between is None:
        return False
    name = node.outputs[0].name
    made = edit.op("Mul", [between[-1].inputs[0], edit.constant(size, f"{name}_size", node.graph)], before=node)
    for step in reversed(between):
        made = edit.op(step.op_type, [made, *step.inputs[1:]], dict(step.attributes), before=node)
    sign = np.sign(factor).astype(factor.dtype)
    if not (sign == 1).all():
        made = edit.op("Mul", [made, edit.constant(sign, f"{name}_sign", node.graph)], before=node)
    return edit.replace(node.outputs[0], made)


def _chain(value: ir.Value, user: ir.Node) -> list[ir.Node] | None:
    """The activation, and perhaps the pooling behind it, between a linear operator and a user, last first; each read once."""
    found: list[ir.Node] = []
    for op_types in (("MaxPool",), ("Relu", "LeakyRelu")):
        node = producer(value, *op_types)
        if node is None:
            continue
        if sole_consumer(value) is not user or len(node.outputs) > 1 or node.inputs[0] is None:
            return None
        found.append(node)
        value, user = node.inputs[0], node
    linear = producer(value, *LINEAR, "Add")
    is_linear = linear is not None and (linear.op_type != "Add" or producer(linear.inputs[0], "MatMul") is not None)
    has_activation = bool(found) and found[-1].op_type != "MaxPool"
    return found if has_activation and is_linear and sole_consumer(value) is user else None


RULES = {"Mul": [scale_through_relu], "Div": [scale_through_relu]}
