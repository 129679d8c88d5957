"""Quantized activations as onnxruntime computes fastest on every processor: uint8, beside int8 weights.

    QuantizeLinear(x, s, z: int8) → DequantizeLinear …   →   QuantizeLinear(x, s, z + 128: uint8) → DequantizeLinear …

The same numbers. On x86 onnxruntime does this itself when it loads a model, but not where two nodes read a value; what is then
int8 on one side and uint8 on the other computes in float. Only values that nothing but DequantizeLinear reads, with constant
zero points.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx


def with_unsigned_activations(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, changed in place, with uint8 where it has int8 activations."""
    import onnx
    from onnx import numpy_helper

    graph = model.graph
    signed = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8}
    kept = {value.name for value in graph.output} | set(_captured(graph))
    changed = {
        name: nodes for name, nodes in _quantized(graph).items() if name not in kept and all(_zero(n) in signed for n in nodes)
    }
    for name, tensor in signed.items():
        readers = [node for nodes in changed.values() for node in nodes if _zero(node) == name]
        if readers:
            zero = numpy_helper.to_array(tensor).astype(np.int16) + 128
            graph.initializer.append(numpy_helper.from_array(zero.astype(np.uint8), f"{name}/unsigned"))
        for node in readers:
            node.input[2] = f"{name}/unsigned"
    for value in graph.value_info:
        if value.name in changed:
            value.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    used = kept | {name for node in graph.node for name in node.input}
    for tensor in [tensor for name, tensor in signed.items() if name not in used]:
        graph.initializer.remove(tensor)
    return model


def _quantized(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """By name, what QuantizeLinear makes of no constant and only DequantizeLinear reads: all these nodes."""
    constants = {tensor.name for tensor in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    found = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
            after = readers[node.output[0]]
            if after and all(reader.op_type == "DequantizeLinear" for reader in after):
                found[node.output[0]] = [node, *after]
    return found


def _zero(node: onnx.NodeProto) -> str:
    return node.input[2] if len(node.input) > 2 else ""


def _captured(graph: onnx.GraphProto) -> Iterator[str]:
    """The names that the bodies of a graph's nodes read."""
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from (name for inner in body.node for name in inner.input)
                yield from _captured(body)
