"""float16, bfloat16 and float64 are carried in float32, which is what LiteRT computes in.

float32 holds every float16 and bfloat16, so that results are at least as exact as in the model's own type. It does not hold every
float64: the compiler says so in a note. Inputs and outputs keep their types. A graph that only moves such values keeps them as
they are: those kernels take every type.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from edgekit.errors import UnsupportedOperator

NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
MOVES = frozenset("Reshape Flatten Squeeze Unsqueeze Identity Transpose Slice Expand Tile Where Cast BitCast".split())


def carry_floats(model: ir.Model) -> list[str]:
    """Retype the values, in place, and convert at the inputs and outputs. Returns what a reader must know."""
    notes = []
    for dtype in NARROW:
        if any(_is(v, dtype) for node in _nodes(model.graph) if node.op_type not in MOVES for v in (*node.inputs, *node.outputs)):
            _carry(model.graph, dtype)
            if dtype == ir.DataType.DOUBLE:
                notes.append("float64 is computed in float32: LiteRT has no kernels for it")
    return notes


def _carry(graph: ir.Graph, dtype: ir.DataType) -> None:
    inputs = [v for v in graph.inputs if _is(v, dtype)]
    outputs = [i for i, v in enumerate(graph.outputs) if _is(v, dtype)]
    nodes = list(_nodes(graph))
    for node in nodes:
        if node.op_type == "BitCast" and (_is(node.inputs[0], dtype) or _is(node.outputs[0], dtype)):
            raise UnsupportedOperator(
                f"BitCast sees how {dtype.name} is stored, and LiteRT computes it in float32",
                where=f"node {node.name!r}, operator BitCast",
                fix="convert the model to float32",
            )
        _retype_attributes(node, dtype)
    for inner in (graph, *graph.subgraphs()):
        for value in [*inner.initializers.values(), *inner.inputs, *(v for node in inner for v in node.outputs)]:
            if _is(value, dtype) and value not in inputs:
                _retype(value)
    for value in inputs:
        uses = list(value.uses())
        cast = _cast(value, ir.DataType.FLOAT, f"{value.name}/float32")
        graph.insert_before(nodes[0], cast)
        for user, i in uses:
            user.replace_input_with(i, cast.outputs[0])
    for i in outputs:
        value = graph.outputs[i]
        if value in inputs:
            continue
        name, value.name = value.name or "", f"{value.name}/float32"
        cast = _cast(value, dtype, name)
        graph.append(cast)
        graph.outputs[i] = cast.outputs[0]


def _retype(value: ir.Value) -> None:
    value.type = ir.TensorType(ir.DataType.FLOAT)  # a new one: values may share the object
    if value.const_value is not None:
        value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)


def _retype_attributes(node: ir.Node, dtype: ir.DataType) -> None:
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.INT and name in ("to", "dtype", "output_dtype", "stash_type"):
            if attribute.as_int() == dtype:
                node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT)
        elif attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == dtype:
            wide = ir.tensor(attribute.as_tensor().numpy().astype(np.float32))
            node.attributes[name] = ir.AttrTensor(name, wide)


def _cast(value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
    node = ir.node("Cast", [value], attributes={"to": int(dtype)})
    out = node.outputs[0]
    out.name, out.type, out.shape = name, ir.TensorType(dtype), value.shape
    node.name = name
    return node


def _nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    """All nodes, those of subgraphs included."""
    for inner in (graph, *graph.subgraphs()):
        yield from inner


def _is(value: ir.Value | None, dtype: ir.DataType) -> bool:
    return value is not None and value.dtype == dtype
