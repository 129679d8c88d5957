"""Is the model what ONNX says that a model is? Asked once, before the first pass, so that no pass has to doubt what it reads.

1. every value that is read is an input, an initializer, or made by a node of this graph or of one around it
2. nodes are in an order in which they can run (they are sorted if they are not; a cycle is refused)
3. every ai.onnx node has the inputs, outputs and attributes of its operator (`edgekit.hub.schemas`)
4. the branches of an If and the bodies of Loop and Scan have the inputs and outputs that the node needs
5. inputs have types; inputs and initializers have shapes that exist: no negative dimension, none beyond int32, as LiteRT counts
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit.errors import SourceError
from edgekit.hub import schemas
from edgekit.hub.edit import graphs
from edgekit.hub.facts import does_not_fit

MOST_ELEMENTS = 1 << 40
LARGEST_DIMENSION = (1 << 31) - 1  # LiteRT counts in int32


def validate(model: ir.Model, opset: int) -> None:
    """Check the above; nodes that are not in order are sorted.

    Args:
        model: Names given, functions inlined.
        opset: The version of ai.onnx that the nodes are written in.

    Raises:
        SourceError: Names the node or value that is not right.
    """
    found = graphs(model)
    for graph in found:
        _check_interface(graph)
    _check_values(found)
    for graph in found:
        for node in graph:
            if node.domain == "":
                schemas.check_form(node, opset)
                if node.op_type in _BODIES:
                    _BODIES[node.op_type](node, opset)


def _check_interface(graph: ir.Graph) -> None:
    for value in graph.inputs:
        if isinstance(value.type, ir.TensorType) and value.dtype == ir.DataType.UNDEFINED:
            raise SourceError(
                f"the input {value.name!r} has no type", where=f"graph {graph.name!r}", fix="export the model again"
            )
    for value in (*graph.inputs, *graph.initializers.values()):
        if value.shape is None:
            continue
        elements = 1
        for dim in value.shape.dims:
            if isinstance(dim, int) and not -1 <= dim <= LARGEST_DIMENSION:
                raise SourceError(
                    f"{value.name!r} has a dimension of size {dim}",
                    where=f"value {value.name!r}",
                    fix="export the model again; a dimension is a positive number or a name",
                )
            elements *= dim if isinstance(dim, int) else 1
        if elements > MOST_ELEMENTS:
            raise SourceError(
                f"{value.name!r} has {elements} elements",
                where=f"value {value.name!r}",
                fix="give it a shape that fits in memory",
            )


def _check_values(found: list[ir.Graph]) -> None:
    """1 and 2, outer graphs before inner ones."""
    visible: set[ir.Value] = set()
    for graph in found:
        visible.update(graph.inputs)
        visible.update(graph.initializers.values())
        visible.update(output for node in graph for output in node.outputs)
    for graph in found:
        for output in graph.outputs:
            if output not in visible:
                raise _unknown(output, f"output {output.name!r}")
        made: set[ir.Value] = set()
        ordered = True
        for node in graph:
            for value in node.inputs:
                if value is not None and value not in visible:
                    raise _unknown(value, f"node {node.name!r}")
                ordered = ordered and (value is None or value.producer() is None or value.graph is not graph or value in made)
            made.update(node.outputs)
        if not ordered or (graph is found[0] and len(found) > 1):  # inner graphs read values of outer ones
            _sort(graph)


def _sort(graph: ir.Graph) -> None:
    try:
        graph.sort()
    except ValueError as error:
        raise SourceError(
            "the nodes of the model form a cycle: each waits for the result of another",
            where=f"graph {graph.name!r}",
            fix="export the model again; loops are written with the operators Loop and Scan",
        ) from error


def _unknown(value: ir.Value, where: str) -> SourceError:
    return SourceError(
        f"{value.name!r} is read, and nothing makes it: no node, input or weight of that name is in scope",
        where=where,
        fix="export the model again, or check the file that has cut it out of a larger model",
    )


def _check_if(node: ir.Node, opset: int) -> None:
    for name in ("then_branch", "else_branch"):
        _require_places(node, name, None, len(node.outputs))


def _check_loop(node: ir.Node, opset: int) -> None:
    body = node.attributes["body"].as_graph()
    carried = max(len(node.inputs) - 2, 0)
    scanned = len(body.outputs) - 1 - carried
    if scanned < 0 or len(node.outputs) > carried + scanned:
        raise does_not_fit(node, f"its body has {len(body.outputs)} outputs for {carried} carried values")
    _require_places(node, "body", 2 + carried, len(body.outputs))


def _check_scan(node: ir.Node, opset: int) -> None:
    body = node.attributes["body"].as_graph()
    number = node.attributes["num_scan_inputs"].as_int()
    states = len(node.inputs) - number
    if not 1 <= number <= len(node.inputs):
        raise does_not_fit(node, f"its num_scan_inputs is {number}, of {len(node.inputs)} inputs")
    lengths = 1 if opset == 8 else 0  # an input for the lengths of sequences, which that opset had
    if len(body.inputs) != len(node.inputs) - lengths or len(body.outputs) < max(states - 1, len(node.outputs)):
        raise does_not_fit(node, f"its body has {len(body.inputs)} inputs and {len(body.outputs)} outputs")


_BODIES = {"If": _check_if, "Loop": _check_loop, "Scan": _check_scan}


def _require_places(node: ir.Node, name: str, inputs: int | None, outputs: int) -> None:
    graph = node.attributes[name].as_graph()
    if (inputs is not None and len(graph.inputs) != inputs) or len(graph.outputs) != outputs:
        have = f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs"
        wanted = f"{len(graph.inputs) if inputs is None else inputs} and {outputs}"
        raise does_not_fit(node, f"its graph {name!r} has {have}, not {wanted}")
