"""Put the result in order: nodes sorted, equal constants and equal computations shared, nothing unused.

1. nodes are topologically sorted in every graph
2. initializers with equal dtype, shape and bytes become one (the first keeps its name)
3. nodes with the same operator, inputs and attributes become one; random operators and nodes with graphs do not
4. nodes and initializers that no output needs are removed
5. node names are unique
6. opset imports name only domains that are used
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable

import numpy as np
import onnx_ir as ir

from edgekit.hub.edit import Editor, graphs, subgraphs

_RANDOM = frozenset("RandomNormal RandomNormalLike RandomUniform RandomUniformLike Multinomial Bernoulli Dropout".split())
_SAMPLED = 32  # numbers


def finish(edit: Editor) -> bool:
    """Do all of the above, in place.

    Returns:
        Whether computations were shared (3), which may let other passes go on.
    """
    if not _is_sorted(edit.model.graph, set()):
        edit.model.graph.sort()  # and the graphs in it
    _share_constants(edit)
    shared = _share_computations(edit)
    _remove_unused(edit)
    _name_nodes(edit.model)
    _tidy_imports(edit.model)
    return shared


def _is_sorted(graph: ir.Graph, before: set[ir.Node]) -> bool:
    """Whether every node comes after what it reads, in the graphs of its attributes as well; sorting takes five times as long."""
    for node in graph:
        if any(value is not None and (maker := value.producer()) is not None and maker not in before for value in node.inputs):
            return False
        if not all(_is_sorted(inner, before) for inner in subgraphs(node)):
            return False
        before.add(node)
    return True


def _share_constants(edit: Editor) -> None:
    """Compare what cannot be told apart by type and shape, by the first numbers, by a checksum: so few weights are read."""
    graph = edit.model.graph
    groups = [[value for value in graph.initializers.values() if value.const_value is not None and not value.is_graph_output()]]
    for key in (_kind, _sample, _checksum):
        groups = [alike for group in groups for alike in _groups(group, key)]
    for group in groups:
        _share(group, graph)


def _groups(values: list[ir.Value], key: Callable[[ir.Value], Hashable]) -> list[list[ir.Value]]:
    """Those that have the same key, where several do; strings have none."""
    groups: dict[Hashable, list[ir.Value]] = {}
    for value in values:
        groups.setdefault(key(value), []).append(value)
    return [group for found, group in groups.items() if found is not None and len(group) > 1]


def _kind(value: ir.Value) -> Hashable:
    tensor = value.const_value
    assert tensor is not None
    return None if tensor.dtype == ir.DataType.STRING else (tensor.dtype, tuple(tensor.shape.numpy()))


def _sample(value: ir.Value) -> Hashable:
    assert value.const_value is not None
    return value.const_value.numpy().flat[:_SAMPLED].tobytes()


def _checksum(value: ir.Value) -> Hashable:
    return zlib.crc32(_content(value).data)


def _share(group: list[ir.Value], graph: ir.Graph) -> None:
    kept: list[ir.Value] = []
    for value in group:
        content = _content(value)
        first = next((other for other in kept if np.array_equal(_content(other), content)), None)
        if first is None:
            kept.append(value)
            continue
        for user, index in value.uses():
            user.replace_input_with(index, first)
        graph.initializers.pop(value.name or "")


def _content(value: ir.Value) -> np.ndarray:
    """The bytes of a constant, as a view where it has them in memory."""
    assert value.const_value is not None
    return np.ascontiguousarray(value.const_value.numpy()).reshape(-1).view(np.uint8)


def _share_computations(edit: Editor) -> bool:
    changed = False
    for graph in graphs(edit.model):
        seen: dict[tuple[object, ...], ir.Node] = {}
        for node in list(graph):
            if node.op_type in _RANDOM or any(subgraphs(node)) or node.op_type == "Identity":
                continue
            key = (node.domain, node.op_type, *map(id, node.inputs), len(node.outputs), *_attributes(node))
            first = seen.setdefault(key, node)
            if first is not node and not any(output.is_graph_output() for output in node.outputs):
                for old, new in zip(list(node.outputs), first.outputs, strict=True):
                    edit.replace(old, new)
                changed = True
    return changed


def _attributes(node: ir.Node) -> list[object]:
    found: list[object] = []
    for name in sorted(node.attributes):
        attribute = node.attributes[name]
        value = attribute.value
        if attribute.type == ir.AttributeType.TENSOR:
            tensor = attribute.as_tensor()
            value = (tensor.dtype, tuple(tensor.shape.numpy()), tensor.numpy().tobytes())
        elif isinstance(value, list):
            value = tuple(value)
        found.append((name, attribute.type, value if value.__hash__ else id(value)))
    return found


def _remove_unused(edit: Editor) -> None:
    for graph in graphs(edit.model):
        for node in reversed(list(graph)):
            edit.prune(node)
    for graph in graphs(edit.model):
        for value in list(graph.initializers.values()):
            if not value.uses() and not value.is_graph_output():
                graph.initializers.pop(value.name or "")


def _name_nodes(model: ir.Model) -> None:
    """A node whose name another has (rewriting hands names on) is named after its first output."""
    taken: set[str | None] = {None, ""}
    for graph in graphs(model):
        for node in graph:
            name, number = node.name, 1
            while name in taken:
                name = f"{node.outputs[0].name}_{number}" if number > 1 else node.outputs[0].name
                number += 1
            node.name = name
            taken.add(name)


def _tidy_imports(model: ir.Model) -> None:
    used = {node.domain for graph in graphs(model) for node in graph} | {""}
    for domain in [domain for domain in model.opset_imports if domain not in used]:
        model.opset_imports.pop(domain)
