"""Editing a hub graph: the few operations that every pass is written with.

An `Editor` belongs to one model. It keeps value names unique over all of the model's graphs, gives every new node its dtypes and
shapes, and remembers which nodes an edit has touched, so that `edgekit.hub.rewrite` looks only at those again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit.hub import facts, infer


class Editor:
    """Edits the graphs of one model in place.

    Attributes:
        model: The model.
        opset: Its version of ai.onnx.
        contents: What is known of small integer tensors (see `edgekit.hub.infer`).
        touched: Nodes whose surroundings changed since the rewriter last looked.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.contents: facts.Contents = {}
        self.touched: list[ir.Node] = []
        self._made: set[ir.Value] = set()
        self._names: set[str] = set()
        self._numbers: Counter[str] = Counter()
        self.forget()

    def forget(self) -> None:
        """Start again after someone else has edited the model: collect its names, let go of what was known."""
        model = self.model
        self.contents.clear()
        self.touched.clear()
        self._names.clear()
        self._numbers.clear()
        for graph in graphs(model):
            self._names.update(value.name for value in (*graph.inputs, *graph.initializers.values()) if value.name)
            self._names.update(output.name for node in graph for output in node.outputs if output.name)

    @property
    def opset(self) -> int:
        return self.model.opset_imports[""]

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        before: ir.Node,
        name: str | None = None,
        outputs: int = 1,
    ) -> ir.Node:
        """Insert a node before another, its outputs typed and shaped.

        Args:
            op_type: An ai.onnx operator.
            inputs: Its inputs; trailing None are dropped.
            attributes: Python values; an entry that is None is left out.
            before: The node to insert it before, in whichever graph that is.
            name: What the first output is called (made unique); the replaced value's name arrives through `replace`.
            outputs: How many outputs.
        """
        present = list(inputs)
        while present and present[-1] is None:
            present.pop()
        given = {key: value for key, value in (attributes or {}).items() if value is not None}
        values = [ir.Value(name=self.fresh(name or f"{before.outputs[0].name}_{op_type}")) for _ in range(outputs)]
        node = ir.node(op_type, present, given, outputs=values, name=values[0].name)
        assert before.graph is not None
        before.graph.insert_before(before, node)
        self._made.update(values)
        infer.infer_node(node, self.model.opset_imports, self.contents)
        self.touched.append(node)
        return node

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        before: ir.Node,
        name: str | None = None,
    ) -> ir.Value:
        """`node` with one output, which is returned."""
        return self.node(op_type, inputs, attributes, before=before, name=name).outputs[0]

    def constant(self, array: np.ndarray, name: str, graph: ir.Graph) -> ir.Value:
        """Add an initializer to a graph; `name` is made unique."""
        array = np.ascontiguousarray(array) if array.ndim else np.asarray(array)
        return self.initializer(ir.Tensor(array), name, graph)

    def initializer(self, tensor: ir.TensorProtocol, name: str, graph: ir.Graph) -> ir.Value:
        """Add an initializer that holds `tensor` as it is."""
        value = ir.val(self.fresh(name), const_value=tensor)
        graph.register_initializer(value)
        return value

    def replace(self, old: ir.Value, new: ir.Value) -> bool:
        """Let everything that reads `old` read `new`; the producer of `old` goes away when nothing else needs it.

        A value that an edit made takes over the name of what it replaces. A graph output keeps its name whatever happens: where
        `new` cannot be renamed (an input, an initializer, another output, a value of an outer graph) an Identity gives the name.

        Returns:
            False where that Identity is there already, so that nothing has changed.
        """
        producer = old.producer()
        assert producer is not None
        infer.keep_known(old, new)
        for user, index in old.uses():
            user.replace_input_with(index, new)
            self.touched.append(user)
        if old.is_graph_output():
            if not self._hand_over_output(old, new, producer):
                return False
        elif new in self._made and not new.is_graph_output():
            self._swap_names(old, new)
        self.contents.pop(old, None)
        if (origin := new.producer()) is not None:
            self.touched.append(origin)
        self.prune(producer)
        return True

    def made(self, value: ir.Value) -> bool:
        """Whether an edit made this value, so that its node is of the hub's opset and has dtypes and shapes."""
        return value in self._made

    def replace_by_constant(self, old: ir.Value, new: ir.Value) -> bool:
        """`replace` by an initializer made for it, which takes over the name where `old` is not a graph output."""
        if not old.is_graph_output():
            self._swap_names(old, new)
        return self.replace(old, new)

    def prune(self, node: ir.Node) -> None:
        """Remove a node that nothing needs, then what only it needed."""
        waiting = [node]
        while waiting:
            node = waiting.pop()
            if node.graph is None or any(output.uses() or output.is_graph_output() for output in node.outputs):
                continue
            inputs = [value for value in node.inputs if value is not None]
            captured = _captured(node)
            for output in node.outputs:
                self._names.discard(output.name or "")
            _release(node)
            node.graph.remove(node, safe=True)
            for value in dict.fromkeys((*inputs, *captured)):
                producer = value.producer()
                if producer is not None:
                    waiting.append(producer)
                    self.touched.append(producer)
                    continue
                graph, uses = value.graph, tuple(value.uses())  # once: a constant may have thousands
                if value.is_initializer() and not uses and not value.is_graph_output() and graph is not None:
                    self._names.discard(value.name or "")
                    graph.initializers.pop(value.name or "")
                # Those that still read it may now be its only readers, which opens fusions.
                self.touched.extend(use.node for use in uses[:2])

    def fresh(self, name: str) -> str:
        """A value name that the model does not have yet: `name` itself if it is free."""
        candidate = name
        while candidate in self._names:
            self._numbers[name] += 1  # not counted from the start: thousands may have the same name
            candidate = f"{name}_{self._numbers[name] + 1}"
        self._names.add(candidate)
        return candidate

    def _hand_over_output(self, old: ir.Value, new: ir.Value, producer: ir.Node) -> bool:
        origin = new.producer()
        graph = producer.graph
        assert graph is not None
        if origin is not None and origin.graph is graph and not new.is_graph_output():
            self._swap_names(old, new)
        elif producer.op_type == "Identity" and producer.domain == "" and producer.inputs[0] is new:
            return False
        else:
            new = self.op("Identity", [new], before=producer)
            self.touched.pop()
            self._swap_names(old, new)
        for index, output in enumerate(graph.outputs):
            if output is old:
                graph.outputs[index] = new
        return True

    def _swap_names(self, old: ir.Value, new: ir.Value) -> None:
        old_name, new_name = old.name, new.name
        old.name = None
        new.name = old_name
        old.name = new_name
        if (origin := new.producer()) is not None and origin.outputs[0] is new:
            origin.name = old_name


