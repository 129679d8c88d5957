"""Reads `.tflite` through the flatbuffer schema that ai-edge-litert ships."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from edgekit.contract import TensorSpec
from edgekit.inspect.inspection import Inspection, count_operators, count_weights, name_precision


def read(path: Path) -> Inspection:
    """Inspect a TFLite file: all subgraphs' operators; inputs and outputs by their names in the first signature, if any."""
    from ai_edge_litert import schema_py_generated as schema

    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise ValueError("it lacks the identifier TFL3")
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    graphs = model.subgraphs
    weights = count_weights(_weight(t) for g in graphs for t in g.tensors if _has_data(model, t))
    return Inspection(
        file=path.name,
        format="tflite",
        bytes=len(data),
        inputs=_specs(model, "inputs"),
        outputs=_specs(model, "outputs"),
        operators=count_operators(operator_name(model, o) for g in graphs for o in g.operators),
        weights=weights,
        precision=name_precision(weights, activations=_activations(model)),
        notes=(f"schema version {model.version}", f"{len(graphs)} subgraph{'s' if len(graphs) > 1 else ''}"),
    )


def _specs(model: Any, side: str) -> tuple[TensorSpec, ...]:
    graph = model.subgraphs[0]
    names = {}
    if model.signatureDefs:
        names = {entry.tensorIndex: _text(entry.name) for entry in getattr(model.signatureDefs[0], side)}
    return tuple(_spec(graph.tensors[i], names.get(i)) for i in getattr(graph, side))


def _spec(tensor: Any, name: str | None) -> TensorSpec:
    shape = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    dims = tuple("?" if d < 0 else int(d) for d in (shape if shape is not None else ()))
    return TensorSpec(name or _text(tensor.name), dims, _dtype(tensor.type))


def operator_name(model: Any, operator: Any) -> str:
    """What an operator of a `schema.ModelT` is called; `CUSTOM:` and its own name where it is a custom one."""
    code = model.operatorCodes[operator.opcodeIndex]
    # Codes above 127 live in builtinCode only; files older than that field have them in deprecatedBuiltinCode.
    name = _operator_names()[max(code.builtinCode, code.deprecatedBuiltinCode)]
    return f"CUSTOM:{_text(code.customCode)}" if name == "CUSTOM" else name


def _has_data(model: Any, tensor: Any) -> bool:
    buffer = model.buffers[tensor.buffer]
    return tensor.buffer > 0 and ((buffer.data is not None and len(buffer.data) > 0) or (buffer.offset or 0) > 1)


def _activations(model: Any) -> str | None:
    """What is computed on: most of the integers with a fixed scale, or floats that are made integers where weights are."""
    fixed = Counter(
        _dtype(tensor.type).removeprefix("u") for g in model.subgraphs for tensor in g.tensors if _is_activation(model, tensor)
    )
    if fixed:
        return max(("int8", "int16"), key=lambda dtype: fixed[dtype])
    return "dynamic" if any(_is_dynamic(model, g, o) for g in model.subgraphs for o in g.operators) else None


def _is_activation(model: Any, tensor: Any) -> bool:
    quantization = tensor.quantization
    scaled = quantization is not None and quantization.scale is not None and len(quantization.scale) > 0
    return scaled and _dtype(tensor.type) in ("int8", "uint8", "int16") and not _has_data(model, tensor)


def _is_dynamic(model: Any, graph: Any, operator: Any) -> bool:
    """Whether it multiplies a float operand by integer weights."""
    if operator_name(model, operator) not in _PRODUCTS:
        return False
    tensors = [graph.tensors[i] for i in operator.inputs if i >= 0]
    return _dtype(tensors[0].type) == "float32" and any(
        _has_data(model, tensor) and _dtype(tensor.type) in ("int8", "uint8", "int4") for tensor in tensors
    )


def _weight(tensor: Any) -> tuple[str, int, int]:
    dtype = _dtype(tensor.type)
    elements = math.prod(int(d) for d in tensor.shape) if tensor.shape is not None else 1
    return dtype, elements, math.ceil(elements * _BITS.get(dtype, 8) / 8)


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name or "")


def _dtype(code: int) -> str:
    return _dtype_names()[code]


@cache
def _dtype_names() -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {v: k.lower() for k, v in vars(schema.TensorType).items() if not k.startswith("_")}


@cache
def _operator_names() -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}


_PRODUCTS = frozenset(
    "BATCH_MATMUL BIDIRECTIONAL_SEQUENCE_LSTM CONV_2D CONV_3D DEPTHWISE_CONV_2D FULLY_CONNECTED RNN SVDF TRANSPOSE_CONV "
    "UNIDIRECTIONAL_SEQUENCE_LSTM".split()
)

_BITS = {
    "float64": 64,
    "int64": 64,
    "uint64": 64,
    "float32": 32,
    "int32": 32,
    "uint32": 32,
    "float16": 16,
    "int16": 16,
    "int4": 4,
}
