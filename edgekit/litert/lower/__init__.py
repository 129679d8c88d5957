"""From the laid-out ONNX graph to a LiteRT graph: one small function per operator, in a table."""

from __future__ import annotations

import difflib

import numpy as np
import onnx_ir as ir

from edgekit.errors import CompileError, EdgekitError, UnsupportedOperator
from edgekit.hub.facts import unexpected
from edgekit.layout import dims
from edgekit.layout.rules.matmul import CHANNELS_LAST
from edgekit.litert.graph import Graph, Operator, Tensor
from edgekit.litert.lower import (
    bitwise,
    control,
    convolution,
    detect,
    division,
    elementwise,
    index,
    matmul,
    normalization,
    pooling,
    quantized,
    recurrent,
    reduce,
    regions,
    resize,
    sample,
    scatter,
    shape,
    slicing,
    trigonometry,
)
from edgekit.litert.lower.captures import close_over
from edgekit.litert.lower.reasons import REASONS
from edgekit.litert.lower.table import LOWERINGS, Lowering, Node, lowers

__all__ = ["LOWERINGS", "Lowering", "Node", "lower", "lowers", "unknown_operator"]

_REGISTERED = (
    bitwise, control, convolution, detect, division, elementwise, index, matmul, normalization, pooling, quantized, recurrent,
    reduce, regions, resize, sample, scatter, shape, slicing, trigonometry,
)  # fmt: skip
"""Importing these modules fills the table."""


OURS = ("", "ai.onnx", CHANNELS_LAST)
"""The domains whose operators are meant; another one's operator of the same name is another operator."""


def lower(onnx: ir.Graph) -> Graph:
    """Lower every node, in order.

    Raises:
        UnsupportedOperator: A node has no lowering, or one that does not cover its case.
        CompileError: A value has no shape or a dtype that LiteRT does not have.
    """
    tensors: dict[ir.Value, Tensor] = {}

    def tensor(value: ir.Value) -> Tensor:
        if value not in tensors:
            tensors[value] = _tensor(value)
        return tensors[value]

    graph = Graph(onnx.name or "main", [tensor(v) for v in onnx.inputs], [])
    for node in onnx:
        function = LOWERINGS.get(node.op_type) if node.domain in OURS else None
        if function is None:
            raise unknown_operator(node)
        if _is_empty(results := [tensor(v) for v in node.outputs]):
            _write_empty(graph, results)
            continue
        operands = [*node.inputs, *close_over(node)]
        inputs = [None if v is None else tensor(v) for v in operands]
        lowered, before = Node(node, inputs, results, graph), len(graph.operators)
        try:
            function(lowered)
        except EdgekitError:
            raise
        except Exception as error:
            raise unexpected(node, error) from error
        quantized.keep_quantization(lowered, graph.operators[before:])
    graph.outputs = [_output(graph, tensor(v), i) for i, v in enumerate(onnx.outputs)]
    return graph


def _is_empty(results: list[Tensor]) -> bool:
    """Whether all results are known to have no elements: then nothing has to be computed."""
    return bool(results) and all(t.is_static and 0 in t.shape for t in results)


def _write_empty(graph: Graph, results: list[Tensor]) -> None:
    for t in results:
        shape = np.array(t.shape, np.int32)
        operands: list[Tensor | None] = [
            Tensor(f"{t.name}/empty", t.shape, t.dtype, np.zeros([int(d) for d in t.shape], t.dtype)),
            Tensor(f"{t.name}/shape", shape.shape, shape.dtype, shape),
        ]
        graph.operators.append(Operator("RESHAPE", operands, [t]))


def _tensor(value: ir.Value) -> Tensor:
    name = value.name or ""
    if value.const_value is not None and not value.is_graph_input():
        data = value.const_value.numpy()
        return Tensor(name, tuple(data.shape), data.dtype, data)
    if value.shape is None or value.dtype is None:
        raise CompileError(
            f"the shape of {name!r} is not known before the model runs",
            where=_producer(value),
            fix="fix the model's input shapes with --input NAME=SHAPE; shapes that depend on data cannot be expressed in LiteRT",
        )
    try:
        dtype = np.dtype(value.dtype.numpy())
    except TypeError:
        dtype = np.dtype(object)
    if dtype.name not in "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool".split():
        raise CompileError(
            f"{name!r} has the type {value.dtype.name}, which LiteRT does not have",
            where=_producer(value),
            fix="convert the model to float32 or to an integer type that LiteRT has",
        )
    return Tensor(name, dims(value), dtype)


def _producer(value: ir.Value) -> str:
    node = value.producer()
    return f"input {value.name!r}" if node is None else f"node {node.name or value.name!r}, operator {node.op_type}"


def _output(graph: Graph, tensor: Tensor, place: int) -> Tensor:
    """A graph output has to be made by an operator, and by one output only: inputs, constants and repetitions are copied."""
    made = any(tensor in op.outputs for op in graph.operators)
    if made and tensor not in graph.outputs:
        return tensor
    copy = Tensor(f"{tensor.name}/output{place}", tensor.shape, tensor.dtype)
    target = np.array([d if isinstance(d, int) else -1 for d in tensor.shape], np.int32)
    graph.operators.append(
        Operator("RESHAPE", [tensor, Tensor(f"{copy.name}/shape", target.shape, target.dtype, target)], [copy])
    )
    return copy


def unknown_operator(node: ir.Node) -> UnsupportedOperator:
    """The error for an operator that LiteRT has no form of."""
    near = difflib.get_close_matches(node.op_type, LOWERINGS, 1)
    domain = f"{node.domain}." if node.domain else ""
    where = f"node {node.name or node.outputs[0].name!r}, operator {domain}{node.op_type}"
    if node.op_type in REASONS:
        why, instead = REASONS[node.op_type]
        return UnsupportedOperator(f"{node.op_type} cannot be lowered to LiteRT: {why}", where=where, fix=instead)
    return UnsupportedOperator(
        f"there is no lowering to LiteRT for {domain}{node.op_type}",
        where=where,
        fix="replace the operator in the model"
        + (f" (did you mean {near[0]}?)" if near else "")
        + ", or export for ONNX Runtime only",
    )
