"""The bridge between an ONNX graph and the optimization: states the problem, and rewrites the graph as it was solved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

import onnx_ir as ir

from edgekit.layout.assign import Group, Port, Problem, ValueSize
from edgekit.layout.permutation import Dim, Perm, between, held_shape, identity, moves_data
from edgekit.layout.rules import SPATIAL, Part, Rewriter, Rule, Slot, dims, fixed, free_slots, rank, value_rank

Perms = Mapping[ir.Value, Perm]


class Assignment:
    """One graph under one set of rules: `apply` chooses an order for every value and rewrites the graph, once."""

    def __init__(self, graph: ir.Graph, rules: Mapping[str, Rule]) -> None:
        self._graph = graph
        self._rules = rules
        self._nodes = list(graph)
        self._parts: list[tuple[ir.Node, Part]] = []
        self._index: dict[ir.Value, int] = {}  # of each value that has a say, in the problem
        self._sizes: list[ValueSize] = []
        for node in self._nodes:
            self._add(node, self._rule(node).parts(node))
        inside = set(self._nodes)
        # Used inside a subgraph (an If branch, a Loop body): there it has the logical order.
        self._captured = [v for v in self._index if any(user not in inside for user, _ in v.uses())]

    def spatial_demands(self) -> dict[ir.Value, Perm]:
        """The order in which spatial operators see each value that they see through operators without a say."""
        problem = self._problem({}, {})
        seeds = []
        for (node, _), group in zip(self._parts, problem.groups, strict=False):
            if node.op_type in SPATIAL and group.relate is None:
                seeds += [(port.value, perm) for port, perm in zip(group.ports, group.mode, strict=True) if len(perm) > 2]
        reached = problem.demands(seeds)
        return {value: reached[i] for value, i in self._index.items() if i in reached}

    def apply(self, inputs: Perms, outputs: Perms) -> None:
        """Solve, then rewrite the graph with its inputs and outputs held as given (in the logical order where not)."""
        problem = self._problem(inputs, outputs)
        problem.solve()
        chosen: dict[ir.Node, dict[Slot, Perm]] = {node: {} for node in self._nodes}
        held: dict[ir.Value, Perm] = {v: inputs.get(v, identity(rank(v))) for v in self._graph.inputs}
        for (node, part), group in zip(self._parts, problem.groups, strict=False):
            if part.settle is not None:
                part.settle(group.mode)
            for slot, perm in zip(part.slots, group.mode, strict=True):
                chosen[node][slot] = perm
                if slot.is_output:
                    held[node.outputs[slot.place]] = perm
        conversions = _Conversions(self._graph, held)
        for node in self._nodes:
            # Inputs first, so that a rule sees the operands it will work on.
            for i, value in enumerate(node.inputs):
                if value in held:
                    want = chosen[node].get(Slot(i), identity(rank(value)))
                    node.replace_input_with(i, conversions.get(value, want))
            self._rule(node).rewrite(Rewriter(node, chosen[node]))
        for value in self._captured:
            for user, i in list(value.uses()):
                if user.graph is not self._graph:
                    user.replace_input_with(i, conversions.get(value, identity(rank(value))))
        conversions.convert_outputs(outputs)
        _remove_identities(self._graph)

    def _rule(self, node: ir.Node) -> Rule:
        rule = self._rules.get(node.op_type) if node.domain in ("", "ai.onnx") and _ranks_known(node) else None
        return rule or _FIXED

    def _add(self, node: ir.Node, parts: list[Part]) -> None:
        # Whatever a rule does not speak of (a computed weight) is in the logical order.
        rest = tuple(s for s in free_slots(node) if not any(s in part.slots for part in parts))
        for part in [*parts, Part(rest, tuple(identity(value_rank(node, s)) for s in rest))]:
            if part.slots:
                self._parts.append((node, part))
            for slot in part.slots:
                self._register(slot.of(node))

    def _register(self, value: ir.Value | None) -> None:
        if value is not None and value not in self._index:
            self._index[value] = len(self._sizes)
            self._sizes.append(ValueSize(dims(value), _itemsize(value.dtype)))

    def _problem(self, inputs: Perms, outputs: Perms) -> Problem:
        """The parts as groups, in their order, then what the outside fixes."""
        groups = []
        for node, part in self._parts:
            ports = tuple(Port(self._number(s.of(node)), s.is_output) for s in part.slots)
            relate = cache(part.relate) if part.relate is not None else None  # asked the same by proposals and windows
            groups.append(Group(ports, part.default, relate, part.choices))

        def outside(values: Iterable[ir.Value], perms: Perms, is_output: bool) -> None:
            for v in values:
                if v in self._index:
                    groups.append(Group((Port(self._index[v], is_output),), (perms.get(v, identity(rank(v))),)))

        outside(self._graph.inputs, inputs, True)
        outside(self._graph.outputs, outputs, False)
        outside(self._captured, {}, False)
        return Problem(self._sizes, groups)

    def _number(self, value: ir.Value | None) -> int:
        assert value is not None
        return self._index[value]


class _Conversions:
    """The values of a graph in the orders in which they are needed, each made once."""

    def __init__(self, graph: ir.Graph, held: dict[ir.Value, Perm]) -> None:
        self._graph = graph
        self._held = held
        self._logical = {value: dims(value) for value in held}
        self._made: dict[tuple[ir.Value, Perm], ir.Value] = {}
        for value, perm in held.items():
            if perm != identity(len(perm)):
                value.shape = ir.Shape(held_shape(dims(value), perm))

    def get(self, value: ir.Value, want: Perm) -> ir.Value:
        """The value held as `want`: itself, or a Transpose of it (a Reshape where only axes of size 1 move)."""
        have = self._held[value]
        if have == want:
            return value
        if (value, want) not in self._made:
            self._made[value, want] = self._convert(value, have, want, held_shape(self._logical[value], want))
        return self._made[value, want]

    def convert_outputs(self, outputs: Perms) -> None:
        """Make the graph's outputs what is wanted, under the names that they had."""
        for i, value in enumerate(self._graph.outputs):
            if value not in self._held:
                continue
            result = self.get(value, outputs.get(value, identity(rank(value))))
            if result is not value:
                name = value.name
                value.name = f"{name}/{_suffix(self._held[value])}"
                result.name = name
                self._graph.outputs[i] = result

    def _convert(self, value: ir.Value, have: Perm, want: Perm, shape: tuple[Dim, ...]) -> ir.Value:
        if moves_data(have, want, self._logical[value]) or sum(not isinstance(d, int) for d in shape) > 1:
            node = ir.node("Transpose", [value], {"perm": ir.AttrInt64s("perm", between(have, want))})
        else:
            numbers = ir.tensor([d if isinstance(d, int) else -1 for d in shape], dtype=ir.DataType.INT64)
            target = ir.Value(name=f"{value.name}/shape{_suffix(want)}", const_value=numbers)
            target.dtype, target.shape = ir.DataType.INT64, ir.Shape([len(shape)])
            self._graph.register_initializer(target)
            node = ir.node("Reshape", [value, target])
        out = node.outputs[0]
        out.name, out.shape, out.type = f"{value.name}/{_suffix(want)}", ir.Shape(shape), value.type
        producer = value.producer()
        if producer is not None:
            self._graph.insert_after(producer, node)
        else:
            self._graph.insert_before(self._graph[0], node)
        return out


