"""Operators on quantized tensors become float operators between DequantizeLinear and QuantizeLinear.

Both forms say the same (onnxruntime turns one into the other); the hub has only the second, so that what follows knows one.

    1. QLinearConv, QLinearMatMul, and of com.microsoft QLinearAdd, QLinearMul, QLinearConcat, QLinearAveragePool,
       QLinearGlobalAveragePool, QLinearSigmoid, QLinearLeakyRelu, QLinearSoftmax, QLinearWhere, QGemm

           QLinearConv(x, sx, zx, w, sw, zw, sy, zy, b)
           →  QuantizeLinear(Conv(DequantizeLinear(x, sx, zx), DequantizeLinear(w, sw, zw), DequantizeLinear(b, sx * sw)), sy, zy)

    2. com.microsoft's QuantizeLinear and DequantizeLinear are ONNX's; those of 16 bits are in opset 21

A bias whose scales are computed, a zero point of the result that is left out, scales of more than one axis, channels_last, a
Softmax of another opset than the model's: left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit.hub.edit import array, graphs

Triple = tuple[int, int, int]  # places of a value, its scale, its zero point


@dataclass(frozen=True)
class Form:
    """Where a quantized operator has what.

    Args:
        op_type: The float operator.
        operands: Its quantized inputs; an int is an input that stays as it is.
        result: Places of the result's scale and zero point.
        bias: The place of an int32 bias on the grid of the products.
    """

    op_type: str
    operands: tuple[Triple | int, ...]
    result: tuple[int, int]
    bias: int | None = None


_BINARY = ((0, 1, 2), (3, 4, 5))
_FORMS = {
    ("", "QLinearConv"): Form("Conv", _BINARY, (6, 7), 8),
    ("", "QLinearMatMul"): Form("MatMul", _BINARY, (6, 7)),
    ("com.microsoft", "QGemm"): Form("Gemm", _BINARY, (7, 8), 6),
    ("com.microsoft", "QLinearAdd"): Form("Add", _BINARY, (6, 7)),
    ("com.microsoft", "QLinearMul"): Form("Mul", _BINARY, (6, 7)),
    ("com.microsoft", "QLinearAveragePool"): Form("AveragePool", ((0, 1, 2),), (3, 4)),
    ("com.microsoft", "QLinearGlobalAveragePool"): Form("GlobalAveragePool", ((0, 1, 2),), (3, 4)),
    ("com.microsoft", "QLinearLeakyRelu"): Form("LeakyRelu", ((0, 1, 2),), (3, 4)),
    ("com.microsoft", "QLinearSigmoid"): Form("Sigmoid", ((0, 1, 2),), (3, 4)),
    ("com.microsoft", "QLinearSoftmax"): Form("Softmax", ((0, 1, 2),), (3, 4)),
    ("com.microsoft", "QLinearWhere"): Form("Where", (0, (1, 2, 3), (4, 5, 6)), (7, 8)),
}
_NOT_THE_FLOAT_OPERATORS = ("channels_last", "opset")


def expand_quantized(model: ir.Model, since: int) -> None:
    """All of the above, in place, for nodes of opset `since`. The nodes that it makes are not typed yet."""
    for graph in graphs(model):
        for node in list(graph):
            if node.domain == "com.microsoft" and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                zero = array(_operand(node, 2))
                if zero is not None and zero.dtype.itemsize == 2:
                    model.opset_imports[""] = max(21, model.opset_imports[""])
                node.domain = ""
            form = _form(node)
            if form is not None and _can_expand(node, form, since):
                _Expansion(graph, node).expand(form)


def _form(node: ir.Node) -> Form | None:
    if (node.domain, node.op_type) == ("com.microsoft", "QLinearConcat"):
        return Form("Concat", tuple((i, i + 1, i + 2) for i in range(2, len(node.inputs), 3)), (0, 1))
    return _FORMS.get((node.domain, node.op_type))


def _can_expand(node: ir.Node, form: Form, since: int) -> bool:
    if _integer(node, "channels_last", 0) or any(_operand(node, i) is None for i in form.result):
        return form.op_type == "Gemm" and all(_operand(node, i) is None for i in form.result)
    if form.op_type == "Softmax" and (_integer(node, "opset", since) < 13) != (since < 13):
        return False
    scales = [_operand(node, part[1]) for part in form.operands if not isinstance(part, int)]
    if any(scale is not None and scale.shape is not None and len(scale.shape) > 1 for scale in scales):
        return False
    biased = form.bias is not None and _operand(node, form.bias) is not None
    return not biased or all(array(scale) is not None for scale in scales)


class _Expansion:
    """Writes the nodes that take one node's place, in front of it."""

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self.graph = graph
        self.node = node

    def expand(self, form: Form) -> None:
        node = self.node
        inputs = [self._input(i, part) for i, part in enumerate(form.operands)]
        bias = _operand(node, form.bias) if form.bias is not None else None
        if bias is not None:
            inputs.append(self._bias(bias))
        attributes = {name: a for name, a in node.attributes.items() if name not in _NOT_THE_FLOAT_OPERATORS}
        result = self._op(form.op_type, inputs, "float", attributes)
        scale, zero = (_operand(node, i) for i in form.result)
        if scale is not None and zero is not None:
            result = self._op("QuantizeLinear", [result, self._scalar(scale), self._scalar(zero)], "quantized")
        old = node.outputs[0]
        name, result.type, result.shape = old.name, old.type, old.shape
        old.name = None
        old.replace_all_uses_with(result, replace_graph_outputs=True)
        result.name = name
        self.graph.remove(node, safe=True)

    def _input(self, place: int, part: Triple | int) -> ir.Value | None:
        if isinstance(part, int):
            return _operand(self.node, part)
        value, scale, zero = (_operand(self.node, i) for i in part)
        assert value is not None
        assert scale is not None
        axis = ir.AttrInt64("axis", self._axis(place))
        per_tensor = _size(scale) == 1 or (scale.shape is not None and len(scale.shape) == 0)
        return self._op(
            "DequantizeLinear",
            [value, self._scalar(scale), None if zero is None else self._scalar(zero)],
            f"dequantized{place}",
            {} if per_tensor else {"axis": axis},
        )

    def _axis(self, place: int) -> int:
        """Which axis several scales belong to: a left operand's rows, a right operand's columns, a kernel's filters."""
        if self.node.op_type == "QLinearConv":
            return 0
        if self.node.op_type == "QGemm" and _integer(self.node, "transB", 0):
            return 0
        return -1 if place else -2

    def _bias(self, bias: ir.Value) -> ir.Value:
        product = np.full(1, self.node.attributes["alpha"].as_float() if "alpha" in self.node.attributes else 1.0)
        for i in (1, 4):
            factor = array(_operand(self.node, i))
            assert factor is not None
            product = product * factor.reshape(-1).astype(np.float64)
        per_tensor = product.size == 1
        scale = self._constant(product.astype(np.float32).reshape(() if per_tensor else -1), "bias_scale")
        return self._op("DequantizeLinear", [bias, scale], "bias", {} if per_tensor else {"axis": ir.AttrInt64("axis", -1)})

    def _scalar(self, value: ir.Value) -> ir.Value:
        """A scale or zero point for all elements is a scalar, also where it came as a vector of one."""
        found = array(value)
        return (
            value if found is None or found.size != 1 or found.ndim == 0 else self._constant(found.reshape(()), f"{value.name}")
        )

    def _constant(self, data: np.ndarray, name: str) -> ir.Value:
        base = f"{self.node.outputs[0].name}/{name}"
        number = sum(key is not None and key.startswith(base) for key in self.graph.initializers)
        value = ir.val(f"{base}.{number}" if number else base, const_value=ir.tensor(data))
        self.graph.register_initializer(value)
        return value

    def _op(
        self, op_type: str, inputs: list[ir.Value | None], name: str, attributes: Mapping[str, ir.Attr] | None = None
    ) -> ir.Value:
        made = ir.node(op_type, inputs, attributes=dict(attributes or {}))
        made.name = made.outputs[0].name = f"{self.node.outputs[0].name}/{name}"
        self.graph.insert_before(self.node, made)
        return made.outputs[0]


def _operand(node: ir.Node, i: int) -> ir.Value | None:
    return node.inputs[i] if i < len(node.inputs) else None


def _size(value: ir.Value) -> int | None:
    found = array(value)
    return None if found is None else found.size


def _integer(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default
