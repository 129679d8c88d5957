"""From the hub graph to the bytes of an ONNX file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.errors import ArtifactError
from edgekit.ort.session import LARGEST_MODEL

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir


def to_proto(hub: ir.Model) -> onnx.ModelProto:
    """A copy of the hub as a protocol buffer, weights inside, without the exporter's notes.

    Raises:
        ArtifactError: The weights do not fit into an ONNX file.
    """
    import onnx_ir as ir

    graphs = [hub.graph, *hub.graph.subgraphs()]
    size = sum(v.const_value.nbytes for g in graphs for v in g.initializers.values() if v.const_value is not None)
    if size > LARGEST_MODEL:
        raise ArtifactError(
            f"the weights take {size / 2**30:.1f} GiB, an ONNX file holds at most 2 GiB",
            where=hub.graph.name or None,
            fix="export a smaller model; edgekit does not write ONNX models with external data",
        )
    proto = ir.to_proto(hub)
    for tensor in proto.graph.initializer:
        weight = hub.graph.initializers[tensor.name].const_value
        if tensor.data_location == tensor.EXTERNAL and weight is not None:
            tensor.CopyFrom(ir.to_proto(ir.Tensor(weight.numpy(), name=tensor.name)))
    return clean(proto)


def clean(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Take out what does not change a result: exporters' stack traces and paths, shapes of weights, opsets that no node uses."""
    used = {""} | {function.domain for function in proto.functions}
    for function in proto.functions:
        used |= {node.domain for node in function.node}
    _clean_graph(proto.graph, used)
    kept = [opset for opset in proto.opset_import if ("" if opset.domain == "ai.onnx" else opset.domain) in used]
    del proto.opset_import[:]
    proto.opset_import.extend(sorted(kept, key=lambda opset: opset.domain))
    proto.doc_string = ""
    proto.producer_name = "edgekit"
    proto.producer_version = ""
    del proto.metadata_props[:]
    return proto


def name_new_constants(proto: onnx.ModelProto, before: onnx.ModelProto) -> None:
    """Gives the weights that onnxruntime added to `before` names of edgekit's.

    Its own names (`gemm_input_shape`, …) are the ones that it makes again when it optimizes the file at load, and then it fails:
    "Attempt to replace the existing tensor".
    """
    known = {tensor.name for tensor in before.graph.initializer} | {output.name for output in proto.graph.output}
    names: dict[str, str] = {}
    for tensor in proto.graph.initializer:
        if tensor.name not in known:
            tensor.name = names.setdefault(tensor.name, f"edgekit_{tensor.name}")
    _rename_inputs(proto.graph, names)


def _rename_inputs(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
        for attribute in node.attribute:
            for subgraph in [attribute.g, *attribute.graphs] if attribute.HasField("g") or attribute.graphs else []:
                _rename_inputs(subgraph, names)


def _clean_graph(graph: onnx.GraphProto, used: set[str]) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.doc_string = ""
        del value.metadata_props[:]
    for tensor in graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    weights = {tensor.name for tensor in graph.initializer}  # the quantizer changes their shapes: a declared one would contradict
    ordered = sorted((v for v in graph.value_info if v.name not in weights), key=lambda value: value.name)
    del graph.value_info[:]
    graph.value_info.extend(ordered)
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
        used.add("" if node.domain == "ai.onnx" else node.domain)
        for attribute in node.attribute:
            for subgraph in [attribute.g, *attribute.graphs] if attribute.HasField("g") or attribute.graphs else []:
                _clean_graph(subgraph, used)
