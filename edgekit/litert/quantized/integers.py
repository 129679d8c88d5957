"""Which float tensors of a graph exist as int8, and the operators written so far: the state of the walk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.litert.graph import Graph, Operator, Quantization, Tensor
from edgekit.litert.quantized.grid import exact_integers, rounded


class StaysFloat(Exception):
    """Why an operator cannot work on integers: one clause."""


@dataclass(frozen=True)
class Ends:
    """What becomes of float tensors that are seen by nobody but a QUANTIZE, also behind operators that move or choose numbers.

    Args:
        grids: The quantization that it asks for.
        results: The int8 tensor that it makes, where it reads the tensor itself.
        last: Those that end the network: quantized, dequantized and given out.
    """

    grids: dict[Tensor, Quantization]
    results: dict[Tensor, Tensor]
    last: set[Tensor]


class Integers:
    """Operators are read in the order in which they run, and written with `keep` and `emit`.

    Args:
        graph: The graph that is walked.
        ends: What becomes of float tensors.
    """

    def __init__(self, graph: Graph, ends: Ends) -> None:
        self.notes: list[str] = []
        self._graph = graph
        self._grids = ends.grids
        self._results = ends.results
        self._last = ends.last
        self._operators: list[Operator] = []
        self._held: dict[Tensor, Tensor] = {}  # float tensor → the int8 tensor that stands for it
        self._floats: set[Tensor] = set(graph.inputs)
        self._made: set[Tensor] = set()
        self._same: dict[Tensor, Tensor] = {}  # integer tensors that turned out to be another one
        self._wide: dict[Tensor, Tensor] = {}  # uint8 tensor → the int8 tensor that it was made of
        self._requantized: dict[tuple[Tensor, int], Tensor] = {}

    # What is known

    def resolve(self, tensor: Tensor | None) -> Tensor | None:
        while tensor in self._same:
            tensor = self._same[tensor]
        return tensor

    def hold(self, tensor: Tensor, integers: Tensor) -> None:
        """Remember that `integers` stands for a float tensor."""
        self._held[tensor] = integers

    def is_held(self, tensor: Tensor | None) -> bool:
        return tensor in self._held

    def grid_of_result(self, tensor: Tensor) -> Quantization | None:
        """The quantization that a float tensor ends in."""
        return self._grids.get(tensor)

    def is_final(self, tensor: Tensor | None) -> bool:
        """Whether nobody but the operator at hand sees a float tensor, and what becomes of it is quantized."""
        return tensor in self._grids

    def is_last(self, tensor: Tensor) -> bool:
        """Whether a float tensor is given out by the network after it was quantized."""
        return tensor in self._last

    # For the rules

    def wanted(self, op: Operator) -> Quantization:
        """The quantization of an operator's result."""
        grid = self._grids.get(op.outputs[0])
        if grid is None:
            raise StaysFloat("its result is not quantized, or is also used in float")
        return grid

    def integers(self, tensor: Tensor | None) -> Tensor:
        """The int8 tensor that stands for a float one, computed or constant."""
        found = self.find(tensor)
        if found is None:
            name = tensor.name if tensor is not None else ""
            raise StaysFloat(f"its operand {name!r} is not quantized to int8 with one scale")
        return found

    def find(self, tensor: Tensor | None) -> Tensor | None:
        """The same, or None."""
        if tensor is None:
            return None
        if tensor not in self._held and tensor.data is not None and tensor.quantization is not None:
            made = exact_integers(tensor) if tensor.quantization.is_per_tensor else None
            if made is not None:
                self._held[tensor] = Tensor(tensor.name, tensor.shape, made.dtype, made, tensor.quantization)
        return self._held.get(tensor)

    def requantized(self, tensor: Tensor, grid: Quantization) -> Tensor:
        """A float tensor as integers of that grid, rounded once."""
        held = self.find(tensor)
        if held is not None and held.quantization is not None and held.quantization.same_as(grid):
            return held
        key = tensor, id(grid)
        if key not in self._requantized:
            if tensor.data is not None:
                data = rounded(tensor.data, grid)
                self._requantized[key] = Tensor(f"{tensor.name}/int8", tensor.shape, data.dtype, data, grid)
            else:
                made = Tensor(f"{tensor.name}/requantized", tensor.shape, np.dtype(np.int8), None, grid)
                self._write(Operator("QUANTIZE", [self._float(tensor) if held is None else held], [made]))
                self._requantized[key] = made
        return self._requantized[key]

    def result(self, tensor: Tensor, grid: Quantization) -> Tensor:
        """The int8 tensor that is to stand for a float result."""
        direct = self._results.get(tensor)
        if direct is not None and direct.quantization is not None and direct.quantization.same_as(grid):
            made = direct
        else:
            made = Tensor(f"{tensor.name}/int8", tensor.shape, np.dtype(np.int8), None, grid)
        self._held[tensor] = made
        return made

    def emit(self, code: str, inputs: list[Tensor | None], outputs: list[Tensor], options: dict[str, Any]) -> None:
        self._write(Operator(code, inputs, outputs, options))

    def keep(self, op: Operator) -> None:
        """An operator stays as it is, in float where it was."""
        op.inputs = [self._float(t) for t in op.inputs]
        self._write(op)
        self._floats.update(op.outputs)

    def quantize(self, op: Operator) -> None:
        """A QUANTIZE: nothing where the integers exist, a change of scale where others do."""
        source, result = op.inputs[0], op.outputs[0]
        assert source is not None
        held = self.find(source) if source.dtype == np.float32 else self._wide.get(source)
        if result in self._made:
            return
        grid = held.quantization if held is not None and held.dtype == result.dtype else None
        if held is not None and grid is not None and grid.same_as(result.quantization) and result not in self._graph.outputs:
            self._same[result] = held
            return
        if source.dtype == np.int8 and result.dtype == np.uint8:
            self._wide[result] = source
        self._write(Operator("QUANTIZE", [held or source], [result], op.options))

    # The end

    def finish(self) -> list[Operator]:
        """All operators, the graph's float outputs included."""
        for i, tensor in enumerate(self._graph.outputs):
            final = self.resolve(tensor)
            assert final is not None
            self._graph.outputs[i] = final
            self._float(final)
        return self._operators

    def name_after_floats(self) -> None:
        """An integer tensor takes the name of the float tensor that it stands for, where that one is gone."""
        present = set(self._graph.tensors())
        for tensor, integers in self._held.items():
            if tensor not in present and integers.name == f"{tensor.name}/int8":
                integers.name = tensor.name

    def _float(self, tensor: Tensor | None) -> Tensor | None:
        """A tensor as a float operator reads it."""
        if tensor in self._held and tensor not in self._floats and tensor is not None and tensor.data is None:
            self._write(Operator("DEQUANTIZE", [self._held[tensor]], [tensor]))
            self._floats.add(tensor)
        return tensor

    def _write(self, op: Operator) -> None:
        self._operators.append(op)
        self._made.update(op.outputs)
