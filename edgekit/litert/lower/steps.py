"""Arithmetic in several steps: elementwise operators with names, shapes and dtypes of what they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.litert.graph import Dim, Tensor
from edgekit.litert.lower.table import Node

TESTS = frozenset("EQUAL NOT_EQUAL GREATER GREATER_EQUAL LESS LESS_EQUAL".split())


class Steps:
    """Emits operators for a node. Operands broadcast; a number stands for a constant of the other operand's dtype."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._count = 0

    def __call__(self, code: str, left: Tensor, right: Tensor | float, out: Tensor | None = None) -> Tensor:
        """An operator of two operands; a comparison gives bool."""
        other = right if isinstance(right, Tensor) else self.constant(right, left.dtype)
        dtype = np.bool_ if code in TESTS else left.dtype
        return self.node.emit(code, [left, other], out or self.temp(broadcast(left.shape, other.shape), dtype))

    def one(self, code: str, x: Tensor) -> Tensor:
        return self.node.emit(code, [x], self.temp(x.shape, x.dtype))

    def select(self, condition: Tensor, left: Tensor, right: Tensor | float, out: Tensor | None = None) -> Tensor:
        """`left` where the condition holds, else `right`; nothing is emitted where it is known for all of it."""
        other = right if isinstance(right, Tensor) else self.constant(right, left.dtype)
        shape = broadcast(condition.shape, broadcast(left.shape, other.shape))
        known = condition.data
        chosen = None if known is None else left if known.all() else other if not known.any() else None
        if chosen is not None and chosen.shape == shape and out is None:
            return chosen
        return self.node.emit("SELECT_V2", [condition, left, other], out or self.temp(shape, left.dtype))

    def cast(self, x: Tensor, dtype: Any, out: Tensor | None = None) -> Tensor:
        """The same values in another dtype."""
        if x.dtype == dtype and out is None:
            return x
        return self.node.emit("CAST", [x], out or self.temp(x.shape, dtype), inDataType=x.dtype, outDataType=np.dtype(dtype))

    def bits(self, x: Tensor, dtype: Any) -> Tensor:
        """The same bits as another dtype of the same size."""
        if x.dtype == dtype:
            return x
        if x.data is not None:
            return self.constant(x.data.view(dtype), dtype)
        return self.node.emit("BITCAST", [x], self.temp(x.shape, dtype))

    def slice(self, x: Tensor, begin: Sequence[int], lengths: Sequence[Dim]) -> Tensor:
        """A part of a tensor; a dimension that is not a number is taken whole."""
        sizes = [d if isinstance(d, int) else -1 for d in lengths]
        inputs = [x, self.node.ints(begin, self._name("begin")), self.node.ints(sizes, self._name("size"))]
        return self.node.emit("SLICE", inputs, self.temp(lengths, x.dtype))

    def constant(self, value: Any, dtype: Any = np.float32) -> Tensor:
        return self.node.const(value, dtype, self._name("c"))

    def temp(self, shape: Sequence[Dim], dtype: Any) -> Tensor:
        return self.node.temp(shape, self._name("step"), dtype)

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}{self._count}"


def broadcast(left: Sequence[Dim], right: Sequence[Dim]) -> tuple[Dim, ...]:
    """The shape of what operands of these shapes make together; a dimension without a number is one that both have."""
    rank = max(len(left), len(right))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in (left, right)]
    return tuple(b if a == 1 else a for a, b in zip(*padded, strict=True))