def _remove_identities(graph: ir.Graph) -> None:
    """Drop what Transposes became; an Identity between an input and an output has to stay."""
    for node in list(graph):
        if node.op_type != "Identity" or node.domain:
            continue
        source, result = node.inputs[0], node.outputs[0]
        if source is None:
            continue
        if result.is_graph_output():
            if source.producer() is None or source.is_graph_output() or source.graph is not graph:
                continue
            source.name, result.name = result.name, source.name
            for i, value in enumerate(graph.outputs):
                if value is result:
                    graph.outputs[i] = source
        result.replace_all_uses_with(source)
        graph.remove(node, safe=True)


def _ranks_known(node: ir.Node) -> bool:
    """Whether the shapes that a rule reads are there; an output that nothing uses may lack one."""
    used = [v for v in node.outputs if v.uses() or v.is_graph_output()]
    return all(v is None or v.shape is not None for v in (*node.inputs, *used))


def _itemsize(dtype: ir.DataType | None) -> int:
    return max(1, int(dtype.itemsize)) if dtype is not None and dtype != ir.DataType.STRING else 4


def _suffix(perm: Perm) -> str:
    """The order of axes in a name: its digits."""
    return "".join(map(str, perm))


_FIXED = Rule(fixed, lambda rewriter: None)
