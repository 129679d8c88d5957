"""Operators that work on rows agree on one shape, so that fewer reshapes stand between them.

Before:  [1, 56, 56, 96] → RESHAPE [1, 3136, 96] → MEAN, SUB, FULLY_CONNECTED, GELU … → ADD → RESHAPE [1, 56, 56, 96] → …
After:   [1, 56, 56, 96] → MEAN, SUB, FULLY_CONNECTED, GELU … → ADD → …

What acts on the last axis alone, or on each number, does not care how the rows before it are counted. Such operators, and the
RESHAPEs between them that keep the last axis, form a region. All of it can have any of the shapes in sight: the one is taken
that leaves the fewest RESHAPEs, where rows come from elsewhere (a convolution, a transpose) or go there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from edgekit.layout.reshape import blocks
from edgekit.litert.graph import Dim, Graph, Operator, Tensor
from edgekit.litert.reshape_rules import REDUCTIONS, UNARY

BINARY = {"ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "SQUARED_DIFFERENCE", "SUB"}
MAX_RANK = 4
"""Of a shape that is newly given to operators: all kernels broadcast up to it."""

Shape = tuple[Dim, ...]


@dataclass(eq=False)
class _Rows:
    """The same rows in several shapes: a tensor and what RESHAPEs make of it.

    Args:
        tensors: In the order in which they are made; the first is made by another operator than those RESHAPEs.
        reshapes: The RESHAPEs that make the others.
    """

    tensors: list[Tensor]
    reshapes: list[Operator] = field(default_factory=list)


@dataclass(eq=False)
class _Region:
    operators: list[Operator] = field(default_factory=list)
    rows: dict[_Rows, None] = field(default_factory=dict)

    @cached_property
    def inside(self) -> set[int]:
        """The ids of its operators."""
        return {id(op) for op in self.operators}


def agree_on_shapes(graph: Graph) -> bool:
    """Apply it to a graph, in place. Returns whether anything changed."""
    view = _View(graph)
    changed = False
    for region in view.regions():
        lead = _best(region, view)
        if lead is not None:
            _rewrite(region, lead, view)
            changed = True
    if changed:
        graph.operators = view.written()
    return changed


class _View:
    """The rows of a graph, and which operators work on them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producers = graph.producers()
        self.users = graph.consumers()
        self.outputs = set(graph.outputs)
        self.of: dict[Tensor, _Rows] = {}
        self.gone: set[int] = set()
        self.after: dict[int, list[Operator]] = {}  # operators to be placed behind another one; 0 for the start
        for tensor in graph.inputs:
            self._add(tensor)
        for op in graph.operators:
            source = op.inputs[0] if op.code == "RESHAPE" else None
            if source in self.of and _keeps_rows(op):
                rows = self.of[source]
                rows.tensors.append(op.outputs[0])
                rows.reshapes.append(op)
                self.of[op.outputs[0]] = rows
            else:
                for out in op.outputs:
                    self._add(out)

    def _add(self, tensor: Tensor) -> None:
        if tensor.rank > 1 and tensor.is_static and tensor.dtype == np.float32 and tensor.quantization is None:
            self.of[tensor] = _Rows([tensor])

    def regions(self) -> list[_Region]:
        """Operators on rows, connected by what they take and give."""
        joined: dict[_Rows, _Rows] = {}

        def root(rows: _Rows) -> _Rows:
            while (above := joined.get(rows, rows)) is not rows:
                joined[rows] = joined.get(above, above)  # the way is shorter next time
                rows = above
            return rows

        working = [op for op in self.graph.operators if _works_on_rows(op) and all(t in self.of for t in _row_tensors(op))]
        for op in working:
            first, *others = (root(self.of[t]) for t in _row_tensors(op))
            joined |= dict.fromkeys(others, first)
        regions: dict[_Rows, _Region] = {}
        for op in working:
            region = regions.setdefault(root(self.of[op.outputs[0]]), _Region())
            region.operators.append(op)
            region.rows |= dict.fromkeys(self.of[t] for t in _row_tensors(op))
        return [region for region in regions.values() if any(rows.reshapes for rows in region.rows)]

    def needed(self, rows: _Rows, region: _Region) -> list[Tensor]:
        """Results of the graph, and a tensor of each further shape in which others than the region take the rows.

        A RESHAPE takes any shape.
        """
        found = [t for t in rows.tensors if t in self.outputs]
        shapes = {t.shape for t in found}
        for tensor in rows.tensors:
            users = (op for op in self.users.get(tensor, ()) if id(op) not in region.inside and op.code != "RESHAPE")
            if tensor.shape not in shapes and any(users):
                found.append(tensor)
                shapes.add(tensor.shape)
        return found

    def is_made_inside(self, rows: _Rows, region: _Region) -> bool:
        maker = self.producers.get(rows.tensors[0])
        return maker is not None and id(maker) in region.inside

    def place(self, op: Operator, maker: Operator | None) -> None:
        self.after.setdefault(id(maker) if maker is not None else 0, []).append(op)

    def written(self) -> list[Operator]:
        """The operators in their order, with those that were placed and without those that are gone."""
        found = list(self.after.get(0, []))
        for op in self.graph.operators:
            if id(op) not in self.gone:
                found.append(op)
            found += self.after.get(id(op), [])
        return found


