"""How a decomposition writes nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit.errors import UnsupportedOperator
from edgekit.layout import dims

Shape = Sequence[int | str]


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Everyone who takes `old` takes `new` from now on, which gets its name; graph outputs included."""
    name = old.name
    old.name, new.name = f"{name}/replaced", name
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def remove_with_makers(node: ir.Node) -> None:
    """Remove a node whose results nobody takes, and before it whatever was made for it alone."""
    waiting = [node]
    while waiting:
        last = waiting.pop()
        if last.graph is None or any(is_used(out) for out in last.outputs):
            continue
        makers = [maker for value in last.inputs if value is not None and (maker := value.producer()) is not None]
        last.graph.remove(last, safe=True)
        waiting += makers


class Builder:
    """Places nodes before `node`, with names, dtypes and shapes of what they make."""

    def __init__(self, node: ir.Node) -> None:
        self.node = node
        assert isinstance(node.graph, ir.Graph)
        self.graph = node.graph
        self.made: list[ir.Node] = []

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        shape: Shape,
        dtype: ir.DataType | None = None,
        *,
        outputs: int = 1,
        **attributes: Any,
    ) -> ir.Value:
        """One node; its first output has that shape, and the replaced node's dtype where none is given."""
        made = ir.node(op_type, inputs, attributes={k: v for k, v in attributes.items() if v is not None}, num_outputs=outputs)
        out = made.outputs[0]
        made.name = out.name = self._name(op_type)
        out.dtype, out.shape = dtype or self.node.outputs[0].dtype, ir.Shape(shape)  # type: ignore[assignment]
        self.graph.insert_before(self.node, made)
        self.made.append(made)
        return out

    def const(self, array: np.ndarray) -> ir.Value:
        name = self._name("const")
        value = ir.Value(name=name, const_value=ir.Tensor(array, name=name))
        value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
        self.graph.register_initializer(value)
        return value

    def ints(self, values: Sequence[int]) -> ir.Value:
        return self.const(np.array(values, np.int64))

    def transpose(self, value: ir.Value, perm: Sequence[int]) -> ir.Value:
        shape = dims(value)
        return self.op("Transpose", [value], [shape[a] for a in perm], value.dtype, perm=list(perm))

    def reshape(self, value: ir.Value, shape: Shape) -> ir.Value:
        return self.op("Reshape", [value, self.ints([d if isinstance(d, int) else -1 for d in shape])], shape, value.dtype)

    def scalar(self, number: float, like: ir.Value) -> ir.Value:
        """A constant of a value's dtype."""
        assert like.dtype is not None
        return self.const(np.array(number, like.dtype.numpy()))

    def binary(self, op_type: str, left: ir.Value, right: ir.Value | float) -> ir.Value:
        """An elementwise operator whose result has the left operand's shape and dtype."""
        other = right if isinstance(right, ir.Value) else self.scalar(right, left)
        return self.op(op_type, [left, other], dims(left), left.dtype)

    def unary(self, op_type: str, x: ir.Value, **attributes: Any) -> ir.Value:
        """An operator whose result has its operand's shape and dtype."""
        return self.op(op_type, [x], dims(x), x.dtype, **attributes)

    def static(self, value: ir.Value) -> tuple[int, ...]:
        """A shape without dynamic dimensions."""
        shape = dims(value)
        if not all(isinstance(d, int) for d in shape):
            raise self.refuse(
                f"it needs the shape of {value.name!r} at compile time, which is {shape}",
                "fix that dimension with --input NAME=SHAPE",
            )
        return tuple(int(d) for d in shape)

    def refuse(self, why: str, fix: str, attribute: str | None = None) -> UnsupportedOperator:
        """The error to raise when the node cannot be expressed in LiteRT."""
        where = f"node {self.node.name or self.node.outputs[0].name!r}, operator {self.node.op_type}"
        return UnsupportedOperator(
            f"{self.node.op_type} cannot be lowered to LiteRT: {why}",
            where=where + (f", {attribute}" if attribute else ""),
            fix=fix,
        )

    def _name(self, kind: str) -> str:
        """A new name below that of the node's output. What replaces a node takes its output's name, and may be replaced in turn:
        the graph remembers how many names it has given below each."""
        base = self.node.outputs[0].name
        given = self.graph.meta.setdefault("edgekit.names", {})
        given[base] = given.get(base, 0) + 1
        return f"{base}/{kind}{given[base]}"


Decomposition = Callable[[ir.Node, Builder], "list[ir.Value] | None"]


def integer(node: ir.Node, name: str, default: int = 0) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def real(node: ir.Node, name: str, default: float) -> float:
    return node.attributes[name].as_float() if name in node.attributes else default


def string(node: ir.Node, name: str, default: str = "") -> str:
    return node.attributes[name].as_string() if name in node.attributes else default


def integers(node: ir.Node, name: str, default: Sequence[int]) -> list[int]:
    return list(node.attributes[name].as_ints()) if name in node.attributes else list(default)


def operand(node: ir.Node, i: int) -> ir.Value | None:
    """An input, None where it is absent."""
    return node.inputs[i] if i < len(node.inputs) else None


def is_used(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()
