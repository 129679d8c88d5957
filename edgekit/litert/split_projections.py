"""A projection whose result is only ever taken in slices is made in slices.

Before:  MatMul(x, W) → [Add(b)] → [Reshape to (…, 3, heads, size)] → [Transpose] → Slice, Slice, Slice (or Split, or
         Gather of one place each)
After:   MatMul(x, Wq) → [Add(bq)] → Reshape → Transpose;   MatMul(x, Wk) → …;   MatMul(x, Wv) → …

Attention layers are written so (one matrix for query, key and value). The arithmetic is the same and the copies are gone.

Applies when W (two-dimensional) and b are constant, everything between has one user, and the slices take whole ranges with step 1
along one axis that comes from W's columns and together are no larger than W.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit.layout import constant, dims, rank
from edgekit.layout import reshape as reshaping
from edgekit.layout.permutation import Perm, held_shape, identity, inverse, restrict
from edgekit.layout.rules.shape import transpose_perm
from edgekit.litert.decompose.builder import Builder, take_over


@dataclass(frozen=True)
class _Projection:
    """What makes a value: x · weights + bias, its columns read as `factors` from axis `first` on, then transposed by `perm`."""

    x: ir.Value
    weights: np.ndarray
    bias: np.ndarray | None
    factors: tuple[int, ...]
    first: int
    perm: Perm

    def factor(self, axis: int) -> int:
        """Which factor of the columns an axis of the value is; negative where it is none."""
        return self.perm[axis] - self.first


def split_projections(model: ir.Model) -> None:
    """Apply it wherever it fits, in place."""
    graph = model.graph
    sources = dict.fromkeys(node.inputs[0] for node in graph if node.op_type in ("Slice", "Split", "Gather"))
    for value in [v for v in sources if v is not None]:
        takers = [(user, _ranges(user)) for user, place in value.uses() if place == 0]
        if value.is_graph_output() or len(takers) != len(value.uses()) or any(r is None for _, r in takers):
            continue
        projection = _projection(value)
        if projection is None:
            continue
        axes = {axis for _, ranges in takers if ranges for axis, _, _ in ranges}
        taken = sum(stop - start for _, ranges in takers if ranges for _, start, stop in ranges)
        axis = next(iter(axes))
        factor = projection.factor(axis)
        if len(axes) != 1 or factor < 0 or taken > projection.factors[factor]:
            continue
        for user, ranges in takers:
            if ranges:
                _replace(graph, user, projection, ranges)


def _ranges(node: ir.Node) -> list[tuple[int, int, int]] | None:
    """(axis, start, stop) of each output, for a Slice or Split along one axis of known size, or a Gather of one place."""
    source = node.inputs[0]
    if source is None or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Gather":
        return _place(node, source)
    shape = dims(source)
    if not shape or any(len(dims(out)) != len(shape) for out in node.outputs):  # of unknown rank
        return None
    if node.op_type == "Split":
        axis = node.attributes["axis"].as_int() % len(shape) if "axis" in node.attributes else 0
        sizes = [dims(out)[axis] for out in node.outputs]
        if not all(isinstance(s, int) for s in sizes):
            return None
        stops = np.cumsum([int(s) for s in sizes]).tolist()
        return [(axis, stop - int(size), stop) for size, stop in zip(sizes, stops, strict=True)]
    if node.op_type != "Slice" or len(node.inputs) < 4:
        return None
    given = [constant(node.inputs[i]) if i < len(node.inputs) and node.inputs[i] is not None else None for i in range(1, 5)]
    starts, ends, axes, steps = given
    if starts is None or ends is None or axes is None or len(axes) != 1 or (steps is not None and steps[0] != 1):
        return None
    axis = int(axes[0]) % len(shape)
    size = shape[axis]
    if not isinstance(size, int):
        return None
    start, stop, _ = slice(int(starts[0]), int(ends[0])).indices(size)
    return [(axis, start, stop)] if stop > start else None


def _place(node: ir.Node, source: ir.Value) -> list[tuple[int, int, int]] | None:
    """The range of a Gather whose index is a constant scalar: the axis is dropped."""
    index, shape = constant(node.inputs[1]), dims(source)
    if index is None or index.ndim or not shape:
        return None
    axis = (node.attributes["axis"].as_int() if "axis" in node.attributes else 0) % len(shape)
    size = shape[axis]
    if not isinstance(size, int):
        return None
    place = int(index) % size
    return [(axis, place, place + 1)]


def _projection(value: ir.Value) -> _Projection | None:
    """Follow a value up through a Transpose, a Reshape and an Add to a MatMul with constant weights."""
    node, perm = value.producer(), identity(rank(value))
    if node is not None and node.op_type == "Transpose" and node.inputs[0] is not None:
        perm, value = transpose_perm(node), node.inputs[0]
        node = only_maker(value)
    shape, first = dims(value), rank(value) - 1
    if node is not None and node.op_type == "Reshape" and node.inputs[0] is not None:
        inner = node.inputs[0]
        blocks = reshaping.blocks(dims(inner), shape)
        last = None if blocks is None else next((out for source, out in blocks if source == (rank(inner) - 1,)), None)
        if last is None or last[-1] != len(shape) - 1 or last != tuple(range(last[0], len(shape))):
            return None
        first, node = last[0], only_maker(inner)
    bias = None
    if node is not None and node.op_type == "Add":
        for i in (0, 1):
            added, source = constant(node.inputs[i]), node.inputs[1 - i]
            if added is not None and source is not None and added.size == dims(source)[-1] == added.shape[-1]:
                bias, node = added.reshape(-1), only_maker(source)
                break
        else:
            return None
    if node is None or node.op_type != "MatMul" or node.domain not in ("", "ai.onnx") or node.inputs[0] is None:
        return None
    weights = constant(node.inputs[1])
    if weights is None or weights.ndim != 2:
        return None
    factors = tuple(int(d) for d in shape[first:])
    return _Projection(node.inputs[0], weights, bias, factors, first, perm)


def only_maker(value: ir.Value) -> ir.Node | None:
    """The node that makes a value which one node alone takes."""
    return value.producer() if len(value.uses()) == 1 and not value.is_graph_output() else None


def only_user(value: ir.Value) -> ir.Node | None:
    """The one node of ONNX that takes a value, if nothing else does."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    return uses[0][0] if uses[0][0].domain in ("", "ai.onnx") else None


