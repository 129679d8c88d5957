"""What a rule is made of: the operands of a node that choose their orders together, and the tools to rewrite the node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from edgekit.layout.permutation import Perm, complete, identity, restrict

Relate = Callable[[int, Perm], "tuple[Perm, ...] | None"]


class Slot(NamedTuple):
    """The `place`-th input or output of a node."""

    place: int
    is_output: bool = False

    def of(self, node: ir.Node) -> ir.Value | None:
        """The value there; None where an optional operand is absent."""
        values: Sequence[ir.Value | None] = node.outputs if self.is_output else node.inputs
        return values[self.place] if self.place < len(values) else None


@dataclass(frozen=True)
class Part:
    """Operands of one node that choose their permutations together.

    Args:
        slots: The operands, each of them free (`is_free`).
        default: One permutation for each, always possible.
        relate: `relate(i, perm)` gives the permutations of all slots when the i-th has `perm`, None where it cannot; the part
            can only have `default` where it has no `relate`.
        settle: Called with the chosen permutations before any node is rewritten, for a choice that reaches beyond the node.
        choices: Other permutations of all slots that the operator offers, which no neighbour would ask for.
    """

    slots: tuple[Slot, ...]
    default: tuple[Perm, ...]
    relate: Relate | None = None
    settle: Callable[[tuple[Perm, ...]], None] | None = None
    choices: tuple[tuple[Perm, ...], ...] = ()


@dataclass(frozen=True)
class Rule:
    """How one operator deals with permuted operands."""

    parts: Callable[[ir.Node], list[Part]]
    rewrite: Callable[[Rewriter], None]


class Rewriter:
    """One node to be rewritten, with the permutations its operands were given."""

    def __init__(self, node: ir.Node, perms: Mapping[Slot, Perm]) -> None:
        self.node = node
        self._perms = perms

    @property
    def moved(self) -> bool:
        """Whether any operand is held in another order than the logical one."""
        return any(perm != identity(len(perm)) for perm in self._perms.values())

    def input_perm(self, i: int) -> Perm:
        value = self.node.inputs[i]
        assert value is not None
        return self._perms.get(Slot(i)) or identity(rank(value))

    def output_perm(self, i: int = 0) -> Perm:
        return self._perms.get(Slot(i, True)) or identity(rank(self.node.outputs[i]))

    def set_attribute(self, name: str, value: int) -> None:
        self.node.attributes[name] = ir.AttrInt64(name, value)

    def set_constant(self, i: int, array: np.ndarray, suffix: str) -> None:
        replace_constant(self.node, i, array, suffix)

    def insert_input(self, i: int, op_type: str, inputs: Sequence[ir.Value], shape: Sequence[int | str]) -> None:
        """Put a new node between the node's i-th input and the node."""
        old, graph = self.node.inputs[i], self.node.graph
        assert old is not None
        assert graph is not None
        new = ir.node(op_type, inputs)
        result = new.outputs[0]
        result.name, result.shape, result.type = f"{self.node.outputs[0].name}/input{i}", ir.Shape(shape), old.type
        graph.insert_before(self.node, new)
        self.node.replace_input_with(i, new.outputs[0])


def rank(value: ir.Value) -> int:
    """Number of axes; a value of unknown rank counts as a scalar, which nothing permutes."""
    return len(value.shape) if value.shape is not None else 0


def dims(value: ir.Value) -> tuple[int | str, ...]:
    """Its shape with symbolic dimensions as strings (an unnamed one is `?`)."""
    return tuple(d if isinstance(d, int) else str(d.value or "?") for d in (value.shape or ()))


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer, None for anything computed."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def integer(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    return node.attributes[name].as_int() if name in node.attributes else default


def is_free(value: ir.Value | None) -> bool:
    """Whether an operand has a say: it is computed and has axes that could be permuted."""
    return value is not None and (value.const_value is None or value.is_graph_input()) and rank(value) >= 2


def free_slots(node: ir.Node) -> list[Slot]:
    """All operands that have a say, inputs first."""
    found = [Slot(i) for i, value in enumerate(node.inputs) if is_free(value)]
    return found + [Slot(i, True) for i, value in enumerate(node.outputs) if is_free(value)]


def value_rank(node: ir.Node, slot: Slot) -> int:
    """Rank of the value in a slot."""
    value = slot.of(node)
    return 0 if value is None else rank(value)


def fixed(node: ir.Node) -> list[Part]:
    """All operands in the logical order."""
    slots = tuple(free_slots(node))
    return [Part(slots, tuple(identity(value_rank(node, s)) for s in slots))]


def aligned(
    node: ir.Node,
    size: int,
    axes: Mapping[Slot, Sequence[int]],
    *,
    allowed: Callable[[Perm], bool] = lambda frame: True,
    default: Perm | None = None,
) -> list[Part]:
    """Operands that lie in one *frame* of axes 0 … size-1 and are held in the order of that frame.

    Args:
        axes: For each slot, which axis of the frame each of its logical axes is. An operand that lacks some of the frame's axes
            (a broadcast, a reduction) leaves their place open: they follow their logical predecessor.
        allowed: Which orders of the frame the operator can work in.
        default: One that it can.
    """
    slots = tuple(s for s in axes if is_free(s.of(node)))
    if all(s.is_output for s in slots):
        return fixed(node)  # made of constants alone: nothing to follow

    def mode(frame: Perm) -> tuple[Perm, ...]:
        return tuple(restrict(frame, axes[s]) for s in slots)

    def relate(i: int, perm: Perm) -> tuple[Perm, ...] | None:
        frame = complete([axes[slots[i]][a] for a in perm], size)
        return mode(frame) if allowed(frame) else None

    return [Part(slots, mode(default or identity(size)), relate)]


def replace_constant(node: ir.Node, i: int, array: np.ndarray, suffix: str) -> None:
    """Make a new initializer the node's i-th input."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    name = base = f"{node.outputs[0].name}/{suffix}"
    number = 1
    while name in graph.initializers:
        number += 1
        name = f"{base}.{number}"
    value = ir.Value(name=name, const_value=ir.Tensor(np.array(array, order="C"), name=name))
    value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
    graph.register_initializer(value)
    if i >= len(node.inputs):
        node.resize_inputs(i + 1)
    old = node.inputs[i]
    node.replace_input_with(i, value)
    if old is not None and old.is_initializer() and not old.uses() and not old.is_graph_output():
        assert old.name is not None
        del graph.initializers[old.name]
