"""What the graphs of If, Loop and Scan take from outside of them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir


def close_over(node: ir.Node) -> list[ir.Value]:
    """Make the graphs of a node self-contained, in place.

    An outer value becomes an input, the same of each graph; of a constant, each graph that uses it gets its own.

    Returns:
        The outer values, in the order of the new inputs.
    """
    graphs = _graphs(node)
    outer = {graph: dict.fromkeys(_outer_values(graph)) for graph in graphs}
    captured = dict.fromkeys(v for values in outer.values() for v in values if not _is_constant(v))
    for graph in graphs:
        for number, value in enumerate(captured):
            inner = ir.Value(name=f"{value.name}/captured{number}", shape=value.shape, type=value.type)
            graph.inputs.append(inner)
            _replace_inside(graph, value, inner)
        for number, value in enumerate(v for v in outer[graph] if _is_constant(v)):
            name = f"{value.name}/constant{number}"
            inner = ir.Value(name=name, shape=value.shape, type=value.type, const_value=value.const_value)
            graph.register_initializer(inner)
            _replace_inside(graph, value, inner)
    return list(captured)


def _outer_values(graph: ir.Graph) -> Iterator[ir.Value]:
    """The values that a graph, or one nested in it, uses and does not make."""
    nodes, parts = list(_nodes(graph)), list(_parts(graph))
    inside = {v for node in nodes for v in node.outputs}
    inside |= {v for part in parts for v in (*part.inputs, *part.initializers.values())}
    for value in (*(v for node in nodes for v in node.inputs), *(v for part in parts for v in part.outputs)):
        if value is not None and value not in inside:
            yield value


def _replace_inside(graph: ir.Graph, outer: ir.Value, inner: ir.Value) -> None:
    inside = set(_nodes(graph))
    for user, i in list(outer.uses()):
        if user in inside:
            user.replace_input_with(i, inner)
    for part in _parts(graph):
        for i, value in enumerate(part.outputs):
            if value is outer:
                part.outputs[i] = inner


def _is_constant(value: ir.Value) -> bool:
    return value.const_value is not None and not value.is_graph_input()


def _parts(graph: ir.Graph) -> Iterator[ir.Graph]:
    """A graph and those nested in it."""
    yield graph
    for node in graph:
        for inner in _graphs(node):
            yield from _parts(inner)


def _nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    for part in _parts(graph):
        yield from part


def _graphs(node: ir.Node) -> list[ir.Graph]:
    return [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
