"""Reads `.ort`, ONNX Runtime's flatbuffer, through the schema classes in onnxruntime's own tools."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from edgekit.contract import TensorSpec
from edgekit.inspect.inspection import Inspection, count_operators, count_weights, name_precision
from edgekit.inspect.onnx_file import is_dynamic
from edgekit.ort.tools import ort_format_model


def read(path: Path) -> Inspection:
    """Inspect an ORT file."""
    ort_format_model()  # it puts ort_flatbuffers_py on sys.path
    from ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

    data = path.read_bytes()
    if data[4:8] != b"ORTM":
        raise ValueError("it lacks the identifier ORTM")
    session = InferenceSession.GetRootAs(data, 0)
    graph = session.Model().Graph()
    graphs = list(_graphs(graph))
    nodes = [g.Nodes(i) for g in graphs for i in range(g.NodesLength())]
    operators = count_operators(_name(node) for node in nodes)
    weights = count_weights(_weight(g.Initializers(i)) for g in graphs for i in range(g.InitializersLength()))
    values = {_text(graph.NodeArgs(i).Name()): graph.NodeArgs(i) for i in range(graph.NodeArgsLength())}
    initialized = {_text(graph.Initializers(i).Name()) for i in range(graph.InitializersLength())}
    inputs = [_text(graph.Inputs(i)) for i in range(graph.InputsLength())]
    outputs = [_text(graph.Outputs(i)) for i in range(graph.OutputsLength())]
    return Inspection(
        file=path.name,
        format="ort",
        bytes=len(data),
        inputs=tuple(_spec(name, values[name]) for name in inputs if name not in initialized),
        outputs=tuple(_spec(name, values[name]) for name in outputs),
        operators=operators,
        weights=weights,
        precision=name_precision(weights, activations=_activations(operators)),
        notes=(f"ORT format version {_text(session.OrtVersion())}",),
    )


def _activations(operators: Iterable[str]) -> str | None:
    kinds = [name.rpartition(":")[2] for name in operators]
    if any(kind == "QuantizeLinear" or kind.startswith(("QLinear", "QGemm")) for kind in kinds):
        return "int8"
    return "dynamic" if any(map(is_dynamic, kinds)) else None


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for i in range(graph.NodesLength()):
        node = graph.Nodes(i)
        for j in range(node.AttributesLength()):
            if node.Attributes(j).G() is not None:
                yield from _graphs(node.Attributes(j).G())


def _name(node: Any) -> str:
    domain = _text(node.Domain())
    return f"{domain}:{_text(node.OpType())}" if domain not in ("", "ai.onnx") else _text(node.OpType())


def _weight(tensor: Any) -> tuple[str, int, int]:
    import numpy as np

    dtype = _dtype(tensor.DataType())
    elements = math.prod(tensor.Dims(i) for i in range(tensor.DimsLength()))
    size = tensor.RawDataLength() or (0 if dtype == "string" else elements * np.dtype(dtype).itemsize)
    return dtype, elements, size


def _spec(name: str, value: Any) -> TensorSpec:
    from ort_flatbuffers_py.fbs.TensorTypeAndShape import TensorTypeAndShape

    kind = TensorTypeAndShape()
    table = value.Type().Value()
    kind.Init(table.Bytes, table.Pos)
    shape = kind.Shape()
    dims = (shape.Dim(i).Value() for i in range(shape.DimLength())) if shape is not None else ()
    return TensorSpec(
        name, tuple(int(d.DimValue()) if d.DimType() == 1 else _text(d.DimParam()) or "?" for d in dims), _dtype(kind.ElemType())
    )


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode()


@cache
def _dtype(code: int) -> str:
    from ort_flatbuffers_py.fbs.TensorDataType import TensorDataType

    names = {v: k.lower() for k, v in vars(TensorDataType).items() if not k.startswith("_")}
    return {"float": "float32", "double": "float64"}.get(names[code], names[code])
