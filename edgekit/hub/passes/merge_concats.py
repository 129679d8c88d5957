"""A concatenation of concatenations is made in one step, so that nothing is copied twice.

Concat(a, Concat(b, c), d)  →  Concat(a, b, c, d)      along the same axis; nothing else reads the inner one
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit.hub.edit import Editor, producer, shape


def merge_concats(node: ir.Node, edit: Editor) -> bool:
    """`node` is the outer one; the operands keep their order."""
    rank = len(shape(node.outputs[0]) or ())
    if not rank:
        return False
    parts: list[ir.Value | None] = []
    for value in node.inputs:
        inner = _inner(value, node, rank)
        parts += [value] if inner is None else inner.inputs
    if len(parts) == len(node.inputs):
        return False
    return edit.replace(node.outputs[0], edit.op("Concat", parts, {"axis": _axis(node, rank)}, before=node))


def _inner(value: ir.Value | None, node: ir.Node, rank: int) -> ir.Node | None:
    """The Concat that makes an operand for `node` alone, in the same graph and along the same axis."""
    inner = producer(value, "Concat")
    if value is None or inner is None or inner.graph is not node.graph or value.is_graph_output():
        return None
    alone = all(user is node for user, _ in value.uses())
    return inner if alone and _axis(inner, rank) == _axis(node, rank) else None


def _axis(node: ir.Node, rank: int) -> int:
    return node.attributes["axis"].as_int() % rank


RULES = {"Concat": [merge_concats]}
