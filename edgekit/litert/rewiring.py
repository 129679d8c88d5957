"""The LiteRT graph while rules rewrite it, with its edges indexed."""

from __future__ import annotations

from collections.abc import Callable

from edgekit.litert.graph import Graph, Operator, Tensor


class Rewiring:
    """The graph with its edges indexed, kept right while rules rewrite it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.alive = {id(op) for op in graph.operators}
        self.producer = graph.producers()
        self.users = graph.consumers()
        self.outputs = set(graph.outputs)

    def made_by(self, tensor: Tensor | None) -> Operator | None:
        return self.producer.get(tensor) if tensor is not None else None

    def only_user(self, tensor: Tensor) -> Operator | None:
        """The one operator that takes a tensor, if there is just one and the tensor is no output of the graph."""
        users = self.users.get(tensor, [])
        return users[0] if len(users) == 1 and tensor not in self.outputs else None

    def set_input(self, op: Operator, i: int, tensor: Tensor | None) -> None:
        old = op.inputs[i]
        if old is not None:
            self.users[old].remove(op)
        op.inputs[i] = tensor
        if tensor is not None:
            self.users.setdefault(tensor, []).append(op)

    def set_output(self, op: Operator, tensor: Tensor) -> None:
        """The operator makes that tensor from now on."""
        op.outputs[0] = tensor
        self.producer[tensor] = op

    def replace(self, tensor: Tensor, by: Tensor) -> None:
        """Every user of a tensor takes another one instead."""
        for user in list(self.users.get(tensor, [])):
            for i, operand in enumerate(user.inputs):
                if operand is tensor:
                    self.set_input(user, i, by)

    def remove(self, op: Operator) -> None:
        self.alive.discard(id(op))
        for tensor in op.inputs:
            if tensor is not None:
                self.users[tensor].remove(op)


Rule = Callable[[Rewiring, Operator], bool]
"""Looks at an operator and its neighbours; whether it has changed something."""


def is_constant(op: Operator, place: int) -> bool:
    tensor = op.inputs[place] if place < len(op.inputs) else None
    return tensor is not None and tensor.data is not None
