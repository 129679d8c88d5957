"""Reads `.onnx`, weights left where they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.contract import TensorSpec
from edgekit.inspect.inspection import Inspection, count_operators, count_weights, name_precision

if TYPE_CHECKING:
    import onnx


def read(path: Path) -> Inspection:
    """Inspect an ONNX file; external weights are counted, not read."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    if not model.graph.node and not model.graph.output:
        raise ValueError("it holds no graph")
    graphs = list(_graphs(model.graph))
    nodes = [node for graph in graphs for node in graph.node] + [node for f in model.functions for node in f.node]
    tensors = [tensor for graph in graphs for tensor in graph.initializer]
    tensors += [a.t for node in nodes if node.op_type == "Constant" for a in node.attribute if a.name == "value"]
    weights = count_weights(_weight(tensor) for tensor in tensors)
    operators = count_operators(
        f"{node.domain}:{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type for node in nodes
    )
    initialized = {tensor.name for tensor in model.graph.initializer}
    external = {e.value for tensor in tensors for e in tensor.external_data if e.key == "location"}
    notes = [f"opset {i.version}" + (f" of {i.domain}" if i.domain else "") for i in model.opset_import]
    sizes = {name: _size(path.parent / name) for name in sorted(external)}
    notes += [f"weights in {name}" + (", which is missing" if size is None else "") for name, size in sizes.items()]
    return Inspection(
        file=path.name,
        format="onnx",
        bytes=path.stat().st_size + sum(size or 0 for size in sizes.values()),
        inputs=tuple(_spec(value) for value in model.graph.input if value.name not in initialized),
        outputs=tuple(_spec(value) for value in model.graph.output),
        operators=operators,
        weights=weights,
        precision=name_precision(weights, activations=_activations(nodes, tensors), four_bits=_four_bits(nodes)),
        notes=tuple(notes),
    )


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _graphs(inner)


def _activations(nodes: Sequence[onnx.NodeProto], tensors: Sequence[onnx.TensorProto]) -> str | None:
    """What is computed on: integers of fixed scales, or of scales that are found in each run."""
    sixteen = {tensor.name for tensor in tensors if tensor.data_type in (tensor.INT16, tensor.UINT16)}
    steps = [node for node in nodes if node.op_type == "QuantizeLinear" or node.op_type.startswith("QLinear")]
    if steps:
        wide = [node for node in steps if not sixteen.isdisjoint(node.input)]
        return "int16" if 2 * len(wide) > len(steps) else "int8"
    return "dynamic" if any(is_dynamic(node.op_type) for node in nodes) else None


def is_dynamic(kind: str) -> bool:
    """Whether an operator quantizes what it is given in each run."""
    return kind.startswith("Dynamic") or "Integer" in kind or kind == "QAttention"


def _four_bits(nodes: Sequence[onnx.NodeProto]) -> bool | None:
    """MatMulNBits keeps two of its weights in each byte."""
    bits = [a.i for node in nodes if node.op_type == "MatMulNBits" for a in node.attribute if a.name == "bits"]
    return 4 in bits if bits else None


def _weight(tensor: onnx.TensorProto) -> tuple[str, int, int]:
    import onnx

    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    elements = math.prod(tensor.dims)
    size = (elements + 1) // 2 if str(dtype) in ("int4", "uint4") else elements * dtype.itemsize
    return ("string" if dtype.hasobject else str(dtype)), elements, size


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    import onnx

    kind = value.type.tensor_type
    shape = tuple(
        d.dim_param or "?" if d.HasField("dim_param") or not d.HasField("dim_value") else d.dim_value for d in kind.shape.dim
    )
    if not kind.elem_type:
        return TensorSpec(value.name, shape, value.type.WhichOneof("value") or "unknown")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    return TensorSpec(value.name, shape, "string" if dtype.hasobject else str(dtype))


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
