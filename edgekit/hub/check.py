"""What must be true of a hub graph. Used by the tests, and by whoever writes a pass."""

from __future__ import annotations

import onnx_ir as ir

from edgekit.errors import SourceError
from edgekit.hub import OPSET
from edgekit.hub.edit import graphs

_GONE = frozenset(("Constant", "Dropout", "CastLike", "Upsample", "GlobalAveragePool", "GlobalMaxPool", "Flatten"))


def check(model: ir.Model) -> None:
    """Raise where a model breaks the dialect of docs/hub.md.

    Raises:
        SourceError: Names the first value or node that breaks it.
    """
    _require(
        model.opset_imports.get("", 0) >= OPSET, f"the opset is {model.opset_imports.get('')}, below {OPSET}", "opset_import"
    )
    _require(not model.functions, "a model-local function is left", "functions")
    names: set[str] = set()
    nodes = [node.name for graph in graphs(model) for node in graph]
    _require(len(set(nodes)) == len(nodes), "two nodes have the same name", "nodes")
    for graph in graphs(model):
        _check_graph(graph, names, graph is model.graph)
    for value in model.graph.outputs:
        _require(_is_known(value), "an output has no shape or dtype", value.name)


def holes(model: ir.Model) -> list[str]:
    """Names of values whose dtype or rank is not known: outputs of operators of other domains, mostly."""
    return [
        output.name or ""
        for graph in graphs(model)
        for node in graph
        for output in node.outputs
        if (output.uses() or output.is_graph_output()) and not _is_known(output)
    ]


def _is_known(value: ir.Value) -> bool:
    """Whether the type says all that it can: a sequence or an optional has no shape of its own."""
    return value.type is not None and (not isinstance(value.type, ir.TensorType) or value.shape is not None)


def _check_graph(graph: ir.Graph, names: set[str], is_main: bool) -> None:
    defined = {*graph.inputs, *graph.initializers.values()}
    for value in graph.inputs:
        _unique(value, names)
        _require(not is_main or not value.is_initializer(), "an initializer is a graph input", value.name)
    for value in graph.initializers.values():
        _unique(value, names)
        _require(bool(value.uses()) or value.is_graph_output(), "an initializer is not used", value.name)
    for node in graph:
        where = node.name
        _require(node.domain != "" or node.op_type not in _GONE, f"{node.op_type} is not in the dialect", where)
        if node.op_type == "Identity" and node.domain == "":
            _require(node.outputs[0].is_graph_output(), "an Identity that names no output", where)
        needed = any(output.uses() or output.is_graph_output() for output in node.outputs)
        _require(needed or not node.outputs, "a node is not used", where)
        for operand in node.inputs:
            inside = operand is None or operand.graph is not graph or operand in defined
            _require(inside, f"{operand.name if operand else ''} is read before it is made", where)
        for output in node.outputs:
            _unique(output, names)
        defined.update(node.outputs)


def _unique(value: ir.Value, names: set[str]) -> None:
    _require(bool(value.name), "a value has no name", repr(value))
    _require(value.name not in names, "a name is used twice", value.name)
    names.add(value.name or "")


def _require(condition: bool, what: str, where: str | None) -> None:
    if not condition:
        raise SourceError(f"not a hub graph: {what}", where=where, fix="this is a defect of edgekit: please report the model")
