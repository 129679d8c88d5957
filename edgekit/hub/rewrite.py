"""Apply rewriting rules until none applies, looking again only where something changed.

A rule is a function `rule(node, edit) -> bool` that belongs to the operators it can start from. It looks at a node and its
neighbours, edits through the `Editor`, and says whether it did. After an edit the nodes around it are looked at again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

import onnx_ir as ir

from edgekit.errors import EdgekitError
from edgekit.hub.edit import Editor, graphs
from edgekit.hub.facts import unexpected

Rule = Callable[[ir.Node, Editor], bool]
Rules = Mapping[str, Sequence[Rule]]  # operator → rules; "*" for every operator, tried first

_MANY = 256  # readers: an edit of one of so many opens nothing for the others, and looking at all each time is quadratic
_EDITS_PER_NODE = 40  # far above what rules that make progress need: two rules that undo each other end here


def combine(*tables: Rules) -> dict[str, list[Rule]]:
    """Several tables as one, in which rules of earlier tables come first."""
    combined: dict[str, list[Rule]] = {}
    for table in tables:
        for op_type, rules in table.items():
            combined.setdefault(op_type, []).extend(rules)
    return combined


def rewrite(edit: Editor, rules: Rules) -> bool:
    """Look at every node of every graph once, and again at those around an edit.

    Returns:
        Whether anything changed. Then a rule that looks further than one node's neighbours may apply now: call it again.
    """
    everywhere = tuple(rules.get("*", ()))
    table = {op_type: (*everywhere, *found) for op_type, found in rules.items() if op_type != "*"}
    edit.touched.clear()
    nodes = [node for graph in graphs(edit.model) for node in graph]
    waiting = deque(nodes)
    queued = set(nodes)
    budget = _EDITS_PER_NODE * (len(nodes) + 10)
    changed = False
    while waiting and budget:
        node = waiting.popleft()
        queued.discard(node)
        if node.domain != "":
            continue
        for rule in table.get(node.op_type, everywhere):
            if node.graph is None:
                break
            try:
                applied = rule(node, edit)
            except EdgekitError:
                raise
            except Exception as error:
                raise unexpected(node, error) from error
            if applied:
                changed = True
                budget -= 1
                _again(_surroundings(edit), waiting, queued)
    return changed


def _surroundings(edit: Editor) -> Iterable[ir.Node]:
    touched, edit.touched = edit.touched, []
    for node in touched:
        yield node
        for output in node.outputs:
            uses = output.uses()
            if len(uses) <= _MANY:
                yield from (use.node for use in uses)


def _again(nodes: Iterable[ir.Node], waiting: deque[ir.Node], queued: set[ir.Node]) -> None:
    for node in nodes:
        if node.graph is not None and node not in queued:
            queued.add(node)
            waiting.append(node)
