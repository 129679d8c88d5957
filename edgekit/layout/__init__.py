"""Layout assignment: in which order of axes each value of a graph is held, so that the fewest bytes are transposed.

    remove_transposes(model)            ONNX to ONNX: Transposes cancel, merge, or move to where they are cheapest
    to_channels_last(model, …)          for LiteRT: spatial operators work on N…C, marked with the domain CHANNELS_LAST

Both are one optimization over the whole graph (edgekit.layout.assign) under per-operator rules (edgekit.layout.rules).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from edgekit.layout.assign import Group, Port, Problem, ValueSize
from edgekit.layout.permutation import Perm, between, channels_last, held_shape, identity, inverse, moves_data
from edgekit.layout.rules import (
    CHANNELS_FIRST_RULES,
    CHANNELS_LAST,
    CHANNELS_LAST_RULES,
    SPATIAL,
    Part,
    Rewriter,
    Rule,
    constant,
    dims,
    fixed,
    rank,
)

__all__ = ["CHANNELS_LAST", "constant", "dims", "rank", "remove_transposes", "to_channels_last"]


def remove_transposes(model: ir.Model) -> int:
    """Rewrite the graph, in place, with the fewest bytes transposed; inputs and outputs stay. Returns the Transposes left."""
    graph = model.graph
    if any(node.op_type == "Transpose" for node in graph):
        _Assignment(graph, CHANNELS_FIRST_RULES).apply({}, {})
    return sum(node.op_type == "Transpose" for node in graph)


@dataclass(frozen=True)
class HeldAs:
    """How the graph's inputs and outputs are held after `to_channels_last`: name → permutation."""

    inputs: dict[str, Perm]
    outputs: dict[str, Perm]


def to_channels_last(model: ir.Model, *, input_layout: str = "keep", output_layout: str = "keep") -> HeldAs:
    """Rewrite the graph, in place, for a runtime whose spatial operators work on N…C.

    Args:
        input_layout, output_layout: `keep` leaves the model's own order of axes. `nhwc` and `nchw` hold what a spatial operator
            sees (an image, a feature map) channels-last or channels-first, and keep everything else.
    """
    assignment = _Assignment(model.graph, CHANNELS_LAST_RULES)
    seen = assignment.spatial_demands()

    def wanted(value: ir.Value, layout: str) -> Perm:
        nhwc = seen.get(value)
        if layout == "keep" or nhwc is None:
            return identity(rank(value))
        if layout == "nhwc":
            return nhwc
        back = inverse(channels_last(rank(value)))
        return tuple(nhwc[a] for a in back)

    inputs = {v: wanted(v, input_layout) for v in model.graph.inputs}
    outputs = {v: wanted(v, output_layout) for v in model.graph.outputs}
    names = [v.name or "" for v in model.graph.outputs]
    assignment.apply(inputs, outputs)
    return HeldAs({v.name or "": p for v, p in inputs.items()}, dict(zip(names, outputs.values(), strict=True)))


