"""The table of lowerings and what a lowering works with.

A lowering is one function per ONNX operator. It receives a `Node`: operands that already are LiteRT tensors in the order of axes
that layout assignment chose, attributes, and `emit`. It states first what it needs and refuses the rest with `node.refuse(…)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit.errors import UnsupportedOperator
from edgekit.litert.graph import Dim, Graph, Operator, Tensor

Lowering = Callable[["Node"], None]

LOWERINGS: dict[str, Lowering] = {}
"""ONNX operator → the function that lowers it."""


def lowers(*op_types: str) -> Callable[[Lowering], Lowering]:
    """Register a function as the lowering of these operators."""

    def register(function: Lowering) -> Lowering:
        for op_type in op_types:
            LOWERINGS[op_type] = function
        return function

    return register


class Node:
    """One ONNX node while it is lowered into `graph`."""

    def __init__(self, onnx: ir.Node, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor], graph: Graph) -> None:
        self.onnx = onnx
        self.op_type = onnx.op_type
        self.inputs = list(inputs)
        self.outputs = list(outputs)
        self.graph = graph

    # Operands

    @property
    def x(self) -> Tensor:
        """The first input."""
        return self.input(0)

    @property
    def y(self) -> Tensor:
        """The first output."""
        return self.outputs[0]

    def input(self, i: int) -> Tensor:
        """An input that must be there."""
        tensor = self.inputs[i] if i < len(self.inputs) else None
        if tensor is None:
            raise self.refuse(f"its input {i} is missing", "the model is not valid ONNX: export it again")
        return tensor

    def has_input(self, i: int) -> bool:
        return i < len(self.inputs) and self.inputs[i] is not None

    def has_output(self, i: int) -> bool:
        """Whether somebody uses that output."""
        return i < len(self.outputs) and (bool(self.onnx.outputs[i].uses()) or self.onnx.outputs[i].is_graph_output())

    def constant(self, i: int) -> np.ndarray | None:
        """The value of an input that is known at compile time, None for an absent one.

        Raises:
            UnsupportedOperator: It is computed at run time.
        """
        if not self.has_input(i):
            return None
        data = self.input(i).data
        if data is None:
            name = self.onnx.inputs[i].name if self.onnx.inputs[i] is not None else ""  # type: ignore[union-attr]
            raise self.refuse(
                f"its input {i} ({name!r}) is computed at run time, and LiteRT needs it as a constant",
                "export the model with fixed shapes (--input NAME=SHAPE), or make that value a constant in the model",
                attribute=f"input {i}",
            )
        return data

    def static_shape(self, tensor: Tensor) -> tuple[int, ...]:
        """A shape without dynamic dimensions."""
        if not tensor.is_static:
            raise self.refuse(
                f"it needs the shape of {tensor.name!r} at compile time, which is {tensor.shape}",
                "fix that dimension with --input NAME=SHAPE",
            )
        return tuple(d for d in tensor.shape if isinstance(d, int))

    # Attributes

    def integer(self, name: str, default: int = 0) -> int:
        attribute = self.onnx.attributes.get(name)
        return default if attribute is None else attribute.as_int()

    def real(self, name: str, default: float = 0.0) -> float:
        attribute = self.onnx.attributes.get(name)
        return default if attribute is None else attribute.as_float()

    def string(self, name: str, default: str = "") -> str:
        attribute = self.onnx.attributes.get(name)
        return default if attribute is None else attribute.as_string()

    def integers(self, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
        attribute = self.onnx.attributes.get(name)
        return tuple(default) if attribute is None else tuple(attribute.as_ints())

    def axis(self, name: str = "axis", default: int = 0) -> int:
        """An axis attribute of the first input, non-negative."""
        return self.integer(name, default) % max(1, self.x.rank)

    # Making the LiteRT graph

    def emit(
        self, code: str, inputs: Sequence[Tensor | None], out: Tensor | Sequence[Tensor] | None = None, **options: Any
    ) -> Tensor:
        """Append an operator; its result is the node's first output unless `out` says otherwise. Returns its first result."""
        outputs = [self.y] if out is None else [out] if isinstance(out, Tensor) else list(out)
        self.graph.operators.append(Operator(code, list(inputs), outputs, options))
        return outputs[0]

    def const(self, array: Any, dtype: Any = None, hint: str = "const") -> Tensor:
        """A new constant tensor."""
        data = np.asarray(array, dtype)
        return Tensor(f"{self.y.name}/{hint}", tuple(data.shape), data.dtype, data)

    def ints(self, values: Sequence[int], hint: str) -> Tensor:
        """A constant vector of int32, as shapes, axes and paddings are given."""
        return self.const(np.array(values, np.int32).reshape(-1), hint=hint)

    def temp(self, shape: Sequence[Dim], hint: str, dtype: Any = None) -> Tensor:
        """A new computed tensor, of the first output's dtype where none is given."""
        return Tensor(f"{self.y.name}/{hint}", tuple(shape), np.dtype(dtype) if dtype is not None else self.y.dtype)

    def like(self, tensor: Tensor, hint: str, dtype: Any = None) -> Tensor:
        """A new computed tensor of another's shape and dtype."""
        return self.temp(tensor.shape, hint, tensor.dtype if dtype is None else dtype)

    def reshape(self, tensor: Tensor, shape: Sequence[Dim], hint: str = "reshaped", out: Tensor | None = None) -> Tensor:
        """The tensor in another shape; nothing is emitted where it has it already and no `out` is asked for."""
        shape = tuple(shape)
        if tensor.shape == shape and out is None:
            return tensor
        sizes = [math.prod(s) for s in (tensor.shape, shape) if all(isinstance(d, int) for d in s)]  # type: ignore[type-var]
        if len(set(sizes)) > 1:
            raise self.refuse(
                f"{tensor.name!r} has the shape {tensor.shape} where {shape} fits", "check the shapes that the model declares"
            )
        if tensor.data is not None and out is None:
            return self.const(tensor.data.reshape([int(d) for d in shape]), hint=hint)
        target = self.ints([d if isinstance(d, int) else -1 for d in shape], "shape")
        if sum(not isinstance(d, int) for d in shape) > 1:
            if tensor.shape != shape:
                raise self.refuse(
                    f"a reshape to {shape} has more than one dynamic dimension", "fix one of them with --input NAME=SHAPE"
                )
            target = self.emit("SHAPE", [tensor], self.temp((len(shape),), "shape", np.int32), outType=np.dtype(np.int32))
        return self.emit("RESHAPE", [tensor, target], out or self.temp(shape, hint, tensor.dtype))

    def refuse(self, why: str, fix: str, attribute: str | None = None) -> UnsupportedOperator:
        """The error to raise when this node cannot be lowered."""
        where = f"node {self.onnx.name or self.onnx.outputs[0].name!r}, operator {self.op_type}"
        return UnsupportedOperator(
            f"{self.op_type} cannot be lowered to LiteRT: {why}", where=where + (f", {attribute}" if attribute else ""), fix=fix
        )
