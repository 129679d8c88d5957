"""Activations that exporters spell out become the ONNX operator that names them.

    Gelu          0.5·x·(1 + Erf(x/√2)) · x·(1 - Erf(-x/√2))/2 (Keras through erfc) · 0.5·x·(1 + Tanh(√(2/π)·(x + 0.044715·x³)))
    HardSigmoid   Clip(a·x + b, 0, 1) · Clip(x + 3, 0, 6)/6
    HardSwish     x·HardSigmoid(x) with 1/6 and 1/2 · x·Clip(x + 3, 0, 6)/6
    Softplus      Log(1 + Exp(x)) · Relu(x) + Log(1 + Exp(-|x|)) · torch's Where(x > 20, x, Softplus(x))
    Mish          x·Tanh(Softplus(x))
    LeakyRelu     Max(x, a·x) with 0 < a < 1 · Where(x > 0, x, a·x)
    PRelu         Relu(x) - a·Relu(-x) (Keras; LeakyRelu where a is one number)
    Softmax       Exp(x - max)/Sum(Exp(x - max)) over one axis, with or without the maximum

Factors may come in any order and on any side (`edgekit.hub.algebra`). x·Sigmoid(x) stays as it is: both runtimes fuse it.
Each is the same function; float32 results differ in the last bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgekit.hub.algebra import close, factors, near, polynomial
from edgekit.hub.edit import Editor, array, integers, is_float, producer, scalar, shape, sole_consumer
from edgekit.hub.passes.merge_bounds import bounds_of


def fuse_product(node: ir.Node, edit: Editor) -> bool:
    """Gelu, HardSwish, Mish and HardSigmoid: `node` is the outermost Mul or Div."""
    result = node.outputs[0]
    if not is_float(result):
        return False
    for depth in (1, 2, 3):  # x may be a product itself: take no more apart than it needs
        number, values = factors(result, depth)
        if len(values) == 1 and _fuse_scaled_clip(node, number, values[0], edit):
            return True
        if len(values) == 2 and _fuse_gate(node, number, values, edit):
            return True
    return False


def _fuse_gate(node: ir.Node, number: float, values: list[ir.Value], edit: Editor) -> bool:
    for x, gate in (values, values[::-1]):
        kind = _gate(number, x, gate) if shape(x) == shape(node.outputs[0]) else None
        if kind is not None:
            operator, attributes = kind
            return edit.replace(node.outputs[0], edit.op(operator, [x], attributes, before=node))
    return False


def fuse_clip(node: ir.Node, edit: Editor) -> bool:
    """HardSigmoid as Clip(a·x + b, 0, 1): `node` is the Clip."""
    return _fuse_scaled_clip(node, 1.0, node.outputs[0], edit)


def fuse_softplus(node: ir.Node, edit: Editor) -> bool:
    """`node` is the Log."""
    total = producer(node.inputs[0], "Add")
    x = _exponent(total) if total is not None else None
    return x is not None and edit.replace(node.outputs[0], edit.op("Softplus", [x], before=node))


def fuse_stable_softplus(node: ir.Node, edit: Editor) -> bool:
    """Relu(x) + Softplus(-|x|): `node` is the Add."""
    for positive, rest in (node.inputs, node.inputs[::-1]):
        relu, softplus = producer(positive, "Relu"), producer(rest, "Softplus")
        negative = producer(softplus.inputs[0], "Neg") if softplus is not None else None
        absolute = producer(negative.inputs[0], "Abs") if negative is not None else None
        if relu is not None and absolute is not None and relu.inputs[0] is absolute.inputs[0]:
            return edit.replace(node.outputs[0], edit.op("Softplus", [relu.inputs[0]], before=node))
    return False


def fuse_where(node: ir.Node, edit: Editor) -> bool:
    """Softplus above a threshold, LeakyRelu: `node` is the Where."""
    compare = producer(node.inputs[0], "Greater", "GreaterOrEqual")
    x, other = node.inputs[1:]
    if compare is None or x is None or other is None or shape(other) != shape(node.outputs[0]) or not is_float(x):
        return False
    threshold, condition = scalar(compare.inputs[1]), polynomial(compare.inputs[0], x)
    if threshold is None or condition is None:
        return False
    number, values = factors(other)
    softplus = producer(values[0], "Softplus") if len(values) == 1 else None
    if softplus is not None:
        beta = polynomial(softplus.inputs[0], x)
        # Above 17, log(1 + exp(x)) rounds to x in float32.
        same = beta is not None and close(beta, condition) and near(beta.get(1, 0) * number, 1.0) and not beta.get(0)
        return same and threshold >= 17 and edit.replace(node.outputs[0], other)
    slope = polynomial(other, x)
    if threshold == 0 and condition == {1: 1.0} and slope is not None and set(slope) == {1}:
        return edit.replace(node.outputs[0], edit.op("LeakyRelu", [x], {"alpha": slope[1]}, before=node))
    return False


def fuse_max(node: ir.Node, edit: Editor) -> bool:
    """LeakyRelu as Max(x, a·x): `node` is the Max."""
    if len(node.inputs) != 2:
        return False
    for x, other in (node.inputs, node.inputs[::-1]):
        slope = polynomial(other, x) if x is not None and other is not x and scalar(x) is None else None
        if slope is not None and set(slope) == {1} and 0 < slope[1] < 1:
            return edit.replace(node.outputs[0], edit.op("LeakyRelu", [x], {"alpha": slope[1]}, before=node))
    return False


def fuse_prelu(node: ir.Node, edit: Editor) -> bool:
    """Relu(x) ∓ a·Relu(-x): `node` is the Sub or Add."""
    sides = (node.inputs,) if node.op_type == "Sub" else (node.inputs, node.inputs[::-1])
    for positive, rest in sides:
        relu = producer(positive, "Relu")
        found = _scaled_negative(relu.inputs[0], rest) if relu is not None else None
        if relu is None or found is None or node.graph is None:
            continue
        slope = found if node.op_type == "Sub" else -found
        x = relu.inputs[0]
        if slope.size == 1:
            alpha = float(slope.reshape(()))
            return edit.replace(node.outputs[0], edit.op("LeakyRelu", [x], {"alpha": alpha}, before=node))
        if len(slope.shape) > len(shape(x) or ()):
            continue
        constant = edit.constant(slope, f"{node.outputs[0].name}_slope", node.graph)
        return edit.replace(node.outputs[0], edit.op("PRelu", [x, constant], before=node))
    return False


def fuse_softmax(node: ir.Node, edit: Editor) -> bool:
    """`node` is the Div."""
    exponential = producer(node.inputs[0], "Exp")
    total = producer(node.inputs[1], "ReduceSum")
    if exponential is None or total is None or total.inputs[0] is not node.inputs[0]:
        return False
    axis = _single_axis(total)
    x = exponential.inputs[0]
    if axis is None or x is None or shape(x) is None:
        return False
    shifted = producer(x, "Sub")
    highest = producer(shifted.inputs[1], "ReduceMax") if shifted is not None else None
    if shifted is not None and highest is not None and highest.inputs[0] is shifted.inputs[0] and _single_axis(highest) == axis:
        x = shifted.inputs[0]
    return edit.replace(node.outputs[0], edit.op("Softmax", [x], {"axis": axis}, before=node))


def _gate(number: float, x: ir.Value, gate: ir.Value) -> tuple[str, dict[str, str]] | None:
    """The operator that `number · x · gate(x)` is."""
    if near(number, 1.0):
        sigmoid = producer(gate, "HardSigmoid")
        if sigmoid is not None and sigmoid.inputs[0] is x and _is_hard_swish_gate(sigmoid):
            return "HardSwish", {}
        tanh = producer(gate, "Tanh")
        softplus = producer(tanh.inputs[0], "Softplus") if tanh is not None else None
        if softplus is not None and softplus.inputs[0] is x:
            return "Mish", {}
    clip = producer(gate, "Clip")
    bounds = bounds_of(clip) if clip is not None else None
    if bounds is not None and bounds.low == 0 and near(bounds.high * number, 1.0):
        line = polynomial(bounds.x, x)
        if line is not None and close({p: f * number for p, f in line.items()}, {1: 1 / 6, 0: 0.5}):
            return "HardSwish", {}
    for inner, make in _GELU.items():
        core = _core(gate, inner)
        weight = polynomial(gate, core.outputs[0]) if core is not None else None
        if core is None or weight is None or not near(number * weight.get(0, 0.0), 0.5) or set(weight) - {0, 1}:
            continue
        argument = polynomial(core.inputs[0], x)
        sign = number * weight.get(1, 0.0) * 2
        if argument is not None and near(abs(sign), 1.0) and close({p: f * sign for p, f in argument.items()}, make):
            return "Gelu", {"approximate": "none" if inner == "Erf" else "tanh"}
    return None


# Erf and Tanh are odd, so that a minus sign inside is one outside.
_ROOT = math.sqrt(2 / math.pi)
_GELU = {"Erf": {1: math.sqrt(0.5)}, "Tanh": {1: _ROOT, 3: _ROOT * 0.044715}}


def _core(value: ir.Value | None, operator: str, depth: int = 4) -> ir.Node | None:
    """The Erf or Tanh inside a sum or a product with constants."""
    node = producer(value, operator, "Add", "Sub", "Mul", "Div", "Neg")
    if node is None or depth == 0 or node.op_type == operator:
        return node if node is not None and node.op_type == operator else None
    inner = [operand for operand in node.inputs if scalar(operand) is None]
    return _core(inner[0], operator, depth - 1) if len(inner) == 1 else None


def _is_hard_swish_gate(node: ir.Node) -> bool:
    return near(_float(node, "alpha", 0.2), 1 / 6) and near(_float(node, "beta", 0.5), 0.5)


def _fuse_scaled_clip(node: ir.Node, number: float, value: ir.Value, edit: Editor) -> bool:
    clip = producer(value, "Clip")
    bounds = bounds_of(clip) if clip is not None else None
    if bounds is None or bounds.low != 0 or not near(bounds.high * number, 1.0) or number <= 0:
        return False
    x = bounds.x
    while (line := producer(x, "Add", "Sub", "Mul", "Div")) is not None:
        inner = [operand for operand in line.inputs if scalar(operand) is None]
        if len(inner) != 1 or inner[0] is None or shape(inner[0]) != shape(x):
            break
        if x is not bounds.x and sole_consumer(x) is None:
            break  # others read it scaled: x·c·HardSigmoid(x·c) is a HardSwish of x·c
        x = inner[0]
    terms = polynomial(bounds.x, x)
    if terms is None or set(terms) != {0, 1} or (x is bounds.x and number == 1.0):
        return False
    attributes = {"alpha": terms[1] * number, "beta": terms[0] * number}
    return edit.replace(node.outputs[0], edit.op("HardSigmoid", [x], attributes, before=node))


def _exponent(total: ir.Node) -> ir.Value | None:
    """x of 1 + Exp(x)."""
    for one, other in (total.inputs, total.inputs[::-1]):
        exponential = producer(other, "Exp")
        if exponential is not None and scalar(one) == 1.0:
            return exponential.inputs[0]
    return None


def _scaled_negative(x: ir.Value | None, rest: ir.Value | None) -> np.ndarray | None:
    """a of a·Relu(-x)."""
    product = producer(rest, "Mul")
    sides = [(product.inputs[0], product.inputs[1]), (product.inputs[1], product.inputs[0])] if product is not None else []
    for slope, other in sides:
        constant, relu = array(slope), producer(other, "Relu")
        negative = producer(relu.inputs[0], "Neg") if relu is not None else None
        if constant is not None and negative is not None and negative.inputs[0] is x:
            return constant
    return None


def _single_axis(node: ir.Node) -> int | None:
    axes = integers(node.inputs[1]) if len(node.inputs) > 1 else None
    rank = len(shape(node.inputs[0]) or ())
    if axes is None or len(axes) != 1 or not rank or not node.attributes.get_int("keepdims", 1):
        return None
    return axes[0] % rank


def _float(node: ir.Node, name: str, default: float) -> float:
    return float(node.attributes[name].value) if name in node.attributes else default


RULES: dict[str, list[Callable[[ir.Node, Editor], bool]]] = {
    "Mul": [fuse_product],
    "Div": [fuse_product, fuse_softmax],
    "Clip": [fuse_clip],
    "Log": [fuse_softplus],
    "Add": [fuse_stable_softplus, fuse_prelu],
    "Sub": [fuse_prelu],
    "Where": [fuse_where],
    "Max": [fuse_max],
}