class _Assignment:
    """The bridge between an ONNX graph and the optimization."""

    def __init__(self, graph: ir.Graph, rules: Mapping[str, Rule]) -> None:
        self.graph = graph
        self.rules = rules
        self.nodes = list(graph)
        self.parts: list[tuple[ir.Node | None, Part]] = []
        self.index: dict[ir.Value, int] = {}
        self.sizes: list[ValueSize] = []
        inside = set(self.nodes)
        for node in self.nodes:
            self._add(node, self._rule(node).parts(node))
        for value in list(self.index):
            # Used inside a subgraph (an If branch, a Loop body): there it has the logical order.
            if any(user not in inside for user, _ in value.uses()):
                self._add(None, [Part((value,), (identity(rank(value)),))])

    def spatial_demands(self) -> dict[ir.Value, Perm]:
        """The order in which spatial operators see each value that they see through operators without a say."""
        problem = self._problem({}, {})
        seeds = []
        for (node, _), group in zip(self.parts, problem.groups, strict=False):
            if node is not None and node.op_type in SPATIAL and group.relate is None:
                seeds += [(port.value, perm) for port, perm in zip(group.ports, group.mode, strict=True)]
        reached = problem.demands(seeds)
        return {value: reached[i] for value, i in self.index.items() if i in reached}

    def apply(self, inputs: Mapping[ir.Value, Perm], outputs: Mapping[ir.Value, Perm]) -> None:
        """Solve, then rewrite the graph."""
        problem = self._problem(inputs, outputs)
        problem.solve()
        chosen: dict[ir.Node, dict[tuple[ir.Value, bool], Perm]] = {node: {} for node in self.nodes}
        held: dict[ir.Value, Perm] = {v: inputs.get(v, identity(rank(v))) for v in self.graph.inputs}
        for (node, part), group in zip(self.parts, problem.groups, strict=False):
            for value, port, perm in zip(part.operands, group.ports, group.mode, strict=True):
                if node is not None:
                    chosen[node][value, port.is_output] = perm
                if port.is_output:
                    held[value] = perm
        logical = {value: dims(value) for value in held}
        for value, perm in held.items():
            if perm != identity(len(perm)):
                value.shape = ir.Shape(held_shape(dims(value), perm))
        converted: dict[tuple[ir.Value, Perm], ir.Value] = {}
        for node in self.nodes:
            # Inputs first, so that a rule sees the operands it will work on.
            perms = chosen[node]
            for i, value in enumerate(node.inputs):
                if value is not None and value in held:
                    want = perms.get((value, False), identity(rank(value)))
                    node.replace_input_with(i, self._convert(value, held[value], want, logical[value], converted, node))
                    moved = node.inputs[i]
                    if moved is not None:
                        perms[moved, False] = want
            self._rule(node).rewrite(Rewriter(node, perms))
        self._convert_subgraph_uses(held, logical, converted)
        self._convert_outputs(outputs, held, logical, converted)
        self._remove_identities()

    def _rule(self, node: ir.Node) -> Rule:
        rule = self.rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        return rule or Rule(fixed, lambda rewriter: None)

    def _add(self, node: ir.Node | None, parts: Iterable[Part]) -> None:
        for part in parts:
            self.parts.append((node, part))
            for value in part.operands:
                if value not in self.index:
                    self.index[value] = len(self.sizes)
                    self.sizes.append(ValueSize(dims(value), value.dtype.itemsize if value.dtype else 4))

    def _problem(self, inputs: Mapping[ir.Value, Perm], outputs: Mapping[ir.Value, Perm]) -> Problem:
        groups = []
        for node, part in self.parts:
            made = set() if node is None else set(node.outputs)
            ports = tuple(Port(self.index[v], v in made) for v in part.operands)
            groups.append(Group(ports, part.default, part.relate))
        for value in self.graph.inputs:
            if value in self.index:
                groups.append(Group((Port(self.index[value], True),), (inputs.get(value, identity(rank(value))),)))
        for value in self.graph.outputs:
            if value in self.index:
                groups.append(Group((Port(self.index[value], False),), (outputs.get(value, identity(rank(value))),)))
        return Problem(self.sizes, groups)

    def _convert(
        self,
        value: ir.Value,
        have: Perm,
        want: Perm,
        shape: tuple[int | str, ...],
        converted: dict[tuple[ir.Value, Perm], ir.Value],
        before: ir.Node | None,
    ) -> ir.Value:
        """The value held as `want`: a Transpose (a Reshape where only axes of size 1 move), made once per order."""
        if have == want:
            return value
        if (value, want) not in converted:
            result = held_shape(shape, want)
            if moves_data(have, want, shape) or sum(not isinstance(d, int) for d in result) > 1:
                node = ir.node("Transpose", [value], attributes={"perm": between(have, want)})
            else:
                numbers = ir.tensor([d if isinstance(d, int) else -1 for d in result], dtype=ir.DataType.INT64)
                target = ir.Value(name=f"{value.name}/shape{_suffix(want)}", const_value=numbers)
                target.dtype, target.shape = ir.DataType.INT64, ir.Shape([len(result)])
                self.graph.register_initializer(target)
                node = ir.node("Reshape", [value, target])
            out = node.outputs[0]
            out.name, out.dtype, out.shape = f"{value.name}/{_suffix(want)}", value.dtype, ir.Shape(result)
            producer = value.producer()
            if producer is not None:
                self.graph.insert_after(producer, node)
            elif len(self.graph):
                self.graph.insert_before(self.graph[0], node)
            else:
                self.graph.append(node)
            converted[value, want] = out
        return converted[value, want]

    def _convert_subgraph_uses(self, held: dict[ir.Value, Perm], logical: dict, converted: dict) -> None:
        for value, perm in list(held.items()):
            if perm == identity(len(perm)):
                continue
            for user, i in list(value.uses()):
                if user.graph is not self.graph:
                    plain = self._convert(value, perm, identity(len(perm)), logical[value], converted, None)
                    user.replace_input_with(i, plain)

    def _convert_outputs(
        self, outputs: Mapping[ir.Value, Perm], held: dict[ir.Value, Perm], logical: dict, converted: dict
    ) -> None:
        for i, value in enumerate(self.graph.outputs):
            if value in held:
                have, want = held[value], outputs.get(value, identity(rank(value)))
                plain = self._convert(value, have, want, logical[value], converted, None)
                if plain is not value:
                    name = value.name
                    value.name = f"{name}/{_suffix(have)}"
                    plain.name = name
                    self.graph.outputs[i] = plain

    def _remove_identities(self) -> None:
        """Drop what Transposes became; an Identity between an input and an output has to stay."""
        for node in list(self.graph):
            if node.op_type != "Identity" or node.domain:
                continue
            source, result = node.inputs[0], node.outputs[0]
            if source is None:
                continue
            if result.is_graph_output():
                producer = source.producer()
                if producer is None or source.is_graph_output() or source.graph is not self.graph:
                    continue
                source.name, result.name = result.name, source.name
                for i, value in enumerate(self.graph.outputs):
                    if value is result:
                        self.graph.outputs[i] = source
            result.replace_all_uses_with(source)
            self.graph.remove(node, safe=True)


def _suffix(perm: Perm) -> str:
    """`nhwc`-like name for an order of axes: its digits."""
    return "".join(map(str, perm))