def _keeps_rows(op: Operator) -> bool:
    source, result = op.inputs[0], op.outputs[0]
    if source is None or not result.is_static or result.rank < 2 or result.quantization is not None:
        return False
    return source.shape[-1] == result.shape[-1] and 0 not in result.shape


def _works_on_rows(op: Operator) -> bool:
    """Whether the operator does the same to every row, in whatever shape they are."""
    x, y = op.inputs[0] if op.inputs else None, op.outputs[0]
    if op.code in UNARY or op.code == "SOFTMAX":
        return op.code not in ("DEQUANTIZE", "QUANTIZE")
    if op.code == "FULLY_CONNECTED":
        return bool(op.options.get("keepNumDims")) and all(t is None or t.data is not None for t in op.inputs[1:])
    if op.code in REDUCTIONS:
        axes = op.inputs[1].data if op.inputs[1] is not None else None
        along = x is not None and axes is not None and {int(a) % x.rank for a in axes.reshape(-1)} == {x.rank - 1}
        return along and bool(op.options.get("keepDims"))
    if op.code not in BINARY:
        return False
    return all(t is not None and (t.data is not None or t.shape[:-1] == y.shape[:-1]) for t in op.inputs)


def _row_tensors(op: Operator) -> Iterable[Tensor]:
    places = op.inputs if op.code in BINARY else op.inputs[:1]
    return [t for t in (*places, *op.outputs) if t is not None and t.data is None]


def _best(region: _Region, view: _View) -> Shape | None:
    """The leading axes that leave the fewest RESHAPEs; None where there are no fewer than now."""
    present = Counter(op.outputs[0].shape[:-1] for op in region.operators)
    shapes = dict.fromkeys(
        [*(lead for lead, _ in present.most_common()), *(t.shape[:-1] for r in region.rows for t in r.tensors)]
    )
    best, least = None, sum(len(rows.reshapes) for rows in region.rows)
    for lead in shapes:
        if len(lead) >= MAX_RANK or not all(_fits(op, lead) for op in region.operators):
            continue
        cost = sum(_reshapes(rows, lead, region, view) for rows in region.rows)
        if cost < least:
            best, least = lead, cost
    return best


def _fits(op: Operator, lead: Shape) -> bool:
    """Whether the constants of an operator can be put beside rows of that shape."""
    shape = op.outputs[0].shape
    return op.code not in BINARY or all(t is None or t.data is None or _beside(t, shape, lead) is not None for t in op.inputs)