def _replace(graph: ir.Graph, node: ir.Node, projection: _Projection, ranges: list[tuple[int, int, int]]) -> None:
    b = Builder(node)
    columns = np.arange(projection.weights.shape[1]).reshape(projection.factors)
    lead = dims(projection.x)[:-1]
    for out, (axis, start, stop) in zip(node.outputs, ranges, strict=True):
        chosen = np.take(columns, np.arange(start, stop), projection.factor(axis)).reshape(-1)
        weights = b.const(np.take(projection.weights, chosen, axis=1))
        made = b.op("MatMul", [projection.x, weights], (*lead, len(chosen)), out.dtype)
        if projection.bias is not None:
            made = b.op("Add", [made, b.const(projection.bias[chosen])], dims(made), out.dtype)
        shape, perm = dims(out), projection.perm
        if node.op_type == "Gather":
            shape = (*shape[:axis], 1, *shape[axis:])
        if stop - start == 1:  # that axis is put back last, so that it is in nobody's way
            shape, perm = (*shape[:axis], *shape[axis + 1 :]), restrict(perm, [a for a in range(len(perm)) if a != perm[axis]])
        straight = held_shape(shape, inverse(perm))
        if dims(made) != straight:
            made = b.reshape(made, straight)
        if perm != identity(len(perm)):
            made = b.transpose(made, perm)
        if dims(made) != dims(out):
            made = b.reshape(made, dims(out))
        take_over(out, made)
    graph.remove(node, safe=True)
