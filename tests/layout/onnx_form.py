"""Runs a graph as ONNX: operators of the domain CHANNELS_LAST are written out as Transpose, ONNX operator, Transpose."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from edgekit.layout import CHANNELS_LAST, dims
from edgekit.layout.assign import ValueSize
from edgekit.layout.permutation import channels_last, identity, inverse, moves_data

SPATIAL_OUTPUT = "/nchw"


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The model's outputs by name, from onnxruntime without graph optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def written_out(model: ir.Model) -> onnx.ModelProto:
    """The same model in plain ONNX."""
    proto = ir.to_proto(model)
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        nodes.extend(_plain(node, model) if node.domain == CHANNELS_LAST else [node])
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


def transpose_cost(model: ir.Model) -> int:
    """What the Transposes of computed values cost, as edgekit.layout.assign counts it."""
    total = 0
    for node in model.graph:
        source = node.inputs[0] if node.op_type == "Transpose" else None
        if source is None or source.const_value is not None or not dims(source):
            continue
        shape = dims(source)
        perm = tuple(node.attributes["perm"].as_ints()) if "perm" in node.attributes else identity(len(shape))[::-1]
        if moves_data(identity(len(shape)), perm, shape):
            total += ValueSize(shape, 4).cost(identity(len(shape)), perm)
    return total


def _plain(node: onnx.NodeProto, model: ir.Model) -> list[onnx.NodeProto]:
    ranks = {v.name: len(dims(v)) for n in model.graph for v in (*n.inputs, *n.outputs) if v is not None}
    plain = onnx.NodeProto()
    plain.CopyFrom(node)
    plain.domain = ""
    moved = 1 if node.op_type == "MatMul" else 0
    source, rank = node.input[moved], ranks[node.input[moved]]
    order = (*range(rank - 2), rank - 1, rank - 2) if moved else inverse(channels_last(rank))
    plain.input[moved] = f"{node.output[0]}/from/{source}"
    nodes = [onnx.helper.make_node("Transpose", [source], [plain.input[moved]], perm=order), plain]
    if moved:
        del plain.attribute[:]
        return nodes
    for i, name in enumerate(node.output):
        plain.output[i] = name + SPATIAL_OUTPUT
        nodes.append(onnx.helper.make_node("Transpose", [plain.output[i]], [name], perm=channels_last(ranks[name])))
    return nodes