def _reshapes(rows: _Rows, lead: Shape, region: _Region, view: _View) -> int:
    """How many RESHAPEs the rows need where the region has that shape."""
    first, needed = rows.tensors[0], view.needed(rows, region)
    shape, shapes = (*lead, first.shape[-1]), {t.shape for t in needed}
    if view.is_made_inside(rows, region):
        return len(needed) - (shape in shapes)
    made = [t for t in needed if t is not first and (t in view.outputs or t.shape != first.shape)]
    maker = view.producers.get(first)
    if first not in needed and maker is not None and maker.code == "RESHAPE":  # which can give any shape itself
        return max(0, len(made) + (shape not in shapes) - 1)
    return len(made) + (shape not in shapes | {first.shape})


def _beside(constant: Tensor, shape: Shape, lead: Shape) -> np.ndarray | None:
    """A constant that broadcasts against a shape, as it broadcasts against the same rows in another; None where it cannot."""
    assert constant.data is not None
    data = constant.data.reshape((1,) * (len(shape) - constant.rank) + constant.data.shape)
    paired = blocks(shape[:-1], lead)
    if data.ndim != len(shape) or paired is None:
        return None
    result = [1] * len(lead)
    for left, right in paired:
        if all(data.shape[a] == shape[a] for a in left):
            for a in right:
                result[a] = int(lead[a])
        elif any(data.shape[a] != 1 for a in left):
            return None
    return data.reshape(*result, data.shape[-1])


def _rewrite(region: _Region, lead: Shape, view: _View) -> None:
    held: dict[_Rows, Tensor] = {}  # in the region's shape
    before = {id(op): op.outputs[0].shape for op in region.operators}
    for rows in region.rows:
        held[rows] = _reshaped(rows, lead, region, view)
    for op in region.operators:
        shape = before[id(op)]
        for i, tensor in enumerate(op.inputs if op.code in BINARY else op.inputs[:1]):
            if tensor is None:
                continue
            if tensor.data is None:
                op.inputs[i] = held[view.of[tensor]]
            elif tensor.rank > len(lead) + 1 or any(d != 1 for d in tensor.shape[:-1]):
                data = _beside(tensor, shape, lead)
                assert data is not None  # _fits has seen to it
                op.inputs[i] = Tensor(f"{tensor.name}/rows", data.shape, tensor.dtype, data)
        if op.code in REDUCTIONS:
            axis = np.array([len(lead)], np.int32)
            op.inputs[1] = Tensor(f"{op.outputs[0].name}/axis", axis.shape, axis.dtype, axis)


def _reshaped(rows: _Rows, lead: Shape, region: _Region, view: _View) -> Tensor:
    """Make the rows in the region's shape and in those that others need. Returns the former."""
    first, needed = rows.tensors[0], view.needed(rows, region)
    maker, shape, base = view.producers.get(first), (*lead, first.shape[-1]), first
    if view.is_made_inside(rows, region):
        assert maker is not None
        fitting = next((t for t in needed if t.shape == shape), None)
        base = fitting or (Tensor(f"{first.name}/rows", shape, first.dtype) if first in needed else first)
        maker.outputs[0], base.shape = base, shape
    view.gone |= {id(op) for op in rows.reshapes}
    made = {base.shape: base}
    for tensor in needed:
        if tensor is not base and (tensor in view.outputs or tensor.shape not in made):
            _place_reshape(view, base, tensor, maker)
            made.setdefault(tensor.shape, tensor)
    if shape not in made:
        made[shape] = Tensor(f"{first.name}/rows", shape, first.dtype)
        _place_reshape(view, base, made[shape], maker)
    for tensor in rows.tensors:
        for op in view.users.get(tensor, ()):
            if id(op) not in region.inside and id(op) not in view.gone:
                op.inputs = [made.get(tensor.shape, base) if t is tensor else t for t in op.inputs]
    return made[shape]


def _place_reshape(view: _View, source: Tensor, result: Tensor, maker: Operator | None) -> None:
    target = np.array(result.shape, np.int32)
    shape = Tensor(f"{result.name}/shape", target.shape, target.dtype, target)
    view.place(Operator("RESHAPE", [source, shape], [result]), maker)
