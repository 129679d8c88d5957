"""A LiteRT graph in memory: what lowering makes, peephole passes rewrite, and the writer serializes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Dim = int | str


@dataclass(frozen=True, eq=False)
class Quantization:
    """What stored integers stand for: real = scale * (stored - zero point).

    Args:
        scale: float32, one for all or one per place along `axis`.
        zero_point: int64, as many.
        axis: The axis of the tensor that several scales belong to.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int = 0

    @property
    def is_per_tensor(self) -> bool:
        return self.scale.size == 1

    def same_as(self, other: Quantization | None) -> bool:
        """Whether both map every integer to the same number."""
        return (
            other is not None
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
            and (self.is_per_tensor or self.axis == other.axis)
        )


@dataclass(eq=False)
class Tensor:
    """A tensor of the graph. A str in `shape` is a dynamic dimension; `data` makes it a constant.

    `quantization` says what the integers of a quantized tensor stand for. A float32 constant has it where it was dequantized at
    compile time: its values can be written as such integers (int8 where there is a zero point for uint8).
    A matrix of the dtype int4 has two integers in each byte of its data, and in `block_scales` (float16, rows x blocks) what each
    block of its second axis is multiplied by.
    """

    name: str
    shape: tuple[Dim, ...]
    dtype: np.dtype
    data: np.ndarray | None = None
    quantization: Quantization | None = None
    block_scales: Tensor | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        return all(isinstance(d, int) for d in self.shape)


@dataclass(eq=False)
class Operator:
    """One builtin operator. `code` is its name in the schema; `options` holds the fields of its options table.

    A value of an option may be the name of an enumerator (`"SAME"`) or a `Graph` (a subgraph to run).
    """

    code: str
    inputs: list[Tensor | None]
    outputs: list[Tensor]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def activation(self) -> str:
        """The activation it applies to its result, `NONE` where it applies none."""
        return self.options.get("fusedActivationFunction", "NONE")


@dataclass(eq=False)
class Graph:
    """Operators in the order in which they run."""

    name: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    operators: list[Operator] = field(default_factory=list)

    def producers(self) -> dict[Tensor, Operator]:
        """Which operator makes each computed tensor."""
        return {out: op for op in self.operators for out in op.outputs}

    def consumers(self) -> dict[Tensor, list[Operator]]:
        """Which operators take each tensor, once per use."""
        users: dict[Tensor, list[Operator]] = {}
        for op in self.operators:
            for tensor in op.inputs:
                if tensor is not None:
                    users.setdefault(tensor, []).append(op)
        return users

    def tensors(self) -> list[Tensor]:
        """All tensors in use: inputs, then in the order in which operators mention them."""
        seen: dict[Tensor, None] = dict.fromkeys(self.inputs)
        for op in self.operators:
            seen.update(dict.fromkeys(t for t in op.inputs if t is not None))
            seen.update(dict.fromkeys(t.block_scales for t in op.inputs if t is not None and t.block_scales is not None))
            seen.update(dict.fromkeys(op.outputs))
        seen.update(dict.fromkeys(self.outputs))
        return list(seen)

    def with_subgraphs(self) -> Iterator[Graph]:
        """This graph and those that its operators run, each once, callers first."""
        done: dict[int, Graph] = {}
        waiting = [self]
        while waiting:
            graph = waiting.pop(0)
            if id(graph) in done:
                continue
            done[id(graph)] = graph
            yield graph
            waiting += [v for op in graph.operators for v in op.options.values() if isinstance(v, Graph)]

    def operator_counts(self) -> dict[str, int]:
        """Operators by name, subgraphs included, the most frequent first."""
        counts = Counter(op.code for graph in self.with_subgraphs() for op in graph.operators)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
