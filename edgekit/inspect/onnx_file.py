"""Reads `.onnx`, weights left where they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
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
        precision=name_precision(weights, quantized_activations="QuantizeLinear" in operators),
        notes=tuple(notes),
    )


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _graphs(inner)


def _weight(tensor: onnx.TensorProto) -> tuple[str, int, int]:
    import onnx

    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    elements = math.prod(tensor.dims)
    return ("string" if dtype.hasobject else str(dtype)), elements, elements * dtype.itemsize


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
