"""Large weights go around tf2onnx instead of through it.

    TensorFlow   Placeholder ─► Conv2D          Const ─► MatMul
    tf2onnx      graph input ─► Conv            graph input ─► MatMul
    after        initializer ─► Conv            initializer ─► MatMul

On the way to an ONNX graph, TensorFlow and tf2onnx copy each constant dozens of times and keep most of the copies: ResNet50's
100 MB take 6 GB. What a convolution or a product multiplies with is a matter of its shape alone until the hub folds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir

WEIGHTS = {"BatchMatMulV2": 1, "Conv2D": 1, "Conv3D": 1, "DepthwiseConv2dNative": 1, "Einsum": 1, "MatMul": 1}
"""The operand of an operator of TensorFlow that may be taken out."""
SMALLEST = 1 << 16
"""Bytes from which on it is worth it."""


def is_large(array: Any) -> bool:
    """Whether a variable or an array has float32 numbers in that number."""
    return str(getattr(array.dtype, "name", array.dtype)) == "float32" and 4 * int(np.prod(array.shape)) >= SMALLEST


def take_weights_out(tensorflow: Any, graph: Any, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leave in a GraphDef no large weights, in place.

    Args:
        given: The values of placeholders. One that other operators see as well becomes a constant.

    Returns:
        The values of the placeholders that take the place of weights, by the names of the tensors.
    """
    nodes = {node.name: node for node in graph.node}
    elsewhere: set[str] = set()
    weights: set[str] = set()
    for node in graph.node:
        for i, name in enumerate(node.input):
            source = _behind_identities(nodes, name)
            if node.op != "Identity" and source is not None:
                (weights if WEIGHTS.get(node.op) == i else elsewhere).add(source.name)
    taken = {}
    for node in graph.node:
        if node.name in given and node.op == "Placeholder":
            if node.name in weights - elsewhere:
                taken[f"{node.name}:0"] = given[node.name]
            else:
                _make_constant(tensorflow, node, given[node.name])
        elif node.op == "Const" and node.name in weights - elsewhere:
            array = tensorflow.make_ndarray(node.attr["value"].tensor)
            if is_large(array):
                taken[f"{node.name}:0"] = array
                _make_placeholder(tensorflow, node, array)
    return taken


def put_weights_back(model: onnx_ir.Model, taken: Mapping[str, np.ndarray]) -> None:
    """Make initializers of those inputs of an ONNX graph, in place, each named after the first value made with it."""
    import onnx_ir

    graph = model.graph
    for value in list(graph.inputs):
        if value.name is None or value.name not in taken:
            continue
        graph.inputs.remove(value)
        uses = list(value.uses())
        if uses:
            array = taken[value.name]
            value.name = f"{uses[0].node.outputs[0].name}/{uses[0].idx}"
            value.const_value = onnx_ir.tensor(array, name=value.name)
            graph.register_initializer(value)


def _behind_identities(nodes: Mapping[str, Any], name: str) -> Any:
    node = nodes.get(name.removesuffix(":0"))
    while node is not None and node.op == "Identity":
        node = nodes.get(node.input[0].removesuffix(":0"))
    return node


def _make_constant(tensorflow: Any, node: Any, value: np.ndarray) -> None:
    dtype = node.attr["dtype"].type
    node.op = "Const"
    node.attr.clear()
    node.attr["dtype"].type = dtype
    node.attr["value"].tensor.CopyFrom(tensorflow.make_tensor_proto(value))


def _make_placeholder(tensorflow: Any, node: Any, value: np.ndarray) -> None:
    dtype = node.attr["dtype"].type
    node.op = "Placeholder"
    node.attr.clear()
    node.attr["dtype"].type = dtype
    node.attr["shape"].shape.CopyFrom(tensorflow.TensorShape(value.shape).as_proto())