def array(value: ir.Value | None) -> np.ndarray | None:
    """The contents of a constant, None for anything else. A view where the tensor can give one."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    return value.const_value.numpy()


def is_constant(value: ir.Value | None) -> bool:
    """Whether a value is an initializer."""
    return value is not None and value.is_initializer() and value.const_value is not None


def scalar(value: ir.Value | None) -> float | None:
    """The one number that a constant holds, whatever its rank; None for anything else."""
    if value is None or not is_constant(value) or value.const_value is None or value.const_value.size != 1:
        return None
    found = array(value)
    return None if found is None or found.dtype.kind not in "fiub" else float(found.reshape(()))


def integers(value: ir.Value | None) -> list[int] | None:
    """The contents of a constant integer vector (or scalar); None for anything else."""
    found = array(value)
    return [int(item) for item in found.reshape(-1)] if found is not None and found.dtype.kind in "iu" else None


def shape(value: ir.Value | None) -> tuple[int | str, ...] | None:
    """A value's shape, symbolic dimensions as their names; None where the rank is not known."""
    return facts.shape_of(value) if value is not None else None


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """A value's shape where every dimension is a number, else None."""
    dims = shape(value)
    if dims is None or any(isinstance(dim, str) for dim in dims):
        return None
    return tuple(int(dim) for dim in dims)


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value exactly once, where nothing else needs it."""
    uses = value.uses()
    return next(iter(uses)).node if len(uses) == 1 and not value.is_graph_output() else None


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node that makes a value if it is one of these ai.onnx operators, else None."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.domain == "" and node.op_type in op_types else None


def is_float(value: ir.Value | None) -> bool:
    """Whether a value is a floating-point tensor."""
    return value is not None and value.dtype is not None and value.dtype.is_floating_point()


def graphs(model: ir.Model) -> list[ir.Graph]:
    """The model's graph, and every graph in an attribute of a node, outer before inner."""
    found = [model.graph]
    for graph in found:
        for node in graph:
            if node.op_type in _WITH_GRAPHS or node.domain != "":
                found.extend(subgraphs(node))
    return found


_WITH_GRAPHS = frozenset(("If", "Loop", "Scan", "SequenceMap"))


def subgraphs(node: ir.Node) -> Iterable[ir.Graph]:
    """The graphs in a node's attributes."""
    if node.domain == "" and node.op_type not in _WITH_GRAPHS:
        return
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def release(graph: ir.Graph) -> None:
    """Let a graph that is thrown away read nothing."""
    for inner in list(graph.all_nodes()):
        for index in range(len(inner.inputs)):
            inner.replace_input_with(index, None)


def _captured(node: ir.Node) -> list[ir.Value]:
    """What the graphs in a node read from outside."""
    return [
        value
        for graph in subgraphs(node)
        for inner in graph.all_nodes()
        for value in inner.inputs
        if value is not None and value.graph is node.graph
    ]


def _release(node: ir.Node) -> None:
    """Let go of what the graphs in a node read, so that the outer values see that they are free."""
    for graph in subgraphs(node):
        release(graph)
